//! Attempts to learn another tenant's values without reading a row. PostgreSQL may run a comparison
//! on all rows before row security. EXPLAIN ANALYZE, counters of scans, rows removed or estimates
//! could then tell the result. Each value is compared with one that nobody has, under settings that
//! force other plans.

use postgres::Client;
use uuid::Uuid;

use crate::keys::{code, new_key, one, project, rows, store};
use crate::roles::login;
use crate::server::Server;

const PLANS: &[&str] = &[
    "",
    "SET enable_seqscan = off",
    "SET enable_seqscan = off; SET enable_bitmapscan = off",
    "SET enable_indexscan = off; SET enable_bitmapscan = off; SET enable_indexonlyscan = off",
    "SET cpu_operator_cost = 0",
    "SET force_parallel_mode = on; SET parallel_setup_cost = 0",
];

/// Columns that tenants may read and that hold other tenants' values too.
const COLUMNS: &[(&str, &str)] = &[
    ("projects", "name"),
    ("provider_keys", "name"),
    ("provider_key_records", "name"),
    ("provider_key_records", "key_hint"),
    ("access_logs", "request_id"),
    ("access_logs", "user_agent"),
    ("access_logs", "ip_address"),
    ("access_logs", "claims_sub"),
    ("provider_key_access_logs", "request_id"),
];

/// What EXPLAIN ANALYZE tells about a question, and how often it scanned a table of projects. The
/// question itself is left out.
fn told(s: &mut Client, table: &str, condition: &str) -> String {
    let scans = "SELECT pg_stat_get_xact_numscans('watchllm.projects'::regclass)
        + pg_stat_get_xact_numscans('watchllm.project_members'::regclass)";
    one(s, "BEGIN");
    let before: i64 = one(s, scans).parse().unwrap();
    let plan = rows(
        s,
        &format!(
            "EXPLAIN (ANALYZE, TIMING OFF, SUMMARY OFF) SELECT 1 FROM watchllm.{table} WHERE {condition}"
        ),
    );
    let after: i64 = one(s, scans).parse().unwrap();
    one(s, "ROLLBACK");
    let plan: Vec<String> = plan.into_iter().filter(|line| !line.contains("Buffers:")).collect();
    format!(
        "{} scans\n{}",
        after - before,
        plan.join("\n").replace(&condition.replace('\'', ""), "?")
    )
}

/// The questions that distinguish this value from a value that nobody has.
fn oracles(s: &mut Client, table: &str, column: &str, value: &str) -> Vec<String> {
    let nobodys: String =
        value.chars().map(|c| if c.is_ascii_alphanumeric() { 'q' } else { c }).collect();
    let mut oracles = vec![];
    for plan in PLANS {
        one(s, &format!("RESET ALL; {plan}"));
        // PostgreSQL settles on a plan for the look-up of projects after the first executions
        (0..12).for_each(|_| drop(one(s, "SELECT watchllm.current_project_ids()")));
        for comparison in ["=", ">=", "<>", "LIKE"] {
            let ask = |value: &str| match comparison {
                // a range that holds this value alone
                ">=" => format!("{column} >= '{value}' AND {column} < '{value}~'"),
                _ => format!("{column} {comparison} '{value}'"),
            };
            let hidden = |told: String, value: &str| told.replace(value, "?");
            let (real, made_up) = (told(s, table, &ask(value)), told(s, table, &ask(&nobodys)));
            if hidden(real.clone(), value) != hidden(made_up.clone(), &nobodys) {
                oracles.push(format!(
                    "{table}.{column} {comparison} with {plan:?}\n{real}\n{made_up}"
                ));
            }
        }
    }
    one(s, "RESET ALL");
    oracles
}

#[test]
fn values_of_others_cannot_be_asked_for() {
    let server = Server::with_vault_and("watchllm_keys.trusted_claim_roles = 'web'");
    let c = &mut server.connect("postgres", "postgres");
    let (own, tenant) = (project(c), login(c, "watchllm_tenant"));
    one(c, &format!("SELECT watchllm.add_project_member('{own}', role_name => '{tenant}')"));
    store(c, &own, "openai", &new_key());
    // Another tenant's project, keys and trail. Each value occurs many times, so that statistics
    // would hold it.
    let value = |what: &str| format!("z{what}{}", &Uuid::new_v4().simple().to_string()[..12]);
    let (name, request, agent, sub) = (value("n"), value("r"), value("a"), value("s"));
    let address = "198.51.100.77";
    let hint = {
        let victim = one(c, &format!("SELECT watchllm.create_project('{name}', '{sub}')"));
        let id = one(
            c,
            &format!(
                "SELECT watchllm.store_provider_key('{victim}', 'openai', '{}', '{name}')",
                new_key()
            ),
        );
        one(c, "CREATE ROLE web LOGIN IN ROLE watchllm_service");
        let w = &mut server.connect("postgres", "web");
        one(w, &format!("SET request.jwt.claims = '{{\"sub\":\"{sub}\"}}'"));
        for _ in 0..40 {
            one(
                w,
                &format!(
                    "SELECT watchllm.decrypt_provider_key('{id}', NULL, '{request}', '{address}', '{agent}')"
                ),
            );
        }
        one(c, &format!("SELECT key_hint FROM watchllm.provider_key_records WHERE id = '{id}'"))
    };
    one(c, "ANALYZE");
    let s = &mut server.connect("postgres", &tenant);
    let value_of = |column: &str| match column {
        "name" => name.as_str(),
        "key_hint" => hint.as_str(),
        "request_id" => request.as_str(),
        "user_agent" => agent.as_str(),
        "ip_address" => address,
        _ => sub.as_str(),
    };
    for (table, column) in COLUMNS {
        assert_eq!(oracles(s, table, column, value_of(column)), Vec::<String>::new());
    }
    assert_eq!(
        code(s, &format!("SELECT 1 FROM watchllm.projects WHERE owner_id = '{sub}'")),
        "42501"
    );
    // The control: with only the projects in the policy, or with statistics, the tenant learns the
    // value.
    one(
        c,
        "ALTER POLICY tenants_read_own ON watchllm.provider_key_records USING (project_id = ANY (ARRAY(SELECT watchllm.current_project_ids())))",
    );
    assert!(!oracles(s, "provider_key_records", "name", &name).is_empty(), "the test sees nothing");
    // With so few rows no estimate tells anything; with many it would. So columns that tenants
    // write have no statistics, in present and future partitions. install() removes statistics that
    // somebody turned on.
    let kept = "SELECT DISTINCT attname FROM pg_stats WHERE schemaname = 'watchllm' AND attname IN
        ('name', 'key_hint', 'owner_id', 'ip_address', 'user_agent', 'request_id', 'claims_sub', 'provider') ORDER BY 1";
    assert_eq!(rows(c, kept), ["provider"]);
    one(
        c,
        "ALTER TABLE watchllm.provider_key_access_logs ALTER COLUMN request_id SET STATISTICS 100; ANALYZE",
    );
    assert_eq!(rows(c, kept), ["provider", "request_id"]);
    one(
        c,
        "SELECT watchllm.install(); DELETE FROM pg_statistic WHERE starelid IN
        (SELECT oid FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace); ANALYZE",
    );
    assert_eq!(rows(c, kept), ["provider"]);
}
