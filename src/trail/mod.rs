//! What is recorded of every access, and how the records are chained.
//! Pure: no pgrx, no unsafe, no connection. Rule: DESIGN §6 and §11 (Bytes, Lengths, access_type, failure_reason).
#![forbid(unsafe_code)]

pub mod chain;
pub mod event;

pub use chain::{MacKey, Row};
pub use event::{AccessType, Bounded, Event, FailureReason, Verdict};
