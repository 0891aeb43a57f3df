//! Live counters and SQL windows must agree. One day of bursts, sweeps, pauses and failures is put
//! into the trail. The watch judges it access by access, and the SQL windows search it. Both must
//! find the same, at the same access.

use std::collections::{BTreeMap, HashMap};

use postgres::Client;
use uuid::Uuid;

use crate::keys::{one, rows};
use crate::windows::vault;
use crate::writer::Vault;
use watchllm_core::anomaly::{Detector, KeyAccess, Peak, Rules, Subject, Watch, WatchFinding};
use watchllm_core::id::{KeyRef, ProjectId, ProviderKeyId};
use watchllm_core::moment::Moment;
use watchllm_core::trail::{AccessType, Counted};

/// One access of the day.
struct Event {
    at: i64,
    key: usize,
    role: String,
    access_type: AccessType,
    /// Why it failed or was refused.
    reason: Option<&'static str>,
}

/// 2024-03-05 from 00:30 UTC on.
fn day() -> Vec<Event> {
    days(1_709_598_600_000_000, 1_709_680_000_000_000, 11)
}

/// Accesses between two times, the same in every run. No two events share a microsecond.
fn days(mut at: i64, until: i64, mut random: u64) -> Vec<Event> {
    const SECOND: u64 = 1_000_000;
    let mut below = |most: u64| {
        random =
            random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % most
    };
    let mut events = Vec::new();
    while at < until {
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
            let role = format!("app_{role}");
            // Now and then somebody is refused, who would else have opened the key.
            let refused = (at % 9 == 0).then_some("blocked");
            let reason = if mode == 7 { Some("inactive") } else { refused };
            events.push(Event { at, key, role, access_type, reason });
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
    let keys: Vec<Uuid> = (0..12).map(|i| vault.key(&format!("plainly-fake-{i}"))).collect();
    for (detector, limit, _) in REPLAYED {
        let name = detector.limit().unwrap().name();
        one(c, &format!("SELECT watchllm.set_setting('{name}', '{limit}')"));
    }
    let events = day();
    put(c, &keys, &events);
    let mut rules = Rules::default();
    for (detector, limit, _) in REPLAYED {
        rules.base = rules.base.with(detector, limit);
    }
    let mut watch = Watch::default();
    watch.set_rules(rules);
    events.iter().for_each(|event| judge(&mut watch, &vault, &keys, event));
    let found = watch.take_findings();
    let mut live: Vec<String> =
        found.iter().filter(|found| found.ended.is_none()).map(row).collect();
    live.sort_unstable();

    let looked_back = looked_back(c, "'2024-03-05Z', '2024-03-06Z'");
    for (detector, _, least) in REPLAYED {
        let count = live.iter().filter(|row| row.starts_with(detector.word())).count();
        assert!(count >= least, "the day has only {count} of {detector:?}");
    }
    assert_eq!(live, looked_back);
    println!("{} events, {} findings, the same both ways", events.len(), live.len());
}

/// Puts the events into the trail.
fn put(c: &mut Client, keys: &[Uuid], events: &[Event]) {
    let mut groups: BTreeMap<(usize, &str, &str, Option<&str>), Vec<String>> = BTreeMap::new();
    for event in events {
        let time = format!("'epoch'::timestamptz + {} * '1 us'::interval", event.at);
        let kind = event.access_type.word();
        groups.entry((event.key, &event.role, kind, event.reason)).or_default().push(time);
    }
    for ((key, role, kind, reason), times) in groups {
        let reason = reason.map_or("NULL".to_owned(), |reason| format!("'{reason}'"));
        for times in times.chunks(1_000) {
            let (key, times) = (keys[key], times.join(","));
            one(
                c,
                &format!(
                    "SELECT put('{key}', ARRAY[{times}], {reason}, '{role}', kind => '{kind}')"
                ),
            );
        }
    }
}

fn key_of(vault: &Vault, key: &Uuid) -> KeyRef {
    let (project, key) = (*vault.project.as_bytes(), *key.as_bytes());
    KeyRef { project: ProjectId::new(project), key: ProviderKeyId::new(key) }
}

/// Has the watch judge an event, once what is over has ended.
fn judge(watch: &mut Watch, vault: &Vault, keys: &[Uuid], event: &Event) {
    let (at, key) = (Moment::new(event.at), key_of(vault, &keys[event.key]));
    watch.end_episodes(at);
    let callers = [Some(event.role.as_str()), None, None];
    let is_failure = event.reason == Some("inactive");
    let counted = if is_failure { Counted::Failure } else { Counted::Access };
    let access = KeyAccess { at, key, access_type: event.access_type, counted, callers };
    if event.reason == Some("blocked") {
        watch.judge_refused(&access);
    } else {
        watch.judge(&access);
    }
}

fn subject(finding: &WatchFinding) -> String {
    match &finding.subject {
        Subject::Key(key) => key.key.to_string(),
        Subject::Caller(kind, name) => format!("{}:{name}", kind.word()),
    }
}

/// A finding as a detector's function tells it.
fn row(finding: &WatchFinding) -> String {
    let (word, severity) = (finding.detector.word(), finding.detector.severity().word());
    let (began, limit) = (finding.began.micros(), finding.limit);
    format!("{word}|{severity}|{}|{began}|{limit}", subject(finding))
}

fn looked_back(c: &mut Client, time: &str) -> Vec<String> {
    let mut found = rows(
        c,
        &format!(
            "SELECT detector, severity, coalesce(subject, provider_key_id::text),
                (extract(epoch FROM window_start) * 1000000)::bigint, expected
            FROM watchllm.key_access_anomalies({time})"
        ),
    );
    found.sort_unstable();
    found
}

/// Stores what the watch found and counted, as its writer does.
fn store(c: &mut Client, vault: &Vault, found: &[WatchFinding], peaks: &[Peak]) {
    let time = |at: Moment| format!("'epoch'::timestamptz + {} * '1 us'::interval", at.micros());
    for finding in found {
        let (id, word) = (finding.incident, finding.detector.word());
        let Subject::Key(key) = &finding.subject else { continue };
        let (project, key) = (vault.project, key.key);
        let sql = match finding.ended {
            None => format!(
                "INSERT INTO watchllm.security_incidents VALUES ('{id}', '{word}', 'high', '{project}', '{key}', '{{}}', {})",
                time(finding.began)
            ),
            Some((at, _)) => format!(
                "INSERT INTO watchllm.incident_events VALUES (gen_random_uuid(), '{id}', '{project}', 'ended', NULL, 'writer', {})",
                time(at)
            ),
        };
        one(c, &sql);
    }
    for Peak { kind, subject, day, distinct_keys } in peaks {
        one(
            c,
            &format!(
                "INSERT INTO watchllm.caller_peaks VALUES ('{}', '{subject}', '1970-01-01'::date + {day}, {distinct_keys})",
                kind.word()
            ),
        );
    }
}

/// Twelve days: each third is long, the others go on into the next. On the last two somebody reads
/// one key and fails on another, more often than their own past allows.
fn twelve_days() -> Vec<Event> {
    const HOUR: i64 = 3_600_000_000;
    let one = |day: i64| {
        let began = 1_709_251_200_000_000 + day * 24 * HOUR; // 2024-03-01
        let hours = if day % 3 == 2 { 10 + day } else { 3 };
        let by_day = days(began + HOUR, began + hours * HOUR, 7 + day as u64);
        let thefts = if day < 10 { 0 } else { 2_500 };
        let theft = (0..thefts).map(move |i| Event {
            at: began + 22 * HOUR + i * 100_000,
            key: (day % 2 + i % 7 / 6) as usize,
            role: "thief".into(),
            access_type: AccessType::Decrypt,
            reason: (i % 7 == 6).then_some("inactive"),
        });
        let late =
            days(began + 24 * HOUR - HOUR / 4, began + 24 * HOUR - 1_000_000, 100 + day as u64);
        by_day.into_iter().chain(theft).chain(late)
    };
    (0..12).flat_map(one).collect()
}

/// What a watch finds of these events, day by day, with the callers' busiest minutes.
fn live(
    vault: &Vault,
    keys: &[Uuid],
    events: &[Event],
    rules: Rules,
) -> (Watch, Vec<WatchFinding>, Vec<Peak>) {
    let (mut watch, mut found, mut peaks) = (Watch::default(), Vec::new(), Vec::new());
    watch.set_rules(rules);
    let known: Vec<KeyRef> = keys.iter().map(|key| key_of(vault, key)).collect();
    watch.remember_past(&known, &HashMap::new());
    let mut day = None;
    for event in events {
        if day
            .replace(Moment::new(event.at).day())
            .is_some_and(|day| Moment::new(event.at).day() > day)
        {
            peaks.extend(watch.changed_peaks(usize::MAX));
        }
        judge(&mut watch, vault, keys, event);
        found.extend(watch.take_findings());
    }
    (watch, found, peaks)
}

#[test]
fn twelve_days_by_the_keys_own_past_and_by_fixed_limits_both_ways() {
    let (vault, mut c) = vault();
    let c = &mut c;
    let keys: Vec<Uuid> = (0..12).map(|i| vault.key(&format!("plainly-fake-{i}"))).collect();
    let mut rules = Rules::default();
    for (detector, limit, _) in REPLAYED {
        let name = detector.limit().unwrap().name();
        one(c, &format!("SELECT watchllm.set_setting('{name}', '{limit}')"));
        rules.base = rules.base.with(detector, limit);
    }
    let events = twelve_days();
    put(c, &keys, &events);
    let mut both = Vec::new();
    for basis in ["own_past", "fixed"] {
        one(c, &format!("SELECT watchllm.set_setting('limit_basis', '{basis}')"));
        let mut rules = Rules { base: rules.base, ..Rules::default() };
        rules.take("limit_basis", basis);
        let (mut watch, found, peaks) = live(&vault, &keys, &events, rules);
        if basis == "own_past" {
            store(c, &vault, &found, &peaks);
            busiest_both_ways(c, &vault, &keys, &mut watch);
        }
        let mut live: Vec<String> =
            found.iter().filter(|found| found.ended.is_none()).map(row).collect();
        live.sort_unstable();
        // wherever the session is
        one(c, "SET timezone = 'Pacific/Kiritimati'");
        let looked_back = looked_back(c, "'2024-03-01Z', '2024-03-14Z'");
        one(c, "SET timezone = 'UTC'");
        assert_eq!(live, looked_back, "{basis}");
        both.push(live);
    }
    let [own, fixed] = &both[..] else { panic!() };
    for (detector, limit, _) in REPLAYED {
        let of_it = |rows: &[String], stated: bool| {
            let ending = format!("|{limit}");
            let is_it = |row: &&String| {
                row.starts_with(detector.word()) && row.ends_with(&ending) == stated
            };
            rows.iter().filter(is_it).count()
        };
        println!(
            "{detector:?}: {} and {} by the past, {} fixed",
            of_it(own, true),
            of_it(own, false),
            of_it(fixed, true)
        );
        assert!(of_it(fixed, true) > 0 && of_it(fixed, false) == 0, "{detector:?}");
        let goes_by_past = Detector::OF_THE_PAST.contains(&detector);
        assert_eq!(of_it(own, false) > 0, goes_by_past, "{detector:?}");
        let is_quieter = of_it(own, true) < of_it(fixed, true);
        assert_eq!(is_quieter, detector != Detector::Failures, "{detector:?}");
    }
}

/// The busiest minutes, hours and days that the watch counted, against a count of the trail.
fn busiest_both_ways(c: &mut Client, vault: &Vault, keys: &[Uuid], watch: &mut Watch) {
    let mut days = 0;
    for key in keys {
        let past = watch.past(&key_of(vault, key)).unwrap();
        for (place, detector) in Detector::OF_THE_PAST.iter().enumerate() {
            let setting = detector.limit().unwrap().name();
            let sql = format!(
                "SELECT day - '1970-01-01'::date, accesses FROM watchllm.key_busiest('{}', '{key}', '{setting}',
                    ('1970-01-01'::date + {})::timestamp AT TIME ZONE 'UTC', 'infinity') ORDER BY 1 DESC",
                vault.project,
                past.newest - 7
            );
            let counted: Vec<String> = past
                .busiest
                .iter()
                .zip((0..).map(|back| past.newest - back))
                .filter(|(counts, _)| counts[place] > 0)
                .map(|(counts, day)| format!("{day}|{}", counts[place]))
                .collect();
            assert_eq!(counted, rows(c, &sql), "{key} {setting}");
            days += counted.len();
        }
    }
    assert!(days > 150, "{days}");
}
