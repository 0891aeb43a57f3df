//! Runs work that may fail without harm to the surrounding statement. Unsafe: a subtransaction by
//! hand, as PL/pgSQL has it for EXCEPTION blocks.

use pgrx::pg_sys;
use pgrx::{PgSqlErrorCode, PgTryBuilder};
use std::panic::AssertUnwindSafe;

/// Runs `work` in a subtransaction. If it raises an ERROR or answers None, only the subtransaction
/// is undone and the answer is None. A cancelled statement stays cancelled.
pub(crate) fn attempt<T>(work: impl FnOnce() -> Option<T>) -> Option<T> {
    // SAFETY: begun and ended in pairs. Memory context and resource owner are put back as they
    // were, as after an EXCEPTION block. PostgreSQL releases what was opened inside (SPI,
    // snapshots, locks) with the subtransaction.
    unsafe {
        let (context, owner) = (pg_sys::CurrentMemoryContext, pg_sys::CurrentResourceOwner);
        let restore = move || {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::CurrentResourceOwner = owner;
        };
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(context);
        PgTryBuilder::new(AssertUnwindSafe(|| {
            let answer = work();
            match answer {
                Some(_) => pg_sys::ReleaseCurrentSubTransaction(),
                None => pg_sys::RollbackAndReleaseCurrentSubTransaction(),
            }
            restore();
            answer
        }))
        .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |error| error.rethrow())
        .catch_others(move |_| {
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            restore();
            None
        })
        .execute()
    }
}
