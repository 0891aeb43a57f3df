//! The watch: every access of a caller with the right is counted before it is answered. An access
//! that crosses a limit is a finding, and is refused if the settings say so. Constant cost per
//! access. The longest idle keys and callers are dropped. Here is how an access is judged; parts
//! are `episodes`, `filling` (what a new writer takes in) and `waiting` (what is to be written).

mod episodes;
mod filling;
mod waiting;

use super::access::{KeyAccess, Meeting, WatchFinding};
use super::callers::{CallerPlace, Callers};
use super::detector::Detector;
use super::key::CountedKey;
use super::limits::Rules;
use super::subject::Subject;
use crate::id::{IncidentId, KeyRef};
use crate::moment::{Moment, Span};
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
        self.judge_as(access, false)
    }

    /// As `judge`, for an access that was refused before it came here: it is nobody's past.
    pub fn judge_refused(&mut self, access: &KeyAccess) -> Option<FailureReason> {
        self.judge_as(access, true)
    }

    fn judge_as(&mut self, access: &KeyAccess, is_refused: bool) -> Option<FailureReason> {
        self.keep_time(access.at);
        let serial = self.count(access);
        if access.counted == Counted::Failure {
            return None;
        }
        let opened_another = self.count_callers(access, serial);
        let refusal = self.refusal(access);
        // A refused access raises neither the caller's peak nor the key's past. Otherwise a thief's
        // attempts would widen tomorrow's limit.
        let is_suspect = is_refused || refusal.is_some();
        if !is_suspect {
            opened_another
                .into_iter()
                .flatten()
                .for_each(|place| self.callers.raise(place, access.at));
        }
        self.settle(access, is_suspect);
        refusal
    }

    /// Tells the key what became of the access. Within an open episode it is flagged.
    fn settle(&mut self, access: &KeyAccess, is_suspect: bool) {
        if let Some(key) = self.keys.peek_mut(&access.key) {
            key.settle(access.at, is_suspect || key.flagged != 0);
        }
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

    /// The time without an access after which this key counts as asleep.
    pub fn stale_after(&self, key: &KeyRef) -> Span {
        self.rules.of(key).stale
    }

    /// Whether a detector blocks this key.
    pub fn blocks(&self, detector: Detector, key: &KeyRef) -> bool {
        self.rules.of(key).block(detector)
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

    /// Answers the callers that had not used this key within the last minute.
    fn count_callers(&mut self, access: &KeyAccess, key: u32) -> [Option<CallerPlace>; 3] {
        let mut opened_another = [None; 3];
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
            let (observed, limit) = (caller.distinct, caller.limit(&self.rules.base, access.at));
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

    /// The key, with the limits that hold for it on the newest day.
    fn key(&mut self, id: KeyRef) -> &mut CountedKey {
        if self.keys.len() >= MAX_KEYS && !self.keys.contains(&id) {
            self.keys.pop_lru();
        }
        let (rules, from) = (&self.rules, (self.generation, self.newest.day()));
        let (serials, episodes) = (&mut self.serials, &self.episodes);
        let key = self.keys.get_or_insert_mut(id, || {
            *serials = serials.wrapping_add(1);
            let open =
                |detector: &&Detector| episodes.contains_key(&(**detector, Subject::Key(id)));
            let flagged =
                Detector::ALL.iter().filter(open).fold(0, |set, detector| set | detector.bit());
            CountedKey::new(*serials, flagged)
        });
        if key.limits_from != from {
            key.limits = key.past.limits(rules.of(&id), from.1);
            key.limits_from = from;
        }
        key
    }
}

#[cfg(test)]
#[path = "watch_tests.rs"]
mod tests;
