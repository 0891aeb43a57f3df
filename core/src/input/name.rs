//! Names that people give, of keys and of projects. They are kept in clear and read by many, so a
//! name that is a key is refused. Names from elsewhere, by an import or an application's own table,
//! are cleaned instead.

use super::Invalid;
use super::text::{clean, cut};
use crate::id::ProjectId;
use crate::redact;

/// The most bytes of either kind of name.
const MAX_BYTES: usize = 100;

/// The name of a key, unique within its project and provider.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct KeyName(String);

impl KeyName {
    /// The most bytes of a key's name.
    pub const MAX_BYTES: usize = MAX_BYTES;

    /// Parses a name: 1 to 100 bytes, no key, nothing that does not print.
    pub fn parse(text: &str) -> Result<KeyName, Invalid> {
        name(text).map(KeyName)
    }

    /// Makes a name of another application's text. None if nothing is left that can be a name.
    pub fn cleaned(text: &str) -> Option<KeyName> {
        cleaned(text).map(KeyName)
    }

    /// Makes a name only to be shown: cleaned, even if it cannot be stored.
    pub fn shown(text: &str) -> String {
        clean(text, MAX_BYTES)
    }

    /// The same name with ` (2)` and so on behind it, cut to fit.
    pub fn numbered(&self, number: u32) -> KeyName {
        let end = format!(" ({number})");
        KeyName(format!("{}{end}", cut(&self.0, MAX_BYTES - end.len())))
    }

    /// Takes a value of our own column. It was parsed when it was stored.
    pub fn stored(column: String) -> KeyName {
        KeyName(column)
    }

    /// Shows the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Hands out the name.
    pub fn into_string(self) -> String {
        self.0
    }
}

/// The name of a project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProjectName(String);

impl ProjectName {
    /// The most bytes of a project's name.
    pub const MAX_BYTES: usize = MAX_BYTES;

    /// Parses a name, as a key's.
    pub fn parse(text: &str) -> Result<ProjectName, Invalid> {
        name(text).map(ProjectName)
    }

    /// Makes a name of the application's text, or of its project's id if nothing is left of the
    /// text.
    pub fn adopted(text: Option<&str>, id: ProjectId) -> ProjectName {
        ProjectName(text.and_then(cleaned).unwrap_or_else(|| id.to_string()))
    }

    /// Shows the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn name(text: &str) -> Result<String, Invalid> {
    if text.trim().is_empty() {
        Err(Invalid::NameEmpty)
    } else if text.len() > MAX_BYTES {
        Err(Invalid::NameTooLong)
    } else if !redact::is_visible(text) {
        Err(Invalid::NameInvisible)
    } else if redact::contains_key(text) {
        Err(Invalid::NameIsKey)
    } else {
        Ok(text.to_owned())
    }
}

fn cleaned(text: &str) -> Option<String> {
    name(&clean(text.trim(), MAX_BYTES)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::examples::expand;
    use proptest::prelude::*;

    #[test]
    fn a_name_is_bounded_visible_and_no_key() {
        for good in ["x", "production 日本", " padded ", &"n".repeat(100), &"ü".repeat(50)] {
            assert_eq!(KeyName::parse(good).unwrap().as_str(), good);
            assert_eq!(ProjectName::parse(good).unwrap().as_str(), good);
        }
        let key = expand("sk-proj-<60>");
        for (bad, why) in [
            ("", Invalid::NameEmpty),
            ("  ", Invalid::NameEmpty),
            ("\u{3000}\n", Invalid::NameEmpty),
            (&"n".repeat(101), Invalid::NameTooLong),
            (&"ü".repeat(51), Invalid::NameTooLong),
            ("a\nb", Invalid::NameInvisible),
            ("a\0b", Invalid::NameInvisible),
            ("a\u{202e}b", Invalid::NameInvisible),
            (&key, Invalid::NameIsKey),
            (&format!("my {key}"), Invalid::NameIsKey),
        ] {
            assert_eq!(KeyName::parse(bad), Err(why), "{bad:?}");
            assert_eq!(ProjectName::parse(bad), Err(why), "{bad:?}");
        }
    }

    #[test]
    fn anothers_name_is_cleaned() {
        let cleaned = |text: &str| KeyName::cleaned(text).map(|name| name.as_str().to_owned());
        assert_eq!(cleaned(" main\t").as_deref(), Some("main"));
        assert_eq!(cleaned("a\nb").as_deref(), Some("a?b"));
        assert_eq!(cleaned(&"ü".repeat(60)), Some("ü".repeat(50)));
        let key = expand("sk-proj-<60>");
        assert_eq!(cleaned(&key).as_deref(), Some("sk-proj-...[REDACTED]"));
        assert_eq!(cleaned(" \n\t"), None);
        assert_eq!(cleaned(""), None);
        let adopted = |text| ProjectName::adopted(text, ProjectId::NIL).as_str().to_owned();
        assert_eq!(adopted(Some(" shop ")), "shop");
        for nothing in [Some("  "), Some(""), None] {
            assert_eq!(adopted(nothing), ProjectId::NIL.to_string());
        }
    }

    #[test]
    fn a_numbered_name_fits() {
        let numbered = |text: &str| KeyName::parse(text).unwrap().numbered(2).as_str().to_owned();
        assert_eq!(numbered("main"), "main (2)");
        assert_eq!(numbered(&"n".repeat(100)), "n".repeat(96) + " (2)");
        assert_eq!(numbered(&"ü".repeat(49)), "ü".repeat(48) + " (2)");
        assert_eq!(numbered(&"鍵".repeat(33)), "鍵".repeat(32) + " (2)");
    }

    proptest! {
        #[test]
        fn what_was_cleaned_is_a_name(text in any::<String>(), number in any::<u32>()) {
            if let Some(name) = KeyName::cleaned(&text) {
                prop_assert_eq!(KeyName::parse(name.as_str()), Ok(name.clone()));
                prop_assert!(name.numbered(number).as_str().len() <= MAX_BYTES);
            }
            prop_assert!(KeyName::shown(&text).len() <= MAX_BYTES);
        }
    }
}
