//! Finds keys in text and masks them. One pass looks for the starts of all rules at once; only there are the
//! shapes tried, at a bounded cost per place, and a key is skipped whole: linear in the text, whatever it holds.
//! Byte offsets are always those of the text itself (a lower-cased copy has others), at character boundaries.

use std::borrow::Cow;
use std::sync::LazyLock;

use regex::{Regex, RegexSet};

use super::rule::{Edge, Rule};
use super::rules::RULES;

/// What stands in place of the secret part.
pub const MASK: &str = "...[REDACTED]";
const MASK_END: &str = "[REDACTED]";
/// How many bytes after a key's shape a proof looks at.
const PROOF_WINDOW: usize = 256;

/// A key found in a text; offsets in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Finding {
    /// The slug of the provider, where the shape is one provider's alone.
    pub provider: Option<&'static str>,
    /// What kind of key it is.
    pub kind: &'static str,
    /// Where the key begins, with its public prefix.
    pub start: usize,
    /// Where its secret part begins.
    pub secret: usize,
    /// Where it ends.
    pub end: usize,
}

struct Scanner {
    starts: Regex,
    shapes: RegexSet,
    each: Vec<Regex>,
}

/// None only if a rule is no regular expression, which the tests exclude; then everything is masked.
static SCANNER: LazyLock<Option<Scanner>> = LazyLock::new(|| {
    let starts = RULES.iter().map(|rule| rule.start).collect::<Vec<_>>().join("|");
    let shapes: Vec<String> = RULES.iter().map(|rule| format!("^(?:{})", rule.shape)).collect();
    Some(Scanner {
        starts: Regex::new(&starts).ok()?,
        shapes: RegexSet::new(&shapes).ok()?,
        each: shapes.iter().map(|shape| Regex::new(shape)).collect::<Result<_, _>>().ok()?,
    })
});

/// Compiles the rules now, once per process, and tells whether they compiled: for the start of the server,
/// so that its forked backends need not.
pub fn prepare() -> bool {
    SCANNER.is_some()
}

/// Masks every key: the public prefix stays, the rest of the whole run becomes `...[REDACTED]`.
/// Masking twice changes nothing. A text without keys is not copied.
pub fn redact(text: &str) -> Cow<'_, str> {
    if !prepare() {
        return Cow::Borrowed(MASK);
    }
    let mut masked = String::new();
    let mut copied = 0;
    for finding in findings(text) {
        masked.push_str(&text[copied..finding.secret]);
        masked.push_str(MASK);
        // A key beside a mask that was there before swallows it, or each masking would add another.
        let rest = &text[finding.end..];
        copied = text.len() - rest.strip_prefix(MASK_END).unwrap_or(rest).len();
    }
    if copied == 0 {
        return Cow::Borrowed(text);
    }
    masked.push_str(&text[copied..]);
    Cow::Owned(masked)
}

/// Tells whether a text holds a key.
pub fn contains_key(text: &str) -> bool {
    !prepare() || findings(text).next().is_some()
}

/// Lists the keys in a text, in order, without overlap.
pub fn findings(text: &str) -> impl Iterator<Item = Finding> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        let scanner = SCANNER.as_ref()?;
        while let Some(start) = scanner.starts.find_at(text, from).map(|found| found.start()) {
            if let Some(finding) = scanner.at(text, start) {
                from = finding.end;
                return Some(finding);
            }
            // Every start is ASCII, so the next byte is the next character.
            from = start + 1;
        }
        from = text.len();
        None
    })
}

impl Scanner {
    /// Judges one place: the first rule that holds there.
    fn at(&self, text: &str, start: usize) -> Option<Finding> {
        let rest = &text[start..];
        self.shapes.matches(rest).iter().find_map(|index| {
            let rule = &RULES[index];
            let shape = self.each[index].captures(rest)?;
            let (whole, prefix) = (shape.get(0)?.end(), shape.get(1)?.end());
            if !edges_hold(rule, text, start, start + whole) {
                return None;
            }
            let run =
                |most: usize| rest.bytes().skip(whole).take(most).take_while(|byte| rule.run.continues(*byte)).count();
            // The proof before the whole run: a refused one is read again from the next start within it.
            if !rule.proof.holds(&rest[prefix..whole + run(PROOF_WINDOW)]) {
                return None;
            }
            Some(Finding {
                provider: rule.provider,
                kind: rule.kind,
                start,
                secret: start + prefix,
                end: start + whole + run(usize::MAX),
            })
        })
    }
}

/// Tells whether the characters beside a shape leave it a word of its own, where its rule asks for that.
/// Bytes over 127 belong to no key, so they are edges.
fn edges_hold(rule: &Rule, text: &str, start: usize, end: usize) -> bool {
    let word = |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let left = start.checked_sub(1).and_then(|before| text.as_bytes().get(before));
    let right = text.as_bytes().get(end);
    match rule.edge {
        Edge::Any => true,
        Edge::Left => !word(left),
        Edge::Both => !word(left) && !word(right),
    }
}

#[cfg(test)]
#[path = "examples.rs"]
pub(super) mod examples;

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
