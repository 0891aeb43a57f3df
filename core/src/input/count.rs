//! Numbers that bound an answer: rows of a history, hours back. A number outside its limits is
//! refused, not cut, because a caller must not take a part for the whole.

use super::Invalid;
use crate::moment::Span;

/// Rows that a history shows at most, the newest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaxRows(i32);

impl MaxRows {
    /// The most rows.
    pub const MOST: i32 = 10_000;

    /// Parses a number of rows, from 1.
    pub fn parse(rows: i32) -> Result<MaxRows, Invalid> {
        if (1..=Self::MOST).contains(&rows) { Ok(MaxRows(rows)) } else { Err(Invalid::MaxRows) }
    }

    /// Shows the number.
    pub fn number(self) -> i32 {
        self.0
    }
}

/// How many hours back an answer reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoursBack(i32);

impl HoursBack {
    /// The most hours: 31 days.
    pub const MOST: i32 = 744;

    /// Parses a number of hours, from 1.
    pub fn parse(hours: i32) -> Result<HoursBack, Invalid> {
        if (1..=Self::MOST).contains(&hours) {
            Ok(HoursBack(hours))
        } else {
            Err(Invalid::HoursBack)
        }
    }

    /// How long they are.
    pub fn span(self) -> Span {
        Span::HOUR * self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_lie_within_their_limits() {
        assert_eq!(MaxRows::parse(1).map(MaxRows::number), Ok(1));
        assert_eq!(MaxRows::parse(10_000).map(MaxRows::number), Ok(10_000));
        assert_eq!(HoursBack::parse(1).map(HoursBack::span), Ok(Span::HOUR));
        assert_eq!(HoursBack::parse(744).map(HoursBack::span), Ok(Span::days(31)));
        for bad in [0, -1, i32::MIN, i32::MAX] {
            assert_eq!(MaxRows::parse(bad), Err(Invalid::MaxRows));
            assert_eq!(HoursBack::parse(bad), Err(Invalid::HoursBack));
        }
        assert_eq!(MaxRows::parse(10_001), Err(Invalid::MaxRows));
        assert_eq!(HoursBack::parse(745), Err(Invalid::HoursBack));
    }
}
