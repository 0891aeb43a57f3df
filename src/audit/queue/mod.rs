//! The queue of audit events in shared memory: one slot per database, one waiter per server
//! process. A caller copies its event in under the slot's lock, and sleeps. The slot's writer takes
//! batches out, commits them and answers each event with a verdict. Nothing inside a locked section
//! may raise an ERROR. The order of stores is explained in docs/facts.md#the-durable-audit-writer.
//! Unsafe lives here.

pub(crate) mod leaks;
mod memory;

pub(crate) use memory::install_hooks;

use crate::audit::wakeup::Sleeper;
use crate::id::KeyRef;
use crate::moment::Moment;
use crate::postgres::session;
use crate::shared_keyring;
use crate::trail::{ColumnLeak, Event, Notice, Verdict};
use pgrx::pg_sys;
use std::ptr;
use std::sync::atomic::{
    AtomicI32, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::*,
};
use std::time::Duration;

/// Tickets of one process that can be open at once; a push is never longer.
pub(crate) const MAX_CHUNK: usize = 512;

/// The most incidents that wait to be announced. Further ones are in the table all the same.
const MAX_NOTICES: usize = 128;

/// The most keys masked in columns that wait at a time, and those of one owner of tables.
const MAX_COLUMN_LEAKS: usize = 256;
const MAX_OF_OWNER: usize = 64;

/// Whether a slot's writer serves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum WriterState {
    Absent = 0,
    Starting = 1,
    Running = 2,
}

/// After so many pushes in a row, a caller counts as the only one.
const LONELY: u32 = 8;

/// One database's queue, and the state of its writer.
#[repr(C)]
pub(crate) struct Slot {
    lock: *mut pg_sys::LWLock,
    ring: *mut Entry,
    pub database: AtomicU32,
    pub state: AtomicU32,
    pub writer_pid: AtomicI32,
    pub started_at: AtomicI64,
    /// Random per claim: (epoch, queue sequence) names an event for ever.
    pub epoch: AtomicI64,
    /// The next sequence to hand out.
    pub head: AtomicU64,
    /// The first sequence not answered yet.
    pub tail: AtomicU64,
    pub writer: Sleeper,
    /// Who pushed last, and how many pushes in a row. Spinning helps only while there is one
    /// caller.
    last_process: AtomicU32,
    pushes_in_a_row: AtomicU32,
    /// How many reloads were requested, and the last of them that is done.
    pub reloads_wanted: AtomicU32,
    pub reloads_done: AtomicU32,
    /// The number of committed changes of `settings`, which the writer compares.
    pub settings_changes: AtomicU32,
    /// The number of committed changes, which the writer compares too.
    pub commits: AtomicU64,
    pub starts: AtomicU64,
    pub batches: AtomicU64,
    pub events: AtomicU64,
    pub failed: AtomicU64,
    /// The table of the trail that the writer serves (its oid). A vault that was removed and
    /// installed again has another.
    pub vault: AtomicU32,
    /// A caller found another vault than the writer serves: it must look again.
    pub look_again: AtomicU32,
    problem: Words,
    /// Why the trail has no days ahead. Empty: it has.
    days_problem: Words,
    /// Incidents to announce to listeners.
    notices_len: AtomicU32,
    notices: [Notice; MAX_NOTICES],
    /// Keys masked in columns, which the writer compares with those that are stored.
    column_leaks_len: AtomicU32,
    column_leaks_lost: AtomicU32,
    column_leaks: [ColumnLeak; MAX_COLUMN_LEAKS],
}

/// Words of the writer for others, cut to 200 bytes. Guarded by the slot's lock.
#[repr(C)]
#[derive(Clone, Copy)]
struct Words {
    len: u32,
    bytes: [u8; 200],
}

impl Words {
    fn of(text: &str) -> Words {
        let text = &text[..text.floor_char_boundary(200)];
        let mut bytes = [0; 200];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Words { len: text.len() as u32, bytes }
    }

    /// None: there are none.
    fn text(&self) -> Option<String> {
        let len = self.len as usize;
        (len > 0).then(|| String::from_utf8_lossy(&self.bytes[..len]).into_owned())
    }
}

/// An event in the queue, and who waits for it.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Entry {
    pub ticket: u64,
    pub process: u32,
    /// Whether the caller had the right to what it attempted.
    pub authorised: bool,
    pub event: Event,
}

/// Where one server process waits. It outlives the process; its tickets only grow.
#[repr(C)]
struct Waiter {
    ticket: AtomicU64,
    sleeper: Sleeper,
    /// Each holds a ticket (upper 56 bits) and its verdict. So an answer to an earlier ticket never
    /// passes for a later one.
    verdicts: [AtomicU64; MAX_CHUNK],
}

static SLOTS: AtomicPtr<Slot> = AtomicPtr::new(ptr::null_mut());
static WAITERS: AtomicPtr<Waiter> = AtomicPtr::new(ptr::null_mut());
static DIRECTORY: AtomicPtr<pg_sys::LWLock> = AtomicPtr::new(ptr::null_mut());
static CAPACITY: AtomicUsize = AtomicUsize::new(0);
static SLOT_COUNT: AtomicUsize = AtomicUsize::new(0);
static WAITER_COUNT: AtomicUsize = AtomicUsize::new(0);
/// The slot this process used last.
static MINE: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Whether the library was preloaded, so that there is shared memory.
pub(crate) fn exists() -> bool {
    !SLOTS.load(Acquire).is_null()
}

pub(crate) fn capacity() -> usize {
    CAPACITY.load(Relaxed)
}

/// The longest push: a quarter of the queue (docs/architecture.md#lengths).
pub(crate) fn chunk() -> usize {
    (capacity() / 4).clamp(1, MAX_CHUNK)
}

/// A slot by number. Numbers come from `claim`, `find` and the writer's argument, which the writer
/// checks.
pub(crate) fn slot(number: usize) -> &'static Slot {
    // SAFETY: SLOTS points at SLOT_COUNT slots that live as long as the process; all shared fields
    // are atomics or guarded by `lock`.
    unsafe { &*SLOTS.load(Acquire).add(number.min(SLOT_COUNT.load(Relaxed) - 1)) }
}

/// The slot of a database, if it has one.
pub(crate) fn find(database: u32) -> Option<usize> {
    let mine = MINE.load(Relaxed);
    if mine != usize::MAX && slot(mine).database.load(Acquire) == database {
        return Some(mine);
    }
    let found =
        (0..SLOT_COUNT.load(Relaxed)).find(|&i| slot(i).database.load(Acquire) == database)?;
    MINE.store(found, Relaxed);
    Some(found)
}

/// Finds or takes a slot: a free one, or one whose writer left and whose queue is empty. None: all
/// are in use.
pub(crate) fn claim(database: u32, fresh_epoch: i64) -> Option<usize> {
    let number = locked(DIRECTORY.load(Relaxed), || {
        let first = |wanted: &dyn Fn(&Slot) -> bool| {
            (0..SLOT_COUNT.load(Relaxed)).find(|&i| wanted(slot(i)))
        };
        if let Some(known) = first(&|slot| slot.database.load(Acquire) == database) {
            return Some(known);
        }
        let taken =
            first(&|slot| slot.database.load(Acquire) == 0).or_else(|| first(&Slot::let_go))?;
        // Done before the slot is ours: nobody may seal under the root keys of the former database.
        shared_keyring::hand_over(taken, database);
        slot(taken).epoch.store(fresh_epoch, Release);
        slot(taken).vault.store(0, Release);
        slot(taken).set_problem("");
        slot(taken).set_days_problem(None);
        slot(taken).database.store(database, SeqCst);
        Some(taken)
    })?;
    MINE.store(number, Relaxed);
    Some(number)
}

/// Whether a database without a slot can get one.
pub(crate) fn has_room() -> bool {
    (0..SLOT_COUNT.load(Relaxed))
        .any(|i| slot(i).database.load(Acquire) == 0 || slot(i).is_abandoned())
}

impl Slot {
    /// Whether its writer has left and nothing waits for one.
    fn is_abandoned(&self) -> bool {
        self.state() == WriterState::Absent && self.is_empty() && self.writer_pid.load(Acquire) == 0
    }

    /// Takes the slot from a database whose writer left and whose queue is empty. The lock keeps
    /// that database from pushing meanwhile.
    fn let_go(&self) -> bool {
        self.locked(|| {
            let abandoned = self.is_abandoned();
            if abandoned {
                self.database.store(0, SeqCst);
            }
            abandoned
        })
    }

    pub(crate) fn state(&self) -> WriterState {
        match self.state.load(SeqCst) {
            2 => WriterState::Running,
            1 => WriterState::Starting,
            _ => WriterState::Absent,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting() == 0
    }

    /// Events not answered yet.
    pub(crate) fn waiting(&self) -> u64 {
        let tail = self.tail.load(Acquire);
        self.head.load(SeqCst).saturating_sub(tail)
    }

    /// Whether writer and waiter may spin before they sleep: only while one caller is alone with
    /// the writer. With more callers, spinning takes processor time from others: 20 % at four
    /// clients (docs/facts.md#the-durable-audit-writer).
    pub(crate) fn has_one_caller(&self) -> bool {
        self.pushes_in_a_row.load(Relaxed) >= LONELY
    }

    /// Runs `work` under the slot's lock; `work` must not raise an ERROR.
    pub(crate) fn locked<T>(&self, work: impl FnOnce() -> T) -> T {
        locked(self.lock, work)
    }

    /// Whether the oldest event was pushed before `moment` and is not answered yet. Under the lock,
    /// so that nobody overwrites the entry meanwhile.
    pub(crate) fn is_stuck_since(&self, moment: Moment) -> bool {
        self.locked(|| {
            !self.is_empty() && self.entry(self.tail.load(Acquire)).event.accessed_at < moment
        })
    }

    /// The event with this sequence, between tail and head; for the writer, or under the lock.
    pub(crate) fn entry(&self, sequence: u64) -> Entry {
        // SAFETY: between tail and head an entry is complete (head is published after it) and not
        // overwritten.
        unsafe { *self.ring.add((sequence % capacity() as u64) as usize) }
    }

    /// The key that the event with this sequence counts for, if somebody with the right asked.
    pub(crate) fn counted_key(&self, sequence: u64) -> Option<KeyRef> {
        // SAFETY: as in `entry`; only the writer moves the tail, and it is the one who asks.
        let entry = unsafe { &*self.ring.add((sequence % capacity() as u64) as usize) };
        entry.event.key().filter(|_| entry.authorised && entry.event.counts().is_some())
    }

    /// Puts `events` into the queue and answers the last ticket; None when there is no room now.
    /// The last quarter of the queue is kept for `authorised` events.
    pub(crate) fn push(&self, database: u32, events: &[Event], authorised: bool) -> Option<u64> {
        let process = my_process();
        let waiter = waiter(process)?;
        let room = if authorised { capacity() } else { capacity() - capacity() / 4 } as u64;
        let pushed = self.locked(|| {
            let head = self.head.load(Relaxed);
            if self.database.load(Acquire) != database
                || self.waiting() + events.len() as u64 > room
            {
                return None;
            }
            let first = waiter.ticket.load(Relaxed) + 1;
            for (i, event) in (0u64..).zip(events) {
                let entry = Entry { ticket: first + i, process, authorised, event: *event };
                // SAFETY: under the lock, and at most `capacity` entries lie between tail and head.
                unsafe { *self.ring.add(((head + i) % capacity() as u64) as usize) = entry };
            }
            let last = first + events.len() as u64 - 1;
            waiter.ticket.store(last, Release);
            let again = self.last_process.swap(process, Relaxed) == process;
            let row = if again { self.pushes_in_a_row.load(Relaxed).saturating_add(1) } else { 0 };
            self.pushes_in_a_row.store(row, Relaxed);
            self.head.store(head + events.len() as u64, SeqCst);
            Some(last)
        })?;
        self.writer.wake();
        Some(pushed)
    }

    /// For the writer: answers one event.
    pub(crate) fn answer(&self, entry: &Entry, verdict: Verdict) {
        if let Some(waiter) = waiter(entry.process) {
            let answer = entry.ticket << 8 | u64::from(verdict.to_byte());
            waiter.verdicts[entry.ticket as usize % MAX_CHUNK].fetch_max(answer, SeqCst);
        }
    }

    /// Asks the writer to announce incidents of this process's database.
    pub(crate) fn announce_all(&self, notices: Vec<Notice>) {
        let database = session::database().to_u32();
        notices.into_iter().for_each(|notice| self.announce(database, notice));
    }

    /// Asks the writer to announce one incident. If there is no room, or the slot belongs to
    /// another database by now, the incident is in the table only.
    fn announce(&self, database: u32, notice: Notice) {
        self.locked(|| {
            let len = self.notices_len.load(Relaxed) as usize;
            if len < MAX_NOTICES && self.database.load(Acquire) == database {
                let this = ptr::from_ref(self).cast_mut();
                // SAFETY: under the lock that guards the notices; `self` lies in shared memory that
                // is never moved.
                unsafe { (&raw mut (*this).notices).cast::<Notice>().add(len).write(notice) };
                self.notices_len.store(len as u32 + 1, Release);
            }
        });
        self.writer.wake();
    }

    pub(crate) fn has_notices(&self) -> bool {
        self.notices_len.load(Acquire) > 0
    }

    /// For the writer: takes the incidents to announce.
    pub(crate) fn take_notices(&self) -> Vec<Notice> {
        self.locked(|| {
            let len = self.notices_len.swap(0, AcqRel) as usize;
            self.notices[..len.min(MAX_NOTICES)].to_vec()
        })
    }

    /// Passes keys that were masked in a column to the writer. An owner of tables has a share of
    /// the room; past that, only that there were more is kept.
    pub(crate) fn tell_of_columns(&self, leaks: &[ColumnLeak]) {
        let database = session::database().to_u32();
        self.locked(|| {
            if self.database.load(Acquire) != database {
                return;
            }
            let this = ptr::from_ref(self).cast_mut();
            for leak in leaks {
                let len = (self.column_leaks_len.load(Relaxed) as usize).min(MAX_COLUMN_LEAKS);
                let owner = leak.table_owner.get();
                let of_owner = |at: &usize| self.column_leaks[*at].table_owner.get() == owner;
                let last = (0..len).rev().find(of_owner);
                let is_full =
                    len == MAX_COLUMN_LEAKS || (0..len).filter(of_owner).count() >= MAX_OF_OWNER;
                // SAFETY: under the lock that guards the array; `self` lies in shared memory that
                // is never moved.
                let place = unsafe { (&raw mut (*this).column_leaks).cast::<ColumnLeak>() };
                match (is_full, last) {
                    // SAFETY: `len` and `last` lie within the array.
                    (false, _) => unsafe {
                        place.add(len).write(*leak);
                        self.column_leaks_len.store(len as u32 + 1, Release);
                    },
                    // SAFETY: as above.
                    (true, Some(last)) => unsafe { (*place.add(last)).more = true },
                    (true, None) => drop(self.column_leaks_lost.fetch_add(1, AcqRel)),
                }
            }
        });
        self.writer.wake();
    }

    pub(crate) fn has_column_leaks(&self) -> bool {
        self.column_leaks_len.load(Acquire) > 0
    }

    /// For the writer: takes the keys masked in columns, and how many found no room.
    pub(crate) fn take_column_leaks(&self) -> (Vec<ColumnLeak>, u32) {
        self.locked(|| {
            let len = self.column_leaks_len.swap(0, AcqRel) as usize;
            let leaks = self.column_leaks[..len.min(MAX_COLUMN_LEAKS)].to_vec();
            (leaks, self.column_leaks_lost.swap(0, AcqRel))
        })
    }

    /// Notes the writer's last problem.
    pub(crate) fn set_problem(&self, problem: &str) {
        let words = Words::of(problem);
        let this = ptr::from_ref(self).cast_mut();
        // SAFETY: under the lock that guards the words; `self` lies in shared memory that is never
        // moved.
        self.locked(|| unsafe { (&raw mut (*this).problem).write(words) });
    }

    /// Notes why the trail has no days ahead; None: it has.
    pub(crate) fn set_days_problem(&self, problem: Option<&str>) {
        let words = Words::of(problem.unwrap_or_default());
        let this = ptr::from_ref(self).cast_mut();
        // SAFETY: as in `set_problem`.
        self.locked(|| unsafe { (&raw mut (*this).days_problem).write(words) });
    }

    pub(crate) fn problem(&self) -> Option<String> {
        self.copied(|slot| slot.problem).text()
    }

    pub(crate) fn days_problem(&self) -> Option<String> {
        self.copied(|slot| slot.days_problem).text()
    }

    /// A copy of words, made under the lock. They become a text outside of it.
    fn copied(&self, words: fn(&Slot) -> Words) -> Words {
        self.locked(|| words(self))
    }
}

/// The verdict of this process's ticket, once it is there.
pub(crate) fn verdict(ticket: u64) -> Option<Verdict> {
    let answer = waiter(my_process())?.verdicts[ticket as usize % MAX_CHUNK].load(SeqCst);
    (answer >> 8 == ticket).then(|| Verdict::from_byte(answer as u8))
}

/// Sleeps until this process's ticket is answered, or for `longest`.
pub(crate) fn sleep_for_verdict(ticket: u64, longest: Duration) {
    if let Some(waiter) = waiter(my_process()) {
        waiter.sleeper.sleep_unless(|| verdict(ticket).is_some(), longest);
    }
}

/// Wakes every process that waits: the writer leaves, so one of them must start another.
pub(crate) fn wake_all_waiting() {
    for process in 0..WAITER_COUNT.load(Relaxed) as u32 {
        wake(process);
    }
}

/// Wakes a process that waits for a verdict. A process that does not wait is not disturbed.
pub(crate) fn wake(process: u32) {
    if let Some(waiter) = waiter(process) {
        waiter.sleeper.wake();
    }
}

/// This process's number among the server's processes.
pub(crate) fn my_process() -> u32 {
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    // SAFETY: MyProc is set in every process that runs SQL.
    unsafe {
        (*pg_sys::MyProc).pgprocno as u32
    }
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: reads a process-local variable.
    unsafe {
        pg_sys::MyProcNumber as u32
    }
}

fn waiter(process: u32) -> Option<&'static Waiter> {
    let waiters = WAITERS.load(Acquire);
    // SAFETY: WAITERS points at WAITER_COUNT waiters, all of them atomics, for as long as the
    // process lives.
    (!waiters.is_null() && (process as usize) < WAITER_COUNT.load(Relaxed))
        .then(|| unsafe { &*waiters.add(process as usize) })
}

fn locked<T>(lock: *mut pg_sys::LWLock, work: impl FnOnce() -> T) -> T {
    // SAFETY: the lock lies in shared memory; `work` raises no ERROR, so that acquire and release
    // are a pair.
    unsafe {
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let answer = work();
        pg_sys::LWLockRelease(lock);
        answer
    }
}
