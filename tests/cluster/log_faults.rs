//! Faults that kill a server if its log hook does too much. A message from within the hook, in a
//! critical section, in a postmaster or logger without shared memory. Out of memory, PANIC, a
//! crash, any bytes, a huge statement. The server survives each, or restarts as it would without
//! us, and no key appears. `log_faults.c` causes the faults.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::commands::{command, give_to_runner, run};
use crate::keys::{code, one};
use crate::log_channels::{canary, connect, log_file, secret, switch};
use crate::server::{Mode, Server};

/// The library of faults, compiled for the PostgreSQL of the private tree.
fn library(server: &Server) -> PathBuf {
    let pg_config = std::env::var("PG_CONFIG").expect("PG_CONFIG, set by `make test`");
    let headers = run(Command::new(pg_config).arg("--includedir-server"));
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/log_faults.c");
    let library = server.data_dir().with_file_name("log_faults.so");
    run(Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-w", "-I", headers.trim(), "-o"])
        .arg(&library)
        .arg(source));
    give_to_runner(&library);
    library
}

/// A vault with the library of faults, which is loaded before or after ours.
pub(crate) fn with_faults(before: bool, conf: &str) -> Server {
    let server = Server::init();
    let library = library(&server);
    let library = library.display();
    server.preload_vault();
    let libraries = if before {
        format!("{library}, watchllm_keys")
    } else {
        format!("watchllm_keys, {library}")
    };
    server.conf(&format!("shared_preload_libraries = '{libraries}'\n{conf}"));
    server.start();
    let functions = format!(
        "CREATE EXTENSION watchllm_keys; SELECT watchllm.install();
        CREATE FUNCTION critical(text) RETURNS void STRICT LANGUAGE c AS '{library}';
        CREATE FUNCTION raise_at(int, text) RETURNS void STRICT LANGUAGE c AS '{library}';
        CREATE FUNCTION odd_bytes(text) RETURNS void STRICT LANGUAGE c AS '{library}';"
    );
    server.psql("postgres", &functions);
    server
}

pub(crate) fn crashed(server: &Server) -> bool {
    let log = server.log() + &log_file_or_nothing(server);
    log.contains("terminated by signal")
        || log.contains("terminated any other active server processes")
}

fn log_file_or_nothing(server: &Server) -> String {
    if server.data_dir().join("log").exists() { log_file(server, ".log") } else { String::new() }
}

#[test]
fn a_message_from_within_another_hook_is_masked_and_ends_nothing() {
    for before in [true, false] {
        let key = canary("R01");
        let server = with_faults(before, &format!("log_faults.last_words = '{key}'"));
        let c = &mut connect(&server);
        let inner = canary("R02");
        let warn = format!("DO $$ BEGIN RAISE LOG 'raise warning {inner}'; END $$");
        let fail = format!("DO $$ BEGIN RAISE LOG 'raise error {inner}'; END $$");
        for _ in 0..3 {
            assert_eq!(code(c, &warn), "00000");
            assert_eq!(code(c, &fail), "XX000");
        }
        assert_eq!(code(c, &format!("SELECT '{inner}'::int")), "22P02");
        let log = server.log();
        assert!(log.contains("within the hook sk-proj-"), "the fault happens");
        for key in [&key, &inner] {
            assert!(!log.contains(secret(key)), "{log}");
        }
        assert!(!crashed(&server));
        server.stop(Mode::Fast);
    }
}

#[test]
fn a_postmaster_without_shared_memory_logs_its_last_words() {
    for before in [true, false] {
        for mode in [Mode::Fast, Mode::Smart, Mode::Immediate] {
            let key = canary("S01");
            let server = with_faults(
                before,
                &format!("log_faults.last_words = '{key}'\nlog_min_messages = debug3"),
            );
            server.stop(mode);
            let log = server.log();
            assert!(log.contains("last words sk-proj-"), "{mode:?}: the fault happens");
            assert!(log.contains("database system is shut down"), "{mode:?}");
            assert!(!log.contains(secret(&key)), "{mode:?}");
            assert!(server.try_start().is_ok(), "{mode:?}");
        }
    }
}

#[test]
fn a_logger_without_shared_memory_may_name_a_key() {
    let key = canary("S02");
    let conf = format!(
        "logging_collector = on\nlog_directory = 'log'\nlog_filename = '{key}-%s.log'\nlog_min_messages = debug2"
    );
    let server = Server::with_vault_and(&conf);
    let directory = server.data_dir().join("log");
    // the directory is gone, so the logger cannot rotate and reports the file's name
    fs::rename(&directory, server.data_dir().join("log.away")).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(1100));
    one(&mut connect(&server), "SELECT pg_rotate_logfile()");
    let away = server.data_dir().join("log.away");
    let text = || -> String {
        let files =
            fs::read_dir(&away).unwrap().map(|file| fs::read(file.unwrap().path()).unwrap());
        files.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect::<String>()
            + &server.log()
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while !text().contains("could not open log file") {
        assert!(std::time::Instant::now() < deadline, "the logger says nothing:\n{}", text());
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    fs::rename(&away, &directory).unwrap();
    let log = log_file(&server, ".log") + &server.log();
    assert!(!log.contains(secret(&key)), "{log}");
    assert!(!crashed(&server));
    server.stop(Mode::Fast);
}

#[test]
fn a_message_from_a_critical_section_is_masked() {
    let server = with_faults(true, "");
    let (c, key) = (&mut connect(&server), canary("S03"));
    c.query("SELECT critical($1)", &[&key]).unwrap();
    let log = server.log();
    assert!(log.contains("critical sk-proj-") && !log.contains(secret(&key)), "{log}");
    assert!(!crashed(&server));
}

#[test]
fn fatal_ends_a_session_and_panic_restarts_the_server_without_a_key() {
    let server = with_faults(true, "restart_after_crash = on");
    for (level, word) in [(1, "FATAL"), (2, "PANIC")] {
        let key = canary("S04");
        drop(connect(&server).query("SELECT raise_at($1, $2)", &[&level, &key]));
        server.poll_until("postgres", "SELECT 1", "1", 30);
        let log = server.log();
        assert!(log.contains(&format!("{word}:  end sk-proj-")), "{log}");
        assert!(!log.contains(secret(&key)), "{word}");
    }
    assert!(crashed(&server), "PANIC is a PANIC");
    server.stop(Mode::Fast);
}

#[test]
fn the_statement_of_a_crashed_backend_is_masked_by_the_postmaster() {
    let server = with_faults(true, "restart_after_crash = on");
    for (state, expected) in [("off", true), ("on", false)] {
        switch(&server, state);
        let key = canary("L29");
        let c = &mut connect(&server);
        let pid: i32 = one(c, "SELECT pg_backend_pid()").parse().unwrap();
        // a statement that no hook has seen waits for its lock while it is analyzed
        let holder = &mut connect(&server);
        one(holder, "CREATE TABLE IF NOT EXISTS held (i int); BEGIN; LOCK held");
        std::thread::scope(|scope| {
            let runner = scope.spawn(|| drop(c.simple_query(&format!("SELECT '{key}' FROM held"))));
            std::thread::sleep(std::time::Duration::from_millis(300));
            server.kill_backend(pid, "SEGV");
            runner.join().unwrap();
        });
        server.poll_until("postgres", "SELECT 1", "1", 30);
        let log = server.log();
        assert!(log.contains("Failed process was running: SELECT 'sk-proj-"), "{log}");
        assert_eq!(log.contains(secret(&key)), expected, "{state}");
    }
    server.stop(Mode::Fast);
}

#[test]
fn out_of_memory_shows_no_key_and_ends_one_statement() {
    let server = with_faults(true, "");
    for (state, expected) in [("off", true), ("on", false)] {
        switch(&server, state);
        let (c, key) = (&mut connect(&server), canary("L24"));
        let pid = one(c, "SELECT pg_backend_pid()");
        c.simple_query(&format!("PREPARE p AS SELECT length('{key}')")).unwrap();
        let held = c.prepare(&format!("SELECT length('{key}') + 1")).unwrap();
        run(command("prlimit").args(["--pid", &pid, "--as=300000000"]));
        for _ in 0..3 {
            assert_eq!(code(c, &format!("SELECT length(repeat('{key}', 10000000))")), "53200");
            assert_eq!(code(c, &format!("SELECT '{key}'::int")), "22P02");
        }
        assert_eq!(c.query_one(&held, &[]).unwrap().get::<_, i32>(0), key.len() as i32 + 1);
        let log = server.log();
        assert!(log.contains("CachedPlanSource"), "the memory contexts are printed");
        let line = log.lines().find(|line| line.contains(secret(&key)));
        assert_eq!(line.is_some(), expected, "{state}: {line:?}");
        assert!(!crashed(&server));
    }
}

#[test]
fn no_memory_for_a_masked_copy_hides_the_statement() {
    let server = with_faults(true, "");
    let (c, key) = (&mut connect(&server), canary("S05"));
    let pid = one(c, "SELECT pg_backend_pid()");
    // a syntax error, so that the text is not masked yet; the text is too long for the memory that
    // is left
    let size: u64 = fs::read_to_string(format!("/proc/{pid}/statm"))
        .unwrap()
        .split(' ')
        .next()
        .unwrap()
        .parse()
        .unwrap();
    run(command("prlimit").args(["--pid", &pid, &format!("--as={}", size * 4096 + 60_000_000)]));
    let long = format!("SELEC '{key}' {}", "x".repeat(20_000_000));
    let answer = code(c, &long);
    assert!(["42601", "53200"].contains(&answer.as_str()), "{answer}");
    assert_eq!(one(c, "SELECT 1"), "1");
    assert!(!server.log().contains(secret(&key)));
    assert!(!crashed(&server));
}

#[test]
fn any_bytes_and_any_encoding_pass() {
    let server = with_faults(true, "");
    let (c, key) = (&mut connect(&server), canary("S06"));
    c.query("SELECT odd_bytes($1)", &[&key]).unwrap();
    c.query("SELECT odd_bytes($1)", &[&format!("日本{key}語🔑{key}")]).unwrap();
    for encoding in ["LATIN1", "SJIS", "EUC_KR", "GB18030", "SQL_ASCII"] {
        let psql = format!("SET client_encoding = '{encoding}'; SELECT '{key}'::int;");
        assert!(server.psql_result("postgres", &psql).status != 0);
    }
    let log = String::from_utf8_lossy(&fs::read(server.data_dir().with_file_name("log")).unwrap())
        .into_owned();
    assert!(log.contains("sk-proj-*"), "{log}");
    assert!(!log.contains(secret(&key)));
    assert!(!crashed(&server));
}

#[test]
fn a_statement_of_many_megabytes_is_masked_to_its_end() {
    let server = with_faults(true, "log_statement = all\nlog_min_duration_statement = 0");
    let (c, key) = (&mut connect(&server), canary("S07"));
    let filler = "risk-adjusted sk- eyJ AIza hf_ ".repeat(40_000);
    let long = format!("SELECT length('{filler}{key}'), length('{key}')");
    assert_eq!(one(c, &long), format!("{}|{}", filler.len() + key.len(), key.len()));
    assert_eq!(code(c, &format!("SELEC '{filler}{key}'")), "42601");
    let log = server.log();
    assert!(log.len() > 2 * filler.len(), "the statements are logged");
    assert!(!log.contains(secret(&key)));
    assert_eq!(one(c, "SELECT 1"), "1");
}
