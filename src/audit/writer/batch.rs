//! From the queue to the trail: a batch is chained, inserted in one statement, committed, and
//! answered. The audit transaction writes log rows only. The chain's head is kept in memory and
//! read again whenever a relation changed or a batch failed (FACTS §2).

use super::{Failure, Writer, transaction};
use crate::anomaly::Access;
use crate::audit::queue::{self, Entry, Slot};
use crate::error::Error;
use crate::id::IdentityId;
use crate::postgres::{clock, relation_changes};
use crate::store;
use crate::trail::chain::{self, MacKey};
use crate::trail::{Event, FailureReason, Row, Verdict};
use pgrx::log;
use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering::*;

/// Events in one transaction at most.
const MAX_BATCH: u64 = 1024;

/// The chain as this writer continues it.
pub(super) struct Chain {
    pub key: MacKey,
    pub key_version: i32,
    pub identity_id: IdentityId,
    /// Sequence and hash of the last row; None: read them again.
    pub head: Option<Head>,
    /// Days (since 1970) whose partition is known to be there.
    pub days: BTreeSet<i32>,
}

/// The last row of the trail, and how many relation changes this process had seen when it was read.
#[derive(Clone, Copy)]
pub(super) struct Head {
    pub seq: i64,
    pub hash: [u8; 32],
    pub changes: u64,
}

/// An event and its place in the queue, which names it in the trail.
type Placed<'a> = (u64, &'a Event);

/// What is taken of the queue: whether each event gets a row of its own, or is counted with others
/// of its caller.
struct Taken {
    entry: Entry,
    sequence: u64,
    has_row: bool,
    /// Why the watch refuses it; its row says so too.
    refused: Option<FailureReason>,
}

/// Takes what is waiting and answers it.
pub(super) fn serve(writer: &mut Writer) {
    let taken = take(writer);
    match write(writer, &rows_of(&taken)) {
        Ok(()) => answer(writer, &taken, Verdict::Recorded),
        Err(failure) => retry(writer, &taken, &failure),
    }
}

/// Refusals past their caller's rate are taken out here; without a chain nothing can be written,
/// nor promised.
fn take(writer: &mut Writer) -> Vec<Taken> {
    let slot = writer.slot;
    let tail = slot.tail.load(Acquire);
    let (count, now) = (slot.waiting().min(MAX_BATCH), clock::now());
    let mut one = |sequence| {
        let mut entry = slot.entry(sequence);
        let can_write = writer.chain.is_some();
        let counts = can_write && !entry.authorised && !entry.event.success();
        let has_row = !(counts && writer.refusals.takes(sequence, &entry.event, now));
        let access = Access::of(&entry.event).filter(|_| can_write && entry.authorised);
        // Of what failed already the refusal changes nothing.
        let refused =
            access.and_then(|access| writer.watch.judge(&access)).filter(|_| entry.event.success());
        if let Some(reason) = refused {
            entry.event = entry.event.refused(reason);
        }
        Taken { entry, sequence, has_row, refused }
    };
    (tail..tail + count).map(&mut one).collect()
}

fn rows_of(taken: &[Taken]) -> Vec<Placed<'_>> {
    taken
        .iter()
        .filter(|taken| taken.has_row)
        .map(|taken| (taken.sequence, &taken.entry.event))
        .collect()
}

/// Writes down how many refusals were counted since the last time; the writer's, about once a
/// second.
pub(super) fn write_counted(writer: &mut Writer) {
    let due = writer.refusals.due();
    let rows: Vec<Placed> = due.iter().map(|(sequence, event)| (*sequence, event)).collect();
    let Err(failure) = write(writer, &rows) else {
        writer.slot.events.fetch_add(rows.len() as u64, AcqRel);
        return;
    };
    log!("watchllm_keys writer: counted refusals are written later: {}", failure.message);
    // Where the commit succeeded and only seemed to fail, they are there already, under the same
    // place in the queue.
    let is_there = failure.sqlstate == pgrx::PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION;
    let missing = |row: &(u64, Event)| {
        !is_there
            || write(writer, &[(row.0, &row.1)]).is_err_and(|failure| {
                failure.sqlstate != pgrx::PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION
            })
    };
    let later: Vec<(u64, Event)> = due.into_iter().filter(missing).collect();
    writer.refusals.put_back(later);
}

/// A failed batch fails nobody who can be served alone: one bad event harms only itself. A single
/// event is tried again too: what the writer had in mind (the chain's head, the partitions) is read
/// anew after a failure.
fn retry(writer: &mut Writer, taken: &[Taken], failure: &Failure) {
    log!("watchllm_keys writer: a batch of {} failed: {}", taken.len(), failure.message);
    if !failure.may_be_one_events_fault() {
        return give_up(writer, taken, failure);
    }
    for alone in taken.chunks(1) {
        match write(writer, &rows_of(alone)) {
            Ok(()) => answer(writer, alone, Verdict::Recorded),
            Err(failure) => give_up(writer, alone, &failure),
        }
    }
}

fn give_up(writer: &mut Writer, taken: &[Taken], failure: &Failure) {
    writer.slot.set_problem(&failure.message);
    writer.slot.failed.fetch_add(taken.len() as u64, AcqRel);
    answer(writer, taken, Verdict::NotRecorded);
}

fn write(writer: &mut Writer, events: &[Placed]) -> Result<(), Failure> {
    if events.is_empty() {
        return Ok(());
    }
    let epoch = writer.slot.epoch.load(Acquire);
    let Some(chain) = writer.chain.as_mut() else {
        return Err(Failure {
            sqlstate: pgrx::PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            message: "no master key is loaded".into(),
        });
    };
    make_missing_partitions(chain, events)?;
    let outcome = transaction(|| {
        let owner = store::installed::owner()?;
        let head = match chain.head {
            Some(head) if head.changes == relation_changes() => head,
            _ => read_head(owner),
        };
        let last = head.seq.checked_add(events.len() as i64);
        let seq = last.ok_or_else(|| {
            Error::Internal("the trail has no sequence left: a row of it is forged".into())
        })?;
        let (rows, hash) = chained(chain, head, events, epoch);
        if store::trail::append(owner, &rows) != events.len() as u64 {
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
pub(super) fn read_head(owner: crate::postgres::Owner) -> Head {
    let changes = relation_changes();
    let last = store::trail::last(owner);
    let (seq, hash) = last.map_or((0, chain::FIRST), |last| (last.seq, last.hash));
    Head { seq, hash, changes }
}

/// The rows of a batch, each with its hash, and the last hash.
fn chained<'a>(
    chain: &Chain,
    head: Head,
    events: &[Placed<'a>],
    epoch: i64,
) -> (Vec<(Row<'a>, [u8; 32])>, [u8; 32]) {
    let mut hash = head.hash;
    let rows = (0i64..)
        .zip(events)
        .map(|(i, (sequence, event))| {
            let row = Row {
                event,
                seq: head.seq + 1 + i,
                epoch,
                queue_seq: *sequence as i64,
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
fn make_missing_partitions(chain: &mut Chain, events: &[Placed]) -> Result<(), Failure> {
    let missing: BTreeSet<i32> = events
        .iter()
        .map(|(_, event)| event.day())
        .filter(|day| !chain.days.contains(day))
        .collect();
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
fn answer(writer: &mut Writer, taken: &[Taken], verdict: Verdict) {
    let slot = writer.slot;
    for taken in taken {
        // What is counted is in memory, whatever became of the others' rows; nothing is disclosed
        // to it.
        let recorded = taken.refused.map_or(Verdict::Recorded, Verdict::Refused);
        let is_recorded = !taken.has_row || verdict == Verdict::Recorded;
        slot.answer(&taken.entry, if is_recorded { recorded } else { verdict });
    }
    slot.tail.fetch_add(taken.len() as u64, AcqRel);
    if verdict == Verdict::Recorded {
        let rows = rows_of(taken);
        slot.batches.fetch_add(1, AcqRel);
        slot.events.fetch_add(rows.len() as u64, AcqRel);
        for (_, event) in rows {
            writer.uses.count(event);
            super::findings::take_up_block(&mut writer.watch, event);
        }
    }
    let waiting: BTreeSet<u32> = taken.iter().map(|taken| taken.entry.process).collect();
    waiting.into_iter().for_each(queue::wake);
}

/// Answers what an earlier writer committed but did not live to answer: (epoch, queue sequence)
/// tells. What that writer refused stays refused: its row says so.
pub(super) fn answer_committed(
    writer: &mut Writer,
    last: &store::trail::Last,
) -> Result<(), Failure> {
    let (slot, tail) = (writer.slot, writer.slot.tail.load(Acquire));
    if last.epoch != slot.epoch.load(Acquire) || (last.queue_seq as u64) < tail {
        return Ok(());
    }
    let count = (last.queue_seq as u64 + 1 - tail).min(slot.waiting());
    let entries: Vec<Entry> = (tail..tail + count).map(|sequence| slot.entry(sequence)).collect();
    let Some(since) = entries.iter().map(|entry| entry.event.accessed_at).min() else {
        return Ok(());
    };
    let refused: HashMap<i64, Option<FailureReason>> = transaction(|| {
        let rows =
            store::trail::refused(store::installed::owner()?, since, last.epoch, tail as i64);
        Ok(rows.into_iter().collect())
    })?;
    let one = |(entry, sequence): (Entry, u64)| {
        let reason = refused.get(&(sequence as i64)).filter(|_| entry.event.success());
        let refused = reason.map(|reason| reason.unwrap_or(FailureReason::Blocked));
        Taken { entry, sequence, has_row: true, refused }
    };
    let taken: Vec<Taken> = entries.into_iter().zip(tail..).map(one).collect();
    answer(writer, &taken, Verdict::Recorded);
    Ok(())
}

/// Answers everything that waits with "not recorded": this writer cannot serve.
pub(super) fn fail_all(slot: &Slot) {
    let (tail, count) = (slot.tail.load(Acquire), slot.waiting());
    for sequence in tail..tail + count {
        slot.answer(&slot.entry(sequence), Verdict::NotRecorded);
    }
    slot.tail.fetch_add(count, AcqRel);
    slot.failed.fetch_add(count, AcqRel);
}
