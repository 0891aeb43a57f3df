//! The copy of a statement's text that a prepared statement keeps. pg_prepared_statements and
//! pg_backend_memory_contexts show it. Out of memory, PostgreSQL prints it to stderr, past every
//! hook. Unsafe: walks PostgreSQL's tree of memory contexts, where the copy is an identifier. The
//! copy is never parsed again: a new plan is made from the parse tree.

use super::client_text::text_of;
use pgrx::pg_sys;
use std::ffi::{CStr, c_char};

/// How many of the newest contexts are searched: the one we want was made a moment ago.
const NEWEST: usize = 16;

/// Calls `change` with the copies that plan sources made a moment ago.
///
/// # Safety
/// Called while PostgreSQL analyzes a statement, in the memory context of the analysis.
pub(super) unsafe fn each_copy(mut change: impl FnMut(&mut [u8])) {
    // SAFETY: a walk over live contexts; the identifier of a plan source is its own copy of the
    // text.
    unsafe {
        let mut child = (*pg_sys::CurrentMemoryContext).firstchild;
        for _ in 0..NEWEST {
            if child.is_null() {
                return;
            }
            let (name, text) = ((*child).name, (*child).ident);
            if is_plan_source(name)
                && let Some(text) = text_of(text.cast_mut())
            {
                change(text);
            }
            child = (*child).nextchild;
        }
    }
}

/// # Safety
/// `name` is null or a C string.
unsafe fn is_plan_source(name: *const c_char) -> bool {
    // SAFETY: as promised by the caller.
    !name.is_null() && unsafe { CStr::from_ptr(name) } == c"CachedPlanSource"
}
