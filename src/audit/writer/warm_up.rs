//! The watch of a new writer: filled from the trail, blocks and the last minute before the first
//! event is served, the day before that in the background; and the limits, read from the settings
//! when they change.

use super::{Failure, Writer, transaction};
use crate::anomaly::{self, Limits, MINUTE, Override, Rules};
use crate::id::KeyRef;
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
const DAY: i64 = anomaly::DAY + 30 * MINUTE;

/// How far the counters are filled from the trail.
pub(super) struct WarmUp {
    /// The last row that an earlier writer wrote.
    until: i64,
    since: i64,
    /// The place before which is read next; None: all is read.
    before: Option<(i64, i64, i64)>,
    rows: u64,
    began: Instant,
}

/// Fills the watch for a new writer: blocks, limits, open episodes and the last minute at once, the
/// day before it later.
pub(super) fn start(writer: &mut Writer) -> Result<(), Failure> {
    if writer.warm_up.is_some() {
        return Ok(());
    }
    let until = writer.chain.as_ref().and_then(|chain| chain.head).map_or(0, |head| head.seq);
    let now = clock::now();
    let watch = &mut writer.watch;
    let (before, blocks) = transaction(|| {
        let owner = store::installed::owner()?;
        watch.set_rules(rules(owner));
        store::watch::blocked_keys(owner).into_iter().for_each(|key| watch.block(key));
        let blocked = store::watch::blocked_callers(owner);
        blocked.iter().for_each(|(kind, subject)| watch.block_caller(*kind, subject));
        store::watch::peaks(owner).iter().for_each(|peak| watch.remember_peak(peak));
        let first = (now + MINUTE, i64::MAX, i64::MAX);
        let minute = store::watch::past(owner, now - MINUTE, first, until, LAST_MINUTE);
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
    for (key, since) in blocks {
        writer.watch.block(key);
        writer.uses.block_again(key, since);
    }
    writer.watch.begin_filling();
    writer.warm_up = Some(WarmUp {
        until,
        since: now - DAY,
        before: Some(before),
        rows: 0,
        began: Instant::now(),
    });
    Ok(())
}

/// Keys that people blocked within these rows, the newest first, and did not let in again. What
/// they let in again and no writer wrote down stays blocked: they see it and say so once more.
fn blocks_of(rows: &[store::watch::Past]) -> Vec<(KeyRef, i64)> {
    let mut decided = HashSet::new();
    let changes = rows.iter().filter_map(|row| Some((row.block?, row.place.0)));
    let last = changes.filter(|((key, _), _)| decided.insert(*key));
    last.filter_map(|((key, is_blocked), at)| is_blocked.then_some((key, at))).collect()
}

/// Takes the next rows of the trail into the counters; whether there were any.
pub(super) fn warm_up(writer: &mut Writer) -> bool {
    let Some(state) = writer.warm_up.as_mut() else { return false };
    let Some(before) = state.before else { return false };
    let outcome = transaction(|| {
        Ok(store::watch::past(
            store::installed::owner()?,
            state.since,
            before,
            state.until,
            ROWS_AT_ONCE,
        ))
    });
    let rows = match outcome {
        Ok(rows) => rows,
        Err(failure) => {
            log!("watchllm_keys writer: counters are filled later: {}", failure.message);
            return false;
        }
    };
    rows.iter()
        .filter_map(store::watch::Past::access)
        .for_each(|access| writer.watch.remember(&access));
    state.rows += rows.len() as u64;
    state.before = rows.last().map(|row| row.place);
    if rows.len() < ROWS_AT_ONCE as usize {
        state.before = None;
        writer.watch.look_at_all(clock::now());
        let (rows, time) = (state.rows, state.began.elapsed().as_millis());
        log!(
            "watchllm_keys writer: the watch's counters are filled from {rows} rows of the trail after {time} ms"
        );
    }
    true
}

/// Reads the limits anew; what is in the way now is tried again at the next beat.
pub(super) fn read_rules(writer: &mut Writer) {
    let outcome = transaction(|| Ok(rules(store::installed::owner()?)));
    writer.limits_are_late = outcome.is_err();
    match outcome {
        Ok(rules) => writer.watch.set_rules(rules),
        Err(failure) => log!("watchllm_keys writer: limits are read later: {}", failure.message),
    }
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
        stale: i64::from(settings::watch::stale_after()) * MINUTE,
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
            scope.stale = settings::watch::minutes(value).map(|minutes| i64::from(minutes) * MINUTE)
        }
        "anomaly_action" => scope.blocks = anomaly::action::blocking(value).ok(),
        _ => (),
    }
}
