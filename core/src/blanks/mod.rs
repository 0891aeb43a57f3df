//! What stays readable of a text that names us: SQL's own words and our names. Everything else is
//! blanked, because it may be a key. Blanks are letters and digits of the same number, and quotes
//! stay, so that another parser reads the same tokens. Nothing here allocates: the log hook calls
//! it.

mod names;
mod words;

use names::LETTER;
pub use names::{SCHEMA, is_known, names_us};

/// Stands for a digit. A zero could end a number's validity or a text.
const DIGIT: u8 = b'1';

/// Whether a byte may stand where something was blanked.
pub fn is_blank(byte: u8) -> bool {
    matches!(byte, LETTER | DIGIT)
}

/// Blanks a text in place. `backslashes`: a backslash in an ordinary string escapes the character
/// after it, because the setting `standard_conforming_strings` is off.
pub fn blank(text: &mut [u8], backslashes: bool) {
    let mut at = 0;
    while at < text.len() {
        at = match text[at] {
            b'\'' => quoted(text, at, backslashes || has_escapes(text, at)),
            b'"' => quoted(text, at, false),
            b'$' => dollar(text, at),
            b'-' if text[at..].starts_with(b"--") => {
                let end = text[at..].iter().position(|byte| *byte == b'\n');
                content(text, at + 2, end.map_or(text.len(), |end| at + end))
            }
            b'/' if text[at..].starts_with(b"/*") => comment(text, at),
            byte if byte.is_ascii_digit() => number(text, at),
            byte if names::is_word(byte) => word(text, at),
            _ => at + 1,
        };
    }
}

/// Whether the string that opens here is an `E'…'`.
fn has_escapes(text: &[u8], open: usize) -> bool {
    let before = |back: usize| open.checked_sub(back).map(|at| text[at]);
    before(1).is_some_and(|byte| byte.eq_ignore_ascii_case(&b'e'))
        && !before(2).is_some_and(names::is_word)
}

/// Blanks a string or a quoted name to its closing quote; without one, to the end. Answers where
/// the text goes on.
fn quoted(text: &mut [u8], open: usize, escapes: bool) -> usize {
    let quote = text[open];
    let mut end = open + 1;
    while end < text.len() {
        let doubled = text[end] == quote && text.get(end + 1) == Some(&quote);
        if doubled || escapes && text[end] == b'\\' {
            end += 2;
        } else if text[end] == quote {
            break;
        } else {
            end += 1;
        }
    }
    let end = end.min(text.len());
    content(text, open + 1, end);
    (end + 1).min(text.len())
}

/// Blanks a text in dollar quotes. A dollar may also begin a parameter, or stand alone.
fn dollar(text: &mut [u8], open: usize) -> usize {
    let tag = text[open + 1..].iter().take_while(|byte| names::is_word(**byte) && **byte != b'$');
    let close = open + 1 + tag.count();
    let begins_with_digit = text.get(open + 1).is_some_and(u8::is_ascii_digit);
    if begins_with_digit {
        // `$1` is a parameter; its number is no value, if it is short
        return if close - open <= 4 { close } else { number(text, open + 1) };
    }
    if text.get(close) != Some(&b'$') {
        return open + 1;
    }
    let length = close + 1 - open;
    let body = close + 1;
    let found = (body..=text.len().saturating_sub(length))
        .filter(|at| text[*at] == b'$')
        .find(|at| text[*at..*at + length] == text[open..body]);
    let end = found.unwrap_or(text.len());
    content(text, body, end);
    blank_word(text, open + 1, close);
    if let Some(end) = found {
        blank_word(text, end + 1, end + length - 1);
        end + length
    } else {
        text.len()
    }
}

fn comment(text: &mut [u8], open: usize) -> usize {
    let (mut at, mut depth) = (open + 2, 1);
    while at < text.len() && depth > 0 {
        let pair = &text[at..text.len().min(at + 2)];
        let step = match pair {
            b"*/" => -1,
            b"/*" => 1,
            _ => 0,
        };
        depth += step;
        at += if step == 0 { 1 } else { 2 };
    }
    let end = if depth == 0 { at - 2 } else { text.len() };
    content(text, open + 2, end);
    at.min(text.len())
}

/// Blanks what quotes enclose, but line ends and our names.
fn content(text: &mut [u8], from: usize, to: usize) -> usize {
    let mut at = from;
    while at < to {
        let mark = names::next_mark(text, at, to).unwrap_or(to..to);
        let blanks = text[at..mark.start].iter_mut().filter(|byte| **byte != b'\n');
        blanks.for_each(|byte| *byte = LETTER);
        at = mark.end;
    }
    to.max(from)
}

/// Blanks a number. An exponent's letter stays, so that it is one number still.
fn number(text: &mut [u8], start: usize) -> usize {
    let length = text[start..].iter().take_while(|byte| names::is_word(**byte)).count();
    let end = start + length;
    let mut seen_exponent = false;
    for at in start..end {
        let exponent = text[at].eq_ignore_ascii_case(&b'e')
            && !seen_exponent
            && text[start..at].iter().all(|byte| byte.is_ascii_digit())
            && text.get(at + 1).is_some_and(|next| next.is_ascii_digit() || b"+-".contains(next));
        seen_exponent |= exponent;
        if !exponent {
            text[at] = DIGIT;
        }
    }
    end
}

/// Blanks a word that is neither SQL's nor ours, and begins no string.
fn word(text: &mut [u8], start: usize) -> usize {
    let length = text[start..].iter().take_while(|byte| names::is_word(**byte)).count();
    let end = start + length;
    let begins_string = length == 1
        && match text[start].to_ascii_lowercase() {
            b'e' | b'b' | b'x' | b'n' => text.get(end) == Some(&b'\''),
            b'u' => matches!(text.get(end..end + 2), Some(b"&'" | b"&\"")),
            _ => false,
        };
    if !begins_string && !is_known(&text[start..end]) && !words::is_sql(&text[start..end]) {
        let mark = names::next_mark(text, start, end).unwrap_or(end..end);
        blank_word(text, start, mark.start);
        blank_word(text, mark.end, end);
    }
    end
}

fn blank_word(text: &mut [u8], from: usize, to: usize) {
    for byte in &mut text[from..to] {
        *byte = match *byte {
            b'_' | b'$' => continue,
            digit if digit.is_ascii_digit() => DIGIT,
            _ => LETTER,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::{blank, names_us};
    use proptest::prelude::*;

    fn blanked(text: &str) -> String {
        let mut bytes = text.as_bytes().to_vec();
        blank(&mut bytes, false);
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn sqls_words_and_ours_stay_and_nothing_else() {
        for (text, expected) in [
            (
                "SELECT watchllm.store_provider_key('p', 'openai', 'opaque-4711') AS mine",
                "SELECT watchllm.store_provider_key('z', 'zzzzzz', 'zzzzzzzzzzz') AS zzzz",
            ),
            (
                "select f(priority => 6/2, x => 1.5e-3, 1e5, 0x1F)",
                "select z(priority => 1/1, z => 1.1e-1, 1e1, 1111)",
            ),
            ("'a''b' E'c\\'d' 'e\\'", "'zzzz' E'zzzz' 'zz'"),
            ("E'a\\'b' B'01' x'1F' U&'\\0041' U&\"d\"", "E'zzzz' B'zz' x'zz' U&'zzzzz' U&\"z\""),
            (
                "SELECT \"My Key\", \"watchllm\".\"redact\"",
                "SELECT \"zzzzzz\", \"watchllm\".\"zzzzzz\"",
            ),
            ("$1 + $12 + $123456", "$1 + $12 + $111111"),
            ("DO $b$ watchllm.find_keys('k') $c$ $b$;", "DO $z$zwatchllmzfind_keyszzzzzzzzzz$z$;"),
            ("/* a /* b */ c */ SELECT -- key\n1", "/*zzzzzzzzzzzzz*/ SELECT --zzzz\n1"),
            ("my_store_provider_key7('x", "zz_store_provider_key1('z"),
            ("'ключ' ключ", "'zzzzzzzz' zzzzzzzz"),
        ] {
            assert_eq!(blanked(text), expected, "{text}");
        }
    }

    #[test]
    fn an_unclosed_quote_hides_the_rest() {
        for open in ["'", "\"", "$$", "$k$", "/*", "--", "E'\\"] {
            let shown = blanked(&format!("SELECT watchllm.redact({open}opaque4711 key"));
            assert!(
                !shown.contains("opaque") && !shown.contains("4711") && !shown.contains("key"),
                "{shown}"
            );
        }
    }

    proptest! {
        /// Also of a text that is no SQL: the same length, the same names, no part of the key.
        #[test]
        fn any_text_keeps_its_length_and_no_key(
            before in r#"[ -~]{0,40}"#, key in "[qj][0-9qjvw]{11}", after in r#"[ -~\n]{0,40}"#,
            backslashes: bool,
        ) {
            let text = format!("{before} watchllm.redact('{before}{key}{after}");
            let mut shown = text.clone().into_bytes();
            blank(&mut shown, backslashes);
            prop_assert_eq!(shown.len(), text.len());
            prop_assert!(names_us(&shown, false));
            let shown = String::from_utf8(shown).unwrap();
            for part in key.as_bytes().windows(3) {
                let part = std::str::from_utf8(part).unwrap();
                prop_assert!(part == "111" || !shown.contains(part), "{}: {}", part, shown);
            }
            let mut again = shown.clone().into_bytes();
            blank(&mut again, backslashes);
            prop_assert_eq!(names_us(&again, false), true);
        }
    }
}
