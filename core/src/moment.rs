//! Moments and spans of time: microseconds, as PostgreSQL counts them, but since 1970 and in UTC. A
//! moment is no span and a span is no number, so the compiler keeps them apart. A sum outside the
//! range stays at the range's end, because a broken clock must not end the process.
#![forbid(unsafe_code)]

use std::ops::{Add, Mul, Sub};
use std::time::Duration;

/// A moment: microseconds since 1970, UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Moment(i64);

/// A span of time: microseconds.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Span(i64);

impl Span {
    /// No time at all.
    pub const NONE: Span = Span(0);
    /// One second.
    pub const SECOND: Span = Span(1_000_000);
    /// One minute.
    pub const MINUTE: Span = Span(60 * Span::SECOND.0);
    /// One hour.
    pub const HOUR: Span = Span(60 * Span::MINUTE.0);
    /// One day of 24 hours.
    pub const DAY: Span = Span(24 * Span::HOUR.0);

    /// So many microseconds.
    pub const fn new(micros: i64) -> Span {
        Span(micros)
    }

    /// So many seconds.
    pub const fn seconds(seconds: i64) -> Span {
        Span(Span::SECOND.0.saturating_mul(seconds))
    }

    /// So many minutes.
    pub const fn minutes(minutes: i64) -> Span {
        Span(Span::MINUTE.0.saturating_mul(minutes))
    }

    /// So many days.
    pub const fn days(days: i64) -> Span {
        Span(Span::DAY.0.saturating_mul(days))
    }

    /// As long as this duration. If that is out of range, the range's end.
    pub fn of(duration: Duration) -> Span {
        Span(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))
    }

    /// Its microseconds.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// Its whole days, rounded down also before zero.
    pub const fn whole_days(self) -> i64 {
        self.0.div_euclid(Span::DAY.0)
    }
}

impl Moment {
    /// The beginning of 1970.
    pub const EPOCH: Moment = Moment(0);
    /// Before every other moment.
    pub const EARLIEST: Moment = Moment(i64::MIN);
    /// After every other moment.
    pub const LATEST: Moment = Moment(i64::MAX);

    /// So many microseconds after the beginning of 1970.
    pub const fn new(micros: i64) -> Moment {
        Moment(micros)
    }

    /// Microseconds since the beginning of 1970.
    pub const fn micros(self) -> i64 {
        self.0
    }

    /// The UTC day it lies in, in days since 1970.
    pub const fn day(self) -> i32 {
        self.0.div_euclid(Span::DAY.0) as i32
    }

    /// The beginning of its UTC day.
    pub const fn midnight(self) -> Moment {
        Moment(self.0.saturating_sub(self.0.rem_euclid(Span::DAY.0)))
    }
}

impl Add<Span> for Moment {
    type Output = Moment;
    fn add(self, span: Span) -> Moment {
        Moment(self.0.saturating_add(span.0))
    }
}

impl Sub<Span> for Moment {
    type Output = Moment;
    fn sub(self, span: Span) -> Moment {
        Moment(self.0.saturating_sub(span.0))
    }
}

/// How long after `earlier`; negative before it.
impl Sub for Moment {
    type Output = Span;
    fn sub(self, earlier: Moment) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl Mul<i64> for Span {
    type Output = Span;
    fn mul(self, times: i64) -> Span {
        Span(self.0.saturating_mul(times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_utc_and_hold_before_1970() {
        assert_eq!((Moment::EPOCH + Span::DAY).day(), 1);
        assert_eq!(Moment::new(-1).day(), -1);
        assert_eq!(Moment::new(-1).midnight(), Moment::EPOCH - Span::DAY);
        assert_eq!((Moment::EPOCH + Span::DAY).midnight(), Moment::EPOCH + Span::DAY);
        assert_eq!((Span::days(2).whole_days(), Span::new(-1).whole_days()), (2, -1));
    }

    #[test]
    fn what_leaves_the_range_stays_at_its_end() {
        assert_eq!(Moment::EARLIEST - Span::DAY, Moment::EARLIEST);
        assert_eq!(Moment::LATEST - Moment::EARLIEST, Span::new(i64::MAX));
        assert_eq!(Span::DAY * i64::MAX, Span::new(i64::MAX));
    }
}
