//! The writer's part of the log hook: masked keys become incidents, about once a second, and what
//! was held back is counted. A failure harms no answer and is tried again.

use super::sources::NamedSource;
use super::transaction::now_or_later;
use crate::alarms::{AlarmSource, HeldBack, Party};
use crate::audit::queue::{self, Slot, WriterState, leaks};
use crate::input::ShownName;
use crate::postgres::{Owner, clock, process_kind, session};
use crate::store;
use crate::trail::incident::kinds::{LeakNames, key_masked};
use crate::trail::{Incident, Leak, Notice, Origin, Shown};

/// The most leaks written in one transaction: about 20 ms, so an event waits at most that long.
const AT_ONCE: usize = 128;

/// What is not written yet.
#[derive(Default)]
pub(super) struct Pending {
    leaks: Vec<Leak>,
    held: Vec<HeldBack>,
}

impl Pending {
    /// Takes what waits. While the last could not be written, the rest stays where each source has
    /// its share.
    fn gather(&mut self) {
        let database = session::database().to_u32();
        if self.leaks.is_empty() {
            self.leaks = leaks::take(database, clock::now(), AT_ONCE);
        }
        if self.held.is_empty() {
            self.held = leaks::take_held(|party| is_ours(party, database));
        }
    }

    /// Writes an incident for each leak that is new and within its source's budget.
    pub(super) fn write_incidents(&mut self, slot: &Slot) {
        self.gather();
        if self.leaks.is_empty() && self.held.is_empty() {
            return;
        }
        let fresh = now_or_later("incidents are written", |owner| self.write(owner));
        if let Some(fresh) = fresh {
            *self = Pending::default();
            slot.announce_all(fresh);
        }
    }

    fn write(&self, owner: Owner) -> Vec<Notice> {
        let leaks = self.leaks.iter().filter_map(|leak| write(owner, leak));
        let fresh: Vec<Notice> = leaks.collect();
        let told = |held: &HeldBack| {
            NamedSource::of_party(&held.party).hold(owner, held.day as i32, held.count)
        };
        fresh.into_iter().chain(self.held.iter().filter_map(told)).collect()
    }
}

/// Writes a leak's incident. What the memory of the server has forgotten since its start, the table
/// still knows: then the leak is held back after all.
fn write(owner: Owner, leak: &Leak) -> Option<Notice> {
    let (incident, day) = (incident(leak), leak.at.day());
    let source = NamedSource::of_party(&Party::One(AlarmSource::of(leak).counted()));
    if !source.raise(owner, day) {
        return source.hold(owner, day, leak.count.into());
    }
    store::incidents::write(owner, &incident).then(|| incident.notice())
}

/// Whether this database's writer counts what was held back of a party: its own, that of no
/// database, and that of databases without a writer.
fn is_ours(party: &Party, database: u32) -> bool {
    let Party::One(AlarmSource { database: theirs, .. }) = party else { return true };
    let is_served = |slot| queue::slot(slot).state() == WriterState::Running;
    *theirs == database || *theirs == 0 || !queue::find(*theirs).is_some_and(is_served)
}

/// The incident of a leak. Names are masked, because they are free text from callers.
fn incident(leak: &Leak) -> Incident {
    let clean = |name: String| ShownName::clean(&name);
    let role = |role: u32| session::role_name(role.into()).map(clean);
    let (by, set) = match leak.origin {
        Origin::Role { session, set } if set != session => (role(session), role(set)),
        Origin::Role { session, .. } => (role(session), None),
        _ => (None, None),
    };
    let process =
        if let Origin::Process(kind) = leak.origin { Some(process_kind(kind)) } else { None };
    let database = session::database_name(leak.database.into()).map(clean);
    let names = LeakNames {
        role: by.as_ref().map(shown),
        set_role: set.as_ref().map(shown),
        database: database.as_ref().map(shown),
        process: process.as_deref(),
    };
    key_masked(leak, &names)
}

fn shown(name: &ShownName) -> &dyn Shown {
    name
}
