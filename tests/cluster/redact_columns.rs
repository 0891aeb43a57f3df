//! Keys on their way into an application's own tables, by every way to write a row. JSON must stay
//! JSON. A vault that is missing, broken or busy must not cost anybody a row. Somebody floods the
//! incidents. The application's roles have no right in the vault.

use std::io::Write;
use std::time::{Duration, Instant};

use postgres::Client;
use uuid::Uuid;

use crate::keys::{Vault, code, new_key, one, project, refusal, rows, store};
use crate::roles::login;
use crate::server::Server;

const COLUMNS: &str = "id int, message text, short varchar(20), old json, doc jsonb, note text";

/// A table of this role with the trigger on it, in a schema of its own.
fn table(c: &mut Client, role: &str, rest: &str) -> String {
    let name = format!("{role}.logs_{}", Uuid::new_v4().simple());
    one(
        c,
        &format!(
            "CREATE SCHEMA IF NOT EXISTS {role} AUTHORIZATION {role}; CREATE TABLE {name} ({COLUMNS}) {rest}"
        ),
    );
    attach(c, &name, "'message', 'short', 'old', 'doc'");
    one(c, &format!("ALTER TABLE {name} OWNER TO {role}"));
    name
}

fn attach(c: &mut Client, table: &str, columns: &str) {
    one(
        c,
        &format!(
            "CREATE OR REPLACE TRIGGER redact BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW
            EXECUTE FUNCTION watchllm.redact_columns({columns})"
        ),
    );
}

/// Severity, column and kind of the incidents in a table, the newest first.
fn incidents(c: &mut Client, table: &str) -> Vec<String> {
    rows(
        c,
        &format!(
            "SELECT severity, details->>'column', coalesce(provider_key_id::text, details->>'redacted') FROM watchllm.security_incidents
            WHERE details->>'table' = '{table}' ORDER BY severity, details->>'column'"
        ),
    )
}

/// The same, once there are so many: the audit writer writes them within a second.
fn told(c: &mut Client, table: &str, count: usize) -> Vec<String> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let found = incidents(c, table);
        if found.len() >= count {
            assert_eq!(found.len(), count, "{found:?}");
            return found;
        }
        assert!(Instant::now() < deadline, "expected {count} incidents: {found:?}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Long enough for the writer to take what waits.
fn a_moment() {
    std::thread::sleep(Duration::from_millis(600));
}

#[test]
fn no_way_into_a_table_leaves_a_key_in_it() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (role, key) = (login(c, ""), new_key());
    let plain = table(c, &role, "");
    let split = table(c, &role, "PARTITION BY RANGE (id)");
    one(
        c,
        &format!(
            "CREATE TABLE {split}_1 PARTITION OF {split} DEFAULT; ALTER TABLE {split}_1 OWNER TO {role}"
        ),
    );
    for table in [plain, split] {
        let s = &mut vault.connect(&role);
        let values = |id: i32| {
            format!(
                "({id}, 'a {key} b', 'AKIAAAAABBBBCCCC2222', '{{\"k\": \"{key}\", \"{key}\": [1.50]}}', '{{\"k\": \"x{}\"}}', 'note')",
                key.replace("sk-proj-", " sk\\u002dproj-"),
            )
        };
        one(s, &format!("INSERT INTO {table} VALUES {}, {}", values(1), values(2)));
        one(
            s,
            &format!(
                "INSERT INTO {table} (id) VALUES (3); UPDATE {table} SET message = '{key}' WHERE id = 3"
            ),
        );
        one(
            s,
            &format!(
                "MERGE INTO {table} t USING (SELECT 4 AS id) n ON t.id = n.id
                WHEN NOT MATCHED THEN INSERT (id, message) VALUES (4, '{key}')"
            ),
        );
        one(
            s,
            &format!(
                "BEGIN; SAVEPOINT a; INSERT INTO {table} VALUES {}; ROLLBACK TO a; RELEASE a; COMMIT",
                values(9)
            ),
        );
        let mut copy = s.copy_in(&format!("COPY {table} (id, message, doc) FROM STDIN")).unwrap();
        copy.write_all(format!("5\tcopied {key}\t{{\"a\": \"{key}\"}}\n").as_bytes()).unwrap();
        assert_eq!(copy.finish().unwrap(), 1);
        one(s, &format!("UPDATE {table} SET note = 'changed'")); // masked once more: no change
        let secret = &key[8..20];
        let all = rows(s, &format!("SELECT t FROM {table} t ORDER BY id"));
        assert_eq!(all.len(), 5);
        assert!(all.iter().all(|row| !row.contains(secret) && !row.contains("BBBB")), "{all:?}");
        assert_eq!(
            one(s, &format!("SELECT message, short, old, doc, note FROM {table} WHERE id = 1")),
            "a sk-proj-...[REDACTED] b|AKIA...[REDACTED]|{\"k\": \"sk-proj-...[REDACTED]\", \"sk-proj-...[REDACTED]\": [1.50]}|{\"k\": \"x sk-proj-...[REDACTED]\"}|changed"
        );
    }
}

#[test]
fn json_without_a_key_stays_as_it_was_written() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let role = login(c, "");
    let table = table(c, &role, "");
    let s = &mut vault.connect(&role);
    let key = new_key();
    let number = "1234567890123456789012345678901234567890.123456789012345678901234567890";
    let old = |v: &str| {
        format!(r#"{{"z":  {number}, "a":1E400,{}"z" : ["é", "\u00e9", "{v}", null, true]}}"#, "\t")
    };
    let doc =
        |v: &str| format!(r#"{{"a": 1, "z": [{number}, "\"\\ é", "{v}", null, true, {{}}]}}"#);
    let quoted = |json: String| json.replace('\'', "''");
    for (value, stored) in [("nothing", "nothing"), (&key, "sk-proj-...[REDACTED]")] {
        one(
            s,
            &format!(
                "INSERT INTO {table} (id, old, doc) VALUES (1, '{}', '{}')",
                quoted(old(value)),
                quoted(doc(value))
            ),
        );
        assert_eq!(one(s, &format!("SELECT old FROM {table}")), old(stored));
        assert_eq!(one(s, &format!("SELECT doc FROM {table}")), doc(stored));
        one(s, &format!("DELETE FROM {table}"));
    }
    // Two names that would become equal, JSON within JSON, a megabyte, JSON nested deeper than a
    // parser accepts.
    let other = new_key();
    one(
        s,
        &format!("INSERT INTO {table} (id, doc) VALUES (1, '{{\"{key}\": 1, \"{other}\": 2}}')"),
    );
    assert_eq!(
        one(s, &format!("SELECT (SELECT count(*) FROM jsonb_object_keys(doc)) FROM {table}")),
        "2"
    );
    one(
        s,
        &format!(
            "UPDATE {table} SET doc = to_jsonb(repeat('x ', 500000) || to_jsonb('key {key}'::text)::text),
            old = (repeat('[', 3000) || '\"{key}\"' || repeat(']', 3000))::json"
        ),
    );
    let kept =
        "SELECT position('REDACTED' IN old::text) > 0, position('REDACTED' IN doc::text) > 1000000,
        position($$KEY$$ IN old::text || doc::text) FROM ";
    assert_eq!(one(s, &format!("{}{table}", kept.replace("KEY", &key[8..]))), "t|t|0");
}

#[test]
fn a_column_that_does_not_fit_is_named() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let role = login(c, "");
    let table = table(c, &role, "");
    one(
        c,
        &format!(
            "ALTER TABLE {table} ADD many text[], ADD bytes bytea, ADD fixed char(90), ADD gone text;
            ALTER TABLE {table} DROP gone; CREATE DOMAIN {role}.checked AS text CHECK (value <> 'x');
            ALTER TABLE {table} ADD own {role}.checked"
        ),
    );
    for (columns, expected) in [
        ("'message', 'nowhere'", "42703 nowhere"),
        ("'gone'", "42703 gone"),
        ("'........pg.dropped.10........'", "42703 ........pg.dropped.10........"),
        ("'Message'", "42703 Message"),
        ("'id'", "22023 id"),
        ("'many'", "22023 many"),
        ("'bytes'", "22023 bytes"),
        ("'fixed'", "22023 fixed"),
        ("'own'", "22023 own"),
        ("", "22023 redact_columns()"),
    ] {
        attach(c, &table, columns);
        let error = refusal(c, &format!("INSERT INTO {table} (id) VALUES (1)"));
        let (state, named) = expected.split_once(' ').unwrap();
        assert_eq!(error.code().code(), state, "{columns}: {}", error.message());
        assert!(
            error.message().contains(named) && error.hint().is_some(),
            "{columns}: {}",
            error.message()
        );
    }
    one(c, &format!("DROP TRIGGER redact ON {table}"));
    for trigger in [
        "AFTER INSERT ON T FOR EACH ROW",
        "BEFORE INSERT ON T FOR EACH STATEMENT",
        "BEFORE DELETE ON T FOR EACH ROW",
    ] {
        let create = format!(
            "CREATE TRIGGER other {trigger} EXECUTE FUNCTION watchllm.redact_columns('message')"
        );
        one(c, &create.replace(" T ", &format!(" {table} ")));
        let fire = if trigger.contains("DELETE") {
            format!("INSERT INTO {table} (id) VALUES (1); DELETE FROM {table}")
        } else {
            format!("INSERT INTO {table} (id) VALUES (1)")
        };
        assert_eq!(code(c, &fire), "22023", "{trigger}");
        one(c, &format!("DROP TRIGGER other ON {table}"));
    }
    assert_ne!(code(c, "SELECT watchllm.redact_columns()"), "00000");
}

#[test]
fn an_incident_is_raised_once_and_names_a_key_of_ours() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (role, ours, foreign) = (login(c, ""), new_key(), new_key());
    let (p, q) = (project(c), project(c));
    let (id, other) = (store(c, &p, "openai", &ours), store(c, &q, "openai", &ours));
    let table = table(c, &role, "");
    let s = &mut vault.connect(&role);
    for _ in 0..3 {
        one(
            s,
            &format!(
                "INSERT INTO {table} (message, short, doc) VALUES ('{foreign} {foreign}', '', '[\"{}\"]')",
                new_key()
            ),
        );
    }
    let masked = "sk-proj-...[REDACTED]";
    // one for each key and column
    let (doc, message) = (format!("low|doc|{masked}"), format!("low|message|{masked}"));
    assert_eq!(told(c, &table, 4), [doc.clone(), doc.clone(), doc, message]);
    let escaped = ours.replace('-', "\\u002d");
    // what was rolled back leaves its trace all the same
    one(s, &format!("BEGIN; INSERT INTO {table} (message) VALUES ('{ours}'); ROLLBACK"));
    told(c, &table, 6);
    one(
        s,
        &format!(
            "BEGIN; SAVEPOINT s; INSERT INTO {table} (message) VALUES ('{ours}'); ROLLBACK TO s; COMMIT"
        ),
    );
    for _ in 0..2 {
        one(
            s,
            &format!("INSERT INTO {table} (message, doc) VALUES ('see {ours}', '[\"{escaped}\"]')"),
        );
    }
    let mut expected = vec![];
    for column in ["doc", "message"] {
        let mut both = [format!("high|{column}|{id}"), format!("high|{column}|{other}")];
        both.sort();
        expected.extend(both);
    }
    let mut found = told(c, &table, 8);
    found.retain(|incident| incident.starts_with("high"));
    found.sort();
    assert_eq!(found, expected);
    let all = one(c, "SELECT string_agg(i::text, ' ') FROM watchllm.security_incidents i");
    assert!(!all.contains(&ours[8..20]) && !all.contains(&foreign[8..20]));
}

#[test]
fn nobody_floods_the_incidents() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let (role, victim, ours) = (login(c, ""), login(c, ""), new_key());
    let p = project(c);
    let id = store(c, &p, "openai", &ours);
    let names: Vec<String> = (0..60).map(|i| format!("c{i}")).collect();
    let of = |role: &str| {
        format!(
            "SELECT count(*), count(provider_key_id) FROM watchllm.security_incidents WHERE details->>'table_owner' = '{role}'"
        )
    };
    one(c, &format!("CREATE SCHEMA {role} AUTHORIZATION {role}"));
    for round in 0..3 {
        let table = format!("{role}.wide{round}");
        let columns =
            names.iter().map(|name| format!("{name} text")).collect::<Vec<_>>().join(", ");
        one(c, &format!("CREATE TABLE {table} ({columns}); ALTER TABLE {table} OWNER TO {role}"));
        attach(
            c,
            &table,
            &names.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", "),
        );
        let s = &mut server.connect("postgres", &role);
        for key in [new_key(), format!("AIza{}", &new_key()[8..43]), ours.clone()] {
            let values = names.iter().map(|_| format!("'{key}'")).collect::<Vec<_>>().join(", ");
            one(s, &format!("INSERT INTO {table} VALUES ({values})"));
            a_moment();
        }
    }
    // 20 of the role, 20 of the project whose key it is, and for both one that says more
    assert_eq!(one(c, &of(&role)), "40|20");
    let held = "SELECT kind, name, held_back FROM watchllm.cut_off_sources ORDER BY 1";
    server.poll_until("postgres", held, &format!("project|{p}|160\nrole|{role}|340"), 20);
    assert!(!id.is_empty());
    // Others' incidents still find room.
    let quiet = table(c, &victim, "");
    one(
        &mut server.connect("postgres", &victim),
        &format!("INSERT INTO {quiet} (message) VALUES ('{}')", new_key()),
    );
    told(c, &quiet, 1);
    assert_eq!(one(c, &of(&victim)), "1|0");
}

#[test]
fn no_row_waits_or_fails_because_of_an_incident() {
    let server = Server::with_vault_and("max_prepared_transactions = 4");
    let c = &mut server.connect("postgres", "postgres");
    let (role, key) = (login(c, ""), new_key());
    project(c); // wakes the writer
    let (table, free) = (table(c, &role, ""), table(c, &role, ""));
    let insert = |table: &str| format!("INSERT INTO {table} (id, message) VALUES (1, '{key}')");
    let (first, second) =
        (&mut server.connect("postgres", &role), &mut server.connect("postgres", &role));
    one(second, "SET statement_timeout = '60s'");
    // The same incident in a transaction that stays open, under every isolation level.
    one(first, &format!("BEGIN; {}", insert(&table)));
    for level in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        assert_eq!(
            code(second, &format!("BEGIN ISOLATION LEVEL {level}; {}; COMMIT", insert(&table))),
            "00000",
            "{level}"
        );
    }
    one(first, "COMMIT");
    told(c, &table, 1);
    // A snapshot older than the incident.
    one(second, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class");
    one(first, &insert(&free));
    assert_eq!(code(second, &format!("{}; COMMIT", insert(&free))), "00000");
    // Two-phase commit.
    let prepare = format!("BEGIN; {}; PREPARE TRANSACTION 'p'", insert(&table_of(c, &role)));
    assert_eq!(
        (code(second, &prepare), code(second, "COMMIT PREPARED 'p'")),
        ("00000".into(), "00000".into())
    );
    // Incidents that cannot be reached or written; a temporary table where writing is forbidden.
    let locked = table_of(c, &role);
    for table in
        ["security_incidents", "provider_key_versions", "provider_key_records", "audit_keys"]
    {
        one(c, &format!("BEGIN; LOCK TABLE watchllm.{table}"));
        assert_eq!(code(second, &insert(&locked)), "00000", "{table}");
        one(c, "COMMIT");
    }
    let full = table_of(c, &role);
    one(c, "ALTER TABLE watchllm.security_incidents ADD CONSTRAINT full_ CHECK (false) NOT VALID");
    assert_eq!(code(second, &insert(&full)), "00000");
    a_moment();
    assert!(incidents(c, &full).is_empty());
    one(c, "ALTER TABLE watchllm.security_incidents DROP CONSTRAINT full_");
    one(c, "CREATE TEMP TABLE t (message text)");
    attach(c, "t", "'message'");
    assert_eq!(
        code(c, &format!("BEGIN READ ONLY; INSERT INTO t VALUES ('{key}'); COMMIT")),
        "00000"
    );
    assert_eq!(one(c, "SELECT message FROM t"), "sk-proj-...[REDACTED]");
    assert_eq!(code(second, &insert(&locked)), "00000");
    told(c, &locked, 1);
    told(c, &full, 1); // written when it can be
    let clear = format!(
        "SELECT count(*) FROM (TABLE {table} UNION ALL TABLE {free} UNION ALL TABLE {locked}) t WHERE message ~ '{}'",
        &key[8..20]
    );
    let clear = clear.replace("TABLE ", "SELECT message FROM ");
    assert_eq!(one(c, &clear), "0");
}

fn table_of(c: &mut Client, role: &str) -> String {
    table(c, role, "")
}

#[test]
fn an_incident_that_takes_long_costs_no_row_any_time() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let role = login(c, "");
    let table = table(c, &role, "");
    one(
        c,
        "CREATE FUNCTION slow() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(60); RETURN true; END';
        ALTER TABLE watchllm.security_incidents ADD CONSTRAINT slow CHECK (slow()) NOT VALID",
    );
    one(c, "SELECT watchllm.create_project('wakes the writer')");
    let s = &mut server.connect("postgres", &role);
    let insert = format!(
        "SET statement_timeout = '3s'; INSERT INTO {table} (message) VALUES ('{}')",
        new_key()
    );
    (0..3).for_each(|_| assert_eq!(code(s, &insert), "00000"));
    assert_eq!(one(c, &format!("SELECT count(*) FROM {table}")), "3");
}

#[test]
fn without_preload_without_tables_and_without_a_master_key_rows_are_masked_all_the_same() {
    let key = new_key();
    let masked = |server: &Server, step: &str| {
        let c = &mut server.connect("postgres", "postgres");
        let role = login(c, "");
        let table = table(c, &role, "");
        let s = &mut server.connect("postgres", &role);
        one(s, &format!("INSERT INTO {table} (message, doc) VALUES ('{key}', '\"{key}\"')"));
        assert_eq!(
            one(s, &format!("SELECT message, doc FROM {table}")),
            "sk-proj-...[REDACTED]|\"sk-proj-...[REDACTED]\"",
            "{step}"
        );
        table
    };
    let server = Server::init();
    server.start();
    server.psql("postgres", "CREATE EXTENSION watchllm_keys");
    masked(&server, "not preloaded, not installed");
    server.psql("postgres", "SELECT watchllm.install()");
    masked(&server, "not preloaded");
    server.conf("shared_preload_libraries = 'watchllm_keys'");
    server.restart();
    let table = masked(&server, "no master key");
    let c = &mut server.connect("postgres", "postgres");
    assert_eq!(incidents(c, &table).len(), 2, "an incident needs no master key");
    one(c, "ALTER TABLE watchllm.projects OWNER TO postgres");
    let table = masked(&server, "tables of another owner");
    assert!(incidents(c, &table).is_empty());
    one(c, "SET client_min_messages = 'error'; DROP SCHEMA watchllm CASCADE");
}
