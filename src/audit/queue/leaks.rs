//! The keys that the log hook masked, on their way to a writer: a table in shared memory, without
//! the text itself, and beside it the budget of each source. A process also writes to them in a
//! critical section and while it ends, so it takes no lock and allocates nothing. The logger has no
//! shared memory, nor has the postmaster at its end. Writing there was a segmentation fault, so
//! nothing is written. Unsafe lives here.

use crate::alarms::{AlarmSource, Budgets, HeldBack, Party, may_wait};
use crate::moment::{Moment, Span};
use crate::settings;
use crate::trail::Leak;
use pgrx::pg_sys;
use std::ffi::c_void;
use std::hash::Hasher;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::*};

/// The most leaks that wait at a time. A writer takes them once a second. 150 sources can bring
/// all of a day's budget at the same moment, and a newcomer still finds room for its own.
const CELLS: usize = 4_096;
/// How long a leak waits for its own database's writer. Then any writer reports it.
const PATIENCE: Span = Span::seconds(10);

const FREE: u32 = 0;
const FILLING: u32 = 1;
const FULL: u32 = 2;
const TAKING: u32 = 3;

/// The names in a leak are constants of this library. Every process of the server has them at the
/// same address, because the postmaster loaded the library and they are its forks.
#[repr(C)]
struct Cell {
    state: AtomicU32,
    /// Whose share of the table it takes.
    party: u32,
    leak: Leak,
}

#[repr(C)]
struct LeakTable {
    /// Hashes of keys mean nothing outside this run of the server.
    secret: [u8; 16],
    next: AtomicU32,
    /// The number of cells that are not free.
    used: AtomicU32,
    budgets: Budgets,
    cells: [Cell; CELLS],
}

static TABLE: AtomicPtr<LeakTable> = AtomicPtr::new(ptr::null_mut());

// SAFETY: PostgreSQL's own variable, with this very type.
unsafe extern "C" {
    /// Null in a process that has detached from shared memory.
    static UsedShmemSegAddr: *mut c_void;
}

pub(crate) const fn size() -> usize {
    size_of::<LeakTable>()
}

/// Takes its place in shared memory at server start.
///
/// # Safety
/// `memory` is `size()` bytes of shared memory that every process maps, all zero when `first`;
/// called in the postmaster.
pub(crate) unsafe fn startup(memory: *mut u8, first: bool) {
    let table = memory.cast::<LeakTable>();
    if first && let Ok(secret) = crate::crypto::random::random_bytes() {
        // SAFETY: as promised by the caller; nobody else runs yet.
        unsafe { (*table).secret = secret };
    }
    TABLE.store(table, Release);
    // SAFETY: registered in the postmaster after PostgreSQL's own detaching of the memory, so it is
    // called before that.
    unsafe { pg_sys::on_shmem_exit(Some(forget), pg_sys::Datum::from(0)) };
}

// Not #[pg_guard]: it only clears a pointer.
// SAFETY: PostgreSQL calls it at the end of a process.
unsafe extern "C-unwind" fn forget(_code: i32, _argument: pg_sys::Datum) {
    TABLE.store(ptr::null_mut(), Release);
}

/// Whether this process has shared memory now.
pub(crate) fn is_mapped() -> bool {
    // SAFETY: reads a process-local pointer.
    unsafe { !(&raw const UsedShmemSegAddr).read_volatile().is_null() }
}

fn table() -> Option<*mut LeakTable> {
    let table = TABLE.load(Acquire);
    (is_mapped() && !table.is_null()).then_some(table)
}

/// The cells from one on, as addresses. Another process may write to a cell at any time, so no
/// reference is made.
fn cells(table: *mut LeakTable, first: usize) -> impl Iterator<Item = *mut Cell> {
    // SAFETY: within the table.
    (0..CELLS)
        .map(move |i| unsafe { (&raw mut (*table).cells).cast::<Cell>().add((first + i) % CELLS) })
}

/// Hash of a key under the secret of this server run; None where there is no shared memory.
pub(crate) fn hash(key: &[u8]) -> Option<u64> {
    Some(hash_in(table()?, key))
}

fn hash_in(table: *mut LeakTable, bytes: &[u8]) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    // SAFETY: written once, before any other process ran.
    let secret = unsafe { (*table).secret };
    hasher.write(&secret);
    hasher.write(bytes);
    hasher.finish()
}

/// The budgets. They are atomics, and live as long as the memory is mapped.
fn budgets(table: *mut LeakTable) -> &'static Budgets {
    // SAFETY: within the table, and never written otherwise than by atomics.
    unsafe { &(*table).budgets }
}

/// Asks for one incident of a source.
fn ask(table: *mut LeakTable, source: &AlarmSource, day: u32) -> crate::alarms::Asked {
    let hash = |words: &[u64; 4]| {
        let mut bytes = [0; 32];
        for (eight, word) in bytes.chunks_exact_mut(8).zip(words) {
            eight.copy_from_slice(&word.to_ne_bytes());
        }
        hash_in(table, &bytes)
    };
    budgets(table).ask(source, settings::incident_budget(), day, hash)
}

/// The day that a budget is of.
fn day(at: Moment) -> u32 {
    u32::try_from(at.day()).unwrap_or_default()
}

/// Whether a source may raise one more incident today. If not, it is counted as held back. Without
/// shared memory nobody could count, so nothing is raised.
pub(crate) fn may_raise(source: &AlarmSource, at: Moment) -> bool {
    let Some(table) = table() else { return false };
    let asked = ask(table, source, day(at));
    if !asked.may_raise {
        budgets(table).hold(&asked, day(at), 1);
    }
    asked.may_raise
}

/// Stores a leak for the writer. If its source is over its budget, or has its share of the table,
/// it is only counted.
pub(crate) fn push(leak: Leak) {
    let Some(table) = table() else { return };
    let (source, day) = (AlarmSource::of(&leak), day(leak.at));
    let (asked, budgets) = (ask(table, &source, day), budgets(table));
    // SAFETY: an atomic of shared memory.
    let used = unsafe { (*table).used.load(Acquire) };
    let free = (CELLS as u32).saturating_sub(used);
    let has_share = asked.may_raise && may_wait(budgets.waiting(&asked), free);
    if !has_share || !store(table, leak, || budgets.waits(&asked)) {
        budgets.hold(&asked, day, leak.count);
    }
}

/// Stores a leak in a free cell. False: there is none.
fn store(table: *mut LeakTable, leak: Leak, waits: impl FnOnce() -> u32) -> bool {
    // SAFETY: atomics of shared memory; the rest of a cell belongs to whoever moved its state to
    // FILLING.
    unsafe {
        let first = (*table).next.fetch_add(1, Relaxed) as usize;
        for cell in cells(table, first % CELLS) {
            if (*cell).state.compare_exchange(FREE, FILLING, AcqRel, Relaxed).is_ok() {
                (&raw mut (*cell).party).write(waits());
                (&raw mut (*cell).leak).write(leak);
                (*table).used.fetch_add(1, AcqRel);
                (*cell).state.store(FULL, Release);
                return true;
            }
        }
    }
    false
}

/// Whether so many leaks wait that the writer should not sleep.
pub(crate) fn are_many() -> bool {
    // SAFETY: an atomic of shared memory.
    table().is_some_and(|table| unsafe { (*table).used.load(Acquire) } > CELLS as u32 / 16)
}

/// For the writer: takes at most `most` leaks of its database, and those that have waited too long
/// for another database's writer.
pub(crate) fn take(database: u32, now: Moment, most: usize) -> Vec<Leak> {
    let Some(table) = table() else { return vec![] };
    // SAFETY: an atomic of shared memory.
    if unsafe { (*table).used.load(Acquire) } == 0 {
        return vec![];
    }
    let mut taken = vec![];
    for cell in cells(table, 0) {
        if taken.len() >= most {
            break;
        }
        // SAFETY: atomics of shared memory; the rest of a cell belongs to whoever moved its state
        // to TAKING.
        unsafe {
            if (*cell).state.compare_exchange(FULL, TAKING, AcqRel, Relaxed).is_err() {
                continue;
            }
            let leak = (&raw const (*cell).leak).read();
            let ours = leak.database == database || leak.database == 0 || now - leak.at > PATIENCE;
            if ours {
                taken.push(leak);
                budgets(table).no_longer_waits((&raw const (*cell).party).read());
                (*table).used.fetch_sub(1, AcqRel);
            }
            (*cell).state.store(if ours { FREE } else { FULL }, Release);
        }
    }
    taken
}

/// For the writer: takes out what was held back of the parties that `wanted` names.
pub(crate) fn take_held(wanted: impl Fn(&Party) -> bool) -> Vec<HeldBack> {
    table().map(|table| budgets(table).take_held(wanted)).unwrap_or_default()
}
