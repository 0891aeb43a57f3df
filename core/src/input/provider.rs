//! The vendor of a key. It is a slug, so that no key fits in its place. A caller who swaps provider
//! and key must not leave the key in clear.

use super::Invalid;
use crate::redact;
use crate::trail::{Bounded, Shown};

/// A provider: 1 to 63 of a-z, 0-9, `-` and `_`, beginning with a letter or digit.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProviderSlug(String);

impl ProviderSlug {
    /// The most bytes of a provider.
    pub const MAX_BYTES: usize = 63;

    /// Parses a provider.
    pub fn parse(text: &str) -> Result<ProviderSlug, Invalid> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let is_slug = (1..=Self::MAX_BYTES).contains(&text.len())
            && text.starts_with(plain)
            && text.chars().all(|c| plain(c) || c == '-' || c == '_');
        if !is_slug {
            Err(Invalid::ProviderNotSlug)
        } else if redact::contains_key(text) {
            Err(Invalid::ProviderIsKey)
        } else {
            Ok(ProviderSlug(text.to_owned()))
        }
    }

    /// Takes a value of our own column, which was parsed when it was stored. If somebody tampered
    /// with the row, the text is kept, but the envelope, which is bound to it, does not open.
    pub fn stored(column: String) -> ProviderSlug {
        ProviderSlug(column)
    }

    /// Shows the slug.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Hands out the slug.
    pub fn into_string(self) -> String {
        self.0
    }

    /// Takes the slug into an event.
    pub fn bounded(&self) -> Bounded<{ Self::MAX_BYTES }> {
        Bounded::new(Some(&self.0))
    }
}

impl Shown for ProviderSlug {
    fn shown(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::examples::expand;
    use proptest::prelude::*;

    #[test]
    fn providers_are_slugs() {
        let longest = "a".repeat(ProviderSlug::MAX_BYTES);
        for good in ["openai", "azure-openai", "x", "9router", "a_b", &longest] {
            assert_eq!(ProviderSlug::parse(good).unwrap().as_str(), good);
        }
        let long = longest.clone() + "a";
        for bad in ["", "OpenAI", "-a", "_a", "a b", " a", "a\n", "a\0", "ünï", "a.b", &long] {
            assert_eq!(ProviderSlug::parse(bad), Err(Invalid::ProviderNotSlug), "{bad:?}");
        }
    }

    #[test]
    fn a_slug_that_is_a_key_is_none() {
        let key = expand("sk-proj-<low 48>");
        assert_eq!(ProviderSlug::parse(&key), Err(Invalid::ProviderIsKey));
    }

    proptest! {
        #[test]
        fn a_slug_is_ascii_and_fits_an_event(text in "[a-z0-9_-]{0,70}") {
            if let Ok(slug) = ProviderSlug::parse(&text) {
                let bounded = slug.bounded();
                prop_assert_eq!(bounded.get(), Some(text.as_str()));
            }
        }
    }
}
