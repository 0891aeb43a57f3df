//! Counters of recorded events, gathered in memory and written about once a second: accesses,
//! failures and last use of each key. Blocks are written with them, and incidents of compromised
//! versions that were opened. A failure harms no answer and is tried again.

use super::sources::NamedSource;
use super::transaction::now_or_later;
use crate::anomaly::Watch;
use crate::audit::queue::Slot;
use crate::id::{KeyRef, ProjectId, ProviderKeyId};
use crate::moment::Moment;
use crate::postgres::Owner;
use crate::store;
use crate::trail::incident::kinds::compromised_opened;
use crate::trail::{AccessType, Bounded, CallerKind, Counted, Event, Incident, Notice};
use std::collections::HashMap;

/// Keys written at a time: about 5 ms, so an event waits at most that long.
const AT_ONCE: usize = 256;

/// What is not written yet.
#[derive(Default)]
pub(super) struct Counters {
    uses: HashMap<KeyRef, store::trail::Uses>,
    /// Compromised versions that were opened, by key and version. Each is one incident, however
    /// often it is opened.
    opened_compromised: HashMap<(ProviderKeyId, Option<i32>), Event>,
    /// Keys that were blocked, and since when; None: unblocked.
    blocks: Vec<(KeyRef, Option<Moment>)>,
    /// Callers that were let in again.
    unblocked: Vec<(CallerKind, Bounded<128>)>,
}

impl Counters {
    /// Counts an event of a known key, as the watch does (`Event::counts`).
    pub(super) fn count(&mut self, event: &Event) {
        let counted = event.counts();
        let Some(key) = event.key() else { return };
        if event.access_type == AccessType::Block && event.success() {
            self.blocks.push((key, Some(event.accessed_at)));
        }
        // An imported key brings its last use along. That is no access, but is shown with the key.
        let brought = event.last_used_at.filter(|_| event.success());
        if counted.is_none() && brought.is_none() {
            return;
        }
        if event.compromised && event.success() && event.access_type == AccessType::Decrypt {
            self.opened_compromised.entry((key.key, event.key_version)).or_insert(*event);
        }
        let entry = self.uses_of(key);
        entry.last_used_at = entry.last_used_at.max(brought);
        match counted {
            Some(Counted::Access) => entry.accesses += 1,
            Some(Counted::Failure) => entry.failures += 1,
            None => (),
        }
        if counted.is_some() && event.success() {
            entry.last_used_at = entry.last_used_at.max(Some(event.accessed_at));
        }
    }

    /// Unblocks a key, now that this has committed.
    pub(super) fn unblock(&mut self, key: KeyRef) {
        self.blocks.push((key, None));
    }

    /// Lets a caller in again, now that this has committed.
    pub(super) fn unblock_caller(&mut self, kind: CallerKind, subject: Bounded<128>) {
        self.unblocked.push((kind, subject));
    }

    /// Blocks a key again. An earlier writer was told to block it, but may have died before it
    /// wrote that.
    pub(super) fn block_again(&mut self, key: KeyRef, since: Moment) {
        self.blocks.push((key, Some(since)));
    }

    /// Whether something waits that people should see at once.
    pub(super) fn is_urgent(&self) -> bool {
        !self.blocks.is_empty() || !self.unblocked.is_empty()
    }

    /// Has the past of these keys written, although nobody used them.
    pub(super) fn write_past_of(&mut self, keys: &[KeyRef]) {
        for key in keys {
            self.uses_of(*key);
        }
    }

    fn uses_of(&mut self, key: KeyRef) -> &mut store::trail::Uses {
        self.uses.entry(key).or_insert(store::trail::Uses {
            key,
            accesses: 0,
            failures: 0,
            last_used_at: None,
            past: None,
        })
    }

    /// Writes accesses and failures, of `AT_ONCE` keys at most, and their own past.
    pub(super) fn write_uses(&mut self, watch: &Watch) {
        let keys: Vec<_> = self.uses.keys().copied().take(AT_ONCE).collect();
        let mut batch: Vec<store::trail::Uses> =
            keys.iter().filter_map(|key| self.uses.remove(key)).collect();
        batch.iter_mut().for_each(|uses| uses.past = watch.past(&uses.key).copied());
        if batch.is_empty() {
            return;
        }
        let written = now_or_later("counters are written", |owner| {
            store::trail::count_use(owner, &batch);
        });
        if written.is_none() {
            let again = batch.into_iter().map(|uses| (uses.key, uses));
            self.uses.extend(again);
        }
    }

    pub(super) fn write_blocks(&mut self) {
        let blocks = std::mem::take(&mut self.blocks);
        let unblocked = std::mem::take(&mut self.unblocked);
        if blocks.is_empty() && unblocked.is_empty() {
            return;
        }
        let written = now_or_later("blocks are written", |owner| {
            for (key, since) in &blocks {
                store::trail::block(owner, *key, *since);
            }
            for (kind, subject) in &unblocked {
                store::watch::unblock_caller(owner, *kind, subject.get().unwrap_or_default());
            }
        });
        if written.is_none() {
            self.blocks.extend(blocks);
            self.unblocked.extend(unblocked);
        }
    }

    /// Writes an incident for each compromised version that was opened.
    pub(super) fn write_incidents(&mut self, slot: &Slot) {
        let incidents: Vec<Incident> =
            self.opened_compromised.values().map(compromised_opened).collect();
        if incidents.is_empty() {
            return;
        }
        let fresh = now_or_later("incidents are written", |owner| {
            incidents.iter().filter_map(|incident| write(owner, incident)).collect::<Vec<Notice>>()
        });
        if let Some(fresh) = fresh {
            self.opened_compromised.clear();
            slot.announce_all(fresh);
        }
    }
}

/// Writes an incident that is new, within the budget of its project.
fn write(owner: Owner, incident: &Incident) -> Option<Notice> {
    if store::leaks::is_known(owner, incident.id) {
        return None;
    }
    let (project, day) =
        (incident.project_id.unwrap_or(ProjectId::NIL), incident.detected_at.day());
    let source = NamedSource::of_project(project, "compromised key opened", incident.severity);
    if !source.raise(owner, day) {
        return source.hold(owner, day, 1);
    }
    store::incidents::write(owner, incident).then(|| incident.notice())
}
