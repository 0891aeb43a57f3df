//! Installing: who may, what is refused, what an attacker prepares beforehand, and what the catalog
//! holds afterwards. The catalog must have the right owners, row security, grants, comments and
//! fixed search paths. Supabase's default privileges must give nothing away. See
//! docs/architecture.md#install-model.

use crate::server::Server;

const EXTENSION: &str = "CREATE EXTENSION watchllm_keys;";
const INSTALL: &str = "SELECT watchllm.install()";
const TABLES: &str = "SELECT relname FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace";

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

/// The query must find nothing. The failure names what it found.
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
        "SELECT * FROM watchllm.key_access_history(gen_random_uuid())",
        "SELECT * FROM watchllm.failed_access_attempts()",
        "SELECT watchllm.reload_keyring()",
    ] {
        refused(&server, "postgres", call, "55000", "HINT:  Run: SELECT watchllm.install();");
    }
    assert_eq!(
        server
            .psql("postgres", "SELECT installed, problem ~ 'not installed' FROM watchllm.status()"),
        "f|t"
    );
    assert_eq!(server.writer_pid("postgres"), None);
    let twice = server.psql("postgres", &format!("{INSTALL}; {INSTALL}; {INSTALL}"));
    let said: Vec<&str> = twice.lines().collect();
    assert!(
        said[0].contains(": installed") && said[1].contains("up to date") && said[1] == said[2],
        "{twice}"
    );
    assert_eq!(server.psql("postgres", "SELECT count(*) FROM watchllm.install_history"), "1");
    let days = "SELECT count(*) = 9 FROM pg_partition_tree('watchllm.provider_key_access_logs')"; // itself too
    assert_eq!(server.psql("postgres", days), "t");
}

#[test]
fn two_databases_are_served_side_by_side() {
    let server = bare();
    server.psql("postgres", "CREATE DATABASE a; CREATE DATABASE b");
    for database in ["a", "b"] {
        server.psql(database, &format!("{EXTENSION} {INSTALL};"));
        let key = format!(
            "watchllm.store_provider_key(watchllm.create_project('p'), 'openai', 'key-of-{database}')"
        );
        server.psql(database, &format!("SELECT {key}"));
    }
    let open = "SELECT watchllm.decrypt_provider_key(id) FROM watchllm.provider_key_records";
    assert_eq!(
        (server.psql("a", open), server.psql("b", open)),
        ("key-of-a".into(), "key-of-b".into())
    );
    assert_ne!(server.writer_pid("a"), server.writer_pid("b"));
    let salt = "SELECT salt FROM watchllm.master_keys";
    assert_ne!(server.psql("a", salt), server.psql("b", salt));
}

#[test]
fn only_a_superuser_installs_and_only_into_utf8() {
    let server = bare();
    let admin = "CREATE ROLE app LOGIN CREATEROLE CREATEDB; GRANT watchllm_admin TO app";
    server.psql("postgres", &format!("{EXTENSION} {admin}"));
    for granted in [
        "",
        "GRANT EXECUTE ON FUNCTION watchllm.install() TO app; GRANT USAGE ON SCHEMA watchllm TO app",
    ] {
        server.psql("postgres", granted);
        let result = server.psql_result_as("postgres", "app", INSTALL);
        assert!(result.stderr.contains("ERROR:  42501"), "{granted}: {}", result.stderr);
        let own_hint = result.stderr.contains("Connect as a superuser")
            && result.stderr.contains("docs/reference.md#install");
        assert!(granted.is_empty() || own_hint, "{}", result.stderr);
    }
    for encoding in ["SQL_ASCII", "LATIN1"] {
        let database = encoding.to_lowercase();
        let create = format!(
            "CREATE DATABASE {database} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0"
        );
        server.psql("postgres", &create);
        server.psql(&database, EXTENSION);
        refused(
            &server,
            &database,
            INSTALL,
            "0A000",
            "HINT:  Create the database with ENCODING 'UTF8'",
        );
        none(&server, &database, "tables", TABLES);
    }
}

/// An attacker's preparation ¦ what install() says ¦ how to undo it.
const PREPARED: &str = "
CREATE TABLE {ours} (); ALTER TABLE {ours} OWNER TO mallory ¦ mallory owns it ¦ DROP TABLE {ours}
CREATE VIEW watchllm.projects AS SELECT 1 ¦ of another kind ¦ DROP VIEW watchllm.projects
CREATE TYPE watchllm.master_keys AS ENUM () ¦ is not ours ¦ DROP TYPE watchllm.master_keys
CREATE TABLE {day} (); ALTER TABLE {day} OWNER TO mallory ¦ mallory owns it ¦ DROP TABLE {day}
CREATE FUNCTION watchllm.decrypt_provider_key(text) RETURNS text LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION watchllm.decrypt_provider_key(text) OWNER TO mallory ¦ watchllm.decrypt_provider_key(text) is not ours: mallory owns it ¦ DROP FUNCTION watchllm.decrypt_provider_key(text)
CREATE OPERATOR watchllm.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = oideq); ALTER OPERATOR watchllm.= (oid, oid) OWNER TO mallory ¦ operator watchllm.=(oid,oid) is not ours ¦ DROP OPERATOR watchllm.= (oid, oid)
GRANT CREATE ON SCHEMA watchllm TO mallory ¦ FROM mallory ¦ REVOKE CREATE ON SCHEMA watchllm FROM mallory
GRANT CREATE ON SCHEMA watchllm TO PUBLIC ¦ PUBLIC ¦ REVOKE CREATE ON SCHEMA watchllm FROM PUBLIC
ALTER SCHEMA watchllm OWNER TO mallory ¦ belongs to mallory ¦ ALTER SCHEMA watchllm OWNER TO postgres
GRANT watchllm_owner TO mallory ¦ members ¦ REVOKE watchllm_owner FROM mallory
GRANT mallory TO watchllm_owner ¦ member ¦ REVOKE mallory FROM watchllm_owner
ALTER ROLE watchllm_owner LOGIN ¦ must not have ¦ ALTER ROLE watchllm_owner NOLOGIN
ALTER ROLE watchllm_owner BYPASSRLS ¦ must not have ¦ ALTER ROLE watchllm_owner NOBYPASSRLS
ALTER ROLE watchllm_owner SUPERUSER ¦ must not have ¦ ALTER ROLE watchllm_owner NOSUPERUSER";

#[test]
fn what_somebody_else_prepared_is_not_taken_over() {
    let server = bare();
    server.psql(
        "postgres",
        "CREATE ROLE mallory LOGIN; GRANT CREATE ON DATABASE postgres TO mallory",
    );
    let early = server.psql_result_as("postgres", "mallory", EXTENSION);
    assert!(early.stderr.contains("ERROR:  42501"), "{}", early.stderr);
    server.psql("postgres", EXTENSION);
    let prepared = PREPARED.replace("{day}", "watchllm.provider_key_access_logs_20300101");
    for line in
        prepared.replace("{ours}", "watchllm.projects").lines().filter(|line| !line.is_empty())
    {
        let [prepare, words, undo] = line.split(" ¦ ").collect::<Vec<_>>().try_into().unwrap();
        server.psql("postgres", prepare);
        refused(&server, "postgres", INSTALL, "42501", words);
        server.psql("postgres", undo);
        none(&server, "postgres", prepare, TABLES);
    }
    // install() must not even read it: what a view calls would run with a superuser's rights.
    // No rollback takes back what that does to a sequence or outside of the database.
    server.psql(
        "postgres",
        "CREATE SEQUENCE calls; GRANT ALL ON SEQUENCE calls TO PUBLIC;
         CREATE VIEW watchllm.install_history AS SELECT nextval('calls')::int AS schema_version;
         ALTER VIEW watchllm.install_history OWNER TO mallory",
    );
    refused(&server, "postgres", INSTALL, "42501", "mallory owns it");
    assert_eq!(server.psql("postgres", "SELECT is_called FROM calls"), "f");
    server.psql("postgres", "SELECT * FROM watchllm.install_history"); // the trap works
    assert_eq!(server.psql("postgres", "SELECT is_called FROM calls"), "t");
    server.psql("postgres", "DROP VIEW watchllm.install_history; DROP SEQUENCE calls");
    server.psql("postgres", INSTALL);
    server.psql(
        "postgres",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
    );
    for (kind, body) in [
        ("TRIGGER", "BEFORE INSERT ON watchllm.projects FOR EACH ROW EXECUTE FUNCTION f()"),
        ("RULE", "AS ON INSERT TO watchllm.projects DO ALSO NOTHING"),
    ] {
        server.psql("postgres", &format!("CREATE {kind} x {body}"));
        refused(&server, "postgres", INSTALL, "42501", &format!("{} x", kind.to_lowercase()));
        refused(
            &server,
            "postgres",
            "SELECT watchllm.create_project('p')",
            "42501",
            "trigger or rule",
        );
        server.psql("postgres", &format!("DROP {kind} x ON watchllm.projects"));
    }
    server.psql("postgres", "ALTER TABLE watchllm.projects OWNER TO mallory");
    refused(
        &server,
        "postgres",
        "SELECT watchllm.create_project('p')",
        "42501",
        "watchllm_owner must own every table",
    );
    refused(&server, "postgres", INSTALL, "42501", "mallory owns it");
    server.psql("postgres", "ALTER TABLE watchllm.projects OWNER TO watchllm_owner");
    server.psql("postgres", "SELECT watchllm.create_project('p')");
}

#[test]
fn a_schema_prepared_by_another_is_refused() {
    let server = bare();
    server.psql("postgres", "CREATE ROLE mallory; CREATE SCHEMA watchllm AUTHORIZATION mallory");
    refused(&server, "postgres", &format!("{EXTENSION} {INSTALL};"), "42501", "mallory");
    none(&server, "postgres", "tables", TABLES);
}

/// Functions by name, arguments, result and value; operators by name, operands, result and
/// function.
const TRAPS: &str = "
f now ¦  ¦ timestamptz ¦ pg_catalog.now()
f format ¦ text, text ¦ text ¦ 'SELECT 1'
f quote_ident ¦ text ¦ text ¦ 'x'
f gen_random_uuid ¦  ¦ uuid ¦ pg_catalog.gen_random_uuid()
f int4send ¦ integer ¦ bytea ¦ '\\x00000001'::bytea
f make_log_partition ¦ date ¦ boolean ¦ true
o = ¦ uuid, uuid ¦ boolean ¦ uuid_eq
o = ¦ text, text ¦ boolean ¦ texteq
o = ¦ name, text ¦ boolean ¦ nameeqtext
o = ¦ integer, integer ¦ boolean ¦ int4eq
o = ¦ oid, oid ¦ boolean ¦ oideq
o || ¦ text, text ¦ text ¦ textcat
o + ¦ date, integer ¦ date ¦ date_pli
o ~ ¦ text, text ¦ boolean ¦ textregexeq";

fn trap(line: &str) -> String {
    let [name, arguments, returns, value] =
        line[2..].split(" ¦ ").collect::<Vec<_>>().try_into().unwrap();
    let body = |value: &str| {
        format!(
            "RETURNS {returns} LANGUAGE plpgsql AS $$ BEGIN PERFORM public.trap('{name}'); RETURN {value}; END $$;"
        )
    };
    if line.starts_with('f') {
        return format!("CREATE FUNCTION public.{name}({arguments}) {}", body(value));
    }
    let (left, right) = arguments.split_once(", ").unwrap();
    format!(
        "CREATE FUNCTION public.op_{value}({arguments}) {}
         CREATE OPERATOR public.{name} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.op_{value});",
        body(&format!("pg_catalog.{value}($1, $2)"))
    )
}

/// Here Mallory may create in public, and public comes before pg_catalog in everybody's
/// search_path.
#[test]
fn hostile_names_in_the_search_path_are_never_called() {
    let server = bare();
    server.psql(
        "postgres",
        "CREATE ROLE mallory LOGIN; GRANT CREATE ON SCHEMA public TO mallory; CREATE TABLE caught (what text);
         GRANT ALL ON caught TO PUBLIC; ALTER ROLE ALL SET search_path = pg_temp, public, pg_catalog;",
    );
    let mut traps = String::from(
        "CREATE FUNCTION public.trap(what text) RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
         AS $$ BEGIN INSERT INTO public.caught VALUES (what || ' as ' || current_user); END $$;",
    );
    traps.extend(TRAPS.lines().filter(|line| !line.is_empty()).map(trap));
    for name in
        ["projects", "provider_key_records", "pg_class", "pg_roles", "pg_namespace", "pg_trigger"]
    {
        traps.push_str(&format!("CREATE TABLE public.{name} (LIKE public.caught);"));
    }
    let domain = |name| {
        format!(
            "CREATE DOMAIN public.{name} AS pg_catalog.{name} CHECK (public.trap('x') IS NULL);"
        )
    };
    traps.extend(["text", "name", "uuid", "int4", "oid", "jsonb", "regclass"].map(domain));
    let made = server.psql_result_as("postgres", "mallory", &traps);
    assert_eq!(made.status, 0, "{}", made.stderr);
    server.psql(
        "postgres",
        "CREATE EXTENSION watchllm_keys; SELECT watchllm.install(); SELECT watchllm.install();
         CREATE TEMP TABLE provider_key_records (); CREATE TEMP TABLE pg_class (); CREATE TEMP TABLE projects ();
         SELECT watchllm.create_project('p') AS p \\gset
         SELECT watchllm.add_project_member(:'p', role_name => 'mallory');
         SELECT watchllm.store_provider_key(:'p', 'openai', 'the-key', 'k') AS k \\gset
         SELECT watchllm.rotate_provider_key(:'k', 'next-key', 1); SELECT watchllm.rollback_provider_key(:'k');
         SELECT watchllm.decrypt_provider_key(:'k');
         SELECT * FROM watchllm.decrypt_provider_keys(ARRAY[:'k']::pg_catalog.uuid[]);
         SELECT * FROM watchllm.resolve_provider_key(:'p', 'openai'); SELECT watchllm.validate_provider_key(:'k');
         SELECT * FROM watchllm.key_access_history(:'k'); SELECT * FROM watchllm.failed_access_attempts();
         SELECT * FROM watchllm.status(); SELECT watchllm.reload_keyring();
         SELECT watchllm.make_log_partition('2031-01-01');
         SELECT watchllm.delete_provider_key(:'k'); SELECT * FROM watchllm.provider_keys;",
    );
    none(
        &server,
        "postgres",
        "a hostile object was used",
        "SELECT DISTINCT what FROM public.caught",
    );
    server.psql("postgres", "SELECT public.now()"); // the traps work
    assert_eq!(server.psql("postgres", "SELECT what FROM public.caught"), "now as postgres");
}

/// Rules for every object. Each query names the objects that break its rule.
const RULES: &str = "
tables have one owner: SELECT relname FROM ours WHERE relowner <> 'watchllm_owner'::regrole;
tables are walled: SELECT relname FROM ours WHERE relkind <> 'v' AND NOT (relrowsecurity AND relforcerowsecurity);
views read as their reader: SELECT relname FROM ours WHERE relkind = 'v'
    AND NOT coalesce('security_invoker=true' = ANY (reloptions), false);
tables have a comment: SELECT relname FROM ours WHERE NOT relispartition AND obj_description(oid, 'pg_class') IS NULL;
columns have a comment: SELECT relname, attname FROM ours c JOIN pg_attribute ON attrelid = c.oid
    WHERE NOT relispartition AND attnum > 0 AND NOT attisdropped AND col_description(attrelid, attnum) IS NULL;
functions have a comment: SELECT signature FROM functions WHERE obj_description(oid, 'pg_proc') IS NULL;
only views are granted: SELECT relname, a FROM ours, aclexplode(relacl) a WHERE a.grantee <> relowner
    AND (relkind <> 'v' OR a.grantee NOT IN (TABLE readers)
        OR a.privilege_type <> CASE relname WHEN 'provider_key_inbox' THEN 'INSERT' ELSE 'SELECT' END);
columns are granted to be read: SELECT relname, attname FROM ours c JOIN pg_attribute ON attrelid = c.oid,
    aclexplode(attacl) a WHERE a.privilege_type <> 'SELECT' OR a.grantee NOT IN (TABLE readers);
functions are granted to our roles: SELECT signature, a.grantee
    FROM functions, aclexplode(coalesce(proacl, acldefault('f', proowner))) a WHERE a.grantee <> proowner
    AND a.grantee::regrole::text !~ '^watchllm_(admin|service|tenant|auditor|owner)$'
    AND NOT (a.grantee = 0 AND proname IN ('redact', 'redact_columns'))
    AND NOT (a.grantee = 'pg_monitor'::regrole AND proname = 'status');
the schema is granted to our roles: SELECT a.grantee FROM pg_namespace, aclexplode(nspacl) a WHERE nspname = 'watchllm'
    AND a.grantee <> nspowner AND a.grantee::regrole::text !~ '^(watchllm_|pg_monitor$)';
functions have a fixed search_path or a body that was resolved when they were made, are volatile, unsafe in parallel (but those of policies and of columns), no definers: SELECT signature
    FROM functions WHERE NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (proconfig), prosqlbody IS NOT NULL) OR prosecdef
       OR concat(provolatile, proparallel) <> CASE WHEN proname IN ('current_project_ids', 'effective_setting', 'lowest_setting') THEN 'sr'
           WHEN proname IN ('redact', 'counts_as') THEN 'is'
           WHEN proname ~ '^(first_read|key_access_(rates|episodes|anomalies|limits)|key_(newcomers|busiest|flagged_times)|check_key_rotation_requirements|detect_(?!unusual_))' THEN 'su'
           ELSE 'vu' END;
strangers have nothing: SELECT r.rolname, relname, p FROM pg_roles r, ours c,
    unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) p
    WHERE NOT rolsuper AND rolname !~ '^(watchllm_|pg_)' AND has_table_privilege(r.oid, c.oid, p);
nobody reads what is sealed: SELECT r.rolname, relname FROM pg_roles r, ours c WHERE NOT rolsuper
    AND relname IN ('provider_key_versions', 'master_keys', 'audit_keys') AND rolname !~ '^(pg_|watchllm_owner$)'
    AND has_any_column_privilege(r.oid, c.oid, 'SELECT, INSERT, UPDATE, REFERENCES')";

/// The broken rules, each with the objects that break it.
fn broken_rules(server: &Server) -> Vec<(&'static str, String)> {
    let names = "WITH ours AS (SELECT * FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace
            AND relkind IN ('r', 'p', 'v', 'm')),
        functions AS (SELECT *, oid::regprocedure AS signature FROM pg_proc
            WHERE pronamespace = 'watchllm'::regnamespace),
        readers AS (SELECT oid FROM pg_roles WHERE rolname IN
            ('watchllm_admin', 'watchllm_auditor', 'watchllm_service', 'watchllm_tenant'))";
    let rules = RULES.split(';').map(|rule| rule.trim().split_once(": ").unwrap());
    let found =
        rules.map(|(what, query)| (what, server.psql("postgres", &format!("{names} {query}"))));
    found.filter(|(_, found)| !found.is_empty()).collect()
}

const BREAKS: &str = "
    CREATE TABLE watchllm.odd (a int); GRANT SELECT ON watchllm.odd TO stranger;
    ALTER VIEW watchllm.provider_keys RESET (security_invoker);
    CREATE FUNCTION watchllm.odd() RETURNS int LANGUAGE sql IMMUTABLE SECURITY DEFINER AS 'SELECT 1';
    GRANT UPDATE (envelope) ON watchllm.provider_key_versions TO stranger; GRANT USAGE ON SCHEMA watchllm TO stranger;";

#[test]
fn the_catalog_is_closed_and_described() {
    let server = Server::with_vault();
    server
        .psql("postgres", "CREATE ROLE stranger; SELECT watchllm.make_log_partition('2031-05-05')");
    assert_eq!(broken_rules(&server), []);
    server.psql("postgres", BREAKS);
    assert_eq!(broken_rules(&server).len(), RULES.split(';').count(), "a rule that nothing breaks");
}

/// Default privileges that grant everything, set before and after the schema exists.
const GENEROUS: &str = "
    CREATE ROLE anon; CREATE ROLE authenticated; CREATE ROLE service_role BYPASSRLS; CREATE ROLE other;
    ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {all}, PUBLIC;
    ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO {all}, PUBLIC;
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON TABLES TO {all};
    ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT ALL ON FUNCTIONS TO {all};
    CREATE EXTENSION watchllm_keys;
    ALTER DEFAULT PRIVILEGES IN SCHEMA watchllm GRANT ALL ON TABLES TO {all};
    ALTER DEFAULT PRIVILEGES FOR ROLE watchllm_owner GRANT ALL ON TABLES TO {all};";

#[test]
fn default_privileges_as_supabase_sets_them_give_nothing() {
    let server = bare();
    server.psql("postgres", &GENEROUS.replace("{all}", "anon, authenticated, service_role, other"));
    server.psql("postgres", INSTALL);
    assert_eq!(broken_rules(&server), []);
    server.psql(
        "postgres",
        "SET ROLE watchllm_owner; SELECT watchllm.make_log_partition('2031-05-05')",
    );
    server.psql(
        "postgres",
        "SELECT watchllm.make_log_partition('2031-05-06'); SELECT watchllm.install()",
    );
    assert_eq!(broken_rules(&server), []);
    for role in ["anon", "authenticated", "service_role"] {
        refused(
            &server,
            "postgres",
            &format!("SET ROLE {role}; SELECT watchllm.status()"),
            "42501",
            "denied",
        );
    }
}
