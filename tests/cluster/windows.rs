//! Theft that is searched afterwards. Rows are put into the trail at chosen times: at the borders
//! of minutes, buckets and days, at the same microsecond, in consecutive episodes. Also whole days
//! that are not read, a tenant who asks for others' anomalies, and findings of the live counters
//! that the windows lack.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use crate::keys::{code, decrypt, one, refusal, rows};
use crate::roles::login;
use crate::writer::Vault;

/// Puts rows into the trail as only a superuser can. `rows` is a query of accessed_at and more
/// columns.
const PUT: &str = "CREATE SEQUENCE places;
    CREATE FUNCTION put(key uuid, times timestamptz[], reason text = NULL, role_name text = 'app', sub text = NULL,
        addr inet = NULL, kind text = 'decrypt') RETURNS void LANGUAGE sql AS $$
        SELECT watchllm.make_log_partition(day) FROM (
            SELECT DISTINCT (t AT TIME ZONE 'UTC')::date AS day FROM unnest(times) t) d;
        INSERT INTO watchllm.provider_key_access_logs (seq, id, accessed_at, project_id, provider_key_id, access_type,
            success, failure_reason, session_role, effective_role, claims_sub, claims_trusted, client_addr, backend_pid,
            epoch, queue_seq, identity_id, chain_key_version, hash)
        SELECT 1000000000 + nextval('places'), gen_random_uuid(), t, r.project_id, r.id, kind, reason IS NULL, reason,
            role_name, role_name, sub, sub IS NOT NULL, addr, 1, -1, nextval('places'), gen_random_uuid(), 1, ''
        FROM unnest(times) t, watchllm.provider_key_records r WHERE r.id = key $$";

/// A vault whose trail can be filled. Nothing else happens on the days of the tests.
pub(crate) fn vault() -> (Vault, Client) {
    let vault = Vault::with("");
    let mut c = vault.connect();
    one(&mut c, PUT);
    (vault, c)
}

fn set(c: &mut Client, name: &str, value: &str) {
    one(c, &format!("SELECT watchllm.set_setting('{name}', '{value}')"));
}

/// Puts rows at these times of 2024-03-05 UTC. A time may name another day of that month: `4
/// 23:59:59`.
fn put(c: &mut Client, key: &str, times: &[&str], more: &str) {
    let time = |time: &&str| match time.split_once(' ') {
        Some((day, time)) => format!("'2024-03-{day:0>2} {time}Z'"),
        None => format!("'2024-03-05 {time}Z'"),
    };
    let times = times.iter().map(time).collect::<Vec<_>>().join(", ");
    one(c, &format!("SELECT put('{key}', ARRAY[{times}]::timestamptz[]{more})"));
}

/// What a detector finds between two times of that month: observed, expected, begin and end as
/// times of the day.
fn found(c: &mut Client, detector: &str, since: &str, until: &str) -> Vec<String> {
    let sql = format!(
        "SELECT coalesce(subject, ''), observed, expected, to_char(window_start AT TIME ZONE 'UTC', 'DD HH24:MI:SS.US'),
            to_char(window_end AT TIME ZONE 'UTC', 'DD HH24:MI:SS.US')
        FROM watchllm.detect_{detector}('2024-03-{since}Z', '2024-03-{until}Z') ORDER BY window_start, 1"
    );
    rows(c, &sql)
        .iter()
        .map(|row| row.replace(".000000", "").trim_start_matches('|').to_owned())
        .collect()
}

fn on_the_fifth(c: &mut Client, detector: &str) -> Vec<String> {
    found(c, detector, "05 00:00", "06 00:00")
}

#[test]
fn a_minute_has_both_its_ends_and_the_hundred_and_first_is_found() {
    let (vault, mut c) = vault();
    let c = &mut c;
    let [just, over, late] = [(); 3].map(|()| vault.key("plainly-fake").to_string());
    for id in [&just, &over, &late] {
        let sql = "SELECT '2024-03-05 10:00Z'::timestamptz + n * '0.5 s'::interval FROM generate_series(1, 99) n";
        one(c, &format!("SELECT put('{id}', ARRAY({sql}))"));
        put(c, id, &["10:00:00"], "");
    }
    assert_eq!(on_the_fifth(c, "rapid_automated_access"), [""; 0]);
    put(c, &over, &["10:01:00"], "");
    put(c, &late, &["10:01:00.000001"], "");
    assert_eq!(on_the_fifth(c, "rapid_automated_access"), ["101|100|05 10:01:00|05 10:01:00"]);
    assert_eq!(
        one(c, "SELECT provider_key_id FROM watchllm.detect_rapid_automated_access('2024-03-05Z')"),
        over
    );
    // a limit of the key's own
    one(
        c,
        &format!(
            "SELECT watchllm.set_setting('max_accesses_per_minute', '101', provider_key_id => '{over}')"
        ),
    );
    assert_eq!(on_the_fifth(c, "rapid_automated_access"), [""; 0]);
}

/// The detectors skip keys below every limit. A key with a low limit of its own must not be
/// skipped.
#[test]
fn a_limit_that_only_one_key_or_project_has_is_not_overlooked() {
    let (vault, mut c) = vault();
    let c = &mut c;
    assert_eq!(
        one(
            c,
            "SELECT watchllm.effective_setting('stale_after'), watchllm.lowest_setting('stale_after')"
        ),
        "30d|43200min"
    );
    let ids = [(); 2].map(|()| vault.key("plainly-fake").to_string());
    let names = [
        "max_accesses_per_minute",
        "max_accesses_per_hour",
        "max_accesses_per_day",
        "max_failures_per_hour",
    ];
    for id in &ids {
        put(c, id, &["10:00:00", "10:00:01", "10:00:02"], "");
        put(c, id, &["10:00:00", "10:00:01", "10:00:02"], ", 'inactive'");
    }
    let all = "SELECT string_agg(left(detector, 5), ' ' ORDER BY detector), provider_key_id
        FROM watchllm.key_access_anomalies('2024-03-05Z', '2024-03-06Z') GROUP BY 2";
    assert_eq!(rows(c, all), [""; 0]);
    for name in names {
        one(
            c,
            &format!("SELECT watchllm.set_setting('{name}', '2', provider_key_id => '{}')", ids[0]),
        );
        assert_eq!(one(c, &format!("SELECT watchllm.lowest_setting('{name}')")), "2");
    }
    assert_eq!(rows(c, all), [format!("poten rapid repea unusu|{}", ids[0])]);
    let tenant = login(c, "watchllm_tenant");
    let t = &mut vault.server.connect("postgres", &tenant);
    let own = one(c, "SELECT watchllm.create_project('own')");
    one(c, &format!("SELECT watchllm.add_project_member('{own}', role_name => '{tenant}')"));
    assert_eq!(one(t, "SELECT watchllm.lowest_setting('max_accesses_per_minute')"), "100"); // others' are not told
    one(c, &format!("SELECT watchllm.set_setting('max_accesses_per_minute', '7', '{own}')"));
    assert_eq!(one(t, "SELECT watchllm.lowest_setting('max_accesses_per_minute')"), "7");
    for wrong in ["anomaly_action", "master_key_file"] {
        assert_eq!(code(c, &format!("SELECT watchllm.lowest_setting('{wrong}')")), "22023");
    }
}

#[test]
fn an_episode_lasts_until_half_the_limit_is_left_and_the_next_is_another() {
    let (vault, mut c) = vault();
    let c = &mut c;
    set(c, "max_accesses_per_minute", "4");
    let id = vault.key("plainly-fake").to_string();
    // five within a minute; 20, 30 and 40 remain when the next two come
    let first =
        ["10:00:00", "10:00:10", "10:00:20", "10:00:30", "10:00:40", "10:01:15", "10:01:16"];
    put(c, &id, &first, "");
    let one_episode = ["5|4|05 10:00:40|05 10:01:16"];
    assert_eq!(on_the_fifth(c, "rapid_automated_access"), one_episode);
    // two remain, so the episode ends here; the next begins only with the fifth in a minute
    put(c, &id, &["10:01:41", "10:01:42"], "");
    assert_eq!(on_the_fifth(c, "rapid_automated_access"), one_episode);
    put(c, &id, &["10:01:42.5", "10:01:43", "10:01:44"], "");
    assert_eq!(
        on_the_fifth(c, "rapid_automated_access"),
        [one_episode[0], "7|4|05 10:01:42.500000|05 10:01:44"]
    );
    // an episode under way begins with the time that is asked for
    let under_way = ["5|4|05 10:01:16|05 10:01:16", "7|4|05 10:01:42.500000|05 10:01:44"];
    assert_eq!(found(c, "rapid_automated_access", "05 10:01:10", "06 00:00"), under_way);
    assert_eq!(
        found(c, "rapid_automated_access", "05 10:01:10", "05 10:01:43"),
        [under_way[0], "5|4|05 10:01:42.500000|05 10:01:42.500000"]
    );
}

#[test]
fn rows_of_one_microsecond_count_one_by_one() {
    let (vault, mut c) = vault();
    let c = &mut c;
    set(c, "max_accesses_per_minute", "2");
    let id = vault.key("plainly-fake").to_string();
    put(c, &id, &["10:00:00", "10:00:00", "10:00:00", "10:01:00", "10:01:00"], "");
    let counts = "SELECT accesses_minute, accesses_hour, accesses_day FROM watchllm.key_access_rates('2024-03-05Z')
        ORDER BY accessed_at, accesses_minute";
    assert_eq!(rows(c, counts), ["1|1|1", "2|2|2", "3|3|3", "4|4|4", "5|5|5"]);
    assert_eq!(on_the_fifth(c, "rapid_automated_access"), ["5|2|05 10:00:00|05 10:01:00"]);
}

#[test]
fn an_hour_is_sixty_minutes_of_the_clock_also_past_midnight() {
    let (vault, mut c) = vault();
    let c = &mut c;
    set(c, "max_accesses_per_hour", "2");
    let [within, outside, night] = [(); 3].map(|()| vault.key("plainly-fake").to_string());
    put(c, &within, &["10:00:00", "10:30:00", "10:59:59.999999"], "");
    put(c, &outside, &["10:00:59.999999", "10:30:00", "11:00:00"], "");
    put(c, &night, &["4 23:10:59", "4 23:59:59", "00:09:00"], "");
    assert_eq!(
        found(c, "potential_key_theft", "04 00:00", "06 00:00"),
        ["3|2|05 00:09:00|05 00:09:00", "3|2|05 10:59:59.999999|05 10:59:59.999999"]
    );
    // the crossing is found to the access, not only to its minute
    put(c, &outside, &["11:00:01", "11:00:02", "11:00:03"], "");
    assert_eq!(
        found(c, "potential_key_theft", "05 10:59:59.999999", "06 00:00"),
        ["3|2|05 10:59:59.999999|05 10:59:59.999999", "5|2|05 11:00:01|05 11:00:03"]
    );
}

#[test]
fn a_day_is_forty_eight_half_hours_over_two_days() {
    let (vault, mut c) = vault();
    let c = &mut c;
    set(c, "max_accesses_per_day", "2");
    let [within, outside] = [(); 2].map(|()| vault.key("plainly-fake").to_string());
    put(c, &within, &["4 10:00:00", "4 23:00:00", "09:29:59.999999"], "");
    put(c, &outside, &["4 10:29:59.999999", "4 23:00:00", "10:00:00"], "");
    assert_eq!(
        on_the_fifth(c, "unusually_high_access"),
        ["3|2|05 09:29:59.999999|05 09:29:59.999999"]
    );
}

#[test]
fn what_was_blocked_counts_what_was_forbidden_does_not_and_failures_count_apart() {
    let (vault, mut c) = vault();
    let c = &mut c;
    set(c, "max_accesses_per_minute", "2");
    set(c, "max_failures_per_hour", "2");
    let [blocked, foreign, failing] = [(); 3].map(|()| vault.key("plainly-fake").to_string());
    put(c, &blocked, &["10:00:00"], "");
    put(c, &blocked, &["10:00:01"], ", 'blocked'");
    put(c, &blocked, &["10:00:02"], ", 'caller_blocked', kind => 'validate'");
    for reason in ["not_authorized", "not_found", "unknown_master_key", "wrong_master_key"] {
        put(c, &foreign, &["10:00:00", "10:00:01", "10:00:02"], &format!(", '{reason}'"));
    }
    put(c, &foreign, &["10:00:00", "10:00:01", "10:00:02"], ", kind => 'rotate'");
    put(c, &failing, &["10:00:00", "10:30:00"], ", 'inactive'");
    put(c, &failing, &["10:59:59"], ", 'damaged_envelope'");
    assert_eq!(on_the_fifth(c, "rapid_automated_access"), ["3|2|05 10:00:02|05 10:00:02"]);
    assert_eq!(on_the_fifth(c, "repeated_failures"), ["3|2|05 10:59:59|05 10:59:59"]);
    let counts = format!(
        "SELECT failed, accesses_hour, failures_hour FROM watchllm.key_access_rates('2024-03-05Z')
         WHERE provider_key_id IN ('{blocked}', '{failing}') ORDER BY provider_key_id = '{failing}', accessed_at"
    );
    assert_eq!(rows(c, &counts), ["f|1|0", "f|2|0", "f|3|0", "t|0|1", "t|0|2", "t|0|3"]);
    assert_eq!(
        one(c, "SELECT count(*) FROM watchllm.key_access_anomalies('2024-03-05Z', '2024-03-06Z')"),
        "2"
    );
}

#[test]
fn a_vault_that_is_emptied_is_found_by_each_name_of_the_caller() {
    let (vault, mut c) = vault();
    let c = &mut c;
    set(c, "max_distinct_keys_per_minute", "3");
    let keys: Vec<String> = (0..8).map(|_| vault.key("plainly-fake").to_string()).collect();
    let who = ", role_name => 'web', sub => 'mallory', addr => '10.0.0.9'";
    // the first key is used again within a minute, so it counts until 10:01:20
    for (key, time) in
        [(0, "10:00:00"), (1, "10:00:10"), (0, "10:00:20"), (2, "10:00:50"), (3, "10:01:20")]
    {
        put(c, &keys[key], &[time], who);
    }
    assert_eq!(on_the_fifth(c, "mass_key_reading"), [""; 0]); // the second is over at 10:01:10
    put(c, &keys[4], &["10:01:20"], who);
    let mallory = "|4|3|05 10:01:20|05 10:01:20";
    let by_three =
        ["address:10.0.0.9", "role:web", "subject:mallory"].map(|name| format!("{name}{mallory}"));
    assert_eq!(on_the_fifth(c, "mass_key_reading"), by_three);
    // many accesses of one key count as one key; untrusted claims name nobody
    put(c, &keys[0], &["12:00:00", "12:00:01", "12:00:02", "12:00:03", "12:00:04"], who);
    assert_eq!(on_the_fifth(c, "mass_key_reading"), by_three);
    // a caller who does as much in other weeks is not reported; the day itself and the eighth day
    // before do not count
    let peak = |day: &str, keys: u32| {
        format!("INSERT INTO watchllm.caller_peaks VALUES ('role', 'web', '{day}', {keys})")
    };
    one(c, &peak("2024-03-05", 9));
    one(c, &peak("2024-02-26", 9));
    assert_eq!(on_the_fifth(c, "mass_key_reading"), by_three);
    one(c, &peak("2024-02-27", 2));
    assert_eq!(on_the_fifth(c, "mass_key_reading"), [&*by_three[0], &*by_three[2]]);
    // it stays over the limit with known keys, and ends below half of it
    for (key, time) in
        [(5, "10:01:30"), (3, "10:02:10"), (4, "10:02:20"), (6, "10:02:21"), (7, "10:02:22")]
    {
        put(c, &keys[key], &[time], ", role_name => 'other'");
    }
    put(c, &keys[0], &["10:03:10", "10:03:23"], ", role_name => 'other'");
    let other = "role:other|5|3|05 10:02:21|05 10:03:10";
    let all = on_the_fifth(c, "mass_key_reading");
    assert!(all.contains(&other.to_owned()), "{all:?}");
}

#[test]
fn strangers_and_sleepers_are_found_where_a_key_was_in_use_before() {
    let (vault, mut c) = vault();
    let c = &mut c;
    let [old, young] = [(); 2].map(|()| vault.key("plainly-fake").to_string());
    for (id, kind, name, day) in [
        (&old, "address", "10.0.0.1", "2024-02-20"),
        (&old, "address", "10.0.0.2", "2024-03-05"),
        (&old, "role", "night", "2024-03-05"),
        (&old, "subject", "sub", "2024-03-05"),
        (&young, "address", "10.0.0.1", "2024-02-28"),
        (&young, "address", "10.0.0.2", "2024-03-05"),
    ] {
        let at = format!("'{day} 00:00:01Z'");
        one(
            c,
            &format!(
                "INSERT INTO watchllm.provider_key_callers SELECT project_id, id, '{kind}', '{name}', {at}, {at}
             FROM watchllm.provider_key_records WHERE id = '{id}'"
            ),
        );
    }
    assert_eq!(on_the_fifth(c, "new_address"), ["address:10.0.0.2|1|0|05 00:00:01|05 00:00:01"]);
    assert_eq!(on_the_fifth(c, "new_role"), ["role:night|1|0|05 00:00:01|05 00:00:01"]);

    let [slept, used, fresh, imported] = [(); 4].map(|()| vault.key("plainly-fake").to_string());
    for id in [&slept, &used, &imported] {
        one(
            c,
            &format!(
                "UPDATE watchllm.provider_key_records SET created_at = '2023-01-01' WHERE id = '{id}'"
            ),
        );
    }
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_records SET created_at = '2024-02-28' WHERE id = '{fresh}'"
        ),
    );
    one(
        c,
        &format!(
            "SELECT put('{slept}', ARRAY['2024-02-04 10:00Z', '2024-03-05 10:00:01Z']::timestamptz[])"
        ),
    );
    one(
        c,
        &format!(
            "SELECT put('{used}', ARRAY['2024-02-04 10:00Z', '2024-03-05 10:00Z']::timestamptz[])"
        ),
    );
    one(c, &format!("SELECT put('{fresh}', ARRAY['2024-03-05 10:00Z']::timestamptz[])"));
    one(
        c,
        &format!(
            "SELECT put('{imported}', ARRAY['2024-03-01 10:00Z']::timestamptz[], kind => 'import')"
        ),
    );
    put(c, &imported, &["10:00:00"], "");
    let woken = ["30|30|05 10:00:01|05 10:00:01"];
    assert_eq!(on_the_fifth(c, "dormant_key_used"), woken);
    assert_eq!(found(c, "dormant_key_used", "01 00:00", "06 00:00"), woken);
    assert_eq!(
        rows(
            c,
            "SELECT observed FROM watchllm.detect_dormant_key_used('2024-02-01Z', '2024-03-06Z')
        ORDER BY 1"
        ),
        ["30", "399", "399"]
    ); // both first of all their uses
    one(
        c,
        &format!("SELECT watchllm.set_setting('stale_after', '31d', provider_key_id => '{slept}')"),
    );
    assert_eq!(on_the_fifth(c, "dormant_key_used"), [""; 0]);
}

/// Days whose partition a statement reads. It runs in a session of its own, whose counters hold
/// nothing else.
fn days_read(vault: &Vault, sql: &str) -> Vec<String> {
    let c = &mut vault.connect();
    one(c, "BEGIN");
    rows(c, sql);
    rows(
        c,
        "SELECT right(relname, 8) FROM pg_stat_xact_user_tables
         WHERE relname LIKE 'provider\\_key\\_access\\_logs\\_%' AND coalesce(seq_scan, 0) + coalesce(idx_scan, 0) > 0
         ORDER BY 1",
    )
}

#[test]
fn days_that_are_not_asked_for_are_not_read() {
    let (vault, mut c) = vault();
    let c = &mut c;
    let id = vault.key("plainly-fake").to_string();
    let times: Vec<String> = (1..=9).map(|day| format!("{day} 12:00:00")).collect();
    put(c, &id, &times.iter().map(String::as_str).collect::<Vec<_>>(), "");
    let noon = "'2024-03-05 12:00Z', '2024-03-05 13:00Z'";
    let cases = [
        ("detect_rapid_automated_access", &["20240305"][..]),
        ("detect_potential_key_theft", &["20240305"]),
        ("detect_repeated_failures", &["20240305"]),
        ("detect_mass_key_reading", &["20240305"]),
        ("detect_unusually_high_access", &["20240304", "20240305"]),
        ("key_access_rates", &["20240304", "20240305"]),
        ("key_access_anomalies", &["20240304", "20240305"]),
    ];
    for (function, days) in cases {
        assert_eq!(
            days_read(&vault, &format!("SELECT * FROM watchllm.{function}({noon})")),
            days,
            "{function}"
        );
    }
    let midnight =
        "SELECT * FROM watchllm.detect_rapid_automated_access('2024-03-05Z', '2024-03-05 00:01Z')";
    assert_eq!(days_read(&vault, midnight), ["20240304", "20240305"]);
    // one key is found by the index
    let c = &mut vault.connect();
    one(c, "SET enable_seqscan = off");
    let project = vault.project;
    let of_one = format!("SELECT * FROM watchllm.key_access_rates({noon}, '{project}', '{id}')");
    one(c, "BEGIN");
    rows(c, &of_one);
    let by_index = "SELECT sum(seq_scan), sum(idx_scan) FROM pg_stat_xact_user_tables
        WHERE relname LIKE 'provider\\_key\\_access\\_logs\\_%'";
    assert_eq!(one(c, by_index), "0|2");
}

#[test]
fn a_tenant_finds_its_own_anomalies_and_nothing_of_callers() {
    let (vault, mut c) = vault();
    let c = &mut c;
    set(c, "max_accesses_per_minute", "2");
    set(c, "max_distinct_keys_per_minute", "1");
    let other = one(c, "SELECT watchllm.create_project('other')");
    let [ours, ours2] = [(); 2].map(|()| vault.key("plainly-fake").to_string());
    let theirs =
        one(c, &format!("SELECT watchllm.store_provider_key('{other}', 'openai', 'plainly-fake')"));
    for id in [&ours, &ours2, &theirs] {
        put(c, id, &["10:00:00", "10:00:01", "10:00:02"], "");
    }
    let tenant = login(c, "watchllm_tenant");
    one(c, &format!("SELECT watchllm.add_project_member('{other}', role_name => '{tenant}')"));
    // another project's limit is not shown
    one(
        c,
        &format!(
            "SELECT watchllm.set_setting('max_accesses_per_minute', '77', '{}')",
            vault.project
        ),
    );
    let all = "SELECT detector, provider_key_id FROM watchllm.key_access_anomalies('2024-03-05Z', '2024-03-06Z')";
    let t = &mut vault.server.connect("postgres", &tenant);
    assert_eq!(rows(t, all), [format!("rapid_automated_access|{theirs}")]);
    for detector in ["mass_key_reading", "new_address", "new_role", "dormant_key_used"] {
        assert_eq!(
            rows(t, &format!("SELECT * FROM watchllm.detect_{detector}('2024-03-05Z')")),
            [""; 0]
        );
    }
    let rates = "SELECT DISTINCT provider_key_id FROM watchllm.key_access_rates('2024-03-05Z')";
    assert_eq!(rows(t, rates), [&*theirs]);
    let of_ours = format!(
        "SELECT * FROM watchllm.key_access_rates('2024-03-05Z', NULL, '{}', '{ours}')",
        vault.project
    );
    assert_eq!(rows(t, &of_ours), [""; 0]);
    assert_eq!(rows(t, "SELECT * FROM watchllm.key_access_anomalies"), [""; 0]);
    let own = one(
        t,
        &format!(
            "SELECT watchllm.effective_setting('max_accesses_per_minute', '{}')",
            vault.project
        ),
    );
    assert_eq!(own, "2");
    assert_eq!(
        rows(c, all),
        [format!("rapid_automated_access|{theirs}"), "mass_key_reading|-".into()]
    );
    for (role, expected) in
        [("watchllm_auditor", "00000"), ("watchllm_service", "42501"), ("", "42501")]
    {
        let role = login(c, role);
        let s = &mut vault.server.connect("postgres", &role);
        assert_eq!(code(s, all), expected, "{role}");
        assert_eq!(code(s, "SELECT * FROM watchllm.key_access_rates"), expected, "{role}");
    }
}

#[test]
fn nonsense_is_refused() {
    let (vault, mut c) = vault();
    let c = &mut c;
    for function in
        ["key_access_rates", "key_access_anomalies", "detect_new_role", "detect_dormant_key_used"]
    {
        let refused = refusal(c, &format!("SELECT * FROM watchllm.{function}(NULL)"));
        assert_eq!(
            (refused.code().code(), refused.message()),
            ("22004", "since must not be null"),
            "{function}"
        );
        let none = format!("SELECT * FROM watchllm.{function}('2024-03-06Z', '2024-03-05Z')");
        assert_eq!(rows(c, &none), [""; 0]);
        assert_eq!(
            code(c, &format!("SELECT * FROM watchllm.{function}('-infinity')")),
            "00000",
            "{function}"
        );
    }
    vault.server.psql("postgres", "CREATE DATABASE bare");
    let bare = &mut vault.server.connect("bare", "postgres");
    one(bare, "CREATE EXTENSION watchllm_keys");
    for function in
        ["key_access_rates", "key_access_anomalies", "detect_new_role", "detect_mass_key_reading"]
    {
        assert_eq!(
            code(bare, &format!("SELECT * FROM watchllm.{function}(now())")),
            "55000",
            "{function}"
        );
    }
}

#[test]
fn one_key_is_judged_by_its_limits_and_a_foreign_one_is_none() {
    let (vault, mut c) = vault();
    let c = &mut c;
    let id = vault.key("plainly-fake").to_string();
    let judge =
        |hours: i32| format!("SELECT * FROM watchllm.detect_unusual_key_access('{id}', {hours})");
    assert_eq!(one(c, &judge(1)), "f|0|0|Normal");
    for _ in 0..5 {
        one(c, &decrypt(&id));
    }
    assert_eq!(one(c, &judge(1)), "f|5|0|Normal");
    let now = "date_trunc('hour', now()) - interval '70 minutes'";
    one(c, &format!("SELECT put('{id}', ARRAY[{now}, {now}], 'inactive')"));
    assert_eq!(one(c, &judge(1)), "f|5|0|Normal");
    assert_eq!(one(c, &judge(3)), "f|5|2|Normal");
    for (setting, reason) in [
        ("max_failures_per_hour", "Repeated failures"),
        ("max_accesses_per_day", "Unusually high access"),
        ("max_accesses_per_minute", "Rapid automated access"),
        ("max_accesses_per_hour", "Potential key theft"),
    ] {
        let limit = if setting == "max_failures_per_hour" { "1" } else { "4" };
        one(
            c,
            &format!(
                "SELECT watchllm.set_setting('{setting}', '{limit}', provider_key_id => '{id}')"
            ),
        );
        assert_eq!(one(c, &judge(3)), format!("t|5|2|{reason}"));
    }
    for hours in ["0", "745", "-1"] {
        assert_eq!(code(c, &judge(hours.parse().unwrap())), "22023", "{hours}");
    }
    assert_eq!(code(c, "SELECT * FROM watchllm.detect_unusual_key_access(NULL)"), "22004");
    let tenant = login(c, "watchllm_tenant");
    let t = &mut vault.server.connect("postgres", &tenant);
    assert_eq!(code(t, &judge(1)), "02000");
    one(
        c,
        &format!(
            "SELECT watchllm.add_project_member('{}', role_name => '{tenant}')",
            vault.project
        ),
    );
    assert_eq!(one(t, &judge(3)), "t|5|2|Potential key theft");
}

/// A plain recount of every row, for a schedule with bursts, ties and borders.
#[test]
fn every_count_of_a_random_day_is_what_counting_by_hand_gives() {
    const MINUTE: i64 = 60_000_000;
    const HALF: i64 = 30 * MINUTE;
    let (vault, mut c) = vault();
    let c = &mut c;
    let id = vault.key("plainly-fake").to_string();
    let start = 1_709_600_400_000_000i64; // 2024-03-05 01:00 UTC
    let mut random = 7u64;
    let mut next = |below: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((random >> 33) % below) as i64
    };
    let (mut at, mut schedule) = (start, Vec::new());
    while schedule.len() < 1_500 {
        at += match next(10) {
            0 => 0,
            1..=5 => next(2_000_000),
            6 => MINUTE - at.rem_euclid(MINUTE), // the next full minute
            7 => MINUTE,
            8 => next(40 * MINUTE as u64) / 8,
            _ => next(20_000_000),
        };
        schedule.push((at, next(7) == 0));
    }
    for failed in [false, true] {
        let times = schedule.iter().filter(|(_, other)| *other == failed);
        let times: Vec<String> = times
            .map(|(at, _)| format!("'epoch'::timestamptz + {at} * '1 us'::interval"))
            .collect();
        let reason = if failed { ", 'inactive'" } else { "" };
        one(c, &format!("SELECT put('{id}', ARRAY[{}]{reason})", times.join(",")));
    }
    // rows of one microsecond may come in either order, so the counts of each microsecond are
    // sorted
    let mut expected = Vec::new();
    for (at, failed) in &schedule {
        let within = |failures: bool, from: i64, before: &dyn Fn(i64) -> bool| {
            schedule.iter().filter(|(t, f)| *f == failures && *t >= from && before(*t)).count()
        };
        let up_to = |t: i64| t <= *at;
        let hour = at.div_euclid(MINUTE) * MINUTE - 59 * MINUTE;
        let day = at.div_euclid(HALF) * HALF - 47 * HALF;
        expected.push((
            *at,
            within(false, at - MINUTE, &up_to),
            within(false, hour, &up_to),
            within(false, day, &up_to),
            within(true, hour, &up_to),
            *failed,
        ));
    }
    // the last row of a microsecond has counted them all
    let largest = |mut rows: Vec<(i64, usize, usize, usize, usize)>| {
        rows.sort_unstable();
        let mut kept: Vec<(i64, usize, usize, usize, usize)> = Vec::new();
        for row in rows {
            match kept.last_mut() {
                Some(last) if last.0 == row.0 => {
                    *last = (
                        row.0,
                        last.1.max(row.1),
                        last.2.max(row.2),
                        last.3.max(row.3),
                        last.4.max(row.4),
                    );
                }
                _ => kept.push(row),
            }
        }
        kept
    };
    let sql =
        "SELECT (extract(epoch FROM accessed_at) * 1000000)::bigint, accesses_minute, accesses_hour, accesses_day,
        failures_hour FROM watchllm.key_access_rates('2024-03-01Z', '2024-04-01Z')";
    let answer = rows(c, sql);
    let counted = answer.iter().map(|row| {
        let numbers: Vec<i64> = row.split('|').map(|number| number.parse().unwrap()).collect();
        (
            numbers[0],
            numbers[1] as usize,
            numbers[2] as usize,
            numbers[3] as usize,
            numbers[4] as usize,
        )
    });
    let counted: Vec<_> = counted.collect();
    assert_eq!(counted.len(), schedule.len());
    let expected = expected
        .into_iter()
        .map(|(at, minute, hour, day, failures, _)| (at, minute, hour, day, failures));
    assert_eq!(largest(counted), largest(expected.collect()));
}

#[test]
fn what_the_writer_found_the_windows_find_at_the_same_access() {
    let (vault, mut c) = vault();
    let c = &mut c;
    set(c, "max_accesses_per_minute", "20");
    set(c, "max_accesses_per_hour", "30");
    set(c, "max_accesses_per_day", "40");
    set(c, "max_failures_per_hour", "5");
    set(c, "max_distinct_keys_per_minute", "7");
    thread::sleep(Duration::from_millis(1500)); // the writer has read them
    let keys: Vec<String> = (0..10).map(|_| vault.key("plainly-fake").to_string()).collect();
    one(c, &format!("SELECT watchllm.set_provider_key_active('{}', false)", keys[9]));
    let (quiet, busy, busier) = (&keys[0], &keys[1], &keys[2]);
    for (key, times) in [(quiet, 20), (busy, 25), (busier, 45), (&keys[9], 8)] {
        for _ in 0..times {
            code(c, &decrypt(key));
        }
    }
    keys.iter().for_each(|key| {
        code(c, &decrypt(key));
    });
    let live = "SELECT type, provider_key_id, coalesce(details->>'kind' || ':' || (details->>'subject'), '-'),
        details->>'limit', detected_at FROM watchllm.security_incidents ORDER BY 1, 2, 3";
    let windows = "SELECT detector, provider_key_id, coalesce(subject, '-'), expected, window_start
        FROM watchllm.key_access_anomalies(now() - interval '1 hour') ORDER BY 1, 2, 3";
    let began = Instant::now();
    while rows(c, live).len() < 7 && began.elapsed() < Duration::from_secs(20) {
        thread::sleep(Duration::from_millis(50));
    }
    let found = rows(c, live);
    assert_eq!(found, rows(c, windows));
    let kinds: Vec<&str> = found.iter().map(|row| row.split('|').next().unwrap()).collect();
    let (rapid, theft) = ("rapid_automated_access", "potential_key_theft");
    let (failures, high) = ("repeated_failures", "unusually_high_access");
    assert_eq!(kinds, ["mass_key_reading", theft, rapid, rapid, rapid, failures, high]);
}
