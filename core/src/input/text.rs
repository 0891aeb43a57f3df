//! Free text as it may be kept: masked, made visible, cut, in this order. Only this room can clean
//! or cut a text. Other rooms take the type for the kind of text (`free_text`, `name`).

use super::ApiKey;
use crate::redact::{redact, visible};

/// How many bytes are read beyond the length that is kept. This is longer than any key, so a key
/// that begins in the kept part is read whole.
const BEYOND: usize = 2 * ApiKey::MAX_BYTES;

/// Cuts to at most `max_bytes`, at a character boundary.
pub(super) fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

/// Masks keys, makes control characters visible and cuts to `max_bytes`. Reads a bounded part of
/// the text, because a caller may pass a gigabyte.
///
/// Masking comes before cutting. Otherwise a key across the cut would lose its end, be too short
/// for its rule, and stay in clear. Control characters become `?`. NUL cannot be stored in `text`.
/// Line breaks, escape sequences and direction marks let a caller forge what a reader of the trail
/// sees.
pub(super) fn clean(text: &str, max_bytes: usize) -> String {
    let read = cut(text, max_bytes.saturating_add(BEYOND));
    // Masking shortens the text. A key cut in two at the end of what was read could then move into
    // the kept part.
    let whole = if read.len() < text.len() { without_last_run(read) } else { read };
    let visible: String = redact(whole).chars().map(visible).collect();
    cut(&visible, max_bytes).to_owned()
}

/// The text without its last run of non-blanks. Removes at most half of what was read beyond.
fn without_last_run(text: &str) -> &str {
    let run = text.len() - text.trim_end_matches(|c: char| !c.is_whitespace()).len();
    cut(text, text.len() - run.min(BEYOND / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::examples::expand;
    use crate::redact::is_visible;
    use proptest::prelude::*;

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

    #[test]
    fn a_gigabyte_is_not_read_and_a_key_cut_in_two_is_not_seen() {
        let long = "x".repeat(1 << 20);
        assert_eq!(clean(&long, 256), long[..256]);
        // Long keys that shrink to a few bytes, then one across the end of what is read.
        let key = format!("sk-proj-{} ", "Ab3".repeat(1200));
        for shift in 0..40 {
            let text = format!("{}{}", " ".repeat(shift), key.repeat(5));
            let cleaned = clean(&text, 256);
            assert!(!cleaned.contains("Ab3"), "{cleaned}");
        }
    }

    proptest! {
        #[test]
        fn what_is_kept_is_short_and_visible(text in any::<String>(), most in 0_usize..300) {
            let cleaned = clean(&text, most);
            prop_assert!(cleaned.len() <= most && is_visible(&cleaned));
        }

        #[test]
        fn no_key_is_kept(before in "\\PC{0,120}", after in "\\PC{0,20}", most in 0_usize..300) {
            let key = expand("sk-proj-<60>");
            let cleaned = clean(&format!("{before} {key} {after}"), most);
            prop_assert!(!cleaned.contains(&key[..20]), "{cleaned}");
        }
    }
}
