//! Finds keys in any bytes: one pass, no allocation, a bounded cost per place, so linear time. A
//! key always lies in a run of 16 bytes without a gap, or a name within 128 bytes before the run
//! makes it one. No other place is searched. Offsets are those of the text itself, at character
//! boundaries. A lower-cased copy would have other offsets.

use std::sync::LazyLock;

use memchr::memmem;

use super::anchors::{ANCHORS, Anchor};
use super::bytes::{self, WORD};
use super::finding::{Finding, MASK, MASK_END};
use super::proof::is_value;
use super::rule::{Edge, Proof, Rule, Run};
use super::rules::contexts::CONTEXTS;
use super::{escapes, named, structure};

/// How far before a long run a label or a provider's name may begin: the longest window plus the
/// name.
const LOOK_BACK: usize = 128;
/// How many bytes are scanned between two calls of `pause` (about 100 µs).
const CHUNK: usize = 1 << 16;
/// How much of a secret part is judged at each place.
const PROOF_WINDOW: usize = 40;
/// The fewest bytes of a key that the end of the text may have cut.
const CUT_LEAST: usize = 8;
/// The fewest bytes of a value behind a label.
const LEAST_VALUE: usize = 16;
/// base64 of "OpenAI". A text that begins with `sk-` and holds it is a key.
const MARKER: &[u8] = b"T3BlbkFJ";

static ADDRESS: LazyLock<memmem::Finder<'static>> = LazyLock::new(|| memmem::Finder::new(b"://"));

/// How far a text has been scanned. Each step gets the text again, so that the caller may mask it
/// in between.
///
/// ```text
/// gsk_Ab3…9x, please use api_key=4f9a77aa-0b1c2d3e.x7 from now on
///           └───────────────── zone ────────────────┘
///                        └──────── long run ────────┘
///                        └─word┘ └───── word ────┘
///           ^ done              ^ piece              ^ zone_end
/// ```
/// - zone: the bytes that are searched, up to 128 before a long run and the run itself.
/// - done: the end of the last key; no key begins before it.
/// - piece: up to here, words have been judged as keys without a prefix.
/// - word: a run of letters, digits, `-` and `_`; a key without a prefix is one or begins with one.
pub(super) struct Scanner {
    /// Whether the text may be cut within a key.
    pub cut: bool,
    pub at: usize,
    zone_end: usize,
    /// Up to here, runs have been judged as keys without a prefix.
    piece: usize,
    /// Whether the run is long enough for a key that its structure alone reveals.
    structured: bool,
    /// Where the last key ended.
    done: usize,
    /// Up to where each provider's name makes a shape a key. Offsets count in the masked text, so a
    /// second masking finds the same.
    near: [i64; CONTEXTS.len()],
    nearest: i64,
    /// The difference between an offset in the text and the same place in the masked text.
    shift: i64,
    /// The last run of letters, digits, `-` and `_`, and the next marker. They are kept so that
    /// they are not measured twice.
    word: (usize, usize),
    marker: Option<usize>,
}

impl Scanner {
    pub(super) fn new(cut: bool) -> Scanner {
        let near = [-1; CONTEXTS.len()];
        Scanner {
            cut,
            at: 0,
            zone_end: 0,
            piece: 0,
            structured: false,
            done: 0,
            near,
            nearest: -1,
            shift: 0,
            word: (0, 0),
            marker: None,
        }
    }

    /// The next key. Calls `pause` at least every 64 kB; it may unwind.
    pub(super) fn next(&mut self, text: &[u8], pause: &mut dyn FnMut()) -> Option<Finding> {
        loop {
            while self.at >= self.zone_end {
                if self.at >= text.len() {
                    return None;
                }
                pause();
                self.next_zone(text);
            }
            if let Some(finding) = self.step(text) {
                self.pass(text, &finding);
                return Some(finding);
            }
        }
    }

    /// Finds the next zone, or skips a chunk that has none.
    fn next_zone(&mut self, text: &[u8]) {
        let (from, limit) = (self.at, (self.at + CHUNK).min(text.len()));
        let run = bytes::next_long_run(text, from, limit);
        let run_end = run.map(|start| bytes::long_run_end(text, start, start + CHUNK));
        // A short password in a short address has no long run.
        let address = ADDRESS.find(&text[from..run.unwrap_or(limit)]).map(|at| from + at);
        let cut_end = if self.cut && limit == text.len() { text.len() } else { 0 };
        let start = address.or(run).unwrap_or(limit);
        self.at = from.max(start.saturating_sub(LOOK_BACK));
        self.zone_end = if address.is_some() { start + 3 } else { run_end.unwrap_or(limit) };
        // If a run continues from the last chunk, its word has been judged there.
        let begins = |start: usize| {
            if start == from && start > self.done {
                bytes::run_end(text, start, WORD)
            } else {
                start
            }
        };
        self.piece = run.map_or(self.zone_end, begins);
        self.structured =
            run.zip(run_end).is_some_and(|(start, end)| end - start >= structure::LEAST);
        if address.is_none() && run.is_none() {
            // The tail of a cut text is a zone although it is short. The step back keeps the labels
            // of the next zone.
            self.at = if cut_end > 0 { from.max(cut_end.saturating_sub(LOOK_BACK)) } else { limit };
        }
    }

    /// Looks at the next place of the zone.
    fn step(&mut self, text: &[u8]) -> Option<Finding> {
        let anchor = ANCHORS.next(text, self.at, self.zone_end);
        if let Some(finding) = self.unprefixed(text, anchor.unwrap_or(self.zone_end)) {
            return Some(finding);
        }
        let Some(place) = anchor else {
            self.at = self.zone_end;
            return None;
        };
        self.at = place + 1;
        ANCHORS.at(text, place).find_map(|anchor| self.judge(text, place, anchor))
    }

    fn judge(&mut self, text: &[u8], place: usize, anchor: Anchor) -> Option<Finding> {
        match anchor {
            Anchor::Context(index, length) => {
                if named::is_name(text, place) {
                    let end = (place + length) as i64 + self.shift;
                    self.near[index] = end + CONTEXTS[index].window as i64;
                    self.nearest = self.nearest.max(self.near[index]);
                }
                None
            }
            Anchor::Prefix(rule, length) => self.prefixed(text, place, rule, length),
            Anchor::WebToken => self.web_token(text, place),
            Anchor::Label(label) => {
                let found = named::value_of_label(text, place, label)?;
                self.value(text, found, named::end_of_value, "labelled key")
            }
            Anchor::Parameter(length) => {
                let found = named::value_of_parameter(text, place, length)?;
                self.value(text, found, named::end_of_parameter, "key in an address")
            }
            Anchor::Address(length) => {
                let (start, end) = named::password(text, place, length)?;
                Some(Finding {
                    provider: None,
                    kind: "password in an address",
                    start,
                    secret: start,
                    end,
                })
            }
        }
    }

    /// A key of this rule at this place.
    fn prefixed(
        &mut self,
        text: &[u8],
        start: usize,
        rule: &'static Rule,
        prefix: usize,
    ) -> Option<Finding> {
        if rule.edge == Edge::Left && !escapes::is_edge(text, start) {
            return None;
        }
        let secret = start + prefix + rule.label.length(&text[start + prefix..])?;
        if rule.proof == Proof::Marked && !self.is_marked(text, secret) {
            return None;
        }
        let (least, least_end) =
            escapes::count(text, secret, rule.least, |byte| rule.body.has(byte));
        let cut = self.cut && least >= CUT_LEAST && least_end == text.len();
        if least < rule.least && !cut {
            return None;
        }
        // Judge the beginning of the secret first: a refused key must not cost a whole run at each
        // place.
        let window = &text[secret..text.len().min(secret + PROOF_WINDOW)];
        let run = match rule.run {
            Run::Word => bytes::run_end(window, 0, WORD),
            run => escapes::run_end(window, 0, run.class()),
        };
        if !cut && !rule.proof.holds(&window[..run]) {
            return None;
        }
        let end = match rule.run {
            Run::Word => self.word_end(text, secret),
            run => escapes::run_end(text, secret, run.class()),
        };
        Some(Finding { provider: rule.provider, kind: rule.kind, start, secret, end })
    }

    /// A JSON web token: a header, then a payload that is JSON too, or the parts of an encrypted
    /// token (RFC 7516 §3.1).
    fn web_token(&mut self, text: &[u8], start: usize) -> Option<Finding> {
        let header = self.word_end(text, start);
        let cut = self.cut && header == text.len() && header - start > CUT_LEAST;
        if !escapes::is_edge(text, start) || header - start < 13 && !cut {
            return None;
        }
        let rest = text.get(header + 1..text.len().min(header + 161)).unwrap_or_default();
        let run = bytes::run_end(rest, 0, Run::Dotted.class());
        let json = rest.starts_with(b"eyJ") || rest.starts_with(b"eyK");
        let parts = json && run > 10 || run >= 32 && rest[..run].contains(&b'.');
        if !(cut || text.get(header) == Some(&b'.') && parts) {
            return None;
        }
        let end = escapes::run_end(text, start, Run::Dotted.class());
        Some(Finding { provider: None, kind: "JSON web token", start, secret: start + 3, end })
    }

    /// The value behind a label or a parameter. A public prefix in it stays.
    fn value(
        &mut self,
        text: &[u8],
        start: usize,
        end_of: fn(&[u8], usize) -> usize,
        kind: &'static str,
    ) -> Option<Finding> {
        let known = ANCHORS.at(text, start).find_map(|anchor| match anchor {
            Anchor::Prefix(rule, prefix) => self.prefixed(text, start, rule, prefix),
            Anchor::WebToken => self.web_token(text, start),
            _ => None,
        });
        if let Some(known) = known {
            return Some(Finding { end: known.end.max(end_of(text, start)), ..known });
        }
        // Judge the beginning of the value first: a refused value must not cost a whole run at each
        // place.
        let window = &text[..text.len().min(start + 2 * PROOF_WINDOW)];
        let end = end_of(window, start);
        let cut = self.cut && end == text.len() && end >= start + CUT_LEAST;
        if (end < start + LEAST_VALUE && !cut)
            || !is_value(&text[start..end])
            || is_masked(text, start, end)
        {
            return None;
        }
        Some(Finding { provider: None, kind, start, secret: start, end: end_of(text, start) })
    }

    /// Keys without a prefix that begin before `limit`. Either the shape says enough, or a
    /// provider's name stands before them.
    fn unprefixed(&mut self, text: &[u8], limit: usize) -> Option<Finding> {
        while self.piece < limit {
            let begins = text[self.piece..limit].iter().position(|byte| WORD.has(*byte));
            let near = self.structured || self.piece as i64 + self.shift <= self.nearest;
            let (true, Some(start)) = (near, begins.map(|at| self.piece + at)) else {
                self.piece = limit;
                return None;
            };
            let end = self.word_end(text, start);
            self.piece = end;
            let found =
                structure::shaped(text, start, end).or_else(|| self.in_context(text, start, end));
            // Signs before the key may belong to the last key.
            if let Some(finding) = found.filter(|finding| finding.start >= self.done) {
                return Some(finding);
            }
        }
        None
    }

    fn in_context(&self, text: &[u8], start: usize, end: usize) -> Option<Finding> {
        let masked = start as i64 + self.shift;
        if masked > self.nearest {
            return None;
        }
        let near = CONTEXTS.iter().zip(&self.near).filter(|(_, near)| masked <= **near);
        near.into_iter().find_map(|(context, _)| {
            let (start, end) = structure::of_shape(text, start, end, context.shape)?;
            let Finding { provider, kind, .. } = Finding {
                provider: Some(context.provider),
                kind: context.kind,
                start,
                secret: start,
                end,
            };
            (!named::is_vetoed(text, start)).then_some(Finding {
                provider,
                kind,
                start,
                secret: start,
                end,
            })
        })
    }

    /// Continues behind a key. A mask right behind it is skipped too, otherwise each masking would
    /// add one.
    fn pass(&mut self, text: &[u8], finding: &Finding) {
        let swallowed =
            if text[finding.end..].starts_with(MASK_END.as_bytes()) { MASK_END.len() } else { 0 };
        self.at = finding.end + swallowed;
        (self.piece, self.done) = (self.at, self.at);
        self.shift += (MASK.len() + finding.secret) as i64 - self.at as i64;
    }

    fn word_end(&mut self, text: &[u8], from: usize) -> usize {
        if !(self.word.0..self.word.1).contains(&from) {
            self.word = (from, bytes::run_end(text, from, WORD));
        }
        self.word.1
    }

    /// Whether OpenAI's marker stands within the run, at most 100 bytes away, with 16 bytes behind
    /// it.
    fn is_marked(&mut self, text: &[u8], secret: usize) -> bool {
        let end = self.word_end(text, secret);
        if self.marker.is_none_or(|at| at < secret) {
            self.marker =
                memmem::find(&text[secret..], MARKER).map(|at| secret + at).or(Some(usize::MAX));
        }
        self.marker
            .is_some_and(|at| at > secret && at <= secret + 100 && at + MARKER.len() + 16 <= end)
    }
}

/// Whether a value has already been masked: the mask alone, or a public prefix and the mask.
fn is_masked(text: &[u8], start: usize, end: usize) -> bool {
    let value = &text[start..end];
    let mask = memmem::find(value, MASK.as_bytes());
    let dots = value.ends_with(b"...") && text[end..].starts_with(MASK_END.as_bytes());
    let Some(length) = mask.or(dots.then(|| value.len() - 3)) else { return false };
    let public = |anchor| match anchor {
        Anchor::Prefix(rule, prefix) => {
            rule.label.length(&text[start + prefix..]).is_some_and(|more| prefix + more == length)
        }
        Anchor::WebToken => length == 3,
        _ => false,
    };
    length == 0 || ANCHORS.at(text, start).any(public)
}

#[cfg(test)]
#[path = "examples.rs"]
pub(crate) mod examples;

#[cfg(test)]
#[path = "formats.rs"]
mod formats;

#[cfg(test)]
#[path = "formats_tests.rs"]
mod formats_tests;

#[cfg(test)]
#[path = "carriers.rs"]
mod carriers;

#[cfg(test)]
#[path = "negatives.rs"]
mod negatives;

#[cfg(test)]
#[path = "corpus_tests.rs"]
mod corpus;

#[cfg(test)]
#[path = "scan_tests.rs"]
mod tests;
