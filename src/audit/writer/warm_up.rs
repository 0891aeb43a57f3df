//! The watch of a new writer is filled from the trail. Blocks and the last minute come before the
//! first event is served, the day before that in the background. The limits are read here too, from
//! the settings when they change.

use super::transaction::{Failure, as_owner, now_or_later};
use crate::anomaly::{self, Limits, Override, Rules, Watch};
use crate::id::KeyRef;
use crate::moment::{Moment, Span};
use crate::postgres::{Owner, clock};
use crate::settings::{
    self,
    watch::{Threshold, threshold},
};
use crate::store;
use pgrx::{log, warning};
use std::collections::HashSet;
use std::time::Instant;

/// Rows of the trail that are read at a time while the counters are filled: about 4 ms, which is
/// what an event may wait.
const ROWS_AT_ONCE: i64 = 1_000;
/// Rows of the last minute that are read before the first event is served: two seconds at the most.
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
    /// The place before which is read next; None: all is read.
    before: Option<(Moment, i64, i64)>,
    rows: u64,
    began: Instant,
}

impl WarmUp {
    /// Fills the watch for a new writer: limits, blocks, open episodes and the last minute. The day
    /// before follows in steps. `until` is the last row of the trail. Answers too which keys have
    /// to be written down as blocked once more.
    pub(super) fn begin(watch: &mut Watch, until: i64) -> Result<(WarmUp, Vec<Block>), Failure> {
        let now = clock::now();
        let (before, blocks) = as_owner(|owner| {
            watch.set_rules(rules(owner));
            store::watch::blocked_keys(owner).into_iter().for_each(|key| watch.block(key));
            let blocked = store::watch::blocked_callers(owner);
            blocked.iter().for_each(|(kind, subject)| watch.block_caller(*kind, subject));
            store::watch::peaks(owner).iter().for_each(|peak| watch.remember_peak(peak));
            let first = (now + Span::MINUTE, i64::MAX, i64::MAX);
            let minute = store::watch::past(owner, now - Span::MINUTE, first, until, LAST_MINUTE);
            // The oldest first: pairs of caller and key lie in the order of their times.
            for access in minute.iter().rev().filter_map(store::watch::Past::access) {
                watch.remember(&access);
                watch.remember_callers(&access);
            }
            for (detector, subject, incident, began) in store::watch::open_episodes(owner) {
                watch.remember_episode(detector, subject, incident, began);
            }
            Ok((minute.last().map_or(first, |row| row.place), blocks_of(&minute)))
        })?;
        blocks.iter().for_each(|(key, _)| watch.block(*key));
        watch.begin_filling();
        let (since, before) = (now - DAY, Some(before));
        Ok((WarmUp { until, since, before, rows: 0, began: Instant::now() }, blocks))
    }

    /// Takes the next rows of the trail into the counters; whether there were any.
    pub(super) fn step(&mut self, watch: &mut Watch) -> bool {
        let Some(before) = self.before else { return false };
        let rows = now_or_later("counters are filled", |owner| {
            store::watch::past(owner, self.since, before, self.until, ROWS_AT_ONCE)
        });
        let Some(rows) = rows else { return false };
        rows.iter()
            .filter_map(store::watch::Past::access)
            .for_each(|access| watch.remember(&access));
        self.rows += rows.len() as u64;
        self.before = rows.last().map(|row| row.place);
        if rows.len() < ROWS_AT_ONCE as usize {
            self.before = None;
            watch.look_at_all(clock::now());
            let (rows, time) = (self.rows, self.began.elapsed().as_millis());
            log!(
                "watchllm_keys writer: the watch's counters are filled from {rows} rows \
                 of the trail after {time} ms"
            );
        }
        true
    }
}

/// Keys that people blocked within these rows, the newest first, and did not let in again. What
/// they let in again and no writer wrote down stays blocked: they see it and say so once more.
fn blocks_of(rows: &[store::watch::Past]) -> Vec<Block> {
    let mut decided = HashSet::new();
    let changes = rows.iter().filter_map(|row| Some((row.block?, row.place.0)));
    let last = changes.filter(|((key, _), _)| decided.insert(*key));
    last.filter_map(|((key, is_blocked), at)| is_blocked.then_some((key, at))).collect()
}

/// The limits as they are now; None: they cannot be read, and the next beat tries again.
pub(super) fn read_rules() -> Option<Rules> {
    now_or_later("limits are read", rules)
}

/// The limits of this database, its projects and keys.
fn rules(owner: Owner) -> Rules {
    let action = settings::watch::anomaly_action();
    let blocks = anomaly::action::blocking(&action).unwrap_or_else(|problem| {
        warning!("watchllm_keys writer: anomaly_action counts as alert: {problem:?}");
        0
    });
    let base = Limits {
        minute: threshold(Threshold::AccessesPerMinute),
        hour: threshold(Threshold::AccessesPerHour),
        day: threshold(Threshold::AccessesPerDay),
        failures: threshold(Threshold::FailuresPerHour),
        stale: Span::minutes(settings::watch::stale_after().into()),
        blocks,
    };
    let mut rules =
        Rules { base, distinct: threshold(Threshold::DistinctKeysPerMinute), ..Rules::default() };
    let mut database = Override::default();
    for own in store::settings::all(owner) {
        if own.name == "max_distinct_keys_per_minute" {
            rules.distinct = own.value.parse().unwrap_or(rules.distinct);
        }
        let scope = match (own.project, own.key) {
            (Some(project), Some(key)) => rules.keys.entry(KeyRef { project, key }).or_default(),
            (Some(project), None) => rules.projects.entry(project).or_default(),
            (None, _) => &mut database,
        };
        override_by(scope, &own.name, &own.value);
    }
    rules.base = rules.base.overridden(&database);
    rules
}

/// Takes up one override; names that are none of the watch's say nothing here.
fn override_by(scope: &mut Override, name: &str, value: &str) {
    let count = value.parse().ok();
    match name {
        "max_accesses_per_minute" => scope.minute = count,
        "max_accesses_per_hour" => scope.hour = count,
        "max_accesses_per_day" => scope.day = count,
        "max_failures_per_hour" => scope.failures = count,
        "stale_after" => {
            scope.stale =
                settings::watch::minutes(value).map(|minutes| Span::minutes(minutes.into()))
        }
        "anomaly_action" => scope.blocks = anomaly::action::blocking(value).ok(),
        _ => (),
    }
}
