//! What callers give, parsed once: each text and number becomes a type that says what it is, or an
//! `Invalid` that says what is wrong. A function that takes such a type need not check again.
//! Lengths are in bytes and defined with their types; docs/reference.md lists them.
#![forbid(unsafe_code)]

mod address;
mod api_key;
mod count;
mod free_text;
mod invalid;
mod member;
mod name;
mod new_key;
mod priority;
mod provider;
mod request;
mod shown_key;
mod span;
mod text;
mod uuid;

pub use address::IpAddress;
pub use api_key::{ApiKey, KeyHint};
pub use count::{HoursBack, MaxRows};
pub use free_text::*;
pub use invalid::Invalid;
pub use member::{JwtSubject, Member, NamedCaller, RoleName};
pub use name::{KeyName, ProjectName};
pub use new_key::{GivenKey, NewKey};
pub use priority::Priority;
pub use provider::ProviderSlug;
pub use request::{ClaimedSubject, Headers};
pub use shown_key::ShownKey;
pub use span::{Back, RotationInterval};
pub use uuid::id;
