//! What this process knows of its own session: users, role, settings, time, locks. Reads only, no
//! judgement (that is `caller.rs`). Unsafe: thin reads of PostgreSQL's process-local state.

use pgrx::pg_sys;
use std::ffi::{CStr, CString};
use std::time::Duration;

/// Microseconds between 1970-01-01 and 2000-01-01, where PostgreSQL's timestamps begin.
pub(crate) const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// The user whose rights count now: a SECURITY DEFINER wrapper counts as its owner.
pub(crate) fn effective_user() -> pg_sys::Oid {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::GetUserId() }
}

pub(crate) fn session_user() -> pg_sys::Oid {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::GetSessionUserId() }
}

pub(crate) fn role_name(role: pg_sys::Oid) -> Option<String> {
    // SAFETY: a catalog look-up inside a transaction; the answer is a palloc'ed C string or null.
    unsafe { text(pg_sys::GetUserNameFromId(role, true)) }
}

/// None: there is no such database.
pub(crate) fn database_name(database: pg_sys::Oid) -> Option<String> {
    // SAFETY: a catalog look-up inside a transaction; the answer is a palloc'ed C string or null.
    unsafe { text(pg_sys::get_database_name(database)) }
}

/// Whether `user` has the privileges of the role (superusers have all; membership without INHERIT
/// does not count).
pub(crate) fn has_privileges_of(user: pg_sys::Oid, role: &CStr) -> bool {
    // SAFETY: catalog look-ups inside a transaction.
    unsafe {
        let role = pg_sys::get_role_oid(role.as_ptr(), true);
        role != pg_sys::InvalidOid && pg_sys::has_privs_of_role(user, role)
    }
}

pub(crate) fn is_superuser(user: pg_sys::Oid) -> bool {
    // SAFETY: a catalog look-up inside a transaction.
    unsafe { pg_sys::superuser_arg(user) }
}

/// Whether this transaction may not write: PostgREST runs GET and HEAD so.
pub(crate) fn is_read_only() -> bool {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::XactReadOnly }
}

/// The first megabyte of a setting as this session sees it; None when it is unknown or empty.
pub(crate) fn setting(name: &CStr) -> Option<String> {
    // SAFETY: missing_ok, so that an unknown name answers null; the answer is copied at once.
    unsafe { text(pg_sys::GetConfigOption(name.as_ptr(), true, false)) }
        .filter(|value| !value.is_empty())
}

/// A setting as SHOW answers it, with its unit; None when it is unknown or empty.
pub(crate) fn shown_setting(name: &CStr) -> Option<String> {
    // SAFETY: missing_ok, so that an unknown name answers null; the answer is a palloc'ed C string,
    // copied at once.
    unsafe { text(pg_sys::GetConfigOptionByName(name.as_ptr(), std::ptr::null_mut(), true)) }
        .filter(|value| !value.is_empty())
}

/// The writer's: fixes a setting of its own session against database and configuration file.
pub(crate) fn override_setting(name: &CStr, value: &str) {
    if let Ok(value) = CString::new(value) {
        let (context, source) = (pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_OVERRIDE);
        // SAFETY: both strings live through the call, which copies them.
        unsafe { pg_sys::SetConfigOption(name.as_ptr(), value.as_ptr(), context, source) }
    }
}

/// Microseconds since 1970, UTC.
pub(crate) fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() + POSTGRES_EPOCH }
}

pub(crate) fn backend_pid() -> i32 {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::MyProcPid }
}

pub(crate) fn database() -> pg_sys::Oid {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::MyDatabaseId }
}

pub(crate) fn system_identifier() -> u64 {
    // SAFETY: reads the control file's copy in shared memory.
    unsafe { pg_sys::GetSystemIdentifier() }
}

/// The full transaction id, if this transaction has one; reading does not assign one.
pub(crate) fn transaction_id() -> Option<u64> {
    // SAFETY: reads the transaction state.
    let id = unsafe { pg_sys::GetTopFullTransactionIdIfAny() }.value;
    (id != 0).then_some(id)
}

pub(crate) fn is_standby() -> bool {
    // SAFETY: reads shared memory.
    unsafe { pg_sys::RecoveryInProgress() }
}

pub(crate) fn is_utf8_database() -> bool {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_UTF8 as i32 }
}

/// Memory that a sort or a set-returning function may use before it spills to disk, in bytes.
pub(crate) fn work_mem() -> usize {
    // SAFETY: reads a process-local variable, in kilobytes.
    unsafe { pg_sys::work_mem as usize * 1024 }
}

/// The user that owns the server's files, from the data directory every server process works in.
pub(crate) fn server_uid() -> Option<u32> {
    std::fs::metadata(".").ok().map(|directory| std::os::unix::fs::MetadataExt::uid(&directory))
}

/// How many background workers run (those of extensions and parallel queries), and how many the
/// server has room for.
pub(crate) fn worker_slots() -> (usize, usize) {
    // SAFETY: the numbers and entries of this backend's own copy of the activity table; it is
    // forgotten afterwards, so that the next look sees the present.
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

/// Whether this process was told to end; `check_interrupts` will end it.
pub(crate) fn must_end() -> bool {
    // SAFETY: reads a process-local flag that a signal handler sets.
    unsafe { (&raw const pg_sys::ProcDiePending).read_volatile() != 0 }
}

/// The writer's: forgets that it was told to end, so that its last transaction is not ended too;
/// told again, it ends.
pub(crate) fn put_off_the_end() {
    // SAFETY: assigns two process-local flags that the signal handler sets; it may set them again
    // at any moment.
    unsafe {
        (&raw mut pg_sys::ProcDiePending).write_volatile(0);
        (&raw mut pg_sys::InterruptPending).write_volatile(0);
    }
}

/// Whether this is a parallel query: what changes state cannot run there.
pub(crate) fn is_parallel() -> bool {
    // SAFETY: reads the transaction state.
    unsafe { pg_sys::IsInParallelMode() }
}

/// Ends with an ERROR when the statement was cancelled, timed out or the session was told to end.
pub(crate) fn check_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Sleeps until this process is woken, or for `longest`; interrupts are the caller's to check.
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

/// Whether the server's first process is still there.
pub(crate) fn postmaster_lives() -> bool {
    // SAFETY: reads a process-local variable.
    let postmaster = unsafe { pg_sys::PostmasterPid };
    std::os::unix::process::parent_id() == postmaster as u32
}

/// Whether this transaction holds a lock on the relation that an INSERT by another process would
/// wait for.
pub(crate) fn blocks_inserts(relation: pg_sys::Oid) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: database().to_u32(),
        locktag_field2: relation.to_u32(),
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    let strong = [
        pg_sys::ShareLock,
        pg_sys::ShareRowExclusiveLock,
        pg_sys::ExclusiveLock,
        pg_sys::AccessExclusiveLock,
    ];
    // SAFETY: looks into this process's own table of held locks.
    strong.iter().any(|&mode| unsafe { held(&tag, mode as i32) })
}

/// # Safety
/// None beyond a live `tag`: looks into this process's own table of held locks.
#[cfg(any(feature = "pg15", feature = "pg16"))]
unsafe fn held(tag: &pg_sys::LOCKTAG, mode: i32) -> bool {
    // SAFETY: as the caller's.
    unsafe { pg_sys::LockHeldByMe(tag, mode) }
}

/// # Safety
/// As for the older majors.
#[cfg(any(feature = "pg17", feature = "pg18"))]
unsafe fn held(tag: &pg_sys::LOCKTAG, mode: i32) -> bool {
    // SAFETY: as the caller's.
    unsafe { pg_sys::LockHeldByMe(tag, mode, false) }
}

/// Takes, without waiting, a lock of this transaction on a thing of ours, by a relation of ours and
/// a number; false: another transaction holds it. No SQL takes such a lock, so that nobody can hold
/// it against us.
pub(crate) fn try_lock(relation: pg_sys::Oid, thing: u32) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: database().to_u32(),
        locktag_field2: relation.to_u32(),
        locktag_field3: thing,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: a lock of this transaction, released at its end; dontWait.
    let got = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, true) };
    got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Waits until no other transaction installs, updates or drops the extension, and lets none begin
/// before this one ends. No stranger can hold such a lock.
pub(crate) fn lock_extension() {
    let mode = pg_sys::ShareUpdateExclusiveLock as i32;
    // SAFETY: a catalog look-up inside a transaction, and a lock released at its end.
    unsafe {
        let extension = pg_sys::get_extension_oid(c"watchllm_keys".as_ptr(), true);
        pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, extension, 0, mode);
    }
}

/// Takes, without waiting, the lock with which rows of a table of ours are read and written; false:
/// it is not to be had.
pub(crate) fn try_to_use(table: &str) -> bool {
    // SAFETY: a lock of this transaction, released at its end.
    relation(table).is_some_and(|table| unsafe {
        pg_sys::ConditionalLockRelationOid(table, pg_sys::RowExclusiveLock as i32)
    })
}

/// A relation of schema `watchllm` by name.
pub(crate) fn relation(name: &str) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: catalog look-ups inside a transaction.
    let oid = unsafe {
        pg_sys::get_relname_relid(
            name.as_ptr(),
            pg_sys::get_namespace_oid(c"watchllm".as_ptr(), true),
        )
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

/// Whether the server is loading `shared_preload_libraries` at this moment.
pub(crate) fn is_preloading() -> bool {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::process_shared_preload_libraries_in_progress }
}

/// Keeps backtraces out of the DETAIL that clients see: PostgreSQL's environment may ask Rust for
/// them.
pub(crate) fn forget_backtraces() {
    // SAFETY: called from _PG_init while the server starts, in a process of one thread.
    unsafe {
        std::env::remove_var("RUST_BACKTRACE");
        std::env::remove_var("RUST_LIB_BACKTRACE");
    }
}

/// From now on nobody can invent settings that begin with our name.
pub(crate) fn reserve_settings() {
    // SAFETY: called from _PG_init after all settings are defined.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"watchllm_keys".as_ptr()) }
}

/// # Safety
/// `string` is null or a C string that lives at least until this returns.
unsafe fn text(string: *const std::ffi::c_char) -> Option<String> {
    if string.is_null() {
        return None;
    }
    // SAFETY: as promised by the caller.
    let bytes = unsafe { CStr::from_ptr(string) }.to_bytes();
    // A session may give a setting a value of a gigabyte; 50 kB of headers, all escaped, are 300 kB
    // of JSON.
    Some(String::from_utf8_lossy(&bytes[..bytes.len().min(1_048_576)]).into_owned())
}
