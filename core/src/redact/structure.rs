//! Keys that their structure alone reveals, and shapes that are keys only near a provider's name.
//! Hashes and ids have those shapes too.

use memchr::memmem;

use super::bytes::{self, ALNUM, BASE64, Class, DIGIT, WORD};
use super::escapes;
use super::finding::Finding;
use super::proof::{Proof, has_both_cases};
use super::rules::contexts::Shape;

/// The fewest bytes of a key that its structure alone reveals.
pub(super) const LEAST: usize = 49;

/// A key that its structure alone reveals, in the run of letters, digits, `-` and `_` at `start`.
pub(super) fn shaped(text: &[u8], start: usize, end: usize) -> Option<Finding> {
    at_equals(text, start, end, shaped_at)
}

/// Searches a run, and again behind `=3D`, as quoted-printable writes `=` (RFC 2045 §6.7).
fn at_equals<T>(
    text: &[u8],
    start: usize,
    end: usize,
    look: impl Fn(&[u8], usize, usize) -> Option<T>,
) -> Option<T> {
    let quoted_printable =
        start > 0 && text[start - 1] == b'=' && text[start..end].starts_with(b"3D");
    look(text, start, end)
        .or_else(|| if quoted_printable { look(text, start + 2, end) } else { None })
}

fn shaped_at(text: &[u8], start: usize, end: usize) -> Option<Finding> {
    let finding = |provider, kind, start, end| {
        Some(Finding { provider: Some(provider), kind, start, secret: start, end })
    };
    if end - start >= 84
        && let Some(signature) = memmem::find(&text[start..end], b"JQQJ9").map(|at| start + at)
        && signature >= start + 52
        && bytes::run_end(text, signature - 52, ALNUM) >= signature + 32
    {
        let end = escapes::run_end(text, end, BASE64);
        return finding("azure_openai", "key", signature - 52, end);
    }
    let start = first_part(text, start, end);
    // Zhipu: an id of 32 hexadecimal digits, a dot, a secret.
    if end - start == 32 && text.get(end) == Some(&b'.') && is_hex(&text[start..end], 32) {
        let secret_end = bytes::run_end(text, end + 1, ALNUM);
        let secret = &text[end + 1..secret_end];
        if secret.len() >= 16 && has_two_classes(secret) && Proof::Random.holds(secret) {
            return finding("zhipu", "key", start, bytes::run_end(text, secret_end, WORD));
        }
    }
    // fal: a UUID, a colon, 32 hexadecimal digits.
    if end - start == 36 && has_shape_of_uuid(&text[start..end]) {
        let colon = match text.get(end) {
            Some(b':') => 1,
            None | Some(b'/' | b' ') => return None,
            _ => escapes::escaped(&text[end..]).filter(|(byte, _)| *byte == b':')?.1,
        };
        let secret_end = bytes::run_end(text, end + colon, WORD);
        if is_hex(&text[end + colon..secret_end], 32) && Proof::Real.holds(&text[start..end]) {
            return finding("fal", "key", start, secret_end);
        }
    }
    None
}

/// The place of a key of this shape in the run of letters, digits, `-` and `_` at `start`.
pub(super) fn of_shape(
    text: &[u8],
    start: usize,
    end: usize,
    shape: Shape,
) -> Option<(usize, usize)> {
    at_equals(text, start, end, |text, start, end| of_shape_at(text, start, end, shape))
}

fn of_shape_at(text: &[u8], start: usize, end: usize, shape: Shape) -> Option<(usize, usize)> {
    let start = if matches!(shape, Shape::Word(_)) {
        escapes::behind_escape(text, start, end)
    } else {
        first_part(text, start, end)
    };
    match shape {
        Shape::LettersDigits(least) => part(text, start, end, |part| {
            (least..=least + 20).contains(&part.len())
                && has_both_cases(part)
                && Proof::Random.holds(part)
        }),
        Shape::LowerDigits(least) => part(text, start, end, |part| {
            let beyond = part.iter().any(|byte| (b'g'..=b'z').contains(byte));
            let lower = part.iter().all(|byte| !byte.is_ascii_uppercase())
                && part.iter().any(|byte| DIGIT.has(*byte));
            (least..=least + 20).contains(&part.len())
                && lower
                && beyond
                && Proof::Random.holds(part)
        }),
        Shape::Hex(digits) => {
            part(text, start, end, |part| part.len() == digits && is_hex(part, digits))
        }
        Shape::Uuid => {
            let last = end.checked_sub(36).filter(|last| *last >= start)?;
            let here = |at: &usize| is_uuid(&text[*at..*at + 36]);
            [start, last].into_iter().find(here).map(|at| (at, at + 36))
        }
        Shape::Word(least) => word(text, start, end, least),
        Shape::Base64(characters) => base64(text, start, characters),
        Shape::Pair(first, second) => pair(text, start, end, first, second),
    }
}

/// Where the first letter or digit stands that is no part of an escape.
fn first_part(text: &[u8], start: usize, end: usize) -> usize {
    let start = escapes::behind_escape(text, start, end);
    start + text[start..end].iter().take_while(|byte| !ALNUM.has(**byte)).count()
}

/// The first part between `-` and `_` that is a key.
fn part(
    text: &[u8],
    start: usize,
    end: usize,
    is_key: impl Fn(&[u8]) -> bool,
) -> Option<(usize, usize)> {
    let mut at = start;
    // A key is among the first eight parts of a run, or the run has none: it may be a megabyte
    // long.
    for _ in 0..8 {
        at += text[at..end].iter().take(64).position(|byte| ALNUM.has(*byte))?;
        let part_end = bytes::run_end(&text[..end.min(at + 256)], at, ALNUM);
        if is_key(&text[at..part_end]) {
            return Some((at, part_end));
        }
        at = part_end;
    }
    None
}

fn word(text: &[u8], start: usize, end: usize, least: usize) -> Option<(usize, usize)> {
    let is_key = |from: usize| {
        let word = &text[from..end];
        (least..=least + 20).contains(&word.len())
            && has_both_cases(word)
            && Proof::Random.holds(word)
    };
    // The whole run, or the part behind a name and `_` or `=`.
    let behind =
        text[start..end].iter().take(32).position(|byte| *byte == b'_').map(|at| start + at + 1);
    [Some(start), behind].into_iter().flatten().find(|from| is_key(*from)).map(|from| (from, end))
}

fn base64(text: &[u8], start: usize, characters: usize) -> Option<(usize, usize)> {
    const PLAIN: Class = ALNUM.and(BASE64);
    let from = escapes::signs_before(text, start);
    let (mut at, mut count, mut padding) = (from, 0, 0);
    while at < text.len() && count <= characters {
        let (byte, length) = if PLAIN.has(text[at]) {
            (text[at], 1)
        } else {
            escapes::escaped(&text[at..]).unwrap_or((0, 1))
        };
        if !PLAIN.has(byte) {
            break;
        }
        padding += usize::from(byte == b'=');
        count += 1;
        at += length;
    }
    let key = &text[from..at];
    let ends = text.get(at).is_none_or(|byte| !WORD.has(*byte))
        && !(text.get(at) == Some(&b'.') && text.get(at + 1).is_some_and(|byte| WORD.has(*byte)));
    (count == characters && padding <= 2 && ends && is_mixed(key) && Proof::Random.holds(key))
        .then_some((from, at))
}

/// Both cases, and signs that paths seldom have.
fn is_mixed(key: &[u8]) -> bool {
    has_both_cases(key)
        && key.iter().any(|byte| DIGIT.has(*byte) || matches!(byte, b'+' | b'=' | b'%'))
}

fn pair(
    text: &[u8],
    start: usize,
    end: usize,
    first: usize,
    second: usize,
) -> Option<(usize, usize)> {
    if text.get(end) != Some(&b'.') || end - start < first {
        return None;
    }
    let from = end - first;
    let id = &text[from..end];
    let edge = from == start || !ALNUM.has(text[from - 1]);
    let id_is = if first == 32 { is_hex(id, 32) } else { id.iter().all(|byte| ALNUM.has(*byte)) };
    let secret_end = bytes::run_end(text, end + 1, WORD);
    let secret = &text[end + 1..secret_end];
    (edge
        && id_is
        && secret.len() >= second
        && secret.len() <= second + 40
        && Proof::Random.holds(secret))
    .then_some((from, secret_end))
}

fn has_two_classes(text: &[u8]) -> bool {
    let digit = text.iter().any(|byte| DIGIT.has(*byte));
    has_both_cases(text) || digit && !text.iter().all(|byte| DIGIT.has(*byte))
}

/// Exactly so many hexadecimal digits in one case, and no placeholder. Two of them are letters,
/// while a number of JSON has at most one.
fn is_hex(text: &[u8], digits: usize) -> bool {
    let letters = text.iter().filter(|byte| byte.is_ascii_alphabetic()).count();
    text.len() == digits
        && letters >= 2
        && text.iter().all(u8::is_ascii_hexdigit)
        && !has_both_cases(text)
        && Proof::Real.holds(text)
}

fn is_uuid(text: &[u8]) -> bool {
    has_shape_of_uuid(text) && Proof::Real.holds(text)
}

fn has_shape_of_uuid(text: &[u8]) -> bool {
    let place = |(at, byte): (usize, &u8)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    text.len() == 36 && text[8] == b'-' && text.iter().enumerate().all(place)
}
