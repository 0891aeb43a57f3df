//! The clock as PostgreSQL reads it, and its times as moments and back.
//! Unsafe: one call without preconditions.

use crate::moment::{Moment, Span};
use pgrx::pg_sys;

/// 2000-01-01, where PostgreSQL's timestamps begin.
const POSTGRES_EPOCH: Span = Span::new(946_684_800_000_000);

/// The moment of a PostgreSQL timestamp.
pub(crate) fn moment(since_2000: i64) -> Moment {
    Moment::new(since_2000) + POSTGRES_EPOCH
}

/// A moment as PostgreSQL counts: microseconds since 2000.
pub(crate) fn since_2000(moment: Moment) -> i64 {
    (moment - POSTGRES_EPOCH).micros()
}

pub(crate) fn now() -> Moment {
    // SAFETY: reads the clock.
    moment(unsafe { pg_sys::GetCurrentTimestamp() })
}
