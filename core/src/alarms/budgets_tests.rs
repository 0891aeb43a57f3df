//! Budgets under attack: a source over its budget, sources without number, days that pass, many
//! processes at once. What others raise meanwhile must be told.

use super::*;
use crate::trail::{Channel, Origin};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::{IpAddr, Ipv4Addr};

const BUDGET: u32 = 20;
const DAY: u32 = 20_000;

fn budgets() -> Box<Budgets> {
    let place = || BudgetPlace {
        state: AtomicU32::new(0),
        waiting: AtomicU32::new(0),
        hash: AtomicU64::new(0),
        words: [const { AtomicU64::new(0) }; 4],
        raised: AtomicU64::new(0),
        sources: AtomicU64::new(0),
        held: [const { AtomicU64::new(0) }; 2],
    };
    let places: Vec<BudgetPlace> = (0..TOTAL).map(|_| place()).collect();
    Box::new(Budgets {
        places: places.try_into().unwrap_or_else(|_| unreachable!()),
        others: [place(), place(), place()],
    })
}

fn hash(words: &[u64; 4]) -> u64 {
    let mut hasher = DefaultHasher::new();
    words.hash(&mut hasher);
    hasher.finish()
}

fn role(session: u32, database: u32, channel: Channel) -> AlarmSource {
    AlarmSource { origin: Origin::Role { session, set: session }, database, channel }
}

fn address(number: u32) -> AlarmSource {
    let address = Some(IpAddr::V4(Ipv4Addr::from(number)));
    AlarmSource { origin: Origin::Client(address), database: 0, channel: Channel::Message }
}

/// How many of so many findings become rows. The others are held back.
fn raise(table: &Budgets, source: &AlarmSource, findings: u32, day: u32) -> u32 {
    let ask = |_: &u32| {
        let asked = table.ask(source, BUDGET, day, hash);
        if !asked.may_raise {
            table.hold(&asked, day, 1);
        }
        asked.may_raise
    };
    (0..findings).filter(ask).count() as u32
}

fn held(table: &Budgets) -> u64 {
    table.take_held(|_| true).iter().map(|held| held.count).sum()
}

#[test]
fn a_source_over_its_budget_is_counted_and_others_have_theirs() {
    let table = budgets();
    let (noisy, quiet) = (role(10, 5, Channel::Message), role(11, 5, Channel::Message));
    assert_eq!(raise(&table, &noisy, 10_000, DAY), BUDGET);
    assert_eq!(raise(&table, &quiet, 15, DAY), 15);
    let expected = HeldBack { party: Party::One(noisy), day: DAY, count: 9_980 };
    assert_eq!(table.take_held(|_| true), [expected]);
    assert_eq!(held(&table), 0, "told once");
}

#[test]
fn the_next_day_has_a_budget_of_its_own() {
    let table = budgets();
    let noisy = role(10, 5, Channel::Message);
    assert_eq!(raise(&table, &noisy, 30, DAY), BUDGET);
    assert_eq!(raise(&table, &noisy, 30, DAY + 1), BUDGET);
    let days: Vec<(u32, u64)> =
        table.take_held(|_| true).iter().map(|held| (held.day, held.count)).collect();
    assert_eq!(days.len(), 2);
    assert!(days.contains(&(DAY, 10)) && days.contains(&(DAY + 1, 10)), "{days:?}");
    assert_eq!(raise(&table, &noisy, 3, DAY), 3, "a clock that was set back");
}

#[test]
fn many_databases_and_channels_are_one_role() {
    let table = budgets();
    let mut rows = 0;
    for database in 0..100 {
        for channel in [Channel::Message, Channel::Statement, Channel::Catalog] {
            rows += raise(&table, &role(10, database, channel), 100, DAY);
        }
    }
    assert_eq!(rows, 4 * BUDGET);
    assert_eq!(held(&table), 30_000 - u64::from(rows));
    assert_eq!(raise(&table, &role(11, 5, Channel::Message), 15, DAY), 15);
}

#[test]
fn addresses_without_number_cost_no_role_anything() {
    let table = budgets();
    let rows: u32 = (0..10_000).map(|number| raise(&table, &address(number), 2, DAY)).sum();
    assert_eq!(rows, 8 * BUDGET);
    assert_eq!(raise(&table, &role(11, 5, Channel::Message), 15, DAY), 15);
    let told = table.take_held(|_| true);
    assert_eq!(told.iter().map(|held| held.count).sum::<u64>(), 20_000 - u64::from(rows));
    assert!(told.len() < 100, "{} rows that say more", told.len());
}

#[test]
fn roles_without_number_fill_their_own_places_only() {
    let table = budgets();
    let rows: u32 =
        (100..5_100).map(|role_| raise(&table, &role(role_, 5, Channel::Message), 2, DAY)).sum();
    assert!(rows <= 2 * PLACES[0] as u32 + BUDGET, "{rows}");
    assert_eq!(raise(&table, &address(7), 15, DAY), 15);
    let project = Origin::Project(crate::id::ProjectId::new([7; 16]));
    let project = AlarmSource { origin: project, database: 5, channel: Channel::RedactColumns };
    assert_eq!(raise(&table, &project, 15, DAY), 15);
    assert_eq!(held(&table), 10_000 - u64::from(rows));
    assert_eq!(raise(&table, &role(99, 5, Channel::Message), 15, DAY + 1), 15, "the next day");
}

#[test]
fn fifteen_hundred_roles_have_a_place_each() {
    let table = budgets();
    for number in 0..1_500 {
        raise(&table, &role(1_000 + number, 5, Channel::Message), 25, DAY);
    }
    assert_eq!(raise(&table, &role(11, 5, Channel::Message), 15, DAY), 15);
}

#[test]
fn a_scan_takes_nothing_of_its_role() {
    let table = budgets();
    assert_eq!(raise(&table, &role(10, 5, Channel::ScanTable), 10_000, DAY), 5 * BUDGET);
    assert_eq!(raise(&table, &role(10, 5, Channel::Message), 15, DAY), 15);
}

#[test]
fn processes_that_ask_at_once_do_not_pass_the_budget() {
    let table = budgets();
    let raised: u32 = std::thread::scope(|scope| {
        let each = |_| {
            let table = &table;
            scope.spawn(move || {
                (0..200).map(|n| raise(table, &role(n, 5, Channel::Message), 5, DAY)).sum::<u32>()
            })
        };
        let threads: Vec<_> = (0..8).map(each).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    // Two processes that bring the same source at the same moment may each take a place.
    assert!((4_000..4_400).contains(&raised), "{raised}");
    assert_eq!(u64::from(raised) + held(&table), 8_000);
}

#[test]
fn a_party_takes_no_more_of_the_queue_than_its_share() {
    let table = budgets();
    const CELLS: u32 = 4_096;
    let mut free = CELLS;
    let mut push = |source: AlarmSource, findings: u32, budget: u32| {
        let mut one = |_: &u32| {
            let asked = table.ask(&source, budget, DAY, hash);
            let has_room = asked.may_raise && may_wait(table.waiting(&asked), free);
            if has_room {
                table.waits(&asked);
                free -= 1;
            }
            has_room
        };
        (0..findings).filter(&mut one).count() as u32
    };
    let large = 100_000;
    let noisy = push(role(10, 5, Channel::Message), CELLS, large);
    assert!(noisy <= CELLS / 17 + 1, "{noisy}");
    let strangers: u32 = (0..500).map(|number| push(address(number), 40, large)).sum();
    assert!(strangers <= CELLS / 17, "{strangers}");
    for number in 11..150 {
        push(role(number, 5, Channel::Message), 40, BUDGET);
    }
    assert_eq!(push(role(9, 5, Channel::Message), 15, BUDGET), 15);
}

#[test]
fn what_was_taken_out_makes_room() {
    let table = budgets();
    let asked = table.ask(&address(1), BUDGET, DAY, hash);
    let party = table.waits(&asked);
    assert_eq!(table.waiting(&asked), 1);
    for _ in 0..3 {
        table.no_longer_waits(party);
        assert_eq!(table.waiting(&asked), 0);
    }
    assert!(may_wait(0, 1) && !may_wait(0, 0) && !may_wait(1, 16) && !may_wait(u32::MAX, 4_000));
}
