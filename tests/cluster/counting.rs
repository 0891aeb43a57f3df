//! What counts for a key: every access type with every failure reason, asked of the watch in Rust
//! and of SQL, of each window over the trail, and of the counters that people see. A reason that one
//! of them counts otherwise is found here.

use postgres::Client;

use crate::keys::{code, damage, decrypt, one, rows};
use crate::roles::login;
use crate::windows::vault;
use crate::writer::Vault;
use watchllm_core::anomaly::Detector;
use watchllm_core::trail::{AccessType, Counted, FailureReason};

/// Every access type with every failure reason and with none.
fn every_event() -> impl Iterator<Item = (AccessType, Option<FailureReason>)> {
    AccessType::ALL.iter().flat_map(|&access_type| {
        let reasons = FailureReason::ALL.iter().copied().map(Some);
        reasons.chain([None]).map(move |reason| (access_type, reason))
    })
}

#[test]
fn every_access_type_with_every_reason_counts_the_same_in_rust_and_in_sql() {
    let vault = Vault::with("");
    let c = &mut vault.connect();
    let counts = c.prepare("SELECT watchllm.counts_as_failure($1, $2::text IS NULL, $2)").unwrap();
    let mut events = 0;
    for (access_type, reason) in every_event() {
        let word = reason.map(FailureReason::word);
        let in_sql: Option<bool> =
            c.query_one(&counts, &[&access_type.word(), &word]).unwrap().get(0);
        let in_rust = Counted::of(access_type, reason).map(|counted| counted == Counted::Failure);
        assert_eq!(in_sql, in_rust, "{} {word:?}", access_type.word());
        events += 1;
    }
    assert_eq!(events, AccessType::ALL.len() * (FailureReason::ALL.len() + 1));
}

/// Puts an event of each kind about a key into the trail, all within one minute of a day.
fn put_each(c: &mut Client, key: &str, day: u32, which: impl Fn(Option<Counted>) -> bool) -> usize {
    let events =
        every_event().filter(|(access_type, reason)| which(Counted::of(*access_type, *reason)));
    let mut number = 0;
    for (access_type, reason) in events {
        let reason = reason.map_or("NULL".into(), |reason| format!("'{}'", reason.word()));
        let at = format!("'2024-03-{day:0>2} 10:00Z'::timestamptz + {number} * '100 ms'::interval");
        let kind = access_type.word();
        one(c, &format!("SELECT put('{key}', ARRAY[{at}], {reason}, kind => '{kind}')"));
        number += 1;
    }
    number
}

#[test]
fn every_window_counts_what_rust_counts() {
    let (vault, mut c) = vault();
    let c = &mut c;
    let is = |wanted: Counted| move |counted: Option<Counted>| counted == Some(wanted);
    let keys = [(); 2].map(|()| vault.key("plainly-fake").to_string());
    let (mut accesses, mut failures) = (0, 0);
    for key in &keys {
        accesses = put_each(c, key, 5, is(Counted::Access));
        failures = put_each(c, key, 6, is(Counted::Failure));
        put_each(c, key, 7, |counted| counted.is_none());
    }
    assert!(accesses > 2 && failures > 2);
    for setting in Detector::ALL.iter().filter_map(|detector| detector.limit()) {
        one(c, &format!("SELECT watchllm.set_setting('{}', '1')", setting.name()));
    }
    let mut found = |day: u32| {
        let sql = format!(
            "SELECT DISTINCT detector, observed FROM watchllm.key_access_anomalies(
                '2024-03-{day:0>2}Z', '2024-03-{:0>2}Z') ORDER BY 1",
            day + 1
        );
        rows(c, &sql)
    };
    assert_eq!(
        found(5),
        [
            "mass_key_reading|2".to_owned(),
            format!("potential_key_theft|{accesses}"),
            format!("rapid_automated_access|{accesses}"),
            format!("unusually_high_access|{accesses}"),
        ]
    );
    // the day's window reaches back to the fifth, but nothing of the sixth or seventh is an access
    assert_eq!(found(6), [format!("repeated_failures|{failures}")]);
    assert_eq!(found(7), [""; 0]);
    let rates =
        "SELECT failed, count(*) FROM watchllm.key_access_rates('2024-03-05Z', '2024-03-08Z')
        GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(c, rates), [format!("f|{}", 2 * accesses), format!("t|{}", 2 * failures)]);
}

/// Keys of which the writer has counted something else than counting the trail gives.
const DIFFERING: &str = "SELECT count(*) FROM watchllm.provider_key_records r
    LEFT JOIN watchllm.provider_key_usage u ON u.provider_key_id = r.id
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE NOT l.failed) AS accesses, count(*) FILTER (WHERE l.failed) AS failures
        FROM (SELECT watchllm.counts_as_failure(access_type, success, failure_reason) AS failed
            FROM watchllm.provider_key_access_logs WHERE provider_key_id = r.id) l) t
    WHERE t.accesses <> coalesce(u.access_count, 0) OR t.failures <> coalesce(u.failure_count, 0)
       OR t.accesses <> coalesce((SELECT sum(a) FROM unnest(u.accesses) a), 0)
       OR t.failures <> coalesce((SELECT sum(f) FROM unnest(u.failures) f), 0)";

#[test]
fn the_counters_that_people_see_are_what_counting_the_trail_gives() {
    let vault = Vault::with(
        "watchllm_keys.anomaly_action = 'mass_key_reading=block'\nwatchllm_keys.max_distinct_keys_per_minute = 5",
    );
    let c = &mut vault.connect();
    let keys: Vec<String> =
        (0..12).map(|i| vault.key(&format!("sk-plainly-fake-{i}")).to_string()).collect();
    let [opened, damaged, inactive, deleted, blocked, unknown, ..] = &keys[..] else { panic!() };
    damage(c, damaged);
    one(c, &format!("SELECT watchllm.set_provider_key_active('{inactive}', false)"));
    one(c, &format!("SELECT watchllm.delete_provider_key('{deleted}')"));
    one(c, &format!("SELECT watchllm.block_provider_key('{blocked}', 'frozen')"));
    one(c, &format!("BEGIN; SET LOCAL session_replication_role = replica;
        UPDATE watchllm.provider_key_versions SET master_key_version = 9,
            envelope = overlay(envelope PLACING '\\x0100000009'::bytea FROM 1 FOR 5) WHERE provider_key_id = '{unknown}'; COMMIT"));
    let (tenant, thief) = (login(c, "watchllm_tenant"), login(c, "watchllm_service"));
    one(
        c,
        &format!(
            "SELECT watchllm.add_project_member('{}', role_name => '{tenant}')",
            vault.project
        ),
    );
    let tenant = &mut vault.server.connect("postgres", &tenant);
    let thief = &mut vault.server.connect("postgres", &thief);
    for key in &keys[..6] {
        code(c, &decrypt(key));
        code(c, &format!("SELECT watchllm.validate_provider_key('{key}')"));
        assert_eq!(code(tenant, &decrypt(key)), "42501");
    }
    keys.iter().rev().for_each(|key| drop(code(thief, &decrypt(key))));
    let reasons = "SELECT DISTINCT failure_reason FROM watchllm.provider_key_access_logs
        WHERE access_type IN ('decrypt', 'validate') AND NOT success ORDER BY 1";
    assert_eq!(
        rows(c, reasons),
        [
            "blocked",
            "caller_blocked",
            "damaged_envelope",
            "deleted",
            "inactive",
            "not_authorized",
            "unknown_master_key",
        ]
    );
    vault.server.poll_until("postgres", DIFFERING, "0", 30);
    let of = |key: &str| {
        format!(
            "SELECT access_count, failure_count FROM watchllm.provider_key_usage WHERE provider_key_id = '{key}'"
        )
    };
    assert_eq!(one(c, &of(opened)), "3|0"); // the last was refused as a blocked caller's
    assert_eq!(one(c, &of(blocked)), "3|0");
    assert_eq!(one(c, &of(damaged)), "0|3");
    assert_eq!(rows(c, &of(unknown)), [""; 0]);
}

/// The SQL of a detector says the same as its row, and none is forgotten where all are asked.
#[test]
fn every_detector_has_a_function_that_answers_its_word_and_its_severity() {
    let vault = Vault::with("");
    let c = &mut vault.connect();
    let mut expected: Vec<String> = Detector::ALL
        .iter()
        .map(|detector| {
            let (word, severity) = (detector.word(), detector.severity().word());
            format!("detect_{word}|'{word}', '{severity}'|t")
        })
        .collect();
    expected.sort_unstable();
    let functions = "SELECT p.proname, substring(p.prosrc FROM '''\\w+'', ''(?:low|medium|high|critical)'''),
            a.prosrc LIKE '%watchllm.' || p.proname || '(since, until)%'
        FROM pg_proc p, pg_proc a
        WHERE p.pronamespace = 'watchllm'::regnamespace AND p.proargnames @> '{detector,severity,window_start}'
          AND p.oid <> a.oid AND a.oid = 'watchllm.key_access_anomalies'::regproc ORDER BY 1";
    assert_eq!(rows(c, functions), expected);
}
