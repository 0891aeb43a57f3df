//! The rights matrix: every role against every function, table, column, type and sequence. It is
//! read from the catalog and compared with the intended rights, which stand here as data. Something
//! without a line here fails the test.

use std::collections::{BTreeMap, BTreeSet};

use crate::lints::{DEFAULT_PRIVILEGES, SUPABASE};
use crate::server::Server;
use watchllm_core::anomaly::Detector;

/// Roles, and the letters of the tables below that hold for each. A member has the letters of its
/// role, all others none.
const ROLES: &[(&str, &str)] = &[
    ("watchllm_admin", "a"),
    ("watchllm_service", "s"),
    ("watchllm_tenant", "t"),
    ("watchllm_auditor", "u"),
    ("watchllm_owner", "o"),
    ("pg_monitor", "m"), // the health and nothing else
    ("authenticated", "t"),
    ("service_role", "s"),
    ("anon", ""),
    ("authenticator", ""), // a member of all three, NOINHERIT: nothing until it sets its role
    ("plain", ""),
    ("bypass", ""), // passes by row security, which is nothing without a grant
    ("public", ""),
];

/// Who may execute a function, in all its overloads. p stands for everybody. The functions of the
/// detectors are as `(detector)`.
const FUNCTIONS: &str = "
accept_finding           a
acknowledge_incident     a
add_project_member       a
adopt_projects           a
block_provider_key       a
create_project           a
current_project_ids      astu
decrypt_provider_key     ast
decrypt_provider_key_by_name ast
decrypt_provider_key_text ast
decrypt_provider_keys    ast
delete_project           a
delete_provider_key      ast
effective_setting        astu
failed_access_attempts   astu
find_keys                asu
follow_projects
import_watchllm_keys     a
first_read               atuo
key_access_rates         atuo
key_access_episodes      atuo
key_newcomers            atuo
key_access_anomalies     atuo
detect_unusual_key_access astu
(detector)               atuo
check_key_rotation_requirements astu
update_provider_key      ast
lowest_setting           atuo
counts_as                atuo
install
key_access_history       astu
make_log_partition       o
redact                   p
redact_columns           p
refuse_change            o
reload_keyring           a
remove_project_member    a
report_leaked_key        as
resolve_provider_key     ast
rollback_provider_key    ast
rotate_provider_key      ast
scan_database_for_leaks  au
scan_server_log          a
scan_table_for_leaks     au
security_check           au
set_provider_key_active  ast
set_setting              a
status                   asum
store_from_inbox
store_provider_key       ast
unblock_caller           a
unblock_provider_key     a
validate_provider_key    ast";

/// Who may read which columns: table, letters, columns; * stands for all other columns.
/// `(partition)` stands for the partitions of the trail. Nobody may do anything else with a table,
/// except INSERTERS. The owner, a role that nobody is, may do everything.
const COLUMNS: &str = "
accepted_findings        au    *
access_logs              atu   *
adopted_tables           au    *
audit_checkpoints        -     *
audit_keys               -     *
blocked_callers          au    *
caller_peaks             au    *
committed_changes        atu   event_id
committed_changes        au    project_id
database_identity        -     *
incident_events          atu   id incident_id project_id event at
incident_events          au    note by
install_history          -     *
key_access_anomalies     atu   *
key_access_rates         atu   *
leak_marks               au    *
master_keys              -     *
open_incidents           atu   *
(partition)              -     *
project_members          au    *
projects                 astu  id name created_at
projects                 asu   owner_id deleted_at adopted_table_id
provider_key_access_logs atu   id accessed_at project_id provider_key_id provider key_version access_type success
provider_key_access_logs atu   failure_reason attempt_count ip_address user_agent request_id claims_sub claims_trusted
provider_key_access_logs au    seq session_role effective_role role_setting client_addr backend_pid application_name
provider_key_access_logs au    txid epoch queue_seq identity_id chain_key_version hash
provider_key_callers     au    *
provider_key_inbox       -     *
provider_key_records     astu  *
provider_key_security_summary astu *
provider_key_usage       astu  *
provider_key_versions    -     *
provider_keys            astu  *
security_incidents       atu   *
settings                 au    *";

/// Who may insert where: into a view that stores keys and never holds a row.
const INSERTERS: &[(&str, &str)] = &[("provider_key_inbox", "ast")];

/// Policies: table, name, roles. All are for SELECT. Tenants see their own rows.
const POLICIES: &str = "
adopted_tables           auditors_read_all  watchllm_admin watchllm_auditor
accepted_findings        auditors_read_all  watchllm_admin watchllm_auditor
blocked_callers          auditors_read_all  watchllm_admin watchllm_auditor
caller_peaks             auditors_read_all  watchllm_admin watchllm_auditor
committed_changes        auditors_read_all  watchllm_admin watchllm_auditor
committed_changes        tenants_read_own   watchllm_tenant
incident_events          auditors_read_all  watchllm_admin watchllm_auditor
incident_events          tenants_read_own   watchllm_tenant
leak_marks               auditors_read_all  watchllm_admin watchllm_auditor
project_members          auditors_read_all  watchllm_admin watchllm_auditor
projects                 auditors_read_all  watchllm_admin watchllm_auditor
projects                 services_read_all  watchllm_service
projects                 tenants_read_own   watchllm_tenant
provider_key_access_logs auditors_read_all  watchllm_admin watchllm_auditor
provider_key_access_logs tenants_read_own   watchllm_tenant
provider_key_callers     auditors_read_all  watchllm_admin watchllm_auditor
provider_key_records     auditors_read_all  watchllm_admin watchllm_auditor
provider_key_records     services_read_all  watchllm_service
provider_key_records     tenants_read_own   watchllm_tenant
provider_key_usage       auditors_read_all  watchllm_admin watchllm_auditor
provider_key_usage       services_read_all  watchllm_service
provider_key_usage       tenants_read_own   watchllm_tenant
security_incidents       auditors_read_all  watchllm_admin watchllm_auditor
security_incidents       tenants_read_own   watchllm_tenant
settings                 auditors_read_all  watchllm_admin watchllm_auditor";

/// Every right that a role has: `role right object`. The owner's rights on its own tables are left
/// out.
const FOUND: &str = "WITH roles AS (SELECT unnest(ARRAY[{roles}]) AS role), tables AS (
        SELECT oid, relkind, CASE WHEN relispartition THEN '(partition)' ELSE relname END AS name FROM pg_class
        WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f'))
    SELECT role || ' EXECUTE ' || proname FROM roles, pg_proc
    WHERE pronamespace = 'watchllm'::regnamespace AND has_function_privilege(role, oid, 'EXECUTE')
    UNION SELECT role || ' SELECT ' || name || '.' || attname FROM roles, tables, pg_attribute
    WHERE attrelid = tables.oid AND attnum > 0 AND NOT attisdropped AND role <> 'watchllm_owner'
    AND has_column_privilege(role, tables.oid, attnum, 'SELECT')
    UNION SELECT role || ' ' || right_ || ' ' || name FROM roles, tables,
        unnest(ARRAY['INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'] ||
            CASE WHEN current_setting('server_version_num')::int >= 170000 THEN ARRAY['MAINTAIN'] END) right_
    WHERE role <> 'watchllm_owner' AND (has_table_privilege(role, tables.oid, right_)
        OR right_ IN ('INSERT', 'UPDATE', 'REFERENCES') AND has_any_column_privilege(role, tables.oid, right_))
    UNION SELECT role || ' ' || right_ || ' schema' FROM roles, unnest(ARRAY['USAGE', 'CREATE']) right_
    WHERE has_schema_privilege(role, 'watchllm', right_)
    UNION SELECT role || ' GRANT OPTION on ' || what FROM roles, (
        SELECT relname AS what, oid, 'r' AS kind FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p', 'v')
        UNION SELECT proname, oid, 'f' FROM pg_proc WHERE pronamespace = 'watchllm'::regnamespace) things
    WHERE role <> 'watchllm_owner' AND role <> 'public' AND CASE kind
        WHEN 'r' THEN has_any_column_privilege(role, oid, 'SELECT WITH GRANT OPTION')
        ELSE has_function_privilege(role, oid, 'EXECUTE WITH GRANT OPTION') END
    -- sequences, and types that are not the rows of a table: there are none
    UNION SELECT 'anybody has sequence ' || relname FROM pg_class
    WHERE relnamespace = 'watchllm'::regnamespace AND relkind = 'S'
    UNION SELECT 'anybody has type ' || typname FROM pg_type LEFT JOIN pg_class c ON c.oid = typrelid
    WHERE typnamespace = 'watchllm'::regnamespace AND typelem = 0 AND coalesce(relkind, 'c') = 'c'";

const FUNCTIONS_FOUND: &str =
    "SELECT DISTINCT proname FROM pg_proc WHERE pronamespace = 'watchllm'::regnamespace";
const COLUMNS_FOUND: &str =
    "SELECT DISTINCT CASE WHEN relispartition THEN '(partition)' ELSE relname END, attname
    FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid AND attnum > 0 AND NOT attisdropped
    WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')";

const POLICIES_FOUND: &str = "SELECT tablename, policyname, array_to_string(roles, ' '),
    permissive || cmd || (with_check IS NULL) FROM pg_policies WHERE schemaname = 'watchllm'";

fn roles_with(letters: &str) -> impl Iterator<Item = &'static str> {
    let letters = letters.to_owned();
    let has =
        move |of: &str| letters.contains('p') || of.chars().any(|letter| letters.contains(letter));
    ROLES.iter().filter(move |(_, of)| has(of)).map(|(role, _)| *role)
}

fn words(line: &str) -> Vec<&str> {
    line.split_whitespace().collect()
}

/// The intended rights on everything in the catalog, in the words of `FOUND`. Also the objects
/// without a line, and the lines without an object.
fn meant(server: &Server, database: &str) -> (BTreeSet<String>, Vec<String>) {
    let (mut meant, mut strange) = (BTreeSet::new(), Vec::new());
    let mut callers: BTreeMap<&str, String> = BTreeMap::new();
    for line in FUNCTIONS.lines().filter(|line| !line.is_empty()) {
        let [function, letters @ ..] = &words(line)[..] else { panic!("{line}") };
        assert!(callers.insert(function, letters.concat()).is_none(), "{function} has two lines");
    }
    let mut readers: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for line in COLUMNS.lines().filter(|line| !line.is_empty()) {
        let [table, letters, columns @ ..] = &words(line)[..] else { panic!("{line}") };
        for column in columns {
            assert!(
                readers.insert((table, column), letters).is_none(),
                "{table}.{column} has two lines"
            );
        }
    }
    let (mut unseen_functions, mut unseen_columns) = (callers.clone(), readers.clone());
    let functions = server.psql(database, FUNCTIONS_FOUND);
    for function in functions.lines() {
        let is_detector = function.strip_prefix("detect_").and_then(Detector::find).is_some();
        let line = if is_detector { "(detector)" } else { function };
        unseen_functions.remove(line);
        match callers.get(line) {
            Some(letters) => {
                meant.extend(roles_with(letters).map(|role| format!("{role} EXECUTE {function}")))
            }
            None => strange.push(format!("? {function}() has no line")),
        }
    }
    let columns = server.psql(database, COLUMNS_FOUND);
    for (table, column) in columns.lines().map(|line| line.split_once('|').unwrap()) {
        let line =
            if readers.contains_key(&(table, column)) { (table, column) } else { (table, "*") };
        unseen_columns.remove(&line);
        match readers.get(&line) {
            Some(letters) => meant
                .extend(roles_with(letters).map(|role| format!("{role} SELECT {table}.{column}"))),
            None => strange.push(format!("? {table}.{column} has no line")),
        }
    }
    strange.extend(unseen_functions.keys().map(|function| format!("? {function}() is not there")));
    strange.extend(
        unseen_columns.keys().map(|(table, column)| format!("? {table}.{column} is not there")),
    );
    for (view, letters) in INSERTERS {
        meant.extend(roles_with(letters).map(|role| format!("{role} INSERT {view}")));
    }
    meant.extend(roles_with("astuom").map(|role| format!("{role} USAGE schema")));
    meant.insert("watchllm_owner CREATE schema".into());
    (meant, strange)
}

fn found(server: &Server, database: &str) -> BTreeSet<String> {
    let roles: Vec<String> = ROLES.iter().map(|(role, _)| format!("'{role}'")).collect();
    server
        .psql(database, &FOUND.replace("{roles}", &roles.join(", ")))
        .lines()
        .map(str::to_owned)
        .collect()
}

/// Differences: `+` too much, `-` missing, `?` not decided yet.
fn differences(server: &Server, database: &str) -> Vec<String> {
    let ((meant, strange), found) = (meant(server, database), found(server, database));
    let more = found.difference(&meant).map(|right| format!("+ {right}"));
    more.chain(meant.difference(&found).map(|right| format!("- {right}"))).chain(strange).collect()
}

fn policies(server: &Server, database: &str) -> BTreeSet<String> {
    server
        .psql(database, POLICIES_FOUND)
        .lines()
        .map(|line| words(&line.replace('|', " ")).join(" "))
        .collect()
}

fn assert_as_meant(server: &Server, database: &str) {
    assert_eq!(differences(server, database), Vec::<String>::new(), "in {database}");
    let meant = POLICIES.lines().filter(|line| !line.is_empty());
    let meant: BTreeSet<String> =
        meant.map(|line| format!("{} PERMISSIVESELECTtrue", words(line).join(" "))).collect();
    assert_eq!(policies(server, database), meant, "in {database}");
}

#[test]
fn every_role_has_the_rights_that_are_meant_and_no_other() {
    let server = Server::init();
    server.preload_vault();
    server.start();
    let install = "CREATE EXTENSION watchllm_keys; SELECT watchllm.install()";
    // installed before Supabase's roles and default privileges come, and again; after them; after
    // them twice
    server.psql(
        "postgres",
        "CREATE DATABASE before; CREATE DATABASE after; CREATE ROLE plain LOGIN; CREATE ROLE bypass LOGIN BYPASSRLS",
    );
    server.psql("before", install);
    server.psql("postgres", SUPABASE);
    for database in ["before", "after"] {
        server.psql(database, DEFAULT_PRIVILEGES);
    }
    server.psql("before", "SELECT watchllm.install()");
    server.psql("after", install);
    for _ in 0..2 {
        assert_as_meant(&server, "before");
        assert_as_meant(&server, "after");
        server.psql("after", "SELECT watchllm.install()");
    }
    // the extension was dropped and created again
    server.psql("after", "DROP EXTENSION watchllm_keys CASCADE");
    server.psql("after", install);
    assert_as_meant(&server, "after");

    for (fault, difference) in FAULTS {
        let difference: Vec<String> = difference.iter().map(|right| (*right).to_owned()).collect();
        server.psql("before", fault);
        assert_eq!(differences(&server, "before"), difference, "{fault}");
        server.psql("before", &format!("{UNDO} SELECT watchllm.install()"));
    }
    assert_as_meant(&server, "before");
}

/// Faults, and what the comparison says of each.
const FAULTS: &[(&str, &[&str])] = &[
    ("GRANT SELECT (salt) ON watchllm.master_keys TO anon", &["+ anon SELECT master_keys.salt"]),
    (
        "GRANT SELECT (hash) ON watchllm.provider_key_access_logs TO bypass",
        &["+ bypass SELECT provider_key_access_logs.hash"],
    ),
    (
        "GRANT UPDATE (name) ON watchllm.projects TO watchllm_service",
        &["+ service_role UPDATE projects", "+ watchllm_service UPDATE projects"],
    ),
    ("GRANT TRUNCATE ON watchllm.settings TO plain", &["+ plain TRUNCATE settings"]),
    (
        "GRANT EXECUTE ON FUNCTION watchllm.install TO authenticator",
        &["+ authenticator EXECUTE install"],
    ),
    (
        "GRANT SELECT (id) ON watchllm.projects TO watchllm_auditor WITH GRANT OPTION",
        &["+ watchllm_auditor GRANT OPTION on projects"],
    ),
    (
        "REVOKE EXECUTE ON FUNCTION watchllm.status FROM watchllm_auditor",
        &["- watchllm_auditor EXECUTE status"],
    ),
    ("CREATE SEQUENCE watchllm.numbers", &["+ anybody has sequence numbers"]),
    ("CREATE TYPE watchllm.mood AS ENUM ()", &["+ anybody has type mood"]),
    ("GRANT CREATE ON SCHEMA watchllm TO plain", &["+ plain CREATE schema"]),
    (
        "CREATE FUNCTION watchllm.more() RETURNS int LANGUAGE sql AS 'SELECT 1'; REVOKE ALL ON FUNCTION watchllm.more() FROM PUBLIC, anon, authenticated, service_role",
        &["? more() has no line"],
    ),
    (
        "CREATE TABLE watchllm.more (id int); REVOKE ALL ON watchllm.more FROM anon, authenticated, service_role",
        &["? more.id has no line"],
    ),
    ("ALTER TABLE watchllm.projects ADD COLUMN more int", &["? projects.more has no line"]),
];
const UNDO: &str = "REVOKE SELECT (salt) ON watchllm.master_keys FROM anon;
    REVOKE SELECT (hash) ON watchllm.provider_key_access_logs FROM bypass;
    REVOKE UPDATE (name) ON watchllm.projects FROM watchllm_service; REVOKE TRUNCATE ON watchllm.settings FROM plain;
    REVOKE EXECUTE ON FUNCTION watchllm.install FROM authenticator;
    REVOKE GRANT OPTION FOR SELECT (id) ON watchllm.projects FROM watchllm_auditor;
    GRANT EXECUTE ON FUNCTION watchllm.status TO watchllm_auditor; DROP SEQUENCE IF EXISTS watchllm.numbers;
    DROP TYPE IF EXISTS watchllm.mood; REVOKE CREATE ON SCHEMA watchllm FROM plain;
    DROP FUNCTION IF EXISTS watchllm.more(); DROP TABLE IF EXISTS watchllm.more;
    ALTER TABLE watchllm.projects DROP COLUMN IF EXISTS more;";
