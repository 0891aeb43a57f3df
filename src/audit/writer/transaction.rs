//! The writer's transactions: each piece of its work is a transaction of its own. An ERROR, an
//! `Err` or a panic rolls that transaction back and leaves the writer alive. Unsafe lives here:
//! transactions are begun and ended by hand, as background workers do.

use crate::error::Error;
use crate::postgres::Owner;
use crate::store;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::{PgSqlErrorCode, PgTryBuilder, log, pg_sys};
use std::panic::AssertUnwindSafe;

/// The error of a failed transaction.
pub(super) struct Failure {
    pub sqlstate: PgSqlErrorCode,
    pub message: String,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { sqlstate: error.sqlstate(), message: error.message() }
    }
}

impl Failure {
    fn of(caught: &CaughtError) -> Failure {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = caught;
        Failure { sqlstate: report.sql_error_code(), message: report.message().into() }
    }

    /// Whether a retry of each event alone could end differently. Faults of the server hit all
    /// events alike.
    pub(super) fn may_be_one_events_fault(&self) -> bool {
        use PgSqlErrorCode::*;
        !matches!(
            self.sqlstate,
            ERRCODE_DISK_FULL
                | ERRCODE_OUT_OF_MEMORY
                | ERRCODE_INSUFFICIENT_RESOURCES
                | ERRCODE_LOCK_NOT_AVAILABLE
                | ERRCODE_QUERY_CANCELED
                | ERRCODE_IO_ERROR
                | ERRCODE_READ_ONLY_SQL_TRANSACTION
                | ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
                | ERRCODE_UNDEFINED_TABLE
        )
    }

    /// Whether the rows are in the trail already.
    pub(super) fn is_unique_violation(&self) -> bool {
        self.sqlstate == PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION
    }
}

/// Runs `work` in a transaction of its own.
pub(super) fn transaction<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    let attempt = || {
        begin();
        match work() {
            Ok(value) => {
                commit();
                Ok(value)
            }
            Err(error) => {
                roll_back();
                Err(error.into())
            }
        }
    };
    PgTryBuilder::new(AssertUnwindSafe(attempt))
        .catch_others(|caught| {
            let failure = Failure::of(&caught);
            roll_back();
            Err(failure)
        })
        .execute()
}

/// As `transaction`, for work on our own tables: it is handed their owner.
pub(super) fn as_owner<T>(work: impl FnOnce(Owner) -> Result<T, Error>) -> Result<T, Failure> {
    transaction(|| work(store::installed::owner()?))
}

/// As `as_owner`, for work that can wait. On a failure it answers None, and the server log says
/// that `what` is done later. The caller keeps what it could not write, or puts it back.
pub(super) fn now_or_later<T>(what: &str, work: impl FnOnce(Owner) -> T) -> Option<T> {
    let outcome = as_owner(|owner| Ok(work(owner)));
    outcome
        .inspect_err(|failure| log!("watchllm_keys writer: {what} later: {}", failure.message))
        .ok()
}

fn begin() {
    // SAFETY: the worker is outside any transaction; it starts one, with a snapshot.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
}

fn commit() {
    // SAFETY: pops the snapshot that `begin` pushed; the commit is synchronous.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
    }
}

fn roll_back() {
    // SAFETY: ends whatever the failed transaction left; without a transaction it does nothing.
    unsafe { pg_sys::AbortCurrentTransaction() };
}
