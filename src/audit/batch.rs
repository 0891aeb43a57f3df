//! From the queue to the trail: a batch is chained, inserted in one statement, committed, and answered.
//! The audit transaction writes log rows only. The chain's head is kept in memory and read again whenever a relation
//! changed or a batch failed (FACTS §2).

use super::queue::{self, Entry, Slot};
use super::writer::{Failure, Writer, transaction};
use crate::acting_owner::relation_changes;
use crate::error::Error;
use crate::store;
use crate::trail::chain::{self, MacKey};
use crate::trail::{Row, Verdict};
use pgrx::log;
use std::collections::BTreeSet;
use std::sync::atomic::Ordering::*;

/// Events in one transaction at most.
const MAX_BATCH: u64 = 1024;

/// The chain as this writer continues it.
pub struct Chain {
    pub key: MacKey,
    pub key_version: i32,
    pub identity_id: [u8; 16],
    /// Sequence and hash of the last row; None: read them again.
    pub head: Option<Head>,
    /// Days (since 1970) whose partition is known to be there.
    pub days: BTreeSet<i32>,
}

/// The last row of the trail, and how many relation changes this process had seen when it was read.
#[derive(Clone, Copy)]
pub struct Head {
    pub seq: i64,
    pub hash: [u8; 32],
    pub changes: u64,
}

/// Takes what is waiting and answers it.
pub fn serve(writer: &mut Writer) {
    let slot = writer.slot;
    let tail = slot.tail.load(Acquire);
    let count = slot.waiting().min(MAX_BATCH);
    let entries: Vec<Entry> = (tail..tail + count).map(|sequence| slot.entry(sequence)).collect();
    match write(writer, &entries, tail) {
        Ok(()) => answer(writer, &entries, Verdict::Recorded),
        Err(failure) => retry(writer, &entries, tail, &failure),
    }
}

/// A failed batch fails nobody who can be served alone: one bad event harms only itself. A single event is tried again
/// too: what the writer had in mind (the chain's head, the partitions) is read anew after a failure.
fn retry(writer: &mut Writer, entries: &[Entry], tail: u64, failure: &Failure) {
    log!("watchllm_keys writer: a batch of {} failed: {}", entries.len(), failure.message);
    if !failure.may_be_one_events_fault() {
        return give_up(writer, entries, failure);
    }
    for (entry, sequence) in entries.iter().zip(tail..) {
        let alone = std::slice::from_ref(entry);
        match write(writer, alone, sequence) {
            Ok(()) => answer(writer, alone, Verdict::Recorded),
            Err(failure) => give_up(writer, alone, &failure),
        }
    }
}

fn give_up(writer: &mut Writer, entries: &[Entry], failure: &Failure) {
    writer.slot.set_problem(&failure.message);
    writer.slot.failed.fetch_add(entries.len() as u64, AcqRel);
    answer(writer, entries, Verdict::NotRecorded);
}

fn write(writer: &mut Writer, entries: &[Entry], first: u64) -> Result<(), Failure> {
    let epoch = writer.slot.epoch.load(Acquire);
    let Some(chain) = writer.chain.as_mut() else {
        return Err(Failure {
            sqlstate: pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            message: "no master key is loaded".into(),
        });
    };
    make_missing_partitions(chain, entries)?;
    let outcome = transaction(|| {
        let owner = store::installed::owner()?;
        let head = match chain.head {
            Some(head) if head.changes == relation_changes() => head,
            _ => read_head(owner),
        };
        let last = head.seq.checked_add(entries.len() as i64);
        let seq =
            last.ok_or_else(|| Error::Internal("the trail has no sequence left: a row of it is forged".into()))?;
        let (rows, hash) = chained(chain, head, entries, epoch, first);
        if store::trail::append(owner, &rows) != entries.len() as u64 {
            return Err(Error::Internal("the trail took fewer rows than it was given".into()));
        }
        Ok(Head { seq, hash, changes: head.changes })
    });
    chain.head = outcome.as_ref().ok().copied();
    if outcome.is_err() {
        chain.days.clear();
    }
    outcome.map(|_| ())
}

/// Reads where the chain stopped.
pub fn read_head(owner: crate::acting_owner::Owner) -> Head {
    let changes = relation_changes();
    let last = store::trail::last(owner);
    let (seq, hash) = last.map_or((0, chain::FIRST), |last| (last.seq, last.hash));
    Head { seq, hash, changes }
}

/// The rows of a batch, each with its hash, and the last hash.
fn chained<'a>(
    chain: &Chain,
    head: Head,
    entries: &'a [Entry],
    epoch: i64,
    first: u64,
) -> (Vec<(Row<'a>, [u8; 32])>, [u8; 32]) {
    let mut hash = head.hash;
    let rows = (0i64..)
        .zip(entries)
        .map(|(i, entry)| {
            let row = Row {
                event: &entry.event,
                seq: head.seq + 1 + i,
                epoch,
                queue_seq: first as i64 + i,
                identity_id: chain.identity_id,
                chain_key_version: chain.key_version,
            };
            hash = chain::hash(&chain.key, &hash, &row);
            (row, hash)
        })
        .collect();
    (rows, hash)
}

/// A day without a partition gets one in a transaction of its own, before the batch (DESIGN §11).
fn make_missing_partitions(chain: &mut Chain, entries: &[Entry]) -> Result<(), Failure> {
    let missing: BTreeSet<i32> =
        entries.iter().map(|e| e.event.day()).filter(|day| !chain.days.contains(day)).collect();
    for day in missing {
        transaction(|| {
            store::trail::make_partition(store::installed::owner()?, day);
            Ok(())
        })?;
        chain.days.insert(day);
    }
    Ok(())
}

/// Gives the verdict, moves the tail on, then wakes whoever waits: once each.
fn answer(writer: &mut Writer, entries: &[Entry], verdict: Verdict) {
    let slot = writer.slot;
    for entry in entries {
        slot.answer(entry, verdict);
    }
    slot.tail.fetch_add(entries.len() as u64, AcqRel);
    if verdict == Verdict::Recorded {
        slot.batches.fetch_add(1, AcqRel);
        slot.events.fetch_add(entries.len() as u64, AcqRel);
        entries.iter().for_each(|entry| writer.uses.count(&entry.event));
    }
    let waiting: BTreeSet<u32> = entries.iter().map(|entry| entry.process).collect();
    waiting.into_iter().for_each(queue::wake);
}

/// Answers what an earlier writer committed but did not live to answer: (epoch, queue sequence) tells.
pub fn answer_committed(writer: &mut Writer, last: &store::trail::Last) {
    let tail = writer.slot.tail.load(Acquire);
    if last.epoch != writer.slot.epoch.load(Acquire) || (last.queue_seq as u64) < tail {
        return;
    }
    let count = (last.queue_seq as u64 + 1 - tail).min(writer.slot.waiting());
    let entries: Vec<Entry> = (tail..tail + count).map(|sequence| writer.slot.entry(sequence)).collect();
    answer(writer, &entries, Verdict::Recorded);
}

/// Answers everything that waits with "not recorded": this writer cannot serve.
pub fn fail_all(slot: &Slot) {
    let (tail, count) = (slot.tail.load(Acquire), slot.waiting());
    for sequence in tail..tail + count {
        slot.answer(&slot.entry(sequence), Verdict::NotRecorded);
    }
    slot.tail.fetch_add(count, AcqRel);
    slot.failed.fetch_add(count, AcqRel);
}
