//! What counts for a key: every access type with every failure reason. Asked are the watch in
//! Rust, SQL, each window over the trail, and the counters that people see. A reason that one of
//! them counts otherwise is found here.

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
    let counts = c.prepare("SELECT watchllm.counts_as($1, $2, $3::text IS NULL, $3)").unwrap();
    let mut events = 0;
    for (access_type, reason) in every_event() {
        let (kind, word) = (access_type.word(), reason.map(FailureReason::word));
        for &counted in Counted::ALL {
            let row = c.query_one(&counts, &[&counted.word(), &kind, &word]).unwrap();
            let in_sql: Option<bool> = row.get(0);
            let in_rust = Counted::of(access_type, reason) == Some(counted);
            assert_eq!(in_sql, Some(in_rust), "{counted:?} {kind} {word:?}");
        }
        events += 1;
    }
    assert_eq!(events, AccessType::ALL.len() * (FailureReason::ALL.len() + 1));
}

/// Puts an event of each kind about a key into the trail, all within one minute of a day.
fn put_each(c: &mut Client, key: &str, day: u32, events: &[(AccessType, Option<FailureReason>)]) {
    for (number, (access_type, reason)) in events.iter().enumerate() {
        let reason = reason.map_or("NULL".into(), |reason| format!("'{}'", reason.word()));
        let at = format!("'2024-03-{day:0>2} 10:00Z'::timestamptz + {number} * '100 ms'::interval");
        let kind = access_type.word();
        one(c, &format!("SELECT put('{key}', ARRAY[{at}], {reason}, kind => '{kind}')"));
    }
}

/// What the detectors must find on a day of these events about two keys, where every limit is one:
/// how often each counts, by the rows of the detectors.
fn expected(events: &[(AccessType, Option<FailureReason>)]) -> Vec<String> {
    let counted = |detector: &Detector| {
        let counts = |(access_type, reason): &&(AccessType, Option<FailureReason>)| {
            Counted::of(*access_type, *reason)
                .is_some_and(|counted| detector.counts(counted, *access_type))
        };
        events.iter().filter(counts).count()
    };
    let of_keys = Detector::ALL.iter().map(|detector| (detector.word(), counted(detector)));
    let reads_both = counted(&Detector::RapidAccess) > 0;
    let of_callers = [(Detector::MassReading.word(), if reads_both { 2 } else { 0 })];
    let found = of_keys.chain(of_callers).filter(|(_, observed)| *observed > 1);
    let mut found: Vec<String> =
        found.map(|(word, observed)| format!("{word}|{observed}")).collect();
    found.sort_unstable();
    found
}

#[test]
fn every_window_counts_what_rust_counts() {
    let (vault, mut c) = vault();
    let c = &mut c;
    for setting in Detector::ALL.iter().filter_map(|detector| detector.limit()) {
        one(c, &format!("SELECT watchllm.set_setting('{}', '1')", setting.name()));
    }
    let keys = [(); 2].map(|()| vault.key("plainly-fake").to_string());
    // none of a later day must be an access: the window of a day reaches back to the one before
    let days = [(5, Some(Counted::Access)), (6, Some(Counted::Failure)), (7, None)];
    let mut sizes = Vec::new();
    for (day, wanted) in days {
        let is_wanted = |(access_type, reason): &(AccessType, Option<FailureReason>)| {
            Counted::of(*access_type, *reason) == wanted
        };
        let events: Vec<_> = every_event().filter(is_wanted).collect();
        keys.iter().for_each(|key| put_each(c, key, day, &events));
        let found = format!(
            "SELECT DISTINCT detector, observed FROM watchllm.key_access_anomalies(
                '2024-03-{day:0>2}Z', '2024-03-{:0>2}Z')",
            day + 1
        );
        let mut found = rows(c, &found);
        found.sort_unstable();
        assert_eq!(found, expected(&events), "{wanted:?}");
        assert_eq!(found.is_empty(), wanted.is_none());
        sizes.push(2 * events.len());
    }
    let rates =
        "SELECT failed, count(*) FROM watchllm.key_access_rates('2024-03-05Z', '2024-03-08Z')
        GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(c, rates), [format!("f|{}", sizes[0]), format!("t|{}", sizes[1])]);
}

/// Keys whose counters differ from a count of the trail.
const DIFFERING: &str = "SELECT count(*) FROM watchllm.provider_key_records r
    LEFT JOIN watchllm.provider_key_usage u ON u.provider_key_id = r.id
    CROSS JOIN LATERAL (
        SELECT count(*) FILTER (WHERE watchllm.counts_as('access', access_type, success, failure_reason)) AS accesses,
            count(*) FILTER (WHERE watchllm.counts_as('failure', access_type, success, failure_reason)) AS failures
        FROM watchllm.provider_key_access_logs WHERE provider_key_id = r.id) t
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

/// The SQL of a detector says the same as its row, and no detector is missing where all are asked.
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
