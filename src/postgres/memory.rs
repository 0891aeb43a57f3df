//! Memory for one step of a long run, and the memory that a sort may use. What PostgreSQL allocates
//! in a step (arguments, values, slots) is freed after it, not at the statement's end. Unsafe: a
//! memory context by hand. It is a child of the statement's context, so an ERROR needs no cleaning
//! up here.

use crate::redact::{self, OutOfMemory};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::{PgLogLevel, PgSqlErrorCode};

/// Memory that is emptied after each step.
pub(crate) struct StepMemory(pg_sys::MemoryContext);

impl StepMemory {
    pub(crate) fn new() -> StepMemory {
        // SAFETY: a child of the current context, which outlives this call; sizes are PostgreSQL's
        // defaults.
        StepMemory(unsafe {
            pg_sys::AllocSetContextCreateInternal(
                pg_sys::CurrentMemoryContext,
                c"watchllm_keys step".as_ptr(),
                pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
                pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
            )
        })
    }

    /// Runs a step. The answer is 'static, so it cannot borrow from the memory that is freed.
    pub(crate) fn run<T: 'static>(&self, step: impl FnOnce() -> T) -> T {
        // SAFETY: switches the process's current context and back; an ERROR in between switches by
        // itself.
        unsafe {
            let before = pg_sys::CurrentMemoryContext;
            pg_sys::CurrentMemoryContext = self.0;
            let answer = step();
            pg_sys::CurrentMemoryContext = before;
            pg_sys::MemoryContextReset(self.0);
            answer
        }
    }
}

/// A copy of a text of any length. Raises an ERROR (53200) if there is no memory for it: a failed
/// allocation of Rust's would end the server.
pub(crate) fn copied(text: &[u8]) -> String {
    match redact::copied(text).map(String::from_utf8) {
        Ok(Ok(text)) => text,
        Ok(Err(bytes)) => String::from_utf8_lossy(bytes.as_bytes()).into_owned(),
        Err(OutOfMemory) => {
            out_of_memory();
            String::new()
        }
    }
}

/// Raises an ERROR (53200).
pub(crate) fn out_of_memory() {
    ErrorReport::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "out of memory", "watchllm_keys")
        .set_hint("Give less at once. See docs/reference.md#53200.")
        .report(PgLogLevel::ERROR);
}

/// Memory that a sort or a set-returning function may use before it spills to disk, in bytes.
pub(crate) fn work_mem() -> usize {
    // SAFETY: reads a process-local variable, in kilobytes.
    unsafe { pg_sys::work_mem as usize * 1024 }
}
