//! The own past of keys. It is read from the tables when the watch sees a key first. Where no
//! writer has counted it yet, as after an upgrade, a week of the trail is counted. From then on
//! the watch keeps it, and it is stored with the counters (`counters`).

use super::transaction::now_or_later;
use crate::anomaly::{KeyAccess, Watch};
use crate::id::KeyRef;
use crate::moment::{Moment, Span};
use crate::store;
use crate::store::past::Flagged;
use crate::store::watch::Past;
use pgrx::log;

/// Rows of the trail or keys read at a time: about 4 ms, so an event waits at most that long.
const AT_ONCE: i64 = 1_000;
/// The week before today, and the day with which its first windows begin.
const WEEK: Span = Span::days(8);

/// Reads what is stored of these keys. Answers whether that could be read.
pub(super) fn read(watch: &mut Watch, keys: &[KeyRef]) -> bool {
    let stored =
        now_or_later("the past of keys is read", |owner| store::past::of_keys(owner, keys));
    stored.inspect(|stored| watch.remember_past(keys, stored)).is_some()
}

/// Reads what is stored of some keys that are counted already. None: it cannot be read now. Else
/// whether there were any.
pub(super) fn read_some(watch: &mut Watch) -> Option<bool> {
    let keys = watch.some_without_past(AT_ONCE as usize);
    (keys.is_empty() || read(watch, &keys)).then_some(!keys.is_empty())
}

/// The access of a row, and whether it is suspect: it was refused or flagged then.
pub(super) fn access<'a>(row: &'a Past, flagged: &Flagged) -> Option<(KeyAccess<'a>, bool)> {
    let access = row.access()?;
    let is_within = |(began, ended): &(Moment, Moment)| (*began..*ended).contains(&access.at);
    let was_flagged =
        flagged.get(&access.key).is_some_and(|episodes| episodes.iter().any(is_within));
    Some((access, was_flagged || !row.success))
}

/// Takes an access of an earlier writer into the counters.
pub(super) fn remember(watch: &mut Watch, access: &KeyAccess, is_suspect: bool) {
    if is_suspect { watch.remember_suspect(access) } else { watch.remember(access) }
}

/// Counts the week before from the trail, by a watch of its own, the oldest row first.
pub(super) struct Recount {
    counted: Watch,
    after: (Moment, i64, i64),
    last: Moment,
    until: i64,
    rows: u64,
}

impl Recount {
    pub(super) fn until(until: i64, now: Moment) -> Recount {
        let first = (now.midnight() - WEEK, i64::MIN, i64::MIN);
        Recount { counted: Watch::for_recount(), after: first, last: now, until, rows: 0 }
    }

    /// Counts the next rows. Answers the keys whose past is to be stored, once all are counted.
    pub(super) fn step(&mut self, watch: &mut Watch, flagged: &Flagged) -> Option<Vec<KeyRef>> {
        let (after, last, until) = (self.after, self.last, self.until);
        let rows = now_or_later("a week is counted", |owner| {
            store::past::forwards(owner, after, last, until, AT_ONCE)
        })?;
        let accesses = rows.iter().filter_map(|row| access(row, flagged));
        accesses.for_each(|(access, is_suspect)| self.counted.recount(&access, is_suspect));
        self.rows += rows.len() as u64;
        if let Some(row) = rows.last() {
            self.after = row.place;
        }
        if rows.len() == AT_ONCE as usize {
            return None;
        }
        let keys = self.counted.counted_keys();
        for part in watch.without_past(keys.iter().copied()).chunks(AT_ONCE as usize) {
            if !read(watch, part) {
                return None;
            }
        }
        log!(
            "watchllm_keys writer: the past of {} keys was counted from {} rows of the trail",
            keys.len(),
            self.rows
        );
        Some(watch.take_over(&self.counted, keys))
    }
}
