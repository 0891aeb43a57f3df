//! `security_check()`, the doctor (docs/controls.md). A sound vault has no wrong row. Every fault
//! on a real server turns the row that names it, and no other row. It answers in every state, and
//! only to its two roles.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::keys::{code, new_key, one, project, rows, store};
use crate::server::Server;

const WRONG: &str =
    "SELECT coalesce(string_agg(check_name, ' ' ORDER BY check_name), '') FROM watchllm.security_check()
    WHERE ok IS FALSE";
const UNKNOWN: &str = "SELECT coalesce(string_agg(check_name, ' ' ORDER BY check_name), '')
    FROM watchllm.security_check() WHERE ok IS NULL";

/// A fault ¦ the rows that turn ¦ words of the detail ¦ how to undo it. {p} is a project.
const FAULTS: &str = "
CREATE TABLE watchllm.more () ¦ owner_role row_security ¦ more ¦ DROP TABLE watchllm.more
CREATE TABLE watchllm.more (); ALTER TABLE watchllm.more OWNER TO watchllm_owner; ALTER TABLE watchllm.more ENABLE ROW LEVEL SECURITY ¦ row_security ¦ more: row-level security is not forced ¦ DROP TABLE watchllm.more
ALTER TABLE watchllm.projects DISABLE ROW LEVEL SECURITY ¦ installed row_security ¦ projects: row-level security is off ¦ ALTER TABLE watchllm.projects ENABLE ROW LEVEL SECURITY
ALTER TABLE watchllm.security_incidents ENABLE TRIGGER refuse_change ¦ append_only ¦ security_incidents has no trigger refuse_change ¦ ALTER TABLE watchllm.security_incidents ENABLE ALWAYS TRIGGER refuse_change
ALTER TABLE watchllm.audit_keys DISABLE TRIGGER refuse_truncate ¦ append_only ¦ audit_keys has no trigger refuse_truncate ¦ ALTER TABLE watchllm.audit_keys ENABLE ALWAYS TRIGGER refuse_truncate
DROP TRIGGER refuse_change ON watchllm.incident_events ¦ append_only ¦ incident_events has no trigger refuse_change ¦ SELECT watchllm.install()
ALTER TABLE {day} DISABLE TRIGGER refuse_truncate ¦ append_only ¦ refuse_truncate ¦ ALTER TABLE {day} ENABLE ALWAYS TRIGGER refuse_truncate
ALTER VIEW watchllm.provider_keys RESET (security_invoker) ¦ views ¦ provider_keys reads with ¦ ALTER VIEW watchllm.provider_keys SET (security_invoker = true)
ALTER ROLE watchllm_owner LOGIN ¦ owner_role ¦ watchllm_owner can log in ¦ ALTER ROLE watchllm_owner NOLOGIN
ALTER ROLE watchllm_owner CREATEDB ¦ owner_role ¦ watchllm_owner has CREATEDB ¦ ALTER ROLE watchllm_owner NOCREATEDB
ALTER ROLE watchllm_owner CREATEROLE ¦ owner_role ¦ watchllm_owner has CREATEROLE ¦ ALTER ROLE watchllm_owner NOCREATEROLE
GRANT team TO watchllm_owner ¦ owner_role ¦ watchllm_owner is a member of team ¦ REVOKE team FROM watchllm_owner
GRANT watchllm_owner TO team ¦ installed owner_role ¦ team is a member of watchllm_owner ¦ REVOKE watchllm_owner FROM team
ALTER VIEW watchllm.provider_keys OWNER TO postgres ¦ owner_role ¦ provider_keys belongs to postgres ¦ ALTER VIEW watchllm.provider_keys OWNER TO watchllm_owner
ALTER SCHEMA watchllm OWNER TO team ¦ schema ¦ the schema belongs to team ¦ ALTER SCHEMA watchllm OWNER TO postgres
GRANT CREATE ON SCHEMA watchllm TO team ¦ schema ¦ team may create in it ¦ REVOKE CREATE ON SCHEMA watchllm FROM team
CREATE FUNCTION watchllm.decrypt_provider_key(text) RETURNS text SET search_path = pg_catalog, pg_temp LANGUAGE sql AS 'SELECT NULL'; REVOKE ALL ON FUNCTION watchllm.decrypt_provider_key(text) FROM PUBLIC ¦ schema ¦ watchllm.decrypt_provider_key(text) of postgres ¦ DROP FUNCTION watchllm.decrypt_provider_key(text)
CREATE FUNCTION watchllm.mine() RETURNS text LANGUAGE sql AS 'SELECT NULL'; REVOKE ALL ON FUNCTION watchllm.mine() FROM PUBLIC; ALTER FUNCTION watchllm.mine() OWNER TO team ¦ schema ¦ watchllm.mine() of team ¦ DROP FUNCTION watchllm.mine()
CREATE OPERATOR watchllm.=== (LEFTARG = oid, RIGHTARG = oid, FUNCTION = oideq); ALTER OPERATOR watchllm.=== (oid, oid) OWNER TO team ¦ schema ¦ operator watchllm.===(oid,oid) of team ¦ DROP OPERATOR watchllm.=== (oid, oid)
GRANT SELECT ON watchllm.projects TO PUBLIC ¦ public_grants ¦ PUBLIC has SELECT on projects ¦ REVOKE SELECT ON watchllm.projects FROM PUBLIC
GRANT SELECT (name) ON watchllm.projects TO anon ¦ public_grants ¦ anon has SELECT on projects.name ¦ REVOKE SELECT (name) ON watchllm.projects FROM anon
GRANT SELECT ON watchllm.provider_keys TO anon ¦ public_grants ¦ anon has SELECT on provider_keys ¦ REVOKE SELECT ON watchllm.provider_keys FROM anon
GRANT EXECUTE ON FUNCTION watchllm.status TO PUBLIC ¦ public_grants ¦ PUBLIC has EXECUTE on status() ¦ REVOKE EXECUTE ON FUNCTION watchllm.status FROM PUBLIC
GRANT USAGE ON SCHEMA watchllm TO anon ¦ public_grants ¦ anon has USAGE on schema watchllm ¦ REVOKE USAGE ON SCHEMA watchllm FROM anon
CREATE POLICY open ON watchllm.projects USING (true) ¦ public_grants ¦ policy open on projects is for PUBLIC ¦ DROP POLICY open ON watchllm.projects
GRANT INSERT ON watchllm.projects TO team ¦ write_grants ¦ team has INSERT on projects ¦ REVOKE INSERT ON watchllm.projects FROM team
GRANT UPDATE (name) ON watchllm.projects TO watchllm_admin ¦ write_grants ¦ watchllm_admin has UPDATE on projects.name ¦ REVOKE UPDATE (name) ON watchllm.projects FROM watchllm_admin
GRANT TRUNCATE ON {day} TO team ¦ write_grants ¦ team has TRUNCATE on ¦ REVOKE TRUNCATE ON {day} FROM team
GRANT SELECT ON watchllm.provider_key_versions TO watchllm_admin ¦ envelopes ¦ watchllm_admin has SELECT on provider_key_versions ¦ REVOKE SELECT ON watchllm.provider_key_versions FROM watchllm_admin
GRANT SELECT (salt) ON watchllm.master_keys TO team ¦ envelopes ¦ team has SELECT on master_keys.salt ¦ REVOKE SELECT (salt) ON watchllm.master_keys FROM team
CREATE POLICY mine ON watchllm.audit_keys TO team USING (true) ¦ envelopes ¦ policy mine on audit_keys ¦ DROP POLICY mine ON watchllm.audit_keys
CREATE ROLE strong BYPASSRLS IN ROLE pg_read_all_data ¦ envelopes ¦ strong passes by row security and reads ¦ DROP ROLE strong
ALTER FUNCTION watchllm.status SECURITY DEFINER ¦ extension_functions ¦ watchllm.status() is SECURITY DEFINER ¦ ALTER FUNCTION watchllm.status SECURITY INVOKER
ALTER FUNCTION watchllm.refuse_change SET search_path = public ¦ extension_functions ¦ refuse_change() has no fixed search_path ¦ ALTER FUNCTION watchllm.refuse_change SET search_path = pg_catalog, pg_temp
ALTER FUNCTION watchllm.decrypt_provider_key RESET search_path ¦ extension_functions ¦ decrypt_provider_key(uuid ¦ ALTER FUNCTION watchllm.decrypt_provider_key SET search_path = pg_catalog, pg_temp
CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1' ¦ definer_functions ¦ public.f() of postgres ¦ DROP FUNCTION f()
CREATE FUNCTION f() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 1'; ALTER FUNCTION f() OWNER TO backend ¦ definer_functions ¦ public.f() of backend ¦ DROP FUNCTION f()
CREATE ROLE strong LOGIN BYPASSRLS ¦ bypassrls_roles ¦ strong ¦ DROP ROLE strong
CREATE ROLE strong LOGIN CREATEROLE ¦ createrole_roles ¦ strong ¦ DROP ROLE strong
CREATE ROLE strong LOGIN IN ROLE pg_read_all_data ¦ predefined_roles ¦ strong (pg_read_all_data) ¦ DROP ROLE strong
CREATE ROLE strong LOGIN IN ROLE pg_write_all_data, pg_read_server_files ¦ predefined_roles ¦ strong (pg_read_server_files, pg_write_all_data) ¦ DROP ROLE strong
CREATE ROLE strong LOGIN NOINHERIT IN ROLE pg_execute_server_program ¦ predefined_roles ¦ strong (pg_execute_server_program) ¦ DROP ROLE strong
CREATE ROLE strong LOGIN IN ROLE pg_write_server_files ¦ predefined_roles ¦ strong (pg_write_server_files) ¦ DROP ROLE strong
REVOKE watchllm_tenant FROM authenticated ¦ supabase_roles ¦ authenticated lacks watchllm_tenant ¦ GRANT watchllm_tenant TO authenticated
REVOKE watchllm_service FROM service_role ¦ supabase_roles ¦ service_role lacks watchllm_service ¦ GRANT watchllm_service TO service_role
GRANT watchllm_tenant TO anon ¦ supabase_roles ¦ anon has watchllm_tenant ¦ REVOKE watchllm_tenant FROM anon
GRANT watchllm_service TO authenticated ¦ supabase_roles ¦ authenticated has watchllm_service ¦ REVOKE watchllm_service FROM authenticated
ALTER ROLE backend SET log_statement = 'ddl' ¦ log_overrides ¦ log_statement = ddl for role backend ¦ ALTER ROLE backend RESET ALL
ALTER ROLE backend IN DATABASE postgres SET debug_print_plan = 'yes' ¦ log_overrides ¦ debug_print_plan = yes for role backend in database postgres ¦ ALTER ROLE backend IN DATABASE postgres RESET ALL
ALTER DATABASE postgres SET log_min_duration_statement = '250ms' ¦ log_overrides log_settings ¦ log_min_duration_statement = 250ms in database postgres ¦ ALTER DATABASE postgres RESET ALL
ALTER ROLE ALL SET log_parameter_max_length_on_error = -1 ¦ log_overrides log_settings ¦ log_parameter_max_length_on_error = -1 ¦ ALTER ROLE ALL RESET ALL
UPDATE watchllm.provider_key_versions SET envelope = NULL, destroyed_at = now() WHERE provider_key_id = '{k}' ¦ key_envelopes ¦ 1 of 2: {k} ¦ DELETE FROM watchllm.provider_key_versions WHERE provider_key_id = '{k}'; UPDATE watchllm.provider_key_records SET deleted_at = now() WHERE id = '{k}'
ALTER ROLE member RENAME TO gone ¦ project_members ¦ 1 of 1: member in project {p} ¦ ALTER ROLE gone RENAME TO member
ALTER TABLE public.adopted DISABLE TRIGGER watchllm_follow_truncate ¦ adopted_tables ¦ 1 of 1: public.adopted ¦ ALTER TABLE public.adopted ENABLE ALWAYS TRIGGER watchllm_follow_truncate
ALTER TABLE public.adopted ENABLE TRIGGER watchllm_follow_projects ¦ adopted_tables ¦ 1 of 1: public.adopted ¦ SELECT watchllm.install()
ALTER TABLE public.adopted DISABLE TRIGGER ALL; INSERT INTO public.adopted VALUES (gen_random_uuid(), gen_random_uuid()); ALTER TABLE public.adopted ENABLE ALWAYS TRIGGER watchllm_follow_projects, ENABLE ALWAYS TRIGGER watchllm_follow_truncate ¦ adopted_rows ¦ of public.adopted has no project ¦ DELETE FROM public.adopted
INSERT INTO public.adopted VALUES (gen_random_uuid(), gen_random_uuid()); ALTER TABLE public.adopted DISABLE TRIGGER ALL; DELETE FROM public.adopted; ALTER TABLE public.adopted ENABLE ALWAYS TRIGGER watchllm_follow_projects, ENABLE ALWAYS TRIGGER watchllm_follow_truncate ¦ adopted_rows ¦ 1 projects have no row in public.adopted ¦ SELECT watchllm.delete_project(id) FROM watchllm.projects WHERE adopted_table_id IS NOT NULL AND deleted_at IS NULL
ALTER TABLE watchllm.blocked_callers SET UNLOGGED ¦ logged ¦ blocked_callers is unlogged ¦ ALTER TABLE watchllm.blocked_callers SET LOGGED
ALTER TABLE {day} SET UNLOGGED ¦ logged ¦ is unlogged ¦ ALTER TABLE {day} SET LOGGED
DROP TABLE {ahead} ¦ days_ahead ¦ has no partition ¦ SELECT watchllm.install()
ALTER TABLE watchllm.provider_key_access_logs DETACH PARTITION {ahead} ¦ days_ahead ¦ has no partition ¦ DROP TABLE {ahead}; SELECT watchllm.install()
REVOKE INSERT ON watchllm.provider_key_inbox FROM watchllm_tenant ¦ missing_rights ¦ watchllm_tenant lacks INSERT on provider_key_inbox ¦ SELECT watchllm.install()
REVOKE EXECUTE ON FUNCTION watchllm.redact(text) FROM PUBLIC ¦ missing_rights ¦ PUBLIC lacks EXECUTE on redact() ¦ SELECT watchllm.install()
REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA watchllm FROM watchllm_service ¦ missing_rights ¦ watchllm_service lacks EXECUTE on decrypt_provider_key() ¦ SELECT watchllm.install()
REVOKE USAGE ON SCHEMA watchllm FROM watchllm_tenant ¦ missing_rights ¦ watchllm_tenant lacks USAGE on schema watchllm ¦ SELECT watchllm.install()
REVOKE SELECT (name) ON watchllm.projects FROM watchllm_tenant ¦ missing_rights ¦ watchllm_tenant lacks SELECT on projects ¦ SELECT watchllm.install()
DROP OWNED BY watchllm_tenant ¦ missing_policies missing_rights ¦ projects has no policy for watchllm_tenant ¦ SELECT watchllm.install()
DROP OWNED BY watchllm_admin ¦ missing_policies missing_rights ¦ projects has no policy for watchllm_admin ¦ SELECT watchllm.install()
DROP POLICY services_read_all ON watchllm.provider_key_usage ¦ missing_policies ¦ provider_key_usage has no policy for watchllm_service ¦ SELECT watchllm.install()
CREATE ROLE streamer LOGIN REPLICATION ¦ replication_roles ¦ streamer ¦ DROP ROLE streamer
CREATE PUBLICATION everything FOR ALL TABLES ¦ publications ¦ publication everything: all tables ¦ DROP PUBLICATION everything
CREATE PUBLICATION vault FOR TABLES IN SCHEMA watchllm ¦ publications ¦ publication vault: ¦ DROP PUBLICATION vault
CREATE PUBLICATION one FOR TABLE watchllm.provider_key_versions ¦ publications ¦ publication one: provider_key_versions ¦ DROP PUBLICATION one
GRANT EXECUTE ON FUNCTION watchllm.decrypt_provider_key TO team ¦ opening_roles ¦ team may execute decrypt_provider_key ¦ REVOKE EXECUTE ON FUNCTION watchllm.decrypt_provider_key FROM team
DROP TRIGGER store_from_inbox ON watchllm.provider_key_inbox ¦ silent_triggers ¦ provider_key_inbox has no trigger ¦ SELECT watchllm.install()
CREATE TABLE public.notes (x text); CREATE TRIGGER mask BEFORE INSERT ON public.notes FOR EACH ROW EXECUTE FUNCTION watchllm.redact_columns('x'); ALTER TABLE public.notes DISABLE TRIGGER ALL ¦ silent_triggers ¦ trigger mask on public.notes is switched off ¦ DROP TABLE public.notes
ALTER TABLE public.adopted RENAME TO renamed ¦ adopted_tables ¦ 1 of 1: public.adopted ¦ ALTER TABLE public.renamed RENAME TO adopted
ALTER ROLE authenticator SUPERUSER ¦ trusted_claim_roles ¦ authenticator is a superuser ¦ ALTER ROLE authenticator NOSUPERUSER
ALTER ROLE authenticator INHERIT; REVOKE service_role FROM authenticator; GRANT service_role TO authenticator ¦ trusted_claim_roles ¦ authenticator has itself the privileges ¦ ALTER ROLE authenticator NOINHERIT; REVOKE service_role FROM authenticator; GRANT service_role TO authenticator";

/// A line of postgresql.conf ¦ words of the detail of log_settings or trusted_claim_roles.
const SETTINGS: &str = "
log_statement = 'all' ¦ log_statement = all
watchllm_keys.hide_statements = off ¦ watchllm_keys.hide_statements = off
watchllm_keys.redact_server_log = off ¦ watchllm_keys.redact_server_log = off
log_statement = 'ddl' ¦ log_statement = ddl
log_min_duration_statement = 0 ¦ log_min_duration_statement = 0
log_min_duration_sample = 100 ¦ log_min_duration_sample = 100
log_transaction_sample_rate = 0.01 ¦ log_transaction_sample_rate = 0.01
log_parameter_max_length_on_error = 64 ¦ log_parameter_max_length_on_error = 64
debug_print_parse = on ¦ debug_print_parse = on
debug_print_rewritten = on ¦ debug_print_rewritten = on
debug_print_plan = on ¦ debug_print_plan = on
auto_explain.log_min_duration = '1s' ¦ auto_explain.log_min_duration
pgaudit.log = 'read' ¦ pgaudit.log = read
pgaudit.log_parameter = on ¦ pgaudit.log_parameter = on
watchllm_keys.trusted_claim_roles = 'authenticator, web' ¦ web does not exist
watchllm_keys.trusted_claim_roles = 'postgres' ¦ postgres is a superuser";

/// The roles of Supabase and of an application, then install() once more.
const SURROUNDINGS: &str = "CREATE ROLE anon; CREATE ROLE authenticated; CREATE ROLE service_role;
    CREATE ROLE authenticator LOGIN NOINHERIT IN ROLE anon, authenticated, service_role;
    CREATE ROLE backend LOGIN IN ROLE watchllm_service; CREATE ROLE team; CREATE ROLE member;
    CREATE ROLE auditor LOGIN IN ROLE watchllm_auditor; CREATE ROLE admin LOGIN IN ROLE watchllm_admin;
    CREATE TABLE public.adopted (id uuid PRIMARY KEY, user_id uuid);
    SELECT watchllm.install(); SELECT watchllm.adopt_projects('public.adopted', name_column => NULL)";

fn detail(server: &Server, check: &str) -> String {
    let detail =
        format!("SELECT detail FROM watchllm.security_check() WHERE check_name = '{check}'");
    server.psql("postgres", &detail)
}

#[test]
fn every_fault_turns_the_row_that_names_it() {
    let server = Server::with_vault();
    server.psql("postgres", SURROUNDINGS);
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    store(c, &p, "groq", &new_key());
    let k = store(c, &p, "openai", &new_key());
    one(c, &format!("SELECT watchllm.add_project_member('{p}', role_name => 'member')"));
    for user in ["postgres", "admin", "auditor"] {
        let s = &mut server.connect("postgres", user);
        assert_eq!((one(s, WRONG), one(s, UNKNOWN)), (String::new(), String::new()), "{user}");
        assert_eq!(
            one(
                s,
                "SELECT count(*) > 20, count(hint), bool_and(detail <> '') FROM watchllm.security_check()"
            ),
            "t|0|t"
        );
    }
    let today = one(
        c,
        "SELECT format('watchllm.provider_key_access_logs_%s', to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD'))",
    );
    let ahead = today.replace(
        &today[today.len() - 8..],
        &one(c, "SELECT to_char(now() AT TIME ZONE 'UTC' + interval '3 days', 'YYYYMMDD')"),
    );
    let since_16 = one(c, "SELECT current_setting('server_version_num')::int >= 160000") == "t";
    let mut turned = std::collections::BTreeSet::new();
    for line in FAULTS.lines().filter(|line| !line.is_empty()) {
        let line = line.replace("{p}", &p).replace("{k}", &k).replace("{day}", &today);
        let line = line.replace("{ahead}", &ahead);
        let [fault, expected, words, undo] =
            line.split(" ¦ ").collect::<Vec<_>>().try_into().unwrap();
        turned.extend(expected.split(' ').map(str::to_owned));
        if expected == "createrole_roles" && since_16 {
            continue; // there CREATEROLE reaches only what it was given
        }
        server.psql("postgres", fault);
        // a new session remembers nothing and has no old settings
        let s = &mut server.connect("postgres", "auditor");
        assert_eq!(one(s, WRONG), expected, "{fault}");
        let of = "WHERE ok IS FALSE AND hint <> ''";
        let details = rows(s, &format!("SELECT detail FROM watchllm.security_check() {of}"));
        assert_eq!(
            details.len(),
            expected.split(' ').count(),
            "a wrong row without a hint: {fault}"
        );
        assert!(details.join(", ").contains(words), "{fault}: {details:?}");
        server.psql("postgres", undo);
        assert_eq!(one(&mut server.connect("postgres", "auditor"), WRONG), "", "undone: {fault}");
    }
    // each check is in the table above, in another test here, or never wrong
    let elsewhere = [
        "audit_writer",
        "encoding",
        "keyring_file",
        "master_key",
        "open_envelopes",
        "preloaded",
        "superusers",
        "trail",
        "worker_slots",
    ];
    turned.extend(elsewhere.map(str::to_owned));
    let all = rows(c, "SELECT check_name FROM watchllm.security_check() ORDER BY 1");
    assert_eq!(all, turned.into_iter().collect::<Vec<_>>());
}

#[test]
fn settings_that_write_keys_into_the_log_or_trust_too_many_are_named() {
    let server = Server::with_vault();
    for line in SETTINGS.lines().filter(|line| !line.is_empty()) {
        let (setting, words) = line.split_once(" ¦ ").unwrap();
        let file = server.data_dir().join("postgresql.conf");
        let before = fs::read_to_string(&file).unwrap();
        server.conf(setting);
        server.reload();
        let wrong = "SELECT check_name, detail FROM watchllm.security_check() WHERE ok IS FALSE";
        server.poll_until(
            "postgres",
            "SELECT count(*) FROM watchllm.security_check() WHERE ok IS FALSE",
            "1",
            30,
        );
        let row = if setting.contains("trusted") { "trusted_claim_roles" } else { "log_settings" };
        let said = server.psql("postgres", wrong);
        assert!(said.starts_with(row) && said.contains(words), "{setting}: {said}");
        fs::write(&file, before).unwrap();
        server.reload();
        server.poll_until("postgres", WRONG, "", 30);
    }
}

#[test]
fn a_bad_keyring_is_seen_before_the_next_start() {
    let server = Server::with_vault();
    assert_eq!(server.psql("postgres", WRONG), "");
    assert!(detail(&server, "master_key").contains("version 1 is active"));
    assert!(detail(&server, "keyring_file").contains("mode 0600"));
    // the file becomes readable by all, while the loaded keyring stays the same
    fs::set_permissions(server.keyring(), fs::Permissions::from_mode(0o644)).unwrap();
    assert_eq!(server.psql("postgres", WRONG), "keyring_file");
    assert!(detail(&server, "keyring_file").contains("mode 0644"));
    // the answer does not name the path, which only superusers may see
    assert!(
        !server.psql("postgres", "SELECT * FROM watchllm.security_check()").contains("master.keys")
    );
    // the keyring becomes useless: the old one stays in use, and the check reports both
    server.write_keyring("nonsense\n");
    fs::set_permissions(server.keyring(), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(server.psql_result("postgres", "SELECT watchllm.reload_keyring()").status, 3);
    assert_eq!(server.psql("postgres", WRONG), "master_key");
    fs::remove_file(server.keyring()).unwrap();
    server.restart();
    assert_eq!(server.psql("postgres", WRONG), "keyring_file master_key");
    assert!(detail(&server, "keyring_file").contains("no such file"));
    server.conf("watchllm_keys.master_key_file = ''");
    server.restart();
    assert_eq!(server.psql("postgres", WRONG), "keyring_file master_key");
    assert!(detail(&server, "keyring_file").contains("neither"));
    // the secret becomes another one than this database is sealed under
    server
        .conf("watchllm_keys.master_key_command = 'echo 1:another-secret-another-secret-another'");
    server.restart();
    assert_eq!(server.psql("postgres", WRONG), "master_key");
    assert!(detail(&server, "master_key").contains("wrong master key"));
    assert!(detail(&server, "keyring_file").contains("comes from a command"));
    // no query of the doctor was refused
    assert!(!server.log().contains("a call was refused without a record"));
}

#[test]
fn a_writer_that_stands_still_or_finds_no_room_is_named() {
    let server =
        Server::with_vault_and("watchllm_keys.audit_timeout = 1s\nmax_worker_processes = 4");
    // a starved machine may need longer than this audit_timeout to start a writer
    let comes = |wrong: &str| server.poll_until("postgres", WRONG, wrong, 60);
    comes("");
    assert!(detail(&server, "audit_writer").contains("running"));
    assert!(detail(&server, "worker_slots").contains("2 of 4"), "the launcher and the writer");
    let writer = server.writer_pid("postgres").unwrap();
    server.kill_backend(writer, "STOP");
    let waits = server.psql_result("postgres", "SELECT watchllm.create_project('p')");
    let (wrong, said) = (server.psql("postgres", WRONG), detail(&server, "audit_writer"));
    server.kill_backend(writer, "CONT");
    assert!(waits.stderr.contains("ERROR:  53000"), "{}", waits.stderr);
    assert_eq!(wrong, "audit_writer");
    assert!(said.contains("does not answer"), "{said}");
    comes("");
    // room for the writer and nothing else
    server.conf("max_worker_processes = 2");
    server.restart();
    comes("worker_slots");
    assert!(detail(&server, "worker_slots").contains("all 2"));
    // no room at all
    server.conf("max_worker_processes = 1");
    server.restart();
    comes("audit_writer worker_slots");
    assert_eq!(server.psql("postgres", UNKNOWN), "master_key open_envelopes");
}

#[test]
fn without_the_library_or_the_tables_it_says_what_is_missing() {
    let server = Server::init();
    server.start();
    server.psql("postgres", "CREATE EXTENSION watchllm_keys");
    let walls = "adopted_rows adopted_tables append_only audit_writer days_ahead key_envelopes logged master_key \
        missing_policies open_envelopes project_members row_security trail views";
    assert_eq!(server.psql("postgres", WRONG), "installed keyring_file preloaded");
    assert_eq!(server.psql("postgres", UNKNOWN), walls);
    assert!(detail(&server, "preloaded").contains("not preloaded"));
    server.psql("postgres", "SELECT watchllm.install()");
    assert_eq!(server.psql("postgres", WRONG), "keyring_file preloaded");
    assert_eq!(server.psql("postgres", UNKNOWN), "audit_writer master_key open_envelopes");
    server.preload_vault();
    server.restart();
    assert_eq!(server.psql("postgres", WRONG), "");
    assert_eq!(server.psql("postgres", UNKNOWN), "");
    // another database of the server has the extension only, in an encoding that install() refuses
    server.psql("postgres", "CREATE DATABASE old ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0");
    server.psql("old", "CREATE EXTENSION watchllm_keys");
    assert_eq!(server.psql("old", WRONG), "encoding installed");
    assert_eq!(server.psql("old", UNKNOWN), walls);
    // only the tables are there: half of a restore
    server.psql("postgres", "DROP EXTENSION watchllm_keys CASCADE; CREATE EXTENSION watchllm_keys");
    assert_eq!(
        server.psql("postgres", WRONG),
        "append_only installed missing_policies silent_triggers"
    );
    assert!(detail(&server, "installed").contains("not ready"));
}

#[test]
fn a_standby_has_no_writer_and_that_is_no_fault() {
    let server = Server::with_vault();
    let standby = server.backup_to_standby();
    standby.start();
    assert_eq!(standby.psql("postgres", WRONG), "");
    assert_eq!(standby.psql("postgres", UNKNOWN), "audit_writer master_key open_envelopes");
}

#[test]
fn nobody_else_gets_an_answer() {
    let server = Server::with_vault();
    server.psql(
        "postgres",
        "CREATE ROLE plain LOGIN; GRANT USAGE ON SCHEMA watchllm TO plain;
        GRANT EXECUTE ON FUNCTION watchllm.security_check TO plain, watchllm_service, watchllm_tenant;
        CREATE ROLE service LOGIN IN ROLE watchllm_service; CREATE ROLE tenant LOGIN IN ROLE watchllm_tenant",
    );
    for user in ["plain", "service", "tenant"] {
        let s = &mut server.connect("postgres", user);
        assert_eq!(code(s, "SELECT * FROM watchllm.security_check()"), "42501", "{user}");
    }
}
