//! The writer's part of the log hook: what was masked becomes incidents, about once a second,
//! beside the other counters. A failure harms no answer and is tried again.

use super::{Writer, transaction};
use crate::audit::queue::leaks;
use crate::crypto::random::random_bytes;
use crate::id::IncidentId;
use crate::postgres::{clock, session};
use crate::redact;
use crate::store;
use crate::trail::leak::{Names, overflow};
use crate::trail::{Incident, Leak, Notice};
use pgrx::log;

/// Leaks kept while they cannot be written; what comes then is dropped and counted.
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
}

/// Writes an incident for each leak that is new.
pub(super) fn write(writer: &mut Writer) {
    let pending = &mut writer.uses.leaks;
    pending.gather();
    if pending.leaks.is_empty() && pending.dropped == 0 {
        return;
    }
    let outcome = transaction(|| {
        let owner = store::installed::owner()?;
        let mut incidents: Vec<Incident> = pending.leaks.iter().map(incident).collect();
        if pending.dropped > 0
            && let Ok(id) = random_bytes()
        {
            incidents.push(overflow(pending.dropped, IncidentId::new(id), clock::now()));
        }
        let fresh = incidents.iter().filter(|incident| store::incidents::write(owner, incident));
        Ok(fresh.map(Incident::notice).collect::<Vec<Notice>>())
    });
    match outcome {
        Ok(fresh) => {
            *pending = Pending::default();
            let database = session::database().to_u32();
            fresh.into_iter().for_each(|notice| writer.slot.announce(database, notice));
        }
        Err(failure) => {
            log!("watchllm_keys writer: incidents are written later: {}", failure.message)
        }
    }
}

/// Names are free text from callers.
fn incident(leak: &Leak) -> Incident {
    let clean = |name: String| redact::clean(&name, 63);
    let role = session::role_name(leak.role.into()).map(clean);
    let database = session::database_name(leak.database.into()).map(clean);
    leak.incident(&Names { role: role.as_deref(), database: database.as_deref() })
}
