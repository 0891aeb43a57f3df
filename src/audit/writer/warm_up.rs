//! Fills the watch of a new writer from the trail. Blocks and the last minute are read before the
//! first event is served, the day before that in the background. The limits are read here too, and
//! again when settings change.

use super::counters::Counters;
use super::past::{self, Recount};
use super::transaction::{Failure, as_owner, now_or_later};
use crate::anomaly::{Rules, Watch};
use crate::id::KeyRef;
use crate::moment::{Moment, Span};
use crate::overrides;
use crate::postgres::{Owner, clock};
use crate::store;
use crate::store::past::Flagged;
use pgrx::log;
use std::collections::HashSet;
use std::time::Instant;

/// Rows of the trail read at a time while the counters are filled: about 4 ms, so an event waits at
/// most that long.
const ROWS_AT_ONCE: i64 = 1_000;
/// The most rows of the last minute read before the first event is served. Reading them takes two
/// seconds at most.
const LAST_MINUTE: i64 = 100_000;

/// The longest window, and the half hour in which it begins.
const DAY: Span = Span::minutes(24 * 60 + 30);

/// A key that people blocked, and when.
pub(super) type Block = (KeyRef, Moment);

/// How far the counters are filled from the trail.
pub(super) struct WarmUp {
    /// The last row that an earlier writer wrote.
    until: i64,
    since: Moment,
    /// The place before which to read next. None: everything is read.
    before: Option<(Moment, i64, i64)>,
    /// When keys had open episodes, as far as the rows still matter.
    flagged: Flagged,
    /// The limits of every key that is counted are known, so that they can be looked at.
    is_whole: bool,
    /// The week before is counted from the trail. None: an earlier writer has counted it.
    recount: Option<Recount>,
    rows: u64,
    began: Instant,
}

impl WarmUp {
    /// Fills the watch for a new writer: limits, blocks, open episodes and the last minute. The day
    /// before follows in steps. `until` is the last row of the trail. Also answers which keys must
    /// be written as blocked again.
    pub(super) fn begin(watch: &mut Watch, until: i64) -> Result<(WarmUp, Vec<Block>), Failure> {
        let now = clock::now();
        watch.begin_filling(now);
        let (before, blocks, flagged, recount) = as_owner(|owner| {
            watch.set_rules(rules(owner));
            store::watch::blocked_keys(owner).into_iter().for_each(|key| watch.block(key));
            let blocked = store::watch::blocked_callers(owner);
            blocked.iter().for_each(|(kind, subject)| watch.block_caller(*kind, subject));
            store::watch::peaks(owner).iter().for_each(|peak| watch.remember_peak(peak));
            let first = (now + Span::MINUTE, i64::MAX, i64::MAX);
            let minute = store::watch::past(owner, now - Span::MINUTE, first, until, LAST_MINUTE);
            let flagged = store::past::flagged(owner, now.midnight() - Span::days(8));
            let accesses = minute.iter().rev().filter_map(|row| past::access(row, &flagged));
            let accesses: Vec<_> = accesses.collect();
            let keys = watch.without_past(accesses.iter().map(|(access, _)| access.key));
            watch.remember_past(&keys, &store::past::of_keys(owner, &keys));
            // The oldest first, because pairs of caller and key are kept in the order of their
            // times.
            for (access, is_suspect) in &accesses {
                past::remember(watch, access, *is_suspect);
                watch.remember_callers(access);
            }
            for (detector, subject, incident, began) in store::watch::open_episodes(owner) {
                watch.remember_episode(detector, subject, incident, began);
            }
            let recount = (!store::past::is_counted(owner)).then(|| Recount::until(until, now));
            let before = minute.last().map_or(first, |row| row.place);
            Ok((before, blocks_of(&minute), flagged, recount))
        })?;
        blocks.iter().for_each(|(key, _)| watch.block(*key));
        let (since, before, began) = (now - DAY, Some(before), Instant::now());
        let (is_whole, rows) = (false, 0);
        let warm_up = WarmUp { until, since, before, flagged, is_whole, recount, rows, began };
        Ok((warm_up, blocks))
    }

    /// Does the next step of filling. Answers whether there was any.
    pub(super) fn step(&mut self, watch: &mut Watch, counters: &mut Counters) -> bool {
        if let Some(before) = self.before {
            return self.count_rows(watch, before);
        }
        if !self.is_whole {
            return self.look_at_all(watch);
        }
        let Some(recount) = &mut self.recount else { return false };
        if let Some(counted) = recount.step(watch, &self.flagged) {
            counters.write_past_of(&counted);
            (self.recount, self.flagged) = (None, Flagged::new());
        }
        true
    }

    /// Takes the next rows of the trail into the counters.
    fn count_rows(&mut self, watch: &mut Watch, before: (Moment, i64, i64)) -> bool {
        let rows = now_or_later("counters are filled", |owner| {
            store::watch::past(owner, self.since, before, self.until, ROWS_AT_ONCE)
        });
        let Some(rows) = rows else { return false };
        rows.iter()
            .filter_map(|row| past::access(row, &self.flagged))
            .for_each(|(access, is_suspect)| past::remember(watch, &access, is_suspect));
        self.rows += rows.len() as u64;
        let is_all = rows.len() < ROWS_AT_ONCE as usize;
        self.before = rows.last().map(|row| row.place).filter(|_| !is_all);
        true
    }

    /// Looks at every key, once its counters are filled and its own past is read.
    fn look_at_all(&mut self, watch: &mut Watch) -> bool {
        match past::read_some(watch) {
            None => return false,
            Some(true) => return true,
            Some(false) => self.is_whole = true,
        }
        watch.look_at_all(clock::now());
        if self.recount.is_none() {
            self.flagged = Flagged::new();
        }
        let (rows, time) = (self.rows, self.began.elapsed().as_millis());
        log!(
            "watchllm_keys writer: the watch's counters are filled from {rows} rows \
             of the trail after {time} ms"
        );
        true
    }
}

/// Keys that people blocked within these rows and did not let in again, the newest first. If they
/// let a key in again but no writer wrote that, it stays blocked. They can see that and unblock it
/// once more.
fn blocks_of(rows: &[store::watch::Past]) -> Vec<Block> {
    let mut decided = HashSet::new();
    let changes = rows.iter().filter_map(|row| Some((row.block?, row.place.0)));
    let last = changes.filter(|((key, _), _)| decided.insert(*key));
    last.filter_map(|((key, is_blocked), at)| is_blocked.then_some((key, at))).collect()
}

/// The present limits. None: they cannot be read, and the next beat tries again.
pub(super) fn read_rules() -> Option<Rules> {
    now_or_later("limits are read", rules)
}

/// The limits of this database, its projects and keys.
fn rules(owner: Owner) -> Rules {
    let mut rules = Rules::default();
    for setting in overrides::all() {
        if let Some(value) = store::settings::of_server(setting) {
            rules.take(setting.name(), &value);
        }
    }
    for own in store::settings::all(owner) {
        match (own.project, own.key) {
            (None, _) => rules.take(&own.name, &own.value),
            (Some(project), None) => {
                rules.projects.entry(project).or_default().take(&own.name, &own.value);
            }
            (Some(project), Some(key)) => {
                rules.keys.entry(KeyRef { project, key }).or_default().take(&own.name, &own.value);
            }
        }
    }
    rules
}
