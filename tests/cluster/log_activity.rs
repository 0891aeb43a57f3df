//! A key that is visible without any log. Places: pg_stat_activity (running, idle, in a parallel
//! worker), the texts of pg_stat_statements and its file, prepared statements, cursors and
//! current_query(). Each has a control: with redaction off the key is there.

use std::fs;
use std::time::Duration;

use postgres::Client;

use crate::keys::{Vault, one, project, rows};
use crate::log_channels::{canary, connect, secret, switch};
use crate::server::Server;

fn others_see(c: &mut Client, key: &str) -> bool {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND query LIKE '%{}%'",
        secret(key)
    );
    one(c, &sql) != "0"
}

/// Whether others see the key while the statement runs.
fn seen_while(server: &Server, key: &str, run: impl FnOnce(&mut Client) + Send) -> bool {
    let observer = &mut connect(server);
    let running = &mut connect(server);
    std::thread::scope(|scope| {
        let runner = scope.spawn(|| run(running));
        std::thread::sleep(Duration::from_millis(300));
        let seen = others_see(observer, key);
        runner.join().unwrap();
        seen
    })
}

fn silently(c: &mut Client, sql: &str) {
    drop(c.simple_query(sql));
}

#[test]
fn statements_of_others_show_no_key() {
    let server = Server::with_vault_and(
        "track_activity_query_size = 4096\nlog_lock_waits = on\ndeadlock_timeout = 50ms",
    );
    let holder = &mut connect(&server);
    one(
        holder,
        "CREATE TABLE held (i int); CREATE TABLE par AS SELECT i FROM generate_series(1, 300000) i",
    );
    for (state, expected) in [("off", true), ("on", false)] {
        switch(&server, state);
        let key = canary("V01");
        let literal = format!("SELECT length('{key}'), pg_sleep(0.8)");
        assert_eq!(seen_while(&server, &key, |c| silently(c, &literal)), expected, "running");
        let key = canary("V01x");
        let prepared = format!("SELECT length('{key}'), pg_sleep(0.8)");
        assert_eq!(
            seen_while(&server, &key, |c| drop(c.query(&prepared, &[]))),
            expected,
            "by the extended protocol"
        );
        let key = canary("V01u");
        let utility = format!("DO $$ BEGIN PERFORM '{key}', pg_sleep(0.8); END $$");
        assert_eq!(
            seen_while(&server, &key, |c| silently(c, &utility)),
            expected,
            "a utility statement"
        );
        for (channel, text) in
            [("V02", "SELECT '{}'"), ("V03", "SELEC '{}'"), ("V02f", "SELECT '{}', 1/0")]
        {
            let (key, idle) = (canary(channel), &mut connect(&server));
            silently(idle, &text.replace("{}", &key));
            assert_eq!(others_see(&mut connect(&server), &key), expected, "{channel}");
        }
        let key = canary("V04");
        one(holder, "BEGIN; LOCK held");
        let blocked = format!("SET statement_timeout = '1s'; SELECT '{key}' FROM held");
        assert_eq!(
            seen_while(&server, &key, |c| silently(c, &blocked)),
            expected,
            "waiting to be analyzed"
        );
        one(holder, "ROLLBACK");
        let key = canary("V21");
        let parallel = format!(
            "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
            SET force_parallel_mode = on; SELECT count(*) FROM par a, par b WHERE a.i + b.i < 0 AND '{key}' <> ''"
        );
        let seen = seen_while(&server, &key, |c| {
            silently(c, "SET statement_timeout = '1500ms'");
            silently(c, &parallel);
        });
        assert_eq!(seen, expected, "parallel workers");
    }
}

#[test]
fn a_text_that_is_cut_off_within_a_key_shows_no_part_of_it() {
    let server = Server::with_vault();
    for (state, expected) in [("off", true), ("on", false)] {
        switch(&server, state);
        let (key, idle) = (canary("V48"), &mut connect(&server));
        let padding = 1023 - "SELECT '' || 'sk-proj-V48x01234".len();
        silently(idle, &format!("SELECT '{}' || '{key}'", " ".repeat(padding)));
        let sql =
            format!("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{}%'", &key[..13]);
        let seen =
            one(&mut connect(&server), &sql.replace("WHERE", "WHERE pid <> pg_backend_pid() AND"))
                != "0";
        assert_eq!(seen, expected, "{state}");
    }
}

#[test]
fn a_key_of_unknown_shape_is_blanked_in_a_statement_that_hands_it_to_us() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, odd) = (project(c), "unknownshape4711ofakey");
    for statement in [
        format!("SELECT watchllm.store_provider_key('{p}', 'openai', '{odd}')"),
        format!("SELECT WatchLLM.STORE_provider_KEY('{p}', 'openai', $k${odd}$k$)"),
        format!("SELECT watchllm.rotate_provider_key('{p}', '{odd}')"),
        format!("SELEC watchllm.store_provider_key('{p}', 'openai', '{odd}')"),
        format!(
            "INSERT INTO watchllm.provider_key_inbox VALUES ('{p}', 'openai', 'name', '{odd}')"
        ),
    ] {
        let idle = &mut vault.connect("postgres");
        let pid = one(idle, "SELECT pg_backend_pid()");
        silently(idle, &statement);
        let shown = one(c, &format!("SELECT query FROM pg_stat_activity WHERE pid = {pid}"));
        assert!(
            !shown.contains(odd) && !shown.contains("openai") && shown.len() == statement.len(),
            "{shown}"
        );
        let ours = ["store_provider_key", "rotate_provider_key", "provider_key_inbox"];
        assert!(ours.iter().any(|name| shown.to_lowercase().contains(name)), "{shown}");
    }
    one(c, &format!("SELECT watchllm.delete_project('{p}')"));
}

const TRACK: &str = "
shared_preload_libraries = '{}'
pg_stat_statements.track = all
pg_stat_statements.track_utility = on
";

/// What pg_stat_statements keeps: utility statements, and texts of statements prepared before a
/// reset.
fn statistics_keep_no_key(libraries: &str) {
    let server = Server::with_vault_and(&TRACK.replace("{}", libraries));
    one(&mut connect(&server), "CREATE EXTENSION pg_stat_statements");
    for (state, expected) in [("off", true), ("on", false)] {
        switch(&server, state);
        let key = |channel: &str| canary(channel);
        let kept = |key: &str| {
            let sql = format!(
                "SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%{}%'",
                secret(key)
            );
            one(&mut connect(&server), &sql) != "0"
        };
        let c = &mut connect(&server);
        silently(c, "CREATE TABLE IF NOT EXISTS t (i int); DROP ROLE IF EXISTS r2");
        for (channel, text) in [
            ("P02a", "DO $$ BEGIN PERFORM '{}'; END $$"),
            ("P02b", "COPY (SELECT '{}') TO '/dev/null'"),
            ("P02c", "COMMENT ON TABLE t IS '{}'"),
            ("P02d", "NOTIFY x, '{}'"),
            (
                "P02e",
                "CREATE OR REPLACE FUNCTION f() RETURNS int LANGUAGE sql AS $$ SELECT length('{}') $$",
            ),
            ("P02f", "CREATE ROLE r2 PASSWORD '{}'"),
            ("P03a", "SET work_mem.x = '{}'"),
            ("P03b", "EXPLAIN SELECT '{}'"),
            ("P03c", "BEGIN; DECLARE k CURSOR FOR SELECT '{}'; COMMIT"),
            ("P03d", "CREATE TABLE u AS SELECT '{}' AS k; DROP TABLE u"),
            ("P03e", "ALTER ROLE postgres SET work_mem.y = '{}'"),
            ("P03f", "DO $$ BEGIN EXECUTE 'COMMENT ON TABLE t IS ''{}'''; END $$"),
        ] {
            let key = key(channel);
            silently(c, &text.replace("{}", &key));
            assert_eq!(kept(&key), expected, "{state} {channel} {libraries}");
        }
        let (direct, nested) = (key("P18"), key("P19"));
        silently(c, &format!("PREPARE p{state} AS SELECT length('{direct}')"));
        silently(
            c,
            &format!(
                "CREATE OR REPLACE FUNCTION g{state}() RETURNS int LANGUAGE plpgsql AS $f$ BEGIN RETURN length('{nested}') + (SELECT count(*) FROM t); END $f$; SELECT g{state}()"
            ),
        );
        one(c, "SELECT pg_stat_statements_reset()");
        silently(c, &format!("EXECUTE p{state}; SELECT g{state}()"));
        assert_eq!(
            (kept(&direct), kept(&nested)),
            (expected, expected),
            "{state} after a reset, {libraries}"
        );
        let file = server.data_dir().join("pg_stat_tmp/pgss_query_texts.stat");
        let file = String::from_utf8_lossy(&fs::read(file).unwrap()).into_owned();
        assert_eq!(file.contains(secret(&direct)), expected, "{state}: the file");
    }
}

#[test]
fn statistics_loaded_before_us_keep_no_key() {
    statistics_keep_no_key("pg_stat_statements, watchllm_keys");
}

#[test]
fn statistics_loaded_after_us_keep_no_key() {
    statistics_keep_no_key("watchllm_keys, pg_stat_statements");
}

#[test]
fn what_a_session_keeps_of_its_statements_holds_no_key() {
    let server = Server::with_vault();
    for (state, expected) in [("off", "1"), ("on", "0")] {
        switch(&server, state);
        let c = &mut connect(&server);
        let key = canary("V07");
        let found = |of: &str| {
            format!("SELECT count(*) FROM {of} LIKE '%' || 'V07x' || '{}%'", &secret(&key)[4..])
        };
        silently(c, &format!("PREPARE p AS SELECT length('{key}')"));
        assert_eq!(one(c, &found("pg_prepared_statements WHERE statement")), expected, "PREPARE");
        assert_eq!(one(c, "EXECUTE p"), key.len().to_string());
        let held = c.prepare(&format!("SELECT length('{key}') + 0")).unwrap();
        let sql = found("pg_prepared_statements WHERE statement LIKE '%+ 0' AND statement");
        assert_eq!(one(c, &sql), expected, "by the extended protocol");
        assert_eq!(c.query_one(&held, &[]).unwrap().get::<_, i32>(0), key.len() as i32);
        assert_eq!(
            one(c, &found("pg_backend_memory_contexts WHERE ident LIKE '%+ 0' AND ident")) != "0",
            expected == "1"
        );
        silently(c, &format!("BEGIN; DECLARE k CURSOR FOR SELECT '{key}'"));
        assert_eq!(one(c, &found("pg_cursors WHERE statement")), expected, "a cursor");
        assert_eq!(one(c, "FETCH k"), key);
        silently(c, "COMMIT; DEALLOCATE ALL");
        let row = one(
            c,
            &format!(
                "SELECT current_query() LIKE concat('%x', '{}', '%'), length('{key}')",
                &key[12..20]
            ),
        );
        assert_eq!(row, format!("{}|{}", if expected == "1" { "t" } else { "f" }, key.len()));
    }
}

#[test]
fn a_plan_made_anew_still_knows_the_key() {
    let server = Server::with_vault();
    let (c, key) = (&mut connect(&server), canary("V70"));
    one(c, "CREATE TABLE t (i int); INSERT INTO t VALUES (1)");
    let held = c.prepare(&format!("SELECT '{key}' || i FROM t")).unwrap();
    silently(c, &format!("PREPARE p AS SELECT '{key}' || i FROM t"));
    let body = format!("BEGIN RETURN (SELECT '{key}' || i FROM t); END");
    silently(c, &format!("CREATE FUNCTION f() RETURNS text LANGUAGE plpgsql AS $f$ {body} $f$"));
    silently(
        c,
        &format!(
            "CREATE FUNCTION g() RETURNS text LANGUAGE sql AS $f$ SELECT '{key}' || i FROM t $f$"
        ),
    );
    for (change, expected) in
        [("SELECT 1", "1"), ("UPDATE t SET i = 2", "2"), ("ALTER TABLE t ALTER i TYPE bigint", "2")]
    {
        silently(c, change);
        let expected = format!("{key}{expected}");
        assert_eq!(rows(c, "EXECUTE p"), [expected.as_str()], "{change}");
        assert_eq!(rows(c, "SELECT f()"), [expected.as_str()], "{change}");
        assert_eq!(rows(c, "SELECT g()"), [expected.as_str()], "{change}");
        assert_eq!(c.query_one(&held, &[]).unwrap().get::<_, String>(0), expected, "{change}");
    }
    assert_eq!(one(c, "SELECT prosrc FROM pg_proc WHERE proname = 'f'").trim(), body);
}
