//! Theft while it happens: too many accesses of a key, a vault that is emptied, failures,
//! strangers, a key that wakes. Several clients make real accesses through the functions. Each
//! theft is found once, in time, and stopped if the limits say so. A killed writer forgets nothing.
//! Also who may read the findings.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use uuid::Uuid;

use crate::incidents::heard;
use crate::keys::{code, decrypt, last_event, one, rows};
use crate::roles::login;
use crate::server::Server;
use crate::writer::Vault;

/// Incidents of a type about a key, with what was counted.
fn incidents(c: &mut Client, kind: &str, id: &str) -> Vec<String> {
    rows(
        c,
        &format!(
            "SELECT severity, details->>'observed', details->>'limit', details->>'blocked'
            FROM watchllm.security_incidents WHERE type = '{kind}' AND provider_key_id = '{id}' ORDER BY detected_at"
        ),
    )
}

fn of_callers(c: &mut Client, subject: &str) -> Vec<String> {
    rows(
        c,
        &format!(
            "SELECT type, severity, details->>'kind', details->>'observed', details->>'blocked'
            FROM watchllm.security_incidents WHERE details->>'subject' = '{subject}' ORDER BY detected_at"
        ),
    )
}

/// Waits until a query answers `expected`. Answers how long it took.
fn appears(c: &mut Client, sql: &str, expected: &str) -> Duration {
    let began = Instant::now();
    while one(c, sql) != expected {
        assert!(
            began.elapsed() < Duration::from_secs(20),
            "{sql}: {} instead of {expected}",
            one(c, sql)
        );
        thread::sleep(Duration::from_millis(10));
    }
    began.elapsed()
}

fn count(kind: &str, id: &str) -> String {
    format!(
        "SELECT count(*) FROM watchllm.security_incidents WHERE type = '{kind}' AND provider_key_id = '{id}'"
    )
}

/// Opens a key so often, from several sessions at once. Answers how many opens succeeded.
fn hammer(vault: &Vault, user: &str, id: &str, times: usize, clients: usize) -> usize {
    let opened = AtomicUsize::new(0);
    thread::scope(|scope| {
        for client in 0..clients {
            let (opened, mut session) = (&opened, vault.server.connect("postgres", user));
            let mine = times / clients + usize::from(client < times % clients);
            scope.spawn(move || {
                for _ in 0..mine {
                    opened.fetch_add(
                        usize::from(code(&mut session, &decrypt(id)) == "00000"),
                        Relaxed,
                    );
                }
            });
        }
    });
    opened.into_inner()
}

/// Waits until the writer has written its findings: until its second transaction has run.
fn settle() {
    thread::sleep(Duration::from_millis(1500));
}

#[test]
fn a_hundred_a_minute_are_let_be_and_one_more_is_found_once_by_all_clients_together() {
    let vault = Vault::with("");
    let c = &mut vault.connect();
    let id = vault.key("sk-plainly-fake").to_string();
    let mut listener = vault.connect();
    listener.batch_execute("LISTEN watchllm_security").unwrap();
    assert_eq!(hammer(&vault, "postgres", &id, 100, 4), 100);
    settle();
    assert_eq!(one(c, &count("rapid_automated_access", &id)), "0");
    assert_eq!(hammer(&vault, "postgres", &id, 1, 1), 1);
    appears(c, &count("rapid_automated_access", &id), "1");
    assert_eq!(incidents(c, "rapid_automated_access", &id), ["high|101|100|false"]);
    assert_eq!(hammer(&vault, "postgres", &id, 300, 4), 300); // alert alone stops nobody
    settle();
    assert_eq!(one(c, &count("rapid_automated_access", &id)), "1");
    let detected = format!(
        "SELECT access_anomaly_detected_at IS NOT NULL FROM watchllm.provider_keys WHERE id = '{id}'"
    );
    assert_eq!(one(c, &detected), "t");
    let evidence = format!(
        "SELECT e.note FROM watchllm.incident_events e JOIN watchllm.security_incidents i ON i.id = e.incident_id
        WHERE i.provider_key_id = '{id}' AND e.event = 'note'"
    );
    assert_eq!(one(c, &evidence), "callers within the minute before: 101 x role postgres");
    assert!(
        vault
            .server
            .log()
            .contains("WARNING:  watchllm_keys: rapid automated access: more than 100 accesses")
    );
    assert!(!vault.server.log().contains("plainly-fake"));
    let told = heard(&mut listener, 2, Duration::from_secs(2));
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn the_access_that_crosses_the_line_is_refused_already_and_an_administrator_lets_the_key_in_again()
{
    let vault = Vault::with("watchllm_keys.anomaly_action = 'block'");
    let c = &mut vault.connect();
    let id = vault.key("sk-plainly-fake").to_string();
    assert_eq!(hammer(&vault, "postgres", &id, 160, 4), 100);
    assert_eq!(last_event(c, &id), "decrypt|blocked");
    appears(c, &count("rapid_automated_access", &id), "1");
    assert_eq!(incidents(c, "rapid_automated_access", &id), ["high|101|100|true"]);
    assert_eq!(code(c, &decrypt(&id)), "42000");
    one(c, &format!("SELECT watchllm.unblock_provider_key('{id}', 'a load test')"));
    let blocked = format!(
        "SELECT blocked_at IS NULL FROM watchllm.provider_key_usage WHERE provider_key_id = '{id}'"
    );
    appears(c, &blocked, "t");
    assert_eq!(hammer(&vault, "postgres", &id, 50, 1), 50); // the same episode does not block it again
    settle();
    assert_eq!(one(c, &count("rapid_automated_access", &id)), "1");
}

#[test]
fn somebody_who_empties_the_vault_gets_no_more_keys_than_the_limit_and_one_a_client() {
    let vault = Vault::with("watchllm_keys.anomaly_action = 'mass_key_reading=block'");
    let c = &mut vault.connect();
    let ids: Vec<String> =
        (0..500).map(|i| vault.key(&format!("sk-plainly-fake-{i}")).to_string()).collect();
    let (thief, honest) = (login(c, "watchllm_service"), login(c, "watchllm_service"));
    const CLIENTS: usize = 8;
    let lost = AtomicUsize::new(0);
    thread::scope(|scope| {
        for part in ids.chunks(ids.len().div_ceil(CLIENTS)) {
            let (lost, mut session) = (&lost, vault.server.connect("postgres", &thief));
            scope.spawn(move || {
                for id in part {
                    lost.fetch_add(
                        usize::from(code(&mut session, &decrypt(id)) == "00000"),
                        Relaxed,
                    );
                }
            });
        }
    });
    let lost = lost.into_inner();
    println!("of 500 keys {lost} were lost to {CLIENTS} clients");
    assert!((1..=50 + CLIENTS).contains(&lost), "{lost}");
    appears(c, "SELECT count(*) FROM watchllm.blocked_callers", "1");
    assert_eq!(of_callers(c, &thief), ["mass_key_reading|critical|role|51|true"]);
    // Immediately: many keys in one call are judged one by one. Other callers are served.
    let many = format!(
        "SELECT failure_reason, count(*) FROM watchllm.decrypt_provider_keys(ARRAY['{}']::uuid[]) GROUP BY 1",
        ids[..40].join("','")
    );
    assert_eq!(rows(&mut vault.server.connect("postgres", &thief), &many), ["caller_blocked|40"]);
    assert_eq!(code(&mut vault.server.connect("postgres", &honest), &decrypt(&ids[0])), "00000");
    let blocked = &mut vault.server.connect("postgres", &thief);
    assert_eq!(
        (code(blocked, &decrypt(&ids[0])), last_event(c, &ids[0])),
        ("42000".into(), "decrypt|caller_blocked".into())
    );
    let unblock = format!("SELECT watchllm.unblock_caller('role', '{thief}', 'it was the backup')");
    assert_eq!(code(&mut vault.server.connect("postgres", &honest), &unblock), "42501");
    assert_eq!(code(c, "SELECT watchllm.unblock_caller('somebody', 'x')"), "22023");
    one(c, &unblock);
    appears(c, "SELECT count(*) FROM watchllm.blocked_callers", "0");
    assert_eq!(code(blocked, &decrypt(&ids[0])), "00000");
    assert_eq!(code(c, &unblock), "02000");
}

#[test]
fn without_being_told_to_the_watch_blocks_no_caller_because_it_may_be_everybodys_backend() {
    let vault = Vault::with(
        "watchllm_keys.anomaly_action = 'block'\nwatchllm_keys.max_distinct_keys_per_minute = 5",
    );
    let c = &mut vault.connect();
    let ids: Vec<String> =
        (0..20).map(|i| vault.key(&format!("sk-plainly-fake-{i}")).to_string()).collect();
    let backend = login(c, "watchllm_service");
    let session = &mut vault.server.connect("postgres", &backend);
    assert!(ids.iter().all(|id| code(session, &decrypt(id)) == "00000"));
    settle();
    assert_eq!(of_callers(c, &backend), ["mass_key_reading|critical|role|6|false"]);
}

#[test]
fn a_killed_writer_forgets_neither_what_it_counted_nor_what_it_blocked() {
    let vault = Vault::with("watchllm_keys.anomaly_action = 'block'");
    let c = &mut vault.connect();
    let (id, blocked) =
        (vault.key("sk-plainly-fake").to_string(), vault.key("sk-plainly-fake-2").to_string());
    assert_eq!(hammer(&vault, "postgres", &id, 90, 2), 90);
    assert_eq!(hammer(&vault, "postgres", &blocked, 101, 2), 100);
    appears(c, &count("rapid_automated_access", &blocked), "1");
    let end_writer = |vault: &Vault| {
        let pid = vault.server.writer_pid("postgres").unwrap();
        vault.server.kill_backend(pid, "TERM");
    };
    end_writer(&vault);
    assert_eq!(code(c, &decrypt(&blocked)), "42000");
    assert_eq!(hammer(&vault, "postgres", &id, 20, 2), 10);
    appears(c, &count("rapid_automated_access", &id), "1");
    // Its episode is still open, so the next writer does not find it again.
    end_writer(&vault);
    let filled = "the watch's counters are filled";
    let began = Instant::now();
    assert_eq!(code(c, &decrypt(&blocked)), "42000");
    while vault.server.log().matches(filled).count() < 3 {
        assert!(began.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(50));
    }
    settle();
    assert_eq!(one(c, &count("rapid_automated_access", &id)), "1");
    assert_eq!(one(c, &count("rapid_automated_access", &blocked)), "1");
}

#[test]
fn failures_of_a_key_are_found_and_a_strangers_are_not_its_own() {
    let vault = Vault::with("watchllm_keys.max_failures_per_hour = 5");
    let c = &mut vault.connect();
    let (id, other) =
        (vault.key("sk-plainly-fake").to_string(), vault.key("sk-plainly-fake-2").to_string());
    crate::keys::damage(c, &id);
    let tenant = login(c, "watchllm_tenant");
    one(
        c,
        &format!(
            "SELECT watchllm.add_project_member('{}', role_name => '{tenant}')",
            vault.project
        ),
    );
    let stranger = &mut vault.server.connect("postgres", &tenant);
    for _ in 0..8 {
        assert_eq!(code(c, &decrypt(&id)), "XX001");
        assert_eq!(code(stranger, &decrypt(&other)), "42501");
    }
    appears(c, &count("repeated_failures", &id), "1");
    settle();
    assert_eq!(incidents(c, "repeated_failures", &id), ["medium|6|5|false"]);
    assert_eq!(one(c, &count("repeated_failures", &other)), "0");
}

#[test]
fn a_key_in_use_for_a_week_that_meets_a_stranger_and_one_that_was_asleep_are_told() {
    let vault = Vault::with("");
    let c = &mut vault.connect();
    let (old, young) =
        (vault.key("sk-plainly-fake").to_string(), vault.key("sk-plainly-fake-2").to_string());
    let (first, second) = (login(c, "watchllm_service"), login(c, "watchllm_service"));
    for id in [&old, &young] {
        assert_eq!(code(&mut vault.server.connect("postgres", &first), &decrypt(id)), "00000");
    }
    appears(c, "SELECT count(*) FROM watchllm.provider_key_callers", "2");
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_callers SET first_seen_at = now() - interval '8 days' WHERE provider_key_id = '{old}'"
        ),
    );
    for id in [&old, &young] {
        assert_eq!(code(&mut vault.server.connect("postgres", &second), &decrypt(id)), "00000");
    }
    appears(c, &count("new_role", &old), "1");
    settle();
    assert_eq!(one(c, &count("new_role", &young)), "0");
    let note = format!(
        "SELECT e.note LIKE '%role {second}%' FROM watchllm.incident_events e
        JOIN watchllm.security_incidents i ON i.id = e.incident_id WHERE i.type = 'new_role' AND i.provider_key_id = '{old}'"
    );
    assert_eq!(one(c, &note), "t");
    // Asleep: yesterday's writer, which knew the key, is gone, and so are the rows of its use.
    let asleep = vault.key("sk-plainly-fake-3").to_string();
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_records SET created_at = now() - interval '31 days' WHERE id = '{asleep}'"
        ),
    );
    assert_eq!(code(c, &decrypt(&asleep)), "00000");
    appears(c, &count("dormant_key_used", &asleep), "1");
    assert_eq!(code(c, &decrypt(&asleep)), "00000");
    settle();
    let days = format!(
        "SELECT details->>'days_asleep' FROM watchllm.security_incidents
        WHERE type = 'dormant_key_used' AND provider_key_id = '{asleep}'"
    );
    assert_eq!(rows(c, &days), ["31"]);
    assert_eq!(one(c, &count("dormant_key_used", &old)), "0");
}

#[test]
fn an_administrators_block_holds_from_its_commit_on_and_not_from_a_rollback() {
    let vault = Vault::with("");
    let c = &mut vault.connect();
    let id = vault.key("sk-plainly-fake").to_string();
    one(c, &format!("BEGIN; SELECT watchllm.block_provider_key('{id}', 'frozen'); ROLLBACK"));
    assert_eq!(code(c, &decrypt(&id)), "00000");
    one(c, &format!("SELECT watchllm.block_provider_key('{id}', 'frozen')"));
    assert_eq!(code(c, &decrypt(&id)), "42000"); // at once: the writer knows before the table says so
    assert_eq!(
        code(c, &format!("SELECT watchllm.block_provider_key('{}')", Uuid::new_v4())),
        "02000"
    );
}

#[test]
fn a_tenant_reads_its_own_anomalies_and_not_who_connected_from_where() {
    let vault = Vault::with("watchllm_keys.max_accesses_per_minute = 3");
    let c = &mut vault.connect();
    let foreign = one(c, "SELECT watchllm.create_project('another')");
    let theirs = one(
        c,
        &format!("SELECT watchllm.store_provider_key('{foreign}', 'openai', 'sk-plainly-fake')"),
    );
    let mine = vault.key("sk-plainly-fake-2").to_string();
    for id in [&theirs, &mine] {
        assert_eq!(hammer(&vault, "postgres", id, 4, 1), 4);
        appears(c, &count("rapid_automated_access", id), "1");
    }
    let tenant = login(c, "watchllm_tenant");
    one(
        c,
        &format!(
            "SELECT watchllm.add_project_member('{}', role_name => '{tenant}')",
            vault.project
        ),
    );
    let t = &mut vault.server.connect("postgres", &tenant);
    assert_eq!(rows(t, "SELECT provider_key_id FROM watchllm.open_incidents"), [mine]);
    assert!(!one(t, "SELECT details FROM watchllm.open_incidents").contains("postgres"));
    assert_eq!(code(t, "SELECT note FROM watchllm.incident_events"), "42501");
    for table in ["caller_peaks", "provider_key_callers", "blocked_callers"] {
        assert_eq!(code(t, &format!("SELECT * FROM watchllm.{table}")), "42501", "{table}");
    }
}

#[test]
fn an_episode_ends_by_itself_and_the_next_is_another_incident() {
    let vault = Vault::with("watchllm_keys.max_accesses_per_minute = 4");
    let c = &mut vault.connect();
    let id = vault.key("sk-plainly-fake").to_string();
    assert_eq!(hammer(&vault, "postgres", &id, 8, 2), 8);
    appears(c, &count("rapid_automated_access", &id), "1");
    let ended = format!(
        "SELECT count(ended_at) FROM watchllm.open_incidents WHERE provider_key_id = '{id}'"
    );
    assert_eq!(one(c, &ended), "0");
    poll(&vault.server, &ended, "1", 90);
    assert_eq!(hammer(&vault, "postgres", &id, 8, 2), 8);
    appears(c, &count("rapid_automated_access", &id), "2");
}

fn poll(server: &Server, sql: &str, expected: &str, seconds: u64) {
    server.poll_until("postgres", sql, expected, seconds);
}

#[test]
fn an_action_that_is_misspelt_is_refused_and_leaves_what_was_set() {
    let vault = Vault::with("watchllm_keys.anomaly_action = 'block'");
    let c = &mut vault.connect();
    vault.server.conf("watchllm_keys.anomaly_action = 'blok'");
    vault.server.reload();
    let refused = || {
        vault.server.log().contains("no detector has this name")
            || vault.server.log().contains("an action is alert or block")
    };
    let began = Instant::now();
    while !refused() {
        assert!(began.elapsed() < Duration::from_secs(20));
        thread::sleep(Duration::from_millis(50));
    }
    assert_eq!(one(&mut vault.connect(), "SHOW watchllm_keys.anomaly_action"), "block");
    for (name, value) in [
        ("anomaly_action", "blok"),
        ("max_accesses_per_minute", "0"),
        ("stale_after", "30"),
        ("spin", "1"),
    ] {
        assert_eq!(
            code(c, &format!("SELECT watchllm.set_setting('{name}', '{value}')")),
            "22023",
            "{name}"
        );
    }
}

#[test]
fn a_limit_of_a_key_holds_for_it_alone_after_the_commit_and_is_taken_back() {
    let vault = Vault::with("");
    let c = &mut vault.connect();
    let (own, other) =
        (vault.key("sk-plainly-fake").to_string(), vault.key("sk-plainly-fake-2").to_string());
    let set = |value: &str, key: &str| {
        format!(
            "SELECT watchllm.set_setting('max_accesses_per_minute', {value}, provider_key_id => '{key}')"
        )
    };
    one(c, &format!("BEGIN; {}; ROLLBACK", set("'5'", &other)));
    one(c, &set("'5'", &own));
    let effective = |key: &str| {
        format!(
            "SELECT watchllm.effective_setting('max_accesses_per_minute', '{}', '{key}')",
            vault.project
        )
    };
    assert_eq!((one(c, &effective(&own)), one(c, &effective(&other))), ("5".into(), "100".into()));
    let of_key = format!(
        "SELECT watchllm.effective_setting('max_accesses_per_minute', provider_key_id => '{own}')"
    );
    assert_eq!(one(c, &of_key), "5"); // a key names its project
    let nothing = format!(
        "SELECT watchllm.set_setting('anomaly_action', 'mass_key_reading=block', provider_key_id => '{own}')"
    );
    assert_eq!(code(c, &nothing), "22023");
    settle();
    for id in [&own, &other] {
        assert_eq!(hammer(&vault, "postgres", id, 6, 2), 6);
    }
    appears(c, &count("rapid_automated_access", &own), "1");
    assert_eq!(incidents(c, "rapid_automated_access", &own), ["high|6|5|false"]);
    assert_eq!(one(c, &count("rapid_automated_access", &other)), "0");
    one(c, &set("NULL", &own));
    assert_eq!(one(c, &effective(&own)), "100");
    let foreign = one(c, "SELECT watchllm.create_project('another')");
    let wrong = format!("SELECT watchllm.set_setting('stale_after', '9d', '{foreign}', '{own}')");
    assert_eq!(code(c, &wrong), "02000");
    assert_eq!(
        code(
            c,
            &format!(
                "SELECT watchllm.set_setting('max_active_keys', '9', '{}', '{own}')",
                vault.project
            )
        ),
        "22023"
    );
    // Strangers learn nothing about a project's own limits.
    one(c, &format!("SELECT watchllm.set_setting('stale_after', '9d', '{}')", vault.project));
    let tenant = login(c, "watchllm_tenant");
    let asked = format!("SELECT watchllm.effective_setting('stale_after', '{}')", vault.project);
    assert_eq!(one(c, &asked), "9d");
    assert_eq!(one(&mut vault.server.connect("postgres", &tenant), &asked), "30d");
}
