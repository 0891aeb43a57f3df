//! What is recorded of every access, how the records are chained, and what incidents are. The bytes
//! and lengths are those of docs/architecture.md, the words those of docs/reference.md.
#![forbid(unsafe_code)]

/// A list of words that tables and people know, one variant each.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum $name {
            $(#[doc = concat!("`", $word, "`")] $variant),+
        }

        impl $name {
            /// All of them, in their order.
            pub const ALL: &'static [$name] = &[$($name::$variant),+];

            /// The word that tables and people know it by.
            pub const fn word(self) -> &'static str {
                match self { $($name::$variant => $word),+ }
            }
        }
    };
}

pub mod chain;
pub mod event;
pub mod incident;
pub mod leak;
pub mod terms;

pub use chain::MacKey;
pub use event::{COLUMNS, ColumnValue, Event, Mark, TrailColumn, TrailRow};
pub use incident::kinds::{KeyVersion, Shown};
pub use incident::{Incident, IncidentType, Notice, Severity};
pub use leak::{Channel, ColumnLeak, Leak, MOST_FINGERPRINTS, Origin};
pub use terms::{AccessType, Bounded, CallerKind, Counted, FailureReason, Verdict};
