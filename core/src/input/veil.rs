//! Hides the key of a call in the texts of that call, whatever its shape: no rule knows a key made
//! of words, but the call knows its own. Also hidden are long parts of it, and what a cut has left
//! of it at the end of a text. The texts are short by then, so the work is bounded.

use crate::crypto::Secret;
use crate::redact::{MASK, candidates, visible};

/// A common part of so many bytes is a part of the key; a shorter one may be any word.
const TELLING: usize = 16;
/// So many bytes of the key at the end of the text were cut off there. Nothing cuts a beginning.
const CUT: usize = 8;
/// The most bytes that are read of what was given as a key. A longer text is refused.
const LONGEST: usize = 8192;
/// The most spellings of a key, and the most escaped words of a text that are compared.
const MOST: usize = 64;

/// What hides a key. Wiped when dropped.
pub struct Veil(Vec<Secret>);

impl Veil {
    /// Hides what was given as a key, also where it is refused: without what stands around it, and
    /// without characters that do not show.
    pub fn of(given: &str) -> Veil {
        let given = &given[..given.floor_char_boundary(LONGEST)];
        let mut spellings = vec![Secret::from(given.to_owned())];
        let mut add = |spelling: String| {
            let secret = Secret::from(spelling);
            if secret.len() >= CUT && !spellings.iter().any(|known| known.equals(&secret)) {
                spellings.push(secret);
            }
        };
        add(given.trim().to_owned());
        add(given.chars().map(visible).collect());
        add(given.chars().filter(char::is_ascii_graphic).collect());
        candidates(given).take(MOST).for_each(|candidate| add(candidate.key));
        spellings.retain(|secret| !secret.is_empty());
        Veil(spellings)
    }

    /// Hides a key that was opened.
    pub fn of_secret(secret: &Secret) -> Veil {
        Veil(vec![Secret::new(secret.expose().to_vec())])
    }

    /// The text without the key. None: the key does not stand in it.
    pub fn over(&self, text: &str) -> Option<String> {
        let mut places = self.places(text);
        if text.contains(['%', '\\', '&']) {
            let escaped = candidates(text).take(MOST);
            let held = escaped.filter(|found| {
                found.key != text[found.start..found.end] && !self.places(&found.key).is_empty()
            });
            places.extend(held.map(|found| (found.start, found.end)));
        }
        if places.is_empty() {
            return None;
        }
        places.sort_unstable();
        let (mut hidden, mut from) = (String::with_capacity(text.len()), 0);
        for (start, end) in places {
            let start = text.floor_char_boundary(start);
            if start >= from {
                hidden.push_str(&text[from..start]);
                hidden.push_str(MASK);
            }
            from = from.max(text.ceil_char_boundary(end));
        }
        hidden.push_str(&text[from..]);
        Some(hidden)
    }

    /// Where the key, or a telling part of it, stands.
    fn places(&self, text: &str) -> Vec<(usize, usize)> {
        let text = text.as_bytes();
        self.0.iter().flat_map(|key| places_of(key.expose(), text)).collect()
    }
}

/// Where a key, or a telling part of it, stands in a text.
fn places_of(key: &[u8], text: &[u8]) -> Vec<(usize, usize)> {
    if key.len() < CUT {
        return words_that_are(key, text);
    }
    // A common part of `TELLING` bytes holds one of these blocks whole.
    let last = key.len() - CUT;
    let blocks = (0..last).step_by(CUT).chain([last]);
    let mut places: Vec<(usize, usize)> = Vec::new();
    for block in blocks {
        let wanted = &key[block..block + CUT];
        for at in
            (0..text.len().saturating_sub(CUT - 1)).filter(|at| &text[*at..*at + CUT] == wanted)
        {
            let before = key[..block].iter().rev().zip(text[..at].iter().rev());
            let before = before.take_while(|(a, b)| a == b).count();
            let after = key[block..].iter().zip(&text[at..]).take_while(|(a, b)| a == b).count();
            let (start, end) = (at - before, at + after);
            let is_cut = end == text.len() && before == block;
            if end - start >= TELLING.min(key.len()) || is_cut {
                places.push((start, end));
            }
        }
    }
    places
}

/// A short key occurs in many words. It is hidden where it stands alone.
fn words_that_are(key: &[u8], text: &[u8]) -> Vec<(usize, usize)> {
    let is_part = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let stands_alone = |start: &usize| {
        let before = start.checked_sub(1).and_then(|at| text.get(at));
        !is_part(before) && !is_part(text.get(start + key.len()))
    };
    let found = text.windows(key.len().max(1)).enumerate();
    let found = found.filter(|(_, part)| *part == key).map(|(start, _)| start);
    found.filter(stands_alone).map(|start| (start, start + key.len())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "correct-horse/battery+staple-0815";

    fn hidden(key: &str, text: &str) -> String {
        Veil::of(key).over(text).unwrap_or_else(|| "nothing".into())
    }

    #[test]
    fn a_key_of_no_shape_is_hidden_wherever_it_stands() {
        for (text, shown) in [
            (KEY.to_owned(), "M".to_owned()),
            (format!("key={KEY}&x=1"), "key=M&x=1".into()),
            (format!("{KEY},{KEY}"), "M,M".into()),
            (format!("größe{KEY}ü"), "größeMü".into()),
            (format!("u?k={}", KEY.replace('/', "%2F").replace('+', "%2B")), "M".into()),
            (format!("\"{}\"", KEY.replace('-', "\\u002d")), "\"M\"".into()),
            (format!("x {}", &KEY[..12]), "x M".into()), // cut off
            (format!("a {} b", &KEY[4..24]), "a M b".into()),
        ] {
            assert_eq!(hidden(KEY, &text).replace(MASK, "M"), shown, "{text}");
        }
        for apart in
            ["", "staple-0815 x", "correct", "a correct-ho b", "horse battery staple", "order-17"]
        {
            assert_eq!(hidden(KEY, apart), "nothing", "{apart}");
        }
    }

    #[test]
    fn a_refused_key_is_hidden_without_what_stands_around_it() {
        for given in [
            format!("{KEY}\n"),
            format!("  {KEY}"),
            format!("OPENAI_API_KEY={KEY}"),
            format!("'{KEY}'"),
            format!("Bearer {KEY}"),
            format!("\u{feff}{KEY}"),
            format!("{}\u{200b}{}", &KEY[..9], &KEY[9..]),
        ] {
            assert_eq!(hidden(&given, KEY), MASK, "{given:?}");
            let shown: String = given.chars().map(visible).collect();
            assert!(!hidden(&given, &shown).contains("battery"), "{given:?}");
        }
    }

    #[test]
    fn a_short_key_is_hidden_where_it_stands_alone() {
        assert_eq!(hidden("k1", "k1 k1x xk1 a/k1"), format!("{MASK} k1x xk1 a/{MASK}"));
        assert_eq!(hidden("", "text"), "nothing");
    }

    proptest! {
        #[test]
        fn nothing_telling_stays(
            before in "\\PC{0,20}",
            after in "\\PC{0,20}",
            key in "[!-~]{8,60}",
            text in any::<String>(),
        ) {
            let veil = Veil::of(&key);
            let shown = veil.over(&format!("{before}{key}{after}")).unwrap_or_default();
            prop_assert!(shown.contains(MASK));
            prop_assert!(MASK.contains(&key) || !shown.contains(&key));
            let _ = (veil.over(&text), Veil::of(&text).over(&text));
        }
    }
}
