//! The harness itself: a server without the extension starts, answers, logs, crashes, stands by,
//! dumps and restores. If this fails, check the machine before the vault.

use crate::server::{Mode, Server};

#[test]
fn starts_answers_and_stops() {
    let server = Server::init();
    server.start();
    assert_eq!(server.psql("postgres", "SELECT 1; SELECT 'two'"), "1\ntwo");
    assert_eq!(
        server.connect("postgres", "postgres").query_one("SELECT 3", &[]).unwrap().get::<_, i32>(0),
        3
    );
    assert!(server.try_connect("nowhere", "postgres").is_err());
    server.restart();
    server.poll_until(
        "postgres",
        "SELECT count(*) FROM pg_stat_activity WHERE datname = 'postgres'",
        "1",
        10,
    );
    server.stop(Mode::Fast);
}

#[test]
fn errors_carry_their_sqlstate_and_are_logged() {
    let server = Server::init();
    server.start();
    let before = server.log_len();
    let result = server.psql_result("postgres", "SELECT 1/0; SELECT 'never reached'");
    assert_eq!((result.status, result.stdout.as_str()), (3, ""));
    assert!(result.stderr.contains("22012"), "{}", result.stderr);
    assert!(server.log_since(before).contains("division by zero"));
    assert_eq!(server.writer_pid("postgres"), None);
}

#[test]
fn refused_settings_show_in_the_log() {
    let server = Server::init();
    server.conf("shared_buffers = 'nonsense'");
    let log = server.try_start().unwrap_err();
    assert!(log.contains("shared_buffers"), "{log}");
}

#[test]
fn recovers_from_a_killed_backend() {
    let server = Server::init();
    server.conf("restart_after_crash = on");
    server.start();
    let mut client = server.connect("postgres", "postgres");
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    server.kill_backend(pid, "KILL");
    assert!(client.query_one("SELECT 1", &[]).is_err());
    server.poll_until("postgres", "SELECT 'back'", "back", 30);
}

#[test]
fn standby_follows_and_promotes() {
    let primary = Server::init();
    primary.start();
    primary.psql("postgres", "CREATE TABLE t AS SELECT 1 AS a");
    let standby = primary.backup_to_standby();
    standby.start();
    primary.psql("postgres", "INSERT INTO t VALUES (2)");
    standby.poll_until("postgres", "SELECT count(*) FROM t", "2", 30);
    assert_eq!(standby.psql("postgres", "SELECT pg_is_in_recovery()"), "t");
    primary.stop(Mode::Immediate);
    standby.promote();
    standby.psql("postgres", "INSERT INTO t VALUES (3)");
}

#[test]
fn dumps_and_restores() {
    let server = Server::init();
    server.start();
    server.psql(
        "postgres",
        "CREATE ROLE somebody; CREATE DATABASE a; CREATE DATABASE b; CREATE DATABASE c",
    );
    server.psql("a", "CREATE TABLE t AS SELECT generate_series(1, 100) AS n");
    let archive = server.dump("a", "a.dump", &["-Fc"]);
    server.restore("b", &archive, &["-j", "2"]);
    assert_eq!(server.psql("b", "SELECT sum(n) FROM t"), "5050");
    let plain = server.dump("a", "a.sql", &[]);
    assert_eq!(server.restore_plain("c", &plain).status, 0);
    assert_eq!(server.psql("c", "SELECT sum(n) FROM t"), "5050");
    let roles = std::fs::read_to_string(server.dump_all("roles.sql", &["--roles-only"])).unwrap();
    assert!(roles.contains("CREATE ROLE somebody"));
}
