//! The client's own statement text: what masking found in it, and the masked copy that the
//! STATEMENT line shows instead. Unsafe: `debug_query_string`, and memory allocated by hand,
//! because lack of memory must not become a panic. Nothing here may raise an ERROR or allocate by
//! PostgreSQL (docs/facts.md#the-log-hook).

use super::masking;
use pgrx::pg_sys;
use std::alloc::{Layout, alloc, dealloc};
use std::ffi::{CStr, c_char};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicUsize, Ordering::Relaxed};

/// The masked copy of a statement, and the text it was copied from. The copy is kept until another
/// statement needs one.
static COPY: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());
static CAPACITY: AtomicUsize = AtomicUsize::new(0);
static ORIGINAL: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());

/// A larger copy is not kept for smaller statements.
const LARGE: usize = 1 << 20;

/// The client's text that was masked last, when its statement began, and what was found in it.
static SEEN: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());
static SEEN_SINCE: AtomicI64 = AtomicI64::new(0);
static SEEN_MASKED: AtomicBool = AtomicBool::new(false);
static SEEN_KEYS: AtomicBool = AtomicBool::new(false);
static SEEN_OURS: AtomicBool = AtomicBool::new(false);

/// What masking found in the client's text.
#[derive(Clone, Copy)]
pub(super) struct SeenText {
    /// Something in it was masked.
    pub masked: bool,
    /// Something in it was a key, and its place is remembered.
    pub keys: bool,
    /// It hands a key to the vault.
    pub ours: bool,
}

/// Whether a text is the client's own text of the running statement, as it was sent.
pub(super) fn is_clients(text: *const c_char) -> bool {
    // SAFETY: reads a process-local variable.
    let running = unsafe { pg_sys::debug_query_string };
    let swapped =
        running == COPY.load(Relaxed).cast_const() && text == ORIGINAL.load(Relaxed).cast_const();
    !text.is_null() && (text == running || (swapped && !running.is_null()))
}

/// What masking found in a text, if this statement has already masked it.
pub(super) fn seen(text: *const c_char) -> Option<SeenText> {
    let same = SEEN.load(Relaxed).cast_const() == text
        && SEEN_SINCE.load(Relaxed) == masking::statement_start();
    same.then(|| SeenText {
        masked: SEEN_MASKED.load(Relaxed),
        keys: SEEN_KEYS.load(Relaxed),
        ours: SEEN_OURS.load(Relaxed),
    })
}

/// Remembers what was found in the client's text. `since` is the start of its statement.
pub(super) fn remember(text: *mut c_char, since: i64, seen: SeenText) {
    SEEN.store(text, Relaxed);
    SEEN_SINCE.store(since, Relaxed);
    SEEN_MASKED.store(seen.masked, Relaxed);
    SEEN_KEYS.store(seen.keys, Relaxed);
    SEEN_OURS.store(seen.ours, Relaxed);
}

/// Whether a text is the copy that was made last.
pub(super) fn is_copy(text: *const c_char) -> bool {
    text == COPY.load(Relaxed).cast_const()
}

/// Copies a statement so that the copy can be masked. None: there is no memory.
///
/// # Safety
/// `debug_query_string` is not the copy that was made last.
pub(super) unsafe fn copied(statement: &[u8]) -> Option<&'static mut [u8]> {
    let (needed, capacity) = (statement.len() + 1, CAPACITY.load(Relaxed));
    // SAFETY: the allocator's own block, of the size it was made with; null is no panic.
    unsafe {
        if needed > capacity || (capacity > LARGE && needed < LARGE) {
            if capacity > 0 {
                dealloc(COPY.load(Relaxed).cast(), Layout::array::<u8>(capacity).ok()?);
            }
            CAPACITY.store(0, Relaxed);
            COPY.store(ptr::null_mut(), Relaxed);
            let fresh = alloc(Layout::array::<u8>(needed).ok()?);
            if fresh.is_null() {
                return None;
            }
            COPY.store(fresh.cast(), Relaxed);
            CAPACITY.store(needed, Relaxed);
        }
        let copy = COPY.load(Relaxed).cast::<u8>();
        copy.copy_from_nonoverlapping(statement.as_ptr(), statement.len());
        copy.add(statement.len()).write(0);
        Some(std::slice::from_raw_parts_mut(copy, statement.len()))
    }
}

/// Has the STATEMENT line show the copy that was made last, in place of the running text.
///
/// # Safety
/// `running` is `debug_query_string`, of which `copied` has made the copy.
pub(super) unsafe fn replace_by_copy(running: *mut c_char) {
    ORIGINAL.store(running, Relaxed);
    // SAFETY: a process-local variable; the copy is kept until another one is made.
    unsafe { pg_sys::debug_query_string = COPY.load(Relaxed).cast_const() };
}

/// The text at an address, without its NUL.
///
/// # Safety
/// `text` is null or a C string that may be written as long as the answer is used.
pub(super) unsafe fn text_of<'a>(text: *mut c_char) -> Option<&'a mut [u8]> {
    // SAFETY: as promised by the caller.
    unsafe {
        let length = (!text.is_null()).then(|| CStr::from_ptr(text).to_bytes().len())?;
        Some(std::slice::from_raw_parts_mut(text.cast::<u8>(), length))
    }
}
