//! Names that stand beside a key and reveal it: labels, parameters of addresses, `user:password@`,
//! providers' names. Also names that say that a text is only a hash or an id.

use super::bytes::{
    self, ALNUM, BASE64, BEARER, DIGIT, DOT, LETTER, LOWER, PERCENT, UNDERSCORE, UPPER, WORD,
};
use super::escapes;
use super::rules::contexts::{KEYS, NOT_KEYS};
use super::rules::labels::{KeyLabel, SCHEMES, SUFFIXES};

/// How far before a key its nearest name is searched.
const BEFORE: usize = 40;

fn begins(text: &[u8], word: &str) -> bool {
    let first = text.first().map(|byte| byte | 0x20);
    first == word.bytes().next().map(|byte| byte | 0x20)
        && text.get(..word.len()).is_some_and(|text| text.eq_ignore_ascii_case(word.as_bytes()))
}

/// Whether a provider's name begins here and not within another word ("aws" in "draws").
pub(super) fn is_name(text: &[u8], at: usize) -> bool {
    at == 0
        || !LETTER.has(text[at - 1])
        || LOWER.has(text[at - 1]) && UPPER.has(text[at])
        || escapes::is_edge(text, at)
}

/// Where the value of the label at this place begins.
pub(super) fn value_of_label(text: &[u8], place: usize, label: &KeyLabel) -> Option<usize> {
    let name_end = label_end(text, place, label)?;
    // Forms write a blank as `+`: "Bearer+…".
    let plus = match text.get(name_end) {
        Some(b'+') => 1,
        _ => escapes::escaped(&text[name_end..])
            .filter(|(byte, _)| *byte == b'+')
            .map_or(0, |(_, length)| length),
    };
    let plus = if label.words == ["bearer"] { plus } else { 0 };
    let from = escapes::skip_glue(text, name_end + plus);
    if from == name_end {
        return None;
    }
    // "Authorization: Bearer …", "Token token=…"
    let mut start = from;
    for _ in 0..2 {
        let scheme = SCHEMES
            .iter()
            .find(|scheme| begins(&text[start..], scheme))
            .map_or(0, |scheme| scheme.len());
        let behind = escapes::skip_glue(text, start + scheme);
        let plus = scheme > 0 && text.get(start + scheme) == Some(&b'+');
        if scheme > 0 && (behind > start + scheme || plus) {
            start = behind + usize::from(plus);
        }
    }
    // A value may begin with `=` if a quote or another `=` stands before it.
    while start > name_end + 1
        && text[start - 1] == b'='
        && matches!(text[start - 2], b'"' | b'\'' | b'=' | b'`')
    {
        start -= 1;
    }
    let says = |byte: &u8| {
        matches!(byte, b':' | b'=' | b'>' | b'|' | b'"' | b'\'' | b'`' | b'%' | b'\\' | b'&')
    };
    let strong = text[name_end..start].iter().any(says) || start > from || label.words.len() == 1;
    // "no api key, request_id=…": the value belongs to another name.
    let name = bytes::run_end(text, start, LETTER.and(UNDERSCORE));
    if !strong && name > start + 2 && text.get(name) == Some(&b'=') {
        return None;
    }
    Some(start)
}

/// Where a value behind a label ends. `user:secret` is one value; the full stop of a sentence is
/// not part of it.
pub(super) fn end_of_value(text: &[u8], start: usize) -> usize {
    let mut end = escapes::run_end(text, start, BEARER);
    if let Some(b':') = text.get(end) {
        let more = escapes::run_end(text, end + 1, WORD.and(BASE64));
        end = if more - end > 16 { more } else { end };
    }
    while end > start && text[end - 1] == b'.' && !text[end..].starts_with(b"[REDACTED]") {
        end -= 1;
    }
    end
}

/// Where the name of a label ends, with what may follow it.
fn label_end(text: &[u8], place: usize, label: &KeyLabel) -> Option<usize> {
    let mut at = place + label.words[0].len();
    match label.words {
        [_, second] => {
            let joined = matches!(text.get(at), Some(b'_' | b'-' | b'.' | b' '));
            at += usize::from(joined);
            begins(&text[at..], second).then_some(())?;
            at += second.len();
        }
        _ => (place == 0 || !LETTER.has(text[place - 1]) || escapes::is_edge(text, place))
            .then_some(())?,
    }
    let suffix = SUFFIXES
        .iter()
        .filter(|suffix| begins(&text[at..], suffix))
        .map(|suffix| suffix.len())
        .max();
    at += suffix.unwrap_or(0);
    let number = bytes::run_end(
        &text[..text.len().min(at + 3)],
        at + usize::from(text.get(at) == Some(&b'_')),
        DIGIT,
    );
    at = if number > at + 1 || number > at && DIGIT.has(text[at]) { number } else { at };
    (!text.get(at).is_some_and(|byte| WORD.has(*byte))).then_some(at)
}

/// Where the value of an address's parameter begins. The parameter's name stands at this place.
pub(super) fn value_of_parameter(text: &[u8], place: usize, length: usize) -> Option<usize> {
    let before = &text[place.saturating_sub(8)..place];
    let opens = before.ends_with(b"?") || before.ends_with(b"&") || before.ends_with(b";");
    let escaped = [&b"%3f"[..], b"%26", b"u0026", b"u003f", b"%253f", b"%2526", b"x26", b"%3b"];
    let ends = |code: &&[u8]| {
        before.len() >= code.len() && before[before.len() - code.len()..].eq_ignore_ascii_case(code)
    };
    if !opens && !escaped.iter().any(ends) {
        return None;
    }
    let start = place + length;
    match text.get(start) {
        Some(b'=') => Some(start + 1),
        _ => escapes::escaped(&text[start..])
            .filter(|(byte, _)| *byte == b'=')
            .map(|(_, length)| start + length),
    }
}

/// Where the value of a parameter ends: at the next one, or with the address.
pub(super) fn end_of_parameter(text: &[u8], start: usize) -> usize {
    let stops = |byte: &u8| {
        !(0x21..0x7f).contains(byte)
            || matches!(byte, b'&' | b'"' | b'\'' | b'<' | b'>' | b'\\' | b'`')
    };
    let run = |from: usize| {
        text[from..].iter().position(stops).map_or(text.len(), |length| from + length)
    };
    let mut end = run(start);
    while let Some((b'+' | b'/' | b'=' | b'%', length)) = escapes::escaped(&text[end..]) {
        end = run(end + length);
    }
    let mask = |at: usize| text[..at].ends_with(b"[REDACTED]");
    while end > start
        && matches!(text[end - 1], b')' | b',' | b'.' | b';' | b']' | b'}' | b'*' | b'|')
        && !mask(end)
    {
        end -= 1;
    }
    end
}

/// Usual passwords in examples, and passwords that are already hidden.
const NO_PASSWORDS: [&[u8]; 8] = [
    b"password",
    b"passwd",
    b"pass",
    b"pwd",
    b"secret",
    b"changeme",
    b"your_password",
    b"your-password",
];

/// The password in `scheme://user:password@host`. It ends at the last `@` before the path.
pub(super) fn password(text: &[u8], place: usize, length: usize) -> Option<(usize, usize)> {
    // Before `://` stands the end of the scheme, or the `*` of a key masked just now.
    if place == 0 || !ALNUM.has(text[place - 1]) && text[place - 1] != b'*' {
        return None;
    }
    let user = place + length;
    if text[place] == b'%' {
        return encoded_password(text, user);
    }
    let stops = |byte: &u8| *byte <= b' ' || matches!(byte, b'/' | b'"' | b'\'' | 0x7f);
    let rest = &text[user..text.len().min(user + 320)];
    let rest = &rest[..rest.iter().position(stops).unwrap_or(rest.len())];
    let start = rest.iter().take(101).position(|byte| matches!(byte, b':' | b'@' | b'['))?;
    let end = rest.iter().rposition(|byte| *byte == b'@')?;
    let password = rest.get(start + 1..end)?;
    let template = match (password.first()?, password.last()?) {
        (b'<', b'>') | (b'{' | b'$', b'}') | (b'[', b']') | (b'%', b's') => true,
        (b'$', _) => password[1..].iter().all(|byte| UPPER.and(UNDERSCORE).has(*byte)),
        _ => false,
    };
    let port = bytes::run_end(password, 0, DIGIT);
    let is_port = matches!(password.get(port), Some(b',' | b';' | b'\\' | b')' | b'|'));
    let known = NO_PASSWORDS.iter().any(|word| password.eq_ignore_ascii_case(word))
        || password.ends_with(b"[REDACTED]");
    let same = password.iter().all(|byte| *byte == password[0]);
    if rest[start] != b':' || password.len() < 3 || template || is_port || known || same {
        return None;
    }
    Some((user + start + 1, user + end))
}

/// The same in an address that is percent-encoded as a whole.
fn encoded_password(text: &[u8], user: usize) -> Option<(usize, usize)> {
    let rest = &text[user..bytes::run_end(
        &text[..text.len().min(user + 320)],
        user,
        WORD.and(DOT).and(PERCENT).and(BASE64),
    )];
    let code = |at: usize, code: &[u8]| {
        rest.get(at..at + 3).is_some_and(|three| three.eq_ignore_ascii_case(code))
    };
    let start = (0..rest.len().min(101))
        .find(|at| code(*at, b"%3a") || code(*at, b"%2f") || code(*at, b"%40"))?;
    let path = (start + 3..rest.len()).find(|at| code(*at, b"%2f")).unwrap_or(rest.len());
    let end = (start + 3..path).rev().find(|at| code(*at, b"%40"))?;
    let known = NO_PASSWORDS.iter().any(|word| rest[start + 3..end].eq_ignore_ascii_case(word));
    (code(start, b"%3a") && end >= start + 6 && !known).then_some((user + start + 3, user + end))
}

/// Whether the text before `start` says that this is a hash or an id. A word for a hash or id must
/// be nearer than a word for a key. The slash of a path and the `@` of `image@sha` count too.
pub(super) fn is_vetoed(text: &[u8], start: usize) -> bool {
    let hidden = matches!(text.get(start.wrapping_sub(1)), Some(b'/' | b'@'));
    let is_word = |at: &usize| !LETTER.has(text[*at]) || is_name(text, *at);
    let nearest = (start.saturating_sub(BEFORE)..start).rev().filter(is_word).find_map(|at| {
        let any = |words: &[&str]| words.iter().any(|word| begins(&text[at..start], word));
        if any(KEYS) { Some(false) } else { any(NOT_KEYS).then_some(true) }
    });
    hidden || nearest == Some(true)
}
