//! The server log: hides the STATEMENT and CONTEXT lines of statements that may hold a key.
//! Unsafe: emit_log_hook runs in every process, also in critical sections, in the postmaster and while another error
//! is handled: it only compares and searches. No lock, no allocation, no shared memory, no #[pg_guard] (FACTS §3).

use pgrx::PgSqlErrorCode;
use pgrx::pg_sys;
use std::ffi::{CStr, c_char};
use std::sync::atomic::{AtomicI64, AtomicPtr, Ordering::Relaxed};

/// What takes a key as an argument or a row: a statement that names one of them is hidden even when it fails before
/// our code is reached (no right to execute, an error found while planning, a type that does not fit).
const TAKE_A_KEY: [&[u8]; 4] =
    [b"store_provider_key", b"rotate_provider_key", b"report_leaked_key", b"provider_key_inbox"];

/// How the context of a failing row begins, whatever the language.
const COPY: &[u8] = b"COPY provider_key_inbox";

/// When the statement began that passed a key to us, through a wrapper perhaps; 0: none. Compared, never reset: the
/// next statement begins at another time.
static SENSITIVE_SINCE: AtomicI64 = AtomicI64::new(0);
static PREVIOUS: AtomicPtr<()> = AtomicPtr::new(std::ptr::null_mut());

/// Takes the hook; once, when the library is loaded.
pub fn install_hook() {
    // SAFETY: called from _PG_init, in a single-threaded process; the previous function pointer is kept as it was.
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
// SAFETY: PostgreSQL calls it with its own error data, valid for this call.
unsafe extern "C-unwind" fn hide(error: *mut pg_sys::ErrorData) {
    // SAFETY: reads process-local variables and the statement's text, which lives as long as its statement; the
    // previous hook gets the error as it would without us.
    unsafe {
        let since = SENSITIVE_SINCE.load(Relaxed);
        let ours = since != 0 && since == pg_sys::GetCurrentStatementStartTimestamp();
        if !error.is_null() && (ours || names_us(pg_sys::debug_query_string)) {
            (*error).hide_stmt = true;
            (*error).hide_ctx = true;
            cut_row((*error).context);
            if (*error).sqlerrcode == PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION as i32 {
                blank_value((*error).message);
            }
        }
        let previous: pg_sys::emit_log_hook_type = std::mem::transmute(PREVIOUS.load(Relaxed));
        if let Some(previous) = previous {
            previous(error);
        }
    }
}

/// Leaves of the context of COPY into the inbox which line it was; the row itself follows, and clients are shown it too.
///
/// # Safety
/// `context` is null or a C string that may be written.
unsafe fn cut_row(context: *mut c_char) {
    if context.is_null() {
        return;
    }
    // SAFETY: as promised by the caller; written within the string, whose end only comes nearer.
    unsafe {
        let text = CStr::from_ptr(context).to_bytes();
        let Some(copy) = text.windows(COPY.len()).position(|part| part == COPY) else { return };
        let digit = |byte: &u8| byte.is_ascii_digit();
        let line = copy + COPY.len() + text[copy + COPY.len()..].iter().take_while(|byte| !digit(byte)).count();
        let end = line + text[line..].iter().take_while(|byte| digit(byte)).count();
        *context.add(end) = 0;
    }
}

/// Blanks what follows the first colon: the value that is of no use as a uuid may be a key in the wrong column.
///
/// # Safety
/// `message` is null or a C string that may be written.
unsafe fn blank_value(message: *mut c_char) {
    if message.is_null() {
        return;
    }
    // SAFETY: as promised by the caller; as many bytes as before.
    unsafe {
        let length = CStr::from_ptr(message).to_bytes().len();
        let bytes = std::slice::from_raw_parts_mut(message.cast::<u8>(), length);
        bytes
            .iter_mut()
            .skip_while(|byte| **byte != b':')
            .skip(1)
            .filter(|byte| **byte != b' ')
            .for_each(|byte| *byte = b'*');
    }
}

/// # Safety
/// `statement` is null or a C string.
unsafe fn names_us(statement: *const c_char) -> bool {
    if statement.is_null() {
        return false;
    }
    // SAFETY: as promised by the caller.
    let text = unsafe { CStr::from_ptr(statement) }.to_bytes();
    TAKE_A_KEY.iter().any(|name| text.windows(name.len()).any(|part| part.eq_ignore_ascii_case(name)))
}
