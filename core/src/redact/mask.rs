//! Masks keys in a copy, with `...[REDACTED]`, or in place with as many `*`. The log hook masks in
//! place, because it may allocate nothing (docs/facts.md#the-log-hook).

use std::borrow::Cow;

use super::anchors::ANCHORS;
use super::finding::{Finding, MASK};
use super::reserve::{OutOfMemory, append};
use super::scan::Scanner;

/// How often a masked text is masked again. Masking can make another key visible; that is masked
/// too. Afterwards masking changes nothing more. Two passes are usual.
const PASSES: usize = 8;

/// Builds the tables, once per process. The server calls this at its start, so that forked backends
/// inherit them. Afterwards scanning allocates nothing.
pub fn prepare() -> bool {
    std::sync::LazyLock::force(&ANCHORS);
    // The first text builds the scan's own tables.
    !contains_key("no key")
}

/// Masks every key: the public prefix stays, the rest of the whole run becomes `...[REDACTED]`.
/// Masking twice changes nothing. A text without keys is not copied.
/// Without memory for the answer, all of it is masked.
pub fn redact(text: &str) -> Cow<'_, str> {
    redact_pausing(text, &mut || ()).unwrap_or(Cow::Borrowed(MASK))
}

/// The same for a text of any length. Calls `pause` every 64 kB; it may unwind, so that a query can
/// be cancelled.
pub fn redact_pausing<'t>(
    text: &'t str,
    pause: &mut dyn FnMut(),
) -> Result<Cow<'t, str>, OutOfMemory> {
    let Some(mut masked) = mask_once(text.as_bytes(), pause)? else {
        return Ok(Cow::Borrowed(text));
    };
    for _ in 1..PASSES {
        match mask_once(&masked, pause)? {
            Some(again) => masked = again,
            None => break,
        }
    }
    Ok(Cow::Owned(into_text(masked)))
}

/// Masks a text again that was masked in another way. A text without keys is not copied.
pub(super) fn again_masked(text: String, pause: &mut dyn FnMut()) -> Result<String, OutOfMemory> {
    let masked = match redact_pausing(&text, pause)? {
        Cow::Owned(masked) => Some(masked),
        Cow::Borrowed(_) => None,
    };
    Ok(masked.unwrap_or(text))
}

/// Keys are ASCII, so masking cannot break the encoding of a valid text.
pub(super) fn into_text(bytes: Vec<u8>) -> String {
    String::from_utf8(bytes)
        .unwrap_or_else(|bytes| String::from_utf8_lossy(bytes.as_bytes()).into_owned())
}

fn mask_once(text: &[u8], pause: &mut dyn FnMut()) -> Result<Option<Vec<u8>>, OutOfMemory> {
    let mut scan = Scanner::new(false);
    let mut masked = Vec::new();
    let mut copied = 0;
    while let Some(finding) = scan.next(text, pause) {
        append(&mut masked, &text[copied..finding.secret])?;
        append(&mut masked, MASK.as_bytes())?;
        copied = scan.at;
    }
    if copied == 0 {
        return Ok(None);
    }
    append(&mut masked, &text[copied..])?;
    Ok(Some(masked))
}

/// Tells whether a text holds a key.
pub fn contains_key(text: &str) -> bool {
    findings(text).next().is_some()
}

/// Lists the keys in a text, in order, without overlap.
pub fn findings(text: &str) -> impl Iterator<Item = Finding> + '_ {
    let mut scan = Scanner::new(false);
    std::iter::from_fn(move || scan.next(text.as_bytes(), &mut || ()))
}

/// Whether the end of a text may have cut a key in two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Nothing was cut: a key ends where its shape says.
    Whole,
    /// The end may have cut a key: what is left of one is a key too.
    Cut,
}

/// Lists the keys in any bytes. Allocates nothing after `prepare`.
pub fn findings_in(text: &[u8], ends: Ends) -> impl Iterator<Item = Finding> + '_ {
    let mut scan = Scanner::new(ends == Ends::Cut);
    std::iter::from_fn(move || scan.next(text, &mut || ()))
}

/// Masks keys by as many `*`, in any bytes. Calls `found` with each key and its bytes before
/// masking. Answers how many there were. Allocates nothing after `prepare`. If the text was cut, 8
/// bytes at its end are enough for a key.
pub fn mask_each(text: &mut [u8], ends: Ends, found: &mut dyn FnMut(&Finding, &[u8])) -> usize {
    let mut scan = Scanner::new(ends == Ends::Cut);
    let mut count = 0;
    while let Some(finding) = scan.next(text, &mut || ()) {
        found(&finding, &text[finding.start..finding.end]);
        text[finding.secret..finding.end].fill(b'*');
        count += 1;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::scan::examples::expand;

    fn in_place(text: &str, ends: Ends) -> (String, usize) {
        let mut bytes = expand(text).into_bytes();
        let count = mask_each(&mut bytes, ends, &mut |_, _| ());
        (into_text(bytes), count)
    }

    #[test]
    fn a_key_is_masked_in_place_by_as_many_stars() {
        let text = "a sk-proj-<40>, api_key='<hex 20>' gsk_<52>\n";
        let masked = format!(
            "a sk-proj-{}, api_key='{}' gsk_{}\n",
            "*".repeat(40),
            "*".repeat(20),
            "*".repeat(52)
        );
        assert_eq!(in_place(text, Ends::Whole), (masked, 3));
        assert_eq!(in_place("nothing", Ends::Cut), ("nothing".into(), 0));
    }

    #[test]
    fn bytes_that_are_no_text_are_masked_too() {
        let key = expand("sk-ant-api03-<60>");
        let mut bytes = [b"\xff\xfe\0", key.as_bytes(), b"\xc3\x28\0"].concat();
        assert_eq!(mask_each(&mut bytes, Ends::Whole, &mut |_, _| ()), 1);
        assert_eq!(bytes, [&b"\xff\xfe\0sk-ant-api03-"[..], &[b'*'; 60], b"\xc3\x28\0"].concat());
    }

    #[test]
    fn in_a_cut_text_eight_bytes_at_the_end_are_a_key() {
        for text in [
            "SELECT store('sk-proj-x01234567",
            "SELECT 'sk-x0123456",
            "gsk_a1B2c3D4",
            "AIzaa1B2c3D4",
            "api_key = 'a1B2c3D4e",
            "Bearer eyJhbGciOi",
        ] {
            let (masked, count) = in_place(text, Ends::Cut);
            assert_eq!((count, masked.len()), (1, text.len()), "{text} {masked}");
            assert!(masked.ends_with("*****"), "{masked}");
            assert_eq!(in_place(text, Ends::Whole).1, 0, "{text}");
            assert_eq!(in_place(&format!("{text} "), Ends::Cut).1, 0, "{text}");
        }
        assert_eq!(in_place("SELECT 'sk-proj-x0", Ends::Cut).1, 0);
    }

    /// Scanning in chunks finds what scanning the whole text finds, as far as keys look back.
    #[test]
    fn the_borders_of_chunks_hide_nothing() {
        let keys = expand("gsk_<52> mistral: <32>Q\u{e9} api_key=<hex 24>");
        for filler in ["lorem ipsum ", "x", "/usr/lib/"] {
            for shift in 0..150 {
                let text = format!(
                    "{} {keys}",
                    filler.repeat((1 << 16) / filler.len() + 1).split_at((1 << 16) - shift).0
                );
                assert_eq!(findings(&text).count(), 3, "{filler} {shift}");
            }
        }
    }

    #[test]
    fn a_long_text_is_interrupted() {
        let text = "SELECT 1; ".repeat(1 << 17);
        let mut pauses = 0;
        redact_pausing(&text, &mut || pauses += 1).expect("memory");
        assert!(pauses >= 16, "{pauses}");
    }
}
