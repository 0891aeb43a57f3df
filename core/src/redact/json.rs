//! Masks keys in JSON so that it stays JSON and loses nothing else. Numbers of any size, spaces,
//! the order of names and repeated names stay as written. `mask` masks; this file finds the strings
//! and names.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;

use super::extra::{ExtraPatterns, redact_with};
use super::finding::MASK;
use super::mask::{into_text, redact_pausing};
use super::reserve::{OutOfMemory, append, ask};

/// Masks the keys in a JSON text, also those written with escapes. Extra patterns are masked in its
/// strings and names only. A text without keys is not copied. Otherwise `seen` gets what held a
/// key: the text, and strings without their escapes.
pub fn redact_json<'t>(
    text: &'t str,
    extra: Option<&ExtraPatterns>,
    seen: &mut dyn FnMut(&str),
    pause: &mut dyn FnMut(),
) -> Result<Cow<'t, str>, OutOfMemory> {
    let masked = redact_pausing(text, pause)?;
    if let Cow::Owned(_) = masked {
        seen(text);
    }
    // Escapes can hide a key: jsonb undoes them, json keeps them as written. An extra pattern could
    // match across the end of a string, so it is applied to strings alone.
    let again = with_strings(&masked, |literal| {
        let escaped = literal.contains('\\');
        // Half a surrogate pair is valid JSON but no text. Such a string stays as it is.
        if !escaped && extra.is_none() {
            return Ok(None);
        }
        // Neither reading nor writing a string asks for its memory.
        ask_long(literal.len())?;
        let Ok(plain) = serde_json::from_str::<String>(literal) else { return Ok(None) };
        let masked = redact_with(&plain, extra, pause)?;
        if masked == plain {
            return Ok(None);
        }
        seen(&plain);
        ask_long(masked.len().saturating_mul(4))?;
        Ok(serde_json::to_string(&masked).ok())
    })?;
    let masked = again.map_or(masked, Cow::Owned);
    match &masked {
        Cow::Borrowed(_) => Ok(masked),
        Cow::Owned(text) => Ok(told_apart(text)?.map_or(masked, Cow::Owned)),
    }
}

/// As `ask`; short strings are not asked for.
fn ask_long(bytes: usize) -> Result<(), OutOfMemory> {
    if bytes < 1 << 20 { Ok(()) } else { ask(bytes) }
}

/// Replaces those string literals for which `change` answers another text. None: nothing changed.
fn with_strings(
    text: &str,
    mut change: impl FnMut(&str) -> Result<Option<String>, OutOfMemory>,
) -> Result<Option<String>, OutOfMemory> {
    let (mut changed, mut copied) = (Vec::new(), 0);
    for place in literals(text) {
        if let Some(literal) = change(&text[place.clone()])? {
            append(&mut changed, &text.as_bytes()[copied..place.start])?;
            append(&mut changed, literal.as_bytes())?;
            copied = place.end;
        }
    }
    if copied == 0 {
        return Ok(None);
    }
    append(&mut changed, &text.as_bytes()[copied..])?;
    Ok(Some(into_text(changed)))
}

/// Masking can make names of one object equal, and jsonb keeps only one of two equal names. So each
/// gets a number. None: no names are equal.
fn told_apart(text: &str) -> Result<Option<String>, OutOfMemory> {
    let (mut apart, mut copied, mut read) = (Vec::new(), 0, 0);
    // For each open object: how often each masked name was given.
    let mut open: Vec<HashMap<String, usize>> = vec![];
    // A map does not ask for its memory, so it is asked for each time as much again was used.
    let (mut kept, mut asked) = (0, 1 << 20);
    for place in literals(text) {
        for byte in text[read..place.start].bytes() {
            match byte {
                b'{' => open.push(HashMap::new()),
                b'}' => drop(open.pop()),
                _ => (),
            }
        }
        read = place.end;
        let name = text[place.clone()].trim_matches('"');
        let is_name = name.contains(MASK) && text[place.end..].trim_start().starts_with(':');
        let Some(given) = open.last_mut().filter(|_| is_name) else { continue };
        let mut number = given.get(name).copied().unwrap_or(0);
        let mut unique = name.to_owned();
        while number > 0 && given.contains_key(&unique) {
            number += 1;
            unique = format!("{name} ({number})");
        }
        kept += 2 * name.len() + 200;
        if kept > asked {
            ask(4 * kept)?;
            asked = 2 * kept;
        }
        given.insert(name.to_owned(), number.max(1));
        if number > 0 {
            append(&mut apart, &text.as_bytes()[copied..place.start])?;
            append(&mut apart, format!("\"{unique}\"").as_bytes())?;
            copied = place.end;
            given.insert(unique, 1);
        }
    }
    if copied == 0 {
        return Ok(None);
    }
    append(&mut apart, &text.as_bytes()[copied..])?;
    Ok(Some(into_text(apart)))
}

/// The places of the string literals, with their quotes. A literal without an end reaches to the
/// end of the text.
fn literals(text: &str) -> impl Iterator<Item = Range<usize>> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + text[from..].find('"')?;
        from = literal_end(text, start);
        Some(start..from)
    })
}

fn literal_end(text: &str, start: usize) -> usize {
    let bytes = text.as_bytes();
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            // An escaped character may be longer than one byte, but it is no quote then.
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    text.len()
}

#[cfg(test)]
#[path = "json_tests.rs"]
mod tests;
