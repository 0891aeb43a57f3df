//! Attacks on the watch itself. A writer restarts and cannot read whom it must refuse; settings and
//! blocks meet a lock; refused attempts raise their caller's own limit. Also names that cannot be
//! shown, and floods of findings.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use crate::keys::{code, decrypt, one, rows};
use crate::roles::login;
use crate::writer::Vault;

fn appears(c: &mut Client, sql: &str, expected: &str) {
    let began = Instant::now();
    while one(c, sql) != expected {
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{sql}: {} instead of {expected}",
            one(c, sql)
        );
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
    vault.server.poll_until(
        "postgres",
        &format!("SELECT length(({})) > 0", decrypt(&ids[0])),
        "t",
        30,
    );
    assert_eq!(code(session, &decrypt(&ids[0])), "42000");
}

#[test]
fn a_limit_whose_reading_met_a_lock_is_read_later() {
    let vault = Vault::with("watchllm_keys.anomaly_action = 'block'");
    let c = &mut vault.connect();
    let id = vault.key("sk-plainly-fake").to_string();
    assert_eq!(code(c, &decrypt(&id)), "00000");
    let mut holder = vault.connect();
    c.batch_execute(&format!(
        "BEGIN; SELECT watchllm.set_setting('max_accesses_per_minute', '3', NULL, '{id}')"
    ))
    .unwrap();
    let waiting = thread::spawn(move || {
        holder
            .batch_execute("BEGIN; LOCK TABLE watchllm.settings IN ACCESS EXCLUSIVE MODE")
            .unwrap();
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
    let vault = Vault::with(
        "watchllm_keys.anomaly_action = 'block'\nwatchllm_keys.max_accesses_per_minute = 3",
    );
    let c = &mut vault.connect();
    let id = vault.key("sk-plainly-fake").to_string();
    let mut holder = holding(&vault, "security_incidents", "SHARE");
    let codes: Vec<String> = (0..5).map(|_| code(c, &decrypt(&id))).collect();
    assert_eq!(codes, ["00000", "00000", "00000", "42000", "42000"]);
    one(c, &format!("SELECT watchllm.unblock_provider_key('{id}')"));
    assert_eq!(code(c, &decrypt(&id)), "00000");
    holder.batch_execute("ROLLBACK").unwrap();
    appears(
        c,
        &format!("SELECT count(*) FROM watchllm.security_incidents WHERE provider_key_id = '{id}'"),
        "1",
    );
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
    // Tomorrow three times as many are allowed.
    let peak = format!("SELECT distinct_keys FROM watchllm.caller_peaks WHERE subject = '{thief}'");
    assert_eq!(rows(c, &peak), ["3"]);
}

#[test]
fn a_block_outlives_a_crash_before_the_table_says_so() {
    let vault = Vault::with("");
    let c = &mut vault.connect();
    let (id, other) =
        (vault.key("sk-plainly-fake").to_string(), vault.key("sk-plainly-fake-2").to_string());
    let _holder = holding(&vault, "provider_key_usage", "SHARE");
    one(c, &format!("SELECT watchllm.block_provider_key('{id}')"));
    one(c, &format!("SELECT watchllm.block_provider_key('{other}')"));
    one(c, &format!("SELECT watchllm.unblock_provider_key('{other}')"));
    assert_eq!(code(c, &decrypt(&id)), "42000");
    end_writer(&vault, "KILL");
    vault.server.poll_until("postgres", "SELECT 1", "1", 30);
    let c = &mut vault.connect();
    assert_eq!(code(c, &decrypt(&id)), "42000");
    let blocked =
        "SELECT provider_key_id FROM watchllm.provider_key_usage WHERE blocked_at IS NOT NULL";
    appears(c, blocked, &id);
    assert_eq!(code(c, &decrypt(&other)), "00000");
}

#[test]
fn a_thousand_incidents_that_cannot_be_written_keep_nobody_waiting() {
    let vault = Vault::with(
        "watchllm_keys.max_accesses_per_minute = 1\nwatchllm_keys.audit_timeout = '3s'
watchllm_keys.incident_budget = 2000",
    );
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
        let many = format!(
            "SELECT count(*) FROM watchllm.decrypt_provider_keys(ARRAY['{}']::uuid[])",
            part.join("','")
        );
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
            one(
                c,
                "SELECT watchllm.unblock_caller(kind, subject, 'x') IS NOT NULL FROM watchllm.blocked_callers"
            ),
            "t"
        );
        appears(c, "SELECT count(*) FROM watchllm.blocked_callers", "0");
        assert_eq!(code(session, &decrypt(&ids[1])), "00000", "{name}");
    }
}

#[test]
fn a_row_that_makes_no_sense_keeps_no_writer_from_starting() {
    let vault = Vault::with("watchllm_keys.max_distinct_keys_per_minute = 3");
    let c = &mut vault.connect();
    let ids = keys(&vault, 5);
    let odd = [
        "INSERT INTO watchllm.caller_peaks VALUES ('role', 'a', 'infinity', 7), ('role', 'b', '5874897-12-31', 2147483647),
            ('role', 'postgres', now()::date - 1, 1)",
        "INSERT INTO watchllm.security_incidents (id, type, severity, details, detected_at)
            SELECT gen_random_uuid(), 'mass_key_reading', 'low', d::jsonb, t::timestamptz
            FROM unnest(ARRAY['{}', '{\"kind\":\"role\"}', '{\"subject\":[]}', '{\"kind\":7,\"subject\":null}']) d,
                unnest(ARRAY['now', 'infinity', '9999-12-31']) t",
        "INSERT INTO watchllm.settings (name, value) VALUES ('max_accesses_per_minute', '-1'), ('stale_after', 'soon'),
            ('max_accesses_per_hour', '99999999999999999999'), ('anomaly_action', 'explode'), ('nonsense', '')",
        "INSERT INTO watchllm.provider_key_usage (project_id, provider_key_id, blocked_at, last_used_at)
            SELECT project_id, id, NULL, i FROM watchllm.provider_key_records, unnest(ARRAY['-infinity'::timestamptz]) i
            ON CONFLICT (project_id, provider_key_id) DO UPDATE SET last_used_at = EXCLUDED.last_used_at",
        "INSERT INTO watchllm.provider_key_usage (project_id, provider_key_id, blocked_at)
            VALUES (gen_random_uuid(), gen_random_uuid(), 'infinity')",
    ];
    odd.iter()
        .for_each(|sql| c.batch_execute(sql).unwrap_or_else(|error| panic!("{error}: {sql}")));
    end_writer(&vault, "TERM");
    thread::sleep(Duration::from_millis(500));
    for id in &ids {
        assert_eq!(code(c, &decrypt(id)), "00000");
    }
    appears(
        c,
        "SELECT count(*) FROM watchllm.security_incidents WHERE details->>'subject' = 'postgres'",
        "1",
    );
    assert!(!vault.server.log().contains("panicked"));
    assert_eq!(vault.server.log().matches("watchllm_keys writer: cannot").count(), 0);
}

#[test]
fn a_subject_of_any_form_is_one_caller_and_can_be_let_in() {
    let vault = Vault::with(
        "watchllm_keys.anomaly_action = 'mass_key_reading=block'\nwatchllm_keys.max_distinct_keys_per_minute = 1
watchllm_keys.trusted_claim_roles = 'gateway'",
    );
    let c = &mut vault.connect();
    let ids = keys(&vault, 40);
    c.batch_execute("CREATE ROLE gateway LOGIN; GRANT watchllm_service TO gateway").unwrap();
    // The gateway stands for everybody, and has been busy for a week.
    c.batch_execute(
        "INSERT INTO watchllm.caller_peaks VALUES ('role', 'gateway', (now() AT TIME ZONE 'UTC')::date - 1, 9999)",
    )
    .unwrap();
    end_writer(&vault, "TERM");
    let session = &mut vault.server.connect("postgres", "gateway");
    let subjects = [
        "o'brien",
        "a\"b",
        "line\nfeed",
        "tab\tbell\u{7}",
        "\u{202e}evil",
        "a; 500 x role postgres",
        "sk-proj-abcdefghijklmnopqrstuvwxyz0123456789",
        &"é".repeat(100),
        &"x".repeat(300),
        " ",
        "🔑",
    ];
    for (subject, pair) in subjects.iter().zip(ids.chunks(2)) {
        let claims = serde_json::json!({ "sub": subject }).to_string();
        session.execute("SELECT set_config('request.jwt.claims', $1, false)", &[&claims]).unwrap();
        assert_eq!(code(session, &decrypt(&pair[0])), "00000", "{subject:?}");
        assert_eq!(code(session, &decrypt(&pair[1])), "42000", "{subject:?}");
        appears(c, "SELECT count(*) FROM watchllm.blocked_callers", "1");
        let let_in = "SELECT kind, watchllm.unblock_caller(kind, subject, 'x') IS NOT NULL FROM watchllm.blocked_callers";
        assert_eq!(rows(c, let_in), ["subject|t"], "{subject:?}");
        appears(c, "SELECT count(*) FROM watchllm.blocked_callers", "0");
        assert_eq!(code(session, &decrypt(&pair[1])), "00000", "{subject:?}");
    }
    assert!(!vault.server.log().contains("abcdefghijklmnop"));
    assert_eq!(
        one(
            c,
            "SELECT count(*) FROM watchllm.security_incidents WHERE details::text LIKE '%abcdefghijklmnop%'"
        ),
        "0"
    );
}

#[test]
fn a_tenant_learns_nothing_of_the_limits_of_others() {
    let vault = Vault::with("");
    let c = &mut vault.connect();
    let foreign = one(c, "SELECT watchllm.create_project('another')");
    let theirs = one(
        c,
        &format!("SELECT watchllm.store_provider_key('{foreign}', 'openai', 'sk-plainly-fake')"),
    );
    let mine = vault.key("sk-plainly-fake-2").to_string();
    one(c, &format!("SELECT watchllm.set_setting('max_accesses_per_minute', '7', '{foreign}')"));
    one(
        c,
        &format!("SELECT watchllm.set_setting('max_accesses_per_minute', '8', NULL, '{theirs}')"),
    );
    one(c, &format!("SELECT watchllm.set_setting('max_accesses_per_minute', '9', NULL, '{mine}')"));
    let tenant = login(c, "watchllm_tenant");
    one(
        c,
        &format!(
            "SELECT watchllm.add_project_member('{}', role_name => '{tenant}')",
            vault.project
        ),
    );
    let t = &mut vault.server.connect("postgres", &tenant);
    let asks = |t: &mut Client, scope: &str| {
        one(t, &format!("SELECT watchllm.effective_setting('max_accesses_per_minute'{scope})"))
    };
    assert_eq!(asks(t, &format!(", '{foreign}'")), "100");
    assert_eq!(asks(t, &format!(", '{foreign}', '{theirs}'")), "100");
    assert_eq!(asks(t, &format!(", NULL, '{theirs}'")), "100");
    assert_eq!(asks(t, &format!(", '{}', '{theirs}'", vault.project)), "100");
    assert_eq!(asks(t, &format!(", '{}', '{mine}'", vault.project)), "9");
    let set =
        format!("SELECT watchllm.set_setting('max_accesses_per_minute', '1', '{}')", vault.project);
    assert_eq!(code(t, &set), "42501");
    assert_eq!(code(t, "SELECT value FROM watchllm.settings"), "42501");
    assert_eq!(code(t, &format!("SELECT watchllm.unblock_provider_key('{mine}')")), "42501");
    assert_eq!(code(t, &format!("SELECT watchllm.block_provider_key('{mine}')")), "42501");
}
