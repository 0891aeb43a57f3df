//! The writer's side of the counter: takes events from the queue, writes them as one batch, and
//! answers them. A failed batch fails no event that can be written alone. It touches no other work
//! of the writer, so callers can be served in the middle of that.

use super::chain::{Chain, Placed};
use super::commits::Awaited;
use super::counters::Counters;
use super::findings;
use super::past;
use super::transaction::{Failure, as_owner};
use crate::anomaly::{KeyAccess, Refusals, Watch};
use crate::audit::queue::{self, Entry, Slot};
use crate::postgres::clock;
use crate::store;
use crate::trail::{Event, FailureReason, Verdict};
use pgrx::{PgSqlErrorCode, log};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::sync::atomic::Ordering::*;

/// Events in one transaction at most.
const MAX_BATCH: u64 = 1024;

/// Everything needed to answer an event.
pub(super) struct Desk {
    pub slot: &'static Slot,
    /// None: nothing can be written, so nobody is served.
    pub chain: Option<Chain>,
    /// Refusals that are counted but not yet written, with the first one's place in the queue.
    refusals: Refusals<u64>,
    pub watch: Watch,
    pub counters: Counters,
    /// The past of a key could not be read: until the next beat nobody waits for another try.
    pub past_is_late: bool,
    pub awaited: Awaited,
}

/// An event taken from the queue, and whether it gets its own row or is counted with others of its
/// caller.
struct Taken {
    entry: Entry,
    sequence: u64,
    has_row: bool,
    /// Why the watch refuses it; its row says so too.
    refused: Option<FailureReason>,
}

impl Desk {
    pub(super) fn new(slot: &'static Slot) -> Desk {
        Desk {
            slot,
            chain: None,
            refusals: Refusals::default(),
            watch: Watch::default(),
            counters: Counters::default(),
            past_is_late: false,
            awaited: Awaited::default(),
        }
    }

    /// Takes the waiting events and answers them.
    pub(super) fn serve(&mut self) {
        let taken = self.take();
        match self.write(&rows_of(&taken)) {
            Ok(()) => self.answer(&taken, Verdict::Recorded),
            Err(failure) => self.retry(&taken, &failure),
        }
    }

    /// Takes the waiting events. Refusals above their caller's rate are only counted. Without a
    /// chain nothing can be written, so nothing may be promised.
    fn take(&mut self) -> Vec<Taken> {
        let slot = self.slot;
        let tail = slot.tail.load(Acquire);
        let (count, now) = (slot.waiting().min(MAX_BATCH), clock::now());
        let can_write = self.chain.is_some();
        if can_write && !self.past_is_late {
            self.read_past(tail..tail + count);
        }
        let one = |sequence| {
            let mut entry = slot.entry(sequence);
            let counts = can_write && !entry.authorised && !entry.event.success();
            let has_row = !(counts && self.refusals.takes(sequence, &entry.event, now));
            let access = KeyAccess::of(&entry.event).filter(|_| can_write && entry.authorised);
            // The watch refuses only an access that would have succeeded. An event that failed
            // stays as it is.
            let refused = access.and_then(|access| match entry.event.success() {
                true => self.watch.judge(&access),
                false => self.watch.judge_refused(&access).and(None),
            });
            if let Some(reason) = refused {
                entry.event = entry.event.refused(reason);
            }
            Taken { entry, sequence, has_row, refused }
        };
        (tail..tail + count).map(one).collect()
    }

    /// Reads the past of keys that this writer sees first: their limits go by it.
    fn read_past(&mut self, events: Range<u64>) {
        let keys = events.filter_map(|sequence| self.slot.counted_key(sequence));
        let missing = self.watch.without_past(keys);
        if !missing.is_empty() {
            self.past_is_late = !past::read(&mut self.watch, &missing);
        }
    }

    /// Writes how many refusals were counted since the last time, about once a second.
    pub(super) fn write_counted(&mut self) {
        let due = self.refusals.due();
        let rows: Vec<Placed> = due.iter().map(|(sequence, event)| (*sequence, event)).collect();
        let Err(failure) = self.write(&rows) else {
            self.slot.events.fetch_add(rows.len() as u64, AcqRel);
            return;
        };
        log!("watchllm_keys writer: counted refusals are written later: {}", failure.message);
        // A commit may succeed and only seem to fail. Then the rows are there already, under the
        // same place in the queue.
        let is_there = failure.is_unique_violation();
        let missing = |row: &(u64, Event)| {
            !is_there
                || self
                    .write(&[(row.0, &row.1)])
                    .is_err_and(|failure| !failure.is_unique_violation())
        };
        let later: Vec<(u64, Event)> = due.into_iter().filter(missing).collect();
        self.refusals.put_back(later);
    }

    /// Tries each event of a failed batch alone, so that one bad event harms only itself. A single
    /// event is tried again too, because the chain's head and its partitions are read again after a
    /// failure.
    fn retry(&mut self, taken: &[Taken], failure: &Failure) {
        log!("watchllm_keys writer: a batch of {} failed: {}", taken.len(), failure.message);
        if !failure.may_be_one_events_fault() {
            return self.give_up(taken, failure);
        }
        for alone in taken.chunks(1) {
            match self.write(&rows_of(alone)) {
                Ok(()) => self.answer(alone, Verdict::Recorded),
                Err(failure) => self.give_up(alone, &failure),
            }
        }
    }

    fn give_up(&mut self, taken: &[Taken], failure: &Failure) {
        self.slot.set_problem(&failure.message);
        self.slot.failed.fetch_add(taken.len() as u64, AcqRel);
        self.answer(taken, Verdict::NotRecorded);
    }

    fn write(&mut self, events: &[Placed]) -> Result<(), Failure> {
        if events.is_empty() {
            return Ok(());
        }
        let epoch = self.slot.epoch.load(Acquire);
        let Some(chain) = &mut self.chain else {
            return Err(Failure {
                sqlstate: PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                message: "no master key is loaded".into(),
            });
        };
        chain.append(epoch, events)
    }

    /// Gives the verdict, moves the tail, then wakes each waiting process once.
    fn answer(&mut self, taken: &[Taken], verdict: Verdict) {
        let slot = self.slot;
        for taken in taken {
            // A counted refusal is in memory, whatever became of the other rows. It discloses
            // nothing.
            let recorded = taken.refused.map_or(Verdict::Recorded, Verdict::Refused);
            let is_recorded = !taken.has_row || verdict == Verdict::Recorded;
            slot.answer(&taken.entry, if is_recorded { recorded } else { verdict });
        }
        slot.tail.fetch_add(taken.len() as u64, AcqRel);
        if verdict == Verdict::Recorded {
            self.count_recorded(&rows_of(taken));
        }
        let waiting: BTreeSet<u32> = taken.iter().map(|taken| taken.entry.process).collect();
        waiting.into_iter().for_each(queue::wake);
    }

    /// Counts the recorded events, tells the watch which keys people blocked, and takes up what
    /// acts once it has committed.
    fn count_recorded(&mut self, recorded: &[Placed]) {
        self.slot.batches.fetch_add(1, AcqRel);
        self.slot.events.fetch_add(recorded.len() as u64, AcqRel);
        for (_, event) in recorded {
            self.counters.count(event);
            findings::take_up_block(&mut self.watch, event);
            self.awaited.take_up(event);
        }
    }

    /// Answers the events that an earlier writer committed but did not answer before it died. It
    /// finds them by epoch and queue sequence. An event that the earlier writer refused stays
    /// refused, as its row says.
    pub(super) fn answer_committed(&mut self, last: &store::trail::Last) -> Result<(), Failure> {
        let (slot, tail) = (self.slot, self.slot.tail.load(Acquire));
        if last.epoch != slot.epoch.load(Acquire) || (last.queue_seq as u64) < tail {
            return Ok(());
        }
        let count = (last.queue_seq as u64 + 1 - tail).min(slot.waiting());
        let entries: Vec<Entry> =
            (tail..tail + count).map(|sequence| slot.entry(sequence)).collect();
        let Some(since) = entries.iter().map(|entry| entry.event.accessed_at).min() else {
            return Ok(());
        };
        let refused: HashMap<i64, Option<FailureReason>> = as_owner(|owner| {
            let rows = store::trail::refused(owner, since, last.epoch, tail as i64);
            Ok(rows.into_iter().collect())
        })?;
        let one = |(entry, sequence): (Entry, u64)| {
            let reason = refused.get(&(sequence as i64)).filter(|_| entry.event.success());
            let refused = reason.map(|reason| reason.unwrap_or(FailureReason::Blocked));
            Taken { entry, sequence, has_row: true, refused }
        };
        let taken: Vec<Taken> = entries.into_iter().zip(tail..).map(one).collect();
        self.answer(&taken, Verdict::Recorded);
        Ok(())
    }

    /// Answers every waiting event with "not recorded": this writer cannot serve.
    pub(super) fn fail_all(&self) {
        let slot = self.slot;
        let (tail, count) = (slot.tail.load(Acquire), slot.waiting());
        for sequence in tail..tail + count {
            slot.answer(&slot.entry(sequence), Verdict::NotRecorded);
        }
        slot.tail.fetch_add(count, AcqRel);
        slot.failed.fetch_add(count, AcqRel);
    }
}

fn rows_of(taken: &[Taken]) -> Vec<Placed<'_>> {
    taken
        .iter()
        .filter(|taken| taken.has_row)
        .map(|taken| (taken.sequence, &taken.entry.event))
        .collect()
}
