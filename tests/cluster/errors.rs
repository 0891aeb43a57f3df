//! Every error has its SQLSTATE and, if the reader can act, a hint. No error holds key material:
//! not in message, detail, hint or context, and not in the server log's STATEMENT lines.

use postgres::{Client, error::DbError};
use uuid::Uuid;

use crate::keys::{
    Vault, code, decrypt, last_event, new_key, one, project, refusal, store, try_rows,
};
use crate::server::{Mode, Server};

/// Every function that opens, stores or changes, called for a key that may not exist.
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
        format!("{f}.import_watchllm_keys('pg_class', '/nowhere')"),
    ]
}

/// The call fails with this SQLSTATE and with a hint that contains `hint`.
pub(crate) fn fails(c: &mut Client, sql: &str, sqlstate: &str, hint: &str) {
    let error = refusal(c, sql);
    assert_eq!(error.code().code(), sqlstate, "{sql}: {}", error.message());
    assert!(error.hint().is_some_and(|given| given.contains(hint)), "{sql}: {:?}", error.hint());
}

/// No field of the error that a client receives holds the secret.
pub(crate) fn tells_nothing(error: &DbError, secret: &str) {
    let told = [Some(error.message()), error.detail(), error.hint(), error.where_()];
    assert!(!told.iter().flatten().any(|text| text.contains(secret)), "{told:?}");
}

#[test]
fn a_key_that_is_not_there_is_said_and_recorded() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let by_id = |call: &String| {
        call.contains("_provider_key('") && !call.contains("store_") && !call.contains("resolve_")
    };
    for call in calls(&new_key()).iter().filter(|call| by_id(call)) {
        assert_eq!(refusal(c, call).code().code(), "02000", "{call}");
        assert!(last_event(c, call.split('\'').nth(1).unwrap()).ends_with("|not_found"), "{call}");
    }
    let nowhere = Uuid::new_v4();
    let recorded = format!(
        "SELECT access_type, failure_reason FROM watchllm.provider_key_access_logs WHERE project_id = '{nowhere}'"
    );
    assert_eq!(
        code(c, &format!("SELECT watchllm.store_provider_key('{nowhere}', 'openai', 'k')")),
        "02000"
    );
    assert_eq!(one(c, &recorded), "store|not_found");
    assert_eq!(code(c, &format!("SELECT watchllm.key_access_history('{nowhere}')")), "02000");
    let id = {
        let p = project(c);
        store(c, &p, "openai", &new_key())
    };
    assert_eq!(
        code(c, &format!("SELECT watchllm.decrypt_provider_key('{id}', '{nowhere}')")),
        "02000"
    ); // not this project's
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
        "decrypt_provider_key(NULL)".to_owned(),
        "decrypt_provider_keys(NULL)".into(),
        "validate_provider_key(NULL)".into(),
        "resolve_provider_key(NULL, 'openai')".into(),
        format!("resolve_provider_key('{p}', NULL)"),
        "store_provider_key(NULL, 'openai', 'k')".into(),
        format!("store_provider_key('{p}', NULL, 'k')"),
        format!("store_provider_key('{p}', 'openai', NULL)"),
        "rotate_provider_key(NULL, 'k')".into(),
        format!("rotate_provider_key('{id}', NULL)"),
        "rollback_provider_key(NULL)".into(),
        "delete_provider_key(NULL)".into(),
        "set_provider_key_active(NULL, true)".into(),
        format!("set_provider_key_active('{id}', NULL)"),
        "create_project(NULL)".into(),
    ]
    .iter()
    .enumerate()
    {
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
    assert_eq!(
        one(c, "SELECT installed, preloaded, problem IS NOT NULL FROM watchllm.status()"),
        "f|t|t"
    );
}

#[test]
fn each_refusal_says_what_to_do_about_itself() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let table = format!("t_{}", Uuid::new_v4().simple());
    for (function, page) in [
        ("store_from_inbox", "docs/leaks.md#keys-without-literals"),
        ("follow_projects", "docs/tenants.md#your-own-projects-table"),
    ] {
        one(c, &format!("CREATE TABLE {table} (id int)"));
        let trigger =
            "AFTER INSERT ON {} FOR EACH ROW EXECUTE FUNCTION watchllm.".replace("{}", &table);
        one(c, &format!("CREATE TRIGGER t {trigger}{function}()"));
        fails(c, &format!("INSERT INTO {table} VALUES (1)"), "42501", page);
        one(c, &format!("DROP TABLE {table}"));
    }
}

#[test]
fn without_preload_every_function_says_the_line_to_add() {
    let server = Server::init();
    server.start();
    let c = &mut server.connect("postgres", "postgres");
    one(c, "CREATE EXTENSION watchllm_keys");
    one(c, "SELECT watchllm.install()");
    for call in calls(&new_key()) {
        fails(c, &call, "55000", "shared_preload_libraries = 'watchllm_keys'");
    }
    assert_eq!(
        one(c, "SELECT installed, preloaded, problem IS NOT NULL FROM watchllm.status()"),
        "t|f|t"
    );
}

#[test]
fn without_preload_a_refused_key_is_not_logged() {
    let (server, canary) = (Server::init(), new_key());
    server.start();
    let c = &mut server.connect("postgres", "postgres");
    one(c, "CREATE EXTENSION watchllm_keys");
    assert_eq!(
        code(c, &format!("SELECT watchllm.store_provider_key(NULL, 'openai', '{canary}')")),
        "55000"
    );
    assert!(!server.log().contains(&canary), "the server log holds the key");
}

#[test]
fn no_badly_kept_or_wrong_master_key_opens_nothing() {
    let server = Server::init();
    server.conf(&format!(
        "shared_preload_libraries = 'watchllm_keys'\nwatchllm_keys.master_key_file = '{}'",
        server.keyring().display()
    ));
    server.start();
    let c = &mut server.connect("postgres", "postgres");
    one(c, "CREATE EXTENSION watchllm_keys; SELECT watchllm.install()");
    for call in calls(&new_key()) {
        fails(c, &call, "55000", "master_key_file");
    }
    server.write_keyring(&format!("1:{}\n", "a secret of this test ".repeat(2)));
    let mode = |mode: u32| {
        std::fs::set_permissions(
            server.keyring(),
            std::os::unix::fs::PermissionsExt::from_mode(mode),
        )
        .unwrap();
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
fn conflicts_have_their_codes_and_hints() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let named = format!("SELECT watchllm.store_provider_key('{p}', 'openai', 'k', 'taken')");
    let id = one(c, &named);
    fails(c, &named, "23505", "name");
    fails(
        c,
        &format!("SELECT watchllm.rotate_provider_key('{id}', 'k', 2)"),
        "23505",
        "read the key again",
    );
    assert_eq!(last_event(c, &id), "rotate|version_conflict");
    fails(c, &format!("SELECT watchllm.create_project('again', NULL, '{p}')"), "23505", "");
    fails(
        c,
        &format!(
            "BEGIN; SELECT watchllm.rotate_provider_key('{id}', 'k-2'); PREPARE TRANSACTION 'x'"
        ),
        "0A000",
        "COMMIT",
    );
    one(c, "ROLLBACK");
    assert!(try_rows(c, &named.replace("'taken'", "repeat('n', 100)")).is_ok());
}

/// A division by zero that the planner cannot foresee.
const FAILURE: &str = "1 / (random() * 0)::int";

#[test]
fn a_key_in_a_failing_statement_is_not_logged() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, canary) = (project(c), new_key());
    let id = store(c, &p, "openai", &new_key());
    let storing = |key: &str| format!("watchllm.store_provider_key('{p}', 'vendor', '{key}')");
    one(
        c,
        &format!(
            "CREATE OR REPLACE FUNCTION pg_temp.later(api_key text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN
        PERFORM watchllm.store_provider_key('{p}', 'vendor', api_key); RETURN {FAILURE}; END $$"
        ),
    );
    let cases = [
        (format!("SELECT {}", storing(&format!("{canary} "))), "22023"),
        (format!("SELECT {}, {FAILURE}", storing(&canary)), "22012"),
        (format!("SELECT watchllm.rotate_provider_key('{id}', '{canary}'), {FAILURE}"), "22012"),
        (format!("SELECT watchllm.rotate_provider_key('{}', '{canary}')", Uuid::new_v4()), "02000"),
        (format!("SELECT watchllm.rotate_provider_key(NULL, '{canary}')"), "22004"),
        (format!("SELECT watchllm.rotate_provider_key('{id}', '{canary}', 99)"), "23505"),
        (format!("SELECT watchllm.store_provider_key('{p}', '{canary}', 'k')"), "22023"),
        (format!("SELECT watchllm.store_provider_key('{p}', 'vendor', 'k', '{canary}')"), "22023"),
        (format!("SELECT {}; SELECT {FAILURE}", storing(&canary)), "22012"),
        (
            format!(
                "SET LOCAL statement_timeout = '300ms'; SELECT {}, pg_sleep(60)",
                storing(&canary)
            ),
            "57014",
        ),
        (format!("SELECT pg_temp.later('{canary}')"), "22012"),
        (format!("DO $$ BEGIN PERFORM {}; RAISE 'later'; END $$", storing(&canary)), "P0001"),
        (format!("DO $$ BEGIN PERFORM {}; END $$", storing(&format!("{canary} "))), "22023"),
        (
            format!(
                "DO $$ BEGIN BEGIN PERFORM {}; EXCEPTION WHEN OTHERS THEN NULL; END; PERFORM {FAILURE}; END $$",
                storing(&format!("{canary} "))
            ),
            "22012",
        ),
    ];
    for (i, (sql, expected)) in cases.iter().enumerate() {
        let before = vault.server().log_len();
        let error = refusal(c, sql);
        assert_eq!(&error.code().code(), expected, "case {i}: {}", error.message());
        assert!(
            !vault.server().log_since(before).contains(&canary[8..]),
            "case {i}: the server log holds the key"
        );
        if !sql.starts_with("DO") {
            // a literal in the client's own block appears in the error's context
            tells_nothing(&error, &canary[8..]);
        }
        let marker = format!("marker_{}", Uuid::new_v4().simple());
        assert_eq!(code(c, &format!("SELECT {FAILURE} AS {marker}")), "22012");
        let log = vault.server().log_since(before);
        assert!(
            log.lines().any(|line| line.contains("STATEMENT") && line.contains(&marker)),
            "case {i}: later ones are logged"
        );
    }
    let literal = format!("SELECT {}, {FAILURE}", storing(&canary));
    assert!(c.query(&literal, &[]).is_err()); // the extended protocol
    let parameters: [&(dyn postgres::types::ToSql + Sync); 1] = [&canary];
    assert!(
        c.query(
            &format!("SELECT watchllm.store_provider_key('{p}', 'vendor', $1), {FAILURE}"),
            &parameters
        )
        .is_err()
    );
    store(c, &p, "openai", &format!("sk-ant-api03-{}", &canary[8..])); // another vendor's shape: a WARNING
    let log = vault.server().log();
    assert!(log.contains("has the shape of a key of provider") && !log.contains(&canary[8..]));
}

#[test]
fn a_key_in_a_statement_that_never_reaches_us_is_not_logged() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, canary) = (project(c), new_key());
    let nobody = format!("nobody_{}", Uuid::new_v4().simple());
    one(c, &format!("CREATE ROLE {nobody}; GRANT USAGE ON SCHEMA watchllm TO {nobody}"));
    let planned = format!("SELECT watchllm.store_provider_key('{p}', 'openai', '{canary}'), 1/0");
    assert_eq!(code(c, &planned), "22012");
    assert!(!vault.server().log().contains(&canary), "an error of the planner logs the key");
    one(c, &format!("SET ROLE {nobody}"));
    assert_eq!(code(c, &planned.replace(", 1/0", "")), "42501");
    assert!(!vault.server().log().contains(&canary), "missing EXECUTE logs the key");
}

#[test]
fn a_key_in_a_statement_fetched_in_portions_is_not_logged() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, canary) = (project(c), new_key());
    let mut transaction = c.transaction().unwrap();
    let sql = format!(
        "SELECT CASE n WHEN 1 THEN watchllm.store_provider_key('{p}', 'openai', '{canary}')::text
            ELSE ({FAILURE})::text END FROM generate_series(1, 2) AS n"
    );
    let portal = transaction.bind(&sql, &[]).unwrap();
    assert_eq!(transaction.query_portal(&portal, 1).unwrap().len(), 1);
    assert!(transaction.query_portal(&portal, 1).is_err()); // a message of its own, which does not reach us
    assert!(!vault.server().log().contains(&canary), "the server log holds the key");
}
