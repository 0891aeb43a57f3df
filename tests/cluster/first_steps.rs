//! What cost newcomers time: ids that drivers bind as text, keys that only an id reached, projects
//! made twice. Errors that programs could not tell apart, notes that got lost.

use crate::keys::{Vault, code, last_event, new_key, one, project, refusal, store};

/// Drivers that bind strings as varchar cannot call a function that takes a uuid.
#[test]
fn a_key_opens_by_its_id_as_text_and_by_its_name() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), new_key());
    let store = format!("SELECT watchllm.store_provider_key('{p}', 'openai', '{key}', 'main')");
    let id = one(c, &store);
    for call in [
        format!("decrypt_provider_key_text('{id}'::varchar)"),
        format!("decrypt_provider_key_text('{{{id}}}'::text, '{p}'::varchar)"),
        format!("decrypt_provider_key_by_name('{p}', 'openai', 'main')"),
    ] {
        assert_eq!(one(c, &format!("SELECT watchllm.{call}")), key, "{call}");
        assert_eq!(last_event(c, &id), "decrypt|-", "{call}");
    }
    let other = project(c);
    for (call, expected) in [
        (format!("decrypt_provider_key_text('{key}')"), "22023"),
        (format!("decrypt_provider_key_text('{id}', '{other}')"), "02000"),
        (format!("decrypt_provider_key_by_name('{p}', 'openai', 'another')"), "02000"),
        (format!("decrypt_provider_key_by_name('{p}', 'groq', 'main')"), "02000"),
        (format!("decrypt_provider_key_by_name('{other}', 'openai', 'main')"), "02000"),
        (format!("decrypt_provider_key_by_name('{p}', 'openai', NULL)"), "22004"),
    ] {
        let error = refusal(c, &format!("SELECT watchllm.{call}"));
        assert_eq!(error.code().code(), expected, "{call}");
        crate::errors::tells_nothing(&error, &key);
    }
    one(c, &format!("SELECT watchllm.delete_provider_key('{id}')"));
    let gone = format!("SELECT watchllm.decrypt_provider_key_by_name('{p}', 'openai', 'main')");
    assert_eq!(code(c, &gone), "02000");
}

/// A script that runs twice makes two projects; nobody may learn of the other's name but staff.
#[test]
fn a_second_project_of_one_name_is_told_of() {
    let vault = Vault::shared();
    let name = format!("twin {}", uuid::Uuid::new_v4());
    let sql = format!("SELECT watchllm.create_project('{name}')");
    let server = vault.server();
    assert!(!server.psql_result("postgres", &sql).stderr.contains("NOTICE"));
    let said = server.psql_result("postgres", &sql).stderr;
    assert!(said.contains("another project has the same name"), "{said}");
}

/// SQLSTATEs stand for several things; the word in DETAIL is what a program asks.
#[test]
fn every_refusal_says_why_in_one_word_as_the_trail_does() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), new_key());
    let named = format!("SELECT watchllm.store_provider_key('{p}', 'openai', '{key}', 'one')");
    let id = one(c, &named);
    let of_name = format!(
        "SELECT failure_reason FROM watchllm.provider_key_access_logs
         WHERE project_id = '{p}' ORDER BY seq DESC LIMIT 1"
    );
    let new = new_key();
    for (sql, word) in [
        (
            format!("SELECT watchllm.store_provider_key('{p}', 'openai', '{new}', 'one')"),
            "already_exists",
        ),
        (
            format!("SELECT watchllm.rotate_provider_key('{id}', '{new}', expected_version => 9)"),
            "version_conflict",
        ),
        (format!("SELECT watchllm.store_provider_key('{p}', 'Open AI', '{new}')"), "bad_input"),
        (
            format!("SELECT watchllm.decrypt_provider_key_by_name('{p}', 'openai', 'x')"),
            "not_found",
        ),
    ] {
        let error = refusal(c, &sql);
        assert_eq!(error.detail(), Some(word), "{sql}");
        assert_eq!(one(c, &of_name), word, "{sql}");
    }
    let evidence = refusal(c, "DELETE FROM watchllm.install_history");
    assert_eq!(evidence.detail(), Some("append_only"));
}

#[test]
fn a_blocks_note_is_kept_without_an_incident() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let id = {
        let p = project(c);
        store(c, &p, "openai", &new_key())
    };
    let notes = format!(
        "SELECT string_agg(i.type || ':' || e.note, ',' ORDER BY e.at)
         FROM watchllm.incident_events e JOIN watchllm.security_incidents i ON i.id = e.incident_id
         WHERE i.provider_key_id = '{id}'"
    );
    one(c, &format!("SELECT watchllm.block_provider_key('{id}', 'a laptop was lost')"));
    assert_eq!(one(c, &notes), "key_blocked:a laptop was lost");
    one(c, &format!("SELECT watchllm.unblock_provider_key('{id}', 'it was found')"));
    assert_eq!(one(c, &notes), "key_blocked:a laptop was lost,key_blocked:it was found");
}
