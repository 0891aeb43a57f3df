//! What is counted of one key: accesses of the minute, the hour and the day, failures, and which
//! callers used it today. About 600 bytes, and 4 more for each access of the last minute up to the
//! limit.

use super::buckets::{HalfHours, Hour, RareHour, Times};
use super::detector::Detector;
use super::limits::Limits;
use crate::moment::{Moment, Span};

/// Callers of a key that need no second look on one day.
const KNOWN: usize = 6;

/// A detector with what it counted and its limit.
pub(super) type Count = (Detector, u32, u32);

pub(super) struct CountedKey {
    /// Given once and never again.
    pub serial: u32,
    /// Detectors with an open episode, by `Detector::bit`.
    pub flagged: u8,
    pub limits: Limits,
    /// Of the rules that the limits come from.
    pub generation: u32,
    minute: Times,
    hour: Hour,
    day: HalfHours,
    failures: Option<Box<RareHour>>,
    /// Callers met today, by serial; the oldest is overwritten.
    known: [u32; KNOWN],
    known_on: i32,
    next_known: u8,
}

impl CountedKey {
    pub(super) fn new(serial: u32, flagged: u8, limits: Limits, generation: u32) -> CountedKey {
        CountedKey {
            serial,
            flagged,
            limits,
            generation,
            minute: Times::default(),
            hour: Hour::default(),
            day: HalfHours::default(),
            failures: None,
            known: [0; KNOWN],
            known_on: i32::MIN,
            next_known: 0,
        }
    }

    /// Counts an access and answers the counts that end with it.
    pub(super) fn opened(&mut self, at: Moment) -> [Count; 3] {
        let at = at.micros();
        let minute = self.minute.add(at, (self.limits.minute as usize).saturating_add(1)) as u32;
        self.hour.add(at);
        self.day.add(at);
        [
            (Detector::RapidAccess, minute, self.limits.minute),
            (Detector::Theft, self.hour.count(at), self.limits.hour),
            (Detector::UnusuallyHigh, self.day.count(at), self.limits.day),
        ]
    }

    /// Counts a failure and answers the count that ends with it.
    pub(super) fn failed(&mut self, at: Moment) -> Count {
        let at = at.micros();
        let failures = self.failures.get_or_insert_default();
        failures.add(at);
        (Detector::Failures, failures.count(at), self.limits.failures)
    }

    /// What a detector counts now; those that do not count see nothing.
    pub(super) fn count(&mut self, detector: Detector, now: Moment) -> u32 {
        let now = now.micros();
        match detector {
            Detector::RapidAccess => self.minute.count(now) as u32,
            Detector::Theft => self.hour.count(now),
            Detector::UnusuallyHigh => self.day.count(now),
            Detector::Failures => self.failures.as_mut().map_or(0, |hour| hour.count(now)),
            Detector::MassReading
            | Detector::NewAddress
            | Detector::NewRole
            | Detector::DormantKey => 0,
        }
    }

    /// Whether nobody used it within the day before, as far as this writer saw.
    pub(super) fn was_asleep(&self, at: Moment) -> bool {
        at - Moment::new(self.minute.newest()) > Span::DAY
    }

    /// Whether a caller was met today already.
    pub(super) fn knows(&self, caller: u32, at: Moment) -> bool {
        self.known_on == at.day() && self.known.contains(&caller)
    }

    pub(super) fn meet(&mut self, caller: u32, at: Moment) {
        if self.known_on != at.day() {
            (self.known, self.known_on) = ([0; KNOWN], at.day());
        }
        self.known[usize::from(self.next_known) % KNOWN] = caller;
        self.next_known = self.next_known.wrapping_add(1);
    }
}
