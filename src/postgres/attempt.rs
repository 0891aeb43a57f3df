//! Runs work that may fail without harm to the surrounding statement. Unsafe: a subtransaction by
//! hand, as PL/pgSQL has it for EXCEPTION blocks.

use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder};
use std::panic::AssertUnwindSafe;

/// Why an attempt failed. PostgreSQL's own words are left out: they may hold what a caller wrote.
pub(crate) struct Failed {
    pub sqlstate: PgSqlErrorCode,
}

/// Runs `work` in a subtransaction. If it raises an ERROR or answers None, only the subtransaction
/// is undone and the answer is None. A cancelled statement stays cancelled.
pub(crate) fn attempt<T>(work: impl FnOnce() -> Option<T>) -> Option<T> {
    attempt_or_why(work).ok().flatten()
}

/// As `attempt`, and tells why.
pub(crate) fn attempt_or_why<T>(work: impl FnOnce() -> Option<T>) -> Result<Option<T>, Failed> {
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
            Ok(answer)
        }))
        .catch_when(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, |error| error.rethrow())
        .catch_others(move |caught| {
            let (CaughtError::PostgresError(report)
            | CaughtError::ErrorReport(report)
            | CaughtError::RustPanic { ereport: report, .. }) = &caught;
            let failed = Failed { sqlstate: report.sql_error_code() };
            pg_sys::MemoryContextSwitchTo(context);
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
            restore();
            Err(failed)
        })
        .execute()
    }
}

impl Failed {
    /// The five characters of its SQLSTATE, and for the usual ones what they mean.
    pub(crate) fn why(&self) -> String {
        use PgSqlErrorCode::*;
        let code = self.sqlstate as i32;
        let code: String =
            (0..5).map(|i| char::from(((code >> (6 * i)) & 0x3f) as u8 + b'0')).collect();
        let means = match self.sqlstate {
            ERRCODE_STATEMENT_TOO_COMPLEX => "nested too deeply for max_stack_depth",
            ERRCODE_LOCK_NOT_AVAILABLE => "somebody has locked it",
            ERRCODE_INSUFFICIENT_PRIVILEGE => "you may not read it",
            ERRCODE_OUT_OF_MEMORY | ERRCODE_PROGRAM_LIMIT_EXCEEDED => "too large to be written out",
            ERRCODE_UNDEFINED_TABLE | ERRCODE_UNDEFINED_OBJECT => "it is gone",
            _ => "PostgreSQL cannot write it out",
        };
        format!("{means} ({code})")
    }
}
