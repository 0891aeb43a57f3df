//! Keys in a state in which they must not be used, or may: inactive, deleted, blocked, compromised. Every function
//! against every state (DESIGN §11, States); refusals are recorded with their reason.

use crate::keys::{Vault, block, code, decrypt, last_event, new_key, one, project, rotate, rows, store, try_rows};
use postgres::Client;
use std::time::{Duration, Instant};

/// What a function answers about one key: "SQLSTATE reason", where the reason is that of the newest row of the trail.
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
    one(c, &format!("SELECT failure_reason FROM watchllm.decrypt_provider_keys(ARRAY['{id}']::uuid[])"))
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
    for function in ["decrypt", "validate", "rotate", "rollback", "activate", "deactivate", "delete"] {
        let refused = try_rows(c, &call(function, id)).expect_err(function);
        assert_eq!((refused.code().code(), refused.message()), ("02000", "no such provider key"), "{function}");
        assert_eq!(last_event(c, id), format!("{function}|deleted"));
    }
    assert_eq!(reason(c, id), "deleted");
    assert_eq!(code(c, &resolve(p)), "02000");
    assert_eq!(rows(c, &format!("SELECT access_type FROM watchllm.key_access_history('{id}')")).len(), 11);
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
    let flag = format!("SELECT compromised_at IS NOT NULL FROM watchllm.provider_key_records WHERE id = '{id}'");
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
    let incidents = format!("SELECT count(*) > 0 FROM watchllm.security_incidents WHERE provider_key_id = '{id}'");
    let deadline = Instant::now() + Duration::from_secs(15);
    while one(c, &incidents) == "f" {
        assert!(Instant::now() < deadline, "no incident within 15 s");
        std::thread::sleep(Duration::from_millis(100));
    }
}
