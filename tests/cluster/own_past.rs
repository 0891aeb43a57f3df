//! A key's own past on a server: a week of use before allows three times its busiest minute today.
//! What was refused or flagged allows nothing. A new writer knows what the one before counted, or
//! counts the trail where nobody has. Also nonsense in the table, and who sees the limits.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use crate::keys::{code, decrypt, new_key, one, rows};
use crate::roles::login;
use crate::windows::vault;
use crate::writer::Vault;

/// Puts so many accesses into the trail, all within a minute of a day before today.
fn use_before(c: &mut Client, key: &str, days_ago: i32, times: i32, reason: &str) {
    let at = "date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + '10 hours'";
    let sql = format!(
        "SELECT put('{key}', ARRAY(SELECT {at} - {days_ago} * '1 day'::interval + n * '0.3 s'::interval
            FROM generate_series(1, {times}) n), {reason})"
    );
    one(c, &sql);
}

/// A week in which the key was opened so often in its busiest minute.
fn a_week(c: &mut Client, key: &str, times: i32) {
    (1..=7).for_each(|days_ago| use_before(c, key, days_ago, times, "NULL"));
}

fn waits_for(c: &mut Client, sql: &str, expected: &str) {
    let began = Instant::now();
    while one(c, sql) != expected {
        let found = one(c, sql);
        assert!(began.elapsed() < Duration::from_secs(30), "{sql}: {found}, not {expected}");
        thread::sleep(Duration::from_millis(20));
    }
}

fn end_writer(vault: &Vault, signal: &str) -> Client {
    let pid = vault.server.writer_pid("postgres").unwrap();
    vault.server.kill_backend(pid, signal);
    vault.server.poll_until("postgres", "SELECT 1", "1", 30);
    vault.connect()
}

/// A new writer, once it has counted the week from the trail and stored that of this key.
fn recounted(vault: &Vault, key: &str) -> Client {
    let mut c = end_writer(vault, "TERM");
    code(&mut c, &decrypt(&vault.key("plainly-fake").to_string()));
    let stored = format!(
        "SELECT used_since IS NOT NULL FROM watchllm.provider_key_usage WHERE provider_key_id = '{key}'"
    );
    waits_for(&mut c, &stored, "t");
    c
}

/// Opens the key so often within a minute. Answers how many opens were refused.
fn open(c: &mut Client, key: &str, times: usize) -> usize {
    let each = "SELECT count(*) FILTER (WHERE failure_reason IS NOT NULL)
        FROM watchllm.decrypt_provider_keys(array_fill(";
    one(c, &format!("{each}'{key}'::uuid, ARRAY[{times}]))")).parse().unwrap()
}

/// The limits that were crossed, once the writer has written its findings.
fn crossed(c: &mut Client, key: &str) -> Vec<String> {
    thread::sleep(Duration::from_millis(1_500));
    rows(
        c,
        &format!(
            "SELECT type, details->>'limit' FROM watchllm.security_incidents WHERE provider_key_id = '{key}' ORDER BY detected_at"
        ),
    )
}

fn allowed(c: &mut Client, key: &str) -> String {
    one(
        c,
        &format!(
            "SELECT string_agg(concat_ws('/', busiest_before, stated, allowed), ' ' ORDER BY stated)
            FROM watchllm.key_access_limits WHERE provider_key_id = '{key}'"
        ),
    )
}

#[test]
fn a_week_of_use_allows_three_times_its_busiest_minute_unless_the_basis_is_fixed() {
    let (vault, mut c) = vault();
    let [busy, fixed, young] = [(); 3].map(|()| vault.key(&new_key()).to_string());
    for key in [&busy, &fixed] {
        a_week(&mut c, key, 60);
    }
    (1..=6).for_each(|days_ago| use_before(&mut c, &young, days_ago, 60, "NULL"));
    one(
        &mut c,
        &format!(
            "SELECT watchllm.set_setting('limit_basis', 'fixed', provider_key_id => '{fixed}')"
        ),
    );
    let c = &mut recounted(&vault, &busy);
    assert_eq!(allowed(c, &busy), "60/100/180 60/10000/10000 60/100000/100000");
    assert_eq!(allowed(c, &fixed), "60/100/100 60/10000/10000 60/100000/100000");
    assert_eq!(allowed(c, &young), "60/100/100 60/10000/10000 60/100000/100000");
    for key in [&busy, &fixed, &young] {
        open(c, key, 180);
    }
    assert_eq!(crossed(c, &busy), [""; 0]);
    assert_eq!(crossed(c, &fixed), ["rapid_automated_access|100"]);
    assert_eq!(crossed(c, &young), ["rapid_automated_access|100"]);
    open(c, &busy, 1);
    assert_eq!(crossed(c, &busy), ["rapid_automated_access|180"]);
    let looked_back = "SELECT observed, expected FROM watchllm.detect_rapid_automated_access(
        now() - interval '10 minutes') ORDER BY expected";
    assert_eq!(rows(c, looked_back), ["180|100", "180|100", "181|180"]);
}

#[test]
fn a_key_that_blocks_is_open_up_to_its_own_limit_also_under_a_new_writer() {
    let (vault, mut c) = vault();
    one(&mut c, "SELECT watchllm.set_setting('anomaly_action', 'block')");
    let key = vault.key(&new_key()).to_string();
    a_week(&mut c, &key, 50);
    let c = &mut recounted(&vault, &key);
    assert_eq!(open(c, &key, 75), 0);
    // rotated, it is the same key; killed, the writer is another
    one(c, &format!("SELECT watchllm.rotate_provider_key('{key}', '{}')", new_key()));
    let c = &mut end_writer(&vault, "KILL");
    assert_eq!(open(c, &key, 85), 10);
    assert_eq!(code(c, &decrypt(&key)), "42000");
    assert_eq!(crossed(c, &key), ["rapid_automated_access|150"]);
}

#[test]
fn what_was_refused_or_flagged_before_allows_nothing_today() {
    let (vault, mut c) = vault();
    let [refused, flagged, failed] = [(); 3].map(|()| vault.key(&new_key()).to_string());
    for key in [&refused, &flagged, &failed] {
        a_week(&mut c, key, 40);
    }
    for reason in ["'blocked'", "'caller_blocked'"] {
        use_before(&mut c, &refused, 2, 150, reason);
    }
    use_before(&mut c, &failed, 2, 150, "'inactive'");
    // three days ago a thief crossed the limit, after 45 accesses more
    let at = |tenths: i32| {
        format!(
            "date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' - '52 hours'::interval
                + {tenths} * '0.1 s'::interval"
        )
    };
    let times: Vec<String> = (0..900).map(at).collect();
    one(&mut c, &format!("SELECT put('{flagged}', ARRAY[{}])", times.join(",")));
    let (project, began, ended) = (vault.project, at(45), at(5_000));
    one(
        &mut c,
        &format!(
            "WITH i AS (INSERT INTO watchllm.security_incidents
                SELECT gen_random_uuid(), 'rapid_automated_access', 'high', '{project}', '{flagged}', '{{}}', {began}
                RETURNING id)
            INSERT INTO watchllm.incident_events
                SELECT gen_random_uuid(), id, '{project}', 'ended', NULL, 'writer', {ended} FROM i"
        ),
    );
    let c = &mut recounted(&vault, &flagged);
    assert_eq!(allowed(c, &refused), "40/100/120 40/10000/10000 40/100000/100000");
    assert_eq!(allowed(c, &failed), "40/100/120 40/10000/10000 40/100000/100000");
    // the 45 and the 40 of that day are within 24 hours of each other
    assert_eq!(allowed(c, &flagged), "45/100/135 45/10000/10000 85/100000/100000");
    for key in [&refused, &failed] {
        open(c, key, 120);
        assert_eq!(crossed(c, key), [""; 0]);
        open(c, key, 1);
        assert_eq!(crossed(c, key), ["rapid_automated_access|120"]);
    }
}

#[test]
fn the_past_stays_when_the_trail_of_the_week_is_gone() {
    let (vault, mut c) = vault();
    let key = vault.key(&new_key()).to_string();
    a_week(&mut c, &key, 50);
    let c = &mut recounted(&vault, &key);
    let drop = "DO $$ DECLARE p regclass; BEGIN
        FOR p IN SELECT inhrelid::regclass FROM pg_inherits
            WHERE inhparent = 'watchllm.provider_key_access_logs'::regclass
              AND inhrelid::regclass::text < 'watchllm.provider_key_access_logs_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')
        LOOP EXECUTE format('DROP TABLE %s', p); END LOOP; END $$";
    c.batch_execute(drop).unwrap();
    let c = &mut end_writer(&vault, "TERM");
    open(c, &key, 150);
    assert_eq!(crossed(c, &key), [""; 0]);
    assert_eq!(allowed(c, &key), "50/100/150 50/10000/10000 50/100000/100000");
    // looking back knows what the trail still holds
    let looked_back = "SELECT observed, expected FROM watchllm.detect_rapid_automated_access(
        now() - interval '10 minutes')";
    assert_eq!(rows(c, looked_back), ["150|100"]);
}

/// Nobody but a superuser can write these rows, and still no row stops the others.
#[test]
fn nonsense_that_is_stored_as_a_past_is_no_past() {
    let (vault, mut c) = vault();
    let keys: Vec<String> = (0..6).map(|_| vault.key(&new_key()).to_string()).collect();
    a_week(&mut c, &keys[0], 50);
    let c = &mut recounted(&vault, &keys[0]);
    for key in &keys[1..] {
        open(c, key, 1);
    }
    thread::sleep(Duration::from_millis(1_500));
    let nonsense = [
        "used_since = 'infinity', busiest_on = '-infinity'",
        "used_since = '2000-01-01', busiest_on = '5874897-12-31', busiest_minute = '{9,9,9,9,9,9,9,9}'",
        "used_since = '2000-01-01', busiest_minute = '{{1,2},{3,4}}', busiest_hour = '{}', busiest_day = NULL",
        "used_since = '2000-01-01', busiest_minute = '{NULL,-7,2147483647,1,1,1,1,1,1,1,1,1}'",
        "used_since = '0044-03-15 BC', busiest_on = '0044-03-15 BC'",
    ];
    let mut holder = vault.connect();
    let pid = vault.server.writer_pid("postgres").unwrap();
    for (key, nonsense) in keys[1..].iter().zip(nonsense) {
        let sql = format!(
            "UPDATE watchllm.provider_key_usage SET {nonsense} WHERE provider_key_id = '{key}'"
        );
        holder.batch_execute(&sql).unwrap();
    }
    vault.server.kill_backend(pid, "KILL");
    vault.server.poll_until("postgres", "SELECT 1", "1", 30);
    let c = &mut vault.connect();
    let each = format!(
        "SELECT count(*) FROM watchllm.decrypt_provider_keys('{{{}}}') WHERE failure_reason IS NULL",
        keys.join(",")
    );
    assert_eq!(one(c, &each), "6");
    open(c, &keys[0], 140);
    open(c, &keys[1], 101);
    assert_eq!(crossed(c, &keys[0]), [""; 0]);
    assert_eq!(crossed(c, &keys[1]), ["rapid_automated_access|100"]);
    assert_eq!(one(c, "SELECT count(*) FROM watchllm.key_access_limits"), "21");
    assert!(!vault.server.log().contains("PANIC"));
}

#[test]
fn tenants_see_the_limits_of_their_own_keys_alone() {
    let vault = Vault::with("");
    let c = &mut vault.connect();
    let key = vault.key(&new_key()).to_string();
    let [member, stranger] = [(); 2].map(|()| login(c, "watchllm_tenant"));
    let join = "SELECT watchllm.add_project_member";
    one(c, &format!("{join}('{}', role_name => '{member}')", vault.project));
    let limits = "SELECT detector, stated, allowed FROM watchllm.key_access_limits ORDER BY 2";
    let expected = [
        "rapid_automated_access|100|100",
        "potential_key_theft|10000|10000",
        "unusually_high_access|100000|100000",
    ];
    assert_eq!(rows(&mut vault.server.connect("postgres", &member), limits), expected);
    let stranger = &mut vault.server.connect("postgres", &stranger);
    assert_eq!(rows(stranger, limits), [""; 0]);
    let function = format!(
        "SELECT allowed FROM watchllm.key_access_limits('{}', '{key}', 'max_accesses_per_hour', '2024-03-01', '2024-03-01')",
        vault.project
    );
    assert_eq!(rows(stranger, &function), ["10000"]);
}
