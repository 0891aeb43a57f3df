//! The watch: what is counted of accesses and refusals as they happen, and what follows from the
//! counts. Pure: no pgrx, no unsafe; time is an argument. Bounded memory, constant cost per event.
//! DESIGN §8.
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
