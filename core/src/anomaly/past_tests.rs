//! The watch and a key's own past, with injected time: what raises a limit, what must not, and what
//! a new writer knows. tests/cluster/watch_replay.rs shows that the SQL windows agree.

use super::watch::Watch;
use super::{Detector, KeyAccess, KeyPast, OwnLimits, Rules};
use crate::id::{KeyRef, ProjectId, ProviderKeyId};
use crate::moment::{Moment, Span};
use crate::trail::{AccessType, Counted, FailureReason};
use std::collections::HashMap;

const A: KeyRef = KeyRef { project: ProjectId::new([1; 16]), key: ProviderKeyId::new([1; 16]) };

/// Noon of a day, and so many milliseconds.
fn noon(day: i64, millis: i64) -> Moment {
    Moment::EPOCH + Span::days(day) + Span::HOUR * 12 + Span::new(millis * 1_000)
}

fn access(at: Moment) -> KeyAccess<'static> {
    KeyAccess {
        at,
        key: A,
        access_type: AccessType::Decrypt,
        counted: Counted::Access,
        callers: [Some("app"), None, None],
    }
}

/// So many accesses at noon of a day. Answers how many were refused.
fn use_it(watch: &mut Watch, day: i64, times: i64) -> usize {
    (0..times).filter(|i| watch.judge(&access(noon(day, *i))).is_some()).count()
}

/// What was found, with its limit; episodes that are over are ended first.
fn found(watch: &mut Watch) -> Vec<(Detector, u32)> {
    let found = watch.take_findings().into_iter().filter(|finding| finding.ended.is_none());
    found.map(|finding| (finding.detector, finding.limit)).collect()
}

/// A watch that saw the key used so often a minute on each day of a week.
fn after_a_week(times: i64) -> Watch {
    let mut watch = Watch::default();
    for day in 100..107 {
        use_it(&mut watch, day, times);
        watch.end_episodes(noon(day, 3_600_000));
    }
    watch.take_findings();
    watch
}

fn set(watch: &mut Watch, settings: &[(&str, &str)]) {
    let mut rules = Rules::default();
    settings.iter().for_each(|(name, value)| rules.take(name, value));
    watch.set_rules(rules);
}

#[test]
fn after_a_week_three_times_the_busiest_minute_is_nothing_unusual() {
    let mut watch = after_a_week(60);
    use_it(&mut watch, 107, 180);
    assert_eq!(found(&mut watch), []);
    watch.judge(&access(noon(107, 1_000)));
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, 180)]);
}

#[test]
fn before_the_week_is_over_the_stated_limit_holds() {
    let mut watch = Watch::default();
    for day in 100..106 {
        use_it(&mut watch, day, 60);
    }
    use_it(&mut watch, 106, 101);
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, 100)]);
}

#[test]
fn a_fixed_basis_holds_the_stated_limit_for_the_server_or_the_key() {
    let mut watch = after_a_week(60);
    set(&mut watch, &[("limit_basis", "fixed")]);
    use_it(&mut watch, 107, 101);
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, 100)]);

    let mut watch = after_a_week(60);
    let (mut rules, mut own) = (Rules::default(), OwnLimits::default());
    own.take("limit_basis", "fixed");
    rules.keys.insert(A, own);
    watch.set_rules(rules);
    use_it(&mut watch, 107, 101);
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, 100)]);
}

#[test]
fn what_was_flagged_widens_no_limit() {
    let mut watch = after_a_week(60);
    use_it(&mut watch, 107, 5_000);
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, 180)]);
    watch.end_episodes(noon(107, 3_600_000));
    // What came before the access that crossed was nothing unusual: 180, not 5,000.
    use_it(&mut watch, 108, 541);
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, 540)]);
}

#[test]
fn the_hour_and_the_day_forget_what_was_flagged_within_a_minute() {
    let mut watch = after_a_week(60);
    use_it(&mut watch, 107, 9_000);
    watch.end_episodes(noon(107, 120_000));
    for i in 0..20 {
        watch.judge(&access(noon(107, 130_000 + i)));
    }
    let past = watch.past(&A);
    assert_eq!(past, None, "nobody has read what is stored");
    watch.remember_past(&[A], &HashMap::new());
    assert_eq!(watch.past(&A).unwrap().busiest[0], [180, 200, 200]);
}

#[test]
fn what_was_refused_widens_no_limit() {
    let mut watch = after_a_week(60);
    watch.block(A);
    assert_eq!(use_it(&mut watch, 107, 170), 170);
    watch.unblock(&A);
    watch.block_caller(crate::trail::CallerKind::Role, "app");
    assert_eq!(use_it(&mut watch, 108, 170), 170);
    watch.unblock_caller(crate::trail::CallerKind::Role, "app");
    watch.remember_past(&[A], &HashMap::new());
    let past = watch.past(&A).unwrap();
    assert_eq!((past.newest, past.busiest[0]), (106, [60, 60, 60]));
    watch.judge_refused(&access(noon(109, 0)));
    assert_eq!(watch.past(&A).unwrap().newest, 106);
    // nor do failures
    let mut watch = after_a_week(60);
    for i in 0..90 {
        watch.judge(&KeyAccess { counted: Counted::Failure, ..access(noon(107, i)) });
    }
    for i in 0..101 {
        watch.judge(&KeyAccess { counted: Counted::Failure, ..access(noon(108, i)) });
    }
    assert_eq!(found(&mut watch), [(Detector::Failures, 100)]);
}

#[test]
fn a_key_that_blocks_is_refused_from_its_own_limit_on() {
    let mut watch = after_a_week(60);
    set(&mut watch, &[("anomaly_action", "block")]);
    assert_eq!(use_it(&mut watch, 107, 200), 20);
    assert_eq!(watch.judge(&access(noon(107, 500_000))), Some(FailureReason::Blocked));
}

#[test]
fn a_new_writer_knows_the_past_that_was_stored() {
    let mut before = after_a_week(60);
    before.remember_past(&[A], &HashMap::new());
    let stored: HashMap<KeyRef, KeyPast> = [(A, *before.past(&A).unwrap())].into();

    let mut watch = Watch::default();
    watch.begin_filling(noon(107, 0));
    assert_eq!(watch.without_past([A, A]), [A]);
    watch.remember_past(&[A], &stored);
    assert!(watch.without_past([A]).is_empty());
    watch.look_at_all(noon(107, 0));
    use_it(&mut watch, 107, 180);
    assert_eq!(found(&mut watch), []);
    watch.judge(&access(noon(107, 1_000)));
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, 180)]);
}

#[test]
fn a_week_counted_from_the_trail_is_as_if_it_had_been_seen() {
    let mut seen = after_a_week(60);
    seen.remember_past(&[A], &HashMap::new());
    let mut counted = Watch::for_recount();
    for day in 100..107 {
        (0..60).for_each(|i| counted.recount(&access(noon(day, i)), false));
        // what was flagged or refused then
        (0..900).for_each(|i| counted.recount(&access(noon(day, 100 + i)), true));
    }
    let mut watch = Watch::default();
    watch.remember_past(&[A], &HashMap::new());
    let keys = counted.counted_keys();
    assert_eq!(watch.take_over(&counted, keys), [A]);
    assert_eq!(watch.past(&A), seen.past(&A));
}

#[test]
fn a_clock_that_was_set_back_has_the_past_read_again() {
    let mut watch = after_a_week(60);
    watch.remember_past(&[A], &HashMap::new());
    watch.judge(&access(noon(90_000, 0)));
    watch.judge(&access(noon(107, 0)));
    assert_eq!(watch.without_past([A]), [A]);
}

#[test]
fn a_limit_of_yesterday_does_not_hold_beyond_midnight() {
    let mut watch = after_a_week(60);
    set(&mut watch, &[("limit_basis", "own_past")]);
    use_it(&mut watch, 107, 10);
    use_it(&mut watch, 115, 101);
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, 100)]);
}
