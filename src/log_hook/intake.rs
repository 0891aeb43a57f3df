//! Which statements name us: their own text does, or that of a statement within them, or a function
//! that they call does. Of such a statement only what is known to hold no value is shown. Unsafe:
//! reads process-local variables of PostgreSQL.

use super::masking;
use crate::blanks;
use pgrx::pg_sys;
use std::ffi::CStr;
use std::sync::atomic::{AtomicI64, AtomicU64, AtomicUsize, Ordering::Relaxed};

/// The start time of the statement that last came to us, perhaps through a wrapper. 0 means none.
/// It is compared and never reset, because the next statement has another start time.
static OURS_SINCE: AtomicI64 = AtomicI64::new(0);
/// The same of the last statement that ran SQL of ours.
static OUR_SQL_SINCE: AtomicI64 = AtomicI64::new(0);

/// How many texts are remembered that name us only by what they call.
const REMEMBERED: usize = 64;
/// Hashes of such texts. A prepared statement is analyzed once and runs often.
static WRAPPERS: [AtomicU64; REMEMBERED] = [const { AtomicU64::new(0) }; REMEMBERED];
static NEXT: AtomicUsize = AtomicUsize::new(0);

/// Hashes of the names of statements that name us and were prepared by SQL.
static PREPARED: [AtomicU64; REMEMBERED] = [const { AtomicU64::new(0) }; REMEMBERED];
static NEXT_PREPARED: AtomicUsize = AtomicUsize::new(0);

/// Called at the entry of every function that takes a key.
pub(crate) fn statement_holds_a_key() {
    OURS_SINCE.store(masking::statement_start(), Relaxed);
}

/// Called where our own SQL begins that may RAISE, as `install()` does.
pub(crate) fn statement_runs_our_sql() {
    OUR_SQL_SINCE.store(masking::statement_start(), Relaxed);
}

/// Whether the running statement runs our own SQL.
pub(super) fn runs_our_sql() -> bool {
    let since = OUR_SQL_SINCE.load(Relaxed);
    since != 0 && since == masking::statement_start()
}

/// Whether the running statement has come to us.
pub(super) fn is_running() -> bool {
    let since = OURS_SINCE.load(Relaxed);
    since != 0 && since == masking::statement_start()
}

/// Whether a text names us.
pub(super) fn names_us(text: &[u8]) -> bool {
    blanks::names_us(text, is_on_search_path()) || calls_us(text) || executes(text)
}

/// Whether our schema is on the search path, so that names without a schema may be ours.
fn is_on_search_path() -> bool {
    // SAFETY: reads a process-local variable, null or a C string.
    let path = unsafe {
        let path = pg_sys::namespace_search_path;
        if path.is_null() { b"" } else { CStr::from_ptr(path).to_bytes() }
    };
    let schema = blanks::SCHEMA.as_bytes();
    path.windows(schema.len()).any(|part| part.eq_ignore_ascii_case(schema))
}

/// Remembers a text that calls us by way of a wrapper.
pub(super) fn remember_call(text: &[u8]) {
    if !calls_us(text) {
        WRAPPERS[NEXT.fetch_add(1, Relaxed) % REMEMBERED].store(hash(text), Relaxed);
    }
}

fn calls_us(text: &[u8]) -> bool {
    if NEXT.load(Relaxed) == 0 {
        return false;
    }
    let hash = hash(text);
    WRAPPERS.iter().any(|known| known.load(Relaxed) == hash)
}

/// Remembers the name of a prepared statement that names us.
pub(super) fn remember_prepared(name: &[u8]) {
    PREPARED[NEXT_PREPARED.fetch_add(1, Relaxed) % REMEMBERED].store(hash(name), Relaxed);
}

/// Whether a text has EXECUTE before the name of such a statement. It is asked also of a text that
/// does not parse.
fn executes(text: &[u8]) -> bool {
    const EXECUTE: &[u8] = b"execute";
    if NEXT_PREPARED.load(Relaxed) == 0 {
        return false;
    }
    let is_executed = |at: usize| {
        let name = text[at + EXECUTE.len()..].trim_ascii_start();
        let name = name.strip_prefix(b"\"").unwrap_or(name);
        let end = name.iter().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_');
        let mut lower = [0; 64];
        let length = end.count().min(lower.len());
        lower[..length].copy_from_slice(&name[..length]);
        lower.make_ascii_lowercase();
        let hash = hash(&lower[..length]);
        PREPARED.iter().any(|known| known.load(Relaxed) == hash)
    };
    let words = text.windows(EXECUTE.len()).enumerate();
    words.filter(|(_, word)| word.eq_ignore_ascii_case(EXECUTE)).any(|(at, _)| is_executed(at))
}

/// FNV-1a. Never 0, which stands for a free place.
fn hash(text: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    text.iter().fold(0xcbf2_9ce4_8422_2325, mix) | 1
}

/// Blanks what is no word of SQL's or ours.
pub(super) fn blank(text: &mut [u8]) {
    // SAFETY: reads a process-local variable.
    let backslashes = unsafe { !pg_sys::standard_conforming_strings };
    blanks::blank(text, backslashes);
}
