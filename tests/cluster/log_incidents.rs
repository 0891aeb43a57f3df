//! Masked and reported. Each key is one incident per statement, however many lines held it. Floods
//! are counted, not written one by one. Keys in the catalog raise a warning. No incident holds any
//! part of a key.

use postgres::Client;

use crate::keys::{Vault, code, new_key, one, project, rows, store};
use crate::log_channels::{canary, connect, secret, switch};
use crate::server::Server;

/// Incidents of one process: the channel, and how often.
fn of(pid: &str) -> String {
    format!(
        "SELECT details->>'channel', details->>'provider', details->>'role' FROM watchllm.open_incidents
        WHERE type = 'leaked_key' AND details->>'backend_pid' = '{pid}' ORDER BY detected_at"
    )
}

fn pid(c: &mut Client) -> String {
    one(c, "SELECT pg_backend_pid()")
}

/// Waits until the process has so many incidents, and a little longer.
fn incidents(server: &Server, pid: &str, expected: usize) -> Vec<String> {
    server.poll_until(
        "postgres",
        &format!("SELECT count(*) >= {expected} FROM ({}) x", of(pid)),
        "t",
        20,
    );
    std::thread::sleep(std::time::Duration::from_millis(2500));
    rows(&mut connect(server), &of(pid))
}

/// The writer runs from the first call on.
fn awake(server: &Server) {
    let c = &mut connect(server);
    let p = project(c);
    store(c, &p, "openai", &new_key());
}

#[test]
fn a_key_is_one_incident_for_its_statement_and_not_for_each_line() {
    let server = Server::with_vault_and("log_statement = all\nlog_min_duration_statement = 0");
    awake(&server);
    let c = &mut connect(&server);
    let (pid, key) = (pid(c), canary("I01"));
    let five_lines = format!(
        "DO $$ BEGIN FOR i IN 1..5 LOOP RAISE LOG '{key}'; END LOOP; RAISE EXCEPTION '{key}'; END $$"
    );
    assert_eq!(code(c, &five_lines), "P0001");
    assert_eq!(incidents(&server, &pid, 1), ["message|openai|postgres"]);
    // the same key again and again soon after: counted in the next report, not an incident each
    for _ in 0..50 {
        drop(c.simple_query(&five_lines));
    }
    assert_eq!(incidents(&server, &pid, 1).len(), 1);
    drop(c.simple_query(&format!("SELECT '{}'", canary("I02"))));
    assert_eq!(incidents(&server, &pid, 2).len(), 2);
    let all = one(c, "SELECT string_agg(i::text, ' ') FROM watchllm.security_incidents i");
    assert!(!all.contains(secret(&key)), "{all}");
}

#[test]
fn a_key_handed_to_the_vault_is_no_leak() {
    let server = Server::with_vault();
    awake(&server);
    let c = &mut connect(&server);
    let pid = pid(c);
    let p = project(c);
    let key = new_key();
    let id = store(c, &p, "openai", &key);
    one(c, &format!("SELECT watchllm.rotate_provider_key('{id}', '{}')", new_key()));
    assert_eq!(
        code(c, &format!("SELECT watchllm.store_provider_key('{p}', 'BAD', '{key}')")),
        "22023"
    );
    c.query(
        "SELECT watchllm.store_provider_key(($1::text)::uuid, 'openai', $2::text)",
        &[&p, &new_key()],
    )
    .unwrap();
    drop(c.simple_query(&format!("SELECT '{}'", canary("I03"))));
    assert_eq!(incidents(&server, &pid, 1), ["statement|openai|postgres"]);
}

#[test]
fn leaks_before_the_writer_and_from_other_databases_are_told_too() {
    let server = Server::with_vault();
    server.psql("postgres", "CREATE DATABASE other; CREATE ROLE somebody LOGIN");
    let other = &mut server.connect("other", "somebody");
    let pid_there = pid(other);
    drop(other.simple_query(&format!("SELECT '{}'::int", canary("I04"))));
    drop(server.try_connect("postgres", &canary("I05")));
    awake(&server);
    assert_eq!(incidents(&server, &pid_there, 1), ["message|openai|somebody"]);
    let database = format!(
        "SELECT details->>'database' FROM watchllm.open_incidents WHERE details->>'backend_pid' = '{pid_there}'"
    );
    assert_eq!(server.psql("postgres", &database), "other");
    let nobody = "SELECT count(*) FROM watchllm.open_incidents WHERE details->>'role' IS NULL AND details->>'channel' = 'message'";
    assert_eq!(server.psql("postgres", nobody), "1");
}

#[test]
fn more_than_can_be_told_is_counted() {
    let server = Server::with_vault();
    let c = &mut connect(&server);
    let flood: String = (0..400).map(|_| format!("SELECT '{}';", canary("I06"))).collect();
    drop(c.simple_query(&flood));
    awake(&server);
    let counts = "SELECT (SELECT sum((details->>'count')::int) FROM watchllm.open_incidents WHERE type = 'leaked_key'),
        (SELECT held_back FROM watchllm.cut_off_sources WHERE channel = 'statement')";
    server.poll_until("postgres", counts, "20|380", 20);
}

#[test]
fn nothing_is_told_while_redaction_is_off() {
    let server = Server::with_vault();
    awake(&server);
    switch(&server, "off");
    let c = &mut connect(&server);
    let pid = pid(c);
    drop(c.simple_query(&format!("SELECT '{}'::int", canary("I07"))));
    switch(&server, "on");
    let c = &mut connect(&server);
    let later = self::pid(c);
    drop(c.simple_query(&format!("SELECT '{}'::int", canary("I08"))));
    assert_eq!(incidents(&server, &later, 1).len(), 1);
    assert!(rows(c, &of(&pid)).is_empty());
}

#[test]
fn a_key_in_the_catalog_is_warned_of_and_told() {
    let vault = Vault::shared();
    let server = vault.server();
    awake(&server);
    server.psql("postgres", "CREATE TABLE IF NOT EXISTS described (i int); CREATE ROLE described");
    for (text, warns) in [
        ("COMMENT ON TABLE described IS '{}'", true),
        ("CREATE FUNCTION of_key() RETURNS text LANGUAGE sql AS $$ SELECT '{}' $$", true),
        ("CREATE VIEW key_view AS SELECT '{}' AS k", true),
        ("ALTER ROLE described SET search_path = '{}'", true),
        ("ALTER DATABASE postgres SET app.key = '{}'", true),
        ("ALTER TABLE described ADD k text DEFAULT '{}'", true),
        ("DO $$ BEGIN EXECUTE 'COMMENT ON TABLE described IS ''{}'''; END $$", true),
        ("SELECT 1; COMMENT ON TABLE described IS '{}'", true),
        ("SELECT '{}'; COMMENT ON TABLE described IS 'nothing'", false),
        ("COMMENT ON TABLE described IS 'risk-adjusted sk-learn'", false),
        ("CREATE TEMP TABLE kept AS SELECT '{}' AS k", false),
    ] {
        let key = canary("K01");
        let sql = format!("SELECT pg_backend_pid();\n{}", text.replace("{}", &key));
        let result = server.psql_result("postgres", &sql);
        let pid = result.stdout.lines().next().unwrap();
        assert_eq!(result.status, 0, "{text}: {}", result.stderr);
        assert_eq!(
            result.stderr.matches("WARNING:  01000").count(),
            usize::from(warns),
            "{text}: {}",
            result.stderr
        );
        assert!(!result.stderr.contains(secret(&key)), "{}", result.stderr);
        let found = format!(
            "SELECT count(*) FROM watchllm.open_incidents WHERE details->>'backend_pid' = '{pid}' AND details->>'channel' = 'catalog' AND severity = 'high'"
        );
        if warns {
            server.poll_until("postgres", &found, "1", 20);
        } else {
            assert_eq!(server.psql("postgres", &found), "0", "{text}");
        }
    }
    server.psql("postgres", "ALTER DATABASE postgres RESET app.key; DROP VIEW key_view; DROP FUNCTION of_key; DROP TABLE described; DROP ROLE described");
}
