//! Keys that somebody wrote into the database itself. Places: functions, views, comments, defaults,
//! checks, triggers, rules, policies, indexes, settings of roles, options of foreign servers, jobs,
//! statistics of statements. Each is found in its place, once. A place that the caller may not read
//! is reported, not skipped.

use uuid::Uuid;

use crate::keys::{new_key, one, rows};
use crate::roles::login;
use crate::scans::odd_key;
use crate::server::Server;

const SCAN: &str =
    "SELECT place, provider_key_id, occurrences, is_new FROM watchllm.scan_database_for_leaks()";

/// A statement that puts a key (KEY) somewhere, and the name of the place.
const PLACES: &[(&str, &str)] = &[
    ("CREATE FUNCTION app.f() RETURNS text LANGUAGE sql AS $$ SELECT 'KEY' $$", "function app.f()"),
    (
        "CREATE FUNCTION app.g() RETURNS text LANGUAGE sql BEGIN ATOMIC SELECT 'KEY'; END",
        "function app.g()",
    ),
    (
        "CREATE FUNCTION app.d(a text DEFAULT 'KEY') RETURNS text LANGUAGE sql AS 'SELECT a'",
        "function app.d(text)",
    ),
    (
        "CREATE FUNCTION app.s() RETURNS int LANGUAGE sql SET app.key = 'KEY' AS 'SELECT 1'",
        "function app.s()",
    ),
    (
        "CREATE PROCEDURE app.p() LANGUAGE plpgsql AS $$ BEGIN PERFORM 'x', 'KEY'; END $$",
        "function app.p()",
    ),
    ("CREATE VIEW app.v AS SELECT 'KEY' AS k", "view app.v"),
    ("CREATE MATERIALIZED VIEW app.m AS SELECT length('KEY') AS k", "materialized view app.m"),
    ("COMMENT ON TABLE app.t IS 'see KEY'", "comment on table app.t"),
    ("COMMENT ON COLUMN app.t.a IS 'see KEY'", "comment on column a of table app.t"),
    ("COMMENT ON ROLE ROLE IS 'his KEY'", "comment on role ROLE"),
    ("COMMENT ON DATABASE postgres IS 'KEY'", "comment on database postgres"),
    ("ALTER TABLE app.t ALTER a SET DEFAULT 'KEY'", "default value for column a of table app.t"),
    (
        "ALTER TABLE app.t ADD g text GENERATED ALWAYS AS (a || 'KEY') STORED",
        "default value for column g of table app.t",
    ),
    ("ALTER TABLE app.t ADD CONSTRAINT c CHECK (a <> 'KEY')", "constraint c on table app.t"),
    ("CREATE DOMAIN app.dom AS text DEFAULT 'KEY'", "default of type app.dom"),
    (
        "CREATE DOMAIN app.doc AS text CONSTRAINT dc CHECK (value <> 'KEY')",
        "type app.doc: constraint dc",
    ),
    (
        "CREATE TRIGGER tr BEFORE UPDATE ON app.t FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger('KEY')",
        "trigger tr on table app.t",
    ),
    (
        "CREATE TRIGGER tw BEFORE UPDATE ON app.t FOR EACH ROW WHEN (new.a = 'KEY') EXECUTE FUNCTION suppress_redundant_updates_trigger()",
        "trigger tw on table app.t",
    ),
    ("CREATE RULE r AS ON DELETE TO app.t DO INSTEAD SELECT 'KEY'", "rule r on table app.t"),
    ("CREATE POLICY po ON app.t USING (a = 'KEY') WITH CHECK (true)", "policy po on table app.t"),
    ("CREATE INDEX i ON app.t (a) WHERE a = 'KEY'", "index app.i"),
    ("CREATE INDEX j ON app.t ((a || 'KEY'))", "index app.j"),
    ("CREATE STATISTICS app.st ON (a || 'KEY'), a FROM app.t", "statistics object app.st"),
    ("ALTER ROLE ROLE SET app.key = 'KEY'", "setting app.key of role ROLE"),
    (
        "ALTER ROLE ROLE IN DATABASE postgres SET app.key = 'KEY'",
        "setting app.key of role ROLE in database postgres",
    ),
    ("ALTER DATABASE postgres SET app.other = 'KEY'", "setting app.other in database postgres"),
    ("CREATE FOREIGN DATA WRAPPER w OPTIONS (a 'KEY')", "options of foreign-data wrapper w"),
    ("CREATE SERVER s FOREIGN DATA WRAPPER w OPTIONS (a 'KEY')", "options of server s"),
    (
        "CREATE USER MAPPING FOR ROLE SERVER s OPTIONS (password 'KEY')",
        "user mapping of ROLE for server s",
    ),
    (
        "CREATE FOREIGN TABLE app.ft (a text OPTIONS (b 'KEY')) SERVER s OPTIONS (c 'KEY')",
        "options of column a of foreign table app.ft",
    ),
    ("", "options of foreign table app.ft"),
    (
        "CREATE PUBLICATION pub FOR TABLE app.t WHERE (a <> 'KEY')",
        "publication of table app.t in publication pub",
    ),
    (
        "CREATE SUBSCRIPTION sub CONNECTION 'dbname=postgres password=KEY' PUBLICATION pub WITH (connect = false)",
        "connection of subscription sub",
    ),
    ("INSERT INTO cron.job VALUES ('curl -H \"x: KEY\"')", "cron.job.command"),
    ("COMMENT ON VIEW app.v IS 'KEY'", "comment on view app.v"),
];

#[test]
fn a_key_is_found_wherever_a_database_keeps_text() {
    let server = Server::with_vault_and("log_min_error_statement = panic");
    let c = &mut server.connect("postgres", "postgres");
    let ((ours, id), role) = (odd_key(c), login(c, ""));
    one(
        c,
        "CREATE SCHEMA app; CREATE TABLE app.t (a text, b text); CREATE SCHEMA cron; CREATE TABLE cron.job (command text)",
    );
    assert!(rows(c, SCAN).is_empty());
    let mut expected = vec![];
    for (put, place) in PLACES {
        // One statement may put a key into two places.
        one(
            c,
            &put.replace("KEY", &ours)
                .replace("ROLE ROLE", &format!("ROLE {role}"))
                .replace("FOR ROLE", &format!("FOR {role}")),
        );
        expected.push(place.replace("ROLE", &role));
    }
    expected.sort();
    for new in ["t", "f"] {
        let found = rows(c, SCAN);
        let mut places: Vec<String> =
            found.iter().map(|row| row.split('|').next().unwrap().to_owned()).collect();
        places.sort();
        assert_eq!(places, expected);
        assert!(found.iter().all(|row| row.contains(&id) && row.ends_with(new)), "{found:?}");
    }
    let incidents = format!(
        "SELECT count(*), min(severity) FROM watchllm.security_incidents WHERE provider_key_id = '{id}'"
    );
    assert_eq!(one(c, &incidents), format!("{}|high", expected.len()));
    let all = one(c, "SELECT string_agg(i::text, ' ') FROM watchllm.security_incidents i");
    assert!(!all.contains(&ours[10..30]));
    // Another key in the same place is another incident. So is the same key in another place.
    let foreign = new_key();
    one(c, &format!("COMMENT ON TABLE app.t IS 'see {ours} and {foreign}'"));
    let new = rows(c, &format!("{SCAN} WHERE is_new"));
    assert_eq!(new, ["comment on table app.t|-|1|t"]);
}

#[test]
fn what_an_auditor_may_not_read_is_said() {
    let server = Server::with_vault_and(
        "shared_preload_libraries = 'watchllm_keys, pg_stat_statements'\nwatchllm_keys.redact_server_log = off",
    );
    let c = &mut server.connect("postgres", "postgres");
    let (key, auditor) = (new_key(), login(c, "watchllm_auditor"));
    one(
        c,
        &format!(
            "CREATE EXTENSION pg_stat_statements; CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w;
            CREATE USER MAPPING FOR postgres SERVER s OPTIONS (password '{key}');
            CREATE PUBLICATION pub; CREATE SCHEMA cron; GRANT USAGE ON SCHEMA cron TO PUBLIC; CREATE TABLE cron.job (command text);
            INSERT INTO cron.job VALUES ('{key}'); GRANT SELECT ON cron.job TO PUBLIC; ALTER TABLE cron.job ENABLE ROW LEVEL SECURITY"
        ),
    );
    one(
        c,
        &format!(
            "CREATE SUBSCRIPTION sub CONNECTION 'dbname=postgres password={key}' PUBLICATION pub WITH (connect = false)"
        ),
    );
    one(c, &format!("DO $$ BEGIN PERFORM '{key}'; END $$"));
    one(c, &format!("COMMENT ON SCHEMA cron IS '{key}'"));
    let all = |user: &str| {
        let found = server.psql_result_as(
            "postgres",
            user,
            "SELECT place, redacted FROM watchllm.scan_database_for_leaks()",
        );
        assert_eq!(found.status, 0, "{}", found.stderr);
        assert!(!found.stderr.contains(&key[8..24]) && !found.stdout.contains(&key[8..24]));
        (found.stdout, found.stderr)
    };
    let (found, said) = all("postgres");
    for place in [
        "statement of role postgres in database postgres",
        "user mapping of postgres",
        "connection of",
        "cron.job.command",
        "comment on",
    ] {
        assert!(found.contains(place), "{place}: {found}");
    }
    assert!(!said.contains("not scanned"), "{said}");
    let (found, said) = all(&auditor);
    assert_eq!(found, "comment on schema cron|sk-proj-...[REDACTED]");
    for what in [
        "connection strings of subscriptions",
        "user mappings",
        "cron.job: row security",
        "statements of other roles",
    ] {
        assert!(said.contains(what), "{what}: {said}");
    }
    one(c, &format!("GRANT pg_read_all_stats TO {auditor}"));
    assert!(all(&auditor).0.contains("statement of role postgres"));
}

#[test]
fn a_scan_called_by_a_job_in_a_transaction_of_its_own_works() {
    let server = Server::with_vault_and("watchllm_keys.redact_server_log = off");
    let c = &mut server.connect("postgres", "postgres");
    let role = login(c, "watchllm_auditor");
    one(c, &format!("COMMENT ON ROLE {role} IS '{}'", new_key()));
    // As pg_cron runs it: a plain call whose rows nobody reads, by a role without further rights.
    let job = "SELECT count(*) FILTER (WHERE is_new) FROM watchllm.scan_database_for_leaks()";
    let s = &mut server.connect("postgres", &role);
    assert_eq!((one(s, job), one(s, job)), ("1".into(), "0".into()));
    let unknown = Uuid::new_v4();
    assert_eq!(
        one(c, &format!("SELECT count(*) FROM watchllm.open_incidents WHERE id <> '{unknown}'")),
        "1"
    );
}
