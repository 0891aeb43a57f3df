//! The watch: counts accesses and refusals as they happen, and decides what follows from the
//! counts. Pure: no pgrx, no unsafe; time is an argument. Bounded memory, constant cost per event.
//! See docs/architecture.md#the-watch.
#![forbid(unsafe_code)]

mod access;
pub mod action;
pub mod basis;
mod buckets;
mod callers;
mod counter;
mod detector;
mod key;
mod limits;
mod past;
#[cfg(test)]
mod past_tests;
pub mod refusals;
mod subject;
mod watch;

pub use access::{KeyAccess, Meeting, WatchFinding};
pub use action::ANOMALY_ACTION;
pub use basis::LIMIT_BASIS;
pub use callers::Peak;
pub use counter::Window;
pub use detector::Detector;
pub use limits::{Limits, OwnLimits, Rules, STALE_AFTER};
pub use past::{Busiest, DAYS, KeyPast};
pub use refusals::Refusals;
pub use subject::Subject;
pub use watch::Watch;
