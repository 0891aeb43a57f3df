//! The watch: what is counted of accesses as they happen, and what follows from the counts. So far: refusals.
//! Pure: no pgrx, no unsafe; time is an argument. Bounded memory, constant cost per event. DESIGN §8.
#![forbid(unsafe_code)]

pub mod refusals;

pub use refusals::Refusals;
