//! The queue's place in shared memory: asked for and laid out when the server starts, by
//! PostgreSQL's two hooks. Unsafe lives here. The order: slots, their rings, one waiter per server
//! process, the keyrings, what was found of the databases, then the keys that the log hook masked.
//! All is laid out in place, because its 20 MB would not fit a stack.

use super::leaks;
use super::{CAPACITY, DIRECTORY, Entry, SLOT_COUNT, SLOTS, Slot, WAITER_COUNT, WAITERS, Waiter};
use crate::postgres::found;
use crate::postgres::hooks::HookChain;
use crate::settings;
use crate::shared_keyring;
use pgrx::pg_sys;
use std::ptr;
use std::sync::atomic::Ordering::*;

const TRANCHE: &std::ffi::CStr = c"watchllm_keys";
static REQUEST: HookChain<pg_sys::shmem_request_hook_type> = HookChain::new();
static STARTUP: HookChain<pg_sys::shmem_startup_hook_type> = HookChain::new();

/// Asks PostgreSQL for shared memory; called while libraries are preloaded.
pub(crate) fn install_hooks() {
    // SAFETY: PostgreSQL's own hooks; the postmaster is single-threaded.
    unsafe {
        REQUEST.take(&raw mut pg_sys::shmem_request_hook, Some(request));
        STARTUP.take(&raw mut pg_sys::shmem_startup_hook, Some(startup));
    }
}

fn sizes() -> (usize, usize, usize, usize) {
    let slots = settings::max_databases();
    let ring = slots * settings::audit_queue_size() * size_of::<Entry>();
    // SAFETY: MaxBackends is known before the request hook runs.
    let waiters = unsafe { pg_sys::MaxBackends as usize } + 64;
    (
        slots,
        ring,
        waiters,
        slots * size_of::<Slot>()
            + ring
            + waiters * size_of::<Waiter>()
            + shared_keyring::size(slots)
            + found::size(slots)
            + leaks::size(),
    )
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: calls the hook that was there before, then asks for memory where PostgreSQL allows
    // it.
    unsafe {
        if let Some(previous) = REQUEST.previous() {
            previous();
        }
        let (slots, _, _, total) = sizes();
        pg_sys::RequestAddinShmemSpace(total);
        pg_sys::RequestNamedLWLockTranche(TRANCHE.as_ptr(), 2 + 2 * slots as i32);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn startup() {
    // SAFETY: runs once per process under AddinShmemInitLock. The memory is as large as `request`
    // asked for. All-zero bytes are valid slots, entries and waiters.
    unsafe {
        if let Some(previous) = STARTUP.previous() {
            previous();
        }
        let (slots, ring, waiters, total) = sizes();
        let init_lock = &raw mut (*pg_sys::MainLWLockArray.add(ADDIN_SHMEM_INIT_LOCK)).lock;
        pg_sys::LWLockAcquire(init_lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let mut is_there = false;
        let memory = pg_sys::ShmemInitStruct(TRANCHE.as_ptr(), total, &mut is_there).cast::<u8>();
        let locks = pg_sys::GetNamedLWLockTranche(TRANCHE.as_ptr());
        let table = memory.cast::<Slot>();
        let entries = memory.add(slots * size_of::<Slot>()).cast::<Entry>();
        let waiting = entries.cast::<u8>().add(ring).cast::<Waiter>();
        let keyrings = waiting.add(waiters).cast::<u8>();
        if !is_there {
            ptr::write_bytes(memory, 0, total);
            for i in 0..slots {
                (*table.add(i)).lock = &raw mut (*locks.add(1 + i)).lock;
                (*table.add(i)).ring = entries.add(i * settings::audit_queue_size());
            }
        }
        shared_keyring::startup(keyrings, slots, locks.add(1 + slots), !is_there);
        let findings = keyrings.add(shared_keyring::size(slots));
        found::startup(findings, slots, locks.add(1 + 2 * slots));
        leaks::startup(findings.add(found::size(slots)), !is_there);
        DIRECTORY.store(&raw mut (*locks).lock, Relaxed);
        CAPACITY.store(settings::audit_queue_size(), Relaxed);
        SLOT_COUNT.store(slots, Relaxed);
        WAITER_COUNT.store(waiters, Relaxed);
        WAITERS.store(waiting, Relaxed);
        SLOTS.store(table, Release);
        pg_sys::LWLockRelease(init_lock);
    }
}

/// AddinShmemInitLock's place in MainLWLockArray (lwlocknames.h, the same in PostgreSQL 15 to 18).
const ADDIN_SHMEM_INIT_LOCK: usize = 21;
