//! This process and the server's other processes: its number, its sleep, whether it must end, how
//! many others there are. Unsafe: process-local variables, its latch, its copy of the activity
//! table, and the environment while the server starts.

use pgrx::pg_sys;
use std::ffi::CStr;
use std::time::Duration;

pub(crate) fn backend_pid() -> i32 {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::MyProcPid }
}

pub(crate) fn system_identifier() -> u64 {
    // SAFETY: reads the control file's copy in shared memory.
    unsafe { pg_sys::GetSystemIdentifier() }
}

pub(crate) fn is_standby() -> bool {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

/// The user that owns the server's files. It is read from the data directory, in which every server
/// process works.
pub(crate) fn server_uid() -> Option<u32> {
    std::fs::metadata(".").ok().map(|directory| std::os::unix::fs::MetadataExt::uid(&directory))
}

/// How many background workers run (those of extensions and parallel queries), and how many slots
/// the server has.
pub(crate) fn worker_slots() -> (usize, usize) {
    // SAFETY: the numbers and entries of this backend's own copy of the activity table. The copy is
    // discarded afterwards, so that the next call sees new numbers.
    unsafe {
        pg_sys::pgstat_clear_snapshot();
        let is_worker = |&i: &i32| {
            let entry = local_backend(i);
            !entry.is_null()
                && (*entry).backendStatus.st_backendType == pg_sys::BackendType::B_BG_WORKER
        };
        let running = (1..=pg_sys::pgstat_fetch_stat_numbackends()).filter(is_worker).count();
        pg_sys::pgstat_clear_snapshot();
        (running, pg_sys::max_worker_processes as usize)
    }
}

/// # Safety
/// None beyond an index that `pgstat_fetch_stat_numbackends` allows.
#[cfg(feature = "pg15")]
unsafe fn local_backend(index: i32) -> *mut pg_sys::LocalPgBackendStatus {
    // SAFETY: as the caller's.
    unsafe { pg_sys::pgstat_fetch_stat_local_beentry(index) }
}

/// # Safety
/// As for the older majors.
#[cfg(any(feature = "pg16", feature = "pg17", feature = "pg18"))]
unsafe fn local_backend(index: i32) -> *mut pg_sys::LocalPgBackendStatus {
    // SAFETY: as the caller's.
    unsafe { pg_sys::pgstat_get_local_beentry_by_index(index) }
}

/// Whether this process is a background worker of this library.
pub(crate) fn is_our_worker() -> bool {
    // SAFETY: a process-local variable, null in other processes; the name ends with NUL.
    unsafe {
        let entry = pg_sys::MyBgworkerEntry;
        !entry.is_null() && CStr::from_ptr((*entry).bgw_library_name.as_ptr()) == c"watchllm_keys"
    }
}

/// Whether this process was told to end; `check_interrupts` will end it.
pub(crate) fn must_end() -> bool {
    // SAFETY: reads a process-local flag that a signal handler sets.
    unsafe { (&raw const pg_sys::ProcDiePending).read_volatile() != 0 }
}

/// For the writer: forgets that it was told to end, so that its last transaction may finish. If it
/// is told again, it ends.
pub(crate) fn put_off_the_end() {
    // SAFETY: assigns two process-local flags that the signal handler sets; it may set them again
    // at any moment.
    unsafe {
        (&raw mut pg_sys::ProcDiePending).write_volatile(0);
        (&raw mut pg_sys::InterruptPending).write_volatile(0);
    }
}

/// Ends with an ERROR when the statement was cancelled, timed out or the session was told to end.
pub(crate) fn check_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Sleeps until this process is woken, or for `longest`. The caller checks interrupts.
pub(crate) fn sleep(longest: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let millis = longest.as_millis().clamp(1, 60_000) as std::ffi::c_long;
    // SAFETY: MyLatch is this process's own latch.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, millis, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
}

/// Runs a sleep that pg_stat_activity shows as waiting for an extension.
pub(crate) fn while_waiting(sleep: impl FnOnce()) {
    // SAFETY: points at this process's own entry, or at a local dummy.
    unsafe { pg_sys::my_wait_event_info.write_volatile(pg_sys::PG_WAIT_EXTENSION) };
    sleep();
    // SAFETY: as above.
    unsafe { pg_sys::my_wait_event_info.write_volatile(0) };
}

/// Whether the postmaster is still alive.
pub(crate) fn postmaster_lives() -> bool {
    // SAFETY: reads a process-local variable.
    let postmaster = unsafe { pg_sys::PostmasterPid };
    std::os::unix::process::parent_id() == postmaster as u32
}

/// Whether the server is loading `shared_preload_libraries` at this moment.
pub(crate) fn is_preloading() -> bool {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Keeps backtraces out of the DETAIL that clients see, even if the server's environment asks Rust
/// for them.
pub(crate) fn forget_backtraces() {
    // SAFETY: called from _PG_init while the server starts, in a process of one thread.
    unsafe {
        std::env::remove_var("RUST_BACKTRACE");
        std::env::remove_var("RUST_LIB_BACKTRACE");
    }
}
