//! The redaction room: finds provider keys in text and masks them; tells a key's provider and its
//! hint. Pure: text in, text out, no PostgreSQL, no unsafe. The shapes are data in `rules`. They
//! come from the scanners named in `core/formats/leak_formats.json`. docs/leaks.md says what is
//! masked.
#![forbid(unsafe_code)]

mod anchors;
mod bytes;
mod candidates;
mod escapes;
mod extra;
mod finding;
mod hint;
mod json;
mod mask;
mod named;
mod patterns;
mod pieces;
mod proof;
mod reserve;
mod rule;
mod rules;
mod scan;
mod structure;
mod visible;

pub use candidates::{Candidate, candidates};
pub use extra::{EXTRA_KEY, ExtraPatterns, all_findings, first_findings, redact_with};
pub use finding::{Finding, MASK};
pub use hint::{key_hint, provider_of};
pub use json::redact_json;
pub use mask::{
    Ends, contains_key, findings, findings_in, mask_each, prepare, redact, redact_pausing,
};
pub use patterns::{Patterns, Refusal};
pub use pieces::{Piece, piece};
pub use reserve::{OutOfMemory, ask, copied};
#[cfg(test)]
pub(crate) use scan::examples;
pub use visible::{is_visible, visible};
