//! Patterns that the server's settings add to the rules. Their automata are built beforehand, so
//! that a search allocates nothing: the log hook searches with them too. `patterns` says which are
//! refused. They match bytes: classes, `.`, `\b` and upper or lower case are those of ASCII.

use std::borrow::Cow;

use regex::bytes::RegexBuilder;
use regex_automata::dfa::{dense, regex as automaton};
use regex_automata::nfa::thompson;
use regex_automata::util::syntax;
use regex_automata::{Anchored, Input};

use super::finding::Finding;
use super::mask::{again_masked, redact_pausing};
use super::patterns::{NO_PATTERN, Refusal, check_count, check_length, check_matches, masked_at};
use super::reserve::{OutOfMemory, push};

/// Bytes of an automaton, and of the memory for building one. There are two automata.
const SIZE: usize = 1 << 20;
const BUILDING: usize = 1 << 23;
/// A text is searched in parts, so that a query can be cancelled. `BEYOND` is what is read past a
/// part, and so the longest match.
const PART: usize = 1 << 16;
const BEYOND: usize = 1 << 12;
/// What a finding of these patterns is called.
pub const EXTRA_KEY: &str = "key of an extra pattern";

/// Patterns that were accepted, all of them in one automaton.
pub struct ExtraPatterns(automaton::Regex);

impl ExtraPatterns {
    /// Builds them from a JSON list of strings. Answers None if the list or the text is empty. The
    /// refusal names the pattern by its number.
    pub fn from_json(list: &[u8]) -> Result<Option<ExtraPatterns>, (usize, Refusal)> {
        if list.trim_ascii().is_empty() {
            return Ok(None);
        }
        let no_list = Refusal {
            message: "it is no JSON list of strings",
            hint: "Write it like [\"acme-[0-9a-f]{32}\", \"corp_[A-Z0-9]{20,}\"].",
        };
        let patterns: Vec<String> = serde_json::from_slice(list).map_err(|_| (0, no_list))?;
        check_count(patterns.len()).map_err(|refusal| (0, refusal))?;
        for (number, pattern) in patterns.iter().enumerate() {
            check(pattern).map_err(|refusal| (number + 1, refusal))?;
        }
        if patterns.is_empty() {
            return Ok(None);
        }
        let too_large = Refusal {
            message: "the patterns are too large together",
            hint: "Give fewer, or with smaller repetitions.",
        };
        build(&patterns).map(|built| Some(ExtraPatterns(built))).ok_or((0, too_large))
    }

    /// Lists the matches in any bytes, in order, without overlap. Allocates nothing.
    pub fn findings<'t>(&'t self, text: &'t [u8]) -> impl Iterator<Item = Finding> + 't {
        let mut from = 0;
        std::iter::from_fn(move || {
            let (start, end) = self.next(text, from, text.len())?;
            from = end;
            Some(finding(start, end))
        })
    }

    /// Masks every match by as many `*`, in any bytes. Calls `found` with each match and its bytes
    /// before masking. Answers how many there were. Allocates nothing.
    pub fn mask_each(&self, text: &mut [u8], found: &mut dyn FnMut(&Finding, &[u8])) -> usize {
        let (mut from, mut count) = (0, 0);
        while let Some((start, end)) = self.next(text, from, text.len()) {
            found(&finding(start, end), &text[start..end]);
            text[start..end].fill(b'*');
            (from, count) = (end, count + 1);
        }
        count
    }

    /// The first match from a place on that is not empty. A pattern such as (x|\b) passes the test
    /// texts and can still match nothing.
    fn next(&self, text: &[u8], from: usize, to: usize) -> Option<(usize, usize)> {
        let mut from = from;
        while from < to {
            let input = Input::new(text).range(from..to).anchored(Anchored::No);
            let found = self.0.try_search(&input).ok().flatten()?;
            if !found.is_empty() {
                return Some((found.start(), found.end()));
            }
            from = found.end() + 1;
        }
        None
    }

    /// Where to mask a text, extended to whole characters.
    fn places(
        &self,
        text: &str,
        pause: &mut dyn FnMut(),
    ) -> Result<Vec<(usize, usize)>, OutOfMemory> {
        let (mut places, mut from) = (Vec::new(), 0);
        while from < text.len() {
            pause();
            let part = text.len().min(from + PART);
            match self.next(text.as_bytes(), from, text.len().min(part + BEYOND)) {
                Some((start, end)) if start < part => {
                    let place = (text.floor_char_boundary(start), text.ceil_char_boundary(end));
                    push(&mut places, place)?;
                    from = end;
                }
                _ => from = part,
            }
        }
        Ok(places)
    }
}

fn finding(start: usize, end: usize) -> Finding {
    Finding { provider: None, kind: EXTRA_KEY, start, secret: start, end }
}

/// Masks keys by the rules, then every match of an extra pattern, until nothing changes. A text
/// without any is not copied.
pub fn redact_with<'t>(
    text: &'t str,
    extra: Option<&ExtraPatterns>,
    pause: &mut dyn FnMut(),
) -> Result<Cow<'t, str>, OutOfMemory> {
    let mut masked = redact_pausing(text, pause)?;
    let Some(extra) = extra else { return Ok(masked) };
    for _ in 0..4 {
        let places = extra.places(&masked, pause)?;
        let Some(again) = masked_at(&masked, places)? else { break };
        masked = Cow::Owned(again_masked(again, pause)?);
    }
    Ok(masked)
}

/// The keys that the rules find in a text, and the matches of extra patterns elsewhere, in order.
pub fn all_findings(text: &str, extra: Option<&ExtraPatterns>) -> Vec<Finding> {
    first_findings(text, extra, usize::MAX)
}

/// The same, at most `most` by the rules and as many by extra patterns. A text of any length is an
/// attacker's, full of keys.
pub fn first_findings(text: &str, extra: Option<&ExtraPatterns>, most: usize) -> Vec<Finding> {
    let mut found: Vec<Finding> = super::findings(text).take(most).collect();
    let Some(extra) = extra else { return found };
    let known = found.len();
    for seen in extra.findings(text.as_bytes()).take(most) {
        // The known findings are in order and do not overlap.
        let before = found[..known].partition_point(|known| known.start < seen.end);
        if before == 0 || found[before - 1].end <= seen.start {
            found.push(finding(
                text.floor_char_boundary(seen.start),
                text.ceil_char_boundary(seen.end),
            ));
        }
    }
    found.sort_by_key(|finding| finding.start);
    found
}

fn check(pattern: &str) -> Result<(), Refusal> {
    check_length(pattern)?;
    let compiled = RegexBuilder::new(pattern)
        .unicode(false)
        .size_limit(SIZE)
        .build()
        .map_err(|_| NO_PATTERN)?;
    check_matches(|text| compiled.is_match(text.as_bytes()))
}

fn build(patterns: &[String]) -> Option<automaton::Regex> {
    let limits =
        dense::Config::new().dfa_size_limit(Some(SIZE)).determinize_size_limit(Some(BUILDING));
    automaton::Regex::builder()
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(SIZE)))
        .dense(limits)
        .build_many(patterns)
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::scan::examples::expand;

    fn patterns(list: &str) -> ExtraPatterns {
        ExtraPatterns::from_json(list.as_bytes()).ok().flatten().expect("accepted")
    }

    fn refused(list: &str) -> (usize, &'static str) {
        ExtraPatterns::from_json(list.as_bytes())
            .err()
            .map(|(number, refusal)| (number, refusal.message))
            .expect(list)
    }

    #[test]
    fn a_list_is_json_and_each_pattern_is_judged() {
        for empty in ["", " ", "[]"] {
            assert!(
                ExtraPatterns::from_json(empty.as_bytes()).is_ok_and(|patterns| patterns.is_none()),
                "{empty}"
            );
        }
        for no_list in ["acme-[0-9]+", "{}", "[1]", "[\"a\"", "\"acme\"", "[null]", "null"] {
            assert_eq!(refused(no_list).1, "it is no JSON list of strings", "{no_list}");
        }
        for pattern in ["", ".", ".*", "a*", "\\\\w+", "[a-z]", "(x|)", "[^a]", "(?s).+", "\\\\b"] {
            let list = format!("[\"acme-[0-9]+\", \"{pattern}\"]");
            assert_eq!(
                refused(&list),
                (2, "a pattern matches the empty string, or everything"),
                "{pattern}"
            );
        }
        for pattern in ["(", "a{99999}", "(?=x)", "[ä-ü]", "\\\\pL"] {
            assert_eq!(refused(&format!("[\"{pattern}\"]")).0, 1, "{pattern}");
        }
        assert_eq!(refused("[\"RED[A-Z]+\"]").1, "a pattern matches what stands in place of a key");
        assert_eq!(refused(&format!("[\"{}\"]", "a".repeat(2_001))).1, "a pattern is too long");
        assert_eq!(
            refused(&format!("[\"acme1\"{}]", ",\"acme1\"".repeat(100))).1,
            "too many patterns"
        );
        assert_eq!(refused("[\"x[a-p]*[a-h][a-p]{13}\"]").1, "the patterns are too large together");
    }

    #[test]
    fn matches_are_masked_beside_keys() {
        let patterns =
            patterns(r#"["acme-[0-9]{4,}", "(?i)customer \\d+", "schlüssel-[a-z]+", "q:..."]"#);
        let redact = |text: &str| {
            redact_with(text, Some(&patterns), &mut || ()).expect("memory").into_owned()
        };
        assert_eq!(redact("a acme-12345, Customer 77"), "a ...[REDACTED], ...[REDACTED]");
        assert_eq!(redact("ü schlüssel-abcß 東京"), "ü ...[REDACTED]ß 東京");
        assert_eq!(redact("q:東京"), "...[REDACTED]京");
        assert_eq!(redact("q:aé"), "...[REDACTED]");
        assert!(matches!(
            redact_with("nothing 東京", Some(&patterns), &mut || ()).expect("memory"),
            Cow::Borrowed(_)
        ));
        let key = expand("sk-proj-<60> acme-99999");
        assert_eq!(redact(&key), "sk-proj-...[REDACTED] ...[REDACTED]");
        assert_eq!(redact(&redact(&key)), redact(&key));
        let found = all_findings(&key, Some(&patterns));
        assert_eq!(
            found.iter().map(|finding| finding.kind).collect::<Vec<_>>(),
            ["project key", EXTRA_KEY]
        );
    }

    #[test]
    fn parts_hide_no_match_and_a_long_text_is_interrupted() {
        let patterns = patterns(r#"["acme-[0-9]{4,}"]"#);
        let mut pauses = 0;
        for shift in 0..24 {
            let text =
                format!("{}acme-123456.", "東".repeat(PART / 3 * 2 + shift) + &"x".repeat(shift));
            assert!(
                !redact_with(&text, Some(&patterns), &mut || pauses += 1)
                    .expect("memory")
                    .contains("acme"),
                "{shift}"
            );
        }
        assert!(pauses >= 24 * 2);
    }

    #[test]
    fn bytes_that_are_no_text_are_searched_too() {
        let patterns = patterns(r#"["acme-[0-9]{4,}", "(x|\\b)acme2"]"#);
        let found: Vec<_> = patterns
            .findings(b"\xff\0acme-1234\xc3 acme2")
            .map(|finding| (finding.start, finding.end))
            .collect();
        assert_eq!(found, [(2, 11), (13, 18)]);
        let (mut bytes, mut seen) = (*b"\xffacme-12345\xffacme-1", vec![]);
        let count = patterns
            .mask_each(&mut bytes, &mut |finding, key| seen.push((finding.kind, key.to_vec())));
        assert_eq!((count, bytes), (1, *b"\xff**********\xffacme-1"));
        assert_eq!(seen, [(EXTRA_KEY, b"acme-12345".to_vec())]);
    }
}
