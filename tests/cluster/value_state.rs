//! A value keeps its state. A leaked or blocked key comes back under another name, by rotating away
//! and back, after it was deleted, in another project. People rotate a key to itself, and store a
//! placeholder or a mask. The key itself stands in the texts of its own call.

use std::time::{Duration, Instant};

use postgres::Client;
use uuid::Uuid;

use crate::import::{SECRET, add, file, import, old_table, sealed_texts};
use crate::keys::{Vault, code, decrypt, new_key, one, project, refusal, rotate, rows, store};
use crate::roles::login;
use crate::server::Server;

/// A key of no known shape.
fn opaque() -> String {
    format!("corp+{}/{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

fn store_named(project: &str, provider: &str, key: &str, name: &str) -> String {
    format!("SELECT watchllm.store_provider_key('{project}', '{provider}', '{key}', '{name}')")
}

fn rotate_to(id: &str, key: &str) -> String {
    format!("SELECT watchllm.rotate_provider_key('{id}', '{key}')")
}

fn report(key: &str, block: bool) -> String {
    format!("SELECT provider_key_id FROM watchllm.report_leaked_key('{key}', 'a scanner', {block})")
}

fn last_refusal(c: &mut Client, project: &str) -> String {
    one(
        c,
        &format!(
            "SELECT access_type, failure_reason FROM watchllm.provider_key_access_logs
             WHERE project_id = '{project}' AND NOT success ORDER BY seq DESC LIMIT 1"
        ),
    )
}

fn soon(c: &mut Client, sql: &str, expected: &str) {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let last = one(c, sql);
        if last == expected {
            return;
        }
        assert!(Instant::now() < deadline, "expected {expected:?}, last {last:?}\n{sql}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_leaked_value_stays_leaked_under_whatever_name() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    for key in [new_key(), opaque()] {
        let p = project(c);
        let id = store(c, &p, "openai", &key);
        one(c, &report(&key, false));
        // rotated to itself, away and back, by a rollback
        assert_eq!(code(c, &rotate_to(&id, &key)), "22023");
        one(c, &rotate(&id));
        assert_eq!(code(c, &rotate_to(&id, &key)), "42000");
        assert_eq!(last_refusal(c, &p), "rotate|compromised");
        let back = format!("SELECT watchllm.rollback_provider_key('{id}', 1)");
        assert_eq!(code(c, &back), "42000");
        // under another name and provider, and by way of another key
        assert_eq!(code(c, &store_named(&p, "openai", &key, "again")), "42000");
        assert_eq!(last_refusal(c, &p), "store|compromised");
        assert_eq!(code(c, &store_named(&p, "groq", &key, "again")), "42000");
        let other = store(c, &p, "xai", &new_key());
        assert_eq!(code(c, &rotate_to(&other, &key)), "42000");
        // by the inbox
        let inbox =
            format!("INSERT INTO watchllm.provider_key_inbox VALUES ('{p}', 'aws', 'i', '{key}')");
        assert_eq!(code(c, &inbox), "42000");
        // deleted and stored again
        one(c, &format!("SELECT watchllm.delete_provider_key('{id}')"));
        assert_eq!(code(c, &store_named(&p, "openai", &key, "reborn")), "42000");
        let error = refusal(c, &store_named(&p, "openai", &key, "reborn"));
        assert!(!error.message().contains(&key) && error.hint().is_some_and(|h| !h.contains(&key)));
    }
}

#[test]
fn a_blocked_value_never_opens_again() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), opaque());
    let id = store(c, &p, "openai", &key);
    // in one breath: the writer has not written the block yet
    one(c, &format!("SELECT watchllm.block_provider_key('{id}', 'suspicious')"));
    one(c, &format!("SELECT watchllm.delete_provider_key('{id}')"));
    assert_eq!(code(c, &store_named(&p, "openai", &key, "again")), "42000");
    assert_eq!(last_refusal(c, &p), "store|blocked");
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(code(c, &store_named(&p, "groq", &key, "again")), "42000");
    // an administrator lifts it, also from a deleted key; after that it is a key as any other
    one(c, &format!("SELECT watchllm.unblock_provider_key('{id}', 'a mistake')"));
    soon(
        c,
        &format!(
            "SELECT blocked_at FROM watchllm.provider_key_usage WHERE provider_key_id = '{id}'"
        ),
        "-",
    );
    let again = one(c, &store_named(&p, "openai", &key, "again"));
    assert_eq!(one(c, &decrypt(&again)), key);
    // reported with block, deleted, stored again
    let (q, other) = (project(c), new_key());
    let second = store(c, &q, "openai", &other);
    one(c, &report(&other, true));
    one(c, &format!("SELECT watchllm.delete_provider_key('{second}')"));
    assert_eq!(code(c, &store_named(&q, "openai", &other, "reborn")), "42000");
}

#[test]
fn a_value_known_elsewhere_is_marked_and_only_the_staff_is_told() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, q, r, key, blocked) = (project(c), project(c), project(c), opaque(), opaque());
    store(c, &p, "openai", &key);
    one(c, &report(&key, false));
    let stopped = store(c, &p, "xai", &blocked);
    one(c, &format!("SELECT watchllm.block_provider_key('{stopped}')"));
    let tenant = login(c, "watchllm_tenant");
    one(c, &format!("SELECT watchllm.add_project_member('{q}', role_name => '{tenant}')"));
    let t = &mut vault.connect(&tenant);
    let other = one(t, &store_named(&q, "openai", &new_key(), "other"));
    let marked = |id: &str| {
        format!(
            "SELECT compromised_at IS NOT NULL FROM watchllm.provider_key_records WHERE id = '{id}'"
        )
    };
    let told = |id: &str| {
        format!(
            "SELECT details ->> 'known_as', project_id FROM watchllm.security_incidents
             WHERE details ->> 'stored_as_key' = '{id}'"
        )
    };
    let clean = one(t, &store_named(&q, "mistral", &opaque(), "clean"));
    // by store, by rotation and by the inbox
    let stored = one(t, &store_named(&q, "openai", &key, "theirs"));
    soon(c, &marked(&stored), "t");
    assert_eq!(rows(c, &told(&stored)), ["leaked|-"]);
    one(t, &rotate_to(&other, &blocked));
    soon(c, &marked(&other), "t");
    assert_eq!(rows(c, &told(&other)), ["blocked|-"]);
    one(c, &format!("INSERT INTO watchllm.provider_key_inbox VALUES ('{r}', 'aws', 'i', '{key}')"));
    let by_inbox =
        one(c, &format!("SELECT id FROM watchllm.provider_key_records WHERE project_id = '{r}'"));
    soon(c, &marked(&by_inbox), "t");
    assert!(rows(t, "SELECT id FROM watchllm.security_incidents").is_empty());
    assert_eq!(one(c, &marked(&clean)), "f");
    // from then on it is known in that project too
    assert_eq!(code(t, &store_named(&q, "groq", &key, "again")), "42000");
    let secret = one(c, "SELECT string_agg(i::text, ' ') FROM watchllm.security_incidents i");
    assert!(!secret.contains(&key) && !secret.contains(&blocked));
}

#[test]
fn what_was_rolled_back_is_asked_of_nobody() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, q, key) = (project(c), project(c), opaque());
    store(c, &p, "openai", &key);
    one(c, &report(&key, false));
    one(c, &format!("BEGIN; {}; ROLLBACK", store_named(&q, "openai", &key, "mine")));
    std::thread::sleep(Duration::from_secs(3));
    let told = format!(
        "SELECT count(*) FROM watchllm.security_incidents WHERE details ->> 'stored_in_project' = '{q}'"
    );
    assert_eq!(one(c, &told), "0");
}

#[test]
fn a_writer_that_dies_forgets_no_stored_value() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let (p, q, key) = (project(c), project(c), opaque());
    store(c, &p, "openai", &key);
    one(c, &report(&key, false));
    let id = store(c, &q, "openai", &key);
    server.kill_backend(server.writer_pid("postgres").unwrap(), "TERM");
    one(c, "SELECT watchllm.create_project('wakes the writer')");
    let marked = format!(
        "SELECT compromised_at IS NOT NULL FROM watchllm.provider_key_records WHERE id = '{id}'"
    );
    soon(c, &marked, "t");
}

#[test]
fn the_key_in_use_is_no_rotation_and_its_age_stays() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), opaque());
    let id = store(c, &p, "openai", &key);
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_versions SET created_at = now() - '100 days'::interval
                 WHERE provider_key_id = '{id}';
             UPDATE watchllm.provider_key_records
                 SET active_version_created_at = now() - '100 days'::interval WHERE id = '{id}'"
        ),
    );
    let age = |id: &str| {
        format!("SELECT days_old FROM watchllm.provider_key_security_summary WHERE id = '{id}'")
    };
    let error = refusal(c, &rotate_to(&id, &key));
    assert_eq!(error.code().code(), "22023", "{}", error.message());
    assert_eq!(one(c, &age(&id)), "100");
    // nor does the age begin anew under another name, or by rotating away and back
    let twin = one(c, &store_named(&p, "openai", &key, "twin"));
    assert_eq!(one(c, &age(&twin)), "100");
    one(c, &rotate(&id));
    assert_eq!(one(c, &age(&id)), "0");
    one(c, &rotate_to(&id, &key));
    assert_eq!(one(c, &age(&id)), "100");
    one(c, &format!("SELECT watchllm.delete_provider_key('{id}')"));
    let again = one(c, &store_named(&p, "groq", &key, "again"));
    assert_eq!(one(c, &age(&again)), "100");
    let elsewhere = project(c);
    let young = store(c, &elsewhere, "openai", &key);
    assert_eq!(one(c, &age(&young)), "0");
}

#[test]
fn a_key_of_many_versions_is_found_once() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), opaque());
    let id = store(c, &p, "openai", &key);
    one(c, &rotate(&id));
    one(c, &rotate_to(&id, &key));
    let found = format!("SELECT provider_key_id FROM watchllm.find_keys('see {key} here')");
    assert_eq!(rows(c, &found), [id]);
}

#[test]
fn what_is_no_key_is_stored_by_no_way_in() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), new_key());
    let id = store(c, &p, "openai", &key);
    let mask = one(c, &format!("SELECT watchllm.redact('{key}')"));
    let hint =
        one(c, &format!("SELECT key_hint FROM watchllm.provider_key_records WHERE id = '{id}'"));
    let tail = &key[8..];
    for (given, says) in [
        ("sk-proj-****d45f".to_owned(), "masked"),
        (mask, "masked"),
        (hint, "masked"),
        ("••••••••d45f".into(), "masked"),
        ("sk-proj-...d45f".into(), "masked"),
        ("undefined".into(), "placeholder"),
        ("null".into(), "placeholder"),
        ("changeme".into(), "placeholder"),
        ("your-api-key".into(), "placeholder"),
        ("os.environ/OPENAI_API_KEY".into(), "placeholder"),
        ("${OPENAI_API_KEY}".into(), "placeholder"),
        ("<key>".into(), "placeholder"),
        (format!("OPENAI_API_KEY={key}"), "name before it"),
        (format!("export K={key}"), "name before it"),
        (format!("\"{key}\""), "quotes"),
        (format!("Bearer {key}"), "scheme"),
        (format!("{key}\n"), "white space"),
        (format!("\u{feff}{key}"), "visible ASCII"),
        (format!("sk-proj-\u{200b}{tail}"), "visible ASCII"),
        (format!("sk-proj-\u{ad}{tail}"), "visible ASCII"),
        (format!("\u{1b}[31m{key}"), "visible ASCII"),
        (format!("{key}\u{7f}"), "visible ASCII"),
        (format!("sk-proj-\u{430}{tail}"), "visible ASCII"),
    ] {
        let quoted = given.replace('\'', "''");
        for call in [
            store_named(&p, "openai", &quoted, "no key"),
            rotate_to(&id, &quoted),
            format!(
                "INSERT INTO watchllm.provider_key_inbox VALUES ('{p}', 'xai', 'x', '{quoted}')"
            ),
        ] {
            let error = refusal(c, &call);
            let said = format!("{} {}", error.message(), error.hint().unwrap_or_default());
            assert_eq!(error.code().code(), "22023", "{given:?}: {said}");
            assert!(error.message().contains(says) && error.hint().is_some(), "{given:?}: {said}");
            assert!(!said.contains(tail), "{said}");
        }
    }
    assert_eq!(one(c, &decrypt(&id)), key);
}

#[test]
fn an_import_brings_nothing_back_that_is_known_and_takes_no_placeholder() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, q, table) = (project(c), project(c), old_table(c));
    let (leaked, blocked, elsewhere) = (opaque(), opaque(), opaque());
    store(c, &p, "openai", &leaked);
    one(c, &report(&leaked, false));
    let stopped = store(c, &p, "xai", &blocked);
    one(c, &format!("SELECT watchllm.block_provider_key('{stopped}')"));
    store(c, &q, "openai", &elsewhere);
    one(c, &report(&elsewhere, false));
    let texts = [&leaked, &blocked, "undefined", "sk-proj-****d45f", "K=sk-abc", &elsewhere];
    for (number, made) in sealed_texts(SECRET, &texts).iter().enumerate() {
        add(c, &table, &p, &format!("vendor-{number}"), made, ("", ""));
    }
    let run = import(&table, &file(&vault, SECRET.as_bytes()), "provider, outcome, detail");
    let masked = "the API key is masked";
    assert_eq!(
        rows(c, &run),
        [
            "vendor-0|refused|this key is known to have leaked",
            "vendor-1|refused|this key is blocked in this project, under another name or id",
            "vendor-2|bad_input|the API key is a placeholder",
            &format!("vendor-3|bad_input|{masked}"),
            "vendor-4|bad_input|the API key has a name before it",
            "vendor-5|imported|-",
        ]
    );
    let marked = format!(
        "SELECT compromised_at IS NOT NULL FROM watchllm.provider_key_records
         WHERE project_id = '{p}' AND provider = 'vendor-5'"
    );
    soon(c, &marked, "t");
}

/// The texts of the trail, of notes and incidents, and names.
const KEPT: &str = "SELECT string_agg(t, ' ') FROM (
    SELECT l::text AS t FROM watchllm.provider_key_access_logs l
    UNION ALL SELECT e::text FROM watchllm.incident_events e
    UNION ALL SELECT i::text FROM watchllm.security_incidents i
    UNION ALL SELECT r::text FROM watchllm.provider_key_records r
    UNION ALL SELECT p::text FROM watchllm.projects p
    UNION ALL SELECT m::text FROM watchllm.project_members m) AS all_of_it (t)";

#[test]
fn the_calls_own_key_stands_in_none_of_its_texts() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    let texts = |key: &str| {
        format!(
            "request_id => 'for {key}', ip_address => '{key}', user_agent => 'curl/8 key={key}; x'"
        )
    };
    let named = |c: &mut Client, key: &str| {
        one(c, &format!("SET application_name = 'app {}'", &key[..key.len().min(58)]));
    };
    let (key, next, refused, bad) = (opaque(), opaque(), opaque(), format!("{} x", opaque()));
    named(c, &key);
    let store = |key: &str| {
        format!("SELECT watchllm.store_provider_key('{p}', 'openai', '{key}', {})", texts(key))
    };
    let id = one(c, &store(&key));
    one(c, &format!("SELECT watchllm.decrypt_provider_key('{id}', {})", texts(&key)));
    one(c, &format!("SELECT watchllm.validate_provider_key('{id}', {})", texts(&key)));
    let resolve = format!("watchllm.resolve_provider_key('{p}', 'openai', {})", texts(&key));
    one(c, &format!("SELECT key_version FROM {resolve}"));
    one(
        c,
        &format!(
            "SELECT count(api_key) FROM watchllm.decrypt_provider_keys(ARRAY['{id}']::uuid[], {})",
            texts(&key)
        ),
    );
    named(c, &next);
    one(c, &format!("SELECT watchllm.rotate_provider_key('{id}', '{next}', {})", texts(&next)));
    one(
        c,
        &format!(
            "SELECT count(*) FROM watchllm.report_leaked_key('{next}', 'seen: {next}', true, {})",
            texts(&next)
        ),
    );
    one(c, &format!("SELECT count(*) FROM watchllm.find_keys('a {next} b')"));
    // refused: no such project, no such key, not allowed, what is no key
    named(c, &refused);
    let nowhere = Uuid::new_v4();
    assert_eq!(code(c, &store(&refused).replace(&p, &nowhere.to_string())), "02000");
    let lost = format!(
        "SELECT watchllm.rotate_provider_key('{nowhere}', '{refused}', {})",
        texts(&refused)
    );
    assert_eq!(code(c, &lost), "02000");
    let unasked = format!(
        "SELECT watchllm.report_leaked_key('{refused}', 'x {refused}', {})",
        texts(&refused)
    );
    let s = &mut server.connect("postgres", &login(c, "watchllm_tenant"));
    named(s, &refused);
    assert_eq!(code(s, &unasked), "42501");
    assert_eq!(code(s, &store(&refused)), "02000");
    named(c, &bad);
    assert_eq!(code(c, &store(&bad)), "22023");
    one(c, "SET application_name = ''");
    let kept = one(c, KEPT);
    for key in [&key, &next, &refused, bad.trim_end_matches(" x")] {
        assert!(!kept.contains(&key[..12]) && !kept.contains(&key[key.len() - 16..]), "{kept}");
    }
    assert!(kept.contains("curl/8 key=...[REDACTED]"), "{kept}");
}

#[test]
fn a_stored_key_stands_in_no_text_of_its_project() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let (p, old, new) = (project(c), opaque(), opaque());
    let id = store(c, &p, "openai", &old);
    one(c, &rotate_to(&id, &new));
    let other = store(c, &p, "xai", &new_key());
    let escaped = old.replace('/', "%2F").replace('+', "%2B");
    let texts =
        format!("request_id => '{old}', ip_address => '{new}', user_agent => 'u?k={escaped}'");
    one(c, &format!("SET application_name = 'app {}'", &old[..40]));
    one(c, "RESET application_name");
    one(c, &format!("SELECT watchllm.decrypt_provider_key('{other}', {texts})"));
    one(c, &format!("SELECT watchllm.rotate_provider_key('{other}', '{}', {texts})", new_key()));
    one(c, &format!("SELECT watchllm.set_provider_key_active('{other}', false, {texts})"));
    assert_eq!(
        code(c, &format!("SELECT watchllm.decrypt_provider_key('{other}', {texts})")),
        "42000"
    );
    one(c, &format!("SELECT watchllm.report_leaked_key('{old}', 'with {new}')"));
    let incident = one(c, "SELECT id FROM watchllm.security_incidents LIMIT 1");
    one(c, &format!("SELECT watchllm.acknowledge_incident('{incident}', 'it was {new}')"));
    one(c, &format!("SELECT watchllm.block_provider_key('{id}', 'because of {old}', {texts})"));
    one(c, &format!("SELECT watchllm.unblock_provider_key('{id}', 'because of {old}', {texts})"));
    // a text that was clean before the key was stored is looked at again
    let later = opaque();
    let decrypt = format!("SELECT watchllm.decrypt_provider_key('{id}', request_id => '{later}')");
    soon(
        c,
        &format!(
            "SELECT blocked_at FROM watchllm.provider_key_usage WHERE provider_key_id = '{id}'"
        ),
        "-",
    );
    one(c, &decrypt);
    one(c, &store_named(&p, "groq", &later, "later"));
    one(c, &decrypt);
    for (call, expected) in [
        (store_named(&p, "aws", &new_key(), &format!("not {new}")), "22023"),
        (format!("SELECT watchllm.update_provider_key('{id}', '{old}')"), "22023"),
        (format!("SELECT watchllm.create_project('with {old}')"), "22023"),
        (format!("SELECT watchllm.create_project('p', '{old}')"), "22023"),
        (format!("SELECT watchllm.add_project_member('{p}', '{new}')"), "22023"),
    ] {
        assert_eq!(code(c, &call), expected, "{call}");
    }
    let kept = one(c, KEPT);
    for key in [&old, &new, &escaped] {
        assert!(!kept.contains(key.as_str()), "{kept}");
    }
    assert_eq!(kept.matches(&later).count(), 1, "before it was a key");
}
