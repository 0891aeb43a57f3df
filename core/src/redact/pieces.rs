//! Splits a long text into pieces that are searched one after the other, so that no key is cut in
//! two. A piece ends at a line end or a blank if there is one. Otherwise two pieces overlap by more
//! than the longest key.

/// Bytes of a piece at most.
pub(super) const LONGEST_PIECE: usize = 1 << 20;
/// How far back from the longest piece's end a blank is searched.
const LOOK_BACK: usize = 1 << 16;
/// What two pieces share if there is no blank: more than a key of 4,096 bytes, each written as
/// three.
const OVERLAP: usize = 1 << 14;

/// The first piece of a text. It ends at `end`; the next piece begins at `next`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where it ends, in bytes.
    pub end: usize,
    /// Where the next piece begins, in bytes: at its end or before, so that no key is cut in two.
    pub next: usize,
}

/// Where to cut a text. None: there is not enough text yet, so read more first. `is_all`: nothing
/// follows this text.
pub fn piece(text: &[u8], is_all: bool) -> Option<Piece> {
    if text.len() <= LONGEST_PIECE {
        return is_all.then_some(Piece { end: text.len(), next: text.len() });
    }
    let window = &text[..LONGEST_PIECE];
    let back = &window[LONGEST_PIECE - LOOK_BACK..];
    let blank = |is: fn(&u8) -> bool| {
        back.iter().rposition(is).map(|at| LONGEST_PIECE - LOOK_BACK + at + 1)
    };
    if let Some(cut) = blank(|byte| *byte == b'\n').or_else(|| blank(u8::is_ascii_whitespace)) {
        return Some(Piece { end: cut, next: cut });
    }
    Some(Piece {
        end: at_character(text, LONGEST_PIECE),
        next: at_character(text, LONGEST_PIECE - OVERLAP),
    })
}

/// This place, or up to three bytes before it, where a character of UTF-8 begins. In other bytes,
/// this place.
fn at_character(text: &[u8], at: usize) -> usize {
    let begins = |at: &usize| text.get(*at).is_none_or(|byte| byte & 0xc0 != 0x80);
    (at.saturating_sub(3)..=at).rev().find(begins).unwrap_or(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<(usize, Piece)> {
        let (mut from, mut all) = (0, vec![]);
        while let Some(piece) = piece(&text.as_bytes()[from..], true).filter(|_| from < text.len())
        {
            all.push((from, piece));
            from += piece.next;
        }
        all
    }

    #[test]
    fn a_short_text_is_one_piece_and_waits_for_its_end() {
        assert_eq!(piece(b"abc", true), Some(Piece { end: 3, next: 3 }));
        assert_eq!(piece(b"abc", false), None);
        assert_eq!(piece(b"", true), Some(Piece { end: 0, next: 0 }));
    }

    #[test]
    fn lines_are_not_cut() {
        let text = "a line of a log, with words\n".repeat(200_000);
        let all = pieces(&text);
        assert!(all.len() > 4);
        for (from, piece) in all {
            assert!(text[from..from + piece.end].ends_with('\n') && piece.end == piece.next);
        }
    }

    #[test]
    fn without_a_blank_every_key_lies_whole_in_the_piece_it_begins_in() {
        for unit in ["x", "é", "鍵", "🔑"] {
            let text = unit.repeat(3_500_000 / unit.len());
            let all = pieces(&text);
            assert_eq!(all.last().map(|(from, piece)| from + piece.end), Some(text.len()));
            for (from, piece) in &all {
                assert!(
                    text.is_char_boundary(from + piece.end)
                        && text.is_char_boundary(from + piece.next)
                );
                let is_last = from + piece.end == text.len();
                assert!(is_last || piece.end - piece.next >= 3 * 4096, "{unit}");
            }
        }
    }
}
