//! Refusals of callers without the right. Up to a rate each is a row of the trail; above it they
//! are counted, and one row holds the number. So nobody can flood the trail by failing, and no
//! refusal goes unrecorded. They count per caller, never per key, so that nobody harms another's
//! key by failing on it.

use crate::moment::{Moment, Span};
use crate::trail::{AccessType, Event, FailureReason};
use std::collections::HashMap;

/// The most refusals of one caller within a minute that get a row each. A person makes fewer by
/// mistake.
const ROWS_A_MINUTE: u32 = 20;
/// The most callers that are told apart at a time (about 200 bytes each). If there are more, every
/// refusal gets its row.
const MAX_CALLERS: usize = 4096;

/// Who failed, by properties that a caller cannot choose freely. Claims that do not count are left
/// out.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Who {
    session_role: String,
    subject: Option<String>,
}

impl Who {
    fn of(event: &Event) -> Who {
        Who {
            session_role: event.session_role.get().unwrap_or_default().to_owned(),
            subject: event.claims_sub.get().filter(|_| event.claims_trusted).map(str::to_owned),
        }
    }
}

/// Attempts that share one row: the same caller, with the same rights, was refused the same for the
/// same reason.
#[derive(PartialEq, Eq, Hash)]
struct Attempt {
    who: Who,
    effective_role: String,
    access_type: AccessType,
    failure: Option<FailureReason>,
}

/// One caller's present minute.
struct Minute {
    began: Moment,
    refusals: u32,
}

/// Refusals that are counted but not yet written. `T` belongs to the first event of a row: its
/// place in the queue.
pub struct Refusals<T> {
    callers: HashMap<Who, Minute>,
    counted: HashMap<Attempt, (T, Event)>,
}

impl<T> Default for Refusals<T> {
    fn default() -> Self {
        Refusals { callers: HashMap::new(), counted: HashMap::new() }
    }
}

impl<T> Refusals<T> {
    /// Whether the refusal is above its caller's rate. Then it is counted here and gets no row of
    /// its own.
    pub fn takes(&mut self, place: T, event: &Event, now: Moment) -> bool {
        let past = self.is_past_rate(&Who::of(event), now);
        if past {
            self.count(place, event);
        }
        past
    }

    /// The rows to write now, each with its number of attempts. `put_back` takes those that cannot
    /// be written.
    pub fn due(&mut self) -> Vec<(T, Event)> {
        self.counted.drain().map(|(_, row)| row).collect()
    }

    /// Counts again what could not be written.
    pub fn put_back(&mut self, rows: Vec<(T, Event)>) {
        rows.into_iter().for_each(|(place, event)| self.count(place, &event));
    }

    fn count(&mut self, place: T, event: &Event) {
        let attempt = Attempt {
            who: Who::of(event),
            effective_role: event.effective_role.get().unwrap_or_default().to_owned(),
            access_type: event.access_type,
            failure: event.failure,
        };
        self.counted
            .entry(attempt)
            .and_modify(|(_, first)| first.count_also(event))
            .or_insert((place, *event));
    }

    fn is_past_rate(&mut self, who: &Who, now: Moment) -> bool {
        if let Some(minute) = self.callers.get_mut(who) {
            if now - minute.began >= Span::MINUTE {
                *minute = Minute { began: now, refusals: 0 };
            }
            minute.refusals = minute.refusals.saturating_add(1);
            return minute.refusals > ROWS_A_MINUTE;
        }
        if self.callers.len() >= MAX_CALLERS {
            self.callers.retain(|_, minute| now - minute.began < Span::MINUTE);
        }
        if self.callers.len() < MAX_CALLERS {
            self.callers.insert(who.clone(), Minute { began: now, refusals: 1 });
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::Bounded;
    use crate::trail::event::tests::event;

    const MINUTE: i64 = Span::MINUTE.micros();

    fn refused(role: &str, subject: Option<&str>, trusted: bool) -> Event {
        let named = Event {
            session_role: Bounded::new(Some(role)),
            claims_sub: Bounded::new(subject),
            claims_trusted: trusted,
            ..event()
        };
        named.refused(FailureReason::NotAuthorized)
    }

    /// How many of `times` refusals got a row of their own.
    fn rows(refusals: &mut Refusals<u64>, event: &Event, times: u32, now: i64) -> u32 {
        let now = Moment::new(now);
        (0..times).map(|i| u32::from(!refusals.takes(u64::from(i), event, now))).sum()
    }

    #[test]
    fn each_refusal_is_a_row_up_to_the_rate_and_is_counted_past_it() {
        let mut refusals = Refusals::default();
        assert_eq!(rows(&mut refusals, &refused("r", None, false), 1000, 0), ROWS_A_MINUTE);
        let due = refusals.due();
        assert_eq!(due.len(), 1);
        assert_eq!(
            (due[0].0, due[0].1.attempt_count),
            (u64::from(ROWS_A_MINUTE), 1000 - ROWS_A_MINUTE as i32)
        );
        assert!(refusals.due().is_empty());
        refusals.put_back(due);
        assert_eq!(rows(&mut refusals, &refused("r", None, false), 1, 1), 0);
        assert_eq!(refusals.due()[0].1.attempt_count, 981);
    }

    #[test]
    fn a_new_minute_gives_new_rows_and_a_clock_set_back_does_not() {
        let mut refusals = Refusals::default();
        let event = refused("r", None, false);
        assert_eq!(rows(&mut refusals, &event, 30, MINUTE), ROWS_A_MINUTE);
        assert_eq!(rows(&mut refusals, &event, 30, 2 * MINUTE - 1), 0);
        assert_eq!(rows(&mut refusals, &event, 30, 0), 0);
        assert_eq!(rows(&mut refusals, &event, 30, 2 * MINUTE), ROWS_A_MINUTE);
    }

    #[test]
    fn callers_are_told_apart_by_what_they_cannot_choose() {
        let mut refusals = Refusals::default();
        assert_eq!(rows(&mut refusals, &refused("web", Some("a"), true), 30, 0), ROWS_A_MINUTE);
        assert_eq!(rows(&mut refusals, &refused("web", Some("b"), true), 30, 0), ROWS_A_MINUTE);
        assert_eq!(rows(&mut refusals, &refused("sql", Some("a"), false), 30, 0), ROWS_A_MINUTE);
        for spoofed in ["b", "c", "d"] {
            assert_eq!(
                rows(&mut refusals, &refused("sql", Some(spoofed), false), 30, 0),
                0,
                "{spoofed}"
            );
        }
    }

    #[test]
    fn a_row_says_only_what_all_its_attempts_share() {
        let mut refusals = Refusals::default();
        let (first, mut other) = (refused("r", None, false), refused("r", None, false));
        other.provider_key_id = Some(crate::id::ProviderKeyId::new([9; 16]));
        assert_eq!(rows(&mut refusals, &first, 21, 0), ROWS_A_MINUTE);
        assert!(refusals.takes(0, &other, Moment::EPOCH));
        let mut rotation = first;
        rotation.access_type = AccessType::Rotate;
        assert!(refusals.takes(0, &rotation, Moment::EPOCH));
        let mut due = refusals.due();
        due.sort_by_key(|(_, event)| event.attempt_count);
        assert_eq!(due.len(), 2); // another access type is another row
        assert_eq!(due[0].1.access_type, AccessType::Rotate);
        let both = due[1].1;
        assert_eq!(
            (both.attempt_count, both.provider_key_id, both.user_agent.get()),
            (2, None, Some("curl"))
        );
    }

    #[test]
    fn too_many_callers_get_more_rows_and_no_more_memory() {
        let mut refusals = Refusals::default();
        for i in 0..MAX_CALLERS * 2 {
            assert_eq!(rows(&mut refusals, &refused(&format!("r{i}"), None, false), 1, 0), 1);
        }
        assert_eq!(refusals.callers.len(), MAX_CALLERS);
        assert_eq!(rows(&mut refusals, &refused("late", None, false), 100, 0), 100);
        assert_eq!(rows(&mut refusals, &refused("later", None, false), 100, MINUTE), ROWS_A_MINUTE);
    }
}
