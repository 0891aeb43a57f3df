//! The watch's findings become rows, about once a second: incidents with their evidence, blocks and
//! ends. So do new callers of a key, and busiest minutes. `warm_up` fills the watch's counters
//! (docs/architecture.md#flows).

use super::sources::NamedSource;
use super::transaction::now_or_later;
use crate::anomaly::{Detector, Meeting, Subject, Watch, WatchFinding};
use crate::audit::queue::Slot;
use crate::id::KeyRef;
use crate::input::Note;
use crate::moment::{Moment, Span};
use crate::postgres::{Owner, clock};
use crate::store;
use crate::trail::incident::kinds::moment_id;
use crate::trail::{AccessType, CallerKind, Event, Notice};
use pgrx::warning;
use std::collections::HashMap;

/// The most findings, new callers and peaks written at a time.
const AT_ONCE: usize = 256;

/// Tells the watch of a key that people blocked. Those that they let in again wait for the commit
/// (`commits`).
pub(super) fn take_up_block(watch: &mut Watch, event: &Event) {
    if event.success()
        && event.access_type == AccessType::Block
        && let Some(key) = event.key()
    {
        watch.block(key);
    }
}

/// Writes what the watch found, each kind in a transaction of its own.
pub(super) fn flush(slot: &Slot, watch: &mut Watch) {
    let lost = std::mem::take(&mut watch.lost);
    if lost > 0 {
        warning!(
            "watchllm_keys writer: {lost} findings of the watch found no room \
             to wait for being written"
        );
    }
    watch.end_episodes(clock::now());
    write_meetings(watch);
    look_at_woken(watch);
    write_findings(slot, watch);
    write_peaks(watch);
}

fn write_findings(slot: &Slot, watch: &mut Watch) {
    let mut findings = watch.take_findings();
    while !findings.is_empty() {
        let part = &findings[..findings.len().min(AT_ONCE)];
        let written = now_or_later("incidents are written", |owner| -> Vec<Outcome> {
            part.iter().map(|finding| write(owner, finding)).collect()
        });
        // The rest is put back too. Otherwise callers would wait once more for the same lock at
        // each part.
        let Some(written) = written else { return watch.put_back(findings) };
        let has_row = |(finding, written): &(&WatchFinding, &Outcome)| {
            finding.ended.is_none() && !written.is_held
        };
        part.iter().zip(&written).filter(has_row).for_each(|(finding, _)| warn(finding));
        slot.announce_all(written.iter().filter_map(|written| written.notice).collect());
        findings.drain(..part.len());
    }
}

/// What became of a finding.
struct Outcome {
    /// What listeners are told.
    notice: Option<Notice>,
    /// It was over its source's budget.
    is_held: bool,
}

/// Writes one finding; listeners are told of a new one. Over the budget it is only counted, but the
/// key is marked all the same. A finding that blocks always has its row: people must see why.
fn write(owner: Owner, finding: &WatchFinding) -> Outcome {
    let incident = finding.to_incident();
    let (id, project, began) = (incident.id, incident.project_id, finding.began);
    if let Some((at, accesses)) = finding.ended {
        let note = format!("{accesses} accesses while it lasted");
        store::incidents::add_event(owner, &id, project, "ended", &note, at);
        return Outcome { notice: None, is_held: false };
    }
    if !finding.blocks && !store::leaks::is_known(owner, id) {
        let source = source(finding);
        if !source.raise(owner, began.day()) {
            mark_subject(owner, finding);
            return Outcome { notice: source.hold(owner, began.day(), 1), is_held: true };
        }
    }
    let is_new = store::incidents::write(owner, &incident);
    if let Some(evidence) = evidence(owner, finding) {
        store::incidents::add_event(owner, &id, project, "note", &evidence, began);
    }
    mark_subject(owner, finding);
    Outcome { notice: is_new.then(|| incident.notice()), is_held: false }
}

/// Whose budget a finding takes: the project's or the caller's, for each detector.
fn source(finding: &WatchFinding) -> NamedSource {
    let (word, severity) = (finding.detector.word(), finding.detector.severity());
    match &finding.subject {
        Subject::Key(key) => NamedSource::of_project(key.project, word, severity),
        Subject::Caller(kind, name) => NamedSource::of_caller(*kind, name, word, severity),
    }
}

/// Marks the key, and blocks the key or the caller if its limits say so.
fn mark_subject(owner: Owner, finding: &WatchFinding) {
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
}

/// A note that names who used the key within the last minute. Only the staff reads notes.
fn evidence(owner: Owner, finding: &WatchFinding) -> Option<String> {
    let Subject::Key(key) = &finding.subject else { return None };
    let callers = store::watch::callers(owner, *key, finding.began - Span::MINUTE, finding.began);
    let text = format!("callers within the minute before: {}", callers.join("; "));
    (!callers.is_empty()).then(|| Note::clean(&text).into_string())
}

fn warn(finding: &WatchFinding) {
    let whom = match &finding.subject {
        Subject::Key(key) => format!("provider key {}", key.key),
        Subject::Caller(kind, subject) => {
            format!("caller: {} {}", kind.word(), Note::clean(subject).as_str())
        }
    };
    let blocked = if finding.blocks { ", blocked" } else { "" };
    let (what, id) = (finding.detector.says(finding.limit), finding.incident);
    warning!("watchllm_keys: {what}; {whom}{blocked}; incident {id}");
}

/// Writes which caller used which key. Finds callers that are new to a key which has been in use
/// for a week.
fn write_meetings(watch: &mut Watch) {
    let taken = watch.take_meetings(AT_ONCE);
    if taken.is_empty() {
        return;
    }
    // One row for each pair, which may have met on two days.
    let distinct: HashMap<_, _> =
        taken.iter().map(|m| ((m.key, m.kind, m.subject.clone()), m)).collect();
    let meetings: Vec<Meeting> = distinct.into_values().cloned().collect();
    let new =
        now_or_later("callers are written", |owner| store::watch::save_meetings(owner, &meetings));
    let Some(new) = new else { return watch.put_back_meetings(taken) };
    for meeting in new {
        let detector =
            if meeting.kind == CallerKind::Role { Detector::NewRole } else { Detector::NewAddress };
        let by = Some((meeting.kind, &*meeting.subject));
        add_finding(watch, detector, meeting.key, meeting.at, 1, by);
    }
}

/// Checks keys that this writer had not seen for a day: were they unused for too long? This runs
/// before their last use is written, because the table still holds the one before.
fn look_at_woken(watch: &mut Watch) {
    let mut woken = watch.take_woken();
    while !woken.is_empty() {
        let part = woken[..woken.len().min(AT_ONCE)].to_vec();
        let keys: Vec<KeyRef> = part.iter().map(|(key, _)| *key).collect();
        let last_used =
            now_or_later("what slept is looked up", |owner| store::watch::last_used(owner, &keys));
        let Some(last_used) = last_used else { return watch.put_back_woken(woken) };
        woken.drain(..part.len());
        let last_used: HashMap<KeyRef, Moment> = last_used.into_iter().collect();
        for (key, at) in &part {
            let asleep = last_used.get(key).map_or(Span::NONE, |last| *at - *last);
            if asleep > watch.stale_after(key) {
                let days = asleep.whole_days() as u32;
                add_finding(watch, Detector::DormantKey, *key, *at, days, None);
            }
        }
    }
}

/// A finding of a single moment, without an episode. There is one a day for the same subject.
fn add_finding(
    watch: &mut Watch,
    detector: Detector,
    key: KeyRef,
    at: Moment,
    observed: u32,
    by: Option<(CallerKind, &str)>,
) {
    let incident = moment_id(detector.incident_type(), key, by, at);
    let blocks = watch.blocks(detector, &key);
    let subject = Subject::Key(key);
    watch.add_finding(WatchFinding {
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

fn write_peaks(watch: &mut Watch) {
    let peaks = watch.changed_peaks(AT_ONCE);
    if peaks.is_empty() {
        return;
    }
    let written = now_or_later("busiest minutes are written", |owner| {
        store::watch::save_peaks(owner, &peaks);
    });
    if written.is_none() {
        watch.put_back_peaks(&peaks);
    }
}
