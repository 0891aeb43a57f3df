//! Keys that `redact_columns()` masked become incidents, and here it is found out whether they are
//! ours. Whoever stored the row learns nothing of that and cannot undo it: the work is the same for
//! every key, and none of it is in the row's transaction. Incidents a day are limited for each
//! owner of tables and each of our keys.

use super::transaction::now_or_later;
use crate::audit::queue::Slot;
use crate::id::KeyRef;
use crate::postgres::Owner;
use crate::store;
use crate::trail::incident::kinds::{MaskedColumn, column_masked, more_columns_masked};
use crate::trail::{ColumnLeak, KeyVersion, Notice};
use pgrx::warning;
use std::collections::{BTreeMap, HashMap};

/// Incidents a day of keys that are not ours, in the tables of one owner.
const MOST_OF_OWNER: i64 = 100;
/// Incidents a day of one of our keys.
const MOST_OF_KEY: u32 = 20;
/// The most keys kept while they cannot be written. Further ones are dropped, which is said.
const MOST: usize = 1_024;
/// Keys compared in one transaction: about 5 ms, so an event waits at most that long.
const AT_ONCE: usize = 64;

/// What is not written yet, and what was written today.
#[derive(Default)]
pub(super) struct Columns {
    leaks: Vec<ColumnLeak>,
    day: i32,
    of_owner: HashMap<String, i64>,
    of_key: HashMap<KeyRef, u32>,
}

impl Columns {
    /// Writes an incident for each key that is new in its column.
    pub(super) fn write_incidents(&mut self, slot: &Slot) {
        if slot.has_column_leaks() {
            let (leaks, lost) = slot.take_column_leaks();
            self.leaks.extend(leaks);
            let over = self.leaks.len().saturating_sub(MOST);
            self.leaks.truncate(MOST);
            if lost > 0 || over > 0 {
                let count = lost as usize + over;
                warning!("watchllm_keys writer: {count} keys masked in columns found no room");
            }
        }
        let part: Vec<ColumnLeak> = self.leaks.iter().take(AT_ONCE).copied().collect();
        if part.is_empty() {
            return;
        }
        let fresh = now_or_later("incidents are written", |owner| -> Vec<Notice> {
            part.iter().flat_map(|leak| self.write(owner, leak)).collect()
        });
        if let Some(fresh) = fresh {
            self.leaks.drain(..part.len());
            slot.announce_all(fresh);
        }
    }

    /// Writes the incidents of one key.
    fn write(&mut self, owner: Owner, leak: &ColumnLeak) -> Vec<Notice> {
        if std::mem::replace(&mut self.day, leak.at.day()) != leak.at.day() {
            self.of_owner.clear();
            self.of_key.clear();
        }
        let table_owner = leak.table_owner.get().unwrap_or_default();
        let mut count =
            self.of_owner.get(table_owner).copied().unwrap_or_else(|| {
                store::leaks::masked_since(owner, leak.at.midnight(), table_owner)
            });
        let (mut fresh, mut is_over) = (Vec::new(), leak.more);
        for ours in whose(owner, leak) {
            let most = match ours {
                Some(ours) => self.of_key.get(&ours.key).is_some_and(|many| *many >= MOST_OF_KEY),
                None => count >= MOST_OF_OWNER,
            };
            if most {
                is_over |= ours.is_none();
                continue;
            }
            let incident = column_masked(&column(leak, ours), leak.at);
            if store::incidents::write(owner, &incident) {
                fresh.push(incident.notice());
                match ours {
                    Some(ours) => *self.of_key.entry(ours.key).or_default() += 1,
                    None => count += 1,
                }
            }
        }
        if is_over {
            let more = more_columns_masked(&leak.table_owner, MOST_OF_OWNER, leak.at);
            fresh.extend(store::incidents::write(owner, &more).then(|| more.notice()));
        }
        self.of_owner.insert(table_owner.to_owned(), count);
        fresh
    }
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
