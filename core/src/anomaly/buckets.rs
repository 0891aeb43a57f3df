//! Counts within a sliding time: the minute exactly, hour and day in buckets. The SQL windows
//! (sql/anomalies.sql) use the same minute and the same buckets, so that both count the same. Times
//! here are plain microseconds since 1970; `Times` keeps their low half.

use crate::moment::Span;
use std::collections::VecDeque;

/// The microseconds of a minute.
const MINUTE: i64 = Span::MINUTE.micros();

/// Counts in the last `N` buckets of `WIDTH` microseconds, with the present one. An hour is 60
/// buckets of a minute, a day 48 of half an hour.
pub(super) struct Buckets<C, const N: usize, const WIDTH: i64> {
    /// The number of the newest bucket, counted from 1970.
    newest: i64,
    counts: [C; N],
    sum: u32,
}

/// An hour by minutes, a day by half hours, and an hour of rare events. The last takes half the
/// memory and counts 65,535 a minute at most.
pub(super) type Hour = Buckets<u32, 60, MINUTE>;
pub(super) type HalfHours = Buckets<u32, 48, { 30 * MINUTE }>;
pub(super) type RareHour = Buckets<u16, 60, MINUTE>;

impl<C: Copy + Default, const N: usize, const WIDTH: i64> Default for Buckets<C, N, WIDTH> {
    fn default() -> Self {
        Buckets { newest: 0, counts: [C::default(); N], sum: 0 }
    }
}

impl<C, const N: usize, const WIDTH: i64> Buckets<C, N, WIDTH>
where
    C: Copy + Default + Into<u32> + TryFrom<u32>,
{
    /// Counts one more at that time. Answers how many there are now. A time before the oldest
    /// bucket is not counted.
    pub(super) fn add(&mut self, at: i64) -> u32 {
        let bucket = at.div_euclid(WIDTH);
        self.move_to(bucket);
        let count = &mut self.counts[Self::place(bucket)];
        if bucket > self.newest - N as i64
            && let Ok(more) = C::try_from((*count).into() + 1)
        {
            *count = more;
            self.sum += 1;
        }
        self.sum
    }

    /// How many lie within the buckets up to that of `now`.
    pub(super) fn count(&mut self, now: i64) -> u32 {
        self.move_to(now.div_euclid(WIDTH));
        self.sum
    }

    /// Empties the buckets between the newest and this one: at most `N` steps, whatever the time.
    fn move_to(&mut self, bucket: i64) {
        if bucket <= self.newest {
            return;
        }
        let first = (self.newest + 1).max(bucket - N as i64 + 1);
        for passed in first..=bucket {
            self.sum -= std::mem::take(&mut self.counts[Self::place(passed)]).into();
        }
        self.newest = bucket;
    }

    fn place(bucket: i64) -> usize {
        bucket.rem_euclid(N as i64) as usize
    }
}

/// The times within the last minute, both ends included. Only the newest are kept: one more than
/// the limit is enough to tell that it is crossed. The low half of a time is enough, as no two kept
/// times are more than a minute apart.
#[derive(Clone, Default)]
pub(super) struct Times {
    newest: i64,
    times: VecDeque<u32>,
}

impl Times {
    /// Adds a time. Answers how many lie within the minute that ends with it; at most `most` are
    /// kept. A late event is put in its place, and counts for those after it.
    pub(super) fn add(&mut self, at: i64, most: usize) -> usize {
        if at < self.newest {
            self.add_late(at);
        } else {
            self.forget(at);
            self.newest = at;
            self.times.reserve_exact(
                usize::from(self.times.len() == self.times.capacity()) * Self::step(most),
            );
            self.times.push_back(at as u32);
        }
        while self.times.len() > most.max(1) {
            self.times.pop_front();
        }
        self.times.len()
    }

    /// How many lie within the minute that ends `now`. An idle key gives its memory back.
    pub(super) fn count(&mut self, now: i64) -> usize {
        self.forget(now.max(self.newest));
        if self.times.is_empty() {
            self.times = VecDeque::new();
        }
        self.times.len()
    }

    fn forget(&mut self, now: i64) {
        if now - self.newest > MINUTE {
            return self.times.clear();
        }
        let age = |time: u32| (now as u32).wrapping_sub(time);
        while self.times.front().is_some_and(|&time| age(time) > MINUTE as u32) {
            self.times.pop_front();
        }
    }

    fn add_late(&mut self, at: i64) {
        if self.newest - at <= MINUTE {
            let newest = self.newest as u32;
            let age = newest.wrapping_sub(at as u32);
            let place = self.times.partition_point(|&time| newest.wrapping_sub(time) >= age);
            self.times.insert(place, at as u32);
        }
    }

    /// Memory grows in quarters of the most that is kept, so no more than a limit's worth is
    /// allocated.
    fn step(most: usize) -> usize {
        (most / 4 + 1).min(256)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minute_has_both_its_ends_and_nothing_more() {
        let mut times = Times::default();
        assert_eq!(times.add(1_000, 101), 1);
        assert_eq!(times.add(1_000 + MINUTE, 101), 2);
        assert_eq!(times.add(1_001 + MINUTE, 101), 2);
        assert_eq!(times.count(1_001 + 2 * MINUTE), 1);
        assert_eq!(times.count(1_002 + 2 * MINUTE), 0);
        assert_eq!(times.times.capacity(), 0); // an idle key gives its memory back
    }

    #[test]
    fn times_of_a_key_asleep_for_hours_do_not_come_back_with_the_low_half() {
        let wrap = 1i64 << 32;
        let mut times = Times::default();
        times.add(5 * wrap, 101);
        assert_eq!(times.add(6 * wrap, 101), 1);
        assert_eq!(times.add(6 * wrap + MINUTE / 2 + wrap, 101), 1);
    }

    #[test]
    fn a_minute_across_the_border_of_the_low_half_is_a_minute() {
        let border = 7i64 << 32;
        let mut times = Times::default();
        for i in 0..10 {
            assert_eq!(times.add(border - 5 + i, 101), i as usize + 1);
        }
        assert_eq!(times.count(border - 5 + MINUTE + 4), 6);
    }

    #[test]
    fn what_comes_late_counts_where_it_belongs() {
        let mut times = Times::default();
        times.add(MINUTE, 3);
        assert_eq!(times.add(MINUTE / 2, 3), 2);
        assert_eq!(times.add(-1, 3), 2); // older than a minute
        assert_eq!(times.add(2 * MINUTE, 3), 2);
        assert_eq!(times.add(MINUTE + 1, 3), 3);
        assert_eq!(times.add(MINUTE + 2, 3), 3); // the oldest of four is dropped
        assert_eq!(times.count(2 * MINUTE + 1), 3);
        assert_eq!(times.count(2 * MINUTE + 2), 2);
    }

    #[test]
    fn no_more_times_are_kept_than_tell_whether_the_limit_is_crossed() {
        let mut times = Times::default();
        (0..10_000).for_each(|i| {
            times.add(i, 101);
        });
        assert_eq!(times.count(10_000), 101);
        assert!(times.times.capacity() <= 128, "{}", times.times.capacity());
    }

    #[test]
    fn an_hour_is_the_present_minute_and_the_59_before() {
        let mut hour = Hour::default();
        hour.add(MINUTE - 1);
        assert_eq!(hour.count(60 * MINUTE - 1), 1);
        assert_eq!(hour.count(60 * MINUTE), 0);
        hour.add(1_000 * MINUTE);
        hour.add(941 * MINUTE);
        hour.add(941 * MINUTE - 1); // before the oldest minute
        assert_eq!(hour.count(1_000 * MINUTE), 2);
        assert_eq!(hour.count(1_001 * MINUTE), 1);
    }

    #[test]
    fn what_is_rare_stops_counting_rather_than_beginning_anew() {
        let mut hour = RareHour::default();
        (0..70_000).for_each(|_| {
            hour.add(0);
        });
        assert_eq!(hour.count(0), 65_535);
        assert_eq!(hour.count(60 * MINUTE), 0);
    }

    #[test]
    fn a_day_of_clocks_that_jump_is_counted_and_stays_in_bounds() {
        let mut day = HalfHours::default();
        for at in [i64::MIN / 2, 0, 30 * MINUTE, -5, i64::MAX / 2, i64::MAX / 2 - 1] {
            day.add(at);
        }
        assert!(day.count(i64::MAX / 2) >= 1);
        let mut forward = HalfHours::default();
        (0..96).for_each(|i| {
            forward.add(i * 30 * MINUTE);
        });
        assert_eq!(forward.count(95 * 30 * MINUTE), 48);
    }
}
