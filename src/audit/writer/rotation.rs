//! Keys that must be rotated become incidents: once per version and stage (rotation soon, rotation
//! required). Once a minute the writer begins a walk through the keys, a page a second. A failure
//! is tried again.

use super::transaction::now_or_later;
use crate::audit::queue::Slot;
use crate::id::{IncidentId, KeyRef};
use crate::moment::Moment;
use crate::postgres::{Owner, clock};
use crate::store;
use crate::store::rotation::Aged;
use crate::trail::incident::kinds::{Due, Stage, rotation_due};
use crate::trail::{Incident, KeyVersion, Notice};
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
        let outcome = now_or_later("keys to rotate are looked for", |owner| alert(owner, after));
        if let Some((next, fresh)) = outcome {
            self.after = next;
            slot.announce_all(fresh);
        }
    }
}

type Outcome = (Option<KeyRef>, Vec<Notice>);

/// Writes the new incidents of the keys after one. Answers how far it came.
fn alert(owner: Owner, after: KeyRef) -> Outcome {
    let now = clock::now();
    let page = store::rotation::page(owner, after, PAGE);
    let last = page.last().filter(|_| page.len() == PAGE as usize).map(Aged::key);
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
