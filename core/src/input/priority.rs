//! The order in which the keys of a provider are tried: 1 first. A new key without a priority takes
//! the lowest free one.

use super::Invalid;

/// A priority, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Priority(i32);

impl Priority {
    /// The priority that is tried first.
    pub const FIRST: Priority = Priority(1);

    /// Parses a priority.
    pub fn parse(number: i32) -> Result<Priority, Invalid> {
        if number < Self::FIRST.0 { Err(Invalid::PriorityTooLow) } else { Ok(Priority(number)) }
    }

    /// The lowest priority that is not taken; 1 when all are.
    pub fn lowest_free(taken: &[i32]) -> Priority {
        Priority((Self::FIRST.0..).find(|number| !taken.contains(number)).unwrap_or(1))
    }

    /// Shows the number.
    pub fn number(self) -> i32 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_begin_at_one() {
        for good in [1, 2, i32::MAX] {
            assert_eq!(Priority::parse(good).map(Priority::number), Ok(good));
        }
        for bad in [0, -1, i32::MIN] {
            assert_eq!(Priority::parse(bad), Err(Invalid::PriorityTooLow), "{bad}");
        }
    }

    #[test]
    fn the_lowest_free_one_is_found() {
        for (taken, free) in
            [(&[][..], 1), (&[1], 2), (&[2, 3], 1), (&[3, 1, 1, 2], 4), (&[-5, 0, 1, i32::MAX], 2)]
        {
            assert_eq!(Priority::lowest_free(taken).number(), free, "{taken:?}");
        }
    }
}
