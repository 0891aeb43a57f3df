//! The server log: hides the STATEMENT (and CONTEXT) line of errors in statements that passed a key as an argument.
//! Unsafe: emit_log_hook runs in every process, also in critical sections: it only compares two numbers.
//! No lock, no allocation, no shared memory, no #[pg_guard] (FACTS §3).

use pgrx::pg_sys;
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering::Relaxed};

/// When the statement began whose arguments hold a key; 0: none. Compared, never reset: the next statement begins
/// at another time.
static SENSITIVE_SINCE: AtomicI64 = AtomicI64::new(0);
static PREVIOUS: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// Takes the hook; once, while libraries are preloaded.
pub fn install_hook() {
    // SAFETY: the postmaster is single-threaded; the previous function pointer is kept as it was.
    unsafe {
        PREVIOUS.store(std::mem::transmute::<pg_sys::emit_log_hook_type, *mut ()>(pg_sys::emit_log_hook), Relaxed);
        pg_sys::emit_log_hook = Some(hide);
    }
}

/// Called at the entry of every function that takes a key.
pub fn statement_holds_a_key() {
    // SAFETY: reads a process-local variable.
    SENSITIVE_SINCE.store(unsafe { pg_sys::GetCurrentStatementStartTimestamp() }, Relaxed);
}

// Not #[pg_guard]: nothing here can panic, and a guard would allocate.
unsafe extern "C-unwind" fn hide(error: *mut pg_sys::ErrorData) {
    // SAFETY: `error` is PostgreSQL's own error data, valid for this call; the previous hook gets it as it would
    // without us.
    unsafe {
        let since = SENSITIVE_SINCE.load(Relaxed);
        if since != 0 && since == pg_sys::GetCurrentStatementStartTimestamp() && !error.is_null() {
            (*error).hide_stmt = true;
            (*error).hide_ctx = true;
        }
        let previous: pg_sys::emit_log_hook_type = std::mem::transmute(PREVIOUS.load(Relaxed));
        if let Some(previous) = previous {
            previous(error);
        }
    }
}
