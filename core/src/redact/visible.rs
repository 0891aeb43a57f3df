//! Characters that readers do not see, or that change how the rest looks: control characters,
//! direction marks, characters without width (Unicode TR 36 §2.6).

/// Whether the text has no invisible character, and none that moves the text beside it.
pub fn is_visible(text: &str) -> bool {
    text.chars().all(|character| visible(character) == character)
}

/// Replaces a character by `?` if readers would not see it, or if it would change how the rest
/// looks.
pub fn visible(character: char) -> char {
    let unseen = matches!(
        character,
        '\u{AD}' | '\u{61C}' | '\u{180E}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{FEFF}' | '\u{FFF9}'..='\u{FFFB}'
            | '\u{E0000}'..='\u{E007F}'
    );
    if character.is_control() || unseen { '?' } else { character }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moves_or_hides_text_is_not_visible() {
        for unseen in
            ["a\0", "a\nb", "\u{1b}[31m", "a\u{ad}", "\u{200b}", "abc\u{202e}", "\u{feff}"]
        {
            assert!(!is_visible(unseen), "{unseen:?}");
        }
        for seen in ["", " ", "größe 東京 🗝", "a\u{a0}b"] {
            assert!(is_visible(seen), "{seen:?}");
        }
    }
}
