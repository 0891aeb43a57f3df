//! Free text from callers (names, user agents, notes) before it is stored or queued: masked, made visible, cut.
//! Lengths are bytes and stand in DESIGN §11.

use super::scan::redact;

/// Cuts to at most `max_bytes`, at a character boundary.
pub fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// Masks keys, makes control characters visible and cuts, in this order.
///
/// Masking comes before cutting: a key that straddles the cut would lose its end, no longer have the length its
/// rule asks for, and stay in clear. Control characters other than a space become `?`: NUL cannot be stored in
/// `text`, and line breaks, escape sequences and direction marks let a caller forge what a reader of the trail sees.
pub fn clean(text: &str, max_bytes: usize) -> String {
    let visible: String = redact(text).chars().map(visible).collect();
    cut(&visible, max_bytes).to_owned()
}

/// Replaces what would not be seen, or would change how the rest is seen (Unicode TR 36 §2.6), by `?`.
pub(super) fn visible(character: char) -> char {
    let moves = matches!(character, '\u{200E}' | '\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2066}'..='\u{2069}');
    if character.is_control() || moves { '?' } else { character }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::scan::examples::expand;

    #[test]
    fn cuts_at_a_character() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("aü", 2), "a");
        assert_eq!(cut("𝄞", 3), "");
        assert_eq!(cut("abc", usize::MAX), "abc");
        assert_eq!(cut("", 0), "");
    }

    #[test]
    fn a_key_that_straddles_the_cut_does_not_survive() {
        let key = expand("sk-proj-<60>");
        for before in 0..120 {
            let text = format!("{}{key}", " ".repeat(before));
            let cleaned = clean(&text, 100);
            assert!(!cleaned.contains("sk-proj-0"), "{before}: {cleaned}");
            assert!(cleaned.len() <= 100);
        }
    }

    #[test]
    fn control_characters_become_visible() {
        assert_eq!(clean("a\0b\nc\td\u{1b}[31m\u{7f}\u{85}e f", 100), "a?b?c?d?[31m??e f");
        assert_eq!(clean("abc\u{202e}cba\u{2028}", 100), "abc?cba?");
        assert_eq!(clean("größe 東京 🗝", 100), "größe 東京 🗝");
    }
}
