//! Keys that have to be rotated become incidents: once per version and stage (rotation soon,
//! rotation required). Once a minute the writer begins a walk through the keys, a page a second. A
//! failure is tried again.

use super::transaction::now_or_later;
use crate::audit::queue::Slot;
use crate::id::{IncidentId, KeyRef};
use crate::moment::Moment;
use crate::postgres::{Owner, clock};
use crate::settings::watch::{rotation_required_after, rotation_warn_after};
use crate::store;
use crate::store::rotation::Aged;
use crate::trail::incident::kinds::{Due, Stage, rotation_due};
use crate::trail::{Incident, KeyVersion, Notice};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

const EVERY: Duration = Duration::from_secs(60);
/// Keys looked at in one transaction: about 5 ms, which is what an event may wait behind it.
const PAGE: i32 = 256;
/// Incidents written in one: half of what finds room until listeners are told.
const AT_ONCE: usize = 64;

/// Where the walk through the keys is.
#[derive(Default)]
pub(super) struct Walk {
    /// The key that was looked at last; None: the walk is over.
    after: Option<KeyRef>,
    began: Option<Instant>,
    /// Settings may have brought another key to a stage: then the next walk begins at once.
    settings_seen: u32,
}

impl Walk {
    /// Looks at the next page of keys, when it is time.
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

/// Writes the incidents of the keys after one that are new; answers how far it came.
fn alert(owner: Owner, after: KeyRef) -> Outcome {
    let now = clock::now();
    let page =
        store::rotation::page(owner, after, PAGE, rotation_warn_after(), rotation_required_after());
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
    // Where there was no room for all, the walk goes on behind the last that was written.
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
