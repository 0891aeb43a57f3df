//! Live counters and SQL windows must agree. One day of bursts, sweeps, pauses and failures is put
//! into the trail. The watch judges it access by access, and the SQL windows search it. Both must
//! find the same, at the same access.

use std::collections::BTreeMap;

use crate::keys::{one, rows};
use crate::windows::vault;
use watchllm_core::anomaly::{Detector, KeyAccess, Rules, Subject, Watch};
use watchllm_core::id::{KeyRef, ProjectId, ProviderKeyId};
use watchllm_core::moment::Moment;
use watchllm_core::trail::{AccessType, Counted};

/// One access of the day.
struct Event {
    at: i64,
    key: usize,
    role: String,
    access_type: AccessType,
    failed: bool,
}

/// A day that is the same in every run: 2024-03-05 from 00:30 UTC on. No two events share a
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
            let access_type = if i % 3 == 0 { AccessType::Validate } else { AccessType::Decrypt };
            let (role, failed) = (format!("app_{role}"), mode == 7);
            events.push(Event { at, key, role, access_type, failed });
        }
    }
    events
}

/// Every detector that counts: its limit on that day, and how often the day must cross it at least.
const REPLAYED: [(Detector, u32, usize); 5] = [
    (Detector::RapidAccess, 20, 20),
    (Detector::Theft, 60, 10),
    (Detector::UnusuallyHigh, 150, 3),
    (Detector::Failures, 25, 3),
    (Detector::MassReading, 6, 5),
];

#[test]
fn every_detector_that_counts_is_replayed() {
    for detector in Detector::ALL.iter().filter(|detector| detector.limit().is_some()) {
        assert!(
            REPLAYED.iter().any(|(replayed, ..)| replayed == detector),
            "{detector:?} has no line in REPLAYED"
        );
    }
}

#[test]
fn the_same_day_through_the_live_counters_and_through_the_windows() {
    let (vault, mut c) = vault();
    let c = &mut c;
    let keys: Vec<uuid::Uuid> = (0..12).map(|i| vault.key(&format!("plainly-fake-{i}"))).collect();
    for (detector, limit, _) in REPLAYED {
        let name = detector.limit().unwrap().name();
        one(c, &format!("SELECT watchllm.set_setting('{name}', '{limit}')"));
    }
    let events = day();
    let mut groups: BTreeMap<(usize, &str, &str, bool), Vec<String>> = BTreeMap::new();
    for event in &events {
        let time = format!("'epoch'::timestamptz + {} * '1 us'::interval", event.at);
        let kind = event.access_type.word();
        groups.entry((event.key, &event.role, kind, event.failed)).or_default().push(time);
    }
    for ((key, role, kind, failed), times) in groups {
        let reason = if failed { "'inactive'" } else { "NULL" };
        let (key, times) = (keys[key], times.join(","));
        one(
            c,
            &format!("SELECT put('{key}', ARRAY[{times}], {reason}, '{role}', kind => '{kind}')"),
        );
    }

    let mut watch = Watch::default();
    let mut rules = Rules::default();
    for (detector, limit, _) in REPLAYED {
        rules.base = rules.base.with(detector, limit);
    }
    watch.set_rules(rules);
    for event in &events {
        let at = Moment::new(event.at);
        watch.end_episodes(at);
        let (project, key) = (vault.project.as_bytes(), keys[event.key].as_bytes());
        let key = KeyRef { project: ProjectId::new(*project), key: ProviderKeyId::new(*key) };
        let callers = [Some(event.role.as_str()), None, None];
        let counted = if event.failed { Counted::Failure } else { Counted::Access };
        let access_type = event.access_type;
        watch.judge(&KeyAccess { at, key, access_type, counted, callers });
    }
    let live = watch.take_findings().into_iter().filter(|finding| finding.ended.is_none());
    let mut live: Vec<String> = live
        .map(|finding| {
            let subject = match &finding.subject {
                Subject::Key(key) => key.key.to_string(),
                Subject::Caller(kind, name) => format!("{}:{name}", kind.word()),
            };
            let (word, severity) = (finding.detector.word(), finding.detector.severity().word());
            format!("{word}|{severity}|{subject}|{}", finding.began.micros())
        })
        .collect();
    live.sort_unstable();

    let sql = "SELECT detector, severity, coalesce(subject, provider_key_id::text),
            (extract(epoch FROM window_start) * 1000000)::bigint
        FROM watchllm.key_access_anomalies('2024-03-05Z', '2024-03-06Z') ORDER BY 1, 2, 3, 4";
    let mut looked_back = rows(c, sql);
    looked_back.sort_unstable();
    for (detector, _, least) in REPLAYED {
        let count = live.iter().filter(|row| row.starts_with(detector.word())).count();
        assert!(count >= least, "the day has only {count} of {detector:?}");
    }
    assert_eq!(live, looked_back);
    println!("{} events, {} findings, the same both ways", events.len(), live.len());
}
