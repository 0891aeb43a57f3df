//! The watch: counts accesses and refusals as they happen, and decides what follows from the
//! counts. Pure: no pgrx, no unsafe; time is an argument. Bounded memory, constant cost per event.
//! See docs/architecture.md#the-watch.
#![forbid(unsafe_code)]

mod access;
pub mod action;
mod buckets;
mod callers;
mod counter;
mod detector;
mod key;
mod limits;
pub mod refusals;
mod watch;

pub use access::{KeyAccess, Meeting, WatchFinding};
pub use action::ANOMALY_ACTION;
pub use callers::Peak;
pub use counter::Window;
pub use detector::{Detector, Subject};
pub use limits::{Limits, OwnLimits, Rules, STALE_AFTER};
pub use refusals::Refusals;
pub use watch::Watch;
