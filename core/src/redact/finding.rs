//! A key that was found in a text, and the mask that takes the place of its secret part. What finds
//! keys and what masks them both speak of it.

/// What stands in place of the secret part.
pub const MASK: &str = "...[REDACTED]";
/// How a mask ends, whatever public prefix stands before it.
pub(super) const MASK_END: &str = "[REDACTED]";

/// A key found in a text; offsets in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The slug of the provider, where the shape is one provider's alone.
    pub provider: Option<&'static str>,
    /// What kind of key it is.
    pub kind: &'static str,
    /// Where the key begins, with its public prefix.
    pub start: usize,
    /// Where its secret part begins; with no public prefix, at its start.
    pub secret: usize,
    /// Where it ends.
    pub end: usize,
}
