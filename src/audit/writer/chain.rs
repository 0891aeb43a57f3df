//! The chain as this writer continues it: its key, its identity, its head and its partitions. The
//! head is kept in memory. It is read again after a failed batch, and whenever one of our relations
//! has changed (docs/facts.md#the-durable-audit-writer).

use super::transaction::{Failure, as_owner};
use crate::crypto::envelope::{Binding, open};
use crate::crypto::random;
use crate::error::Error;
use crate::id::IdentityId;
use crate::postgres::{Owner, process, relation_changes, session};
use crate::shared_keyring;
use crate::store;
use crate::trail::chain::{self, MacKey};
use crate::trail::{Event, TrailRow};
use pgrx::pg_sys;
use std::collections::BTreeSet;

pub(super) struct Chain {
    /// The trail that it continues.
    trail: pg_sys::Oid,
    key: MacKey,
    key_version: i32,
    identity_id: IdentityId,
    /// None: read it again.
    head: Option<Head>,
    /// Days (since 1970) whose partition is known to be there.
    days: BTreeSet<i32>,
}

/// The last row of the trail, and how many changes of our relations this process had seen when it
/// read it.
#[derive(Clone, Copy)]
struct Head {
    seq: i64,
    hash: [u8; 32],
    changes: u64,
}

/// An event and its place in the queue, which names it in the trail.
pub(super) type Placed<'a> = (u64, &'a Event);

/// Rows, each with its hash.
type Hashed<'a> = Vec<(TrailRow<'a>, [u8; 32])>;

impl Chain {
    /// Opens the chain's key under the keyring of this slot, and finds or makes the identity that
    /// this database writes under.
    pub(super) fn open(slot_number: usize) -> Result<Chain, Failure> {
        as_owner(|owner| {
            let (key_version, key) = mac_key(owner, slot_number)?;
            let identity_id = identity(owner)?;
            let head = Some(read_head(owner));
            let (trail, days) = (owner.trail(), BTreeSet::new());
            Ok(Chain { trail, key, key_version, identity_id, head, days })
        })
    }

    /// The sequence of the last row. 0 if there is none, or if it has to be read again.
    pub(super) fn last_seq(&self) -> i64 {
        self.head.map_or(0, |head| head.seq)
    }

    /// Chains the events to the last row and inserts them in one transaction. It writes rows of the
    /// trail only.
    pub(super) fn append(&mut self, epoch: i64, events: &[Placed]) -> Result<(), Failure> {
        self.make_missing_partitions(events)?;
        let outcome = as_owner(|owner| {
            if owner.trail() != self.trail {
                return Err(Error::Internal("another vault is here now".into()));
            }
            let head = match self.head {
                Some(head) if head.changes == relation_changes() => head,
                _ => read_head(owner),
            };
            let last = head.seq.checked_add(events.len() as i64);
            let seq = last.ok_or_else(|| {
                Error::Internal("the trail has no sequence left: a row of it is forged".into())
            })?;
            let (rows, hash) = self.hashed(head, events, epoch);
            if store::trail::append(owner, &rows) != events.len() as u64 {
                return Err(Error::Internal("the trail took fewer rows than it was given".into()));
            }
            Ok(Head { seq, hash, changes: head.changes })
        });
        self.head = outcome.as_ref().ok().copied();
        if outcome.is_err() {
            self.days.clear();
        }
        outcome.map(|_| ())
    }

    /// The rows of a batch, each with its hash, and the last hash.
    fn hashed<'a>(&self, head: Head, events: &[Placed<'a>], epoch: i64) -> (Hashed<'a>, [u8; 32]) {
        let mut hash = head.hash;
        let rows = (0i64..)
            .zip(events)
            .map(|(i, (sequence, event))| {
                let row = TrailRow {
                    event,
                    seq: head.seq + 1 + i,
                    epoch,
                    queue_seq: *sequence as i64,
                    identity_id: self.identity_id,
                    chain_key_version: self.key_version,
                };
                hash = chain::hash(&self.key, &hash, &row);
                (row, hash)
            })
            .collect();
        (rows, hash)
    }

    /// Makes missing partitions in a transaction of their own, before the batch
    /// (docs/architecture.md#tables).
    fn make_missing_partitions(&mut self, events: &[Placed]) -> Result<(), Failure> {
        let missing: BTreeSet<i32> = events
            .iter()
            .map(|(_, event)| event.day())
            .filter(|day| !self.days.contains(day))
            .collect();
        for day in missing {
            make_partition(day)?;
            self.days.insert(day);
        }
        Ok(())
    }
}

/// Makes the partition of a UTC day where it is missing.
pub(super) fn make_partition(day: i32) -> Result<(), Failure> {
    as_owner(|owner| {
        store::trail::make_partition(owner, day);
        Ok(())
    })
}

/// Reads the end of the chain.
fn read_head(owner: Owner) -> Head {
    let changes = relation_changes();
    let last = store::trail::last(owner);
    let (seq, hash) = last.map_or((0, chain::FIRST), |last| (last.seq, last.hash));
    Head { seq, hash, changes }
}

fn mac_key(owner: Owner, slot_number: usize) -> Result<(i32, MacKey), Error> {
    let database = session::database().to_u32();
    for (version, sealed) in store::admin::audit_key(owner, "mac", None) {
        let Some(sealed) = sealed else { continue };
        let master = sealed.master_key_version() as i32;
        let Ok(Some(root)) = shared_keyring::root_key(slot_number, database, master) else {
            continue;
        };
        let binding = Binding::AuditKey { version: version as u32, kind: "mac" };
        if let Some(key) =
            open(&root, &binding, &sealed).ok().and_then(|secret| MacKey::new(secret.expose()))
        {
            return Ok((version, key));
        }
    }
    Err(Error::Internal("the audit MAC key does not open under any loaded master key".into()))
}

/// A restored or copied database gets its own identity, so that two chains never pass for one.
fn identity(owner: Owner) -> Result<IdentityId, Error> {
    let (system, database) = (process::system_identifier(), session::database());
    if let Some(known) = store::admin::identity(owner, system, database) {
        return Ok(known);
    }
    let mut new =
        random::random_bytes::<16>().map_err(|error| Error::Internal(error.to_string()))?;
    (new[6], new[8]) = (new[6] & 0x0f | 0x40, new[8] & 0x3f | 0x80);
    let new = IdentityId::new(new);
    store::admin::insert_identity(
        owner,
        new,
        system,
        database,
        "found by the audit writer: new, restored or copied",
    );
    Ok(new)
}
