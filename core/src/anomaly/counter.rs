//! The count of one key within a detector's window: exactly within the last minute, by minutes
//! within the last hour, by half hours within the last day. A count of nothing takes almost no
//! memory.

use super::buckets::{HalfHours, Hour, RareHour, Times};
use crate::moment::Moment;

/// The time within which a detector counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Window {
    /// The last minute, both ends included.
    Minute,
    /// The last hour, by minutes.
    Hour,
    /// An hour of rare events: half the memory, and at most 65,535 a minute.
    RareHour,
    /// The last day, by half hours.
    Day,
}

impl Window {
    /// In words.
    pub const fn word(self) -> &'static str {
        match self {
            Window::Minute => "1 minute",
            Window::Hour | Window::RareHour => "1 hour",
            Window::Day => "1 day",
        }
    }
}

/// The count within a window.
pub(super) enum Counter {
    Minute(Option<Box<Times>>),
    Hour(Option<Box<Hour>>),
    RareHour(Option<Box<RareHour>>),
    Day(Option<Box<HalfHours>>),
}

impl Counter {
    pub(super) fn of(window: Window) -> Counter {
        match window {
            Window::Minute => Counter::Minute(None),
            Window::Hour => Counter::Hour(None),
            Window::RareHour => Counter::RareHour(None),
            Window::Day => Counter::Day(None),
        }
    }

    /// Counts one more. Answers how many lie within the window that ends with it; for a minute, one
    /// more than the limit at most.
    pub(super) fn add(&mut self, at: Moment, limit: u32) -> u32 {
        let at = at.micros();
        match self {
            Counter::Minute(times) => {
                let most = (limit as usize).saturating_add(1);
                times.get_or_insert_default().add(at, most) as u32
            }
            Counter::Hour(hour) => hour.get_or_insert_default().add(at),
            Counter::RareHour(hour) => hour.get_or_insert_default().add(at),
            Counter::Day(day) => day.get_or_insert_default().add(at),
        }
    }

    /// How many lie within the window that ends `now`.
    pub(super) fn count(&mut self, now: Moment) -> u32 {
        let now = now.micros();
        match self {
            Counter::Minute(times) => times.as_mut().map_or(0, |times| times.count(now) as u32),
            Counter::Hour(hour) => hour.as_mut().map_or(0, |hour| hour.count(now)),
            Counter::RareHour(hour) => hour.as_mut().map_or(0, |hour| hour.count(now)),
            Counter::Day(day) => day.as_mut().map_or(0, |day| day.count(now)),
        }
    }
}
