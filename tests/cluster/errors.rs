//! Every error with its SQLSTATE, a hint where something can be done, and no key material anywhere: not in message,
//! detail, hint or context, and not in the server log's STATEMENT lines (DESIGN §11, issue 2).

use postgres::{Client, error::DbError};
use uuid::Uuid;

use crate::keys::{Vault, code, decrypt, last_event, new_key, one, project, refusal, rotate, store, try_rows};
use crate::server::{Mode, Server};

/// Every function that opens, stores or changes; for a key that need not exist.
fn calls(key: &str) -> Vec<String> {
    let (id, f) = (Uuid::new_v4(), "SELECT watchllm");
    vec![
        format!("{f}.create_project('p')"),
        format!("{f}.store_provider_key('{id}', 'openai', '{key}')"),
        format!("{f}.decrypt_provider_key('{id}')"),
        format!("{f}.decrypt_provider_keys(ARRAY['{id}']::uuid[])"),
        format!("{f}.resolve_provider_key('{id}', 'openai')"),
        format!("{f}.validate_provider_key('{id}')"),
        format!("{f}.rotate_provider_key('{id}', '{key}')"),
        format!("{f}.rollback_provider_key('{id}')"),
        format!("{f}.set_provider_key_active('{id}', true)"),
        format!("{f}.delete_provider_key('{id}')"),
    ]
}

/// The call fails with this SQLSTATE and a hint that holds `hint`.
fn fails(c: &mut Client, sql: &str, sqlstate: &str, hint: &str) {
    let error = refusal(c, sql);
    assert_eq!(error.code().code(), sqlstate, "{sql}: {}", error.message());
    assert!(error.hint().is_some_and(|given| given.contains(hint)), "{sql}: {:?}", error.hint());
}

fn tells_nothing(error: &DbError, secret: &str) {
    let told = [Some(error.message()), error.detail(), error.hint(), error.where_()];
    assert!(!told.iter().flatten().any(|text| text.contains(secret)), "{told:?}");
}

#[test]
fn a_key_that_is_not_there_is_said_and_recorded() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let by_id = |call: &String| call.contains("_provider_key('") && !call.contains("store_") && !call.contains("resolve_");
    for call in calls(&new_key()).iter().filter(|call| by_id(call)) {
        assert_eq!(refusal(c, call).code().code(), "02000", "{call}");
        assert!(last_event(c, call.split('\'').nth(1).unwrap()).ends_with("|not_found"), "{call}");
    }
    let nowhere = Uuid::new_v4();
    let recorded = format!("SELECT access_type, failure_reason FROM watchllm.provider_key_access_logs WHERE project_id = '{nowhere}'");
    assert_eq!(code(c, &format!("SELECT watchllm.store_provider_key('{nowhere}', 'openai', 'k')")), "02000");
    assert_eq!(one(c, &recorded), "store|not_found");
    assert_eq!(code(c, &format!("SELECT watchllm.key_access_history('{nowhere}')")), "02000");
    let id = { let p = project(c); store(c, &p, "openai", &new_key()) };
    assert_eq!(code(c, &format!("SELECT watchllm.decrypt_provider_key('{id}', '{nowhere}')")), "02000"); // not this project's
    assert_eq!(last_event(c, &id), "decrypt|not_found");
}

#[test]
fn a_null_where_a_value_is_needed_is_recorded() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let id = store(c, &p, "openai", &new_key());
    one(c, "SET application_name = 'nulls'");
    let of_nulls = "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE application_name = 'nulls' AND failure_reason = 'bad_input'";
    for (i, call) in [
        "decrypt_provider_key(NULL)".to_owned(), "decrypt_provider_keys(NULL)".into(), "validate_provider_key(NULL)".into(),
        "resolve_provider_key(NULL, 'openai')".into(), format!("resolve_provider_key('{p}', NULL)"),
        "store_provider_key(NULL, 'openai', 'k')".into(), format!("store_provider_key('{p}', NULL, 'k')"),
        format!("store_provider_key('{p}', 'openai', NULL)"), "rotate_provider_key(NULL, 'k')".into(),
        format!("rotate_provider_key('{id}', NULL)"), "rollback_provider_key(NULL)".into(), "delete_provider_key(NULL)".into(),
        "set_provider_key_active(NULL, true)".into(), format!("set_provider_key_active('{id}', NULL)"), "create_project(NULL)".into(),
    ].iter().enumerate() {
        fails(c, &format!("SELECT watchllm.{call}"), "22004", "value");
        assert_eq!(one(c, of_nulls), (i + 1).to_string(), "{call}");
    }
}

#[test]
fn before_install_every_function_says_so() {
    let vault = Vault::shared();
    let database = format!("empty_{}", Uuid::new_v4().simple());
    one(&mut vault.connect("postgres"), &format!("CREATE DATABASE {database}"));
    let c = &mut vault.server().connect(&database, "postgres");
    one(c, "CREATE EXTENSION watchllm_keys");
    for call in calls(&new_key()) {
        fails(c, &call, "55000", "SELECT watchllm.install();");
    }
    assert_eq!(code(c, "SELECT * FROM watchllm.failed_access_attempts()"), "55000");
    assert_eq!(one(c, "SELECT installed, preloaded, problem IS NOT NULL FROM watchllm.status()"), "f|t|t");
}

#[test]
fn without_preload_every_function_says_the_line_to_add() {
    let (server, canary) = (Server::init(), new_key());
    server.start();
    let c = &mut server.connect("postgres", "postgres");
    one(c, "CREATE EXTENSION watchllm_keys");
    one(c, "SELECT watchllm.install()");
    for call in calls(&canary) {
        fails(c, &call, "55000", "shared_preload_libraries = 'watchllm_keys'");
    }
    assert_eq!(one(c, "SELECT installed, preloaded, problem IS NOT NULL FROM watchllm.status()"), "t|f|t");
    assert!(!server.log().contains(&canary), "the server log holds a key");
}

#[test]
fn no_badly_kept_or_wrong_master_key_opens_nothing() {
    let server = Server::init();
    server.conf(&format!("shared_preload_libraries = 'watchllm_keys'\nwatchllm_keys.master_key_file = '{}'", server.keyring().display()));
    server.start();
    let c = &mut server.connect("postgres", "postgres");
    one(c, "CREATE EXTENSION watchllm_keys; SELECT watchllm.install()");
    for call in calls(&new_key()) {
        fails(c, &call, "55000", "master_key_file");
    }
    server.write_keyring(&format!("1:{}\n", "a secret of this test ".repeat(2)));
    let mode = |mode: u32| {
        std::fs::set_permissions(server.keyring(), std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    mode(0o644);
    fails(c, "SELECT watchllm.reload_keyring()", "55000", "master_key_file");
    fails(c, "SELECT watchllm.create_project('p')", "55000", "master_key_file");
    mode(0o600);
    assert_eq!(one(c, "SELECT watchllm.reload_keyring()"), "1");
    let (p, key) = (project(c), new_key());
    let id = store(c, &p, "openai", &key);

    server.stop(Mode::Fast);
    server.write_keyring(&format!("1:{}\n", "another secret of this test ".repeat(2)));
    server.start();
    let c = &mut server.connect("postgres", "postgres");
    for call in calls(&new_key()).iter().chain([&decrypt(&id)]) {
        fails(c, call, "28000", "Restore the secret");
    }
    server.write_keyring(&format!("1:{}\n", "a secret of this test ".repeat(2)));
    assert_eq!(one(c, "SELECT watchllm.reload_keyring()"), "1");
    assert_eq!(one(c, &decrypt(&id)), key);
}

#[test]
fn damaged_moved_and_unknown_envelopes_are_told_apart() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let ids: Vec<String> = (0..3).map(|_| store(c, &p, "openai", &new_key())).collect();
    one(c, &format!("UPDATE watchllm.provider_key_versions v SET envelope = o.envelope FROM watchllm.provider_key_versions o
        WHERE v.provider_key_id = '{}' AND o.provider_key_id = '{}'", ids[0], ids[1]));
    one(c, &rotate(&ids[1]));
    one(c, &format!("UPDATE watchllm.provider_key_versions v SET envelope = o.envelope FROM watchllm.provider_key_versions o
        WHERE v.provider_key_id = '{0}' AND o.provider_key_id = '{0}' AND v.version = 2 AND o.version = 1", ids[1]));
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
    let many = format!("SELECT failure_reason FROM watchllm.decrypt_provider_keys(ARRAY['{unknown}']::uuid[])");
    assert_eq!(one(c, &many), "unknown_master_key");
}

#[test]
fn bad_input_is_refused_recorded_and_not_repeated() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (&project(c), &new_key());
    let id = &store(c, p, "openai", &new_key());
    let stored = |provider: &str, api_key: &str, rest: &str| {
        format!("SELECT watchllm.store_provider_key('{p}', {provider}, {api_key}{rest})")
    };
    let mut bad = vec!["''".into(), "'OpenAI'".into(), "'a b'".into(), "'ünï'".into(), "'-a'".into(), "repeat('a', 64)".into(), format!("'{key}'")]
        .iter().map(|provider: &String| stored(provider, "'k'", "")).collect::<Vec<_>>();
    for api_key in ["''", "' '", "repeat('x', 4097)", "repeat('é', 2049)"].into_iter().map(str::to_owned)
        .chain([format!("'{key} '"), format!("E'{key}\\n'"), format!("E'{key}\\u3000'")])
    {
        bad.push(stored("'openai'", &api_key, ""));
        bad.push(format!("SELECT watchllm.rotate_provider_key('{id}', {api_key})"));
    }
    for rest in ["''".to_owned(), "'  '".into(), "E'a\\nb'".into(), "repeat('n', 101)".into(), format!("'{key}'"), "NULL, 0".into(), "NULL, -1".into()] {
        bad.push(stored("'openai'", "'k'", &format!(", {rest}")));
    }
    let recorded = format!("SELECT count(*) FROM watchllm.provider_key_access_logs WHERE project_id = '{p}' AND failure_reason = 'bad_input'");
    for (i, call) in bad.iter().enumerate() {
        let error = refusal(c, call);
        assert_eq!((error.code().code(), error.hint().is_some()), ("22023", true), "{call}: {}", error.message());
        tells_nothing(&error, &key[..20]);
        assert_eq!(one(c, &recorded), (i + 1).to_string(), "{call}");
    }
    for call in ["create_project('')".to_owned(), format!("create_project('{key}')"), format!("add_project_member('{p}')"),
        format!("add_project_member('{p}', 'sub', 'postgres')"), format!("add_project_member('{p}', role_name => 'nobody here')"),
        format!("add_project_member('{p}', '{key}')")]
    {
        fails(c, &format!("SELECT watchllm.{call}"), "22023", "");
    }
    assert!(!one(c, &format!("SELECT string_agg(l::text, ' ') FROM watchllm.provider_key_access_logs l WHERE project_id = '{p}'")).contains(&key[..20]));
}

#[test]
fn conflicts_have_their_codes_and_hints() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let named = format!("SELECT watchllm.store_provider_key('{p}', 'openai', 'k', 'taken')");
    let id = one(c, &named);
    fails(c, &named, "23505", "name");
    fails(c, &format!("SELECT watchllm.rotate_provider_key('{id}', 'k', 2)"), "23505", "read the key again");
    assert_eq!(last_event(c, &id), "rotate|version_conflict");
    fails(c, &format!("SELECT watchllm.create_project('again', NULL, '{p}')"), "23505", "");
    fails(c, &format!("BEGIN; SELECT watchllm.rotate_provider_key('{id}', 'k'); PREPARE TRANSACTION 'x'"), "0A000", "COMMIT");
    one(c, "ROLLBACK");
    assert!(try_rows(c, &named.replace("'taken'", "repeat('n', 100)")).is_ok());
}
