//! Keys that `redact_columns()` masked become incidents, and here it is found out whether they are
//! ours. Whoever stored the row learns nothing of that and cannot undo it: the work is the same for
//! every key, and none of it is in the row's transaction. Incidents take the budget of who stored
//! the row, those of our keys that of their project.

use super::transaction::now_or_later;
use crate::alarms::AlarmSource;
use crate::audit::queue::Slot;
use crate::audit::queue::leaks::may_raise;
use crate::id::KeyRef;
use crate::postgres::{Owner, session};
use crate::store;
use crate::trail::incident::kinds::{MaskedColumn, column_masked};
use crate::trail::{Channel, ColumnLeak, KeyVersion, Notice, Origin};
use pgrx::warning;
use std::collections::BTreeMap;

/// The most keys kept while they cannot be written. Further ones are dropped, which is said.
const MOST: usize = 1_024;
/// Keys compared in one transaction: about 5 ms, so an event waits at most that long.
const AT_ONCE: usize = 64;

/// What is not written yet.
#[derive(Default)]
pub(super) struct Columns(Vec<ColumnLeak>);

impl Columns {
    /// Writes an incident for each key that is new in its column.
    pub(super) fn write_incidents(&mut self, slot: &Slot) {
        if slot.has_column_leaks() {
            let (leaks, lost) = slot.take_column_leaks();
            self.0.extend(leaks);
            let over = self.0.len().saturating_sub(MOST);
            self.0.truncate(MOST);
            if lost > 0 || over > 0 {
                let count = lost as usize + over;
                warning!("watchllm_keys writer: {count} keys masked in columns found no room");
            }
        }
        let part: Vec<ColumnLeak> = self.0.iter().take(AT_ONCE).copied().collect();
        if part.is_empty() {
            return;
        }
        let fresh = now_or_later("incidents are written", |owner| -> Vec<Notice> {
            part.iter().flat_map(|leak| write(owner, leak)).collect()
        });
        if let Some(fresh) = fresh {
            self.0.drain(..part.len());
            slot.announce_all(fresh);
        }
    }
}

/// Writes the incidents of one key that are new and within the budget of their source: who stored
/// the row, or for a key of ours its project.
fn write(owner: Owner, leak: &ColumnLeak) -> Vec<Notice> {
    let (database, channel) = (session::database().to_u32(), Channel::RedactColumns);
    let mut fresh = Vec::new();
    for ours in whose(owner, leak) {
        let origin = ours.map_or(leak.origin, |ours| Origin::Project(ours.key.project));
        let incident = column_masked(&column(leak, ours), leak.at);
        if !store::leaks::is_known(owner, incident.id)
            && may_raise(&AlarmSource { origin, database, channel }, leak.at)
            && store::incidents::write(owner, &incident)
        {
            fresh.push(incident.notice());
        }
    }
    fresh
}

/// Which stored keys it is: each once, by its last version. One None: no key of ours.
fn whose(owner: Owner, leak: &ColumnLeak) -> Vec<Option<KeyVersion>> {
    let mut ours: BTreeMap<KeyRef, i32> = BTreeMap::new();
    // Each fingerprint is asked about, also when an earlier one was ours already.
    for (version, fingerprint) in leak.fingerprints() {
        for found in store::values::near_to(owner, *version, fingerprint) {
            if found.is_of(*version, fingerprint) {
                let number = ours.entry(found.version.key).or_default();
                *number = found.version.number.max(*number);
            }
        }
    }
    if ours.is_empty() {
        return vec![None];
    }
    ours.into_iter().map(|(key, number)| Some(KeyVersion { key, number })).collect()
}

fn column(leak: &ColumnLeak, ours: Option<KeyVersion>) -> MaskedColumn<'_> {
    MaskedColumn {
        table: &leak.table,
        table_owner: &leak.table_owner,
        column: &leak.column,
        provider: leak.provider,
        kind: leak.kind,
        redacted: &leak.redacted,
        fingerprint: leak.fingerprints().first().map(|(_, fingerprint)| fingerprint),
        ours,
    }
}
