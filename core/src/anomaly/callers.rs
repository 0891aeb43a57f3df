//! Callers, and how many different keys each opened within the last minute. Many keys mean that
//! somebody empties the vault. A pair of caller and key counts for a minute after its last access.
//! Pairs are kept in the order of that access, so expired ones are found at once. Memory is
//! bounded: the longest idle callers and pairs are dropped.

use super::detector::Detector;
use super::limits::Limits;
use super::past::DAYS;
use crate::moment::{Moment, Span};
use crate::trail::CallerKind;
use lru::LruCache;
use std::rc::Rc;

/// The most callers of one kind that are known at a time, about 150 bytes each.
pub(super) const MAX_CALLERS: usize = 10_000;
/// The most pairs of caller and key within the last minute, about 80 bytes each.
pub(super) const MAX_PAIRS: usize = 65_536;

/// The place of a caller.
pub(super) type CallerPlace = u32;

pub(super) struct CountedCaller {
    /// What kind of caller it is.
    pub kind: CallerKind,
    pub name: Rc<str>,
    /// Given once and never again, unlike its place.
    pub serial: u32,
    /// Different keys opened within the last minute.
    pub distinct: u32,
    /// An episode is open.
    pub flagged: bool,
    /// The most keys of a minute, by day; `day` is the newest.
    busiest: [u32; DAYS],
    day: i32,
    is_changed: bool,
}

pub(super) struct Callers {
    names: [LruCache<Rc<str>, CallerPlace>; 3],
    callers: Vec<CountedCaller>,
    free: Vec<CallerPlace>,
    /// Caller and key, with the time of the last access.
    pairs: LruCache<(CallerPlace, u32), Moment>,
    changed: Vec<CallerPlace>,
    serials: u32,
}

/// The busiest minute of a caller on a day (since 1970).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peak {
    /// What kind of caller it is.
    pub kind: CallerKind,
    /// The name of the caller.
    pub subject: Rc<str>,
    /// The UTC day, in days since 1970.
    pub day: i32,
    /// Different keys in the busiest minute of that day.
    pub distinct_keys: u32,
}

impl Default for Callers {
    fn default() -> Self {
        Callers {
            names: std::array::from_fn(|_| LruCache::unbounded()),
            callers: Vec::new(),
            free: Vec::new(),
            pairs: LruCache::unbounded(),
            changed: Vec::new(),
            serials: 0,
        }
    }
}

impl Callers {
    /// Counts an access of a caller to a key. Answers the caller's place, and whether this caller
    /// had not used the key within the last minute. None: there are more active callers than
    /// places. Its busiest minute does not change here. `raise` changes it, for accesses that were
    /// not refused.
    pub(super) fn open(
        &mut self,
        kind: CallerKind,
        name: &str,
        key: u32,
        at: Moment,
    ) -> Option<(CallerPlace, bool)> {
        let place = self.place(kind, name)?;
        let fresh = self.pairs.put((place, key), at).is_none();
        if fresh {
            if self.pairs.len() > MAX_PAIRS {
                self.let_go_oldest();
            }
            self.callers[place as usize].distinct += 1;
        }
        Some((place, fresh))
    }

    /// The caller got the key that it opened last, so its present minute may be its busiest. Within
    /// an episode it is not: what is flagged today allows nothing tomorrow.
    pub(super) fn raise(&mut self, place: CallerPlace, at: Moment) {
        let caller = &mut self.callers[place as usize];
        if caller.flagged {
            return;
        }
        caller.raise(at.day(), caller.distinct);
        self.mark_changed(place);
    }

    /// Drops the pairs whose minute is over.
    pub(super) fn forget(&mut self, now: Moment) {
        while self.pairs.peek_lru().is_some_and(|(_, &last)| now - last > Span::MINUTE) {
            self.let_go_oldest();
        }
    }

    /// Drops all pairs, as after a clock was set back.
    pub(super) fn forget_all(&mut self) {
        self.pairs.clear();
        self.callers.iter_mut().for_each(|caller| caller.distinct = 0);
    }

    pub(super) fn get(&self, place: CallerPlace) -> &CountedCaller {
        &self.callers[place as usize]
    }

    pub(super) fn flag(&mut self, place: CallerPlace, flagged: bool) {
        self.callers[place as usize].flagged = flagged;
    }

    /// The place of a known caller.
    pub(super) fn find(&self, kind: CallerKind, name: &str) -> Option<CallerPlace> {
        self.names[kind as usize].peek(name).copied()
    }

    /// The place of a caller. A new one is made if there is room.
    pub(super) fn place(&mut self, kind: CallerKind, name: &str) -> Option<CallerPlace> {
        if let Some(&place) = self.names[kind as usize].get(name) {
            return Some(place);
        }
        if self.names[kind as usize].len() >= MAX_CALLERS {
            self.let_go_idlest(kind)?;
        }
        let name: Rc<str> = name.into();
        self.serials = self.serials.wrapping_add(1);
        let caller = CountedCaller {
            kind,
            name: name.clone(),
            serial: self.serials,
            distinct: 0,
            flagged: false,
            busiest: [0; DAYS],
            day: 0,
            is_changed: false,
        };
        let place = self.free.pop().unwrap_or(self.callers.len() as CallerPlace);
        if let Some(old) = self.callers.get_mut(place as usize) {
            *old = caller;
        } else {
            self.callers.push(caller);
        }
        self.names[kind as usize].put(name, place);
        Some(place)
    }

    /// Takes the busiest minute of a day from an earlier writer.
    pub(super) fn remember(&mut self, peak: &Peak) {
        if let Some(place) = self.place(peak.kind, &peak.subject) {
            self.callers[place as usize].raise(peak.day, peak.distinct_keys);
        }
    }

    /// Busiest minutes that rose since the last call, at most `most` of them.
    pub(super) fn changed(&mut self, most: usize) -> Vec<Peak> {
        // The oldest first: a caller cannot leave its place until its minute is reported.
        let part: Vec<CallerPlace> = self.changed.drain(..most.min(self.changed.len())).collect();
        let mut peak = |place: CallerPlace| {
            let caller = &mut self.callers[place as usize];
            caller.is_changed = false;
            let distinct_keys = caller.busiest[caller.day.rem_euclid(DAYS as i32) as usize];
            Peak { kind: caller.kind, subject: caller.name.clone(), day: caller.day, distinct_keys }
        };
        part.into_iter().map(&mut peak).collect()
    }

    /// Has a busiest minute reported again, because it could not be written.
    pub(super) fn put_back(&mut self, peak: &Peak) {
        if let Some(place) = self.find(peak.kind, &peak.subject)
            && !std::mem::replace(&mut self.callers[place as usize].is_changed, true)
        {
            self.changed.push(place);
        }
    }

    fn mark_changed(&mut self, place: CallerPlace) {
        let caller = &mut self.callers[place as usize];
        if !caller.is_changed && caller.is_busiest_now() {
            caller.is_changed = true;
            self.changed.push(place);
        }
    }

    fn let_go_oldest(&mut self) {
        if let Some(((place, _), _)) = self.pairs.pop_lru() {
            let distinct = &mut self.callers[place as usize].distinct;
            *distinct = distinct.saturating_sub(1);
        }
    }

    /// Drops the longest idle caller of a kind. None: all are active.
    fn let_go_idlest(&mut self, kind: CallerKind) -> Option<()> {
        let (_, &place) = self.names[kind as usize].peek_lru()?;
        let caller = &self.callers[place as usize];
        if caller.distinct > 0 || caller.is_changed || caller.flagged {
            return None;
        }
        self.names[kind as usize].pop_lru();
        self.free.push(place);
        Some(())
    }
}

impl CountedCaller {
    /// More different keys within a minute than this are an anomaly: the limit, or three times the
    /// caller's own busiest minute of the seven days before. Today does not count, so that nobody
    /// can raise the limit step by step and then empty the vault.
    pub(super) fn limit(&self, base: &Limits, now: Moment) -> u32 {
        let own =
            if base.knows_past { self.busiest_before(now.day()).saturating_mul(3) } else { 0 };
        base.of(Detector::MassReading).max(own)
    }

    fn busiest_before(&self, today: i32) -> u32 {
        let days = (today - DAYS as i32 + 1)..today;
        days.filter(|day| (self.day - DAYS as i32 + 1..=self.day).contains(day))
            .map(|day| self.busiest[day.rem_euclid(DAYS as i32) as usize])
            .max()
            .unwrap_or(0)
    }

    fn is_busiest_now(&self) -> bool {
        self.busiest[self.day.rem_euclid(DAYS as i32) as usize] == self.distinct
    }

    fn raise(&mut self, day: i32, distinct: u32) {
        if day > self.day {
            let first = (self.day + 1).max(day - DAYS as i32 + 1);
            (first..=day)
                .for_each(|passed| self.busiest[passed.rem_euclid(DAYS as i32) as usize] = 0);
            self.day = day;
        }
        if day > self.day - DAYS as i32 {
            let busiest = &mut self.busiest[day.rem_euclid(DAYS as i32) as usize];
            *busiest = distinct.max(*busiest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(span: Span) -> Moment {
        Moment::EPOCH + span
    }

    fn most(keys: u32) -> Limits {
        Limits::default().with(Detector::MassReading, keys)
    }

    fn distinct(callers: &mut Callers, now: Moment) -> u32 {
        callers.forget(now);
        callers.find(CallerKind::Role, "app").map_or(0, |place| callers.get(place).distinct)
    }

    #[test]
    fn a_key_counts_once_and_for_a_minute_after_its_last_access() {
        let mut callers = Callers::default();
        for (key, seconds) in [(1, 0), (2, 10), (1, 30), (3, 40)] {
            callers.open(CallerKind::Role, "app", key, at(Span::SECOND * seconds));
        }
        assert_eq!(distinct(&mut callers, Moment::new(70_000_000)), 3); // both ends count
        assert_eq!(distinct(&mut callers, Moment::new(70_000_001)), 2);
        assert_eq!(distinct(&mut callers, Moment::new(90_000_001)), 1);
        assert_eq!(distinct(&mut callers, Moment::new(100_000_001)), 0);
    }

    #[test]
    fn callers_of_one_name_and_two_kinds_are_two() {
        let mut callers = Callers::default();
        let role = callers.open(CallerKind::Role, "app", 1, Moment::EPOCH);
        let subject = callers.open(CallerKind::Subject, "app", 1, Moment::EPOCH);
        assert_ne!(role, subject);
        assert_eq!(distinct(&mut callers, Moment::EPOCH), 1);
    }

    #[test]
    fn the_limit_is_three_times_the_busiest_minute_of_the_week_before_and_not_of_today() {
        let mut callers = Callers::default();
        let place = callers.place(CallerKind::Role, "app").unwrap();
        let name: Rc<str> = "app".into();
        for (day, distinct_keys) in [(91, 1_000), (92, 40), (95, 30), (99, 900)] {
            callers.remember(&Peak {
                kind: CallerKind::Role,
                subject: name.clone(),
                day,
                distinct_keys,
            });
        }
        assert_eq!(callers.get(place).limit(&most(50), at(Span::days(99))), 120); // 92 to 98
        assert_eq!(callers.get(place).limit(&most(50), at(Span::days(100))), 2_700);
        assert_eq!(callers.get(place).limit(&most(50), at(Span::days(107))), 50);
        assert_eq!(callers.get(place).limit(&most(5_000), at(Span::days(100))), 5_000);
        let mut fixed = most(50);
        fixed.knows_past = false;
        assert_eq!(callers.get(place).limit(&fixed, at(Span::days(100))), 50);
    }

    #[test]
    fn the_busiest_minute_is_told_when_it_rises() {
        let mut callers = Callers::default();
        let open = |callers: &mut Callers, key, at| {
            let (place, _) = callers.open(CallerKind::Address, "10.0.0.1", key, at).unwrap();
            callers.raise(place, at);
        };
        (0..5).for_each(|key| open(&mut callers, key, at(Span::DAY)));
        let peaks = callers.changed(10);
        assert_eq!((peaks.len(), peaks[0].day, peaks[0].distinct_keys), (1, 1, 5));
        assert!(callers.changed(10).is_empty());
        callers.forget(at(Span::DAY) + Span::minutes(2));
        open(&mut callers, 1, at(Span::DAY) + Span::minutes(2));
        assert!(callers.changed(10).is_empty());
    }

    #[test]
    fn more_callers_or_pairs_than_there_is_room_for_take_no_more_memory() {
        let mut callers = Callers::default();
        for i in 0..MAX_CALLERS as i64 * 2 {
            callers.open(CallerKind::Address, &format!("10.{i}"), 1, Moment::new(i));
        }
        assert_eq!(callers.names[CallerKind::Address as usize].len(), MAX_CALLERS);
        assert!(callers.open(CallerKind::Address, "late", 1, Moment::EPOCH).is_none());
        callers.forget(at(Span::minutes(2)));
        callers.changed(usize::MAX);
        assert!(callers.open(CallerKind::Address, "late", 1, at(Span::minutes(2))).is_some());
        assert_eq!(callers.callers.len(), MAX_CALLERS);
        for key in 0..MAX_PAIRS as u32 * 2 {
            callers.open(CallerKind::Role, "app", key, at(Span::minutes(2)));
        }
        assert_eq!(callers.pairs.len(), MAX_PAIRS);
        assert!(distinct(&mut callers, at(Span::minutes(2))) as usize <= MAX_PAIRS);
    }
}
