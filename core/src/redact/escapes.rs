//! How other formats write a character: JSON and C escapes, percent-encoding, HTML entities,
//! terminal colours. A key may begin right after an escape and may hold `+ / =` as escapes. Several
//! escapes may stand between a label and its key.

use super::bytes::{ALNUM, Class, DIGIT};

fn is_hex(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_hexdigit)
}

fn code(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits).ok()?;
    u8::from_str_radix(digits, 16).ok().filter(u8::is_ascii)
}

/// Reads one escaped ASCII character at the beginning of `text`. Answers the character and how many
/// bytes the escape takes. Backslashes may be doubled any number of times, as in JSON within JSON.
/// `%` may be `%25`.
pub(super) fn escaped(text: &[u8]) -> Option<(u8, usize)> {
    match text.first()? {
        b'%' => {
            let from = if text.starts_with(b"%25") { 3 } else { 1 };
            Some((code(text.get(from..from + 2)?)?, from + 2))
        }
        b'\\' => {
            let from = text.iter().take(16).take_while(|byte| **byte == b'\\').count();
            match text.get(from)? {
                b'u' => Some((code(text.get(from + 1..from + 5)?)?, from + 5)),
                b'x' => Some((code(text.get(from + 1..from + 3)?)?, from + 3)),
                b'n' | b'r' | b't' => Some((b' ', from + 1)),
                byte @ (b'"' | b'\'' | b'/' | b'=' | b'+') => Some((*byte, from + 1)),
                _ => None,
            }
        }
        b'&' => entity(text),
        _ => None,
    }
}

fn entity(text: &[u8]) -> Option<(u8, usize)> {
    let end = text.iter().take(10).position(|byte| *byte == b';')?;
    let character = match &text[1..end] {
        b"quot" => b'"',
        b"apos" => b'\'',
        b"equals" => b'=',
        b"colon" => b':',
        b"sol" => b'/',
        b"plus" => b'+',
        b"amp" => b'&',
        b"gt" => b'>',
        b"lt" => b'<',
        b"nbsp" => b' ',
        [b'#', b'x' | b'X', digits @ ..] => code(digits)?,
        [b'#', digits @ ..] => {
            std::str::from_utf8(digits).ok()?.parse().ok().filter(u8::is_ascii)?
        }
        _ => return None,
    };
    Some((character, end + 1))
}

/// The end of the run of this class from `from` on. Its characters other than letters and digits
/// may be escaped.
pub(super) fn run_end(text: &[u8], from: usize, class: Class) -> usize {
    let mut at = super::bytes::run_end(text, from, class);
    while let Some((byte, length)) = escaped(&text[at..]) {
        if !class.has(byte) || ALNUM.has(byte) {
            break;
        }
        at = super::bytes::run_end(text, at + length, class);
    }
    at
}

/// Counts characters that `has` accepts, up to `most`. Those other than letters and digits may be
/// escaped. Answers how many there are, and where they end.
pub(super) fn count(
    text: &[u8],
    from: usize,
    most: usize,
    has: impl Fn(u8) -> bool,
) -> (usize, usize) {
    let plain = text[from..].iter().take(most).take_while(|byte| has(**byte)).count();
    let (mut at, mut count) = (from + plain, plain);
    while count < most && at < text.len() {
        let (byte, length) =
            if has(text[at]) { (text[at], 1) } else { escaped(&text[at..]).unwrap_or((0, 1)) };
        if !has(byte) || length > 1 && ALNUM.has(byte) {
            break;
        }
        at += length;
        count += 1;
    }
    (count, at)
}

/// Whether a word of its own begins at `at`: no letter or digit stands before it, unless that ends
/// an escape. Bytes over 127 and `_` are edges too.
#[inline]
pub(super) fn is_edge(text: &[u8], at: usize) -> bool {
    at == 0 || !ALNUM.has(text[at - 1]) || ends_escape(&text[at.saturating_sub(12)..at])
}

/// Whether `before` ends in an escape sequence: `\n`, `\u003d`, `\x3d`, `\075`, `%3D`, `=3D`
/// (quoted-printable), `ESC[1m`.
fn ends_escape(before: &[u8]) -> bool {
    match before {
        [.., b'\\', _] => true,
        [.., b'u' | b'U', a, b, c, d] if is_hex(&[*a, *b, *c, *d]) => true,
        [.., b'%' | b'\\', b'2', b'5', high, low] => is_hex(&[*high, *low]),
        [.., b'\\', a, b, c] if is_octal(&[*a, *b, *c]) => true,
        [.., b'u', b'0', b'0', high, low] => is_hex(&[*high, *low]),
        [.., b'\\', b'x' | b'X', high, low] => is_hex(&[*high, *low]),
        [.., b'%', high, low] => is_hex(&[*high, *low]),
        [.., b'=', b'3', b'D' | b'd'] => true,
        [colour @ .., b'm' | b'K' | b'H' | b'J'] => {
            let digits = |byte: &u8| DIGIT.has(*byte) || *byte == b';';
            let from = colour.iter().rposition(|byte| !digits(byte));
            from.is_some_and(|at| colour[at] == b'[')
        }
        _ => false,
    }
}

fn is_octal(digits: &[u8]) -> bool {
    digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
}

/// Where the first word really begins in a run of letters and digits at `start`. The rest of an
/// escape, colour or percent code before it is skipped.
pub(super) fn behind_escape(text: &[u8], start: usize, end: usize) -> usize {
    let rest = &text[start..end];
    let hex = |from: usize, count: usize| rest.get(from..from + count).is_some_and(is_hex);
    let length = match (start.checked_sub(1).map(|before| text[before]), rest) {
        (Some(b'\\'), [b'u' | b'U', ..]) if hex(1, 4) => 5,
        (Some(b'\\'), [b'x' | b'X', ..]) if hex(1, 2) => 3,
        (Some(b'\\'), [a, b, c, ..]) if is_octal(&[*a, *b, *c]) => 3,
        (Some(b'\\'), [_, ..]) => 1,
        (Some(b'%'), [b'2', b'5', ..]) if hex(2, 2) => 4,
        (Some(b'%'), _) if hex(0, 2) => 2,
        // `ESC[31m` and `\u001b[1;31m` are colours; `[1` alone is the first element of an array.
        (Some(b'[' | b';'), _)
            if start > 1 && (ALNUM.has(text[start - 2]) || text[start - 2] == 0x1b) =>
        {
            let digits = rest.iter().take(3).take_while(|byte| DIGIT.has(**byte)).count();
            let opens = text[start - 1] == b'[' || DIGIT.has(text[start - 2]);
            if opens && digits > 0 && rest.get(digits) == Some(&b'm') { digits + 1 } else { 0 }
        }
        _ => 0,
    };
    start + length
}

/// Where the signs of base64 that end at `end` begin, plain or escaped. An escape is taken whole,
/// since half an escape would break JSON.
pub(super) fn signs_before(text: &[u8], end: usize) -> usize {
    let mut at = end;
    // A key seldom begins with more than eight of them.
    for _ in 0..8 {
        let before = &text[at.saturating_sub(6)..at];
        at -= match before {
            [.., b'+' | b'/'] => {
                1 + before.iter().rev().skip(1).take_while(|byte| **byte == b'\\').count()
            }
            [.., b'%', b'2', b'B' | b'b' | b'F' | b'f'] => 3,
            [b'\\', b'u', b'0', b'0', b'2', b'B' | b'b' | b'F' | b'f'] => 6,
            _ => return at,
        };
        at -= text[..at].iter().rev().take(64).take_while(|byte| **byte == b'\\').count();
    }
    at
}

/// The most bytes between a label and its value.
const GLUE: usize = 96;
/// Words that may stand between a label and its value: "Incorrect API key provided: …", `{"name":
/// "api_key", "value": "…"}`.
const BETWEEN: [&[u8]; 6] = [b"value", b"provided", b"header", b"is", b"was", b"string"];

/// Skips what separates a label from its value: blanks, quotes, signs, escapes, tags, colours.
/// Answers where the value may begin.
pub(super) fn skip_glue(text: &[u8], from: usize) -> usize {
    let (mut at, limit) = (from, text.len().min(from + GLUE));
    while at < limit {
        let rest = &text[at..limit];
        let length = match rest[0] {
            b' ' | b'\t' | b'\r' | b'\n' | b'"' | b'\'' | b'`' | b':' | b'=' | b',' | b'|'
            | b'(' | b'[' | b'{' | b'*' | b'>' | b')' | b'!' | b'?' => 1,
            b'-' if matches!(rest.get(1), Some(b'>' | b' ')) => 1,
            b'<' => rest.iter().take(40).position(|byte| *byte == b'>').map_or(0, |end| end + 1),
            0x1b => colour(rest, 1),
            b'\\' | b'%' | b'&' => escape_in_glue(rest),
            0xe2 if matches!(rest, [_, 0x80, 0x98..=0x9f, ..]) => 3,
            0xef if matches!(rest, [_, 0xbc, 0x9a, ..]) => 3,
            _ => between(text, at, from),
        };
        if length == 0 {
            break;
        }
        at += length;
    }
    at
}

fn escape_in_glue(rest: &[u8]) -> usize {
    match escaped(rest) {
        Some((0x1b, length)) => colour(rest, length),
        Some((byte, length))
            if !ALNUM.has(byte) && !matches!(byte, b'/' | b'+' | b'-' | b'_' | b'.') =>
        {
            length
        }
        Some(_) => 0,
        None => match rest {
            [b'\\', b'e' | b'0', ..] if rest.contains(&b'[') => {
                rest.iter().take(5).position(|byte| *byte == b'[').map_or(0, |at| colour(rest, at))
            }
            [b'\\', ..] => 1,
            _ => 0,
        },
    }
}

/// The length of a terminal colour whose `[` stands at `bracket`.
fn colour(rest: &[u8], bracket: usize) -> usize {
    let Some(b'[') = rest.get(bracket) else { return bracket.min(1) };
    let codes =
        rest[bracket + 1..].iter().take_while(|byte| DIGIT.has(**byte) || **byte == b';').count();
    if rest.get(bracket + 1 + codes) == Some(&b'm') { bracket + codes + 2 } else { 0 }
}

fn between(text: &[u8], at: usize, from: usize) -> usize {
    let rest = &text[at..];
    let ends = |length: usize| {
        rest.get(length).is_none_or(|byte| !ALNUM.has(*byte) && *byte != b'_' && *byte != b'-')
    };
    let is = |word: &&&[u8]| {
        rest.len() >= word.len()
            && rest[..word.len()].eq_ignore_ascii_case(word)
            && ends(word.len())
    };
    if at == from { 0 } else { BETWEEN.iter().find(is).map_or(0, |word| word.len()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::bytes::BEARER;

    #[test]
    fn a_word_begins_behind_an_escape() {
        for before in [
            "",
            " ",
            "\"",
            "_",
            "=",
            "日",
            "\\n",
            "\\\\n",
            "\\t",
            "\\u003d",
            "\\\\u0022",
            "\\x3d",
            "\\075",
            "%3D",
            "%253D",
            "=3D",
            "\u{1b}[0m",
            "\u{1b}[1;31m",
            "\\u001b[31m",
            "&quot;",
            "u003d",
            "”",
        ] {
            let text = format!("a {before}key");
            assert!(is_edge(text.as_bytes(), text.len() - 3), "{before}");
        }
        for before in ["a", "ri", "x3d", "0", "3D", "m"] {
            let text = format!("a {before}key");
            assert!(!is_edge(text.as_bytes(), text.len() - 3), "{before}");
        }
    }

    #[test]
    fn the_rest_of_an_escape_is_no_part_of_a_word() {
        for (text, start, word) in [
            ("\\nabc", 1, 2),
            ("\\u003dabc", 1, 6),
            ("%3Dabc", 1, 3),
            ("%253Dabc", 1, 5),
            ("\u{1b}[31mabc", 2, 5),
            ("=abcd", 1, 1),
            ("abcd", 0, 0),
        ] {
            assert_eq!(behind_escape(text.as_bytes(), start, text.len()), word, "{text}");
        }
    }

    #[test]
    fn base64_goes_on_over_escapes() {
        for text in [
            "ab+c/d=",
            "ab%2Bc%2Fd%3D",
            "ab\\u002Bc\\/d\\u003d",
            "ab\\\\/c",
            "ab&#x2F;c&#61;",
            "ab%252Bc",
        ] {
            assert_eq!(run_end(text.as_bytes(), 0, BEARER), text.len(), "{text}");
            assert_eq!(run_end(format!("{text}\\n\"").as_bytes(), 0, BEARER), text.len(), "{text}");
        }
    }

    #[test]
    fn glue_ends_where_the_value_begins() {
        for glue in [
            "=",
            ": ",
            "\": \"",
            "\\\":\\\"",
            "\\\\\\\":\\\\\\\"",
            "%22%3A%22",
            "&quot;: &quot;",
            " => '",
            "\",\"value\":\"",
            "</name><value>",
            "\u{1b}[0m=\u{1b}[32m",
            "\\u001b[0m\\u003d",
            " provided: ",
            "` | `",
            " := \"",
            "：",
            ":\n  - ",
        ] {
            let text = format!("{glue}Zk3");
            assert_eq!(skip_glue(text.as_bytes(), 0), glue.len(), "{glue:?}");
        }
    }
}
