//! The counts of one key, one for each detector that looks at keys, its own past, and the callers
//! that used it today. About 800 bytes, and 4 more for each access of the last minute, up to the
//! limit. What was refused or flagged within a day takes as much again.

use super::counter::{Counter, Window};
use super::detector::Detector;
use super::limits::Limits;
use super::past::{Busiest, KeyPast};
use crate::moment::{Moment, Span};
use crate::trail::{AccessType, Counted};

/// How many callers of a key are remembered, so that each is checked only once a day.
const KNOWN: usize = 6;

/// Detectors that count what happens to a key.
const COUNTING: usize = Detector::OF_KEYS.len();
/// Those whose limit goes by the past.
const OF_THE_PAST: usize = Detector::OF_THE_PAST.len();

pub(super) struct CountedKey {
    /// Given once and never again.
    pub serial: u32,
    /// Detectors with an open episode, by `Detector::bit`.
    pub flagged: u16,
    /// As they hold on a day: the own past is in them.
    pub limits: Limits,
    /// The generation of the rules and the day that the limits come from.
    pub limits_from: (u32, i32),
    pub past: KeyPast,
    /// Whether the past holds what earlier writers counted.
    pub knows_past: bool,
    /// In the order of `Detector::OF_KEYS`.
    counters: [Counter; COUNTING],
    /// Of `OF_THE_PAST`: what was refused or flagged. It is in `counters` too. None: nothing was.
    suspect: Option<Box<[Counter; OF_THE_PAST]>>,
    /// The newest access. 0 means none.
    last_opened: Moment,
    /// Callers of today, by serial. The oldest is overwritten.
    known: [u32; KNOWN],
    known_on: i32,
    next_known: u8,
}

impl CountedKey {
    pub(super) fn new(serial: u32, flagged: u16) -> CountedKey {
        CountedKey {
            serial,
            flagged,
            limits: Limits::default(),
            limits_from: (0, 0),
            past: KeyPast::default(),
            knows_past: false,
            counters: Detector::OF_KEYS.map(counter),
            suspect: None,
            last_opened: Moment::EPOCH,
            known: [0; KNOWN],
            known_on: i32::MIN,
            next_known: 0,
        }
    }

    /// Counts an attempt to open the key. Answers the detectors whose limit it crosses or whose
    /// episode is open, a bit each.
    pub(super) fn take(&mut self, counted: Counted, access_type: AccessType, at: Moment) -> u16 {
        if counted == Counted::Access {
            self.last_opened = self.last_opened.max(at);
        }
        let mut noted = 0;
        for (counter, &detector) in self.counters.iter_mut().zip(&Detector::OF_KEYS) {
            if detector.counts(counted, access_type) {
                let limit = self.limits.of(detector);
                let crossed = counter.add(at, limit) > limit;
                noted |= detector.bit() & if crossed { u16::MAX } else { self.flagged };
            }
        }
        noted
    }

    /// A detector's present count. 0 for a detector that does not look at keys.
    pub(super) fn count(&mut self, detector: Detector, now: Moment) -> u32 {
        let place = Detector::OF_KEYS.iter().position(|other| *other == detector);
        place.map_or(0, |place| self.counters[place].count(now))
    }

    /// Tells what became of the access that was counted last. Only what was neither refused nor
    /// flagged belongs to the key's past: a thief's attempts must not widen tomorrow's limit.
    pub(super) fn settle(&mut self, at: Moment, is_suspect: bool) {
        if is_suspect {
            let suspect =
                self.suspect.get_or_insert_with(|| Box::new(Detector::OF_THE_PAST.map(counter)));
            for (counter, &detector) in suspect.iter_mut().zip(&Detector::OF_THE_PAST) {
                counter.add(at, self.limits.of(detector));
            }
            return;
        }
        let suspect = self.suspect_counts(at);
        let mut counts = Busiest::default();
        for ((count, suspect), &detector) in
            counts.iter_mut().zip(suspect).zip(&Detector::OF_THE_PAST)
        {
            let all = self.count(detector, at).min(self.limits.of(detector));
            *count = all.saturating_sub(suspect);
        }
        self.past.raise(at.day(), counts);
    }

    /// What was refused or flagged within each window. A day without any gives the memory back.
    fn suspect_counts(&mut self, at: Moment) -> Busiest {
        let mut counts = Busiest::default();
        if let Some(suspect) = &mut self.suspect {
            counts.iter_mut().zip(suspect.iter_mut()).for_each(|(n, all)| *n = all.count(at));
            if counts == Busiest::default() {
                self.suspect = None;
            }
        }
        counts
    }

    /// Whether nobody used it within the day before, as far as this writer knows.
    pub(super) fn was_asleep(&self, at: Moment) -> bool {
        at - self.last_opened > Span::DAY
    }

    /// Whether a caller has used it today already.
    pub(super) fn knows(&self, caller: u32, at: Moment) -> bool {
        self.known_on == at.day() && self.known.contains(&caller)
    }

    pub(super) fn remember_caller(&mut self, caller: u32, at: Moment) {
        if self.known_on != at.day() {
            (self.known, self.known_on) = ([0; KNOWN], at.day());
        }
        self.known[usize::from(self.next_known) % KNOWN] = caller;
        self.next_known = self.next_known.wrapping_add(1);
    }
}

fn counter(detector: Detector) -> Counter {
    Counter::of(detector.window().unwrap_or(Window::Minute))
}
