//! The watch: every access of a caller with the right is counted before it is answered. An access
//! that crosses a limit is a finding, and is refused if the settings say so. Constant cost per
//! access. The longest idle keys and callers are dropped. There is one finding per episode, which
//! begins with the access that crosses and ends at half the limit.

use super::access::{KeyAccess, Meeting, WatchFinding};
use super::callers::{CallerPlace, Callers, Peak};
use super::counter::Window;
use super::detector::{Detector, Subject};
use super::key::CountedKey;
use super::limits::Rules;
use crate::id::{IncidentId, KeyRef};
use crate::moment::{Moment, Span};
use crate::trail::incident::kinds::episode_id;
use crate::trail::{CallerKind, Counted, FailureReason};
use lru::LruCache;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// The most keys that are counted at a time: about 1.1 kB each at the default limits.
pub(super) const MAX_KEYS: usize = 50_000;
/// The most findings and first meetings that wait to be written.
const MAX_WAITING: usize = 4_096;
/// A clock that goes back by more than this was set. Earlier counts then no longer count.
const SET_BACK: Span = Span::HOUR;

/// An episode that has not ended.
#[derive(Clone, Copy)]
struct Episode {
    incident: IncidentId,
    began: Moment,
    accesses: u64,
}

/// The watch of one database: counts, limits, blocks, and what it found.
pub struct Watch {
    rules: Rules,
    generation: u32,
    keys: LruCache<KeyRef, CountedKey>,
    serials: u32,
    callers: Callers,
    blocked: HashSet<KeyRef>,
    /// By `CallerKind`.
    blocked_callers: [HashSet<Rc<str>>; 3],
    episodes: HashMap<(Detector, Subject), Episode>,
    findings: Vec<WatchFinding>,
    meetings: Vec<Meeting>,
    woken: Vec<(KeyRef, Moment)>,
    newest: Moment,
    /// The counters are being filled from the trail: only the last minute is complete.
    is_filling: bool,
    /// Findings that found no room to wait.
    pub lost: u64,
}

impl Default for Watch {
    fn default() -> Self {
        Watch {
            rules: Rules::default(),
            generation: 1,
            keys: LruCache::unbounded(),
            serials: 0,
            callers: Callers::default(),
            blocked: HashSet::new(),
            blocked_callers: Default::default(),
            episodes: HashMap::new(),
            findings: Vec::new(),
            meetings: Vec::new(),
            woken: Vec::new(),
            newest: Moment::EARLIEST,
            is_filling: false,
            lost: 0,
        }
    }
}

impl Watch {
    /// Counts an access. Answers why it is refused, if it is. The access that crosses a limit is
    /// refused already.
    pub fn judge(&mut self, access: &KeyAccess) -> Option<FailureReason> {
        self.keep_time(access.at);
        let serial = self.count(access);
        if access.counted == Counted::Failure {
            return None;
        }
        let opened_another = self.count_callers(access, serial);
        let refusal = self.refusal(access);
        // A refused access does not raise the caller's peak. Otherwise a thief's attempts would
        // widen tomorrow's limit.
        if refusal.is_none() {
            opened_another
                .into_iter()
                .flatten()
                .for_each(|place| self.callers.raise(place, access.at));
        }
        refusal
    }

    fn refusal(&self, access: &KeyAccess) -> Option<FailureReason> {
        if self.blocked.contains(&access.key) {
            return Some(FailureReason::Blocked);
        }
        let is_blocked = |(blocked, name): (&HashSet<Rc<str>>, &Option<&str>)| {
            name.is_some_and(|name| blocked.contains(name))
        };
        let blocked = self.blocked_callers.iter().zip(&access.callers).any(is_blocked);
        blocked.then_some(FailureReason::CallerBlocked)
    }

    /// Begins to take in what an earlier writer recorded. `look_at_all` ends it.
    pub fn begin_filling(&mut self) {
        self.is_filling = true;
    }

    /// Counts what an earlier writer recorded, without a verdict or finding. Rows may come in any
    /// order.
    pub fn remember(&mut self, access: &KeyAccess) {
        self.key(access.key).take(access.counted, access.access_type, access.at);
    }

    /// As `remember`, for the last minute: counts callers too.
    pub fn remember_callers(&mut self, access: &KeyAccess) {
        let serial = self.key(access.key).serial;
        for (&kind, name) in CallerKind::ALL.iter().zip(&access.callers) {
            name.and_then(|name| self.callers.open(kind, name, serial, access.at));
        }
    }

    /// Takes a caller's busiest minute of an earlier day.
    pub fn remember_peak(&mut self, peak: &Peak) {
        self.callers.remember(peak);
    }

    /// Takes over an episode that an earlier writer began.
    pub fn remember_episode(
        &mut self,
        detector: Detector,
        subject: Subject,
        incident: IncidentId,
        began: Moment,
    ) {
        self.flag(detector, &subject, true);
        self.episodes.insert((detector, subject), Episode { incident, began, accesses: 0 });
    }

    /// Takes new limits. They hold from the next access on.
    pub fn set_rules(&mut self, rules: Rules) {
        self.rules = rules;
        self.generation = self.generation.wrapping_add(1);
    }

    /// Refuses every access to the key from now on.
    pub fn block(&mut self, key: KeyRef) {
        self.blocked.insert(key);
    }

    /// Unblocks a key. A finding that is not written yet must not block it again.
    pub fn unblock(&mut self, key: &KeyRef) {
        self.blocked.remove(key);
        self.clear_blocks_of(&Subject::Key(*key));
    }

    /// Refuses every access of the caller from now on.
    pub fn block_caller(&mut self, kind: CallerKind, subject: &str) {
        self.blocked_callers[kind as usize].insert(subject.into());
    }

    /// Lets the caller in again.
    pub fn unblock_caller(&mut self, kind: CallerKind, subject: &str) {
        self.blocked_callers[kind as usize].remove(subject);
        self.clear_blocks_of(&Subject::Caller(kind, subject.into()));
    }

    fn clear_blocks_of(&mut self, subject: &Subject) {
        let of_it = self.findings.iter_mut().filter(|finding| finding.subject == *subject);
        of_it.for_each(|finding| finding.blocks = false);
    }

    /// Ends the episodes that are over `now`. While the counters are being filled, those of an hour
    /// or a day may only seem over.
    pub fn end_episodes(&mut self, now: Moment) {
        self.callers.forget(now);
        let is_whole =
            |detector: Detector| !self.is_filling || detector.window() == Some(Window::Minute);
        let subjects: Vec<(Detector, Subject)> =
            self.episodes.keys().filter(|(detector, _)| is_whole(*detector)).cloned().collect();
        for (detector, subject) in subjects {
            let (count, limit) = self.count_of(detector, &subject, now);
            if count > limit / 2 {
                continue;
            }
            self.flag(detector, &subject, false);
            if let Some(episode) = self.episodes.remove(&(detector, subject.clone())) {
                let ended = Some((now, episode.accesses));
                let (incident, began) = (episode.incident, episode.began);
                self.add_finding(WatchFinding {
                    incident,
                    detector,
                    subject,
                    began,
                    observed: count,
                    limit,
                    blocks: false,
                    ended,
                });
            }
        }
    }

    /// Checks every key once, after the counters were filled from the trail. An earlier writer may
    /// have died between the access that crossed a limit and its incident.
    pub fn look_at_all(&mut self, now: Moment) {
        self.is_filling = false;
        let keys: Vec<KeyRef> = self.keys.iter().map(|(key, _)| *key).collect();
        for id in keys {
            let Some(key) = self.keys.peek_mut(&id) else { continue };
            let (limits, flagged) = (key.limits, key.flagged);
            for detector in Detector::OF_KEYS {
                let limit = limits.of(detector);
                let observed = self.keys.peek_mut(&id).map_or(0, |key| key.count(detector, now));
                if flagged & detector.bit() == 0 && observed > limit {
                    self.begin(detector, Subject::Key(id), now, observed, limit);
                }
            }
        }
    }

    /// Findings since the last time.
    pub fn take_findings(&mut self) -> Vec<WatchFinding> {
        std::mem::take(&mut self.findings)
    }

    /// Puts back findings that could not be written.
    pub fn put_back(&mut self, findings: Vec<WatchFinding>) {
        self.findings.splice(0..0, findings);
    }

    /// Callers that met a key, at most `most` of them.
    pub fn take_meetings(&mut self, most: usize) -> Vec<Meeting> {
        self.meetings.drain(..most.min(self.meetings.len())).collect()
    }

    /// Keeps meetings that could not be written.
    pub fn put_back_meetings(&mut self, meetings: Vec<Meeting>) {
        self.meetings.splice(0..0, meetings);
    }

    /// Keys that were not used for a day, and the time of their new use.
    pub fn take_woken(&mut self) -> Vec<(KeyRef, Moment)> {
        std::mem::take(&mut self.woken)
    }

    /// Keeps woken keys that could not be looked up.
    pub fn put_back_woken(&mut self, woken: Vec<(KeyRef, Moment)>) {
        self.woken.splice(0..0, woken);
    }

    /// The time without an access after which this key counts as asleep.
    pub fn stale_after(&self, key: &KeyRef) -> Span {
        self.rules.of(key).stale
    }

    /// Keeps busiest minutes that could not be written.
    pub fn put_back_peaks(&mut self, peaks: &[Peak]) {
        peaks.iter().for_each(|peak| self.callers.put_back(peak));
    }

    /// At most so many busiest minutes that changed since they were last asked for.
    pub fn changed_peaks(&mut self, most: usize) -> Vec<Peak> {
        self.callers.changed(most)
    }

    /// Whether findings wait to be written.
    pub fn has_findings(&self) -> bool {
        !self.findings.is_empty()
    }

    /// Whether a detector blocks this key.
    pub fn blocks(&self, detector: Detector, key: &KeyRef) -> bool {
        self.rules.of(key).block(detector)
    }

    /// Adds a finding that was made elsewhere: in the tables.
    pub fn add_finding(&mut self, finding: WatchFinding) {
        if finding.blocks {
            match &finding.subject {
                Subject::Key(key) => self.blocked.insert(*key),
                Subject::Caller(kind, name) => {
                    self.blocked_callers[*kind as usize].insert(name.clone())
                }
            };
        }
        if self.findings.len() < MAX_WAITING {
            self.findings.push(finding);
        } else {
            self.lost += 1;
        }
    }

    fn keep_time(&mut self, at: Moment) {
        if at + SET_BACK < self.newest {
            self.keys.clear();
            self.callers.forget_all();
            self.newest = at;
        }
        self.newest = self.newest.max(at);
        self.callers.forget(self.newest);
    }

    /// Counts the access against its key and answers the key's serial.
    fn count(&mut self, access: &KeyAccess) -> u32 {
        let at = access.at;
        let key = self.key(access.key);
        let (flagged, serial) = (key.flagged, key.serial);
        let was_asleep = access.counted == Counted::Access && key.was_asleep(at);
        let noted = key.take(access.counted, access.access_type, at);
        if was_asleep && self.woken.len() < MAX_WAITING {
            self.woken.push((access.key, at));
        }
        if noted != 0 {
            let noted =
                Detector::OF_KEYS.into_iter().filter(|detector| noted & detector.bit() != 0);
            noted.for_each(|detector| self.judge_count(access.key, at, flagged, detector));
        }
        serial
    }

    /// Continues the detector's open episode, or begins one.
    fn judge_count(&mut self, id: KeyRef, at: Moment, flagged: u16, detector: Detector) {
        if flagged & detector.bit() != 0 {
            return self.continue_episode(detector, Subject::Key(id));
        }
        let Some(key) = self.keys.peek_mut(&id) else { return };
        let (observed, limit) = (key.count(detector, at), key.limits.of(detector));
        self.begin(detector, Subject::Key(id), at, observed, limit);
    }

    /// Answers the callers that had not used this key within the last minute.
    fn count_callers(&mut self, access: &KeyAccess, key: u32) -> [Option<CallerPlace>; 3] {
        let mut opened_another = [None; 3];
        let distinct = self.rules.base.of(Detector::MassReading);
        for ((&kind, name), another) in
            CallerKind::ALL.iter().zip(&access.callers).zip(&mut opened_another)
        {
            let opened = name.and_then(|name| self.callers.open(kind, name, key, access.at));
            let Some((place, fresh)) = opened else { continue };
            if fresh {
                self.note_meeting(access, place);
                *another = Some(place);
            }
            let caller = self.callers.get(place);
            if !fresh && !caller.flagged {
                continue;
            }
            let (observed, limit) = (caller.distinct, caller.limit(distinct, access.at));
            if caller.flagged {
                self.continue_episode(
                    Detector::MassReading,
                    Subject::Caller(kind, caller.name.clone()),
                );
            } else if observed > limit {
                let subject = Subject::Caller(kind, caller.name.clone());
                self.begin(Detector::MassReading, subject, access.at, observed, limit);
            }
        }
        opened_another
    }

    /// Remembers that a caller used a key, at most once a day for each pair. The table then says
    /// whether it is new.
    fn note_meeting(&mut self, access: &KeyAccess, place: CallerPlace) {
        let caller = self.callers.get(place);
        let Some(key) = self.keys.peek_mut(&access.key) else { return };
        if key.knows(caller.serial, access.at) {
            return;
        }
        if self.meetings.len() >= MAX_WAITING {
            return; // and it is not marked as known, so the next access tries again
        }
        key.remember_caller(caller.serial, access.at);
        let subject = caller.name.clone();
        self.meetings.push(Meeting { key: access.key, kind: caller.kind, subject, at: access.at });
    }

    fn key(&mut self, id: KeyRef) -> &mut CountedKey {
        if self.keys.len() >= MAX_KEYS && !self.keys.contains(&id) {
            self.keys.pop_lru();
        }
        let (rules, generation) = (&self.rules, self.generation);
        let (serials, episodes) = (&mut self.serials, &self.episodes);
        let key = self.keys.get_or_insert_mut(id, || {
            *serials = serials.wrapping_add(1);
            let open =
                |detector: &&Detector| episodes.contains_key(&(**detector, Subject::Key(id)));
            let flagged =
                Detector::ALL.iter().filter(open).fold(0, |set, detector| set | detector.bit());
            CountedKey::new(*serials, flagged, rules.of(&id), generation)
        });
        if key.generation != generation {
            (key.limits, key.generation) = (rules.of(&id), generation);
        }
        key
    }

    fn begin(
        &mut self,
        detector: Detector,
        subject: Subject,
        at: Moment,
        observed: u32,
        limit: u32,
    ) {
        let incident = episode_id(detector.incident_type(), subject.whom(), at);
        let blocks = match &subject {
            Subject::Key(key) => self.blocks(detector, key),
            Subject::Caller(..) => self.rules.base.block(detector),
        };
        // If there is no room for its finding, the episode has not begun, and the next access tries
        // again.
        if self.findings.len() < MAX_WAITING {
            self.flag(detector, &subject, true);
            self.episodes
                .insert((detector, subject.clone()), Episode { incident, began: at, accesses: 1 });
        }
        self.add_finding(WatchFinding {
            incident,
            detector,
            subject,
            began: at,
            observed,
            limit,
            blocks,
            ended: None,
        });
    }

    fn continue_episode(&mut self, detector: Detector, subject: Subject) {
        if let Some(episode) = self.episodes.get_mut(&(detector, subject)) {
            episode.accesses += 1;
        }
    }

    fn flag(&mut self, detector: Detector, subject: &Subject, flagged: bool) {
        match subject {
            Subject::Key(id) => {
                if let Some(key) = self.keys.peek_mut(id) {
                    let others = key.flagged & !detector.bit();
                    key.flagged = if flagged { others | detector.bit() } else { others };
                }
            }
            Subject::Caller(kind, name) => {
                let place = if flagged {
                    self.callers.place(*kind, name)
                } else {
                    self.callers.find(*kind, name)
                };
                place.into_iter().for_each(|place| self.callers.flag(place, flagged));
            }
        }
    }

    /// The present count and the limit of an episode.
    fn count_of(&mut self, detector: Detector, subject: &Subject, now: Moment) -> (u32, u32) {
        let distinct = self.rules.base.of(Detector::MassReading);
        match subject {
            Subject::Caller(kind, name) => {
                self.callers.find(*kind, name).map_or((0, distinct), |place| {
                    let caller = self.callers.get(place);
                    (caller.distinct, caller.limit(distinct, now))
                })
            }
            Subject::Key(id) => {
                let count = self.keys.peek_mut(id).map_or(0, |key| key.count(detector, now));
                (count, self.rules.of(id).of(detector))
            }
        }
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
