//! What a new writer takes in: what earlier writers counted, recorded and stored. Rows of the trail
//! fill the counters; the past of a key is read from the tables when the key is seen first.

use super::{Episode, KeyAccess, MAX_KEYS, Rules, Subject, Watch};
use crate::anomaly::callers::Peak;
use crate::anomaly::detector::Detector;
use crate::anomaly::past::KeyPast;
use crate::id::{IncidentId, KeyRef};
use crate::moment::Moment;
use crate::trail::{CallerKind, Counted};
use std::collections::{HashMap, HashSet};

impl Watch {
    /// Begins to take in what an earlier writer recorded. `look_at_all` ends it.
    pub fn begin_filling(&mut self, now: Moment) {
        self.is_filling = true;
        self.newest = self.newest.max(now);
    }

    /// The keys whose past must be read before they are judged or looked at, each once.
    pub fn without_past(&self, keys: impl IntoIterator<Item = KeyRef>) -> Vec<KeyRef> {
        let is_missing = |id: &KeyRef| self.keys.peek(id).is_none_or(|key| !key.knows_past);
        let mut missing: Vec<KeyRef> = keys.into_iter().filter(is_missing).collect();
        if missing.len() > 1 {
            let mut seen = HashSet::new();
            missing.retain(|id| seen.insert(*id));
        }
        missing
    }

    /// At most so many keys that are counted and whose past is not read yet.
    pub fn some_without_past(&self, most: usize) -> Vec<KeyRef> {
        let missing = self.keys.iter().filter(|(_, key)| !key.knows_past);
        missing.map(|(id, _)| *id).take(most).collect()
    }

    /// Takes what earlier writers counted of these keys: of those that are not in `stored` nothing.
    pub fn remember_past(&mut self, asked: &[KeyRef], stored: &HashMap<KeyRef, KeyPast>) {
        for id in asked {
            let key = self.key(*id);
            key.knows_past = true;
            stored.get(id).into_iter().for_each(|past| key.past.merge(past));
            key.limits_from = (0, 0);
        }
    }

    /// A watch that only counts again what is recorded. No limit hides a count.
    pub fn for_recount() -> Watch {
        let mut rules = Rules::default();
        rules.base.knows_past = false;
        for detector in Detector::OF_KEYS {
            rules.base = rules.base.with(detector, detector.greatest_limit());
        }
        Watch { rules, ..Watch::default() }
    }

    /// Counts what was recorded for the past of its key: not what was refused or flagged, which is
    /// suspect. Rows must come in the order of time.
    pub fn recount(&mut self, access: &KeyAccess, is_suspect: bool) {
        self.newest = self.newest.max(access.at);
        let key = self.key(access.key);
        key.take(access.counted, access.access_type, access.at);
        if access.counted == Counted::Access {
            key.settle(access.at, is_suspect);
        }
    }

    /// The keys that are counted, the longest idle first.
    pub fn counted_keys(&self) -> Vec<KeyRef> {
        self.keys.iter().rev().map(|(key, _)| *key).collect()
    }

    /// Takes the past of keys from a watch that counted it again. Answers the keys that have one
    /// and found room: nobody is dropped for them.
    pub fn take_over(&mut self, counted: &Watch, mut keys: Vec<KeyRef>) -> Vec<KeyRef> {
        keys.retain(|id| {
            let past =
                counted.keys.peek(id).map(|key| key.past).filter(|past| past.since.is_some());
            let has_room = self.keys.len() < MAX_KEYS || self.keys.contains(id);
            let Some(past) = past.filter(|_| has_room) else { return false };
            let key = self.key(*id);
            key.past.merge(&past);
            key.limits_from = (0, 0);
            true
        });
        keys
    }

    /// The past of a key, to be stored. None: nobody has counted it yet, or what is stored may be
    /// more.
    pub fn past(&self, key: &KeyRef) -> Option<&KeyPast> {
        let key = self.keys.peek(key).filter(|key| key.knows_past)?;
        key.past.since.map(|_| &key.past)
    }

    /// Counts what an earlier writer recorded, without a verdict or finding. Rows may come in any
    /// order.
    pub fn remember(&mut self, access: &KeyAccess) {
        self.key(access.key).take(access.counted, access.access_type, access.at);
    }

    /// As `remember`, for what was refused or flagged: it is no past of its key.
    pub fn remember_suspect(&mut self, access: &KeyAccess) {
        self.remember(access);
        if access.counted == Counted::Access {
            self.key(access.key).settle(access.at, true);
        }
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

    /// Checks every key once, after the counters were filled from the trail. An earlier writer may
    /// have died between the access that crossed a limit and its incident.
    pub fn look_at_all(&mut self, now: Moment) {
        self.is_filling = false;
        self.newest = self.newest.max(now);
        // The longest idle first, so that looking does not change which ones are dropped next.
        let keys: Vec<KeyRef> = self.keys.iter().rev().map(|(key, _)| *key).collect();
        for id in keys {
            for detector in Detector::OF_KEYS {
                let key = self.key(id);
                let (observed, limit) = (key.count(detector, now), key.limits.of(detector));
                if key.flagged & detector.bit() == 0 && observed > limit {
                    self.begin(detector, Subject::Key(id), now, observed, limit);
                }
            }
        }
    }
}
