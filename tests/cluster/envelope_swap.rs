//! A superuser moves, cuts, flips or replaces envelopes. An envelope opens in no other row
//! (docs/architecture.md#crypto). The refusal is XX001 and is recorded. The key opens again after
//! its own envelope is back.

use crate::server::Server;

/// Two projects with two keys each. The first key has two versions.
fn vault() -> Server {
    let server = Server::with_vault();
    server.psql(
        "postgres",
        "SELECT watchllm.create_project('a') AS a, watchllm.create_project('b') AS b \\gset
         SELECT watchllm.store_provider_key(:'a', 'openai', 'first-key-of-a-1', 'one') AS one \\gset
         SELECT watchllm.store_provider_key(:'a', 'openai', 'second-key-of-a', 'two');
         SELECT watchllm.store_provider_key(:'b', 'openai', 'key-of-b', 'three');
         SELECT watchllm.rotate_provider_key(:'one', 'first-key-of-a-2');
         CREATE TABLE kept AS SELECT * FROM watchllm.provider_key_versions;",
    );
    server
}

const LAST: &str = "SELECT access_type || ' ' || coalesce(failure_reason, 'success')
    FROM watchllm.provider_key_access_logs ORDER BY seq DESC LIMIT 1";

fn call(function: &str, name: &str) -> String {
    format!(
        "SELECT watchllm.{function}(id) FROM watchllm.provider_key_records WHERE name = '{name}'"
    )
}

/// The envelope of a key's version, as a subquery.
fn envelope(name: &str, version: i32) -> String {
    format!(
        "(SELECT v.envelope FROM kept v JOIN watchllm.provider_key_records r ON r.id = v.provider_key_id
          WHERE r.name = '{name}' AND v.version = {version})"
    )
}

fn put(name: &str, version: i32, envelope: &str) -> String {
    format!(
        "UPDATE watchllm.provider_key_versions v SET envelope = {envelope} FROM watchllm.provider_key_records r
         WHERE r.id = v.provider_key_id AND r.name = '{name}' AND v.version = {version}"
    )
}

/// No function opens the key `one`, each attempt is recorded, and its own envelope opens again.
fn refused(server: &Server, tampering: &str) {
    server.psql("postgres", tampering);
    let result = server.psql_result("postgres", &call("decrypt_provider_key", "one"));
    assert!(
        result.stderr.contains("ERROR:  XX001") && result.stdout.is_empty(),
        "{tampering}: {}",
        result.stderr
    );
    assert_eq!(server.psql("postgres", LAST), "decrypt damaged_envelope", "{tampering}");
    assert_eq!(server.psql("postgres", &call("validate_provider_key", "one")), "f", "{tampering}");
    assert_eq!(server.psql("postgres", LAST), "validate damaged_envelope", "{tampering}");
    let many = "SELECT k.* FROM watchllm.decrypt_provider_keys(ARRAY(
        SELECT id FROM watchllm.provider_key_records WHERE name = 'one')) k";
    let row = server.psql("postgres", many);
    assert!(row.ends_with("||damaged_envelope"), "{tampering}: {row}");
    // the next key by priority is opened instead
    let resolve = "SELECT r.name FROM watchllm.projects p, watchllm.resolve_provider_key(p.id, 'openai') r WHERE p.name = 'a'";
    assert_eq!(server.psql("postgres", resolve), "two", "{tampering}");
    server.psql("postgres", &put("one", 2, &envelope("one", 2)));
    assert_eq!(server.psql("postgres", &call("decrypt_provider_key", "one")), "first-key-of-a-2");
}

#[test]
fn an_envelope_opens_in_no_other_row() {
    let server = vault();
    refused(&server, &put("one", 2, &envelope("two", 1)));
    refused(&server, &put("one", 2, &envelope("three", 1)));
    refused(&server, &put("one", 2, &envelope("one", 1)));
    // the reverse: an older envelope in its own row still opens after a rollback
    server.psql("postgres", &put("one", 1, &envelope("one", 2)));
    let rollback = server.psql_result(
        "postgres",
        "SELECT watchllm.rollback_provider_key(id, 1)
        FROM watchllm.provider_key_records WHERE name = 'one'",
    );
    assert!(rollback.stderr.contains("ERROR:  XX001"), "{}", rollback.stderr);
    assert_eq!(server.psql("postgres", LAST), "rollback damaged_envelope");
}

#[test]
fn a_row_under_another_provider_or_id_does_not_open() {
    let server = vault();
    let provider = |name: &str| {
        format!("UPDATE watchllm.provider_key_records SET provider = '{name}' WHERE name = 'one'")
    };
    for other in ["anthropic", "openai2", "opena"] {
        server.psql("postgres", &provider(other));
        let result = server.psql_result("postgres", &call("decrypt_provider_key", "one"));
        assert!(result.stderr.contains("ERROR:  XX001"), "{other}: {}", result.stderr);
        assert_eq!(server.psql("postgres", LAST), "decrypt damaged_envelope");
    }
    server.psql("postgres", &provider("openai"));
    assert_eq!(server.psql("postgres", &call("decrypt_provider_key", "one")), "first-key-of-a-2");
    // a whole key with all its versions is copied into the attacker's project
    server.psql(
        "postgres",
        "INSERT INTO watchllm.provider_key_records (id, project_id, provider, name, key_hint, priority, active_version,
            active_version_created_at)
         SELECT gen_random_uuid(), b.id, r.provider, 'stolen', r.key_hint, 1, r.active_version, now()
         FROM watchllm.provider_key_records r, watchllm.projects b WHERE r.name = 'one' AND b.name = 'b';
         INSERT INTO watchllm.provider_key_versions
         SELECT s.project_id, s.id, v.version, v.envelope, v.master_key_version, v.fingerprint,
            v.fingerprint_key_version, v.created_at, v.created_by, v.retired_at, v.compromised_at, v.destroyed_at
         FROM kept v JOIN watchllm.provider_key_records r ON r.id = v.provider_key_id AND r.name = 'one',
            watchllm.provider_key_records s WHERE s.name = 'stolen'",
    );
    let result = server.psql_result("postgres", &call("decrypt_provider_key", "stolen"));
    assert!(
        result.stderr.contains("ERROR:  XX001") && result.stdout.is_empty(),
        "{}",
        result.stderr
    );
    assert_eq!(server.psql("postgres", LAST), "decrypt damaged_envelope");
}

#[test]
fn one_flipped_byte_anywhere_is_damage() {
    let server = vault();
    let own = envelope("one", 2);
    let flipped =
        |at: &str| put("one", 2, &format!("set_byte({own}, {at}, get_byte({own}, {at}) # 1)"));
    let last = format!("length({own}) - 1");
    // salt 5-20, nonce 21-32, ciphertext from 33, the tag is the last 16
    for at in [
        "5",
        "20",
        "21",
        "32",
        "33",
        "40",
        &format!("length({own}) - 17"),
        &format!("length({own}) - 16"),
        &last,
    ] {
        refused(&server, &flipped(at));
    }
    // the table itself guards format and master-key version
    for at in ["0", "1", "4"] {
        let result = server.psql_result("postgres", &flipped(at));
        assert!(result.stderr.contains("ERROR:  23514"), "byte {at}: {}", result.stderr);
    }
    let header = "ALTER TABLE watchllm.provider_key_versions DROP CONSTRAINT provider_key_versions_envelope_header";
    server.psql("postgres", header);
    refused(&server, &flipped("0"));
    refused(&server, &flipped("4")); // version 1 ^ 1: no version at all
    server.psql("postgres", &put("one", 2, &format!("set_byte({own}, 4, 9)")));
    let result = server.psql_result("postgres", &call("decrypt_provider_key", "one"));
    assert!(
        result.stderr.contains("ERROR:  55000") && result.stderr.contains("version 9"),
        "{}",
        result.stderr
    );
    assert_eq!(server.psql("postgres", LAST), "decrypt unknown_master_key");
}

#[test]
fn a_cut_or_stretched_envelope_is_damage_and_null_is_refused() {
    let server = vault();
    let own = envelope("one", 2);
    refused(&server, &put("one", 2, &format!("substring({own} for length({own}) - 1)")));
    refused(&server, &put("one", 2, &format!("substring({own} for 50)")));
    refused(&server, &put("one", 2, &format!("{own} || '\\x00'::bytea")));
    refused(
        &server,
        &put("one", 2, &format!("substring({own} for 5) || decode(repeat('00', 60), 'hex')")),
    );
    for impossible in [
        &format!("substring({own} for 49)"),
        "NULL",
        "''",
        &format!("{own} || decode(repeat('00', 4100), 'hex')"),
    ] {
        let result = server.psql_result("postgres", &put("one", 2, impossible));
        assert!(result.stderr.contains("ERROR:  23514"), "{impossible}: {}", result.stderr);
    }
    server.psql(
        "postgres",
        "ALTER TABLE watchllm.provider_key_versions DROP CONSTRAINT provider_key_versions_envelope_header,
            DROP CONSTRAINT provider_key_versions_envelope_length, DROP CONSTRAINT provider_key_versions_destroyed",
    );
    for impossible in
        [&format!("substring({own} for 48)"), &format!("substring({own} for 5)"), "''", "NULL"]
    {
        refused(&server, &put("one", 2, impossible));
    }
}

#[test]
fn canary_and_audit_keys_do_not_pass_for_a_key() {
    let server = vault();
    refused(&server, &put("one", 2, "(SELECT canary FROM watchllm.master_keys)"));
    for kind in ["fingerprint", "mac", "digest"] {
        refused(
            &server,
            &put(
                "one",
                2,
                &format!("(SELECT k.envelope FROM watchllm.audit_keys k WHERE kind = '{kind}')"),
            ),
        );
    }
}

#[test]
fn another_keys_fingerprint_does_not_validate() {
    let server = vault();
    server.psql(
        "postgres",
        "UPDATE watchllm.provider_key_versions v SET fingerprint = k.fingerprint
         FROM kept k, watchllm.provider_key_records r, watchllm.provider_key_records s
         WHERE r.name = 'one' AND v.provider_key_id = r.id AND v.version = 2
           AND s.name = 'two' AND k.provider_key_id = s.id",
    );
    assert_eq!(server.psql("postgres", &call("validate_provider_key", "one")), "f");
    assert_eq!(server.psql("postgres", LAST), "validate damaged_envelope");
}

#[test]
fn the_same_key_stored_twice_shares_nothing_but_its_fingerprint() {
    let server = Server::with_vault();
    server.psql(
        "postgres",
        "SELECT watchllm.create_project('a') AS a \\gset
         SELECT watchllm.store_provider_key(:'a', 'openai', 'the-very-same-key');
         SELECT watchllm.store_provider_key(:'a', 'openai', 'the-very-same-key');",
    );
    let distinct = "SELECT count(DISTINCT substring(envelope from 6 for 16)), count(DISTINCT substring(envelope from 22
        for 12)), count(DISTINCT substring(envelope from 34)), count(DISTINCT fingerprint)
        FROM watchllm.provider_key_versions";
    assert_eq!(server.psql("postgres", distinct), "2|2|2|1");
}
