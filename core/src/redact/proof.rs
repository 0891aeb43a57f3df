//! Tells the random characters of a key from names, slugs and placeholders. Each pair of
//! neighbouring letters is weighed: how much likelier is it in English words and identifiers than
//! in random text? Language models do the same. Character classes alone (a digit, both cases) miss
//! one key in fifty and take names for keys.

use super::bytes::{self, ALNUM, Class, DIGIT, LETTER, LOWER, UPPER};

/// How many bytes of a secret are judged. That is enough to decide, and cheap enough to repeat at
/// every place.
const WINDOW: usize = 40;
/// From this evidence on, a text counts as words. One random key in 25,000 reaches it if it has 16
/// characters, and one in 100,000 if it has 22.
const WORDY: i32 = 12;
/// So many letters without a hyphen are no word. Siliconflow's keys are 48 lower-case letters.
const NO_WORD: usize = 40;

/// What a key must have beyond its shape.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// Not a placeholder.
    Real,
    /// Also not made of words.
    Random,
    /// Holds OpenAI's marker (judged by the scan, which knows where the next one is).
    Marked,
    /// Random, and also has both cases, or a digit and over 16 characters without a hyphen. For the
    /// shortest prefixes.
    Mixed,
}

impl Proof {
    /// Judges a secret part by its first bytes.
    pub(super) fn holds(self, secret: &[u8]) -> bool {
        let secret = &secret[..secret.len().min(WINDOW)];
        match self {
            Self::Marked => true,
            Self::Real => is_real(secret),
            Self::Random => !is_wordy(secret) && is_real(secret),
            Self::Mixed => {
                (has_no_word(secret) || is_mixed(secret) && !is_wordy(secret)) && is_real(secret)
            }
        }
    }
}

/// Judges a value behind a label ("api_key:"), which has no prefix. It needs two letters, so that
/// no number of JSON is masked. It also needs a digit or both cases.
pub(super) fn is_value(value: &[u8]) -> bool {
    let window = &value[..value.len().min(WINDOW)];
    let letters = window.iter().filter(|byte| LETTER.has(**byte)).count();
    let mixed = window.iter().any(|byte| DIGIT.has(*byte)) || has_both_cases(window);
    letters >= 2 && mixed && !is_wordy(window) && is_real(window)
}

pub(super) fn has_both_cases(text: &[u8]) -> bool {
    let all = Class::all_of(text);
    all.meets(LOWER) && all.meets(UPPER)
}

fn is_mixed(secret: &[u8]) -> bool {
    let part = |part: &[u8]| {
        let digit = part.iter().any(|byte| DIGIT.has(*byte));
        part.len() >= 16 && digit && part.iter().any(|byte| LETTER.has(*byte))
    };
    // A slug joins its words with one kind of sign and has digits only at the ends of words.
    let joined = || secret.contains(&b'-') && secret.contains(&b'_');
    let signs = |pair: &[u8]| matches!(pair, b"-_" | b"_-");
    let switch = |pair: &&[u8]| {
        ALNUM.has(pair[0]) && ALNUM.has(pair[1]) && DIGIT.has(pair[0]) != DIGIT.has(pair[1])
    };
    let within = || secret.windows(2).filter(switch).count() >= 4 || secret.windows(2).any(signs);
    has_both_cases(secret)
        || joined() && within()
        || secret.split(|byte| *byte == b'-' || *byte == b'_').any(part)
}

/// Whether it begins with more lower-case letters than any word has.
fn has_no_word(secret: &[u8]) -> bool {
    bytes::run_end(secret, 0, LOWER) >= NO_WORD
}

/// Words that people write where a key will stand.
const PLACEHOLDERS: [&[u8]; 14] = [
    b"xxxxx",
    b"your-",
    b"your_",
    b"example",
    b"placeholder",
    b"changeme",
    b"change-me",
    b"change_me",
    b"insert-",
    b"insert_",
    b"replace-",
    b"replace_",
    b"redacted",
    b"-goes-here",
];

/// Whether it is more than a placeholder: it has three different characters and none of the usual
/// words.
fn is_real(secret: &[u8]) -> bool {
    let mut seen = 0_u128;
    for byte in secret.iter().filter(|byte| ALNUM.has(**byte)) {
        seen |= 1 << (byte & 0x7f);
    }
    let text = &secret[..secret.len().min(48)];
    let begins = |at: usize| PLACEHOLDERS.iter().any(|word| begins_with(&text[at..], word));
    seen.count_ones() >= 3 && !(0..text.len()).any(begins)
}

/// Compares the first bytes before the rest, because it is called at every place.
fn begins_with(text: &[u8], word: &[u8]) -> bool {
    text[0] | 0x20 == word[0]
        && text.get(..word.len()).is_some_and(|text| text.eq_ignore_ascii_case(word))
}

/// log2 of how much likelier the second letter follows the first in words and identifiers than by
/// chance. The letters stand for numbers, from `a` = -5 to `i` = 3; there is a row per first
/// letter. Counted over the words of a Python library and of documentation.
const PAIRS: [&[u8; 26]; 26] = [
    b"afgfbcebfadhggafahgheeddea",
    b"hdfegbccgfahedgeafgegaaafc",
    b"haedhcbgfaggecidbfehfbbada",
    b"gedfidbaibbfddgdbfgefcbcda",
    b"fdgheedbcacffhcfdhhgbedfda",
    b"gadeggdbiaagcdhdcgffgbcaea",
    b"fcddicefgbafegfdaggdfdbaac",
    b"hbcdibabhabeedhbafeffaaada",
    b"fegffefaaabgfigeafggaeadae",
    b"hcedicdbfceeecgdcegdhcebdb",
    b"fadfidfbhaagafeecdheebfabc",
    b"hcdficbahabgcdhdabfffcbagb",
    b"hfceibaagacefcghabfefaaaca",
    b"gbgggehcfaedcefdacgheebaca",
    b"defgceeaebefghfgahffgefcab",
    b"hbddhdcdfacgcdgfbhfgfbdaea",
    b"dbbecccdddbgdedbdffbiacbba",
    b"hceeideagaedfegdafggedcafa",
    b"fbfchddfgadeedffcdghgcdbea",
    b"gcedidbghaaedcgeaggfebdbeb",
    b"fffefeeafaagghdgahghbaabaa",
    b"ibcaiccchbbbddfcaccbbcdaaa",
    b"hcdfhecghaaebggbchgcbcecaa",
    b"fegdhfbdgaafeaehadeibcbfeb",
    b"eefegedcgabfggfhaehhbeeadd",
    b"facbiaabhcbefegcbeddcaaaed",
];

/// Whether a text of 16 to 40 bytes is made of words.
fn is_wordy(text: &[u8]) -> bool {
    text.split(|byte| !ALNUM.has(*byte)).map(wordiness).sum::<i32>() >= WORDY
}

/// The evidence for words in one part of letters and digits, in bits.
fn wordiness(part: &[u8]) -> i32 {
    let mut bits = 0;
    for (at, pair) in part.windows(2).enumerate() {
        let (first, second) = (pair[0], pair[1]);
        bits += match (LETTER.has(first), LETTER.has(second)) {
            (true, true) if LOWER.has(first) && UPPER.has(second) => -1,
            (true, true) => {
                let follows =
                    PAIRS[usize::from((first | 0x20) - b'a')][usize::from((second | 0x20) - b'a')];
                let capital = UPPER.has(first) && LOWER.has(second);
                let case = match (capital, at > 0 && UPPER.has(part[at - 1])) {
                    (true, true) => -2,
                    (true, false) => 0,
                    (false, _) => 1,
                };
                i32::from(follows) - i32::from(b'f') + case
            }
            (false, false) => 0,
            _ => -2,
        };
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_of_words() {
        for name in [
            "process.env.OPENAI_API_KEY",
            "this.configService.get",
            "your-api-key-goes-here",
            "very-long-name-of-a-css-class-42",
            "firmwareUpdateInProgressNow",
            "k8s-prod-eu-west-1-worker-node-03",
            "HTTPServerRequestHandler",
        ] {
            assert!(is_wordy(name.as_bytes()), "{name}");
            assert!(!is_value(name.as_bytes()), "{name}");
        }
    }

    #[test]
    fn placeholders_are_not_real() {
        for text in [
            "xxxxxxxxxxxxxxxxxxxxxxxx",
            "XXXX-XXXX-XXXX-XXXX",
            "YOUR_KEY_0123456789abcdef",
            "********",
            "....",
        ] {
            assert!(!is_real(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn hexadecimal_and_random_text_is_a_value() {
        for text in ["8f14e45fceea167a5a36dedd4bea2543", "qW3rT7yU9iO1pA5s", "a/9+Zk~3-_Qx.=Lm7"] {
            assert!(is_value(text.as_bytes()), "{text}");
        }
        assert!(!is_value(b"1234567890123456e10"));
    }
}
