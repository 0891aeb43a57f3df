//! Classes of bytes: which bytes can be part of a key, and which end it. All files here read this
//! one table. All of the bytes are ASCII, so runs end at character boundaries in UTF-8.

/// A set of classes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Class(u16);

pub(super) const LOWER: Class = Class(1);
pub(super) const UPPER: Class = Class(2);
pub(super) const DIGIT: Class = Class(4);
pub(super) const DASH: Class = Class(8);
pub(super) const UNDERSCORE: Class = Class(16);
/// `+ /` and `=`: the characters of base64 beyond letters and digits.
pub(super) const BASE64: Class = Class(32);
/// `. ~`: the characters of RFC 6750 §2.1 beyond base64.
pub(super) const DOT: Class = Class(64);
/// Visible ASCII that does not commonly separate two values. Any key has a long run of these bytes.
const TIGHT: Class = Class(128);
pub(super) const PERCENT: Class = Class(256);

pub(super) const LETTER: Class = LOWER.and(UPPER);
pub(super) const ALNUM: Class = LETTER.and(DIGIT);
/// The alphabet of base64url.
pub(super) const WORD: Class = ALNUM.and(DASH).and(UNDERSCORE);
pub(super) const BEARER: Class = WORD.and(BASE64).and(DOT);

impl Class {
    pub(super) const fn and(self, other: Class) -> Class {
        Class(self.0 | other.0)
    }

    #[inline]
    pub(super) fn has(self, byte: u8) -> bool {
        CLASSES[usize::from(byte)] & self.0 != 0
    }

    /// The classes of all bytes in a text.
    #[inline]
    pub(super) fn all_of(text: &[u8]) -> Class {
        Class(text.iter().fold(0, |all, byte| all | CLASSES[usize::from(*byte)]))
    }

    #[inline]
    pub(super) fn meets(self, other: Class) -> bool {
        self.0 & other.0 != 0
    }
}

static CLASSES: [u16; 256] = {
    let mut classes = [0; 256];
    let mut byte = 0x21_u8;
    while byte < 0x7f {
        let own = match byte {
            b'a'..=b'z' => LOWER.0,
            b'A'..=b'Z' => UPPER.0,
            b'0'..=b'9' => DIGIT.0,
            b'-' => DASH.0,
            b'_' => UNDERSCORE.0,
            b'+' | b'/' | b'=' => BASE64.0,
            b'.' | b'~' => DOT.0,
            b'%' => PERCENT.0,
            _ => 0,
        };
        let parts = matches!(
            byte,
            b'"' | b'\''
                | b'`'
                | b'<'
                | b'>'
                | b','
                | b'|'
                | b'('
                | b')'
                | b'['
                | b']'
                | b'{'
                | b'}'
        );
        classes[byte as usize] = if parts { own } else { own | TIGHT.0 };
        byte += 1;
    }
    classes
};

/// Where the run of this class that begins at `from` ends.
#[inline]
pub(super) fn run_end(text: &[u8], from: usize, class: Class) -> usize {
    text[from..]
        .iter()
        .position(|byte| !class.has(*byte))
        .map_or(text.len(), |length| from + length)
}

/// The fewest bytes in a row that a key, or the value of a label, has.
const LONG: usize = 16;

/// Finds the next run of at least 16 `TIGHT` bytes that begins before `limit`. It looks at every
/// sixteenth byte only. Answers the start; the run may reach beyond the limit.
pub(super) fn next_long_run(text: &[u8], from: usize, limit: usize) -> Option<usize> {
    let mut start = from;
    loop {
        let probe = start + LONG - 1;
        if start >= limit || probe >= text.len() {
            return None;
        }
        match text[start..=probe].iter().rposition(|byte| !TIGHT.has(*byte)) {
            Some(gap) => start += gap + 1,
            None => return Some(start),
        }
    }
}

/// Where a run found by `next_long_run` ends.
pub(super) fn long_run_end(text: &[u8], from: usize, limit: usize) -> usize {
    let limit = limit.min(text.len());
    run_end(&text[..limit], from.min(limit), TIGHT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_run_is_found_wherever_it_stands() {
        for before in 0..40 {
            for length in [15, 16, 17, 40] {
                let text = format!("{}{}, etc", "a b ".repeat(before), "x".repeat(length));
                let found = next_long_run(text.as_bytes(), 0, usize::MAX);
                assert_eq!(found, (length > 15).then_some(before * 4), "{text}");
                let end = found.map(|start| long_run_end(text.as_bytes(), start, usize::MAX));
                assert_eq!(end, (length > 15).then_some(before * 4 + length));
            }
        }
        assert_eq!(next_long_run("日本語日本語日本語日本語".as_bytes(), 0, usize::MAX), None);
    }

    #[test]
    fn runs_end_at_what_is_not_of_them() {
        assert_eq!(run_end(b"ab-c.d", 0, WORD), 4);
        assert_eq!(run_end("abü".as_bytes(), 0, BEARER), 2);
    }
}
