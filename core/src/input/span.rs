//! Intervals, judged by their length as PostgreSQL compares them: a month is 30 days, a day 24
//! hours. The interval itself stays as given, because a month added to a date is a month.

use super::Invalid;
use crate::moment::{Moment, Span};

/// A time back from now, in microseconds, not negative.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Back(i128);

impl Back {
    /// Parses the length of an interval in microseconds.
    pub fn parse(micros: i128) -> Result<Back, Invalid> {
        if micros < 0 { Err(Invalid::NotBack) } else { Ok(Back(micros)) }
    }

    /// The moment so far before `now`. If that is before 1970, it is the beginning of 1970, since
    /// nothing was recorded earlier.
    pub fn before(self, now: Moment) -> Moment {
        let micros = i128::from(now.micros()).saturating_sub(self.0).max(0);
        i64::try_from(micros).map_or(now, Moment::new)
    }
}

/// How long a version of a key may be used. Zero removes the key's own interval.
///
/// An interval has three parts: months, days and a time. PostgreSQL adds them one after the other.
/// So a sum of opposite parts can be small and still leave the range of dates on the way, in some
/// time zones only. Therefore each part is bounded, not the sum alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationInterval<T>(T);

impl<T> RotationInterval<T> {
    /// The most months: a hundred years.
    pub const MAX_MONTHS: i32 = 1_200;
    /// The most days: a hundred years of twelve months of thirty days.
    pub const MAX_DAYS: i32 = 36_000;
    /// The longest time, and the longest sum of the parts.
    pub const MAX_MICROS: i64 = Span::days(Self::MAX_DAYS as i64).micros();

    /// Parses an interval with these parts.
    pub fn parse(
        interval: T,
        months: i32,
        days: i32,
        micros: i64,
    ) -> Result<RotationInterval<T>, Invalid> {
        let in_range = (0..=Self::MAX_MONTHS).contains(&months)
            && (0..=Self::MAX_DAYS).contains(&days)
            && (0..=Self::MAX_MICROS).contains(&micros);
        let sum = i128::from(Span::days(i64::from(months) * 30 + i64::from(days)).micros())
            + i128::from(micros);
        if in_range && sum <= i128::from(Self::MAX_MICROS) {
            Ok(RotationInterval(interval))
        } else {
            Err(Invalid::RotationInterval)
        }
    }

    /// The interval as it was given.
    pub fn given(self) -> T {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_back_is_not_in_the_future() {
        let back = |micros, now| Back::parse(micros).map(|back| back.before(Moment::new(now)));
        for (micros, now, then) in
            [(0, 7, 7), (5, 7, 2), (8, 7, 0), (i128::MAX, i64::MAX, 0), (i128::MAX, i64::MIN, 0)]
        {
            assert_eq!(back(micros, now), Ok(Moment::new(then)));
        }
        assert_eq!(Back::parse(-1), Err(Invalid::NotBack));
        assert_eq!(Back::parse(i128::MIN), Err(Invalid::NotBack));
    }

    #[test]
    fn a_rotation_interval_is_at_most_a_hundred_years_in_each_part() {
        type Interval = RotationInterval<&'static str>;
        let parse = |(months, days, micros)| RotationInterval::parse("P90D", months, days, micros);
        let most = Interval::MAX_MICROS;
        for good in [
            (0, 0, 0),
            (0, 0, 1),
            (3, 1, 1),
            (Interval::MAX_MONTHS, 0, 0),
            (0, Interval::MAX_DAYS, 0),
            (0, 0, most),
        ] {
            assert_eq!(parse(good).map(RotationInterval::given), Ok("P90D"), "{good:?}");
        }
        for bad in [
            (-1, 0, 0),
            (0, -1, 0),
            (0, 0, -1),
            (0, -1, most),
            (-1, 31, 0),
            (Interval::MAX_MONTHS, 1, 0),
            (0, 0, most + 1),
            (1, -30, 1),
            (i32::MAX, i32::MIN, 1),
            (i32::MIN, i32::MAX, i64::MAX),
            (i32::MAX, i32::MAX, i64::MAX),
            // 290,000 years forth and almost as many back: 47 days in all
            (3_480_000, -104_400_000, 4_060_800_000_000),
        ] {
            assert_eq!(parse(bad), Err(Invalid::RotationInterval), "{bad:?}");
        }
    }
}
