//! Installing (DESIGN §4, §5): who may, what is refused, what an attacker prepares beforehand, and what stands in the
//! catalog afterwards: owners, row security, grants, comments, fixed search paths. Default privileges as Supabase
//! sets them must give nothing away.

use crate::server::Server;

const EXTENSION: &str = "CREATE EXTENSION watchllm_keys;";
const INSTALL: &str = "SELECT watchllm.install()";

/// Preloaded and with a keyring; nothing created yet.
fn bare() -> Server {
    let server = Server::init();
    server.preload_vault();
    server.start();
    server
}

fn refused(server: &Server, database: &str, sql: &str, sqlstate: &str, words: &str) {
    let result = server.psql_result(database, sql);
    let hit = result.status == 3 && result.stderr.contains(&format!("ERROR:  {sqlstate}"));
    assert!(hit && result.stderr.contains(words), "{sql}: {}{}", result.stdout, result.stderr);
}

/// The query finds nothing; what it finds is named.
fn none(server: &Server, database: &str, what: &str, sql: &str) {
    assert_eq!(server.psql(database, sql), "", "{what}");
}

#[test]
fn functions_say_what_is_missing_before_install() {
    let server = bare();
    server.psql("postgres", EXTENSION);
    for call in [
        "SELECT watchllm.create_project('p')",
        "SELECT watchllm.decrypt_provider_key(gen_random_uuid())",
        "SELECT watchllm.store_provider_key(gen_random_uuid(), 'openai', 'some-key')",
        "SELECT * FROM watchllm.key_access_history(gen_random_uuid())",
        "SELECT * FROM watchllm.failed_access_attempts()",
        "SELECT watchllm.reload_keyring()",
    ] {
        refused(&server, "postgres", call, "55000", "HINT:  Run: SELECT watchllm.install();");
    }
    assert_eq!(server.psql("postgres", "SELECT installed, problem ~ 'not installed' FROM watchllm.status()"), "f|t");
    assert_eq!(server.writer_pid("postgres"), None);
    let twice = server.psql("postgres", &format!("{INSTALL}; {INSTALL}; {INSTALL}"));
    let said: Vec<&str> = twice.lines().collect();
    assert!(said[0].contains(": installed") && said[1].contains("up to date") && said[1] == said[2], "{twice}");
    assert_eq!(server.psql("postgres", "SELECT count(*) FROM watchllm.install_history"), "1");
    let days = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'watchllm.provider_key_access_logs'::regclass";
    assert_eq!(server.psql("postgres", days), "8");
}

#[test]
fn two_databases_are_served_side_by_side() {
    let server = bare();
    server.psql("postgres", "CREATE DATABASE a; CREATE DATABASE b");
    for database in ["a", "b"] {
        server.psql(database, &format!("{EXTENSION} {INSTALL};"));
        server.psql(database, "SELECT watchllm.store_provider_key(watchllm.create_project('p'), 'openai', 'key-of-' || current_database())");
    }
    let open = "SELECT watchllm.decrypt_provider_key(id) FROM watchllm.provider_key_records";
    assert_eq!((server.psql("a", open), server.psql("b", open)), ("key-of-a".into(), "key-of-b".into()));
    assert_ne!(server.writer_pid("a"), server.writer_pid("b"));
    let salts = ["a", "b"].map(|database| server.psql(database, "SELECT salt FROM watchllm.master_keys"));
    assert_ne!(salts[0], salts[1]);
    // the owner is in use elsewhere: CREATE EXTENSION in one more database keeps it as it is
    server.psql("postgres", &format!("{EXTENSION} {INSTALL};"));
}

#[test]
fn only_a_superuser_installs_and_only_into_utf8() {
    let server = bare();
    server.psql("postgres", &format!("{EXTENSION} CREATE ROLE app LOGIN CREATEROLE CREATEDB; GRANT watchllm_admin TO app; GRANT ALL ON DATABASE postgres TO app;"));
    for granted in ["", "GRANT EXECUTE ON FUNCTION watchllm.install() TO app; GRANT USAGE ON SCHEMA watchllm TO app"] {
        server.psql("postgres", granted);
        let result = server.psql_result_as("postgres", "app", INSTALL);
        assert!(result.stderr.contains("ERROR:  42501"), "{granted}: {}", result.stderr);
    }
    for encoding in ["SQL_ASCII", "LATIN1"] {
        let database = encoding.to_lowercase();
        server.psql(
            "postgres",
            &format!("CREATE DATABASE {database} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"),
        );
        server.psql(&database, EXTENSION);
        refused(&server, &database, INSTALL, "0A000", "HINT:  Create the database with ENCODING 'UTF8'");
        none(
            &server,
            &database,
            "tables",
            "SELECT relname FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace",
        );
    }
}

#[test]
fn what_somebody_else_prepared_is_not_taken_over() {
    let server = bare();
    server.psql("postgres", "CREATE ROLE mallory; GRANT CREATE ON DATABASE postgres TO mallory");
    server.psql("postgres", EXTENSION);
    for (prepare, words, undo) in [
        (
            "CREATE TABLE watchllm.projects (id uuid); ALTER TABLE watchllm.projects OWNER TO mallory",
            "mallory owns it",
            "DROP TABLE watchllm.projects",
        ),
        ("CREATE VIEW watchllm.projects AS SELECT 1", "of another kind", "DROP VIEW watchllm.projects"),
        ("CREATE TYPE watchllm.master_keys AS ENUM ()", "is not ours", "DROP TYPE watchllm.master_keys"),
        (
            "CREATE TABLE watchllm.provider_key_access_logs_20300101 (); ALTER TABLE watchllm.provider_key_access_logs_20300101 OWNER TO mallory",
            "mallory owns it",
            "DROP TABLE watchllm.provider_key_access_logs_20300101",
        ),
        (
            "GRANT CREATE ON SCHEMA watchllm TO mallory",
            "REVOKE CREATE ON SCHEMA watchllm FROM mallory",
            "REVOKE CREATE ON SCHEMA watchllm FROM mallory",
        ),
        ("GRANT CREATE ON SCHEMA watchllm TO PUBLIC", "PUBLIC", "REVOKE CREATE ON SCHEMA watchllm FROM PUBLIC"),
        ("ALTER SCHEMA watchllm OWNER TO mallory", "belongs to mallory", "ALTER SCHEMA watchllm OWNER TO postgres"),
        ("GRANT watchllm_owner TO mallory", "members", "REVOKE watchllm_owner FROM mallory"),
        ("GRANT mallory TO watchllm_owner", "member", "REVOKE mallory FROM watchllm_owner"),
        ("ALTER ROLE watchllm_owner LOGIN", "must not have", "ALTER ROLE watchllm_owner NOLOGIN"),
        ("ALTER ROLE watchllm_owner BYPASSRLS", "must not have", "ALTER ROLE watchllm_owner NOBYPASSRLS"),
        ("ALTER ROLE watchllm_owner SUPERUSER", "must not have", "ALTER ROLE watchllm_owner NOSUPERUSER"),
    ] {
        server.psql("postgres", prepare);
        refused(&server, "postgres", INSTALL, "42501", words);
        server.psql("postgres", undo);
        none(
            &server,
            "postgres",
            prepare,
            "SELECT relname FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace",
        );
    }
    server.psql("postgres", INSTALL);
    for (prepare, words, undo) in [
        (
            "CREATE FUNCTION public.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'; CREATE TRIGGER t BEFORE INSERT ON watchllm.projects FOR EACH ROW EXECUTE FUNCTION public.f()",
            "trigger t",
            "DROP TRIGGER t ON watchllm.projects",
        ),
        (
            "CREATE RULE r AS ON INSERT TO watchllm.projects DO ALSO NOTHING",
            "rule r",
            "DROP RULE r ON watchllm.projects",
        ),
    ] {
        server.psql("postgres", prepare);
        refused(&server, "postgres", INSTALL, "42501", words);
        refused(&server, "postgres", "SELECT watchllm.create_project('p')", "42501", "trigger or rule");
        server.psql("postgres", undo);
    }
    server.psql("postgres", "ALTER TABLE watchllm.projects OWNER TO mallory");
    refused(&server, "postgres", "SELECT watchllm.create_project('p')", "42501", "not owned by watchllm_owner");
    refused(&server, "postgres", INSTALL, "42501", "mallory owns it");
    server
        .psql("postgres", "ALTER TABLE watchllm.projects OWNER TO watchllm_owner; SELECT watchllm.create_project('p')");
}

/// Mallory may create in public, which stands before pg_catalog in everybody's search_path here.
#[test]
fn hostile_names_in_the_search_path_are_never_called() {
    let server = bare();
    server.psql(
        "postgres",
        "CREATE ROLE mallory LOGIN; GRANT CREATE ON SCHEMA public TO mallory; CREATE TABLE caught (what text);
         GRANT ALL ON caught TO PUBLIC; ALTER DATABASE postgres SET search_path = public, pg_catalog;
         ALTER ROLE ALL SET search_path = public, pg_catalog;",
    );
    let mut traps = String::from(
        "CREATE FUNCTION public.trap(what text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
         AS $$ BEGIN INSERT INTO public.caught VALUES (what || ' as ' || current_user); END $$;",
    );
    for (name, arguments, returns, value) in [
        ("now", "", "timestamptz", "pg_catalog.now()"),
        ("format", "text, text", "text", "'SELECT 1'"),
        ("format", "text, name", "text", "'SELECT 1'"),
        ("quote_ident", "text", "text", "'x'"),
        ("octet_length", "text", "integer", "1"),
        ("octet_length", "bytea", "integer", "32"),
        ("coalesce_", "text", "text", "'x'"),
        ("gen_random_uuid", "", "uuid", "pg_catalog.gen_random_uuid()"),
        ("to_char", "timestamp, text", "text", "'20200101'"),
        ("max", "integer", "integer", "1"),
        ("int4send", "integer", "bytea", "'\\x00000001'::bytea"),
        ("current_database", "", "name", "'x'::name"),
        ("pg_has_role", "oid, oid, text", "boolean", "true"),
        ("refuse_change", "", "text", "'x'"),
        ("make_log_partition", "date", "boolean", "true"),
    ] {
        traps.push_str(&format!(
            "CREATE FUNCTION public.{name}({arguments}) RETURNS {returns} LANGUAGE plpgsql AS $$ BEGIN
             PERFORM public.trap('{name}'); RETURN {value}; END $$;\n"
        ));
    }
    for (operator, left, right, call) in [
        ("=", "uuid", "uuid", "uuid_eq"),
        ("=", "text", "text", "texteq"),
        ("=", "name", "text", "nameeqtext"),
        ("=", "integer", "integer", "int4eq"),
        ("=", "oid", "oid", "oideq"),
        ("<>", "oid", "oid", "oidne"),
        ("<", "integer", "integer", "int4lt"),
        ("||", "text", "text", "textcat"),
        (">=", "timestamptz", "timestamptz", "timestamptz_ge"),
        ("+", "date", "integer", "date_pli"),
        ("~", "text", "text", "textregexeq"),
        ("~", "name", "text", "nameregexeq"),
    ] {
        let returns = match operator {
            "||" => "text",
            "+" => "date",
            _ => "boolean",
        };
        traps.push_str(&format!(
            "CREATE FUNCTION public.op_{call}({left}, {right}) RETURNS {returns} LANGUAGE plpgsql AS $$ BEGIN
             PERFORM public.trap('{operator} on {left}'); RETURN pg_catalog.{call}($1, $2); END $$;
             CREATE OPERATOR public.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.op_{call});\n"
        ));
    }
    traps.push_str(
        "CREATE TABLE public.projects (LIKE public.caught); CREATE TABLE public.provider_key_records (id uuid);",
    );
    let made = server.psql_result_as("postgres", "mallory", &traps);
    assert_eq!(made.status, 0, "{}", made.stderr);
    server.psql(
        "postgres",
        "CREATE EXTENSION watchllm_keys; SELECT watchllm.install(); SELECT watchllm.install();
         SELECT watchllm.create_project('p') AS p \\gset
         SELECT watchllm.add_project_member(:'p', role_name => 'mallory');
         SELECT watchllm.store_provider_key(:'p', 'openai', 'the-key', 'k') AS k \\gset
         SELECT watchllm.rotate_provider_key(:'k', 'next-key', 1); SELECT watchllm.rollback_provider_key(:'k');
         SELECT watchllm.decrypt_provider_key(:'k'); SELECT * FROM watchllm.decrypt_provider_keys(ARRAY[:'k']::uuid[]);
         SELECT * FROM watchllm.resolve_provider_key(:'p', 'openai'); SELECT watchllm.validate_provider_key(:'k');
         SELECT * FROM watchllm.key_access_history(:'k'); SELECT * FROM watchllm.failed_access_attempts();
         SELECT * FROM watchllm.status(); SELECT watchllm.reload_keyring(); SELECT watchllm.make_log_partition('2031-01-01');
         SELECT watchllm.delete_provider_key(:'k'); SELECT * FROM watchllm.provider_keys;",
    );
    none(&server, "postgres", "a hostile function was called", "SELECT DISTINCT what FROM public.caught");
    // the trap works
    server.psql("postgres", "SELECT public.now()");
    assert_eq!(server.psql("postgres", "SELECT what FROM public.caught"), "now as postgres");
}

const OURS: &str = "pg_class c WHERE c.relnamespace = 'watchllm'::regnamespace AND c.relkind IN ('r', 'p', 'v', 'm')";

/// What must hold of every object, whatever default privileges were.
fn judge_the_catalog(server: &Server, database: &str) {
    let find = |what: &str, sql: &str| none(server, database, what, sql);
    find("owner", &format!("SELECT relname FROM {OURS} AND relowner <> 'watchllm_owner'::regrole"));
    find(
        "row security",
        &format!("SELECT relname FROM {OURS} AND relkind <> 'v' AND NOT (relrowsecurity AND relforcerowsecurity)"),
    );
    find(
        "invoker",
        &format!(
            "SELECT relname FROM {OURS} AND relkind = 'v' AND NOT coalesce('security_invoker=true' = ANY (reloptions), false)"
        ),
    );
    find(
        "table comment",
        &format!("SELECT relname FROM {OURS} AND NOT relispartition AND obj_description(c.oid, 'pg_class') IS NULL"),
    );
    find("column comment", "SELECT attrelid::regclass || '.' || attname FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
        WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT relispartition AND attnum > 0
        AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL");
    find(
        "function comment",
        "SELECT p.oid::regprocedure FROM pg_proc p WHERE pronamespace = 'watchllm'::regnamespace
        AND obj_description(p.oid, 'pg_proc') IS NULL",
    );
    find("grants on tables", &format!("SELECT relname, a.grantee::regrole, a.privilege_type FROM {OURS} AND relacl IS NOT NULL").replace(
        "FROM pg_class c WHERE", "FROM pg_class c CROSS JOIN LATERAL aclexplode(c.relacl) a WHERE a.grantee <> c.relowner
        AND NOT (c.relkind = 'v' AND a.privilege_type = 'SELECT' AND a.grantee::regrole::text IN ('watchllm_admin', 'watchllm_auditor')) AND"));
    find(
        "grants on columns",
        "SELECT attrelid::regclass, attname, x.grantee::regrole, privilege_type FROM pg_attribute a
        JOIN pg_class c ON c.oid = attrelid, aclexplode(attacl) x WHERE relnamespace = 'watchllm'::regnamespace
        AND (privilege_type <> 'SELECT' OR x.grantee::regrole::text NOT IN ('watchllm_admin', 'watchllm_auditor'))",
    );
    find(
        "grants on functions",
        "SELECT p.oid::regprocedure, a.grantee FROM pg_proc p,
        aclexplode(coalesce(proacl, acldefault('f', proowner))) a WHERE pronamespace = 'watchllm'::regnamespace
        AND a.grantee <> proowner AND a.grantee::regrole::text !~ '^watchllm_(admin|service|tenant|auditor|owner)$'",
    );
    find(
        "schema",
        "SELECT a.grantee, a.privilege_type FROM pg_namespace n, aclexplode(nspacl) a WHERE nspname = 'watchllm'
        AND a.grantee <> nspowner AND a.grantee::regrole::text !~ '^watchllm_'",
    );
    find(
        "search_path",
        "SELECT p.oid::regprocedure, proconfig FROM pg_proc p WHERE pronamespace = 'watchllm'::regnamespace
        AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), false)",
    );
    find(
        "volatile, parallel unsafe, no definer",
        "SELECT p.oid::regprocedure, provolatile, proparallel, prosecdef FROM pg_proc p
        WHERE pronamespace = 'watchllm'::regnamespace AND (prosecdef OR provolatile <> 'v' OR proparallel <> 'u')",
    );
    find(
        "strangers",
        "SELECT r.rolname, c.relname, p FROM pg_roles r, pg_class c,
        unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
        WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p', 'v') AND NOT rolsuper
        AND rolname !~ '^(watchllm_|pg_)' AND has_table_privilege(r.oid, c.oid, p)",
    );
    find("ciphertext", "SELECT r.rolname, c.oid::regclass FROM pg_roles r, pg_class c WHERE relnamespace = 'watchllm'::regnamespace
        AND relname IN ('provider_key_versions', 'master_keys', 'audit_keys') AND NOT rolsuper
        AND rolname !~ '^(pg_|watchllm_owner$)' AND has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')");
}

#[test]
fn the_catalog_is_closed_and_described() {
    let server = Server::with_vault();
    server.psql("postgres", "CREATE ROLE stranger; SELECT watchllm.make_log_partition('2031-05-05')");
    judge_the_catalog(&server, "postgres");
}

#[test]
fn default_privileges_as_supabase_sets_them_give_nothing() {
    let server = bare();
    server.psql(
        "postgres",
        "CREATE ROLE anon; CREATE ROLE authenticated; CREATE ROLE service_role BYPASSRLS; CREATE ROLE other",
    );
    for kind in ["TABLES", "FUNCTIONS", "SEQUENCES"] {
        server.psql(
            "postgres",
            &format!(
                "ALTER DEFAULT PRIVILEGES GRANT ALL ON {kind} TO anon, authenticated, service_role, other, PUBLIC"
            ),
        );
        server.psql(
            "postgres",
            &format!(
                "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON {kind} TO anon, authenticated, service_role"
            ),
        );
    }
    server.psql("postgres", EXTENSION);
    server.psql(
        "postgres",
        "ALTER DEFAULT PRIVILEGES IN SCHEMA watchllm GRANT ALL ON TABLES TO anon, authenticated, service_role, other",
    );
    server.psql("postgres", "ALTER DEFAULT PRIVILEGES FOR ROLE watchllm_owner GRANT ALL ON TABLES TO anon, other");
    server.psql("postgres", INSTALL);
    judge_the_catalog(&server, "postgres");
    server.psql("postgres", "SET ROLE watchllm_owner; SELECT watchllm.make_log_partition('2031-05-05')");
    server.psql("postgres", "SELECT watchllm.make_log_partition('2031-05-06'); SELECT watchllm.install()");
    judge_the_catalog(&server, "postgres");
    for role in ["anon", "authenticated", "service_role"] {
        refused(
            &server,
            "postgres",
            &format!("SET ROLE {role}; SELECT watchllm.status()"),
            "42501",
            "permission denied",
        );
    }
}
