//! Patterns that people add to the built-in rules: regular expressions whose every match is masked.
//! A pattern is refused if it matches everything, nothing, or the text that replaces a key. These
//! regular expressions take linear time.

use std::borrow::Cow;

use regex::{Regex, RegexBuilder};

use super::finding::{MASK, MASK_END};
use super::mask::{self, into_text};
use super::reserve::{OutOfMemory, append, push};

/// Why a pattern is refused, and what to do. Neither text holds the pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong with the pattern.
    pub message: &'static str,
    /// What to write instead.
    pub hint: &'static str,
}

const MOST_PATTERNS: usize = 100;
const LONGEST: usize = 2_000;
/// The most bytes of a compiled pattern. This bounds the time that one byte of text takes.
const SIZE: usize = 1 << 18;
/// A text is matched in parts, so that a query can be cancelled. `BEYOND` is what is read past a
/// part, and so the longest match.
const PART: usize = 1 << 16;
const BEYOND: usize = 1 << 12;

/// Ordinary texts. A pattern that matches all of these, or a single byte, matches everything.
const ORDINARY: [&str; 6] = [
    "The quick brown fox jumps over the lazy dog.",
    "2026-01-31 12:34:56.789 UTC [4242] LOG:  duration: 0.123 ms",
    "EXPLAIN SELECT id, name FROM projects WHERE owner_id = $1",
    "https://example.com/path/to/page.html",
    "0123456789 0123456789 0123456789",
    "größe 東京 строка",
];

/// Patterns that were compiled and accepted.
pub struct Patterns(Vec<Regex>);

impl Patterns {
    /// Compiles patterns in the syntax of Rust's regex crate.
    pub fn new<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<Patterns, Refusal> {
        let compiled: Vec<Regex> = patterns.into_iter().map(compile).collect::<Result<_, _>>()?;
        check_count(compiled.len())?;
        Ok(Patterns(compiled))
    }

    /// Refuses too many patterns, and too long ones, before they are copied.
    pub fn check<'p>(
        count: usize,
        patterns: impl IntoIterator<Item = &'p str>,
    ) -> Result<(), Refusal> {
        check_count(count)?;
        patterns.into_iter().try_for_each(check_length)
    }

    /// Masks keys by the built-in rules, then every match of a pattern, until nothing changes.
    pub fn redact<'t>(
        &self,
        text: &'t str,
        pause: &mut dyn FnMut(),
    ) -> Result<Cow<'t, str>, OutOfMemory> {
        let mut masked = mask::redact_pausing(text, pause)?;
        for _ in 0..4 {
            let Some(again) = self.once(&masked, pause)? else { break };
            masked = Cow::Owned(mask::again_masked(again, pause)?);
        }
        Ok(masked)
    }

    fn once(&self, text: &str, pause: &mut dyn FnMut()) -> Result<Option<String>, OutOfMemory> {
        let mut found = Vec::new();
        for pattern in &self.0 {
            matches(pattern, text, &mut found, pause)?;
        }
        found.sort_unstable();
        masked_at(text, found)
    }
}

/// Masks the text at these places, which are in order of their beginning. None: there are none.
pub(super) fn masked_at(
    text: &str,
    places: impl IntoIterator<Item = (usize, usize)>,
) -> Result<Option<String>, OutOfMemory> {
    let (mut masked, mut copied) = (Vec::new(), None);
    for (start, end) in places {
        let from = copied.unwrap_or(0);
        if copied.is_none() || start >= from {
            append(&mut masked, &text.as_bytes()[from..start])?;
            append(&mut masked, MASK.as_bytes())?;
        }
        copied = Some(from.max(end));
    }
    let Some(copied) = copied else { return Ok(None) };
    append(&mut masked, &text.as_bytes()[copied..])?;
    Ok(Some(into_text(masked)))
}

/// Adds where a pattern matches.
fn matches(
    pattern: &Regex,
    text: &str,
    found: &mut Vec<(usize, usize)>,
    pause: &mut dyn FnMut(),
) -> Result<(), OutOfMemory> {
    let mut from = 0;
    while from < text.len() {
        pause();
        let part = text.floor_char_boundary(from + PART).max(from);
        let part = if part == from { text.ceil_char_boundary(from + 1) } else { part };
        let read = &text[..text.floor_char_boundary(part + BEYOND)];
        match pattern.find_at(read, from) {
            Some(hit) if hit.start() < part && !hit.is_empty() => {
                push(found, (hit.start(), hit.end()))?;
                from = hit.end();
            }
            // An empty match hides nothing. A pattern such as (x|\b) passes the test texts and can
            // still match nothing.
            Some(hit) if hit.start() < part => from = text.ceil_char_boundary(hit.end() + 1),
            _ => from = part,
        }
    }
    Ok(())
}

fn compile(pattern: &str) -> Result<Regex, Refusal> {
    check_length(pattern)?;
    let compiled = RegexBuilder::new(pattern).size_limit(SIZE).dfa_size_limit(SIZE * 4).build();
    let compiled = compiled.map_err(|_| NO_PATTERN)?;
    check_matches(|text| compiled.is_match(text))?;
    Ok(compiled)
}

pub(super) const NO_PATTERN: Refusal = Refusal {
    message: "a pattern is no regular expression, or too large a one",
    hint: "Write it in the syntax of Rust's regex crate, without look-around and back-references.",
};

pub(super) fn check_count(count: usize) -> Result<(), Refusal> {
    if count <= MOST_PATTERNS {
        return Ok(());
    }
    Err(Refusal { message: "too many patterns", hint: "Give at most 100 patterns." })
}

pub(super) fn check_length(pattern: &str) -> Result<(), Refusal> {
    if pattern.len() <= LONGEST {
        return Ok(());
    }
    Err(Refusal { message: "a pattern is too long", hint: "Give patterns of at most 2000 bytes." })
}

/// Refuses a pattern that matches what it must not.
pub(super) fn check_matches(is_match: impl Fn(&str) -> bool) -> Result<(), Refusal> {
    let one_byte = |byte: u8| is_match(char::from(byte).encode_utf8(&mut [0; 4]));
    if is_match("") || (b' '..0x7f).any(one_byte) || ORDINARY.iter().all(|text| is_match(text)) {
        return Err(Refusal {
            message: "a pattern matches the empty string, or everything",
            hint: "Begin it with the fixed text that such keys begin with.",
        });
    }
    if is_match(MASK) || is_match(MASK_END) {
        return Err(Refusal {
            message: "a pattern matches what stands in place of a key",
            hint: "Leave ...[REDACTED] out of it, or masking would never end.",
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(pattern: &str) -> bool {
        Patterns::new([pattern]).is_err()
    }

    #[test]
    fn what_matches_everything_or_nothing_is_refused() {
        for pattern in [
            "",
            ".",
            ".*",
            ".+",
            "a*",
            "x?",
            "[a-z]",
            "\\w+",
            "\\S+",
            "[\\s\\S]{3,}",
            ".{8,}",
            "^",
            "$",
            "\\b",
            "(",
            "a{99999}",
            "(?=x)",
            "\\[REDACTED\\]",
            "RED[A-Z]+",
            "\\.{3}",
            "(?i)red",
            "\\PC{5}",
        ] {
            assert!(refused(pattern), "{pattern}");
        }
        assert!(refused(&"a".repeat(2_001)));
        assert!(Patterns::new(["acme-[0-9]+"; 101]).is_err());
    }

    #[test]
    fn a_refusal_does_not_tell_the_pattern() {
        let refusal = Patterns::new(["sk-proj-secretsecret("]).err().expect("refused");
        assert!(!format!("{refusal:?}").contains("secret"));
    }

    #[test]
    fn matches_are_masked_beside_keys() {
        let patterns = Patterns::new(["acme-[0-9]{4,}", "(?i)customer \\d+"]).expect("accepted");
        let redact = |text: &str| patterns.redact(text, &mut || ()).expect("memory").into_owned();
        assert_eq!(redact("a acme-12345, Customer 77"), "a ...[REDACTED], ...[REDACTED]");
        assert_eq!(redact("nothing 東京"), "nothing 東京");
        assert_eq!(redact(&redact("x acme-1234 y")), redact("x acme-1234 y"));
        let long = format!("{}acme-123456{}", "東".repeat(40_000), "京".repeat(40_000));
        assert!(redact(&long).contains("東...[REDACTED]京"));
        let key = crate::redact::scan::examples::expand("sk-proj-<60> acme-99999");
        assert_eq!(redact(&key), "sk-proj-...[REDACTED] ...[REDACTED]");
    }

    #[test]
    fn parts_do_not_hide_a_match() {
        let patterns = Patterns::new(["acme-[0-9]{4,}"]).expect("accepted");
        for shift in 0..24 {
            let text = format!("{}acme-123456.", "x".repeat(PART - shift));
            let masked = patterns.redact(&text, &mut || ()).expect("memory");
            assert!(!masked.contains("acme"), "{shift}");
        }
    }
}
