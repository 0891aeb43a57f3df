//! A key to be stored: the caller's arguments, and the parsed values. Texts that are kept in clear
//! beside the key are compared with the key.

use super::{ApiKey, Invalid, KeyName, Priority, ProviderSlug};

/// A key to be stored, as its caller gives it.
#[derive(Clone, Copy, Default)]
pub struct GivenKey<'a> {
    /// The provider's slug.
    pub provider: Option<&'a str>,
    /// The key in clear.
    pub api_key: Option<&'a str>,
    /// A name, if it has one.
    pub name: Option<&'a str>,
    /// Its priority. NULL means the lowest free one.
    pub priority: Option<i32>,
}

/// A key to be stored, parsed.
pub struct NewKey {
    /// The provider's slug.
    pub provider: ProviderSlug,
    /// The key in clear.
    pub api_key: ApiKey,
    /// Its name, which is not the key.
    pub name: Option<KeyName>,
    /// Its priority. None means the lowest free one.
    pub priority: Option<Priority>,
}

impl NewKey {
    /// Parses a key with everything that is stored beside it.
    pub fn parse(given: GivenKey) -> Result<NewKey, Invalid> {
        let provider = given.provider.ok_or(Invalid::Missing("provider"))?;
        let provider = ProviderSlug::parse(provider)?;
        let api_key = ApiKey::parse(given.api_key.ok_or(Invalid::Missing("api_key"))?)?;
        let name = given.name.map(KeyName::parse).transpose()?;
        name.as_ref().map_or(Ok(()), |name| api_key.stays_out_of(name.as_str()))?;
        api_key.stays_out_of(provider.as_str())?;
        let priority = given.priority.map(Priority::parse).transpose()?;
        Ok(NewKey { provider, api_key, name, priority })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: GivenKey = GivenKey {
        provider: Some("openai"),
        api_key: Some("correct-horse"),
        name: Some("main"),
        priority: Some(1),
    };

    #[test]
    fn a_key_is_parsed_with_what_stands_beside_it() {
        let Ok(new) = NewKey::parse(GOOD) else { panic!("refused") };
        assert_eq!(new.provider.as_str(), "openai");
        assert_eq!(new.api_key.secret().expose(), b"correct-horse");
        assert_eq!(new.name.map(|name| name.as_str().to_owned()).as_deref(), Some("main"));
        assert_eq!(new.priority.map(Priority::number), Some(1));
        let bare = NewKey::parse(GivenKey { name: None, priority: None, ..GOOD });
        assert!(bare.is_ok_and(|new| new.name.is_none() && new.priority.is_none()));
    }

    #[test]
    fn the_first_thing_that_is_wrong_is_said() {
        let none = GivenKey::default();
        for (given, why) in [
            (none, Invalid::Missing("provider")),
            (GivenKey { provider: Some("O"), ..none }, Invalid::ProviderNotSlug),
            (GivenKey { api_key: None, ..GOOD }, Invalid::Missing("api_key")),
            (GivenKey { api_key: Some(""), name: Some(""), ..GOOD }, Invalid::KeyEmpty),
            (GivenKey { name: Some(""), priority: Some(0), ..GOOD }, Invalid::NameEmpty),
            (
                GivenKey { name: Some("correct-horse"), priority: Some(0), ..GOOD },
                Invalid::NamesItsKey,
            ),
            (
                GivenKey { provider: Some("acme"), api_key: Some("acme"), ..GOOD },
                Invalid::NamesItsKey,
            ),
            (GivenKey { api_key: Some("your-key"), ..GOOD }, Invalid::KeyIsPlaceholder),
            (GivenKey { priority: Some(0), ..GOOD }, Invalid::PriorityTooLow),
        ] {
            assert_eq!(NewKey::parse(given).err(), Some(why));
        }
    }
}
