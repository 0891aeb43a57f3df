//! Attacks through a scan: a table, view or function whose owner waits for an auditor or a
//! superuser to read it. Every kind of code that an owner can have run on a read is laid as a trap,
//! which notes its user. Controls show that the traps work.

use uuid::Uuid;

use crate::import_attacks::{caught, lair};
use crate::keys::{Vault, code, new_key, one, refusal, rows};
use crate::roles::login;
use crate::scans::scan;
use crate::server::Server;

/// The traps: their name, their SQL, and the SQLSTATE for an auditor and for a superuser. S is the
/// attacker's schema, KEY a key.
const TRAPS: &[(&str, &str, &str, &str)] = &[
    ("view", "CREATE VIEW S.view AS SELECT S.spy('KEY') AS t", "22023", "22023"),
    (
        "policy",
        "CREATE TABLE S.policy (t text); INSERT INTO S.policy VALUES ('KEY'); ALTER TABLE S.policy ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON S.policy USING (S.spy(t) IS NOT NULL)",
        "22023",
        "00000",
    ),
    (
        "rule",
        "CREATE TABLE S.rule (t text); INSERT INTO S.rule VALUES ('KEY');
         CREATE RULE r AS ON INSERT TO S.rule DO ALSO SELECT S.spy('x')",
        "00000",
        "00000",
    ),
    ("index", "CREATE TABLE S.index (t text); INSERT INTO S.index VALUES ('KEY'); CREATE INDEX ON S.index ((S.spy('x') || t))", "00000", "00000"),
    (
        "check",
        "CREATE TABLE S.check (t text); CREATE TABLE S.check_child (CHECK (S.spy('x') = 'x' OR t = 'y')) INHERITS (S.check);
         INSERT INTO S.check VALUES ('KEY')",
        "00000",
        "00000",
    ),
    (
        "partition",
        "CREATE TABLE S.partition (t text) PARTITION BY LIST ((S.spy('x') || t));
         CREATE TABLE S.partition_ PARTITION OF S.partition DEFAULT; INSERT INTO S.partition VALUES ('KEY')",
        "00000",
        "00000",
    ),
    (
        "trigger",
        "CREATE TABLE S.trigger (t text); INSERT INTO S.trigger VALUES ('KEY');
         CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON S.trigger FOR EACH ROW EXECUTE FUNCTION S.spy_on_row()",
        "00000",
        "00000",
    ),
    ("generated", "CREATE TABLE S.generated (t text, y text GENERATED ALWAYS AS (S.spy(t)) STORED); INSERT INTO S.generated VALUES ('KEY')", "00000", "00000"),
    (
        "domain",
        "CREATE DOMAIN S.spied AS text CHECK (S.spy(value) = value); CREATE TABLE S.domain (t S.spied); INSERT INTO S.domain VALUES ('KEY')",
        "22023",
        "22023",
    ),
    (
        "operator",
        "CREATE FUNCTION S.less(oid, oid) RETURNS boolean LANGUAGE sql AS $$ SELECT S.spy('x') IS NULL $$;
         CREATE OPERATOR S.= (LEFTARG = oid, RIGHTARG = oid, FUNCTION = S.less);
         CREATE FUNCTION S.format(text, name, name) RETURNS text LANGUAGE sql AS $$ SELECT S.spy('x') $$;
         CREATE TABLE S.operator (t text); INSERT INTO S.operator VALUES ('KEY')",
        "00000",
        "00000",
    ),
];

#[test]
fn nothing_of_a_scanned_tables_owner_runs() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (attacker, auditor, key) = (login(c, ""), login(c, "watchllm_auditor"), new_key());
    let schema = lair(c, &attacker);
    let mut by_reading = Vec::new();
    for (trap, ddl, for_auditor, for_superuser) in TRAPS {
        let ddl = ddl.replace("KEY", &key).replace("S.", &format!("{schema}."));
        one(
            c,
            &format!(
                "SET ROLE {attacker}; {ddl}; GRANT SELECT ON {schema}.{trap} TO PUBLIC; RESET ROLE"
            ),
        );
        caught(c, &schema, &attacker);
        for (caller, expected) in [(auditor.as_str(), for_auditor), ("postgres", for_superuser)] {
            let s = &mut vault.connect(caller);
            one(s, &format!("SET search_path = {schema}, pg_catalog"));
            let columns = if *trap == "generated" { ", '{t}'" } else { "" };
            let found = code(s, &scan(&format!("{schema}.{trap}"), columns));
            assert_eq!(
                caught(c, &schema, &attacker),
                Vec::<String>::new(),
                "{trap} caught {caller}"
            );
            assert_eq!(found, **expected, "{trap} read by {caller}");
            code(s, &format!("SELECT * FROM {schema}.{trap} WHERE t = '{key}' ORDER BY t"));
            by_reading.extend(
                caught(c, &schema, &attacker)
                    .iter()
                    .map(|_| format!("{trap} {}", caller == "postgres")),
            );
        }
    }
    for sprung in ["view false", "view true", "policy false", "index true", "check true"] {
        assert!(by_reading.contains(&sprung.to_owned()), "the control: {by_reading:?}");
    }
    assert_eq!(one(c, &format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{attacker}'")), "f");
}

#[test]
fn nothing_that_is_only_called_so_runs_when_the_database_is_scanned() {
    let server =
        Server::with_vault_and("shared_preload_libraries = 'watchllm_keys, pg_stat_statements'");
    let c = &mut server.connect("postgres", "postgres");
    let (attacker, auditor, key) = (login(c, ""), login(c, "watchllm_auditor"), new_key());
    let schema = lair(c, &attacker);
    one(
        c,
        &format!(
            "CREATE SCHEMA stat AUTHORIZATION {attacker}; CREATE EXTENSION pg_stat_statements SCHEMA stat;
            CREATE SCHEMA cron AUTHORIZATION {attacker}; GRANT USAGE ON SCHEMA cron TO PUBLIC; SET ROLE {attacker};
            CREATE FUNCTION stat.pg_stat_statements(text) RETURNS SETOF stat.pg_stat_statements LANGUAGE sql AS
                $$ SELECT {schema}.act(); SELECT * FROM stat.pg_stat_statements $$;
            CREATE FUNCTION stat.pg_stat_statements(VARIADIC boolean[]) RETURNS SETOF stat.pg_stat_statements LANGUAGE sql AS
                $$ SELECT {schema}.act(); SELECT * FROM stat.pg_stat_statements $$;
            CREATE VIEW cron.base AS SELECT {schema}.spy('{key}') AS command; GRANT SELECT ON cron.base TO PUBLIC;
            CREATE TABLE cron.job (command text, x text GENERATED ALWAYS AS ({schema}.spy('{key}')) STORED);
            INSERT INTO cron.job VALUES ('curl -H {key}'); CREATE INDEX ON cron.job ((command || {schema}.spy('x')));
            ALTER TABLE cron.job ENABLE ROW LEVEL SECURITY;
            CREATE POLICY p ON cron.job USING ({schema}.spy(command) IS NOT NULL); GRANT SELECT ON cron.job TO PUBLIC;
            CREATE VIEW {schema}.pg_proc AS SELECT {schema}.spy('x'); CREATE FUNCTION {schema}.pg_get_viewdef(oid) RETURNS text
                LANGUAGE sql AS $$ SELECT {schema}.spy('x') $$;
            CREATE FUNCTION {schema}.concat(text, text) RETURNS text LANGUAGE sql AS $$ SELECT {schema}.spy('x') $$;
            RESET ROLE"
        )
    );
    caught(c, &schema, &attacker);
    for caller in ["postgres", auditor.as_str()] {
        let s = &mut server.connect("postgres", caller);
        one(s, &format!("SET search_path = {schema}, stat, pg_catalog"));
        let found = rows(s, "SELECT place FROM watchllm.scan_database_for_leaks()");
        assert_eq!(caught(c, &schema, &attacker), Vec::<String>::new(), "{caller}");
        assert_eq!(
            found.contains(&"cron.job.command".to_owned()),
            caller == "postgres",
            "{found:?}"
        );
        code(s, "SELECT * FROM cron.base");
        assert_eq!(caught(c, &schema, &attacker), [caller], "the control");
    }
}

#[test]
fn what_is_no_table_is_refused_and_tells_nothing() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let tag = Uuid::new_v4().simple().to_string();
    one(
        c,
        &format!(
            "CREATE FOREIGN DATA WRAPPER w_{tag}; CREATE SERVER s_{tag} FOREIGN DATA WRAPPER w_{tag};
            CREATE FOREIGN TABLE foreign_{tag} (t text) SERVER s_{tag};
            CREATE TABLE split_{tag} (t text) PARTITION BY LIST (t);
            CREATE FOREIGN TABLE part_{tag} PARTITION OF split_{tag} DEFAULT SERVER s_{tag};
            CREATE SEQUENCE seq_{tag}; CREATE TABLE bare_{tag} (id int); CREATE TABLE none_{tag} ()"
        ),
    );
    for (table, said) in [
        ("foreign_", "foreign table"),
        ("split_", "foreign table"),
        ("seq_", "not a table"),
        ("bare_", "no column to scan"),
        ("none_", "no column to scan"),
    ] {
        let error = refusal(c, &scan(&format!("{table}{tag}"), ""));
        assert_eq!(error.code().code(), "22023", "{table}: {}", error.message());
        assert!(
            error.message().contains(said) && error.hint().is_some(),
            "{table}: {}",
            error.message()
        );
    }
    // A name that is itself a key is neither shown nor stored.
    let (key, secret) = (new_key(), new_key());
    one(c, &format!("CREATE TABLE \"{}\" (\"{}\" text)", &key[..60], &secret[..60]));
    one(c, &format!("INSERT INTO \"{}\" VALUES ('{secret}')", &key[..60]));
    let found = rows(c, &scan(&format!("\"{}\"", &key[..60]), ""));
    let error = refusal(c, &scan("pg_description", &format!(", '{{{key}}}'")));
    let incidents = one(c, "SELECT string_agg(i::text, ' ') FROM watchllm.security_incidents i");
    for text in [found.join(" "), error.message().to_owned(), incidents] {
        assert!(!text.contains(&key[8..24]) && !text.contains(&secret[8..24]), "{text}");
    }
    assert_eq!(found.len(), 1);
}
