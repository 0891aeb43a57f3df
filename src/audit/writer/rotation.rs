//! Keys that must be rotated become incidents: once per version and stage (rotation soon, rotation
//! required). Once a minute the writer begins a walk through the keys, a page a second. A failure
//! is tried again.

use super::transaction::{Failure, as_owner};
use crate::audit::queue::Slot;
use crate::id::{IncidentId, KeyRef};
use crate::moment::Moment;
use crate::postgres::{Owner, clock};
use crate::store;
use crate::store::rotation::Aged;
use crate::trail::incident::kinds::{Due, Stage, rotation_due};
use crate::trail::{Incident, KeyVersion, Notice};
use pgrx::{log, warning};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(60);
/// Keys checked in one transaction: about 5 ms, so an event waits at most that long.
const PAGE: i32 = 256;
/// Incidents written in one transaction: half of those that can wait to be announced.
const AT_ONCE: usize = 64;

/// How far the walk through the keys has come.
#[derive(Default)]
pub(super) struct Walk {
    /// The key checked last. None: the walk is over.
    after: Option<KeyRef>,
    began: Option<Instant>,
    /// A change of settings may have brought another key to a stage. Then the next walk begins at
    /// once.
    settings_seen: u32,
}

impl Walk {
    /// Checks the next page of keys, when it is due.
    pub(super) fn look_at_next_page(&mut self, slot: &Slot) {
        let changes = slot.settings_changes.load(SeqCst);
        let is_time = self.began.is_none_or(|began| began.elapsed() >= EVERY);
        if std::mem::replace(&mut self.settings_seen, changes) != changes
            || self.after.is_none() && is_time
        {
            (self.after, self.began) = (Some(KeyRef::NIL), Some(Instant::now()));
        }
        let Some(after) = self.after else { return };
        match as_owner(|owner| Ok(alert(owner, after, PAGE))) {
            Ok((next, fresh)) => {
                self.after = next;
                slot.announce_all(fresh);
            }
            Err(failure) if failure.may_be_one_events_fault() => self.step_over(slot, after),
            Err(failure) => later(&failure),
        }
    }

    /// Checks the keys of a page one by one, because one of them fails the page. That one is passed
    /// over and named. So no key keeps the others from being looked at.
    fn step_over(&mut self, slot: &Slot, mut after: KeyRef) {
        for _ in 0..PAGE {
            let next = match as_owner(|owner| Ok(store::rotation::next(owner, after))) {
                Ok(Some(next)) => next,
                Ok(None) => return self.after = None,
                Err(failure) => return later(&failure),
            };
            match as_owner(|owner| Ok(alert(owner, after, 1))) {
                Ok((_, fresh)) => slot.announce_all(fresh),
                Err(failure) => warning!(
                    "watchllm_keys writer: rotation of provider key {} cannot be judged: {}",
                    next.key,
                    failure.message
                ),
            }
            after = next;
            self.after = Some(after);
        }
    }
}

fn later(failure: &Failure) {
    log!("watchllm_keys writer: keys to rotate are looked for later: {}", failure.message);
}

type Outcome = (Option<KeyRef>, Vec<Notice>);

/// Writes the new incidents of at most `most` keys after one. Answers how far it came.
fn alert(owner: Owner, after: KeyRef, most: i32) -> Outcome {
    let now = clock::now();
    let page = store::rotation::page(owner, after, most);
    let last = page.last().filter(|_| page.len() == most as usize).map(Aged::key);
    let due: Vec<Incident> =
        page.iter().filter_map(|key| Some(incident_of(key, key.stage?, now))).collect();
    let ids: Vec<IncidentId> = due.iter().map(|incident| incident.id).collect();
    let known = if ids.is_empty() { Vec::new() } else { store::rotation::known(owner, &ids) };
    let fresh: Vec<&Incident> =
        due.iter().filter(|due| !known.contains(&due.id)).take(AT_ONCE).collect();
    for incident in &fresh {
        store::incidents::write(owner, incident);
        if let Some(key) = incident.key() {
            store::rotation::alerted(owner, key, now);
        }
    }
    // If there was no room for all, the walk continues behind the last one written.
    let full = fresh.last().filter(|_| fresh.len() == AT_ONCE);
    let next = full.and_then(|incident| incident.key()).or(last);
    (next, fresh.into_iter().map(Incident::notice).collect())
}

fn incident_of(key: &Aged, stage: Stage, now: Moment) -> Incident {
    let due = Due {
        version: KeyVersion { key: key.key(), number: key.version },
        provider: &key.provider,
        stage,
        days_old: key.days_old,
        days_left: (key.due_at - now).whole_days(),
    };
    rotation_due(&due, now)
}
