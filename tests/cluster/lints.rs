//! The lints of Supabase's advisor and of pgspot, written as our own SQL and run on an installed
//! database. The database has Supabase's roles and default privileges. They must find nothing.
//! Faults prove that each lint works.

use crate::server::Server;

/// A lint: its name, a query whose rows are findings, and faults. Each fault must be its only
/// finding.
struct Lint {
    name: &'static str,
    finds: &'static str,
    /// Fault ¦ finding.
    faults: &'static [&'static str],
}

/// Tables closed to everybody: row security without a policy, on purpose. Every partition of the
/// trail is closed too.
const CLOSED: &str =
    "'install_history', 'provider_key_versions', 'audit_checkpoints', 'database_identity',
    'master_keys', 'audit_keys'";

/// Runs before every lint. The queries call these our tables, policies and functions.
const OURS: &str = "CREATE TEMP VIEW tables AS SELECT c.relname AS name, c.* FROM pg_class c
        WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p');
    CREATE TEMP VIEW policies AS SELECT p.polname AS name, c.relname AS table_name, p.*, r.rolname,
            concat_ws(' ', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid)) AS expression
        FROM pg_policy p JOIN pg_class c ON c.oid = polrelid CROSS JOIN unnest(polroles) role
        LEFT JOIN pg_roles r ON r.oid = role WHERE c.relnamespace = 'watchllm'::regnamespace;
    CREATE TEMP VIEW functions AS SELECT p.oid::regprocedure::text AS name, p.* FROM pg_proc p
        WHERE pronamespace = 'watchllm'::regnamespace;";

const LINTS: &[Lint] = &[
    Lint {
        name: "row security is off or not forced",
        finds: "SELECT name FROM tables WHERE NOT (relrowsecurity AND relforcerowsecurity)",
        faults: &[
            "CREATE TABLE watchllm.more (id int) ¦ more",
            "ALTER TABLE watchllm.projects NO FORCE ROW LEVEL SECURITY ¦ projects",
            "ALTER TABLE watchllm.projects DISABLE ROW LEVEL SECURITY ¦ projects",
        ],
    },
    Lint {
        name: "row security without a policy, or a policy where none is meant",
        finds: "SELECT name FROM tables
            WHERE EXISTS (SELECT FROM policies WHERE polrelid = tables.oid) = (name IN (CLOSED) OR relispartition)",
        faults: &[
            "DROP POLICY auditors_read_all ON watchllm.project_members ¦ project_members",
            "CREATE POLICY p ON watchllm.master_keys TO watchllm_admin USING (true) ¦ master_keys",
        ],
    },
    Lint {
        name: "a view reads with its owner's rights",
        finds: "SELECT relname FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace AND relkind = 'v'
            AND NOT coalesce(reloptions @> '{security_invoker=true}', false)",
        faults: &[
            "ALTER VIEW watchllm.provider_keys RESET (security_invoker) ¦ provider_keys",
            "CREATE VIEW watchllm.more AS SELECT 1 ¦ more",
        ],
    },
    Lint {
        name: "a materialized view or foreign table, which row security cannot guard",
        finds: "SELECT relname FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('m', 'f')",
        faults: &["CREATE MATERIALIZED VIEW watchllm.more AS SELECT * FROM watchllm.projects ¦ more"],
    },
    Lint {
        name: "a search_path that the caller chooses",
        // a body that was resolved when the function was made looks nothing up
        finds: "SELECT name FROM functions WHERE prosqlbody IS NULL
            AND (proconfig IS NULL OR NOT 'search_path=pg_catalog, pg_temp' = ANY (proconfig))",
        faults: &[
            "CREATE FUNCTION watchllm.more() RETURNS int LANGUAGE sql AS 'SELECT 1' ¦ watchllm.more()",
            "ALTER FUNCTION watchllm.install() RESET search_path ¦ watchllm.install()",
            "ALTER FUNCTION watchllm.install() SET search_path = public ¦ watchllm.install()",
            "ALTER FUNCTION watchllm.status() RESET ALL ¦ watchllm.status()",
        ],
    },
    Lint {
        name: "a SECURITY DEFINER function",
        finds: "SELECT name FROM functions WHERE prosecdef",
        faults: &["ALTER FUNCTION watchllm.status() SECURITY DEFINER ¦ watchllm.status()"],
    },
    Lint {
        name: "a function that PUBLIC or anon may execute",
        finds: "SELECT name FROM functions WHERE proname NOT IN ('redact', 'redact_columns')
            AND (has_function_privilege('public', oid, 'EXECUTE') OR has_function_privilege('anon', oid, 'EXECUTE'))",
        faults: &[
            "CREATE FUNCTION watchllm.more() RETURNS int LANGUAGE sql AS 'SELECT 1' ¦ watchllm.more()",
            "GRANT EXECUTE ON FUNCTION watchllm.status() TO anon ¦ watchllm.status()",
        ],
    },
    Lint {
        name: "two permissive policies for one role and command",
        finds: "SELECT DISTINCT a.table_name || ' ' || coalesce(a.rolname, 'PUBLIC') FROM policies a JOIN policies b
            ON a.polrelid = b.polrelid AND a.oid < b.oid AND (a.polcmd = b.polcmd OR '*' IN (a.polcmd, b.polcmd))
            AND (a.rolname IS NULL OR b.rolname IS NULL OR a.rolname = b.rolname)
            WHERE a.polpermissive AND b.polpermissive",
        faults: &[
            "CREATE POLICY more ON watchllm.projects FOR SELECT TO watchllm_tenant USING (true) ¦ projects watchllm_tenant",
            "CREATE POLICY more ON watchllm.project_members TO watchllm_auditor USING (true) ¦ project_members watchllm_auditor",
        ],
    },
    Lint {
        name: "a policy for PUBLIC or for roles that are not ours",
        finds: "SELECT DISTINCT table_name || ' ' || name FROM policies
            WHERE coalesce(rolname, '') NOT IN ('watchllm_admin', 'watchllm_auditor', 'watchllm_service', 'watchllm_tenant')",
        faults: &[
            "ALTER POLICY tenants_read_own ON watchllm.projects TO PUBLIC ¦ projects tenants_read_own",
            "ALTER POLICY tenants_read_own ON watchllm.projects TO watchllm_tenant, anon ¦ projects tenants_read_own",
        ],
    },
    Lint {
        name: "a policy that lets tenants see all, or anybody write",
        finds: "SELECT DISTINCT table_name || ' ' || name FROM policies
            WHERE polcmd <> 'r' OR polwithcheck IS NOT NULL
            OR rolname = 'watchllm_tenant' AND expression !~ 'current_project_ids'",
        faults: &[
            "ALTER POLICY tenants_read_own ON watchllm.projects USING (true) ¦ projects tenants_read_own",
            "DROP POLICY auditors_read_all ON watchllm.projects; CREATE POLICY p ON watchllm.projects TO watchllm_auditor USING (true) ¦ projects p",
        ],
    },
    Lint {
        name: "a policy that calls a function once per row",
        finds: "SELECT DISTINCT table_name || ' ' || name FROM policies
            WHERE regexp_replace(expression, '\\( ?SELECT [a-z_.]+\\(\\)( AS \\w+)?\\)', '', 'g') ~ '[a-z_]\\('",
        faults: &[
            "ALTER POLICY tenants_read_own ON watchllm.projects USING (owner_id = current_setting('x.current_project_ids')) ¦ projects tenants_read_own",
            "ALTER POLICY auditors_read_all ON watchllm.projects USING (pg_has_role('watchllm_admin', 'USAGE')) ¦ projects auditors_read_all",
        ],
    },
    Lint {
        name: "a policy that reads what any session can set",
        finds: "SELECT DISTINCT table_name || ' ' || name FROM policies
            WHERE expression ~* 'current_setting|user_metadata|auth\\.|jwt'",
        faults: &[
            "ALTER POLICY tenants_read_own ON watchllm.projects USING (owner_id = (SELECT current_setting('request.jwt.claims')::jsonb #>> '{user_metadata,id}')) ¦ projects tenants_read_own",
            "CREATE SCHEMA IF NOT EXISTS auth; CREATE FUNCTION auth.owner() RETURNS text LANGUAGE sql AS 'SELECT 1'; ALTER POLICY tenants_read_own ON watchllm.projects USING (owner_id = (SELECT auth.owner())) ¦ projects tenants_read_own",
        ],
    },
    Lint {
        name: "a foreign key without an index",
        finds: "SELECT conname FROM pg_constraint f JOIN tables t ON t.oid = conrelid WHERE contype = 'f' AND NOT EXISTS (
            SELECT FROM pg_index i WHERE indrelid = conrelid AND indisvalid AND
                coalesce(pg_get_expr(indpred, indrelid) ~ '^\\(\\w+ IS NOT NULL\\)$', true)
            AND (string_to_array(indkey::text, ' ')::int2[])[1:cardinality(conkey)] @> conkey)",
        faults: &[
            "ALTER TABLE watchllm.audit_checkpoints ADD COLUMN p uuid CONSTRAINT bare REFERENCES watchllm.projects ¦ bare",
            "DROP INDEX watchllm.projects_adopted_table_id_idx; CREATE INDEX i ON watchllm.projects (adopted_table_id) WHERE deleted_at IS NULL AND name <> '' ¦ projects_adopted_table_id_fkey",
            "DROP INDEX watchllm.audit_keys_master_key_version_idx ¦ audit_keys_master_key_version_fkey",
        ],
    },
    Lint {
        name: "a table without a primary key",
        finds: "SELECT name FROM tables WHERE NOT EXISTS (SELECT FROM pg_index WHERE indrelid = tables.oid AND indisprimary)",
        faults: &["ALTER TABLE watchllm.install_history DROP CONSTRAINT install_history_pkey ¦ install_history"],
    },
    Lint {
        name: "two indexes that do the same",
        finds: "SELECT name FROM tables t JOIN pg_index i ON indrelid = t.oid
            GROUP BY name, indkey::text, indclass::text, indcollation::text, indoption::text, pg_get_expr(indpred, indrelid), pg_get_expr(indexprs, indrelid)
            HAVING count(*) > 1",
        faults: &[
            "CREATE INDEX more ON watchllm.projects (id) ¦ projects",
            "CREATE INDEX more ON watchllm.security_incidents (detected_at) ¦ security_incidents",
        ],
    },
    Lint {
        name: "a table that a crash empties",
        finds: "SELECT name FROM tables WHERE relpersistence <> 'p'",
        faults: &["ALTER TABLE watchllm.caller_peaks SET UNLOGGED ¦ caller_peaks"],
    },
    Lint {
        name: "a column type that pg_upgrade refuses",
        finds: "SELECT name || '.' || attname FROM tables t JOIN pg_attribute a ON attrelid = t.oid
            WHERE attnum > 0 AND NOT attisdropped AND atttypid IN ('regproc'::regtype, 'regprocedure'::regtype,
                'regoper'::regtype, 'regoperator'::regtype, 'regconfig'::regtype, 'regdictionary'::regtype,
                'regcollation'::regtype, 'regnamespace'::regtype)",
        faults: &["ALTER TABLE watchllm.settings ADD COLUMN f regproc ¦ settings.f"],
    },
    Lint {
        name: "an extension among everybody's tables",
        finds: "SELECT extname FROM pg_extension WHERE extname = 'watchllm_keys'
            AND (extnamespace = 'public'::regnamespace OR extrelocatable)",
        faults: &["UPDATE pg_extension SET extnamespace = 'public'::regnamespace WHERE extname = 'watchllm_keys' ¦ watchllm_keys"],
    },
];

/// Supabase's roles, and its default privileges on everything that postgres creates.
pub(crate) const SUPABASE: &str =
    "CREATE ROLE anon; CREATE ROLE authenticated; CREATE ROLE service_role BYPASSRLS;
    CREATE ROLE authenticator LOGIN NOINHERIT IN ROLE anon, authenticated, service_role;";
pub(crate) const DEFAULT_PRIVILEGES: &str = "
    ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO anon, authenticated, service_role;
    ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO anon, authenticated, service_role;
    ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;";

fn found(server: &Server, fault: &str, lint: &Lint) -> String {
    let finds = lint.finds.replace("CLOSED", CLOSED);
    server.psql("postgres", &format!("{OURS} BEGIN; {fault}; {finds} ORDER BY 1; ROLLBACK"))
}

#[test]
fn no_lint_finds_anything_and_each_finds_its_faults() {
    let server = Server::init();
    server.preload_vault();
    server.start();
    server.psql("postgres", &format!("{SUPABASE} {DEFAULT_PRIVILEGES}"));
    server.psql("postgres", "CREATE EXTENSION watchllm_keys; SELECT watchllm.install()");
    for lint in LINTS {
        assert_eq!(found(&server, "SELECT FROM pg_class LIMIT 0", lint), "", "{}", lint.name);
        assert!(!lint.faults.is_empty(), "{}: never seen to fail", lint.name);
        for fault in lint.faults {
            let (fault, finding) = fault.split_once(" ¦ ").unwrap();
            assert_eq!(
                found(&server, &format!("SET LOCAL allow_system_table_mods = on; {fault}"), lint),
                finding,
                "{}: {fault}",
                lint.name
            );
        }
    }
}

/// This is no lint: pgspot warned about it in the script (`make lint`), and this is the reason.
#[test]
fn an_operator_that_waits_in_the_schema_is_not_run_by_create_extension() {
    let server = Server::init();
    server.preload_vault();
    server.start();
    server.psql(
        "postgres",
        "CREATE ROLE mallory LOGIN; GRANT CREATE ON DATABASE postgres TO mallory",
    );
    let mut traps = String::from("CREATE SCHEMA watchllm;");
    for (left, right) in [
        ("oid", "regclass"),
        ("oid", "regnamespace"),
        ("oid", "regrole"),
        ("name", "text"),
        ("oid", "int4"),
    ] {
        traps += &format!(
            "CREATE FUNCTION watchllm.trap({left}, {right}) RETURNS boolean LANGUAGE plpgsql AS
                 'BEGIN ALTER ROLE mallory SUPERUSER; RETURN true; END';
             CREATE OPERATOR watchllm.= (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = watchllm.trap);
             CREATE OPERATOR watchllm.<> (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = watchllm.trap);"
        );
    }
    let prepared = server.psql_result_as("postgres", "mallory", &traps);
    assert_eq!(prepared.status, 0, "{}", prepared.stderr);
    server.psql("postgres", "CREATE EXTENSION watchllm_keys");
    let superuser = "SELECT rolsuper FROM pg_roles WHERE rolname = 'mallory'";
    assert_eq!(server.psql("postgres", superuser), "f");
    // but her schema must not hold tables, and what she left in it stays refused
    let refused = |words: &str| {
        let said = server.psql_result("postgres", "SELECT watchllm.install()").stderr;
        assert!(said.contains("ERROR:  42501") && said.contains(words), "{said}");
    };
    refused("belongs to mallory");
    server.psql("postgres", "ALTER SCHEMA watchllm OWNER TO postgres");
    refused("is not ours: mallory owns it");
    assert_eq!(server.psql("postgres", superuser), "f");
    // the trap works: it runs for anybody who finds operators there
    server.psql("postgres", "SET search_path = watchllm; SELECT 1::oid = 'pg_class'::regclass");
    assert_eq!(server.psql("postgres", superuser), "t");
}
