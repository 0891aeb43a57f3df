//! Keys in states that forbid or allow their use: inactive, deleted, blocked, compromised, damaged,
//! moved, sealed under an unknown master key. Every function against every state
//! (docs/architecture.md#states). Refusals are recorded with their reason. resolve goes on to the
//! first key that opens.

use std::time::{Duration, Instant};

use postgres::Client;
use uuid::Uuid;

use crate::errors::fails;
use crate::keys::{
    Vault, block, code, damage, decrypt, last_event, new_key, one, project, rotate, rows, store,
    try_rows,
};

/// A function's answer about one key: "SQLSTATE reason". The reason is that of the newest row of
/// the trail.
fn outcome(c: &mut Client, id: &str, sql: &str) -> String {
    let code = code(c, sql);
    format!("{code} {}", last_event(c, id))
}

fn call(function: &str, id: &str) -> String {
    match function {
        "rotate" => rotate(id),
        "activate" => format!("SELECT watchllm.set_provider_key_active('{id}', true)"),
        "deactivate" => format!("SELECT watchllm.set_provider_key_active('{id}', false)"),
        function => format!("SELECT watchllm.{function}_provider_key('{id}')"),
    }
}

/// The failure reason that `decrypt_provider_keys` answers.
fn reason(c: &mut Client, id: &str) -> String {
    one(
        c,
        &format!(
            "SELECT failure_reason FROM watchllm.decrypt_provider_keys(ARRAY['{id}']::uuid[])"
        ),
    )
}

fn resolve(project: &str) -> String {
    format!("SELECT key_version FROM watchllm.resolve_provider_key('{project}', 'openai')")
}

/// A project with one key of two versions.
fn two_versions(c: &mut Client) -> (String, String) {
    let project = project(c);
    let id = store(c, &project, "openai", &new_key());
    one(c, &rotate(&id));
    (project, id)
}

#[test]
fn an_inactive_key_does_not_open_but_can_be_kept_up() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, id) = &two_versions(c);
    one(c, &call("deactivate", id));
    assert_eq!(last_event(c, id), "deactivate|-");
    assert_eq!(outcome(c, id, &decrypt(id)), "42000 decrypt|inactive");
    assert_eq!(reason(c, id), "inactive");
    assert_eq!(code(c, &resolve(p)), "02000");
    for (function, expected) in [
        ("validate", "00000 validate|-"),
        ("rotate", "00000 rotate|-"),
        ("rollback", "00000 rollback|-"),
        ("deactivate", "00000 deactivate|-"),
        ("activate", "00000 activate|-"),
        ("decrypt", "00000 decrypt|-"),
        ("deactivate", "00000 deactivate|-"),
        ("delete", "00000 delete|-"),
    ] {
        assert_eq!(outcome(c, id, &call(function, id)), expected, "{function}");
    }
}

#[test]
fn a_deleted_key_is_gone_for_every_function() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, id) = &two_versions(c);
    one(c, &call("delete", id));
    for function in
        ["decrypt", "validate", "rotate", "rollback", "activate", "deactivate", "delete"]
    {
        let refused = try_rows(c, &call(function, id)).expect_err(function);
        assert_eq!(
            (refused.code().code(), refused.message()),
            ("02000", "no such provider key"),
            "{function}"
        );
        assert_eq!(last_event(c, id), format!("{function}|deleted"));
    }
    assert_eq!(reason(c, id), "deleted");
    assert_eq!(code(c, &resolve(p)), "02000");
    assert_eq!(
        rows(c, &format!("SELECT access_type FROM watchllm.key_access_history('{id}')")).len(),
        11
    );
}

#[test]
fn a_blocked_key_does_not_open_even_after_rotation() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, id) = &two_versions(c);
    block(c, id);
    for _ in 0..2 {
        assert_eq!(outcome(c, id, &decrypt(id)), "42000 decrypt|blocked");
        assert_eq!(outcome(c, id, &call("validate", id)), "42000 validate|blocked");
        assert_eq!(outcome(c, id, &resolve(p)), "42000 decrypt|blocked");
        assert_eq!(reason(c, id), "blocked");
        assert_eq!(outcome(c, id, &rotate(id)), "00000 rotate|-");
    }
    assert_eq!(outcome(c, id, &call("delete", id)), "00000 delete|-");
    assert_eq!(outcome(c, id, &decrypt(id)), "02000 decrypt|deleted");
}

fn compromise(c: &mut Client, id: &str) {
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_versions SET compromised_at = now()
        WHERE provider_key_id = '{id}' AND retired_at IS NULL;
        UPDATE watchllm.provider_key_records SET compromised_at = now() WHERE id = '{id}'"
        ),
    );
}

#[test]
fn a_compromised_key_opens_until_it_is_rotated_and_never_returns() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, id) = &two_versions(c);
    compromise(c, id);
    assert_eq!(outcome(c, id, &decrypt(id)), "00000 decrypt|-");
    assert_eq!(outcome(c, id, &call("validate", id)), "00000 validate|-");
    assert_eq!(one(c, &resolve(p)), "2");
    assert_eq!(reason(c, id), "-");
    let flag = format!(
        "SELECT compromised_at IS NOT NULL FROM watchllm.provider_key_records WHERE id = '{id}'"
    );
    assert_eq!(one(c, &flag), "t");
    assert_eq!((one(c, &rotate(id)), one(c, &flag)), ("3".into(), "f".into()));
    assert_eq!(
        outcome(c, id, &format!("SELECT watchllm.rollback_provider_key('{id}', 2)")),
        "42000 rollback|compromised"
    );
    assert_eq!(one(c, &call("rollback", id)), "1");
    compromise(c, id);
    block(c, id);
    assert_eq!(outcome(c, id, &decrypt(id)), "42000 decrypt|blocked");
}

#[test]
fn opening_a_compromised_key_raises_an_incident() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (_, id) = &two_versions(c);
    compromise(c, id);
    one(c, &decrypt(id));
    let incidents = format!(
        "SELECT count(*) > 0 FROM watchllm.security_incidents WHERE provider_key_id = '{id}'"
    );
    let deadline = Instant::now() + Duration::from_secs(15);
    while one(c, &incidents) == "f" {
        assert!(Instant::now() < deadline, "no incident within 15 s");
        std::thread::sleep(Duration::from_millis(100));
    }
    // One incident, however often it is opened. Its evidence is an event of the trail.
    (0..3).for_each(|_| drop(one(c, &decrypt(id))));
    std::thread::sleep(Duration::from_secs(3));
    let evidence = format!(
        "SELECT i.type || ' ' || l.access_type || ' ' || (i.details ->> 'key_version') FROM watchllm.security_incidents i
         JOIN watchllm.provider_key_access_logs l ON l.id::text = i.details ->> 'event_id' WHERE i.provider_key_id = '{id}'"
    );
    assert_eq!(rows(c, &evidence), ["leaked_key decrypt 2"]);
}

#[test]
fn resolve_falls_through_to_the_first_that_opens() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key, request) = (project(c), new_key(), Uuid::new_v4());
    let mut at = |name: &str, priority: i32| {
        one(
            c,
            &format!(
                "SELECT watchllm.store_provider_key('{p}', 'openai', '{key}', '{name}', {priority})"
            ),
        )
    };
    let (last, second, first) = (at("last", 5), at("second", 5), at("first", 1));
    let resolve =
        format!("SELECT * FROM watchllm.resolve_provider_key('{p}', 'openai', '{request}')");
    assert_eq!(one(c, &resolve), format!("{first}|first|1|1|{key}"));
    block(c, &first);
    assert_eq!(one(c, &resolve), format!("{last}|last|5|1|{key}")); // of equal priority: the older
    damage(c, &last);
    assert_eq!(one(c, &resolve), format!("{second}|second|5|1|{key}"));
    damage(c, &second);
    assert_eq!(code(c, &resolve), "42000"); // the first failure: blocked, though two are damaged
    assert_eq!(
        rows(
            c,
            &format!(
                "SELECT provider_key_id, failure_reason FROM watchllm.provider_key_access_logs
            WHERE request_id = '{request}' ORDER BY seq"
            )
        ),
        [
            format!("{first}|-"),
            format!("{first}|blocked"),
            format!("{last}|-"),
            format!("{first}|blocked"),
            format!("{last}|damaged_envelope"),
            format!("{second}|-"),
            format!("{first}|blocked"),
            format!("{last}|damaged_envelope"),
            format!("{second}|damaged_envelope"),
        ]
    );
    one(c, &format!("SELECT watchllm.set_provider_key_active('{first}', false)"));
    assert_eq!(code(c, &resolve), "XX001");
    assert_eq!(code(c, &resolve.replace("openai", "groq")), "02000");
}

#[test]
fn damaged_moved_and_unknown_envelopes_are_told_apart() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let ids: Vec<String> = (0..3).map(|_| store(c, &p, "openai", &new_key())).collect();
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_versions v SET envelope = o.envelope FROM watchllm.provider_key_versions o
        WHERE v.provider_key_id = '{}' AND o.provider_key_id = '{}'",
            ids[0], ids[1]
        ),
    );
    one(c, &rotate(&ids[1]));
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_versions v SET envelope = o.envelope FROM watchllm.provider_key_versions o
        WHERE v.provider_key_id = '{0}' AND o.provider_key_id = '{0}' AND v.version = 2 AND o.version = 1",
            ids[1]
        ),
    );
    for id in &ids[..2] {
        fails(c, &decrypt(id), "XX001", "Rotate the key");
        assert_eq!(last_event(c, id), "decrypt|damaged_envelope");
    }
    let unknown = &ids[2];
    one(c, &format!("BEGIN; SET LOCAL session_replication_role = replica;
        UPDATE watchllm.provider_key_versions SET master_key_version = 9,
            envelope = overlay(envelope PLACING '\\x0100000009'::bytea FROM 1 FOR 5) WHERE provider_key_id = '{unknown}'; COMMIT"));
    fails(c, &decrypt(unknown), "55000", "keyring");
    assert_eq!(last_event(c, unknown), "decrypt|unknown_master_key");
    let many = format!(
        "SELECT failure_reason FROM watchllm.decrypt_provider_keys(ARRAY['{unknown}']::uuid[])"
    );
    assert_eq!(one(c, &many), "unknown_master_key");
}

#[test]
fn a_flipped_bit_fails_validation_and_is_recorded() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let (id, other) = (&store(c, &p, "openai", &new_key()), &store(c, &p, "openai", &new_key()));
    let validate = |id: &str| format!("SELECT watchllm.validate_provider_key('{id}')");
    assert_eq!((one(c, &validate(id)), last_event(c, id)), ("t".into(), "validate|-".into()));
    damage(c, id);
    assert_eq!(
        (one(c, &validate(id)), last_event(c, id)),
        ("f".into(), "validate|damaged_envelope".into())
    );
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_versions SET fingerprint = set_byte(fingerprint, 0,
        get_byte(fingerprint, 0) # 1) WHERE provider_key_id = '{other}'"
        ),
    );
    assert_eq!(
        (one(c, &validate(other)), last_event(c, other)),
        ("f".into(), "validate|damaged_envelope".into())
    );
}
