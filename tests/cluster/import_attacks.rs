//! Attacks through an import: a table whose owner waits for an administrator to read it, a caller
//! without the rights, a file that is no secret. Every kind of code that an owner can have run on a
//! read is laid as a trap, which notes its user. Controls show that the traps work.

use std::path::Path;

use postgres::Client;
use uuid::Uuid;

use crate::at_rest::Wanted;
use crate::commands::{command, run};
use crate::import::{SECRET, add, file, import, old_table, sealed_texts};
use crate::keys::{Vault, code, one, project, refusal, rows};
use crate::roles::login;

/// The traps: their name, their SQL, and the SQLSTATE for an administrator and for a superuser. S
/// is the attacker's schema, COLUMNS are WatchLLM's.
const TRAPS: &[(&str, &str, &str, &str)] = &[
    ("view", "CREATE TABLE S.view_ (COLUMNS); CREATE VIEW S.view AS SELECT t.*, S.spy('x') FROM S.view_ t", "22023", "22023"),
    (
        "policy",
        "CREATE TABLE S.policy (COLUMNS); ALTER TABLE S.policy ENABLE ROW LEVEL SECURITY;
         CREATE POLICY p ON S.policy USING (S.spy(provider) IS NOT NULL)",
        "22023",
        "00000",
    ),
    ("index", "CREATE TABLE S.index (COLUMNS); CREATE INDEX ON S.index ((S.spy('x') || provider))", "00000", "00000"),
    (
        "check",
        "CREATE TABLE S.check (COLUMNS); CREATE TABLE S.check_child (CHECK (S.spy('x') = 'x' OR provider = 'y')) INHERITS (S.check)",
        "00000",
        "00000",
    ),
    ("statistics", "CREATE TABLE S.statistics (COLUMNS); CREATE STATISTICS S.s ON (S.spy('x') || provider) FROM S.statistics", "00000", "00000"),
    (
        "partition",
        "CREATE TABLE S.partition (COLUMNS) PARTITION BY LIST ((S.spy('x') || provider));
         CREATE TABLE S.partition_ PARTITION OF S.partition DEFAULT",
        "00000",
        "00000",
    ),
    (
        "trigger",
        "CREATE TABLE S.trigger (COLUMNS);
         CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON S.trigger FOR EACH ROW EXECUTE FUNCTION S.spy_on_row()",
        "00000",
        "00000",
    ),
    ("default", "CREATE TABLE S.default (COLUMNS, x text DEFAULT S.spy('x'), y text GENERATED ALWAYS AS (S.spy(provider)) STORED)", "00000", "00000"),
    (
        "domain",
        "CREATE DOMAIN S.spied AS text CHECK (S.spy(value) = value); CREATE TABLE S.domain (COLUMNS);
         ALTER TABLE S.domain ALTER provider TYPE S.spied",
        "22023",
        "22023",
    ),
    (
        "type",
        "CREATE TYPE S.vendor AS ENUM ('openai'); CREATE FUNCTION S.text(S.vendor) RETURNS text LANGUAGE sql
         AS $$ SELECT S.spy('openai') $$; CREATE CAST (S.vendor AS text) WITH FUNCTION S.text(S.vendor) AS IMPLICIT;
         CREATE TABLE S.type (COLUMNS); ALTER TABLE S.type ALTER provider TYPE S.vendor USING provider::text::S.vendor",
        "22023",
        "22023",
    ),
    (
        "operator",
        "CREATE FUNCTION S.less(uuid, uuid) RETURNS boolean LANGUAGE sql AS $$ SELECT S.spy('x') IS NULL $$;
         CREATE OPERATOR S.< (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = S.less);
         CREATE FUNCTION S.has_column_privilege(oid, smallint, text) RETURNS boolean LANGUAGE sql AS $$ SELECT S.spy('x') = 'x' $$;
         CREATE TABLE S.operator (COLUMNS)",
        "00000",
        "00000",
    ),
];

const COLUMNS: &str =
    "id uuid DEFAULT gen_random_uuid(), project_id uuid, provider text, encrypted_key text,
    encryption_iv text, created_at timestamptz DEFAULT now()";

/// A schema of the attacker's. Its functions note their user and try to make the attacker
/// superuser.
pub(crate) fn lair(c: &mut Client, attacker: &str) -> String {
    let schema = format!("lair_{}", Uuid::new_v4().simple());
    one(
        c,
        &format!(
            "CREATE SCHEMA {schema} AUTHORIZATION {attacker}; GRANT USAGE ON SCHEMA {schema} TO PUBLIC"
        ),
    );
    one(
        c,
        &format!(
            "SET ROLE {attacker};
            CREATE TABLE {schema}.loot (who text); GRANT INSERT ON {schema}.loot TO PUBLIC;
            CREATE FUNCTION {schema}.act() RETURNS void LANGUAGE plpgsql AS $$
            BEGIN
                INSERT INTO {schema}.loot VALUES (current_user);
                EXECUTE 'ALTER ROLE {attacker} SUPERUSER';
            EXCEPTION WHEN insufficient_privilege THEN
                INSERT INTO {schema}.loot VALUES (current_user);
            END $$;
            CREATE FUNCTION {schema}.spy(v text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
                $$ BEGIN PERFORM {schema}.act(); RETURN v; END $$;
            CREATE FUNCTION {schema}.spy_on_row() RETURNS trigger LANGUAGE plpgsql AS
                $$ BEGIN PERFORM {schema}.act(); RETURN new; END $$;
            RESET ROLE"
        ),
    );
    schema
}

/// Everybody but the attacker who ran into a trap.
pub(crate) fn caught(c: &mut Client, schema: &str, attacker: &str) -> Vec<String> {
    let who = rows(
        c,
        &format!("SELECT DISTINCT who FROM {schema}.loot WHERE who <> '{attacker}' ORDER BY who"),
    );
    one(c, &format!("DELETE FROM {schema}.loot; ALTER ROLE {attacker} NOSUPERUSER"));
    who
}

fn administrator(c: &mut Client) -> String {
    let admin = login(c, "watchllm_admin");
    one(c, &format!("GRANT pg_read_server_files TO {admin}"));
    admin
}

#[test]
fn nothing_of_the_tables_owner_runs() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (attacker, admin, p) = (login(c, ""), administrator(c), project(c));
    let (schema, old_secret) = (lair(c, &attacker), file(&vault, SECRET.as_bytes()));
    let pair = &sealed_texts(SECRET, &["a-key"])[0];
    let mut by_reading = Vec::new();
    for (trap, ddl, for_admin, for_superuser) in TRAPS {
        let ddl = ddl.replace("COLUMNS", COLUMNS).replace("S.", &format!("{schema}."));
        one(c, &format!("SET ROLE {attacker}; {ddl}; RESET ROLE"));
        let table = format!("{schema}.{trap}");
        let base = if *trap == "view" { format!("{table}_") } else { table.clone() };
        one(c, &format!("SET ROLE {attacker}"));
        add(c, &base, &p, "openai", pair, ("", ""));
        one(c, &format!("GRANT SELECT ON {table} TO PUBLIC; RESET ROLE"));
        caught(c, &schema, &attacker);
        for (caller, expected) in [(admin.as_str(), for_admin), ("postgres", for_superuser)] {
            let s = &mut vault.connect(caller);
            one(s, &format!("SET search_path = {schema}, pg_catalog"));
            let found = code(s, &import(&table, &old_secret, "outcome"));
            assert_eq!(
                caught(c, &schema, &attacker),
                Vec::<String>::new(),
                "{trap} caught {caller}"
            );
            assert_eq!(found, **expected, "{trap} read by {caller}");
            // The control: what a read by SQL sets off.
            code(
                s,
                &format!("SELECT * FROM {table} WHERE provider = 'openai' ORDER BY provider::text"),
            );
            by_reading.extend(
                caught(c, &schema, &attacker)
                    .iter()
                    .map(|_| format!("{trap} {}", caller == "postgres")),
            );
        }
    }
    for sprung in
        ["view false", "view true", "policy false", "index false", "index true", "check true"]
    {
        assert!(by_reading.contains(&sprung.to_owned()), "the control: {by_reading:?}");
    }
    let own = format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{attacker}'");
    assert_eq!(one(c, &own), "f");
}

#[test]
fn what_is_no_table_or_not_watchllms_is_refused() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let old_secret = file(&vault, SECRET.as_bytes());
    let tag = Uuid::new_v4().simple().to_string();
    one(
        c,
        &format!(
            "CREATE FOREIGN DATA WRAPPER w_{tag}; CREATE SERVER s_{tag} FOREIGN DATA WRAPPER w_{tag};
            CREATE FOREIGN TABLE foreign_{tag} ({COLUMNS}) SERVER s_{tag};
            CREATE TABLE split_{tag} ({COLUMNS}) PARTITION BY LIST (provider);
            CREATE FOREIGN TABLE part_{tag} PARTITION OF split_{tag} DEFAULT SERVER s_{tag};
            CREATE SEQUENCE seq_{tag}; CREATE TYPE composite_{tag} AS ({});
            CREATE TABLE iv_{tag} ({COLUMNS}); ALTER TABLE iv_{tag} DROP encryption_iv;
            CREATE TABLE bytes_{tag} ({COLUMNS}); ALTER TABLE bytes_{tag} ALTER encrypted_key TYPE bytea USING NULL;
            CREATE TABLE ids_{tag} ({COLUMNS}); ALTER TABLE ids_{tag} ALTER id DROP DEFAULT, ALTER id TYPE text;
            CREATE TABLE times_{tag} ({COLUMNS}); ALTER TABLE times_{tag} ALTER created_at DROP DEFAULT,
                ALTER created_at TYPE text",
            COLUMNS.replace("DEFAULT gen_random_uuid()", "").replace("DEFAULT now()", "")
        ),
    );
    for (name, said) in [
        ("foreign_", "foreign table"),
        ("split_", "foreign table"),
        ("seq_", "not a table"),
        ("iv_", "encryption_iv"),
        ("bytes_", "encrypted_key"),
        ("ids_", "column id"),
        ("times_", "created_at"),
    ] {
        let error = refusal(c, &import(&format!("{name}{tag}"), &old_secret, "1"));
        assert_eq!(error.code().code(), "22023", "{name}: {}", error.message());
        assert!(
            error.message().contains(said) && error.hint().is_some(),
            "{name}: {}",
            error.message()
        );
    }
    assert_ne!(code(c, &import(&format!("composite_{tag}"), &old_secret, "1")), "00000");
    for call in [format!("(NULL, '{}')", old_secret.display()), format!("('iv_{tag}', NULL)")] {
        assert_eq!(code(c, &format!("SELECT 1 FROM watchllm.import_watchllm_keys{call}")), "22004");
    }
    let gone = format!(
        "SELECT 1 FROM watchllm.import_watchllm_keys(1::oid::regclass, '{}')",
        old_secret.display()
    );
    assert_ne!(code(c, &gone), "00000");
}

#[test]
fn a_caller_without_every_right_is_refused_and_recorded() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, table, old_secret) = (project(c), old_table(c), file(&vault, SECRET.as_bytes()));
    add(c, &table, &p, "openai", &sealed_texts(SECRET, &["a-key"])[0], ("", ""));
    let hidden = format!("hidden_{}", Uuid::new_v4().simple());
    one(
        c,
        &format!(
            "CREATE SCHEMA {hidden}; CREATE TABLE {hidden}.t (LIKE {table}); GRANT SELECT ON {hidden}.t TO PUBLIC"
        ),
    );
    let (no_files, no_table, service) =
        (login(c, "watchllm_admin"), administrator(c), login(c, "watchllm_service"));
    let (reader, some, most) =
        (login(c, "pg_read_server_files"), administrator(c), administrator(c));
    one(c, &format!("GRANT SELECT ON {table} TO {no_files}, {service}, {reader}"));
    one(c, &format!("GRANT SELECT (id, project_id, provider, encrypted_key) ON {table} TO {some}"));
    one(
        c,
        &format!(
            "GRANT USAGE ON SCHEMA watchllm TO {reader}; GRANT EXECUTE ON FUNCTION watchllm.import_watchllm_keys TO {reader}"
        ),
    );
    let columns = "id, project_id, provider, encrypted_key, encryption_iv, name, priority, is_active, created_at, last_used_at";
    one(c, &format!("GRANT SELECT ({columns}) ON {table} TO {most}"));
    let unseen = format!("'{hidden}.t'::regclass::oid");
    let oid = one(c, &format!("SELECT {unseen}"));
    for (caller, source, expected, recorded) in [
        (&service, &table, "42501", "0"), // has no right to the function
        (&reader, &table, "42501", "1"),
        (&no_files, &table, "42501", "1"),
        (&no_table, &table, "42501", "1"),
        (&some, &table, "42501", "1"),
        (&no_table, &oid, "42501", "2"), // a schema it has no right to
        (&most, &table, "00000", "0"),
    ] {
        let s = &mut vault.connect(caller);
        assert_eq!(code(s, &import(source, &old_secret, "outcome")), expected, "{caller} {source}");
        let refused = format!(
            "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE session_role = '{caller}'
            AND access_type = 'import' AND failure_reason = 'not_authorized'"
        );
        assert_eq!(one(c, &refused), recorded, "{caller} {source}");
    }
}

#[test]
fn a_file_that_is_no_secret_is_refused_without_a_word_of_it() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, table, log) = (project(c), old_table(c), vault.server().log_len());
    add(c, &table, &p, "openai", &sealed_texts(SECRET, &["a-key"])[0], ("", ""));
    let words = "wh4t-st4nds-1n-th1s-f1le-1s-n0-0nes-8us1ness";
    let directory = vault.server().keyring().parent().unwrap().to_path_buf();
    let pipe = directory.join(format!("pipe_{}", Uuid::new_v4().simple()));
    run(command("mkfifo").arg(&pipe));
    let closed = file(&vault, words.as_bytes());
    run(command("chmod").arg("000").arg(&closed));
    let latin = [words.as_bytes(), &[0xff, 0xfe]].concat();
    one(c, "SET statement_timeout = '60s'"); // a pipe that is waited for
    for (path, said) in [
        (directory.join("nowhere"), "no such secret file"),
        (Path::new("").into(), "no such secret file"),
        (directory.clone(), "not a regular file"),
        (pipe, "not a regular file"),
        (Path::new("/dev/null").into(), "not a regular file"),
        (closed, "may not read"),
        (file(&vault, &latin), "not UTF-8"),
        (file(&vault, b""), "empty"),
        (file(&vault, b"\n"), "empty"),
        (file(&vault, words.repeat(200_000).as_bytes()), "more than 4096 bytes"),
    ] {
        let error = refusal(c, &import(&table, &path, "1"));
        assert_eq!(
            (error.code().code(), error.message().contains(said)),
            ("22023", true),
            "{}",
            error.message()
        );
        let all = format!(
            "{} {:?} {:?} {:?}",
            error.message(),
            error.detail(),
            error.hint(),
            error.where_()
        );
        assert!(!Wanted::new(&[words]).is_in(&all), "{all}");
    }
    // With another secret than theirs each row says so, and nothing is imported.
    let answer = rows(c, &import(&table, &file(&vault, words.as_bytes()), "outcome, detail"));
    assert!(answer.len() == 1 && answer[0].starts_with("wrong_secret|"), "{answer:?}");
    assert!(!Wanted::new(&[words]).is_in(answer.join("")));
    assert!(!Wanted::new(&[words]).is_in(vault.server().log_since(log)));
}
