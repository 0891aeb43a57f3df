//! Masks keys: in a copy, with `...[REDACTED]`, or in place and of the same length, for the server log.

use std::borrow::Cow;

use super::anchors::ANCHORS;
use super::scan::{Finding, MASK, Scan};

/// How often a masked text is masked again: what comes into sight by masking is masked too, and masking twice changes
/// nothing. Two passes are the rule.
const PASSES: usize = 8;

/// Makes the tables now, once per process: for the start of the server, so that its forked backends need not.
/// Afterwards scanning allocates nothing.
pub fn prepare() -> bool {
    std::sync::LazyLock::force(&ANCHORS);
    true
}

/// Masks every key: the public prefix stays, the rest of the whole run becomes `...[REDACTED]`.
/// Masking twice changes nothing. A text without keys is not copied.
pub fn redact(text: &str) -> Cow<'_, str> {
    redact_pausing(text, &mut || ())
}

/// The same; calls `pause` every 64 kB, which may unwind: a query can then be cancelled.
pub fn redact_pausing<'t>(text: &'t str, pause: &mut dyn FnMut()) -> Cow<'t, str> {
    let Some(mut masked) = mask_once(text.as_bytes(), pause) else { return Cow::Borrowed(text) };
    for _ in 1..PASSES {
        match mask_once(&masked, pause) {
            Some(again) => masked = again,
            None => break,
        }
    }
    Cow::Owned(into_text(masked))
}

/// Keys are ASCII, so what is left is as valid as it was.
pub(super) fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes).unwrap_or_else(|bytes| String::from_utf8_lossy(bytes.as_bytes()).into_owned())
}

fn mask_once(text: &[u8], pause: &mut dyn FnMut()) -> Option<Vec<u8>> {
    let mut scan = Scan::new(false);
    let mut masked = Vec::new();
    let mut copied = 0;
    while let Some(finding) = scan.next(text, pause) {
        masked.extend_from_slice(&text[copied..finding.secret]);
        masked.extend_from_slice(MASK.as_bytes());
        copied = scan.at;
    }
    if copied == 0 {
        return None;
    }
    masked.extend_from_slice(&text[copied..]);
    Some(masked)
}

/// Tells whether a text holds a key.
pub fn contains_key(text: &str) -> bool {
    findings(text).next().is_some()
}

/// Lists the keys in a text, in order, without overlap.
pub fn findings(text: &str) -> impl Iterator<Item = Finding> + '_ {
    let mut scan = Scan::new(false);
    std::iter::from_fn(move || scan.next(text.as_bytes(), &mut || ()))
}

/// Whether the end of a text may have cut a key in two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    Whole,
    Cut,
}

/// Lists the keys in any bytes. Allocates nothing once `prepare` was called.
pub fn findings_in(text: &[u8], ends: Ends) -> impl Iterator<Item = Finding> + '_ {
    let mut scan = Scan::new(ends == Ends::Cut);
    std::iter::from_fn(move || scan.next(text, &mut || ()))
}

/// Masks keys by as many `*`, in any bytes; says of each what it is and its bytes, before they are masked, and answers how many
/// there were. Allocates nothing once `prepare` was called. In a text that was cut, what touches its end counts as a key
/// from 8 bytes on.
pub fn mask_each(text: &mut [u8], ends: Ends, found: &mut dyn FnMut(&Finding, &[u8])) -> usize {
    let mut scan = Scan::new(ends == Ends::Cut);
    let mut count = 0;
    while let Some(finding) = scan.next(text, &mut || ()) {
        found(&finding, &text[finding.start..finding.end]);
        text[finding.secret..finding.end].fill(b'*');
        count += 1;
    }
    count
}
