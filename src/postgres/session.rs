//! Facts about this process's own session: users, role, settings, transaction. `caller` judges
//! them. Only the writer changes settings, those of its own session. Unsafe: thin reads of
//! PostgreSQL's process-local state.

use pgrx::pg_sys;
use std::ffi::{CStr, CString};
use std::time::Duration;

/// The user whose rights count now. Within a SECURITY DEFINER wrapper this is the wrapper's owner.
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

/// Whether `user` has the privileges of the role. Superusers have all. Membership without INHERIT
/// does not count.
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

/// Whether only those triggers fire in this session that were made to fire always.
pub(crate) fn is_replica() -> bool {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::SessionReplicationRole == pg_sys::SESSION_REPLICATION_ROLE_REPLICA as i32 }
}

/// Whether this transaction may not write. PostgREST runs GET and HEAD in such transactions.
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
    // SAFETY: missing_ok, so that an unknown name answers null. The answer is a palloc'ed C string,
    // copied at once.
    unsafe { text(pg_sys::GetConfigOptionByName(name.as_ptr(), std::ptr::null_mut(), true)) }
        .filter(|value| !value.is_empty())
}

/// For the writer: fixes a setting of its own session, which overrides the database's and the
/// configuration file's.
pub(crate) fn override_setting(name: &CStr, value: &str) {
    if let Ok(value) = CString::new(value) {
        let (context, source) = (pg_sys::GucContext::PGC_SUSET, pg_sys::GucSource::PGC_S_OVERRIDE);
        // SAFETY: both strings live through the call, which copies them.
        unsafe { pg_sys::SetConfigOption(name.as_ptr(), value.as_ptr(), context, source) }
    }
}

/// Runs `work` with a lock_timeout of its own. Longer waits for a lock end with 55P03. The
/// session's value holds again afterwards, also after an ERROR.
pub(crate) fn with_lock_timeout<T>(longest: Duration, work: impl FnOnce() -> T) -> T {
    let millis = CString::new(longest.as_millis().max(1).to_string()).unwrap_or_default();
    // SAFETY: a nest level as a function's SET has it. PostgreSQL ends it with the transaction or
    // subtransaction if an ERROR leaves early. The strings live through the call.
    unsafe {
        let level = pg_sys::NewGUCNestLevel();
        pg_sys::set_config_option(
            c"lock_timeout".as_ptr(),
            millis.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
            pg_sys::GucAction::GUC_ACTION_SAVE,
            true,
            0,
            false,
        );
        let answer = work();
        pg_sys::AtEOXact_GUC(true, level);
        answer
    }
}

pub(crate) fn database() -> pg_sys::Oid {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::MyDatabaseId }
}

/// The full transaction id, if this transaction has one. This call does not assign one.
pub(crate) fn transaction_id() -> Option<u64> {
    // SAFETY: reads the transaction state.
    let id = unsafe { pg_sys::GetTopFullTransactionIdIfAny() }.value;
    (id != 0).then_some(id)
}

pub(crate) fn is_utf8_database() -> bool {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::GetDatabaseEncoding() == pg_sys::pg_enc::PG_UTF8 as i32 }
}

/// Whether this is a parallel query. A parallel query cannot change state.
pub(crate) fn is_parallel() -> bool {
    // SAFETY: reads the transaction state.
    unsafe { pg_sys::IsInParallelMode() }
}

/// From now on nobody can invent settings that begin with our prefix.
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
    // A session may give a setting a value of a gigabyte. 50 kB of headers, all escaped, are 300 kB
    // of JSON.
    Some(String::from_utf8_lossy(&bytes[..bytes.len().min(1_048_576)]).into_owned())
}
