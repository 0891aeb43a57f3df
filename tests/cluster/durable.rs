//! Durable before answered: the record's commit is on disk when the answer arrives, and survives a
//! crash at that moment. The caller's and the server's settings for asynchronous commits do not
//! matter. Also waits that are given up: they get no answer, and no later call takes their verdict.

use std::collections::HashMap;
use std::fs::read_to_string;
use std::thread::{sleep, spawn};
use std::time::{Duration, Instant};

use postgres::Client;
use uuid::Uuid;

use crate::commands::{program, text};
use crate::crash::{SLOW_COMMITS, assert_trail_holds, under_load};
use crate::server::{Mode, Server};
use crate::writer::{DECRYPT, Vault, decrypt, outcome};

/// Nothing is flushed by itself for ten seconds.
const LAZY: &str = "synchronous_commit = off\nwal_writer_delay = 10s\nwal_writer_flush_after = 0\n";
const ANSWERS: i64 = 60;

/// How far the write-ahead log is on disk, in bytes.
const FLUSHED: &str = "SELECT (pg_current_wal_flush_lsn() - '0/0')::bigint";

#[test]
fn the_records_commit_is_flushed_when_the_answer_arrives() {
    let vault = Vault::with(LAZY);
    vault.server.psql("postgres", "CREATE TABLE witness (n int)");
    let key = vault.key("sk-flushed");
    let start = vault.server.psql("postgres", "SELECT pg_current_wal_insert_lsn()");
    let (mut client, mut watch) = (vault.connect(), vault.connect());
    let (read, look) = (client.prepare(DECRYPT).unwrap(), watch.prepare(FLUSHED).unwrap());
    let write = client
        .prepare("INSERT INTO witness VALUES ($1) RETURNING pg_current_xact_id()::text")
        .unwrap();
    let flushed = |watch: &mut Client| watch.query_one(&look, &[]).unwrap().get::<_, i64>(0);
    let (mut answers, mut witnesses) = (Vec::new(), Vec::new());
    for n in 0..ANSWERS {
        client.query_one(&read, &[&key, &format!("lsn-{n}")]).unwrap();
        answers.push((format!("lsn-{n}"), flushed(&mut watch)));
        let xid: String = client.query_one(&write, &[&(n as i32)]).unwrap().get(0);
        witnesses.push((xid, flushed(&mut watch)));
    }
    let commits = commits_since(&vault.server, &start);
    for (request, flushed) in answers {
        let sql = "SELECT xmin::text FROM watchllm.provider_key_access_logs WHERE request_id = $1";
        let xid: String = watch.query_one(sql, &[&request]).unwrap().get(0);
        assert!(
            commits[&xid] <= flushed,
            "{request}: commit ends at {}, flushed to {flushed}",
            commits[&xid]
        );
    }
    // an ordinary commit is not on disk yet, so the measure can tell the difference
    let lazy = witnesses
        .iter()
        .filter(|(xid, flushed)| commits.get(xid).is_none_or(|end| end > flushed))
        .count();
    assert!(
        lazy as i64 > ANSWERS / 2,
        "only {lazy} asynchronous commits were seen before their flush"
    );
}

/// Where the commit record of each transaction ends, by pg_waldump.
fn commits_since(server: &Server, start: &str) -> HashMap<String, i64> {
    server.psql("postgres", "CHECKPOINT");
    let dumped = program("pg_waldump")
        .arg("-p")
        .arg(server.data_dir().join("pg_wal"))
        .args(["-s", start])
        .output();
    let between = |line: &str, from: &str, to: char| -> Option<String> {
        Some(line.split_once(from)?.1.split(to).next()?.trim().to_string())
    };
    let commit = |line: &str| {
        let total: i64 =
            between(line, "(rec/tot):", ',')?.split_once('/')?.1.trim().parse().ok()?;
        let lsn = between(line, "lsn: ", ',')?;
        let (high, low) = lsn.split_once('/')?;
        let at = i64::from_str_radix(high, 16).ok()? << 32 | i64::from_str_radix(low, 16).ok()?;
        Some((between(line, "tx:", ',')?, at + total))
    };
    let text = text(&dumped.unwrap().stdout);
    text.lines()
        .filter(|line| line.contains("rmgr: Transaction") && line.contains("COMMIT"))
        .filter_map(commit)
        .collect()
}

#[test]
fn the_row_survives_a_crash_in_the_moment_of_the_answer() {
    let vault = Vault::with(&format!("{LAZY}{SLOW_COMMITS}"));
    vault.server.psql("postgres", "CREATE TABLE witness (n int)");
    let key = vault.key("sk-crash");
    let mut answered = Vec::new();
    for round in 0..8 {
        let postmaster = postmaster(&vault.server);
        let mut client = vault.connect();
        for n in 0..10 {
            let request = format!("crash-{round}-{n}");
            assert_eq!(decrypt(&mut client, key, &request).unwrap(), "sk-crash");
            answered.push(request);
        }
        client.execute("INSERT INTO witness VALUES ($1)", &[&round]).unwrap();
        // PostgreSQL's own crash, or a postmaster that vanishes
        vault.server.kill_backend(postmaster, if round % 2 == 0 { "QUIT" } else { "KILL" });
        drop(client);
        start_after_crash(&vault.server);
    }
    for request in &answered {
        assert_eq!(vault.rows(request), 1, "{request}");
    }
    // a crash loses what was not flushed, so the test can fail
    assert!(vault.count("SELECT count(*) FROM witness") < 8, "these crashes lose nothing");
}

fn postmaster(server: &Server) -> i32 {
    let file = read_to_string(server.data_dir().join("postmaster.pid")).unwrap();
    file.lines().next().unwrap().parse().unwrap()
}

/// Old processes may still be leaving, and with them the old shared memory.
fn start_after_crash(server: &Server) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        sleep(Duration::from_millis(200));
        match server.try_start() {
            Ok(()) => return,
            Err(log) => assert!(Instant::now() < deadline, "{log}"),
        }
    }
}

#[test]
fn a_crowd_with_asynchronous_commits_loses_no_row() {
    let vault = Vault::with(&format!("{LAZY}{SLOW_COMMITS}"));
    let told = under_load(&vault, 16, |load| {
        for _ in 0..4 {
            vault.server.stop(Mode::Immediate);
            vault.server.start();
            load.everybody_is_answered_again();
        }
    });
    assert_trail_holds(&vault, &told);
}

/// While the trail is locked: asks, lets `give_up` end the wait, asks again. Answers both
/// SQLSTATEs.
fn give_up_waiting(
    vault: &Vault,
    client: &mut Client,
    key: Uuid,
    round: usize,
    how: &str,
) -> (String, String) {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let (mut admin, how) = (vault.connect(), how.to_string());
    if how == "statement_timeout" {
        client.batch_execute("SET statement_timeout = '300ms'").unwrap();
    }
    let ender = spawn(move || {
        sleep(Duration::from_millis(300));
        match how.as_str() {
            "pg_cancel_backend" => drop(admin.query("SELECT pg_cancel_backend($1)", &[&pid])),
            "pg_terminate_backend" => drop(admin.query("SELECT pg_terminate_backend($1)", &[&pid])),
            _ => (),
        }
    });
    let first = decrypt(client, key, &format!("given-up-{round}")).unwrap_err();
    ender.join().unwrap();
    drop(client.batch_execute("RESET statement_timeout"));
    if client.is_closed() {
        *client = vault.connect();
    }
    (first, decrypt(client, key, &format!("locked-{round}")).unwrap_err())
}

#[test]
fn a_wait_that_is_given_up_answers_nothing_and_harms_no_later_one() {
    let vault = Vault::with("watchllm_keys.audit_timeout = '30s'");
    let (key, mut client) = (vault.key("sk-patience"), vault.connect());
    let ways = ["statement_timeout", "pg_cancel_backend", "pg_terminate_backend"];
    for (round, how) in ways.iter().cycle().take(9).enumerate() {
        let mut holder = vault.lock_trail();
        let (first, second) = give_up_waiting(&vault, &mut client, key, round, how);
        // the writer waits at most a second for a lock; on a slow machine that may end first
        let expected =
            if *how == "pg_terminate_backend" { ["57P01", "closed"] } else { ["57014"; 2] };
        assert!(expected.contains(&first.as_str()) || first == "53000", "{how}: {first}");
        assert_eq!(second, "53000", "{how}: nothing can be recorded");
        holder.batch_execute("ROLLBACK").unwrap();
        assert_eq!(decrypt(&mut client, key, &format!("served-{round}")).unwrap(), "sk-patience");
        assert_eq!(
            (vault.rows(&format!("locked-{round}")), vault.rows(&format!("served-{round}"))),
            (0, 1)
        );
        assert!(vault.rows(&format!("given-up-{round}")) <= 1);
    }
}

#[test]
fn a_change_cancelled_in_its_commit_is_undone_and_never_shown_as_committed() {
    let vault = Vault::with("watchllm_keys.audit_timeout = '30s'");
    let (key, mut client) = (vault.key("sk-unchanged"), vault.connect());
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let mut cancelled = 0;
    for round in 0..6 {
        let mut holder = vault.lock_trail();
        let change = "SELECT watchllm.rotate_provider_key($1, 'sk-changed', request_id => $2)";
        client.batch_execute("BEGIN").unwrap();
        client.query_one(change, &[&key, &format!("cancelled-{round}")]).unwrap();
        let mut admin = vault.connect();
        let canceller = spawn(move || {
            sleep(Duration::from_millis(200));
            admin.query("SELECT pg_cancel_backend($1)", &[&pid]).unwrap();
        });
        let outcome = outcome(&mut client, "COMMIT");
        canceller.join().unwrap();
        assert!(outcome == "57014" || outcome == "53000", "{outcome}");
        cancelled += usize::from(outcome == "57014");
        // the queued event may be written now: it says "about to commit", but the change is not
        // there
        holder.batch_execute("ROLLBACK").unwrap();
        assert_eq!(decrypt(&mut client, key, "still").unwrap(), "sk-unchanged");
    }
    assert!(cancelled > 0, "the writer was always first to give up");
    let shown = format!(
        "SELECT count(*) FROM watchllm.key_access_history('{key}', 100) WHERE access_type = 'rotate'"
    );
    let rows = vault.count(&shown);
    assert_eq!(vault.count(&format!("{shown} AND NOT committed")), rows);
    eprintln!("{cancelled} commits were cancelled, {rows} of them left a row");
}
