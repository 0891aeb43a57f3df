//! The days ahead: a partition of the trail for each UTC day of the coming week. One that cannot be
//! made is told days before it is needed: in the server log, in `status()` and by the doctor.
//! Without it every call fails from midnight on.

use super::chain::make_partition;
use crate::audit::queue::Slot;
use crate::postgres::clock;
use crate::store::trail::day_name;
use pgrx::{log, warning};
use std::time::{Duration, Instant};

/// Partitions are made this many days ahead.
const DAYS_AHEAD: i32 = 7;
/// How often all of them are looked at again: somebody may have dropped one. The doctor sees that
/// at once.
const EVERY: Duration = Duration::from_secs(3_600);
/// How long after a failure they are tried again, while today has its partition.
const AGAIN: Duration = Duration::from_secs(10);

/// How far the days are made.
#[derive(Default)]
pub(super) struct Days {
    /// The last day (since 1970) up to which every day is there.
    until: i32,
    /// When all were looked at.
    looked: Option<Instant>,
    failed: Option<Instant>,
    /// When the server log was told.
    told: Option<Instant>,
}

impl Days {
    /// Makes the days that are missing, when it is time.
    pub(super) fn make_ahead(&mut self, slot: &Slot) {
        let today = clock::now().day();
        let last = today + DAYS_AHEAD;
        if self.looked.is_none_or(|looked| looked.elapsed() >= EVERY) {
            (self.until, self.looked) = (today - 1, Some(Instant::now()));
        } else if self.until >= last
            || self.until >= today && self.failed.is_some_and(|at| at.elapsed() < AGAIN)
        {
            return;
        }
        for day in today.max(self.until + 1)..=last {
            if let Err(failure) = make_partition(day) {
                return self.fail(slot, day, &failure.message);
            }
            self.until = day;
        }
        if self.failed.take().is_some() {
            log!("watchllm_keys writer: the days ahead of the trail are made again");
            self.told = None;
        }
        slot.set_days_problem(None);
    }

    /// Tells that a day cannot be made, the server log once an hour.
    fn fail(&mut self, slot: &Slot, day: i32, why: &str) {
        self.failed = Some(Instant::now());
        let problem = format!(
            "the day {} of the trail cannot be made, and every call will fail from then on: {why}",
            day_name(day)
        );
        slot.set_days_problem(Some(&problem));
        if self.told.is_none_or(|told| told.elapsed() >= EVERY) {
            self.told = Some(Instant::now());
            warning!("watchllm_keys writer: {problem}");
        }
    }
}
