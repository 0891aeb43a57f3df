//! What the writer writes down for the watch, in the second transaction: what was found (incident,
//! evidence, block, end), who used which key first, busiest minutes. How its counters are filled:
//! `warm_up`. DESIGN §8.

use super::{Failure, Writer, transaction};
use crate::anomaly::{DAY, Detector, Finding, MINUTE, Meeting, Subject, Watch, day_of};
use crate::error::Error;
use crate::id::KeyRef;
use crate::postgres::{Owner, clock, session};
use crate::redact;
use crate::store;
use crate::trail::{AccessType, CallerKind, Event, Incident, Notice, incident};
use pgrx::{log, warning};
use std::collections::HashMap;

/// Findings, meetings and peaks written at a time.
const AT_ONCE: usize = 256;
/// Bytes of evidence about callers, as a note may have them.
const EVIDENCE: usize = 500;

/// A key or caller that people block or let in again.
pub(super) fn take_up_block(watch: &mut Watch, event: &Event) {
    if !event.success() || !matches!(event.access_type, AccessType::Block | AccessType::Unblock) {
        return;
    }
    if let Some((kind, subject)) = event.about_caller {
        watch.unblock_caller(kind, subject.get().unwrap_or_default());
    } else if let Some(key) = event.key() {
        match event.access_type {
            AccessType::Block => watch.block(key),
            _ => watch.unblock(&key),
        }
    }
}

/// Writes down what was found, in transactions of their own.
pub(super) fn flush(writer: &mut Writer) {
    let lost = std::mem::take(&mut writer.watch.lost);
    if lost > 0 {
        warning!(
            "watchllm_keys writer: {lost} findings of the watch found no room to wait for being written"
        );
    }
    writer.watch.end_episodes(clock::now());
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
        Subject::Key(key) => (Some(key.project), Some(key.key)),
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
        store::incidents::add_event(
            owner,
            &finding.incident,
            project,
            "note",
            &evidence,
            finding.began,
        );
    }
    match &finding.subject {
        Subject::Key(key) => {
            store::watch::detected(owner, *key, finding.began);
            if finding.blocks {
                store::trail::block(owner, *key, Some(finding.began));
            }
        }
        Subject::Caller(kind, subject) if finding.blocks => {
            store::watch::block_caller(owner, *kind, subject, finding);
        }
        Subject::Caller(..) => (),
    }
    is_new.then(|| incident.notice())
}

/// What everybody may read who may read the incident: counts and windows; of callers only where no
/// tenant reads it.
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
        Subject::Key(key) => format!("provider key {}", key.key),
        Subject::Caller(kind, subject) => {
            format!("caller: {} {}", kind.word(), redact::clean(subject, EVIDENCE))
        }
    };
    let blocked = if finding.blocks { ", blocked" } else { "" };
    let (what, id) = (finding.detector.says(finding.limit), finding.incident);
    warning!("watchllm_keys: {what}; {whom}{blocked}; incident {id}");
}

/// Writes down who used which key, and finds those who are new to a key that is in use for a week.
fn write_meetings(writer: &mut Writer) {
    let taken = writer.watch.take_meetings(AT_ONCE);
    if taken.is_empty() {
        return;
    }
    // One row each: the same two may have met on two days.
    let distinct: HashMap<_, _> =
        taken.iter().map(|m| ((m.key, m.kind, m.subject.clone()), m)).collect();
    let meetings: Vec<Meeting> = distinct.into_values().cloned().collect();
    match transaction(|| Ok(store::watch::meet(store::installed::owner()?, &meetings))) {
        Ok(new) => {
            for meeting in new {
                let detector = if meeting.kind == CallerKind::Role {
                    Detector::NewRole
                } else {
                    Detector::NewAddress
                };
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

/// Whether keys that this writer had not seen for a day were asleep for longer than they may be.
/// Before their last use is written anew: the table knows the one before.
fn look_at_woken(writer: &mut Writer) {
    let mut woken = writer.watch.take_woken();
    while !woken.is_empty() {
        let part = woken[..woken.len().min(AT_ONCE)].to_vec();
        let keys: Vec<KeyRef> = part.iter().map(|(key, _)| *key).collect();
        let outcome =
            transaction(|| Ok(store::watch::last_used(store::installed::owner()?, &keys)));
        let Ok(last_used) = outcome.inspect_err(|failure| {
            log!("watchllm_keys writer: what slept is looked up later: {}", failure.message);
        }) else {
            return writer.watch.put_back_woken(woken);
        };
        woken.drain(..part.len());
        let last_used: HashMap<KeyRef, i64> = last_used.into_iter().collect();
        for (key, at) in &part {
            let asleep = last_used.get(key).map_or(0, |last| at.saturating_sub(*last));
            if asleep > writer.watch.stale_after(key) {
                let days = (asleep / DAY) as u32;
                find(&mut writer.watch, Detector::DormantKey, *key, *at, days, b"");
            }
        }
    }
}

/// A finding of a moment: it has no episode. One a day for the same.
fn find(watch: &mut Watch, detector: Detector, key: KeyRef, at: i64, observed: u32, about: &[u8]) {
    let day = day_of(at).to_be_bytes();
    let incident = incident::identity(&[
        detector.word().as_bytes(),
        key.project.bytes(),
        key.key.bytes(),
        about,
        &day,
    ]);
    let blocks = watch.blocks(detector, &key);
    let subject = Subject::Key(key);
    watch.found(Finding {
        incident,
        detector,
        subject,
        began: at,
        observed,
        limit: 0,
        blocks,
        ended: None,
    });
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
