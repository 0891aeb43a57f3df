//! Rolling back, failing and giving up. An answered read stays recorded, whatever happens to its
//! transaction. A change has a row only if it commits. What cannot be recorded does not happen.

use std::time::{Duration, Instant};

use postgres::Client;
use uuid::Uuid;

use crate::writer::{Vault, decrypt, outcome, sqlstate};

/// Runs one statement about a key, with its request id. A key is shown as its id, an error as its
/// SQLSTATE.
fn ask(client: &mut Client, sql: &str, key: Uuid, request: &str) -> String {
    let sql = sql
        .replace("$key", &format!("'{key}'"))
        .replace("$req", &format!("request_id => '{request}'"));
    outcome(client, &sql)
}

#[test]
fn a_rolled_back_transaction_keeps_the_record_of_its_reads() {
    let vault = Vault::with("");
    let key = vault.key("sk-kept");
    let mut client = vault.connect();
    let modes = [
        "",
        "READ ONLY",
        "ISOLATION LEVEL REPEATABLE READ",
        "ISOLATION LEVEL REPEATABLE READ, READ ONLY",
        "ISOLATION LEVEL SERIALIZABLE",
        "ISOLATION LEVEL SERIALIZABLE, READ ONLY, DEFERRABLE",
    ];
    for mode in modes {
        for end in ["ROLLBACK", "COMMIT", "SELECT 1/0; COMMIT"] {
            let request = format!("{mode} {end}");
            client.batch_execute(&format!("BEGIN {mode}")).unwrap();
            assert_eq!(decrypt(&mut client, key, &request).unwrap(), "sk-kept", "{request}");
            // written before the answer, not at the end of the transaction
            assert_eq!(vault.rows(&request), 1, "{request}");
            drop(client.batch_execute(end));
            client.batch_execute("ROLLBACK").unwrap();
            assert_eq!(vault.rows(&request), 1, "{request}");
        }
    }
}

#[test]
fn an_error_beside_the_read_in_its_statement() {
    let vault = Vault::with("");
    let (key, mut client) = (vault.key("sk-beside"), vault.connect());
    let (open, fail) = ("watchllm.decrypt_provider_key($key, $req)", "1 / (random() * 0)::int");
    let attempts = [
        ("after", format!("SELECT {open}, {fail}"), 1),
        ("before", format!("SELECT {fail}, {open}"), 0),
        ("planned", format!("SELECT {open}, 1 / 0"), 0),
        ("second-row", format!("SELECT {open}, 1 / (2 - n) FROM generate_series(1, 3) AS n"), 2),
    ];
    for (request, sql, rows) in attempts {
        assert_eq!(ask(&mut client, &sql, key, request), "22012", "{sql}");
        assert_eq!(vault.rows(request), rows, "{sql}");
    }
}

#[test]
fn a_plaintext_smuggled_out_of_a_subtransaction_has_its_row() {
    let vault = Vault::with("");
    let (key, mut client) = (vault.key("sk-smuggled"), vault.connect());
    let block = "DO $$ DECLARE loot text; BEGIN
            BEGIN loot := watchllm.decrypt_provider_key($key, $req); RAISE division_by_zero;
            EXCEPTION WHEN division_by_zero THEN PERFORM set_config('test.loot', loot, false); END; END $$";
    assert_eq!(ask(&mut client, block, key, "block"), "00000");
    let loot: String = client.query_one("SELECT current_setting('test.loot')", &[]).unwrap().get(0);
    assert_eq!((loot.as_str(), vault.rows("block")), ("sk-smuggled", 1));
    let savepoint = "BEGIN; SAVEPOINT s; SELECT watchllm.decrypt_provider_key($key, $req); ROLLBACK TO s; COMMIT";
    assert_eq!(ask(&mut client, savepoint, key, "savepoint"), "00000");
    assert_eq!(vault.rows("savepoint"), 1);
}

#[test]
fn refusals_and_failures_are_recorded_though_their_transaction_aborts() {
    let vault = Vault::with("");
    let (key, off, gone) = (vault.key("sk-on"), vault.key("sk-off"), vault.key("sk-gone"));
    let mut client = vault.connect();
    client.execute("SELECT watchllm.set_provider_key_active($1, false)", &[&off]).unwrap();
    client.execute("SELECT watchllm.delete_provider_key($1)", &[&gone]).unwrap();
    client.batch_execute("CREATE ROLE tenant IN ROLE watchllm_tenant").unwrap();
    let open = "SELECT watchllm.decrypt_provider_key($key, $req)";
    let attempts = [
        ("", open, Uuid::new_v4(), "02000", "not_found"),
        ("", open, off, "42000", "inactive"),
        ("", open, gone, "02000", "deleted"),
        ("SET LOCAL ROLE tenant;", open, key, "42501", "not_authorized"),
        ("", "SELECT watchllm.decrypt_provider_key(NULL, $req)", key, "22004", "bad_input"),
        (
            "",
            "SELECT watchllm.rotate_provider_key($key, 'sk-x', 9, $req)",
            key,
            "23505",
            "version_conflict",
        ),
        ("", "SELECT watchllm.rollback_provider_key($key, 7, $req)", key, "02000", "not_found"),
        (
            "",
            "SELECT watchllm.rotate_provider_key($key, 'with space', $req)",
            key,
            "22023",
            "bad_input",
        ),
    ];
    for (n, (role, sql, id, code, reason)) in attempts.into_iter().enumerate() {
        let request = format!("refused-{n}");
        assert_eq!(ask(&mut client, &format!("BEGIN; {role} {sql}"), id, &request), code, "{sql}");
        client.batch_execute("ROLLBACK").unwrap();
        let found = "SELECT string_agg(failure_reason || success, ',') FROM watchllm.provider_key_access_logs
            WHERE request_id = $1";
        let row = client.query_one(found, &[&request]).unwrap();
        assert_eq!(row.get::<_, Option<String>>(0), Some(format!("{reason}false")), "{sql}");
    }
}

#[test]
fn a_rolled_back_change_leaves_neither_row_nor_trace() {
    let vault = Vault::with("");
    let (key, mut client) = (vault.key("sk-first"), vault.connect());
    client.execute("SELECT watchllm.rotate_provider_key($1, 'sk-second')", &[&key]).unwrap();
    let state = "SELECT (SELECT count(*) FROM watchllm.provider_key_access_logs),
        (SELECT count(*) FROM watchllm.committed_changes), (SELECT md5(string_agg(r::text, '' ORDER BY id))
            FROM watchllm.provider_key_records r), (SELECT md5(string_agg(v::text, '' ORDER BY version))
            FROM watchllm.provider_key_versions v)";
    let before = vault.server.psql("postgres", state);
    let store = format!(
        "SELECT watchllm.store_provider_key('{}', 'openai', 'sk-never', $req)",
        vault.project
    );
    let changes = [
        store.as_str(),
        "SELECT watchllm.rotate_provider_key($key, 'sk-never', $req)",
        "SELECT watchllm.rollback_provider_key($key, $req)",
        "SELECT watchllm.set_provider_key_active($key, false, $req)",
        "SELECT watchllm.delete_provider_key($key, $req)",
    ];
    for change in changes {
        assert_eq!(
            ask(&mut client, &format!("BEGIN; {change}; ROLLBACK"), key, "x"),
            "00000",
            "{change}"
        );
        assert_eq!(
            ask(&mut client, &format!("{change}; SELECT 1/0"), key, "x"),
            "22012",
            "{change}"
        );
        assert_eq!(
            ask(
                &mut client,
                &format!("BEGIN; SAVEPOINT s; {change}; ROLLBACK TO s; COMMIT"),
                key,
                "x"
            ),
            "00000"
        );
        assert_eq!(vault.server.psql("postgres", state), before, "{change}");
    }
    assert_eq!(decrypt(&mut client, key, "after").unwrap(), "sk-second");
}

#[test]
fn of_nested_changes_only_the_committed_leave_rows() {
    let vault = Vault::with("max_prepared_transactions = 5");
    let mut client = vault.connect();
    let step = |name: &str| {
        let project = vault.project;
        format!(
            "SELECT watchllm.store_provider_key('{project}', 'openai', 'sk-{name}', '{name}', request_id => '{name}');"
        )
    };
    let script = [
        "BEGIN;",
        &step("outer"),
        "SAVEPOINT a;",
        &step("lost"),
        "SAVEPOINT b;",
        &step("lost-inside"),
        "RELEASE b;",
        "ROLLBACK TO a;",
        &step("again"),
        "RELEASE a; SAVEPOINT c; SAVEPOINT d;",
        &step("kept"),
        "RELEASE d; RELEASE c;",
        "COMMIT",
    ]
    .concat();
    assert_eq!(outcome(&mut client, &script), "00000");
    let names = "SELECT string_agg(name, ',' ORDER BY name) FROM watchllm.provider_key_records";
    let recorded = "SELECT string_agg(request_id || CASE WHEN c.event_id IS NULL THEN ' (lost)' ELSE '' END, ','
            ORDER BY request_id)
        FROM watchllm.provider_key_access_logs l LEFT JOIN watchllm.committed_changes c ON c.event_id = l.id
        WHERE access_type = 'store'";
    assert_eq!(vault.server.psql("postgres", names), "again,kept,outer");
    assert_eq!(vault.server.psql("postgres", recorded), "again,kept,outer");
    // two-phase commit: the writer would record what may never be committed
    assert_eq!(
        outcome(&mut client, &format!("BEGIN; {} PREPARE TRANSACTION 'p'", step("prepared"))),
        "0A000"
    );
    drop(client.batch_execute("ROLLBACK"));
    assert_eq!(vault.rows("prepared") + vault.count("SELECT count(*) FROM pg_prepared_xacts"), 0);
    let key: Uuid =
        client.query_one("SELECT id FROM watchllm.provider_keys LIMIT 1", &[]).unwrap().get(0);
    let undone = format!("SAVEPOINT s; {} ROLLBACK TO s;", step("undone"));
    let read = format!(
        "BEGIN; CREATE TABLE t (); SELECT watchllm.decrypt_provider_key($key, $req); {undone}
        PREPARE TRANSACTION 'p'"
    );
    assert_eq!(ask(&mut client, &read, key, "read, then prepared"), "00000");
    assert_eq!((vault.rows("read, then prepared"), vault.rows("undone")), (1, 0));
    client.batch_execute("COMMIT PREPARED 'p'").unwrap();
    client.batch_execute("SELECT FROM t").unwrap();
    assert_eq!(vault.server.psql("postgres", names), "again,kept,outer");
}

#[test]
fn a_change_that_cannot_be_recorded_does_not_commit() {
    let vault = Vault::with("watchllm_keys.audit_timeout = '2s'");
    let (key, mut client) = (vault.key("sk-before"), vault.connect());
    let mut holder = vault.lock_trail();
    for change in ["rotate_provider_key($key, 'sk-after', $req)", "delete_provider_key($key, $req)"]
    {
        assert_eq!(
            ask(&mut client, &format!("BEGIN; SELECT watchllm.{change}"), key, "unrecorded"),
            "00000"
        );
        assert_eq!(outcome(&mut client, "COMMIT"), "53000", "{change}");
        assert_eq!(
            ask(&mut client, &format!("SELECT watchllm.{change}"), key, "unrecorded"),
            "53000",
            "{change}"
        );
    }
    holder.batch_execute("ROLLBACK").unwrap();
    assert_eq!(decrypt(&mut client, key, "after").unwrap(), "sk-before");
    assert_eq!(outcome(&mut client, "CREATE TABLE t ()"), "00000");
    assert_eq!(vault.rows("unrecorded"), 0);
}

#[test]
fn a_transaction_that_locked_the_trail_is_refused_at_once() {
    let vault = Vault::with("watchllm_keys.audit_timeout = '60s'");
    let (key, mut client, today) = (vault.key("sk-locked"), vault.connect(), vault.today());
    let trail = "watchllm.provider_key_access_logs";
    for table in [trail.to_string(), format!("ONLY {trail}"), today] {
        for mode in ["SHARE", "SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"] {
            let (begin, started) =
                (format!("BEGIN; LOCK TABLE {table} IN {mode} MODE;"), Instant::now());
            let read = format!("{begin} SELECT watchllm.decrypt_provider_key($key, $req)");
            assert_eq!(ask(&mut client, &read, key, "own lock"), "55000", "{begin}");
            client.batch_execute("ROLLBACK").unwrap();
            let change = format!(
                "{begin} SELECT watchllm.rotate_provider_key($key, 'sk-new', $req); COMMIT"
            );
            assert_eq!(ask(&mut client, &change, key, "own lock"), "55000", "{begin}");
            client.batch_execute("ROLLBACK").unwrap();
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "{begin} took {:?}",
                started.elapsed()
            );
        }
    }
    assert_eq!(vault.rows("own lock"), 0);
    let harmless = format!("BEGIN; LOCK TABLE {trail} IN ROW EXCLUSIVE MODE");
    assert_eq!(ask(&mut client, &harmless, key, ""), "00000");
    assert_eq!(decrypt(&mut client, key, "a lock that lets others write").unwrap(), "sk-locked");
}

#[test]
fn installing_and_using_in_one_transaction() {
    let vault = Vault::with("");
    let (key, mut client) = (vault.key("sk-installed"), vault.connect());
    client.batch_execute("BEGIN; SELECT watchllm.install()").unwrap();
    assert_eq!(decrypt(&mut client, key, "again").unwrap(), "sk-installed");
    client.batch_execute("ROLLBACK").unwrap();
    assert_eq!(vault.rows("again"), 1);
    // at first nobody else can see the trail yet
    vault.server.psql("postgres", "CREATE DATABASE fresh");
    let mut fresh = vault.server.connect("fresh", "postgres");
    fresh
        .batch_execute("BEGIN; CREATE EXTENSION watchllm_keys; SELECT watchllm.install()")
        .unwrap();
    let error = fresh.query_one("SELECT watchllm.create_project('too soon')", &[]).unwrap_err();
    assert_eq!(sqlstate(&error), "55000", "{error:?}");
    fresh
        .batch_execute("ROLLBACK; CREATE EXTENSION watchllm_keys; SELECT watchllm.install()")
        .unwrap();
    fresh.query_one("SELECT watchllm.create_project('in time')", &[]).unwrap();
}

#[test]
fn a_stale_snapshot_does_not_reopen_a_deleted_key() {
    let vault = Vault::with("");
    let keys = [vault.key("sk-deleted"), vault.key("sk-switched-off"), vault.key("sk-old")];
    let (mut stale, mut other) = (vault.connect(), vault.connect());
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        stale.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}")).unwrap();
        stale.query_one("SELECT count(*) FROM watchllm.provider_key_versions", &[]).unwrap();
        let changes = [
            "delete_provider_key($1)",
            "set_provider_key_active($1, false)",
            "rotate_provider_key($1, 'sk-new')",
        ];
        for (key, change) in keys.iter().zip(changes).filter(|_| level == "REPEATABLE READ") {
            other.query_one(&format!("SELECT watchllm.{change}"), &[key]).unwrap();
        }
        let answers: Vec<_> = keys
            .iter()
            .map(|key| {
                stale.batch_execute("SAVEPOINT s").unwrap();
                let answer = decrypt(&mut stale, *key, "stale");
                stale.batch_execute("ROLLBACK TO s").unwrap();
                answer
            })
            .collect();
        assert_eq!(answers, [Err("02000".into()), Err("42000".into()), Ok("sk-new".into())]);
        stale.batch_execute("ROLLBACK").unwrap();
    }
}

#[test]
fn a_key_stored_in_the_same_transaction_opens() {
    let vault = Vault::with("");
    let mut client = vault.connect();
    let store = format!("watchllm.store_provider_key('{}', 'openai', 'sk-young')", vault.project);
    for sql in [
        format!("SELECT watchllm.decrypt_provider_key({store}, request_id => 'young')"),
        format!(
            "WITH k AS MATERIALIZED (SELECT {store} AS id) SELECT watchllm.decrypt_provider_key(id, request_id =>
            'young') FROM k"
        ),
        format!("SELECT api_key FROM watchllm.decrypt_provider_keys(ARRAY[{store}], 'young')"),
    ] {
        let mut transaction = client.transaction().unwrap();
        assert_eq!(transaction.query_one(&sql, &[]).unwrap().get::<_, String>(0), "sk-young", "{sql}");
        transaction.rollback().unwrap();
    }
    assert_eq!(vault.rows("young"), 3);
    assert_eq!(
        vault.count(
            "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE access_type = 'store'"
        ),
        0
    );
}
