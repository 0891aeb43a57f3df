//! What the writer does for the watch: fills its counters from the trail when it starts, in the background; reads the
//! limits; and in the second transaction writes down what was found: incident, evidence, block, end. DESIGN §8.

use super::writer::{Failure, Writer, transaction};
use crate::acting_owner::{Owner, session};
use crate::anomaly::{Detector, Finding, KeyId, Limits, Meeting, Override, Rules, Subject, Watch};
use crate::error::Error;
use crate::redact;
use crate::settings::{
    self,
    watch::{Threshold, threshold},
};
use crate::store;
use crate::trail::{AccessType, CallerKind, Event, Incident, Notice, incident};
use pgrx::{log, warning};
use std::collections::{HashMap, HashSet};
use std::time::Instant;

/// Rows of the trail that are read at a time while the counters are filled: about 4 ms, which is what an event may wait.
const ROWS_AT_ONCE: i64 = 1_000;
/// Rows of the last minute that are read before the first event is served: two seconds at the most.
const LAST_MINUTE: i64 = 100_000;
/// Findings, meetings and peaks written at a time.
const AT_ONCE: usize = 256;
/// Bytes of evidence about callers, as a note may have them.
const EVIDENCE: usize = 500;

const MINUTE: i64 = 60_000_000;
/// The longest window, and the half hour in which it begins.
const DAY: i64 = (24 * 60 + 30) * MINUTE;

/// How far the counters are filled from the trail.
pub struct WarmUp {
    /// The last row that an earlier writer wrote.
    until: i64,
    since: i64,
    /// The place before which is read next; None: all is read.
    before: Option<(i64, i64, i64)>,
    rows: u64,
    began: Instant,
}

/// Fills the watch for a new writer: blocks, limits, open episodes and the last minute at once, the day before it later.
pub fn start(writer: &mut Writer) -> Result<(), Failure> {
    if writer.warm_up.is_some() {
        return Ok(());
    }
    let until = writer.chain.as_ref().and_then(|chain| chain.head).map_or(0, |head| head.seq);
    let now = session::now();
    let watch = &mut writer.watch;
    let (before, blocks) = transaction(|| {
        let owner = store::installed::owner()?;
        watch.set_rules(rules(owner));
        store::watch::blocked_keys(owner).into_iter().for_each(|key| watch.block(key));
        let blocked = store::watch::blocked_callers(owner);
        blocked.iter().for_each(|(kind, subject)| watch.block_caller(*kind, subject));
        store::watch::peaks(owner).iter().for_each(|peak| watch.remember_peak(peak));
        let first = (now + MINUTE, i64::MAX, i64::MAX);
        let minute = store::watch::past(owner, now - MINUTE, first, until, LAST_MINUTE);
        // The oldest first: pairs of caller and key lie in the order of their times.
        for access in minute.iter().rev().filter_map(store::watch::Past::access) {
            watch.remember(&access);
            watch.remember_callers(&access);
        }
        for (detector, subject, incident, began) in store::watch::open_episodes(owner) {
            watch.remember_episode(detector, subject, incident, began);
        }
        Ok((minute.last().map_or(first, |row| row.place), blocks_of(&minute)))
    })?;
    for (key, since) in blocks {
        writer.watch.block(key);
        writer.uses.block_again(key, since);
    }
    writer.watch.begin_filling();
    writer.warm_up = Some(WarmUp { until, since: now - DAY, before: Some(before), rows: 0, began: Instant::now() });
    Ok(())
}

/// Keys that people blocked within these rows, the newest first, and did not let in again. What they let in again and no
/// writer wrote down stays blocked: they see it and say so once more.
fn blocks_of(rows: &[store::watch::Past]) -> Vec<(KeyId, i64)> {
    let mut decided = HashSet::new();
    let changes = rows.iter().filter_map(|row| Some((row.block?, row.place.0)));
    let last = changes.filter(|((key, _), _)| decided.insert(*key));
    last.filter_map(|((key, is_blocked), at)| is_blocked.then_some((key, at))).collect()
}

/// Takes the next rows of the trail into the counters; whether there were any.
pub fn warm_up(writer: &mut Writer) -> bool {
    let Some(state) = writer.warm_up.as_mut() else { return false };
    let Some(before) = state.before else { return false };
    let outcome = transaction(|| {
        Ok(store::watch::past(store::installed::owner()?, state.since, before, state.until, ROWS_AT_ONCE))
    });
    let rows = match outcome {
        Ok(rows) => rows,
        Err(failure) => {
            log!("watchllm_keys writer: counters are filled later: {}", failure.message);
            return false;
        }
    };
    rows.iter().filter_map(store::watch::Past::access).for_each(|access| writer.watch.remember(&access));
    state.rows += rows.len() as u64;
    state.before = rows.last().map(|row| row.place);
    if rows.len() < ROWS_AT_ONCE as usize {
        state.before = None;
        writer.watch.look_at_all(session::now());
        let (rows, time) = (state.rows, state.began.elapsed().as_millis());
        log!("watchllm_keys writer: the watch's counters are filled from {rows} rows of the trail after {time} ms");
    }
    true
}

/// Reads the limits anew; what is in the way now is tried again at the next beat.
pub fn read_rules(writer: &mut Writer) {
    let outcome = transaction(|| Ok(rules(store::installed::owner()?)));
    writer.limits_are_late = outcome.is_err();
    match outcome {
        Ok(rules) => writer.watch.set_rules(rules),
        Err(failure) => log!("watchllm_keys writer: limits are read later: {}", failure.message),
    }
}

/// The limits of this database, its projects and keys.
fn rules(owner: Owner) -> Rules {
    let action = settings::watch::anomaly_action();
    let blocks = settings::action::blocking(&action).unwrap_or_else(|problem| {
        warning!("watchllm_keys writer: anomaly_action counts as alert: {problem}");
        0
    });
    let base = Limits {
        minute: threshold(Threshold::AccessesPerMinute),
        hour: threshold(Threshold::AccessesPerHour),
        day: threshold(Threshold::AccessesPerDay),
        failures: threshold(Threshold::FailuresPerHour),
        stale: i64::from(settings::watch::stale_after()) * MINUTE,
        blocks,
    };
    let mut rules = Rules { base, distinct: threshold(Threshold::DistinctKeysPerMinute), ..Rules::default() };
    let mut database = Override::default();
    for own in store::settings::all(owner) {
        if own.name == "max_distinct_keys_per_minute" {
            rules.distinct = own.value.parse().unwrap_or(rules.distinct);
        }
        let scope = match (own.project, own.key) {
            (Some(project), Some(key)) => rules.keys.entry((project, key)).or_default(),
            (Some(project), None) => rules.projects.entry(project).or_default(),
            (None, _) => &mut database,
        };
        override_by(scope, &own.name, &own.value);
    }
    rules.base = rules.base.overridden(&database);
    rules
}

/// Takes up one override; names that are none of the watch's say nothing here.
fn override_by(scope: &mut Override, name: &str, value: &str) {
    let count = value.parse().ok();
    match name {
        "max_accesses_per_minute" => scope.minute = count,
        "max_accesses_per_hour" => scope.hour = count,
        "max_accesses_per_day" => scope.day = count,
        "max_failures_per_hour" => scope.failures = count,
        "stale_after" => scope.stale = settings::watch::minutes(value).map(|minutes| i64::from(minutes) * MINUTE),
        "anomaly_action" => scope.blocks = settings::action::blocking(value).ok(),
        _ => (),
    }
}

/// A key or caller that people block or let in again.
pub fn take_up_block(watch: &mut Watch, event: &Event) {
    if !event.success() || !matches!(event.access_type, AccessType::Block | AccessType::Unblock) {
        return;
    }
    if let Some((kind, subject)) = event.about_caller {
        watch.unblock_caller(kind, subject.get().unwrap_or_default());
    } else if let (Some(project), Some(key)) = (event.project_id, event.provider_key_id) {
        match event.access_type {
            AccessType::Block => watch.block((project, key)),
            _ => watch.unblock(&(project, key)),
        }
    }
}

/// Writes down what was found, in transactions of their own.
pub fn flush(writer: &mut Writer) {
    let lost = std::mem::take(&mut writer.watch.lost);
    if lost > 0 {
        warning!("watchllm_keys writer: {lost} findings of the watch found no room to wait for being written");
    }
    writer.watch.end_episodes(session::now());
    write_meetings(writer);
    look_at_woken(writer);
    write_findings(writer);
    write_peaks(writer);
}

fn write_findings(writer: &mut Writer) {
    let mut findings = writer.watch.take_findings();
    while !findings.is_empty() {
        let part = &findings[..findings.len().min(AT_ONCE)];
        let outcome = transaction(|| {
            let owner = store::installed::owner()?;
            Ok(part.iter().filter_map(|finding| write(owner, finding)).collect::<Vec<Notice>>())
        });
        match outcome {
            Ok(fresh) => {
                let database = session::database().to_u32();
                part.iter().filter(|finding| finding.ended.is_none()).for_each(warn);
                fresh.into_iter().for_each(|notice| writer.slot.announce(database, notice));
                findings.drain(..part.len());
            }
            // The rest too: each part could wait as long for the same lock, and callers behind it.
            Err(failure) => {
                log!("watchllm_keys writer: incidents are written later: {}", failure.message);
                return writer.watch.put_back(findings);
            }
        }
    }
}

/// Writes one finding; listeners are told of a new one.
fn write(owner: Owner, finding: &Finding) -> Option<Notice> {
    let (project, key) = match &finding.subject {
        Subject::Key((project, key)) => (Some(*project), Some(*key)),
        Subject::Caller(..) => (None, None),
    };
    if let Some((at, accesses)) = finding.ended {
        let note = format!("{accesses} accesses while it lasted");
        store::incidents::add_event(owner, &finding.incident, project, "ended", &note, at);
        return None;
    }
    let incident = Incident {
        id: finding.incident,
        kind: finding.detector.incident_type(),
        severity: finding.detector.severity(),
        project_id: project,
        provider_key_id: key,
        details: details(finding),
        detected_at: finding.began,
    };
    let is_new = store::incidents::write(owner, &incident);
    if let Some(evidence) = evidence(owner, finding) {
        store::incidents::add_event(owner, &finding.incident, project, "note", &evidence, finding.began);
    }
    match &finding.subject {
        Subject::Key(key) => {
            store::watch::detected(owner, *key, finding.began);
            if finding.blocks {
                store::trail::block(owner, key.0, key.1, Some(finding.began));
            }
        }
        Subject::Caller(kind, subject) if finding.blocks => {
            store::watch::block_caller(owner, *kind, subject, finding);
        }
        Subject::Caller(..) => (),
    }
    is_new.then(|| incident.notice())
}

/// What everybody may read who may read the incident: counts and windows; of callers only where no tenant reads it.
fn details(finding: &Finding) -> String {
    let mut details = serde_json::json!({ "what": finding.detector.says(finding.limit), "blocked": finding.blocks });
    if let Some(window) = finding.detector.window() {
        details["window"] = window.into();
        details["observed"] = finding.observed.into();
        details["limit"] = finding.limit.into();
    }
    if finding.detector == Detector::DormantKey {
        details["days_asleep"] = finding.observed.into();
    }
    if let Subject::Caller(kind, subject) = &finding.subject {
        details["kind"] = kind.word().into();
        details["subject"] = (**subject).into();
    }
    details.to_string()
}

/// Who used the key within the last minute: a note, which the staff alone reads.
fn evidence(owner: Owner, finding: &Finding) -> Option<String> {
    let Subject::Key(key) = &finding.subject else { return None };
    let callers = store::watch::callers(owner, *key, finding.began - MINUTE, finding.began);
    let text = format!("callers within the minute before: {}", callers.join("; "));
    (!callers.is_empty()).then(|| redact::clean(&text, EVIDENCE))
}

fn warn(finding: &Finding) {
    let whom = match &finding.subject {
        Subject::Key((_, key)) => format!("provider key {}", incident::hyphened(*key)),
        Subject::Caller(kind, subject) => format!("caller: {} {}", kind.word(), redact::clean(subject, EVIDENCE)),
    };
    let blocked = if finding.blocks { ", blocked" } else { "" };
    let (what, id) = (finding.detector.says(finding.limit), incident::hyphened(finding.incident));
    warning!("watchllm_keys: {what}; {whom}{blocked}; incident {id}");
}

/// Writes down who used which key, and finds those who are new to a key that is in use for a week.
fn write_meetings(writer: &mut Writer) {
    let taken = writer.watch.take_meetings(AT_ONCE);
    if taken.is_empty() {
        return;
    }
    // One row each: the same two may have met on two days.
    let distinct: HashMap<_, _> = taken.iter().map(|m| ((m.key, m.kind, m.subject.clone()), m)).collect();
    let meetings: Vec<Meeting> = distinct.into_values().cloned().collect();
    match transaction(|| Ok(store::watch::meet(store::installed::owner()?, &meetings))) {
        Ok(new) => {
            for meeting in new {
                let detector = if meeting.kind == CallerKind::Role { Detector::NewRole } else { Detector::NewAddress };
                let name = [meeting.kind.word().as_bytes(), meeting.subject.as_bytes()].concat();
                find(&mut writer.watch, detector, meeting.key, meeting.at, 1, &name);
            }
        }
        Err(failure) => {
            log!("watchllm_keys writer: callers are written later: {}", failure.message);
            writer.watch.put_back_meetings(taken);
        }
    }
}

/// Whether keys that this writer had not seen for a day were asleep for longer than they may be. Before their last use is
/// written anew: the table knows the one before.
fn look_at_woken(writer: &mut Writer) {
    let mut woken = writer.watch.take_woken();
    while !woken.is_empty() {
        let part = woken[..woken.len().min(AT_ONCE)].to_vec();
        let keys: Vec<KeyId> = part.iter().map(|(key, _)| *key).collect();
        let outcome = transaction(|| Ok(store::watch::last_used(store::installed::owner()?, &keys)));
        let Ok(last_used) = outcome.inspect_err(|failure| {
            log!("watchllm_keys writer: what slept is looked up later: {}", failure.message);
        }) else {
            return writer.watch.put_back_woken(woken);
        };
        woken.drain(..part.len());
        let last_used: HashMap<KeyId, i64> = last_used.into_iter().collect();
        for (key, at) in &part {
            let asleep = last_used.get(key).map_or(0, |last| at.saturating_sub(*last));
            if asleep > writer.watch.stale_after(key) {
                let days = (asleep / (24 * 60 * MINUTE)) as u32;
                find(&mut writer.watch, Detector::DormantKey, *key, *at, days, b"");
            }
        }
    }
}

/// A finding of a moment: it has no episode. One a day for the same.
fn find(watch: &mut Watch, detector: Detector, key: KeyId, at: i64, observed: u32, about: &[u8]) {
    let day = at.div_euclid(24 * 60 * MINUTE).to_be_bytes();
    let incident = incident::identity(&[detector.word().as_bytes(), &key.0, &key.1, about, &day]);
    let blocks = watch.blocks(detector, &key);
    let subject = Subject::Key(key);
    watch.found(Finding { incident, detector, subject, began: at, observed, limit: 0, blocks, ended: None });
}

fn write_peaks(writer: &mut Writer) {
    let peaks = writer.watch.changed_peaks(AT_ONCE);
    if peaks.is_empty() {
        return;
    }
    let outcome: Result<(), Failure> = transaction(|| {
        store::watch::save_peaks(store::installed::owner()?, &peaks);
        Ok::<(), Error>(())
    });
    if let Err(failure) = outcome {
        log!("watchllm_keys writer: busiest minutes are written later: {}", failure.message);
        writer.watch.put_back_peaks(&peaks);
    }
}
