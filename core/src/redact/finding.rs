//! A key that was found in a text, and the mask that replaces its secret part. The files that find
//! keys and the files that mask them share both.

/// This replaces the secret part.
pub const MASK: &str = "...[REDACTED]";
/// The end of a mask, whatever public prefix stands before it.
pub(super) const MASK_END: &str = "[REDACTED]";

/// A key found in a text; offsets in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The slug of the provider, if only one has this shape.
    pub provider: Option<&'static str>,
    /// What kind of key it is.
    pub kind: &'static str,
    /// Where the key begins, with its public prefix.
    pub start: usize,
    /// Where its secret part begins. Without a public prefix this is `start`.
    pub secret: usize,
    /// Where it ends.
    pub end: usize,
}
