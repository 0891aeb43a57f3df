//! The redaction room: finds provider keys in text and masks them; tells a key's provider and its hint.
//! Pure: text in, text out, no PostgreSQL, no unsafe. The shapes are data in `rules`, taken from the scanners
//! that `leak_formats.json` names; DESIGN §6 fixes the hint.
#![forbid(unsafe_code)]

mod hint;
mod in_place;
mod rule;
mod rules;
mod scan;
mod text;

pub use hint::{key_hint, provider_of};
pub use in_place::{Ends, findings_in, mask_each};
pub use scan::{Finding, contains_key, findings, prepare, redact};
pub use text::{clean, cut, is_visible};
