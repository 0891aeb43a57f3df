//! The writer's second transaction, about once a second: counters that people see (accesses,
//! failures, last use of each key), incidents, partitions ahead; and a third, which tells
//! listeners. Gathered in memory; a failure harms no answer and is tried again.

use super::{Writer, transaction};
use super::{findings, leaks, rotation};
use crate::id::{KeyRef, ProviderKeyId};
use crate::postgres::{clock, session};
use crate::store;
use crate::trail::{
    AccessType, Bounded, CallerKind, Event, FailureReason, Incident, IncidentType, Notice,
    Severity, incident,
};
use pgrx::log;
use std::collections::HashMap;

/// Keys written at a time: about 5 ms, which is what an event may wait behind it.
const AT_ONCE: usize = 256;
/// Partitions are made this many days ahead.
const DAYS_AHEAD: i32 = 7;

/// What is not written yet.
#[derive(Default)]
pub(super) struct Uses {
    pending: HashMap<KeyRef, store::trail::Uses>,
    /// Compromised versions that were opened, by key and version: one incident each, however often.
    opened_compromised: HashMap<(ProviderKeyId, Option<i32>), Event>,
    /// Keys that were blocked, and since when; None: unblocked.
    blocks: Vec<(KeyRef, Option<i64>)>,
    /// Callers that were let in again.
    unblocked: Vec<(CallerKind, Bounded<128>)>,
    /// Keys that the log hook masked.
    pub leaks: leaks::Pending,
    /// Which keys were looked at for their age.
    pub rotation: rotation::Walk,
    /// The day (since 1970) up to which partitions were made ahead.
    made_until: i32,
}

impl Uses {
    /// Counts an event of a known key. What somebody without the right tried does not count against
    /// the key.
    pub(super) fn count(&mut self, event: &Event) {
        let uses = matches!(event.access_type, AccessType::Decrypt | AccessType::Validate);
        let foreign =
            matches!(event.failure, Some(FailureReason::NotAuthorized | FailureReason::NotFound));
        if let Some((kind, subject)) = event.about_caller.filter(|_| event.success()) {
            self.unblocked.push((kind, subject));
        }
        let Some(key) = event.key() else { return };
        if matches!(event.access_type, AccessType::Block | AccessType::Unblock) && event.success() {
            let since = (event.access_type == AccessType::Block).then_some(event.accessed_at);
            self.blocks.push((key, since));
        }
        // An imported key brings along when it was last used: no access, but shown with the key.
        let brought = event.last_used_at.filter(|_| event.success());
        if foreign || !uses && brought.is_none() {
            return;
        }
        if event.compromised && event.success() && event.access_type == AccessType::Decrypt {
            self.opened_compromised.entry((key.key, event.key_version)).or_insert(*event);
        }
        let entry = self.pending.entry(key).or_insert(store::trail::Uses {
            key,
            accesses: 0,
            failures: 0,
            last_used_at: None,
        });
        entry.last_used_at = entry.last_used_at.max(brought);
        if !uses {
            return;
        }
        if event.success() {
            entry.accesses += 1;
            entry.last_used_at = entry.last_used_at.max(Some(event.accessed_at));
        } else {
            entry.failures += 1;
        }
    }
}

impl Uses {
    /// A key that an earlier writer was told to block; it may not have lived to write that down.
    pub(super) fn block_again(&mut self, key: KeyRef, since: i64) {
        self.blocks.push((key, Some(since)));
    }

    /// Whether something waits that should be seen at once.
    pub(super) fn is_urgent(&self) -> bool {
        !self.blocks.is_empty() || !self.unblocked.is_empty()
    }
}

/// The second transaction: writes what is pending, at most `AT_ONCE` keys.
pub(super) fn flush(writer: &mut Writer) {
    if writer.chain.is_none() {
        return;
    }
    make_partitions_ahead(writer);
    write_blocks(writer);
    findings::flush(writer);
    write_incidents(writer);
    leaks::write(writer);
    rotation::look(writer);
    tell(writer);
    let keys: Vec<_> = writer.uses.pending.keys().copied().take(AT_ONCE).collect();
    let batch: Vec<store::trail::Uses> =
        keys.iter().filter_map(|key| writer.uses.pending.remove(key)).collect();
    if batch.is_empty() {
        return;
    }
    let outcome = transaction(|| Ok(store::trail::count_use(store::installed::owner()?, &batch)));
    if let Err(failure) = outcome {
        log!("watchllm_keys writer: counters are written later: {}", failure.message);
        for uses in batch {
            writer.uses.pending.insert(uses.key, uses);
        }
    }
}

fn write_blocks(writer: &mut Writer) {
    let blocks = std::mem::take(&mut writer.uses.blocks);
    let unblocked = std::mem::take(&mut writer.uses.unblocked);
    if blocks.is_empty() && unblocked.is_empty() {
        return;
    }
    let outcome = transaction(|| {
        let owner = store::installed::owner()?;
        blocks.iter().for_each(|(key, at)| store::trail::block(owner, *key, *at));
        let let_in = |(kind, subject): &(CallerKind, Bounded<128>)| {
            store::watch::unblock_caller(owner, *kind, subject.get().unwrap_or_default());
        };
        unblocked.iter().for_each(let_in);
        Ok(())
    });
    if let Err(failure) = outcome {
        log!("watchllm_keys writer: blocks are written later: {}", failure.message);
        writer.uses.blocks.extend(blocks);
        writer.uses.unblocked.extend(unblocked);
    }
}

fn write_incidents(writer: &mut Writer) {
    let opened: Vec<Event> = writer.uses.opened_compromised.values().copied().collect();
    if opened.is_empty() {
        return;
    }
    let outcome = transaction(|| {
        let owner = store::installed::owner()?;
        let incidents: Vec<Incident> = opened.iter().map(compromised_use).collect();
        let fresh = incidents.iter().filter(|incident| store::incidents::write(owner, incident));
        Ok(fresh.map(Incident::notice).collect::<Vec<Notice>>())
    });
    match outcome {
        Ok(fresh) => {
            writer.uses.opened_compromised.clear();
            let database = session::database().to_u32();
            fresh.into_iter().for_each(|notice| writer.slot.announce(database, notice));
        }
        Err(failure) => {
            log!("watchllm_keys writer: incidents are written later: {}", failure.message)
        }
    }
}

/// The incident of a version that is opened although it is marked compromised; its evidence is the
/// first such access.
fn compromised_use(event: &Event) -> Incident {
    let (key, version) = (
        event.provider_key_id.unwrap_or(ProviderKeyId::NIL),
        event.key_version.unwrap_or_default(),
    );
    let details = serde_json::json!({
        "what": "a version marked compromised was opened",
        "key_version": version,
        "event_id": event.id.to_string(),
    });
    Incident {
        id: incident::identity(&[b"opened", key.bytes(), &version.to_be_bytes()]),
        kind: IncidentType::LeakedKey,
        severity: Severity::High,
        project_id: event.project_id,
        provider_key_id: event.provider_key_id,
        details: details.to_string(),
        detected_at: event.accessed_at,
    }
}

/// The third transaction: tells who listens. A notification queue that is full, which any user can
/// cause, stops this alone.
fn tell(writer: &mut Writer) {
    let notices = writer.slot.take_notices();
    if notices.is_empty() {
        return;
    }
    let outcome = transaction(|| {
        let owner = store::installed::owner()?;
        notices.iter().for_each(|notice| store::incidents::notify(owner, notice));
        Ok(())
    });
    if let Err(failure) = outcome {
        log!("watchllm_keys writer: listeners are told later: {}", failure.message);
        let database = session::database().to_u32();
        notices.into_iter().for_each(|notice| writer.slot.announce(database, notice));
    }
}

fn make_partitions_ahead(writer: &mut Writer) {
    let today = (clock::now() / 86_400_000_000) as i32;
    for day in today.max(writer.uses.made_until + 1)..=today + DAYS_AHEAD {
        let made = transaction(|| {
            store::trail::make_partition(store::installed::owner()?, day);
            Ok(())
        });
        if made.is_err() {
            return;
        }
        writer.uses.made_until = day;
    }
}
