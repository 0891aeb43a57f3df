//! The keys that the log hook masked, on their way to a writer: a table in shared memory, without
//! the text itself. A process also writes to it in a critical section and while it ends, so it
//! takes no lock and allocates nothing. The logger has no shared memory, nor has the postmaster at
//! its end. Writing there was a segmentation fault, so nothing is written. Unsafe lives here.

use crate::moment::{Moment, Span};
use crate::trail::Leak;
use pgrx::pg_sys;
use std::ffi::c_void;
use std::hash::Hasher;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering::*};

/// The most leaks that wait at a time. A writer takes them once a second; further ones are only
/// counted.
const CELLS: usize = 256;
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
    leak: Leak,
}

#[repr(C)]
struct LeakTable {
    /// Hashes of keys mean nothing outside this run of the server.
    secret: [u8; 16],
    dropped: AtomicU64,
    next: AtomicU32,
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
    let table = table()?;
    let mut hasher = std::hash::DefaultHasher::new();
    // SAFETY: written once, before any other process ran.
    let secret = unsafe { (*table).secret };
    hasher.write(&secret);
    hasher.write(key);
    Some(hasher.finish())
}

/// Stores a leak for the writer. If there is no room, it is only counted.
pub(crate) fn push(leak: Leak) {
    let Some(table) = table() else { return };
    // SAFETY: atomics of shared memory; a cell's leak belongs to whoever moved its state to
    // FILLING.
    unsafe {
        let first = (*table).next.fetch_add(1, Relaxed) as usize;
        for cell in cells(table, first % CELLS) {
            if (*cell).state.compare_exchange(FREE, FILLING, AcqRel, Relaxed).is_ok() {
                (&raw mut (*cell).leak).write(leak);
                (*cell).state.store(FULL, Release);
                return;
            }
        }
        (*table).dropped.fetch_add(1, Relaxed);
    }
}

/// For the writer: takes the leaks of its database, and those that have waited too long for another
/// database's writer. Also answers how many were dropped.
pub(crate) fn take(database: u32, now: Moment) -> (Vec<Leak>, u64) {
    let Some(table) = table() else { return (vec![], 0) };
    let mut taken = vec![];
    for cell in cells(table, 0) {
        // SAFETY: atomics of shared memory; a cell's leak belongs to whoever moved its state to
        // TAKING.
        unsafe {
            if (*cell).state.compare_exchange(FULL, TAKING, AcqRel, Relaxed).is_err() {
                continue;
            }
            let leak = (&raw const (*cell).leak).read();
            let ours = leak.database == database || leak.database == 0 || now - leak.at > PATIENCE;
            if ours {
                taken.push(leak);
            }
            (*cell).state.store(if ours { FREE } else { FULL }, Release);
        }
    }
    // SAFETY: an atomic of shared memory.
    (taken, unsafe { (*table).dropped.swap(0, Relaxed) })
}
