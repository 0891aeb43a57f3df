//! Live counters and windows that disagree: one day of bursts, sweeps, pauses and failures, put
//! into the trail, is judged by the watch itself, access by access, and looked for by the SQL
//! windows. Each must find the same, at the same access.

use std::collections::BTreeMap;

use crate::keys::{one, rows};
use crate::windows::vault;
use watchllm_core::anomaly::{KeyAccess, Limits, Rules, Subject, Watch};
use watchllm_core::id::{KeyRef, ProjectId, ProviderKeyId};
use watchllm_core::moment::Moment;

/// One access of the day.
struct Event {
    at: i64,
    key: usize,
    role: String,
    failed: bool,
}

/// A day that is the same in every run: 2024-03-05 from 00:30 UTC on, no two events in one
/// microsecond.
fn day() -> Vec<Event> {
    const SECOND: u64 = 1_000_000;
    let mut random = 11u64;
    let mut below = |most: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % most
    };
    let (mut at, mut events) = (1_709_598_600_000_000i64, Vec::new());
    while at < 1_709_680_000_000_000 {
        let (mode, key, role) = (below(10), below(12) as usize, below(3));
        let times = 1 + below(40);
        for i in 0..times {
            at += 1 + match mode {
                0..=3 => below(2 * SECOND),  // a burst
                4 | 5 => below(20 * SECOND), // steady
                6 => below(4 * SECOND),      // a sweep over the keys
                7 => below(3 * SECOND),      // failures
                _ => below(240 * SECOND),    // a pause
            } as i64;
            let key = if mode == 6 { (key + i as usize) % 12 } else { key };
            events.push(Event { at, key, role: format!("app_{role}"), failed: mode == 7 });
        }
    }
    events
}

#[test]
fn the_same_day_through_the_live_counters_and_through_the_windows() {
    let (vault, mut c) = vault();
    let c = &mut c;
    let keys: Vec<uuid::Uuid> = (0..12).map(|i| vault.key(&format!("plainly-fake-{i}"))).collect();
    let limits = [
        ("max_accesses_per_minute", 20),
        ("max_accesses_per_hour", 60),
        ("max_accesses_per_day", 150),
        ("max_failures_per_hour", 25),
        ("max_distinct_keys_per_minute", 6),
    ];
    for (name, limit) in limits {
        one(c, &format!("SELECT watchllm.set_setting('{name}', '{limit}')"));
    }
    let events = day();
    let mut groups: BTreeMap<(usize, &str, bool), Vec<String>> = BTreeMap::new();
    for event in &events {
        let time = format!("'epoch'::timestamptz + {} * '1 us'::interval", event.at);
        groups.entry((event.key, &event.role, event.failed)).or_default().push(time);
    }
    for ((key, role, failed), times) in groups {
        let reason = if failed { "'inactive'" } else { "NULL" };
        one(
            c,
            &format!("SELECT put('{}', ARRAY[{}], {reason}, '{role}')", keys[key], times.join(",")),
        );
    }

    let mut watch = Watch::default();
    let base = Limits { minute: 20, hour: 60, day: 150, failures: 25, ..Rules::default().base };
    watch.set_rules(Rules { base, distinct: 6, ..Rules::default() });
    for event in &events {
        let at = Moment::new(event.at);
        watch.end_episodes(at);
        let (project, key) = (vault.project.as_bytes(), keys[event.key].as_bytes());
        let key = KeyRef { project: ProjectId::new(*project), key: ProviderKeyId::new(*key) };
        let callers = [Some(event.role.as_str()), None, None];
        watch.judge(&KeyAccess { at, key, failed: event.failed, callers });
    }
    let live = watch.take_findings().into_iter().filter(|finding| finding.ended.is_none());
    let mut live: Vec<String> = live
        .map(|finding| {
            let subject = match &finding.subject {
                Subject::Key(key) => key.key.to_string(),
                Subject::Caller(kind, name) => format!("{}:{name}", kind.word()),
            };
            format!("{}|{subject}|{}", finding.detector.word(), finding.began.micros())
        })
        .collect();
    live.sort_unstable();

    let sql = "SELECT detector, coalesce(subject, provider_key_id::text),
            (extract(epoch FROM window_start) * 1000000)::bigint
        FROM watchllm.key_access_anomalies('2024-03-05Z', '2024-03-06Z') ORDER BY 1, 2, 3";
    let mut looked_back = rows(c, sql);
    looked_back.sort_unstable();
    for (detector, least) in [
        ("rapid_automated_access", 20),
        ("potential_key_theft", 10),
        ("unusually_high_access", 3),
        ("repeated_failures", 3),
        ("mass_key_reading", 5),
    ] {
        let count = live.iter().filter(|row| row.starts_with(detector)).count();
        assert!(count >= least, "the day has only {count} of {detector}");
    }
    assert_eq!(live, looked_back);
    println!("{} events, {} findings, the same both ways", events.len(), live.len());
}
