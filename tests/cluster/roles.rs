//! Who may do what: every role against every function, tenants who guess others' ids, membership
//! without INHERIT. Also definer wrappers, direct reads and writes, the owner's role, settings. See
//! docs/architecture.md#roles.

use std::sync::Mutex;

use postgres::Client;
use uuid::Uuid;

use crate::keys::{Vault, code, decrypt, new_key, one, project, refusal, rows, store, try_rows};
use crate::server::Server;

/// For admin, service, tenant (of its own project), auditor, plain, granted (EXECUTE alone),
/// superuser. ok, 42501, 02000, or rec: 42501 and recorded as not_authorized.
const MATRIX: &[(&str, &str, &str)] = &[
    ("install", "", "42501 42501 42501 42501 42501 42501 ok"),
    ("status", "", "ok ok 42501 ok 42501 ok ok"),
    ("security_check", "", "ok 42501 42501 ok 42501 42501 ok"),
    ("reload_keyring", "", "ok 42501 42501 42501 42501 rec ok"),
    ("create_project", "'p'", "ok 42501 42501 42501 42501 rec ok"),
    ("add_project_member", "{p}, 'sub'", "ok 42501 42501 42501 42501 rec ok"),
    ("remove_project_member", "{p}, 'member'", "ok 42501 42501 42501 42501 rec ok"),
    ("store_provider_key", "{p}, 'groq', 'k'", "ok ok ok 42501 42501 rec ok"),
    ("decrypt_provider_key", "{k}", "ok ok rec 42501 42501 rec ok"),
    ("decrypt_provider_keys", "ARRAY[{k}]::uuid[]", "ok ok rec 42501 42501 rec ok"),
    ("resolve_provider_key", "{p}, 'openai'", "ok ok rec 42501 42501 rec ok"),
    ("validate_provider_key", "{k}", "ok ok rec 42501 42501 rec ok"),
    ("rotate_provider_key", "{k}, 'k'", "ok ok ok 42501 42501 rec ok"),
    ("rollback_provider_key", "{k}", "ok ok ok 42501 42501 rec ok"),
    ("set_provider_key_active", "{k}, false", "ok ok ok 42501 42501 rec ok"),
    ("delete_provider_key", "{k}", "ok ok ok 42501 42501 rec ok"),
    ("import_watchllm_keys", "'pg_class', '/nowhere'", "rec 42501 42501 42501 42501 rec 22023"),
    ("find_keys", "'x'", "ok ok 42501 ok 42501 rec ok"),
    ("scan_table_for_leaks", "'pg_catalog.pg_description'", "ok 42501 42501 ok 42501 rec ok"),
    ("scan_server_log", "'0 seconds'", "ok 42501 42501 42501 42501 rec ok"),
    ("scan_database_for_leaks", "", "ok 42501 42501 ok 42501 rec ok"),
    ("report_leaked_key", "'k', 'a scanner'", "ok ok 42501 42501 42501 rec ok"),
    ("block_provider_key", "{k}", "ok 42501 42501 42501 42501 rec ok"),
    ("set_setting", "'stale_after', '9d', {p}", "ok 42501 42501 42501 42501 rec ok"),
    ("effective_setting", "'stale_after', {p}", "ok ok ok ok 42501 ok ok"),
    ("unblock_caller", "'role', 'nobody'", "02000 42501 42501 42501 42501 rec 02000"),
    ("acknowledge_incident", "gen_random_uuid()", "02000 42501 42501 42501 42501 rec 02000"),
    ("acknowledge_incidents", "source => 'nobody'", "ok 42501 42501 42501 42501 rec ok"),
    ("delete_project", "{p}", "ok 42501 42501 42501 42501 rec ok"),
    ("key_access_history", "{k}", "ok ok ok ok 42501 02000 ok"),
    ("detect_unusual_key_access", "{k}", "ok ok ok ok 42501 02000 ok"),
    ("key_access_rates", "now()", "ok 42501 ok ok 42501 42501 ok"),
    ("key_access_anomalies", "now()", "ok 42501 ok ok 42501 42501 ok"),
    ("detect_mass_key_reading", "now()", "ok 42501 ok ok 42501 42501 ok"),
    ("update_provider_key", "{k}, 'other'", "ok ok ok 42501 42501 rec ok"),
    ("check_key_rotation_requirements", "", "ok ok ok ok 42501 42501 ok"),
    ("failed_access_attempts", "", "ok ok ok ok 42501 ok ok"),
];

/// Two sessions that change the same function's rights at once make each other fail.
static GRANTING: Mutex<()> = Mutex::new(());

/// A new login role, with the privileges of `member_of` or none.
pub(crate) fn login(c: &mut Client, member_of: &str) -> String {
    let role = format!("r_{}", Uuid::new_v4().simple());
    one(c, &format!("CREATE ROLE {role} LOGIN"));
    if !member_of.is_empty() {
        one(c, &format!("GRANT {member_of} TO {role}"));
    }
    role
}

/// USAGE and EXECUTE granted by hand.
fn grant_functions(c: &mut Client, role: &str) {
    let _alone = GRANTING.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    one(c, &format!("GRANT USAGE ON SCHEMA watchllm TO {role}"));
    for (function, ..) in MATRIX {
        one(c, &format!("GRANT EXECUTE ON FUNCTION watchllm.{function} TO {role}"));
    }
}

fn add_role(c: &mut Client, project: &str, role: &str) {
    one(c, &format!("SELECT watchllm.add_project_member('{project}', role_name => '{role}')"));
}

#[test]
fn every_role_meets_every_function() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = &project(c);
    let k = &store(c, p, "openai", &new_key());
    one(
        c,
        &format!(
            "SELECT watchllm.rotate_provider_key('{k}', 'second'); SELECT watchllm.add_project_member('{p}', 'member')"
        ),
    );
    let mut callers: Vec<String> =
        ["watchllm_admin", "watchllm_service", "watchllm_tenant", "watchllm_auditor", "", ""]
            .map(|role| login(c, role))
            .into();
    grant_functions(c, &callers[5]);
    add_role(c, p, &callers[2]);
    callers.push("postgres".into());
    for (place, caller) in callers.iter().enumerate() {
        let (mut caller, mut s) = (caller.clone(), vault.connect(caller));
        for (number, (function, arguments, expected)) in MATRIX.iter().enumerate() {
            // From the twentieth refusal in a minute on, they are counted in one row.
            if place == 5 && number % 15 == 14 {
                caller = login(c, "");
                grant_functions(c, &caller);
                s = vault.connect(&caller);
            }
            let s = &mut s;
            let expected = expected.split(' ').nth(place).unwrap();
            let arguments =
                arguments.replace("{p}", &format!("'{p}'")).replace("{k}", &format!("'{k}'"));
            let refused = format!(
                "SELECT count(*) FROM watchllm.provider_key_access_logs
                WHERE session_role = '{caller}' AND failure_reason = 'not_authorized'"
            );
            let before: i32 = one(c, &refused).parse().unwrap();
            one(s, "BEGIN");
            let found = code(s, &format!("SELECT * FROM watchllm.{function}({arguments})"));
            one(s, "ROLLBACK");
            let found = match (found.as_str(), one(c, &refused).parse::<i32>().unwrap() - before) {
                ("00000", 0) => "ok",
                ("42501", 1) => "rec",
                (code, 0) => code,
                (code, rows) => panic!("{function} by caller {place}: {code} and {rows} rows"),
            };
            assert_eq!(found, expected, "{function} by caller {place}");
        }
    }
}

#[test]
fn whoever_reached_reload_keyring_is_recorded() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let caller = login(c, "");
    grant_functions(c, &caller);
    assert_eq!(code(&mut vault.connect(&caller), "SELECT watchllm.reload_keyring()"), "42501");
    assert_eq!(
        one(
            c,
            &format!(
                "SELECT failure_reason FROM watchllm.provider_key_access_logs WHERE session_role = '{caller}'"
            )
        ),
        "not_authorized"
    );
}

#[test]
fn a_tenant_cannot_tell_a_foreign_project_from_none() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (own, foreign) = (project(c), project(c));
    let foreign_key = store(c, &foreign, "openai", &new_key());
    one(c, &format!("SELECT watchllm.store_provider_key('{foreign}', 'openai', 'k', 'taken')"));
    let own_key = store(c, &own, "openai", &new_key());
    let tenant = login(c, "watchllm_tenant");
    add_role(c, &own, &tenant);
    let s = &mut vault.connect(&tenant);
    assert_eq!(code(s, &format!("SELECT watchllm.rotate_provider_key('{own_key}', 'k')")), "00000");
    let (no_project, no_key) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    let mut answers = Vec::new();
    for (project, key) in [(&foreign, &foreign_key), (&no_project, &no_key)] {
        let mut answer = |call: &str| {
            let error = refusal(s, &format!("SELECT watchllm.{call}"));
            format!(
                "{call}: {} {} {:?} {:?}",
                error.code().code(),
                error.message(),
                error.hint(),
                error.detail()
            )
            .replace(project, "P")
            .replace(key, "K")
        };
        answers.push([
            answer(&format!("store_provider_key('{project}', 'openai', 'k', 'taken')")),
            answer(&format!("store_provider_key('{project}', 'OPENAI', '', '')")),
            answer(&format!("rotate_provider_key('{key}', 'k', 77)")),
            answer(&format!("rollback_provider_key('{key}', 5)")),
            answer(&format!("set_provider_key_active('{key}', true)")),
            answer(&format!("delete_provider_key('{key}')")),
            answer(&format!("decrypt_provider_key('{key}')")),
            answer(&format!("decrypt_provider_key('{own_key}', '{project}')")),
            answer(&format!("resolve_provider_key('{project}', 'openai')")),
            answer(&format!("validate_provider_key('{key}')")),
            answer(&format!("key_access_history('{key}')")),
        ]);
    }
    assert_eq!(answers[0], answers[1]);
    assert!(
        answers[0][..6].iter().all(|answer| answer.contains(": 02000 no such p")),
        "{answers:?}"
    );
    let seen = format!(
        "SELECT count(*) FROM watchllm.failed_access_attempts() WHERE project_id IS DISTINCT FROM '{own}'"
    );
    assert_eq!(one(s, &seen), "0");
    let history = format!(
        "SELECT DISTINCT session_role, effective_role, client_addr, application_name FROM watchllm.key_access_history('{own_key}')"
    );
    assert_eq!(rows(s, &history), ["-|-|-|-"]); // never the database identity of callers
    one(c, &format!("SELECT watchllm.remove_project_member('{own}', role_name => '{tenant}')"));
    assert_eq!(code(s, &format!("SELECT watchllm.rotate_provider_key('{own_key}', 'k')")), "02000");
}

#[test]
fn membership_without_inherit_does_not_count() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let id = store(c, &p, "openai", &new_key());
    let (door, team) = (login(c, "watchllm_service"), login(c, "watchllm_tenant"));
    one(c, &format!("ALTER ROLE {door} NOINHERIT; GRANT {team} TO {door}"));
    add_role(c, &p, &team);
    let s = &mut vault.connect(&door);
    assert_eq!(code(s, &decrypt(&id)), "42501");
    grant_functions(c, &door);
    let storing = format!("SELECT watchllm.store_provider_key('{p}', 'openai', 'k')");
    assert_eq!((code(s, &decrypt(&id)), code(s, &storing)), ("42501".into(), "42501".into()));
    assert_eq!(code(s, &format!("SET ROLE {team}; {storing}")), "00000");
    assert_eq!(code(s, &decrypt(&id)), "42501");
    assert_eq!(code(s, &format!("SET ROLE watchllm_service; {}", decrypt(&id))), "00000");
}

#[test]
fn a_definer_wrapper_counts_as_its_owner() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), new_key());
    let id = store(c, &p, "openai", &key);
    let (owner, caller) = (login(c, "watchllm_service"), login(c, ""));
    let wrapper = format!("wrapper_{owner}.open('{id}')");
    one(
        c,
        &format!(
            "CREATE SCHEMA wrapper_{owner} AUTHORIZATION {owner}; GRANT USAGE ON SCHEMA wrapper_{owner} TO PUBLIC;
        SET ROLE {owner}; CREATE FUNCTION wrapper_{owner}.open(id uuid) RETURNS text LANGUAGE sql SECURITY DEFINER
            SET search_path = pg_catalog, pg_temp AS 'SELECT watchllm.decrypt_provider_key(id)'; RESET ROLE"
        ),
    );
    let s = &mut vault.connect(&caller);
    assert_eq!(one(s, &format!("SELECT {wrapper}")), key);
    assert_eq!(
        one(
            c,
            &format!(
                "SELECT session_role, effective_role FROM watchllm.key_access_history('{id}', 1)"
            )
        ),
        format!("{caller}|{owner}")
    );
    one(c, &format!("ALTER FUNCTION wrapper_{owner}.open(uuid) SECURITY INVOKER"));
    assert_eq!(code(s, &format!("SELECT {wrapper}")), "42501");
    one(
        c,
        &format!(
            "REVOKE watchllm_service FROM {owner}; ALTER FUNCTION wrapper_{owner}.open(uuid) SECURITY DEFINER"
        ),
    );
    assert_eq!(code(s, &format!("SELECT {wrapper}")), "42501");
}

#[test]
fn no_role_reads_envelopes_or_writes_any_table() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let of_anybody =
        "FROM pg_roles r, pg_class t WHERE t.relnamespace = 'watchllm'::regnamespace AND t.relkind IN ('r', 'p', 'v')
        AND NOT r.rolsuper AND r.rolname <> 'watchllm_owner' AND r.rolname !~ '^pg_' AND";
    let writes = "(has_table_privilege(r.oid, t.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
        OR has_any_column_privilege(r.oid, t.oid, 'INSERT, UPDATE, REFERENCES'))";
    // the inbox is a view that stores keys and never holds a row
    let writes = format!("{writes} AND t.relname <> 'provider_key_inbox'");
    assert!(rows(c, &format!("SELECT r.rolname, t.relname {of_anybody} {writes}")).is_empty());
    let secret = "t.relname IN ('provider_key_versions', 'master_keys', 'audit_keys') AND has_any_column_privilege(r.oid, t.oid, 'SELECT')";
    assert!(rows(c, &format!("SELECT r.rolname, t.relname {of_anybody} {secret}")).is_empty());
    let tables = rows(
        c,
        "SELECT relname FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p')",
    );
    assert!(tables.len() > 20, "{tables:?}");
    for role in ["watchllm_admin", "watchllm_service", "watchllm_tenant", "watchllm_auditor"] {
        let s = &mut vault.connect(&login(c, role));
        for table in &tables {
            for statement in [
                format!("DELETE FROM watchllm.{table} WHERE false"),
                format!("TRUNCATE watchllm.{table}"),
                format!("INSERT INTO watchllm.{table} DEFAULT VALUES"),
            ] {
                assert_eq!(code(s, &statement), "42501", "{statement} by {role}");
            }
        }
        for sql in [
            "COPY watchllm.provider_key_versions TO STDOUT",
            "SELECT 1 FROM watchllm.master_keys",
            "SELECT envelope FROM watchllm.audit_keys",
            "SET ROLE watchllm_owner",
            "GRANT watchllm_owner TO watchllm_admin",
            "BEGIN; LOCK TABLE watchllm.provider_key_access_logs; COMMIT",
            "SELECT watchllm.make_log_partition(current_date)",
            "SET SESSION AUTHORIZATION watchllm_owner",
        ] {
            assert_eq!(code(s, sql), "42501", "{sql} by {role}");
            one(s, "ROLLBACK");
        }
    }
}

#[test]
fn no_session_sets_our_settings_not_even_before_the_library_loads() {
    let server = Server::init();
    server.start();
    server.psql(
        "postgres",
        "CREATE EXTENSION watchllm_keys; SELECT watchllm.install(); CREATE ROLE admin LOGIN IN ROLE watchllm_admin",
    );
    for user in ["admin", "postgres"] {
        let s = &mut server.connect("postgres", user);
        one(
            s,
            "SET watchllm_keys.max_active_keys = 0; SET watchllm_keys.master_key_command = 'echo'; SET watchllm_keys.nonsense = 'x'",
        );
        one(s, "SELECT * FROM watchllm.status()"); // loads the library
        assert_eq!(
            one(
                s,
                "SELECT current_setting('watchllm_keys.max_active_keys'), current_setting('watchllm_keys.nonsense', true)"
            ),
            "3|-"
        );
        assert_eq!(
            one(
                s,
                "SELECT count(*) FROM pg_settings WHERE name = 'watchllm_keys.master_key_command' AND setting <> ''"
            ),
            "0"
        );
        for sql in [
            "SET watchllm_keys.max_active_keys = 0",
            "SET LOCAL watchllm_keys.audit_timeout = '1h'",
            "SET watchllm_keys.master_key_file = '/dev/null'",
            "SELECT set_config('watchllm_keys.spin', '0', false)",
            "ALTER ROLE admin SET watchllm_keys.max_active_keys = 0",
        ] {
            let refused = try_rows(s, sql).expect_err(sql);
            assert!(
                ["55P02", "42501"].contains(&refused.code().code()),
                "{sql}: {}",
                refused.message()
            );
        }
    }
}
