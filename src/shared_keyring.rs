//! The root keys of each database, in shared memory: the writer loads them, every process reads
//! them. The memory outlives the writer, so its restart costs no PBKDF2 (100 ms a version). Slots
//! are those of `audit/queue`; each has its own lock. Unsafe: shared memory. See
//! docs/architecture.md#crypto.

use crate::crypto::RootKey;
use crate::error::Error;
use pgrx::pg_sys;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering::*};
use zeroize::Zeroize;

/// The most versions of a keyring in shared memory. `core` allows a keyring as many.
pub(crate) const MAX_VERSIONS: usize = 64;

const EMPTY: u32 = 0;
const READY: u32 = 1;
const NO_MASTER_KEY: u32 = 2;
const WRONG_MASTER_KEY: u32 = 3;

/// The state of one version of the master key.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum VersionState {
    /// In the keyring, but its root key is not derived yet. That takes 100 ms.
    Coming = 1,
    Ready = 2,
    /// Its secret does not open its canary.
    Wrong = 3,
}

#[repr(C)]
struct Version {
    number: i32,
    entry: u32,
    root: [u8; 32],
}

#[repr(C)]
struct Ring {
    lock: *mut pg_sys::LWLock,
    state: AtomicU32,
    /// The database of these keys. A slot may pass to another database.
    database: u32,
    active: i32,
    /// The fault of the last load: 0 if it went well, else NO_MASTER_KEY or WRONG_MASTER_KEY.
    fault: u32,
    wrong: i32,
    count: u32,
    why_len: u32,
    why: [u8; 200],
    versions: [Version; MAX_VERSIONS],
}

static RINGS: AtomicPtr<Ring> = AtomicPtr::new(ptr::null_mut());

/// Bytes of shared memory for `slots` databases.
pub(crate) fn size(slots: usize) -> usize {
    slots * size_of::<Ring>()
}

/// Takes its place in shared memory at server start.
///
/// # Safety
/// `memory` is `size(slots)` bytes of shared memory that every process maps; `locks` are as many
/// LWLocks. Called under AddinShmemInitLock. `first` says that the memory is fresh.
pub(crate) unsafe fn startup(
    memory: *mut u8,
    slots: usize,
    locks: *mut pg_sys::LWLockPadded,
    first: bool,
) {
    let rings = memory.cast::<Ring>();
    if first {
        // SAFETY: as promised by the caller; all-zero bytes are an empty ring.
        unsafe {
            ptr::write_bytes(memory, 0, size(slots));
            for i in 0..slots {
                (*rings.add(i)).lock = &raw mut (*locks.add(i)).lock;
            }
        }
    }
    RINGS.store(rings, Release);
}

fn ring(slot: usize) -> *mut Ring {
    // SAFETY: slots come from the queue, which exists only after `startup` and keeps them within
    // its number.
    unsafe { RINGS.load(Acquire).add(slot) }
}

/// Runs `work` on a ring under its lock. `work` must not raise an ERROR: it only moves bytes.
fn locked<T>(slot: usize, mode: pg_sys::LWLockMode::Type, work: impl FnOnce(&mut Ring) -> T) -> T {
    let ring = ring(slot);
    // SAFETY: the lock guards every field that is not atomic; shared holders only read.
    unsafe {
        pg_sys::LWLockAcquire((*ring).lock, mode);
        let answer = work(&mut *ring);
        pg_sys::LWLockRelease((*ring).lock);
        answer
    }
}

pub(crate) fn is_ready(slot: usize) -> bool {
    // SAFETY: an atomic field of shared memory.
    unsafe { (*ring(slot)).state.load(Acquire) == READY }
}

/// Whether the keyring is loaded and every version of it is derived.
pub(crate) fn is_complete(slot: usize) -> bool {
    is_ready(slot)
        && locked(slot, pg_sys::LWLockMode::LW_SHARED, |ring| {
            ring.versions[..ring.count as usize]
                .iter()
                .all(|v| v.entry != VersionState::Coming as u32)
        })
}

/// Whether no load has ended yet: the writer is still loading.
pub(crate) fn is_coming(slot: usize) -> bool {
    // SAFETY: an atomic field of shared memory.
    unsafe { (*ring(slot)).state.load(Acquire) == EMPTY }
}

/// Why nothing can be opened or stored; None when the active master key is loaded.
pub(crate) fn problem(slot: usize) -> Option<Error> {
    locked(slot, pg_sys::LWLockMode::LW_SHARED, |ring| ring.problem(ring.state.load(Acquire)))
}

/// The fault of the last load. If an earlier load still serves, the error says so.
pub(crate) fn last_problem(slot: usize) -> Option<Error> {
    let problem = locked(slot, pg_sys::LWLockMode::LW_SHARED, |ring| match ring.fault {
        EMPTY => None,
        fault => ring.problem(fault),
    })?;
    let serves = is_ready(slot);
    Some(if serves { Error::ReloadRefused(Box::new(problem)) } else { problem })
}

impl Ring {
    fn problem(&self, state: u32) -> Option<Error> {
        match state {
            READY => None,
            EMPTY => Some(Error::NoMasterKey("the audit writer has not loaded it yet".into())),
            WRONG_MASTER_KEY => Some(Error::WrongMasterKey(self.wrong)),
            _ => Some(Error::NoMasterKey(
                String::from_utf8_lossy(&self.why[..self.why_len as usize]).into_owned(),
            )),
        }
    }
}

/// The root key of a version. None: it is not derived yet.
pub(crate) fn root_key(slot: usize, database: u32, version: i32) -> Result<Option<RootKey>, Error> {
    locked(slot, pg_sys::LWLockMode::LW_SHARED, |ring| {
        if ring.database != database {
            return Err(Error::AuditUnavailable(
                "another database took the slot; try again".into(),
            ));
        }
        match ring.versions[..ring.count as usize].iter().find(|v| v.number == version) {
            Some(v) if v.entry == VersionState::Ready as u32 => {
                Ok(Some(RootKey::from_bytes(&v.root)))
            }
            Some(v) if v.entry == VersionState::Coming as u32 => Ok(None),
            Some(_) => Err(Error::WrongMasterKey(version)),
            None => Err(Error::UnknownMasterKey(version)),
        }
    })
}

/// The version new envelopes are sealed under.
pub(crate) fn active_version(slot: usize) -> Option<i32> {
    is_ready(slot).then(|| locked(slot, pg_sys::LWLockMode::LW_SHARED, |ring| ring.active))
}

/// Every version with its entry, for `status()`.
pub(crate) fn versions(slot: usize) -> Vec<(i32, bool)> {
    let mut found = [(0, false); MAX_VERSIONS];
    let count = locked(slot, pg_sys::LWLockMode::LW_SHARED, |ring| {
        for (place, v) in found.iter_mut().zip(&ring.versions[..ring.count as usize]) {
            *place = (v.number, v.entry == VersionState::Ready as u32);
        }
        ring.count as usize
    });
    found[..count].to_vec()
}

/// For the writer: makes this the keyring of the slot. Versions beyond the first 64 are left out.
pub(crate) fn publish(
    slot: usize,
    active: i32,
    versions: &[(i32, VersionState, Option<&RootKey>)],
) {
    locked(slot, pg_sys::LWLockMode::LW_EXCLUSIVE, |ring| {
        wipe(ring);
        for (place, (number, entry, root)) in ring.versions.iter_mut().zip(versions) {
            place.number = *number;
            place.entry = *entry as u32;
            if let Some(root) = root {
                place.root.copy_from_slice(root.expose());
            }
            ring.count += 1;
        }
        ring.active = active;
        ring.fault = EMPTY;
        ring.state.store(READY, Release);
    });
}

/// For the writer: one more version is derived.
pub(crate) fn publish_version(
    slot: usize,
    version: i32,
    entry: VersionState,
    root: Option<&RootKey>,
) {
    locked(slot, pg_sys::LWLockMode::LW_EXCLUSIVE, |ring| {
        let count = ring.count as usize;
        if let Some(place) = ring.versions[..count].iter_mut().find(|v| v.number == version) {
            place.entry = entry as u32;
            if let Some(root) = root {
                place.root.copy_from_slice(root.expose());
            }
        }
    });
}

/// For the writer: a reload found the keyring that is already in use.
pub(crate) fn publish_same(slot: usize) {
    locked(slot, pg_sys::LWLockMode::LW_EXCLUSIVE, |ring| {
        ring.fault = EMPTY;
    });
}

/// For the writer: the load failed. The keyring of an earlier load stays in use.
pub(crate) fn publish_problem(slot: usize, problem: &Error) {
    let message = match problem {
        Error::NoMasterKey(why) => why.clone(),
        other => other.message(),
    };
    let why = &message[..message.floor_char_boundary(200)];
    locked(slot, pg_sys::LWLockMode::LW_EXCLUSIVE, |ring| {
        ring.why[..why.len()].copy_from_slice(why.as_bytes());
        ring.why_len = why.len() as u32;
        (ring.fault, ring.wrong) = match problem {
            Error::WrongMasterKey(version) => (WRONG_MASTER_KEY, *version),
            _ => (NO_MASTER_KEY, 0),
        };
        if ring.state.load(Acquire) != READY {
            ring.state.store(ring.fault, Release);
        }
    });
}

/// Wipes a slot that this database takes over.
pub(crate) fn hand_over(slot: usize, database: u32) {
    locked(slot, pg_sys::LWLockMode::LW_EXCLUSIVE, |ring| {
        wipe(ring);
        ring.database = database;
        ring.state.store(EMPTY, Release);
    });
}

fn wipe(ring: &mut Ring) {
    for version in &mut ring.versions {
        version.root.zeroize();
        version.number = 0;
        version.entry = 0;
    }
    ring.count = 0;
    ring.why_len = 0;
}
