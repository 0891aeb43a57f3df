//! The table of budgets: what each source has raised today, and what was held back. Many processes
//! ask it at once, also where no lock may be taken, so it is made of atomics. All zeros is an empty
//! table. A place that says nothing of today is given to the next source that needs one.

use super::source::{AlarmSource, Party, SourceClass};
use std::hint::spin_loop;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::*};

/// How many places each class has, in the order of `SourceClass`. A role takes two or more.
const PLACES: [usize; 3] = [4_096, 1_024, 1_024];
const TOTAL: usize = PLACES[0] + PLACES[1] + PLACES[2];
/// How far from its first place a source may stand.
const REACH: usize = 64;
/// The most sources of one party with a place of their own. Further ones count for the party alone.
const SOURCES: u32 = 16;

const FREE: u32 = 0;
const FILLING: u32 = 1;
const USED: u32 = 2;

/// A party's place.
#[repr(C)]
struct BudgetPlace {
    state: AtomicU32,
    /// How many of the party's findings wait to be written.
    waiting: AtomicU32,
    hash: AtomicU64,
    words: [AtomicU64; 4],
    /// Incidents of the day.
    raised: AtomicU64,
    /// Places that sources of this party took today.
    sources: AtomicU64,
    /// What was held back, by even and odd days, so that yesterday's count is not lost at midnight.
    held: [AtomicU64; 2],
}

/// A day and a count of that day: 24 and 40 bits.
const COUNT: u64 = (1 << 40) - 1;

fn day_of(word: u64) -> u32 {
    (word >> 40) as u32
}

fn pack(day: u32, count: u64) -> u64 {
    u64::from(day) << 40 | count.min(COUNT)
}

/// Takes one of the day's `most`. False: none is left.
fn take(word: &AtomicU64, day: u32, most: u32) -> bool {
    let taken = word.fetch_update(AcqRel, Acquire, |now| {
        let count = if day_of(now) == day { now & COUNT } else { 0 };
        (count < u64::from(most)).then(|| pack(day, count + 1))
    });
    taken.is_ok()
}

/// The table. `others` has a place for each class, for sources that found no room.
#[repr(C)]
pub struct Budgets {
    places: [BudgetPlace; TOTAL],
    others: [BudgetPlace; PLACES.len()],
}

/// An answer: what a finding is charged to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Whether it may become a row. Otherwise it is held back.
    pub may_raise: bool,
    /// The place to count it at, if it is held back.
    charged: usize,
    /// The place of its party.
    party: usize,
}

/// Findings of a party that were held back on a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeldBack {
    /// Whose.
    pub party: Party,
    /// The day, since 1970.
    pub day: u32,
    /// How many.
    pub count: u64,
}

/// Whether a party with so many findings in the queue may add one, while `free` places are left: a
/// sixteenth of what it leaves to others. One party alone takes a seventeenth of the queue, and
/// whoever comes new finds room while there is any.
pub fn may_wait(waiting: u32, free: u32) -> bool {
    waiting.saturating_mul(16) < free
}

impl Budgets {
    /// Asks for one incident of a source. `hash` is keyed, so that nobody chooses places.
    pub fn ask(
        &self,
        source: &AlarmSource,
        budget: u32,
        day: u32,
        hash: impl Fn(&[u64; 4]) -> u64,
    ) -> Asked {
        let (source, class) = (source.counted(), source.class());
        let (whole, one) = (source.party(), Party::One(source));
        let find = |party: &Party, may_take: bool| {
            self.place_of(class, &party.words(), hash(&party.words()), day, may_take)
        };
        let others = TOTAL + class as usize;
        let (party, limit) = match find(&whole, true) {
            Some(party) => (party, whole.budget(budget)),
            None => (others, Party::Others(class).budget(budget)),
        };
        let may_take = || {
            let is_stranger = class == SourceClass::Addresses;
            party != others && (is_stranger || take(&self.at(party).sources, day, SOURCES))
        };
        let own = find(&one, false).or_else(|| may_take().then(|| find(&one, true))?);
        if let Some(own) = own {
            let may_raise = take(&self.at(own).raised, day, source.budget(budget));
            if !may_raise || source.is_scan() {
                return Asked { may_raise, charged: own, party };
            }
        }
        let may_raise = take(&self.at(party).raised, day, limit);
        Asked { may_raise, charged: if may_raise { own.unwrap_or(party) } else { party }, party }
    }

    /// Counts findings that were held back.
    pub fn hold(&self, asked: &Asked, day: u32, count: u32) {
        let held = &self.at(asked.charged).held[day as usize % 2];
        let add = |now: u64| Some(pack(day, (now & COUNT) + u64::from(count)));
        // What an earlier day left is added to this one rather than lost.
        let _updated = held.fetch_update(AcqRel, Acquire, add);
    }

    /// How many findings of this party wait.
    pub fn waiting(&self, asked: &Asked) -> u32 {
        self.at(asked.party).waiting.load(Acquire)
    }

    /// One more finding waits. The number names its party to `no_longer_waits`.
    pub fn waits(&self, asked: &Asked) -> u32 {
        self.at(asked.party).waiting.fetch_add(1, AcqRel);
        asked.party as u32
    }

    /// One finding was taken out of the queue.
    pub fn no_longer_waits(&self, party: u32) {
        let less = |now: u32| now.checked_sub(1);
        let _updated = self.at(party as usize).waiting.fetch_update(AcqRel, Acquire, less);
    }

    /// Takes out what was held back of the parties that `wanted` names.
    pub fn take_held(&self, wanted: impl Fn(&Party) -> bool) -> Vec<HeldBack> {
        let mut taken = Vec::new();
        for (number, place) in self.places.iter().chain(&self.others).enumerate() {
            if place.held.iter().all(|held| held.load(Relaxed) & COUNT == 0) {
                continue;
            }
            let Some(party) = party_at(number, place).filter(&wanted) else { continue };
            let held = place.held.iter().map(|held| held.swap(0, AcqRel));
            let held = held.filter(|held| held & COUNT > 0);
            taken.extend(held.map(|held| HeldBack {
                party,
                day: day_of(held),
                count: held & COUNT,
            }));
        }
        taken
    }

    fn at(&self, number: usize) -> &BudgetPlace {
        match self.places.get(number) {
            Some(place) => place,
            None => &self.others[(number - TOTAL).min(PLACES.len() - 1)],
        }
    }

    /// Finds the place of these words, or takes one for them.
    fn place_of(
        &self,
        class: SourceClass,
        words: &[u64; 4],
        hash: u64,
        day: u32,
        may_take: bool,
    ) -> Option<usize> {
        let (from, size) = (PLACES[..class as usize].iter().sum::<usize>(), PLACES[class as usize]);
        let numbers = (0..REACH).map(|step| from + (hash as usize).wrapping_add(step) % size);
        let known = |number: &usize| {
            let place = &self.places[*number];
            await_filling(place) == USED && place.hash.load(Acquire) == hash
        };
        let found = numbers.clone().find(known);
        if found.is_some() || !may_take {
            return found;
        }
        numbers.into_iter().find(|number| self.places[*number].take(words, hash, day))
    }
}

impl BudgetPlace {
    /// Takes a place that is free, or that says nothing of today.
    fn take(&self, words: &[u64; 4], hash: u64, day: u32) -> bool {
        let state = self.state.load(Acquire);
        let is_idle = || {
            day_of(self.raised.load(Acquire)) != day
                && day_of(self.sources.load(Acquire)) != day
                && self.waiting.load(Acquire) == 0
                && self.held.iter().all(|held| held.load(Acquire) & COUNT == 0)
        };
        let may = state == FREE || state == USED && is_idle();
        if !may || self.state.compare_exchange(state, FILLING, AcqRel, Relaxed).is_err() {
            return false;
        }
        self.hash.store(hash, Relaxed);
        self.words.iter().zip(words).for_each(|(ours, word)| ours.store(*word, Relaxed));
        [&self.raised, &self.sources].into_iter().for_each(|word| word.store(0, Relaxed));
        self.state.store(USED, Release);
        true
    }
}

/// The state of a place, once whoever fills it is done: some ten instructions.
fn await_filling(place: &BudgetPlace) -> u32 {
    for _ in 0..1_000 {
        let state = place.state.load(Acquire);
        if state != FILLING {
            return state;
        }
        spin_loop();
    }
    FILLING
}

fn party_at(number: usize, place: &BudgetPlace) -> Option<Party> {
    if number >= TOTAL {
        return SourceClass::ALL.get(number - TOTAL).copied().map(Party::Others);
    }
    let words = [0, 1, 2, 3].map(|at| place.words[at].load(Acquire));
    (place.state.load(Acquire) == USED).then(|| Party::from_words(words)).flatten()
}

#[cfg(test)]
#[path = "budgets_tests.rs"]
mod tests;
