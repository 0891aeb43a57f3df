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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotationInterval<T>(T);

impl<T> RotationInterval<T> {
    /// The longest: a hundred years of twelve months.
    pub const MAX_MICROS: i128 = Span::days(36_000).micros() as i128;

    /// Parses an interval of this length in microseconds.
    pub fn parse(interval: T, micros: i128) -> Result<RotationInterval<T>, Invalid> {
        if (0..=Self::MAX_MICROS).contains(&micros) {
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
    fn a_rotation_interval_is_at_most_a_hundred_years() {
        const MOST: i128 = RotationInterval::<()>::MAX_MICROS;
        for good in [0, 1, MOST] {
            assert_eq!(RotationInterval::parse("P90D", good).map(|it| it.given()), Ok("P90D"));
        }
        for bad in [-1, MOST + 1, i128::MIN, i128::MAX] {
            assert_eq!(RotationInterval::parse((), bad), Err(Invalid::RotationInterval), "{bad}");
        }
    }
}
