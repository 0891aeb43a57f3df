//! What one process found of a database's tables, for all processes: their owner, and the trail.
//! Finding it costs a new connection 15 ms of planning, reading it here costs nothing. It holds
//! until one of the tables, a role or a schema changes. Then the first call asks again. Unsafe:
//! shared memory. `owner` says who tells of changes.

use pgrx::pg_sys;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering::*};

/// Bits of a database's set of relations. A relation's oid, cut to 16 bits, is its bit: two may
/// share one. Then a change of the other makes the next call ask again, which is all the harm.
const BITS: usize = 1 << 16;

/// What was found of one database.
#[repr(C)]
struct SoundVault {
    database: AtomicU32,
    role: AtomicU32,
    trail: AtomicU32,
    /// PostgreSQL names what changed in a catalog by a hash: those of the role and of the schema.
    role_hash: AtomicU32,
    schema_hash: AtomicU32,
    /// Grows with every change. A database that takes its place finds it above 0.
    generation: AtomicU64,
    /// The generation that `role` and `trail` were found in. 0: nothing was found yet.
    found_in: AtomicU64,
    /// Bits are only ever added, so that no change is missed.
    relations: [AtomicU64; BITS / 64],
}

/// What all processes share.
#[repr(C)]
struct Shared {
    /// Set for good: a prepared transaction may change the tables or roles at any later time, and
    /// no process of ours sees its commit.
    closed: AtomicU32,
}

static SHARED: AtomicPtr<Shared> = AtomicPtr::new(ptr::null_mut());
static FINDINGS: AtomicPtr<SoundVault> = AtomicPtr::new(ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);
static LOCK: AtomicPtr<pg_sys::LWLock> = AtomicPtr::new(ptr::null_mut());

/// Bytes of shared memory for as many databases.
pub(crate) fn size(databases: usize) -> usize {
    databases * size_of::<SoundVault>() + size_of::<Shared>()
}

/// Takes its place in shared memory at server start.
///
/// # Safety
/// `memory` is `size(databases)` bytes of shared memory that every process maps, and zero when it
/// is fresh. `lock` is an LWLock of ours alone. Called under AddinShmemInitLock.
pub(crate) unsafe fn startup(memory: *mut u8, databases: usize, lock: *mut pg_sys::LWLockPadded) {
    // SAFETY: takes the address of the lock inside its padding.
    LOCK.store(unsafe { &raw mut (*lock).lock }, Relaxed);
    COUNT.store(databases, Relaxed);
    // SAFETY: behind the findings, within what `size` asked for; both have the same alignment.
    SHARED.store(unsafe { memory.add(databases * size_of::<SoundVault>()) }.cast(), Relaxed);
    FINDINGS.store(memory.cast(), Release);
}

fn all() -> &'static [SoundVault] {
    let first = FINDINGS.load(Acquire);
    if first.is_null() {
        return &[];
    }
    // SAFETY: as many findings as were laid out at start, for the life of the process; all fields
    // are atomics.
    unsafe { std::slice::from_raw_parts(first, COUNT.load(Relaxed)) }
}

fn of(database: u32) -> Option<&'static SoundVault> {
    all().iter().find(|finding| finding.database.load(Acquire) == database)
}

/// What a search found.
pub(super) struct Search<'a> {
    pub role: pg_sys::Oid,
    pub trail: pg_sys::Oid,
    pub relations: &'a [pg_sys::Oid],
    pub role_hash: u32,
    pub schema_hash: u32,
}

/// The owner and the trail of this database, if they were found and nothing has changed since.
pub(super) fn read(database: u32) -> Option<(u32, u32)> {
    let finding = of(database)?;
    let found_in = finding.found_in.load(Acquire);
    let found = (finding.role.load(Relaxed), finding.trail.load(Relaxed));
    std::sync::atomic::fence(Acquire);
    let holds = found_in != 0
        && found_in == finding.generation.load(Acquire)
        && found_in == finding.found_in.load(Acquire)
        && !is_closed()
        && finding.database.load(Acquire) == database;
    holds.then_some(found)
}

/// The generation that a search which begins now searches in. None: there is no shared memory.
pub(super) fn generation(database: u32) -> Option<u64> {
    let mine = of(database).or_else(|| {
        locked(|| of(database).or_else(|| take_place(database)));
        of(database)
    })?;
    Some(mine.generation.load(Acquire))
}

/// Tells all processes what a search of this generation found. It is dropped when anything has
/// changed meanwhile.
pub(super) fn publish(database: u32, generation: u64, search: &Search) {
    locked(|| {
        let finding = of(database)?;
        finding.found_in.store(0, Release);
        finding.role.store(search.role.to_u32(), Relaxed);
        finding.trail.store(search.trail.to_u32(), Relaxed);
        finding.role_hash.store(search.role_hash, Relaxed);
        finding.schema_hash.store(search.schema_hash, Relaxed);
        for relation in search.relations {
            let (word, bit) = place(*relation);
            finding.relations[word].fetch_or(bit, Relaxed);
        }
        // From here on, changes of these relations are counted, so the comparison misses none.
        std::sync::atomic::fence(SeqCst);
        let holds = finding.generation.load(SeqCst) == generation;
        finding.found_in.store(if holds { generation } else { 0 }, Release);
        Some(())
    });
}

/// Whether this relation may be one of the tables that were found.
pub(super) fn may_be_ours(database: u32, relation: pg_sys::Oid) -> bool {
    let (word, bit) = place(relation);
    of(database).is_some_and(|finding| finding.relations[word].load(Relaxed) & bit != 0)
}

/// Counts a change of a relation, unless it is surely foreign. Before anything was found, every
/// change counts.
pub(super) fn relation_changed(database: u32, relation: pg_sys::Oid) {
    let Some(finding) = of(database) else { return };
    let is_found = finding.found_in.load(SeqCst) == finding.generation.load(SeqCst);
    if !is_found || may_be_ours(database, relation) {
        finding.generation.fetch_add(1, SeqCst);
    }
}

/// Whether this is the hash of a role or a schema that was found.
pub(super) fn is_role_or_schema(hash: u32) -> bool {
    all().iter().any(|finding| {
        [&finding.role_hash, &finding.schema_hash].iter().any(|known| known.load(Relaxed) == hash)
    })
}

/// Counts a change that may concern every database: of a role, its members, or a schema.
pub(super) fn anything_changed() {
    for finding in all() {
        finding.generation.fetch_add(1, SeqCst);
    }
}

/// From now on every process searches by itself, until the server starts again.
pub(super) fn close() {
    if let Some(shared) = shared() {
        shared.closed.store(1, SeqCst);
    }
}

fn is_closed() -> bool {
    shared().is_none_or(|shared| shared.closed.load(Acquire) != 0)
}

fn shared() -> Option<&'static Shared> {
    // SAFETY: null, or laid out at start for the life of the process; its field is an atomic.
    unsafe { SHARED.load(Acquire).as_ref() }
}

/// Whether a database has a place, so that its relations are known.
pub(super) fn is_known(database: u32) -> bool {
    of(database).is_some_and(|finding| finding.found_in.load(SeqCst) != 0)
}

fn place(relation: pg_sys::Oid) -> (usize, u64) {
    let bit = relation.to_u32() as usize % BITS;
    (bit / 64, 1 << (bit % 64))
}

/// A place for a database that has none: an empty one, else that of another database, which then
/// searches again.
fn take_place(database: u32) -> Option<&'static SoundVault> {
    let places = all();
    let empty = places.iter().find(|finding| finding.database.load(Relaxed) == 0);
    let taken = empty.or_else(|| places.get(database as usize % places.len().max(1)))?;
    taken.found_in.store(0, SeqCst);
    taken.database.store(0, SeqCst);
    taken.relations.iter().for_each(|word| word.store(0, Relaxed));
    taken.generation.fetch_add(1, SeqCst);
    taken.database.store(database, SeqCst);
    Some(taken)
}

fn locked<T>(work: impl FnOnce() -> Option<T>) -> Option<T> {
    let lock = LOCK.load(Relaxed);
    if lock.is_null() {
        return None;
    }
    // SAFETY: an LWLock of ours; `work` raises no ERROR, so that it is released.
    unsafe {
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let done = work();
        pg_sys::LWLockRelease(lock);
        done
    }
}
