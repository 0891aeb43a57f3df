//! Keys that must be rotated become incidents: once per version and stage (rotation soon, rotation
//! required). Once a minute the writer begins a walk through the keys, a page a second. A failure
//! is tried again. Of a project with many such keys one incident says how many more there are.

use super::sources::NamedSource;
use super::transaction::{Failure, as_owner};
use crate::audit::queue::Slot;
use crate::id::{IncidentId, KeyRef, ProjectId};
use crate::moment::Moment;
use crate::postgres::{Owner, clock};
use crate::store;
use crate::store::rotation::Aged;
use crate::trail::incident::kinds::{Due, Stage, rotation_due};
use crate::trail::{Incident, IncidentType, KeyVersion, Notice, Severity};
use pgrx::{log, warning};
use std::collections::BTreeMap;
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
    /// Keys that this walk has held back, by project. A project is told of when the walk has left
    /// it.
    held: BTreeMap<ProjectId, u64>,
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
            self.held.clear();
        }
        let Some(after) = self.after else { return };
        match as_owner(|owner| Ok(alert(owner, after, PAGE, &self.held))) {
            Ok(page) => self.turn(slot, page),
            Err(failure) if failure.may_be_one_events_fault() => self.step_over(slot, after),
            Err(failure) => later(&failure),
        }
    }

    fn turn(&mut self, slot: &Slot, page: Page) {
        (self.after, self.held) = (page.next, page.held);
        slot.announce_all(page.fresh);
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
            match as_owner(|owner| Ok(alert(owner, after, 1, &self.held))) {
                Ok(page) => self.turn(slot, page),
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

/// What became of a page of keys.
struct Page {
    /// Where the walk continues. None: it is over.
    next: Option<KeyRef>,
    fresh: Vec<Notice>,
    held: BTreeMap<ProjectId, u64>,
    day: i32,
}

impl Page {
    /// Tells how many keys of each project were held back, once the walk has left it.
    fn tell_what_was_held(&mut self, owner: Owner) {
        let here = self.next.map(|next| next.project);
        let left: Vec<ProjectId> =
            self.held.keys().copied().filter(|project| Some(*project) != here).collect();
        for project in left {
            let count = self.held.remove(&project).unwrap_or_default();
            self.fresh.extend(source(project).hold_in_all(owner, self.day, count));
        }
    }
}

fn source(project: ProjectId) -> NamedSource {
    NamedSource::of_project(project, IncidentType::RotationDue.word(), Severity::Medium)
}

/// Writes the new incidents of at most `most` keys after one, within the budgets of their projects.
fn alert(owner: Owner, after: KeyRef, most: i32, held: &BTreeMap<ProjectId, u64>) -> Page {
    let now = clock::now();
    let (mut held, day) = (held.clone(), now.day());
    let page = store::rotation::page(owner, after, most);
    let mut next = page.last().filter(|_| page.len() == most as usize).map(Aged::key);
    let due: Vec<Incident> =
        page.iter().filter_map(|key| Some(incident_of(key, key.stage?, now))).collect();
    let ids: Vec<IncidentId> = due.iter().map(|incident| incident.id).collect();
    let known = if ids.is_empty() { Vec::new() } else { store::rotation::known(owner, &ids) };
    let mut fresh = Vec::new();
    for incident in due.iter().filter(|due| !known.contains(&due.id)) {
        let Some(key) = incident.key() else { continue };
        if held.contains_key(&key.project) || !source(key.project).raise(owner, day) {
            *held.entry(key.project).or_default() += 1;
            continue;
        }
        store::incidents::write(owner, incident);
        store::rotation::alerted(owner, key, now);
        fresh.push(incident.notice());
        if fresh.len() == AT_ONCE {
            // If there was no room for all, the walk continues behind the last one written.
            next = Some(key);
            break;
        }
    }
    let mut page = Page { next, fresh, held, day };
    page.tell_what_was_held(owner);
    page
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
