//! Against the watch itself: a writer that restarts while it cannot read whom it must refuse, settings and blocks that meet
//! a lock, refused attempts that raise their caller's own limit, names that cannot be named, floods of findings.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use crate::keys::{code, decrypt, one, rows};
use crate::roles::login;
use crate::writer::Vault;

fn appears(c: &mut Client, sql: &str, expected: &str) {
    let began = Instant::now();
    while one(c, sql) != expected {
        assert!(began.elapsed() < Duration::from_secs(30), "{sql}: {} instead of {expected}", one(c, sql));
        thread::sleep(Duration::from_millis(20));
    }
}

fn end_writer(vault: &Vault, signal: &str) {
    let pid = vault.server.writer_pid("postgres").unwrap();
    vault.server.kill_backend(pid, signal);
}

/// A session that holds a lock until it rolls back.
fn holding(vault: &Vault, table: &str, mode: &str) -> Client {
    let mut holder = vault.connect();
    holder.batch_execute(&format!("BEGIN; LOCK TABLE watchllm.{table} IN {mode} MODE")).unwrap();
    holder
}

fn keys(vault: &Vault, number: usize) -> Vec<String> {
    (0..number).map(|i| vault.key(&format!("sk-plainly-fake-{i}")).to_string()).collect()
}

#[test]
fn a_writer_that_cannot_read_who_is_blocked_serves_nobody_until_it_can() {
    let vault = Vault::with(
        "watchllm_keys.anomaly_action = 'mass_key_reading=block'\nwatchllm_keys.max_distinct_keys_per_minute = 3",
    );
    let c = &mut vault.connect();
    let ids = keys(&vault, 6);
    let thief = login(c, "watchllm_service");
    let session = &mut vault.server.connect("postgres", &thief);
    let codes: Vec<String> = ids.iter().map(|id| code(session, &decrypt(id))).collect();
    assert_eq!(codes, ["00000", "00000", "00000", "42000", "42000", "42000"]);
    appears(c, "SELECT count(*) FROM watchllm.blocked_callers", "1");
    let mut holder = holding(&vault, "blocked_callers", "ACCESS EXCLUSIVE");
    end_writer(&vault, "TERM");
    for _ in 0..3 {
        assert_ne!(code(session, &decrypt(&ids[0])), "00000");
    }
    holder.batch_execute("ROLLBACK").unwrap();
    vault.server.poll_until("postgres", &format!("SELECT length(({})) > 0", decrypt(&ids[0])), "t", 30);
    assert_eq!(code(session, &decrypt(&ids[0])), "42000");
}

#[test]
fn a_limit_whose_reading_met_a_lock_is_read_later() {
    let vault = Vault::with("watchllm_keys.anomaly_action = 'block'");
    let c = &mut vault.connect();
    let id = vault.key("sk-plainly-fake").to_string();
    assert_eq!(code(c, &decrypt(&id)), "00000");
    let mut holder = vault.connect();
    c.batch_execute(&format!("BEGIN; SELECT watchllm.set_setting('max_accesses_per_minute', '3', NULL, '{id}')"))
        .unwrap();
    let waiting = thread::spawn(move || {
        holder.batch_execute("BEGIN; LOCK TABLE watchllm.settings IN ACCESS EXCLUSIVE MODE").unwrap();
        holder
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE relation = 'watchllm.settings'::regclass AND NOT granted";
    vault.server.poll_until("postgres", waits, "1", 30);
    c.batch_execute("COMMIT").unwrap();
    let mut holder = waiting.join().unwrap();
    let began = Instant::now();
    while !vault.server.log().contains("limits are read later") {
        assert!(began.elapsed() < Duration::from_secs(30));
        thread::sleep(Duration::from_millis(50));
    }
    holder.batch_execute("ROLLBACK").unwrap();
    thread::sleep(Duration::from_millis(2500));
    let codes: Vec<String> = (0..4).map(|_| code(c, &decrypt(&id))).collect();
    assert_eq!(codes.last().unwrap(), "42000", "{codes:?}");
}

#[test]
fn who_is_let_in_is_not_shut_out_by_the_incident_that_was_still_to_be_written() {
    let vault = Vault::with("watchllm_keys.anomaly_action = 'block'\nwatchllm_keys.max_accesses_per_minute = 3");
    let c = &mut vault.connect();
    let id = vault.key("sk-plainly-fake").to_string();
    let mut holder = holding(&vault, "security_incidents", "SHARE");
    let codes: Vec<String> = (0..5).map(|_| code(c, &decrypt(&id))).collect();
    assert_eq!(codes, ["00000", "00000", "00000", "42000", "42000"]);
    one(c, &format!("SELECT watchllm.unblock_provider_key('{id}')"));
    assert_eq!(code(c, &decrypt(&id)), "00000");
    holder.batch_execute("ROLLBACK").unwrap();
    appears(c, &format!("SELECT count(*) FROM watchllm.security_incidents WHERE provider_key_id = '{id}'"), "1");
    thread::sleep(Duration::from_millis(1500));
    assert_eq!(code(c, &decrypt(&id)), "00000");
}

#[test]
fn what_was_refused_raises_nobodys_own_limit() {
    let vault = Vault::with(
        "watchllm_keys.anomaly_action = 'mass_key_reading=block'\nwatchllm_keys.max_distinct_keys_per_minute = 3",
    );
    let c = &mut vault.connect();
    let ids = keys(&vault, 20);
    let thief = login(c, "watchllm_service");
    let session = &mut vault.server.connect("postgres", &thief);
    assert_eq!(ids.iter().filter(|id| code(session, &decrypt(id)) == "00000").count(), 3);
    appears(c, "SELECT count(*) FROM watchllm.blocked_callers", "1");
    thread::sleep(Duration::from_millis(2500));
    // Tomorrow three times as many are let be.
    let peak = format!("SELECT distinct_keys FROM watchllm.caller_peaks WHERE subject = '{thief}'");
    assert_eq!(rows(c, &peak), ["3"]);
}

#[test]
fn a_block_outlives_a_crash_before_the_table_says_so() {
    let vault = Vault::with("");
    let c = &mut vault.connect();
    let (id, other) = (vault.key("sk-plainly-fake").to_string(), vault.key("sk-plainly-fake-2").to_string());
    let _holder = holding(&vault, "provider_key_usage", "SHARE");
    one(c, &format!("SELECT watchllm.block_provider_key('{id}')"));
    one(c, &format!("SELECT watchllm.block_provider_key('{other}')"));
    one(c, &format!("SELECT watchllm.unblock_provider_key('{other}')"));
    assert_eq!(code(c, &decrypt(&id)), "42000");
    end_writer(&vault, "KILL");
    vault.server.poll_until("postgres", "SELECT 1", "1", 30);
    let c = &mut vault.connect();
    assert_eq!(code(c, &decrypt(&id)), "42000");
    let blocked = "SELECT provider_key_id FROM watchllm.provider_key_usage WHERE blocked_at IS NOT NULL";
    appears(c, blocked, &id);
    assert_eq!(code(c, &decrypt(&other)), "00000");
}

#[test]
fn a_thousand_incidents_that_cannot_be_written_keep_nobody_waiting() {
    let vault = Vault::with("watchllm_keys.max_accesses_per_minute = 1\nwatchllm_keys.audit_timeout = '3s'");
    let c = &mut vault.connect();
    const KEYS: usize = 1_300;
    let sql = format!(
        "SELECT watchllm.store_provider_key('{}', 'openai', 'sk-plainly-fake-' || i) FROM generate_series(1, {KEYS}) i",
        vault.project
    );
    let ids = rows(c, &sql);
    let mut holder = holding(&vault, "security_incidents", "SHARE");
    c.batch_execute("SET work_mem = '64MB'").unwrap();
    for part in ids.chunks(650).chain(ids.chunks(650)) {
        let many =
            format!("SELECT count(*) FROM watchllm.decrypt_provider_keys(ARRAY['{}']::uuid[])", part.join("','"));
        assert_eq!(code(c, &many), "00000");
    }
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(12) {
        assert_eq!(code(c, &decrypt(&ids[0])), "00000");
    }
    holder.batch_execute("ROLLBACK").unwrap();
    appears(
        c,
        "SELECT count(*) FROM watchllm.security_incidents WHERE type = 'rapid_automated_access'",
        &KEYS.to_string(),
    );
}

#[test]
fn a_caller_of_any_name_can_be_named_to_let_it_in() {
    let vault = Vault::with(
        "watchllm_keys.anomaly_action = 'mass_key_reading=block'\nwatchllm_keys.max_distinct_keys_per_minute = 1",
    );
    let c = &mut vault.connect();
    let ids = keys(&vault, 2);
    for name in [
        "r'quote",
        "r\"double",
        "r\nline",
        "r\\back",
        "r;--",
        "größe-日本-🔑",
        "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789",
        &"é".repeat(31),
    ] {
        c.batch_execute(&format!(
            "CREATE ROLE \"{0}\" LOGIN; GRANT watchllm_service TO \"{0}\"",
            name.replace('"', "\"\"")
        ))
        .unwrap();
        let session = &mut vault.server.connect("postgres", name);
        assert_eq!(code(session, &decrypt(&ids[0])), "00000", "{name}");
        assert_eq!(code(session, &decrypt(&ids[1])), "42000", "{name}");
        appears(c, "SELECT count(*) FROM watchllm.blocked_callers", "1");
        assert_eq!(
            one(c, "SELECT watchllm.unblock_caller(kind, subject, 'x') IS NOT NULL FROM watchllm.blocked_callers"),
            "t"
        );
        appears(c, "SELECT count(*) FROM watchllm.blocked_callers", "0");
        assert_eq!(code(session, &decrypt(&ids[1])), "00000", "{name}");
    }
}
