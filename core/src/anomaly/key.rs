//! The counts of one key, one for each detector that looks at keys, and the callers that used it
//! today. About 700 bytes, and 4 more for each access of the last minute, up to the limit.

use super::counter::{Counter, Window};
use super::detector::Detector;
use super::limits::Limits;
use crate::moment::{Moment, Span};
use crate::trail::{AccessType, Counted};

/// How many callers of a key are remembered, so that each is checked only once a day.
const KNOWN: usize = 6;

/// Detectors that count what happens to a key.
const COUNTING: usize = Detector::OF_KEYS.len();

pub(super) struct CountedKey {
    /// Given once and never again.
    pub serial: u32,
    /// Detectors with an open episode, by `Detector::bit`.
    pub flagged: u16,
    pub limits: Limits,
    /// The generation of the rules that the limits come from.
    pub generation: u32,
    /// In the order of `Detector::OF_KEYS`.
    counters: [Counter; COUNTING],
    /// The newest access. 0 means none.
    last_opened: Moment,
    /// Callers of today, by serial. The oldest is overwritten.
    known: [u32; KNOWN],
    known_on: i32,
    next_known: u8,
}

impl CountedKey {
    pub(super) fn new(serial: u32, flagged: u16, limits: Limits, generation: u32) -> CountedKey {
        CountedKey {
            serial,
            flagged,
            limits,
            generation,
            counters: Detector::OF_KEYS
                .map(|detector| Counter::of(detector.window().unwrap_or(Window::Minute))),
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
