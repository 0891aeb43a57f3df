//! The writer's part of the log hook: masked keys become incidents, about once a second. A failure
//! harms no answer and is tried again.

use super::transaction::now_or_later;
use crate::audit::queue::{Slot, leaks};
use crate::crypto::random::random_bytes;
use crate::id::IncidentId;
use crate::input::ShownName;
use crate::postgres::{clock, session};
use crate::store;
use crate::trail::incident::kinds::{key_masked, masked_unreported};
use crate::trail::{Incident, Leak, Shown};

/// The most leaks kept while they cannot be written. Further ones are dropped and counted.
const MOST: usize = 1_024;

/// What is not written yet.
#[derive(Default)]
pub(super) struct Pending {
    leaks: Vec<Leak>,
    dropped: u64,
}

impl Pending {
    fn gather(&mut self) {
        let (leaks, dropped) = leaks::take(session::database().to_u32(), clock::now());
        self.leaks.extend(leaks);
        self.dropped += dropped + self.leaks.len().saturating_sub(MOST) as u64;
        self.leaks.truncate(MOST);
    }

    /// Writes an incident for each leak that is new.
    pub(super) fn write_incidents(&mut self, slot: &Slot) {
        self.gather();
        if self.leaks.is_empty() && self.dropped == 0 {
            return;
        }
        let fresh = now_or_later("incidents are written", |owner| {
            store::incidents::write_new(owner, &self.incidents())
        });
        if let Some(fresh) = fresh {
            *self = Pending::default();
            slot.announce_all(fresh);
        }
    }

    /// One incident for each leak, and one for those that were dropped.
    fn incidents(&self) -> Vec<Incident> {
        let mut incidents: Vec<Incident> = self.leaks.iter().map(incident).collect();
        if self.dropped > 0
            && let Ok(id) = random_bytes()
        {
            incidents.push(masked_unreported(self.dropped, IncidentId::new(id), clock::now()));
        }
        incidents
    }
}

/// The incident of a leak. Names are masked, because they are free text from callers.
fn incident(leak: &Leak) -> Incident {
    let clean = |name: String| ShownName::clean(&name);
    let role = session::role_name(leak.role.into()).map(clean);
    let database = session::database_name(leak.database.into()).map(clean);
    key_masked(leak, role.as_ref().map(shown), database.as_ref().map(shown))
}

fn shown(name: &ShownName) -> &dyn Shown {
    name
}
