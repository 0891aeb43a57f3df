//! A provider key as its caller gives it: parsed on arrival, then sealed or compared, never shown.
//! It cannot be printed, copied or compared by accident, and is wiped when dropped. A text that is
//! no key (`no_key`) is refused, and nothing is trimmed.

use super::no_key::what_is_wrong;
use super::{Invalid, ProviderSlug};
use crate::crypto::Secret;
use crate::redact;

/// The vendor's key: 1 to 4,096 bytes of visible ASCII that are no placeholder and no mask; zeroed
/// on drop.
pub struct ApiKey(Secret);

impl ApiKey {
    /// The most bytes of a key.
    pub const MAX_BYTES: usize = 4096;
    /// A name that contains a key of so many bytes is taken to contain it on purpose. Shorter keys
    /// occur in many words.
    const TELLING: usize = 8;

    /// Parses a key from an argument, into memory that is wiped.
    pub fn parse(text: &str) -> Result<ApiKey, Invalid> {
        check(text)?;
        Ok(ApiKey(Secret::new(text.as_bytes().to_vec())))
    }

    /// Takes over a secret that was opened elsewhere, if it can be a key.
    pub fn from_secret(secret: Secret) -> Result<ApiKey, Invalid> {
        check(std::str::from_utf8(secret.expose()).map_err(|_| Invalid::KeyNotUtf8)?)?;
        Ok(ApiKey(secret))
    }

    /// Shows the key as a secret, to seal it and to take its fingerprint.
    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// Builds the hint, the part of the key that may be shown.
    pub fn hint(&self) -> KeyHint {
        KeyHint::of(&self.0)
    }

    /// Names the provider whose keys have this shape, if it is another than this one.
    pub fn provider_other_than(&self, provider: &ProviderSlug) -> Option<&'static str> {
        redact::provider_of(as_text(&self.0)).filter(|other| *other != provider.as_str())
    }

    /// Refuses a text that is kept in clear beside the key and holds the key. No rule recognises a
    /// key made of words, so the texts are compared.
    pub fn stays_out_of(&self, text: &str) -> Result<(), Invalid> {
        let (key, text) = (self.0.expose(), text.as_bytes());
        let holds = key.len() >= Self::TELLING && text.windows(key.len()).any(|part| part == key);
        if holds || text == key { Err(Invalid::NamesItsKey) } else { Ok(()) }
    }
}

/// The part of a key that may be shown (`redact::key_hint`), at most 40 bytes.
pub struct KeyHint(String);

impl KeyHint {
    /// Builds the hint of a key. It is empty if the bytes are no text.
    pub fn of(key: &Secret) -> KeyHint {
        KeyHint(std::str::from_utf8(key.expose()).map(redact::key_hint).unwrap_or_default())
    }

    /// Shows the hint.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check(text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        Err(Invalid::KeyEmpty)
    } else if text.len() > ApiKey::MAX_BYTES {
        Err(Invalid::KeyTooLong)
    } else {
        what_is_wrong(text).map_or(Ok(()), Err)
    }
}

fn as_text(key: &Secret) -> &str {
    std::str::from_utf8(key.expose()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::lacks;
    use crate::redact::examples::expand;
    use proptest::prelude::*;

    fn wrong(text: &str) -> Option<Invalid> {
        let (parsed, taken) = (ApiKey::parse(text), ApiKey::from_secret(text.to_owned().into()));
        assert_eq!(parsed.as_ref().err(), taken.as_ref().err(), "{text:?}");
        parsed.err()
    }

    #[test]
    fn a_key_is_bounded_and_of_visible_ascii() {
        for good in ["k", "sk-proj-abc", "a/b+c==", "id:secret", "!#%&()*+-.:<>?@^_{|}~"] {
            assert_eq!(wrong(good), None, "{good}");
        }
        assert_eq!(wrong(""), Some(Invalid::KeyEmpty));
        for spaced in [" k", "k\n", "k\r\n", "a b", "\t", "a\u{a0}b", "a\u{2028}b"] {
            assert_eq!(wrong(spaced), Some(Invalid::KeyHasWhiteSpace), "{spaced:?}");
        }
        assert_eq!(wrong("a\0b"), Some(Invalid::KeyHasNul));
        for odd in ["\u{feff}k", "a\u{200b}b", "a\u{ad}b", "\u{1b}[31mk", "k\u{7f}", "sk-\u{430}b"]
        {
            assert_eq!(wrong(odd), Some(Invalid::KeyNotAscii), "{odd:?}");
        }
    }

    #[test]
    fn the_limit_counts_bytes() {
        let long = "x7".repeat(ApiKey::MAX_BYTES / 2);
        assert_eq!(wrong(&long), None);
        assert_eq!(wrong(&(long + "x")), Some(Invalid::KeyTooLong));
    }

    #[test]
    fn bytes_that_are_no_text_are_no_key() {
        let opened = ApiKey::from_secret(Secret::new(vec![b'k', 0xff]));
        assert_eq!(opened.err(), Some(Invalid::KeyNotUtf8));
        assert_eq!(KeyHint::of(&Secret::new(vec![0xff; 64])).as_str(), "");
    }

    #[test]
    fn a_key_cannot_be_printed_copied_or_compared_by_accident() {
        lacks!(ApiKey, std::fmt::Debug, std::fmt::Display, Clone, PartialEq);
    }

    #[test]
    fn a_key_stays_out_of_what_is_kept_in_clear() {
        let key = ApiKey::parse("correct-horse").unwrap();
        for holds in ["correct-horse", "the correct-horse key", "correct-horse-battery"] {
            assert_eq!(key.stays_out_of(holds), Err(Invalid::NamesItsKey), "{holds}");
        }
        for apart in ["", "correct", "Correct-Horse", "correct-hors"] {
            assert_eq!(key.stays_out_of(apart), Ok(()), "{apart}");
        }
        // Short keys occur in many words, so only a name that equals the key is refused.
        let short = ApiKey::parse("key-one").unwrap();
        assert_eq!(short.stays_out_of("my key-one"), Ok(()));
        assert_eq!(short.stays_out_of("key-one"), Err(Invalid::NamesItsKey));
    }

    #[test]
    fn a_shape_of_another_provider_is_named() {
        let [openai, vendor] = ["openai", "vendor"].map(|slug| ProviderSlug::parse(slug).unwrap());
        let key = ApiKey::parse(&expand("sk-proj-<74>wxyz")).unwrap();
        assert_eq!(key.provider_other_than(&openai), None);
        assert_eq!(key.provider_other_than(&vendor), Some("openai"));
        assert_eq!(key.hint().as_str(), "sk-proj-…wxyz");
        assert_eq!(ApiKey::parse("k").unwrap().provider_other_than(&vendor), None);
    }

    proptest! {
        #[test]
        fn a_parsed_key_is_the_text_that_was_given(text in any::<String>()) {
            if let Ok(key) = ApiKey::parse(&text) {
                prop_assert_eq!(key.secret().expose(), text.as_bytes());
                prop_assert!((1..=ApiKey::MAX_BYTES).contains(&text.len()));
                prop_assert!(text.bytes().all(|byte| byte.is_ascii_graphic()));
                prop_assert_eq!(key.stays_out_of(&text), Err(Invalid::NamesItsKey));
            }
        }
    }
}
