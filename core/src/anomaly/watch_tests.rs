//! The watch at its limits, with injected time: borders of minutes, episodes, blocks, what a new
//! writer remembers. tests/cluster/watch_replay.rs shows that it agrees with the SQL windows.

use super::*;
use crate::anomaly::{OwnLimits, Peak};
use crate::id::{ProjectId, ProviderKeyId};
use crate::trail::AccessType;

const PROJECT: ProjectId = ProjectId::new([1; 16]);
const A: KeyRef = KeyRef { project: PROJECT, key: ProviderKeyId::new([1; 16]) };
const SECOND: i64 = Span::SECOND.micros();
const MINUTE: i64 = Span::MINUTE.micros();

fn at(micros: i64) -> Moment {
    Moment::new(micros)
}

fn access(key: KeyRef, micros: i64) -> KeyAccess<'static> {
    KeyAccess {
        at: at(micros),
        key,
        access_type: AccessType::Decrypt,
        counted: Counted::Access,
        callers: [Some("app"), None, None],
    }
}

fn key(number: u16) -> KeyRef {
    let mut id = [0; 16];
    id[..2].copy_from_slice(&number.to_be_bytes());
    KeyRef { project: PROJECT, key: ProviderKeyId::new(id) }
}

fn blocking(detector: Detector) -> Watch {
    let mut rules = Rules::default();
    rules.base.blocks = detector.bit();
    let mut watch = Watch::default();
    watch.set_rules(rules);
    watch
}

/// The detectors of the findings, and whether each is of a beginning.
fn found(watch: &mut Watch) -> Vec<(Detector, bool)> {
    watch
        .take_findings()
        .iter()
        .map(|finding| (finding.detector, finding.ended.is_none()))
        .collect()
}

#[test]
fn a_hundred_in_a_minute_are_none_too_many_and_one_more_is() {
    let mut watch = Watch::default();
    (0..100).for_each(|i| assert_eq!(watch.judge(&access(A, i)), None));
    assert!(watch.take_findings().is_empty());
    assert_eq!(watch.judge(&access(A, MINUTE)), None); // the first lies a minute back: it counts
    let findings = watch.take_findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(
        (findings[0].detector, findings[0].observed, findings[0].limit),
        (Detector::RapidAccess, 101, 100)
    );
    assert_eq!((findings[0].began, findings[0].blocks), (at(MINUTE), false));
}

#[test]
fn a_hundred_and_first_just_after_the_minute_is_no_anomaly() {
    let mut watch = Watch::default();
    (0..100).for_each(|i| assert_eq!(watch.judge(&access(A, i)), None));
    watch.judge(&access(A, MINUTE + 1));
    assert!(watch.take_findings().is_empty());
}

#[test]
fn the_access_that_crosses_is_refused_where_that_is_asked_for_and_those_after_it() {
    let mut watch = blocking(Detector::RapidAccess);
    let refused: Vec<i64> = (0..103).filter(|&i| watch.judge(&access(A, i)).is_some()).collect();
    assert_eq!(refused, [100, 101, 102]);
    assert_eq!(watch.judge(&access(A, 10 * MINUTE)), Some(FailureReason::Blocked));
    assert_eq!(watch.judge(&access(key(7), 10 * MINUTE)), None);
    watch.unblock(&A);
    assert_eq!(watch.judge(&access(A, 10 * MINUTE)), None);
}

#[test]
fn an_unblocked_key_is_not_blocked_again_by_the_same_episode() {
    let mut watch = blocking(Detector::RapidAccess);
    (0..150).for_each(|i| {
        watch.judge(&access(A, i));
    });
    watch.unblock(&A);
    assert_eq!(watch.judge(&access(A, 151)), None);
    assert_eq!(found(&mut watch).len(), 1);
}

#[test]
fn one_finding_an_episode_which_ends_at_half_the_limit() {
    let mut watch = Watch::default();
    (0..500).for_each(|i| {
        watch.judge(&access(A, i));
    });
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, true)]);
    watch.end_episodes(at(MINUTE));
    assert!(found(&mut watch).is_empty());
    watch.end_episodes(at(500 + MINUTE));
    let ended = watch.take_findings();
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].ended, Some((at(500 + MINUTE), 400)));
    (0..101).for_each(|i| {
        watch.judge(&access(A, 10 * MINUTE + i));
    });
    let again = watch.take_findings();
    assert_eq!(again.len(), 1);
    assert_ne!(again[0].incident, ended[0].incident);
}

#[test]
fn hour_and_day_are_counted_beside_the_minute() {
    let mut watch = Watch::default();
    let mut rules = Rules::default();
    rules.base = rules.base.with(Detector::Theft, 200).with(Detector::UnusuallyHigh, 300);
    watch.set_rules(rules);
    (0..302).for_each(|i| {
        watch.judge(&access(A, i * 15 * SECOND));
    }); // 240 an hour
    assert_eq!(found(&mut watch), [(Detector::Theft, true), (Detector::UnusuallyHigh, true)]);
}

#[test]
fn failures_count_apart_and_what_was_blocked_counts_as_an_access() {
    let mut watch = Watch::default();
    (0..101).for_each(|i| {
        watch.judge(&KeyAccess { counted: Counted::Failure, ..access(A, i) });
    });
    assert_eq!(found(&mut watch), [(Detector::Failures, true)]);
    let event = crate::trail::event::tests::event();
    assert!(KeyAccess::of(&event.refused(FailureReason::NotAuthorized)).is_none());
    assert!(KeyAccess::of(&event.refused(FailureReason::NotFound)).is_none());
    // the vault's own fault
    assert!(KeyAccess::of(&event.refused(FailureReason::WrongMasterKey)).is_none());
    let counted = |reason| KeyAccess::of(&event.refused(reason)).unwrap().counted;
    assert_eq!(counted(FailureReason::Blocked), Counted::Access);
    assert_eq!(counted(FailureReason::DamagedEnvelope), Counted::Failure);
}

#[test]
fn somebody_who_empties_the_vault_is_stopped_after_the_limit() {
    let mut watch = blocking(Detector::MassReading);
    let opened = (0..500).filter(|&i| watch.judge(&access(key(i), i64::from(i))).is_none()).count();
    assert_eq!(opened, 50);
    assert_eq!(watch.judge(&access(key(3), 501)), Some(FailureReason::CallerBlocked));
    let other = KeyAccess { callers: [Some("another"), None, None], ..access(key(3), 502) };
    assert_eq!(watch.judge(&other), None);
    let findings = watch.take_findings();
    assert_eq!(findings.len(), 1);
    assert_eq!(findings[0].subject, Subject::Caller(CallerKind::Role, "app".into()));
    watch.unblock_caller(CallerKind::Role, "app");
    assert_eq!(watch.judge(&access(key(3), 503)), None);
}

#[test]
fn a_busy_caller_may_open_three_times_its_busiest_minute() {
    let mut watch = Watch::default();
    let busy = Peak { kind: CallerKind::Role, subject: "app".into(), day: 0, distinct_keys: 100 };
    watch.remember_peak(&busy);
    let today = 1_440 * MINUTE;
    (0..300).for_each(|i| {
        watch.judge(&access(key(i), today + i64::from(i)));
    });
    assert!(watch.take_findings().is_empty());
    watch.judge(&access(key(300), today + 300));
    assert_eq!(found(&mut watch), [(Detector::MassReading, true)]);
}

#[test]
fn an_hour_filled_from_the_trail_is_as_if_it_had_been_seen() {
    let mut watch = Watch::default();
    (0..100).rev().for_each(|i| watch.remember(&access(A, i)));
    assert!(watch.take_findings().is_empty());
    watch.judge(&access(A, 100));
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, true)]);
}

#[test]
fn an_anomaly_whose_writer_died_is_found_by_the_next_and_an_open_one_is_not_found_again() {
    let mut dead = Watch::default();
    (0..200).for_each(|i| {
        dead.judge(&access(A, i));
    });
    let lost = dead.take_findings().remove(0);
    let mut watch = Watch::default();
    (0..200).for_each(|i| watch.remember(&access(A, i)));
    watch.look_at_all(at(200));
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, true)]);
    let mut told = Watch::default();
    told.remember_episode(Detector::RapidAccess, Subject::Key(A), lost.incident, lost.began);
    (0..200).for_each(|i| told.remember(&access(A, i)));
    told.look_at_all(at(200));
    told.judge(&access(A, 201));
    assert!(told.take_findings().is_empty());
    told.end_episodes(at(10 * MINUTE));
    assert_eq!(told.take_findings()[0].incident, lost.incident);
}

#[test]
fn a_limit_that_changes_counts_from_the_next_access() {
    let mut watch = Watch::default();
    (0..50).for_each(|i| {
        watch.judge(&access(A, i));
    });
    let mut rules = Rules::default();
    let mut own = OwnLimits::default();
    own.take("max_accesses_per_minute", "10");
    rules.keys.insert(A, own);
    watch.set_rules(rules);
    watch.judge(&access(A, 51));
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, true)]);
}

#[test]
fn a_caller_meets_a_key_once_a_day() {
    let mut watch = Watch::default();
    for minute in 0..2 * 1_440 {
        watch.judge(&access(A, minute * MINUTE * 2));
    }
    let meetings = watch.take_meetings(10);
    assert_eq!(meetings.len(), 4);
    assert_eq!((meetings[0].kind, &*meetings[0].subject), (CallerKind::Role, "app"));
}

#[test]
fn a_clock_that_was_set_back_does_not_blind_the_watch() {
    let mut watch = Watch::default();
    watch.judge(&access(A, 1_000_000 * MINUTE));
    (0..101).for_each(|i| {
        watch.judge(&access(A, i));
    });
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, true)]);
}

#[test]
fn an_hours_episode_does_not_end_while_its_hour_is_being_filled() {
    let mut watch = Watch::default();
    let mut rules = Rules::default();
    rules.base = rules.base.with(Detector::Theft, 10);
    watch.set_rules(rules);
    watch.begin_filling(Moment::EPOCH);
    watch.remember_episode(
        Detector::Theft,
        Subject::Key(A),
        IncidentId::new([7; 16]),
        Moment::EPOCH,
    );
    watch.end_episodes(at(30 * MINUTE)); // only the last minute of the trail has been read
    (0..20).rev().for_each(|i| watch.remember(&access(A, i)));
    watch.look_at_all(at(30 * MINUTE));
    watch.end_episodes(at(30 * MINUTE));
    assert!(found(&mut watch).is_empty());
    watch.end_episodes(at(70 * MINUTE));
    assert_eq!(found(&mut watch), [(Detector::Theft, false)]);
}

#[test]
fn what_found_no_room_to_wait_is_found_by_the_next_access() {
    let mut watch = Watch::default();
    (0..101).for_each(|i| {
        watch.judge(&access(A, i));
    });
    let first = watch.take_findings().remove(0);
    watch.put_back(vec![first; MAX_WAITING]);
    (0..101).for_each(|i| {
        watch.judge(&access(key(7), i));
    });
    assert_eq!((watch.take_findings().len(), watch.lost), (MAX_WAITING, 1));
    watch.judge(&access(key(7), 102));
    assert_eq!(found(&mut watch), [(Detector::RapidAccess, true)]);
}

#[test]
fn keys_without_end_take_no_more_memory() {
    let mut watch = Watch::default();
    for i in 0..MAX_KEYS as u32 * 2 {
        let mut id = [0; 16];
        id[..4].copy_from_slice(&i.to_be_bytes());
        let key = KeyRef { project: PROJECT, key: ProviderKeyId::new(id) };
        watch.judge(&access(key, i64::from(i)));
    }
    assert_eq!(watch.keys.len(), MAX_KEYS);
    assert_eq!(watch.meetings.len(), MAX_WAITING);
}
