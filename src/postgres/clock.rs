//! The clock as PostgreSQL reads it, in the product's time: microseconds since 1970, UTC.
//! Unsafe: one call without preconditions.

use pgrx::pg_sys;

/// Microseconds between 1970-01-01 and 2000-01-01, where PostgreSQL's timestamps begin.
pub(crate) const POSTGRES_EPOCH: i64 = 946_684_800_000_000;

/// Microseconds since 1970, UTC.
pub(crate) fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() + POSTGRES_EPOCH }
}
