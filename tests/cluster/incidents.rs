//! A key that somebody reports as leaked is recognised by its fingerprint alone. This works after
//! rotation or deletion, and in every project; the fingerprint does not lead back to the key. Also
//! the same report twice, a report that is rolled back, and a stranger's report. Listeners hear of
//! an incident after its commit, and only its id and type.

use std::time::Duration;

use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use uuid::Uuid;

use crate::errors::tells_nothing;
use crate::keys::{
    Vault, code, decrypt, last_event, new_key, one, project, refusal, rotate, rows, store,
};
use crate::roles::login;

fn report(key: &str, more: &str) -> String {
    format!(
        "SELECT provider_key_id, key_version, in_use, blocked FROM watchllm.report_leaked_key('{key}', 'a scanner'{more})"
    )
}

fn incidents(id: &str) -> String {
    format!(
        "SELECT type, severity, details->>'source', details->>'key_version' FROM watchllm.open_incidents
        WHERE provider_key_id = '{id}' ORDER BY detected_at"
    )
}

/// What listeners heard until `expected` messages arrived or the time was up.
pub(crate) fn heard(c: &mut Client, expected: usize, patience: Duration) -> Vec<String> {
    let mut payloads = vec![];
    let mut notifications = c.notifications();
    let mut iter = notifications.timeout_iter(patience);
    while let Some(notification) = iter.next().unwrap() {
        payloads.push(notification.payload().to_owned());
        if payloads.len() == expected {
            break;
        }
    }
    payloads
}

#[test]
fn a_leaked_key_is_found_by_its_fingerprint_wherever_it_lies() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, q, key) = (project(c), project(c), new_key());
    let (here, there, gone) =
        (store(c, &p, "openai", &key), store(c, &q, "openai", &key), store(c, &q, "azure", &key));
    one(c, &rotate(&here));
    one(c, &format!("SELECT watchllm.delete_provider_key('{gone}')"));
    let mut found = rows(c, &report(&key, ""));
    found.sort();
    let mut expected = [format!("{here}|1|f|f"), format!("{there}|1|t|f"), format!("{gone}|1|f|f")];
    expected.sort();
    assert_eq!(found, expected);
    assert_eq!(rows(c, &incidents(&here)), ["leaked_key|medium|a scanner|1"]);
    assert_eq!(rows(c, &incidents(&there)), ["leaked_key|critical|a scanner|1"]);
    assert_eq!(last_event(c, &there), "report|-");
    assert_eq!(code(c, &format!("SELECT watchllm.rollback_provider_key('{here}', 1)")), "42000");
    assert_eq!(code(c, &format!("SELECT watchllm.rollback_provider_key('{here}')")), "02000");
    assert_eq!(one(c, &decrypt(&there)), key); // not blocked: it opens, which is an incident of its own
    one(c, &rotate(&there));
    let marked =
        format!("SELECT compromised_at FROM watchllm.provider_key_records WHERE id = '{there}'");
    assert_eq!(one(c, &marked), "-");
}

#[test]
fn the_same_report_is_one_incident_and_another_source_another() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), new_key());
    let id = store(c, &p, "openai", &key);
    for _ in 0..3 {
        one(c, &report(&key, ""));
    }
    assert_eq!(rows(c, &incidents(&id)).len(), 1);
    one(c, &format!("SELECT watchllm.report_leaked_key('{key}', 'another ' || repeat('s', 1000))"));
    assert_eq!(rows(c, &incidents(&id)).len(), 2);
    let sources = format!(
        "SELECT max(octet_length(details->>'source')) FROM watchllm.security_incidents WHERE provider_key_id = '{id}'"
    );
    assert_eq!(one(c, &sources), "500");
    one(c, &format!("SELECT watchllm.report_leaked_key('{key}', 'see {key}')"));
    let kept = format!(
        "SELECT string_agg(i::text, ' ') FROM watchllm.security_incidents i WHERE provider_key_id = '{id}'"
    );
    assert!(!one(c, &kept).contains(&key[8..20]));
}

#[test]
fn a_reported_key_can_be_blocked_at_once() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), new_key());
    let id = store(c, &p, "openai", &key);
    assert_eq!(one(c, &report(&key, ", true")), format!("{id}|1|t|t"));
    vault.server().poll_until(
        "postgres",
        &format!("SELECT blocked_at IS NOT NULL FROM watchllm.provider_key_usage WHERE provider_key_id = '{id}'"),
        "t",
        20,
    );
    assert_eq!(
        (code(c, &decrypt(&id)), last_event(c, &id)),
        ("42000".into(), "decrypt|blocked".into())
    );
    assert_eq!(code(c, &rotate(&id)), "00000"); // rotating stays allowed, and does not unblock
    assert_eq!(code(c, &decrypt(&id)), "42000");
    let unblock = format!("SELECT watchllm.unblock_provider_key('{id}', 'rotated, was {key}')");
    assert_eq!(code(&mut vault.connect(&login(c, "watchllm_service")), &unblock), "42501");
    one(c, &format!("BEGIN; {unblock}; ROLLBACK"));
    assert_eq!(code(c, &decrypt(&id)), "42000");
    one(c, &unblock);
    vault.server().poll_until(
        "postgres",
        &format!("SELECT blocked_at IS NULL FROM watchllm.provider_key_usage WHERE provider_key_id = '{id}'"),
        "t",
        20,
    );
    assert_eq!((code(c, &decrypt(&id)), last_event(c, &id)), ("00000".into(), "decrypt|-".into()));
    let note = format!(
        "SELECT e.note FROM watchllm.incident_events e JOIN watchllm.security_incidents i ON i.id = e.incident_id
        WHERE i.provider_key_id = '{id}' AND e.event = 'note'"
    );
    assert_eq!(rows(c, &note), ["rotated, was sk-proj-...[REDACTED]"]);
}

#[test]
fn only_services_and_administrators_report_and_nothing_is_told_of_keys_that_are_not_ours() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), new_key());
    let id = store(c, &p, "openai", &key);
    for role in ["watchllm_tenant", "watchllm_auditor", ""] {
        let s = &mut vault.connect(&login(c, role));
        let error = refusal(s, &report(&key, ""));
        assert_eq!(error.code().code(), "42501", "{role}");
        tells_nothing(&error, &key[..20]);
    }
    assert!(rows(c, &incidents(&id)).is_empty());
    let s = &mut vault.connect(&login(c, "watchllm_service"));
    assert!(rows(s, &report(&new_key(), "")).is_empty());
    for (bad, expected) in [
        ("NULL, 'x'", "22004"),
        ("'', 'x'", "22023"),
        ("'a b', 'x'", "22023"),
        ("'k', NULL", "22004"),
    ] {
        assert_eq!(
            code(s, &format!("SELECT watchllm.report_leaked_key({bad})")),
            expected,
            "{bad}"
        );
    }
    assert_eq!(rows(s, &report(&key, "")), [format!("{id}|1|t|f")]);
}

#[test]
fn listeners_hear_after_the_commit_and_only_id_and_type() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key, other) = (project(c), new_key(), new_key());
    let (id, _) = (store(c, &p, "openai", &key), store(c, &p, "openai", &other));
    let listener = &mut vault.connect("postgres");
    one(listener, "LISTEN watchllm_security");
    one(c, &format!("BEGIN; {}; ROLLBACK", report(&other, "")));
    one(
        c,
        &format!(
            "BEGIN; SAVEPOINT s; {}; ROLLBACK TO s; {}; COMMIT",
            report(&other, ""),
            report(&key, "")
        ),
    );
    let incident = one(
        c,
        &format!("SELECT id FROM watchllm.security_incidents WHERE provider_key_id = '{id}'"),
    );
    let expected = format!(r#"{{"id":"{incident}","type":"leaked_key"}}"#);
    let mut payloads = heard(listener, 1, Duration::from_secs(20));
    // other tests of this server raise incidents too
    while !payloads.contains(&expected) {
        let more = heard(listener, 1, Duration::from_secs(20));
        assert!(!more.is_empty(), "nothing heard of {incident}: {payloads:?}");
        payloads.extend(more);
    }
    let unknown = "SELECT count(*) FROM unnest($$PAYLOADS$$::text[]) p
        WHERE NOT EXISTS (SELECT FROM watchllm.security_incidents i WHERE i.id::text = p::json->>'id' AND i.type = p::json->>'type')";
    let list = payloads
        .iter()
        .map(|p| format!("\"{}\"", p.replace('"', "\\\"")))
        .collect::<Vec<_>>()
        .join(",");
    assert_eq!(one(c, &unknown.replace("PAYLOADS", &format!("{{{list}}}"))), "0"); // nothing of what was rolled back
    assert_eq!(
        code(c, &format!("BEGIN; {}; PREPARE TRANSACTION 'x'", report(&other, ""))),
        "0A000"
    );
}

#[test]
fn an_acknowledged_incident_is_no_longer_open_and_is_never_changed() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), new_key());
    let id = store(c, &p, "openai", &key);
    one(c, &report(&key, ""));
    let incident =
        one(c, &format!("SELECT id FROM watchllm.open_incidents WHERE provider_key_id = '{id}'"));
    let acknowledge =
        |note: &str| format!("SELECT watchllm.acknowledge_incident('{incident}', {note})");
    for role in ["watchllm_service", "watchllm_tenant", "watchllm_auditor"] {
        assert_eq!(
            code(&mut vault.connect(&login(c, role)), &acknowledge("'x'")),
            "42501",
            "{role}"
        );
    }
    assert_eq!(rows(c, &incidents(&id)).len(), 1);
    let admin = login(c, "watchllm_admin");
    one(
        &mut vault.connect(&admin),
        &acknowledge(&format!("'rotated, was {key}' || repeat('日', 1000)")),
    );
    assert!(rows(c, &incidents(&id)).is_empty());
    let event = format!(
        "SELECT event, by, octet_length(note) <= 500 AND note LIKE 'rotated, was sk-proj-...[REDACTED]日%'
        FROM watchllm.incident_events WHERE incident_id = '{incident}'"
    );
    assert_eq!(rows(c, &event), [format!("acknowledged|{admin}|t")]);
    let trail = format!(
        "SELECT access_type, success, project_id = '{p}' FROM watchllm.provider_key_access_logs WHERE session_role = '{admin}'"
    );
    assert_eq!(rows(c, &trail), ["report|t|t"]);
    assert_eq!(
        code(c, &format!("SELECT watchllm.acknowledge_incident('{}', 'x')", Uuid::new_v4())),
        "02000"
    );
    assert_eq!(code(c, "SELECT watchllm.acknowledge_incident(NULL, 'x')"), "22004");
    assert_eq!(
        code(c, &format!("DELETE FROM watchllm.security_incidents WHERE id = '{incident}'")),
        "42501"
    );
}
