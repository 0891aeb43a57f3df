//! A tenant that reaches for another's rows. It uses every way SQL has to read: its own views,
//! functions and operators, and plans, cursors and roles that outlive their caller. Above the tests
//! are two tenants and every other kind of caller, each with its own session.

use std::io::Read;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use postgres::{Client, error::DbError};
use uuid::Uuid;

use crate::api::{AUTHENTICATOR, as_api, claims, supabase_vault};
use crate::keys::{code, new_key, one, refusal, rows, try_rows};
use crate::roles::login;
use crate::server::Server;

/// A server with a vault and Supabase's roles, shared while one of these tests runs. Each makes its
/// own tenants.
pub(crate) struct House(Arc<Mutex<Server>>);

/// A tenant by claims (`sub`) and by database role (a login), with one project, one key and one
/// refused row.
pub(crate) struct Tenant {
    pub sub: String,
    pub role: String,
    pub project: String,
    pub key: String,
    /// The name of the key: nobody else's rows hold it.
    pub name: String,
}

impl House {
    pub(crate) fn shared() -> House {
        static SHARED: Mutex<Weak<Mutex<Server>>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let conf = "max_connections = 150\nwatchllm_keys.audit_timeout = '60s'";
        let server = shared.upgrade().unwrap_or_else(|| Arc::new(Mutex::new(supabase_vault(conf))));
        *shared = Arc::downgrade(&server);
        House(server)
    }

    /// A server for one test alone, without others' rows and plans.
    pub(crate) fn alone(conf: &str) -> House {
        House(Arc::new(Mutex::new(supabase_vault(conf))))
    }

    pub(crate) fn connect(&self, user: &str) -> Client {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).connect("postgres", user)
    }

    /// psql with these options in its environment.
    pub(crate) fn psql_with_options(&self, user: &str, options: &str, sql: &str) -> String {
        let server = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut psql = server.client("psql");
        psql.args(["-X", "-q", "-A", "-t", "-d", "postgres", "-c", sql])
            .env("PGUSER", user)
            .env("PGOPTIONS", options);
        crate::commands::text(&psql.output().expect("psql").stdout).trim_end().to_owned()
    }

    pub(crate) fn tenant(&self, c: &mut Client) -> Tenant {
        let id = Uuid::new_v4().simple().to_string();
        let (sub, name) = (format!("sub-{id}"), format!("name-{id}"));
        let role = login(c, "watchllm_tenant");
        let project = one(c, &format!("SELECT watchllm.create_project('project-{id}', '{sub}')"));
        one(c, &format!("SELECT watchllm.add_project_member('{project}', role_name => '{role}')"));
        let store = format!(
            "SELECT watchllm.store_provider_key('{project}', 'openai', '{}', '{name}', user_agent => '{name}')",
            new_key()
        );
        let tenant = Tenant { sub, role, project, key: one(c, &store), name };
        assert_eq!(
            code(&mut self.connect(&tenant.role), &crate::keys::decrypt(&tenant.key)),
            "42501"
        );
        tenant
    }
}

impl Tenant {
    pub(crate) fn claims(&self) -> String {
        claims("authenticated", &self.sub)
    }

    /// Asks as a signed-in user of PostgREST. `session` is one of the authenticator.
    pub(crate) fn ask(&self, session: &mut Client, sql: &str) -> Result<Vec<String>, Box<DbError>> {
        as_api(session, "authenticated", &self.claims(), "{}", "read write", sql)
    }
}

/// Statements that read everything they can of our tables and views.
const READS: &[&str] = &[
    "SELECT * FROM watchllm.provider_keys",
    "TABLE watchllm.access_logs",
    "SELECT * FROM watchllm.provider_key_records",
    "SELECT * FROM watchllm.provider_key_records TABLESAMPLE SYSTEM (100)",
    "SELECT * FROM watchllm.provider_key_records WHERE true OR id IS NULL ORDER BY name DESC",
    "SELECT id, name FROM watchllm.projects",
    "SELECT * FROM watchllm.provider_key_usage",
    "SELECT id, project_id, provider_key_id, user_agent FROM watchllm.provider_key_access_logs",
    "SELECT event_id FROM watchllm.committed_changes",
    "SELECT * FROM watchllm.security_incidents",
    "SELECT id, incident_id, project_id, event, at FROM watchllm.incident_events",
    "SELECT watchllm.current_project_ids()",
    "SELECT * FROM watchllm.failed_access_attempts()",
    "SELECT h.* FROM watchllm.provider_keys k, watchllm.key_access_history(k.id) h",
    "SELECT l.* FROM watchllm.provider_keys k RIGHT JOIN watchllm.access_logs l ON l.provider_key_id = k.id",
    "WITH RECURSIVE r AS (SELECT id, name FROM watchllm.provider_keys
        UNION SELECT k.id, k.name FROM r, watchllm.provider_keys k) SELECT * FROM r",
    "SELECT k.*, l.* FROM watchllm.projects p, LATERAL (SELECT * FROM watchllm.provider_keys WHERE project_id = p.id) k,
        LATERAL (SELECT * FROM watchllm.access_logs WHERE project_id = k.project_id) l",
    "SELECT query_to_xml('SELECT * FROM watchllm.provider_keys', true, false, '')",
    "SELECT schema_to_xml('watchllm', true, false, '')",
];

/// The answer does not name the other tenant. It names its own tenant, which shows that something
/// was read.
fn only_own(read: &str, own: &Tenant, other: &Tenant, way: &str) {
    for foreign in [&other.project, &other.key, &other.name, &other.sub] {
        assert!(!read.contains(foreign), "{way}: {foreign} of another tenant in\n{read}");
    }
    let empty = [
        "provider_key_usage",
        "security_incidents",
        "incident_events",
        "committed_changes",
        "schema_to_xml",
    ];
    let seen = [&own.project, &own.key, &own.name].iter().any(|mine| read.contains(*mine));
    assert!(seen || empty.iter().any(|table| way.contains(table)), "{way}: nothing was read");
}

#[test]
fn every_way_to_read_ends_at_ones_own_rows() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let by_claims = &mut house.connect(AUTHENTICATOR);
    for (own, other) in [(&a, &b), (&b, &a)] {
        let by_role = &mut house.connect(&own.role);
        for read in READS {
            // Some ways (all tables at once) end at the first table that nobody may read.
            let text = |answer: Result<Vec<String>, Box<DbError>>| match answer {
                Ok(rows) => rows.join("\n"),
                Err(error) => {
                    assert_eq!(
                        (error.code().code(), read.contains("schema_to_xml")),
                        ("42501", true),
                        "{read}: {error}"
                    );
                    String::new()
                }
            };
            only_own(&text(own.ask(by_claims, read)), own, other, read);
            only_own(&text(try_rows(by_role, read)), own, other, read);
        }
        for setting in [
            "force_parallel_mode = on",
            "plan_cache_mode = force_generic_plan",
            "enable_seqscan = off",
        ] {
            one(
                by_role,
                &format!("SET {setting}; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0"),
            );
            one(by_role, "SET min_parallel_table_scan_size = 0");
            for read in &READS[..5] {
                only_own(
                    &rows(by_role, read).join("\n"),
                    own,
                    other,
                    &format!("{setting}: {read}"),
                );
            }
        }
    }
}

#[test]
fn copy_gives_ones_own_rows_and_runs_no_program() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let s = &mut house.connect(&a.role);
    for copy in [
        "COPY watchllm.provider_key_records TO STDOUT",
        "COPY watchllm.provider_key_records (id, name) TO STDOUT",
        "COPY (SELECT * FROM watchllm.provider_keys) TO STDOUT",
        "COPY (TABLE watchllm.access_logs) TO STDOUT (FORMAT csv)",
        "COPY watchllm.projects (id, name, created_at) TO STDOUT",
    ] {
        let mut read = String::new();
        s.copy_out(copy).unwrap().read_to_string(&mut read).unwrap();
        only_own(&read, &a, &b, copy);
    }
    for (copy, expected) in [
        ("COPY watchllm.provider_keys TO STDOUT", "42809"),
        ("COPY watchllm.projects TO STDOUT", "42501"),
        ("COPY watchllm.provider_key_access_logs TO STDOUT", "42501"),
        ("COPY watchllm.provider_key_versions TO STDOUT", "42501"),
        ("COPY (SELECT * FROM watchllm.provider_keys) TO PROGRAM 'true'", "42501"),
        ("COPY (SELECT * FROM watchllm.provider_keys) TO '/dev/null'", "42501"),
        ("COPY watchllm.provider_key_records (id) FROM '/dev/null'", "42501"),
        ("COPY watchllm.project_members (project_id) FROM STDIN", "42501"),
    ] {
        let refused = s.batch_execute(copy).expect_err(copy);
        assert_eq!(refused.code().map(|code| code.code()), Some(expected), "{copy}");
    }
}

#[test]
fn what_tenants_may_not_read_is_refused() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let a = house.tenant(c);
    let s = &mut house.connect(&a.role);
    let today = one(
        c,
        "SELECT 'watchllm.provider_key_access_logs_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')",
    );
    let hidden = [
        "seq",
        "session_role",
        "effective_role",
        "role_setting",
        "client_addr",
        "backend_pid",
        "application_name",
        "txid",
        "epoch",
        "queue_seq",
        "identity_id",
        "chain_key_version",
        "hash",
    ];
    let mut refused: Vec<String> = hidden
        .map(|column| format!("SELECT {column} FROM watchllm.provider_key_access_logs"))
        .into();
    for table in
        ["provider_key_records", "provider_key_access_logs", "projects", "provider_key_usage"]
    {
        // the system columns of a row count all transactions, so nobody may read them
        for column in ["ctid", "xmin", "xmax", "cmin", "tableoid"] {
            refused.push(format!("SELECT {column} FROM watchllm.{table}"));
        }
    }
    let others = [
        "SELECT l FROM watchllm.provider_key_access_logs l",
        "SELECT 1 FROM watchllm.provider_key_access_logs WHERE client_addr IS NULL",
        "SELECT count(*) FROM watchllm.provider_key_access_logs GROUP BY backend_pid",
        "SELECT id FROM watchllm.provider_key_access_logs ORDER BY seq",
        "SELECT project_id FROM watchllm.committed_changes",
        "SELECT note FROM watchllm.incident_events",
        "SELECT deleted_at FROM watchllm.projects",
        "SELECT 1 FROM watchllm.project_members",
        "SELECT 1 FROM watchllm.provider_key_versions",
        "SELECT 1 FROM watchllm.caller_peaks",
        "SELECT 1 FROM watchllm.blocked_callers",
        "SELECT 1 FROM watchllm.settings",
        "SELECT 1 FROM watchllm.database_identity",
        "SELECT 1 FROM watchllm.audit_checkpoints",
        "SELECT 1 FROM watchllm.install_history",
        "SELECT id FROM watchllm.provider_keys FOR UPDATE",
        "SELECT id FROM watchllm.provider_key_records FOR KEY SHARE",
        "LOCK TABLE watchllm.provider_keys IN ACCESS EXCLUSIVE MODE",
        "UPDATE watchllm.provider_key_records SET name = 'x'",
        "DELETE FROM watchllm.access_logs",
        "CREATE TABLE public.probe (p uuid REFERENCES watchllm.projects (id))",
        "CREATE TABLE watchllm.probe ()",
        "CREATE POLICY mine ON watchllm.projects USING (true)",
        "ALTER TABLE watchllm.projects DISABLE ROW LEVEL SECURITY",
        "ALTER VIEW watchllm.provider_keys SET (security_invoker = false)",
        "CREATE OR REPLACE VIEW watchllm.provider_keys AS SELECT 1 AS id",
        "CREATE OR REPLACE FUNCTION watchllm.current_project_ids() RETURNS SETOF uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'",
        "ALTER FUNCTION watchllm.current_project_ids() OWNER TO CURRENT_USER",
        "ALTER ROLE CURRENT_USER BYPASSRLS",
        "GRANT watchllm_service TO CURRENT_USER",
        "SET ROLE service_role",
        "SET ROLE watchllm_owner",
        "SET SESSION AUTHORIZATION authenticator",
        "SELECT pg_get_constraintdef(oid), lo_import('/etc/passwd') FROM pg_constraint",
    ];
    refused.extend(others.map(str::to_owned));
    refused.push(format!("SELECT id FROM {today}"));
    one(c, "GRANT CREATE ON SCHEMA public TO PUBLIC");
    for sql in &refused {
        assert_eq!(code(s, &format!("BEGIN; {sql}")), "42501", "{sql}");
        one(s, "ROLLBACK");
    }
    // With row security switched off there is an error, not everybody's rows.
    let off = refusal(s, "SET row_security = off; SELECT id FROM watchllm.provider_keys");
    assert_eq!(off.code().code(), "42501", "{off}");
    // Nobody may read the planner's statistics of everybody's values.
    one(c, "ANALYZE watchllm.provider_key_records; ANALYZE watchllm.projects");
    let statistics = "SELECT count(*) FROM pg_stats WHERE schemaname = 'watchllm'";
    one(s, "RESET row_security");
    assert_eq!((one(s, statistics), one(c, statistics) == "0"), ("0".into(), false));
    let auditor = &mut house.connect(&login(c, "watchllm_auditor"));
    for column in hidden {
        assert_eq!(
            code(auditor, &format!("SELECT {column} FROM watchllm.provider_key_access_logs")),
            "00000"
        );
    }
    assert_eq!(code(auditor, &format!("SELECT id FROM {today}")), "42501");
}

/// Every role against the lists: 2 sees both tenants, 1 its own, - is refused.
#[test]
fn each_caller_sees_what_its_role_says() {
    const LISTS: [&str; 5] =
        ["provider_keys", "access_logs", "provider_key_records", "projects", "project_members"];
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let [auditor, admin, service] =
        ["auditor", "admin", "service"].map(|role| login(c, &format!("watchllm_{role}")));
    let (plain, bypass) = (login(c, ""), login(c, ""));
    one(c, &format!("ALTER ROLE {bypass} BYPASSRLS"));
    let look = |list: &str| {
        let column = if list == "projects" { "id" } else { "project_id" };
        format!(
            "SELECT count(DISTINCT {column}) FROM watchllm.{list} WHERE {column} IN ('{}', '{}')",
            a.project, b.project
        )
    };
    let mut seen = Vec::new();
    let mut note = |who: &str, ask: &mut dyn FnMut(&str) -> Result<Vec<String>, Box<DbError>>| {
        let answers = LISTS.map(|list| ask(&look(list)).map_or("-".into(), |rows| rows[0].clone()));
        seen.push(format!("{who}: {}", answers.join(" ")));
    };
    for (who, user) in [
        ("auditor", &auditor),
        ("admin", &admin),
        ("service", &service),
        ("plain", &plain),
        ("bypass", &bypass),
        ("tenant by role", &a.role),
    ] {
        let s = &mut house.connect(user);
        note(who, &mut |sql| try_rows(s, sql));
    }
    let s = &mut house.connect(AUTHENTICATOR);
    note("authenticator", &mut |sql| try_rows(s, sql));
    for (role, sub) in [
        ("authenticated", a.sub.as_str()),
        ("authenticated", "nobody"),
        ("anon", &a.sub),
        ("service_role", &a.sub),
    ] {
        let who = format!("{role} {}", if sub == a.sub { "A" } else { sub });
        note(&who, &mut |sql| as_api(s, role, &claims(role, sub), "{}", "read only", sql));
    }
    let expected = [
        "auditor: 2 2 2 2 2",
        "admin: 2 2 2 2 2",
        "service: 2 - 2 2 -",
        "plain: - - - - -",
        "bypass: - - - - -",
        "tenant by role: 1 1 1 1 -",
        "authenticator: - - - - -",
        "authenticated A: 1 1 1 1 -",
        "authenticated nobody: 0 0 0 0 -",
        "anon A: - - - - -",
        "service_role A: 2 - 2 2 -",
    ];
    assert_eq!(seen, expected);
    // BYPASSRLS passes the second wall only; the functions still refuse.
    one(c, &format!("GRANT watchllm_tenant TO {bypass}"));
    let s = &mut house.connect(&bypass);
    assert_eq!(one(s, "SELECT count(*) FROM watchllm.current_project_ids()"), "0");
    for call in ["delete_provider_key", "key_access_history"] {
        assert_eq!(code(s, &format!("SELECT watchllm.{call}('{}')", b.key)), "02000", "{call}");
    }
    assert_eq!(code(s, &crate::keys::decrypt(&b.key)), "42501");
    assert_eq!(code(s, "SELECT 1 FROM watchllm.provider_key_versions"), "42501");
    // A role that may read all data, but without BYPASSRLS, finds every table empty.
    let reader = login(c, "pg_read_all_data");
    let s = &mut house.connect(&reader);
    let tables = "SELECT oid::regclass FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p')";
    for table in rows(s, tables) {
        assert_eq!(one(s, &format!("SELECT count(*) FROM {table}")), "0", "{table}");
    }
}

#[test]
fn a_membership_counts_from_the_moment_it_is_there_until_it_is_gone() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let (by_role, by_claims) = (&mut house.connect(&a.role), &mut house.connect(AUTHENTICATOR));
    one(
        by_role,
        "PREPARE own AS SELECT project_id FROM watchllm.provider_keys; SET plan_cache_mode = force_generic_plan",
    );
    // Also within one snapshot of an open transaction.
    one(
        by_role,
        "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM watchllm.provider_keys",
    );
    let mut seen = || {
        let ids = a.ask(by_claims, "SELECT id FROM watchllm.provider_keys").unwrap();
        (rows(by_role, "EXECUTE own").len(), ids.len())
    };
    assert_eq!(seen(), (1, 1));
    for (change, expected) in [("add", (2, 2)), ("remove", (1, 1))] {
        for member in [format!("role_name => '{}'", a.role), format!("subject => '{}'", a.sub)] {
            one(c, &format!("SELECT watchllm.{change}_project_member('{}', {member})", b.project));
        }
        assert_eq!(seen(), expected, "{change}");
    }
    // A deleted project belongs to nobody, and its keys are treated as missing.
    one(c, &format!("UPDATE watchllm.projects SET deleted_at = now() WHERE id = '{}'", a.project));
    assert_eq!(seen(), (0, 0));
    one(by_role, "ROLLBACK");
    for call in ["delete_provider_key", "key_access_history"] {
        assert_eq!(
            code(by_role, &format!("SELECT watchllm.{call}('{}')", a.key)),
            "02000",
            "{call}"
        );
    }
}
