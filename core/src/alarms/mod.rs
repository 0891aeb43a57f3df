//! Budgets of alarms: how many incidents a source may raise in a day, and how many of its findings
//! may wait to be written. A noisy source pays for itself alone. Pure: the table is made of atomics
//! and lies in shared memory; who asks, and when, is in the extension.
#![forbid(unsafe_code)]

pub mod budgets;
pub mod source;

pub use budgets::{Asked, Budgets, HeldBack, may_wait};
pub use source::{AlarmSource, Party};
