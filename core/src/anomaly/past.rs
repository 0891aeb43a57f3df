//! A key's own past: its busiest minute, hour and day, for today and the seven days before, and
//! since when it is in use. They are counted as the detectors count, of accesses that were neither
//! refused nor flagged. Today raises no limit of today. Days are UTC days, counted from 1970.

use super::detector::Detector;
use super::limits::Limits;

/// Days that are kept: today and the week before.
pub const DAYS: usize = 8;
/// So many times the busiest of the week before is nothing unusual.
const TIMES: u32 = 3;
/// A shorter past says nothing about a key.
const WEEK: i32 = 7;

/// A count for each of `Detector::OF_THE_PAST`: minute, hour, day.
pub type Busiest = [u32; Detector::OF_THE_PAST.len()];

/// The past of a key, also as it is stored.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct KeyPast {
    /// The first day with an access that counts here.
    pub since: Option<i32>,
    /// The newest day of `busiest`.
    pub newest: i32,
    /// The newest day first.
    pub busiest: [Busiest; DAYS],
}

impl KeyPast {
    /// Takes counts of a day. Days before the oldest kept one only tell since when it is in use.
    pub fn raise(&mut self, day: i32, counts: Busiest) {
        self.since = Some(self.since.map_or(day, |since| since.min(day)));
        self.move_to(day);
        let back = self.newest.saturating_sub(day);
        if let Some(busiest) = self.busiest.get_mut(back as usize) {
            busiest.iter_mut().zip(counts).for_each(|(most, count)| *most = count.max(*most));
        }
    }

    /// Takes what another writer counted. The order does not matter.
    pub fn merge(&mut self, other: &KeyPast) {
        let Some(since) = other.since else { return };
        let days = (0..).map(|back: i32| other.newest.saturating_sub(back)).zip(other.busiest);
        days.filter(|(_, counts)| *counts != Busiest::default())
            .for_each(|(day, counts)| self.raise(day, counts));
        self.since = Some(self.since.map_or(since, |own| own.min(since)));
    }

    /// The limits as they hold for this key on a day.
    pub fn limits(&self, stated: Limits, today: i32) -> Limits {
        let mut limits = stated;
        if !stated.knows_past || self.since.is_none_or(|since| today.saturating_sub(since) < WEEK) {
            return limits;
        }
        let before = self.before(today);
        for (busiest, &detector) in before.into_iter().zip(&Detector::OF_THE_PAST) {
            let allowed = busiest.saturating_mul(TIMES).min(detector.greatest_limit());
            limits = limits.with(detector, stated.of(detector).max(allowed));
        }
        limits
    }

    /// The busiest minute, hour and day of the week before a day.
    pub fn before(&self, today: i32) -> Busiest {
        let mut most = Busiest::default();
        for (day, counts) in
            (0..).map(|back: i32| self.newest.saturating_sub(back)).zip(self.busiest)
        {
            if (1..=WEEK).contains(&today.saturating_sub(day)) {
                most.iter_mut().zip(counts).for_each(|(most, count)| *most = count.max(*most));
            }
        }
        most
    }

    fn move_to(&mut self, day: i32) {
        let passed = day.saturating_sub(self.newest).clamp(0, DAYS as i32) as usize;
        self.busiest.rotate_right(passed % DAYS);
        self.busiest[..passed].fill(Busiest::default());
        self.newest = self.newest.max(day);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(past: &KeyPast, today: i32) -> [u32; 3] {
        let limits = past.limits(Limits::default(), today);
        Detector::OF_THE_PAST.map(|detector| limits.of(detector))
    }

    const STATED: [u32; 3] = [100, 10_000, 100_000];

    #[test]
    fn three_times_the_busiest_of_the_week_before_and_not_of_today() {
        let mut past = KeyPast::default();
        past.raise(90, [900, 20_000, 0]); // the eighth day before 98
        past.raise(91, [40, 5_000, 60_000]);
        past.raise(95, [50, 0, 0]);
        past.raise(98, [700, 0, 0]);
        assert_eq!(allowed(&past, 98), [150, 15_000, 180_000]);
        assert_eq!(allowed(&past, 99), [2_100, 10_000, 100_000]); // the day 91 is too long ago
        assert_eq!(allowed(&past, 105), [2_100, 10_000, 100_000]);
        assert_eq!(allowed(&past, 106), STATED);
        assert_eq!(allowed(&past, i32::MAX), STATED);
    }

    #[test]
    fn a_key_without_a_week_of_history_has_the_stated_limits() {
        let mut past = KeyPast::default();
        assert_eq!(allowed(&past, 7), STATED);
        past.raise(10, [90, 9_000, 90_000]);
        assert_eq!(allowed(&past, 16), STATED);
        assert_eq!(allowed(&past, 17), [270, 27_000, 270_000]);
    }

    #[test]
    fn fixed_limits_know_no_past() {
        let mut past = KeyPast::default();
        past.raise(10, [90, 9_000, 90_000]);
        let mut stated = Limits::default();
        stated.knows_past = false;
        assert_eq!(past.limits(stated, 17), stated);
    }

    #[test]
    fn a_minutes_limit_stays_within_what_times_are_kept_for() {
        let mut past = KeyPast::default();
        past.raise(10, [90_000, u32::MAX, u32::MAX]);
        let most = i32::MAX as u32;
        assert_eq!(allowed(&past, 17), [100_000, most, most]);
    }

    #[test]
    fn late_days_and_days_of_a_broken_clock_take_their_place_or_none() {
        let mut past = KeyPast::default();
        past.raise(20, [7, 7, 7]);
        past.raise(19, [9, 9, 9]);
        past.raise(2, [99, 99, 99]);
        assert_eq!((past.since, past.before(21)), (Some(2), [9, 9, 9]));
        past.raise(i32::MAX, [1, 1, 1]);
        past.raise(i32::MIN, [5, 5, 5]);
        assert_eq!((past.before(21), past.newest), ([0, 0, 0], i32::MAX));
    }

    #[test]
    fn two_writers_counts_are_one_past_in_either_order() {
        let (mut one, mut two) = (KeyPast::default(), KeyPast::default());
        (0..12).for_each(|day| one.raise(100 + day, [day as u32, 3, 50]));
        (5..9).for_each(|day| two.raise(100 + day, [20 - day as u32, 4, 1]));
        let (mut a, mut b) = (one, two);
        a.merge(&two);
        b.merge(&one);
        assert_eq!(a, b);
        assert_eq!((a.since, a.newest), (Some(100), 111));
        assert_eq!(a.before(112), [15, 4, 50]);
        a.merge(&KeyPast::default());
        assert_eq!(a, b);
    }
}
