//! Free text of callers, each kind with its length: keys masked, control characters made visible,
//! cut. Nothing here is ever refused. A note that is too long is cut, and a request that fails must
//! still be on record.

use super::text::{clean, cut};
use crate::trail::{Bounded, Shown};

/// Types of free text with their lengths in bytes.
macro_rules! free_text {
    ($($(#[$doc:meta])* $name:ident($most:literal);)+) => { $(
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// The most bytes that are kept.
            pub const MAX_BYTES: usize = $most;

            /// Masks the keys in a text, makes it visible and cuts it.
            pub fn clean(text: &str) -> $name {
                $name(clean(text, Self::MAX_BYTES))
            }

            /// Hides in it what `hide` finds, and cuts it again.
            pub fn without(self, hide: &mut dyn FnMut(&str) -> Option<String>) -> $name {
                match hide(&self.0) {
                    Some(hidden) => $name(cut(&hidden, Self::MAX_BYTES).to_owned()),
                    None => self,
                }
            }

            /// Shows what is kept.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Hands out what is kept.
            pub fn into_string(self) -> String {
                self.0
            }

            /// Takes it into an event; NULL for none.
            pub fn bounded(text: Option<&$name>) -> Bounded<$most> {
                Bounded::new(text.map($name::as_str))
            }
        }

        impl Shown for $name {
            fn shown(&self) -> &str {
                &self.0
            }
        }
    )+ };
}

free_text! {
    /// The application's number for the request that a call belongs to.
    RequestId(128);
    /// The program that sent the request.
    UserAgent(256);
    /// The name an application gives its session.
    ApplicationName(63);
    /// The subject that a session's claims name, as the trail shows it.
    ClaimsSub(128);
    /// What somebody says about an incident or a block.
    Note(500);
    /// Who reported a leaked key.
    ReportSource(500);
    /// The name of a column, a role, a database or a provider, as an error or an incident shows it.
    ShownName(63);
    /// The qualified name of a table, as an incident shows it.
    ShownTable(130);
    /// Where a scan found a key: a column, a file, an object of the catalog.
    PlaceName(250);
}

/// The name recorded for a change: the subject of trusted claims, or else a role.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangedBy<'a>(&'a str);

impl<'a> ChangedBy<'a> {
    /// The most bytes that are kept.
    pub const MAX_BYTES: usize = 128;

    /// Cuts the name of a subject or role. It is not masked, because the caller is known by it
    /// already.
    pub fn cut(name: &'a str) -> ChangedBy<'a> {
        ChangedBy(cut(name, Self::MAX_BYTES))
    }

    /// Shows what is kept.
    pub fn as_str(self) -> &'a str {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::examples::expand;

    #[test]
    fn each_kind_keeps_its_length() {
        let (long, wide) = ("x".repeat(1000), "鍵".repeat(1000));
        assert_eq!(RequestId::clean(&long).as_str(), &long[..128]);
        assert_eq!(UserAgent::clean(&long).as_str(), &long[..256]);
        assert_eq!(ApplicationName::clean(&long).as_str(), &long[..63]);
        assert_eq!(ClaimsSub::clean(&long).as_str(), &long[..128]);
        assert_eq!(Note::clean(&long).as_str(), &long[..500]);
        assert_eq!(ReportSource::clean(&long).as_str(), &long[..500]);
        assert_eq!(ShownName::clean(&long).as_str(), &long[..63]);
        assert_eq!(ShownTable::clean(&long).as_str(), &long[..130]);
        assert_eq!(PlaceName::clean(&long).as_str(), &long[..250]);
        assert_eq!(RequestId::clean(&wide).as_str().len(), 126);
        assert_eq!(Note::clean(&wide).as_str().len(), 498);
        assert_eq!(ChangedBy::cut(&wide).as_str().len(), 126);
        assert_eq!(Note::clean("").as_str(), "");
        assert_eq!(Note::clean(&long[..500]).into_string(), long[..500]);
    }

    #[test]
    fn a_key_or_a_line_end_does_not_stay() {
        let note = Note::clean(&format!("leaked\0 in\n{}", expand("sk-proj-<60>")));
        assert_eq!(note.as_str(), "leaked? in?sk-proj-...[REDACTED]");
    }

    #[test]
    fn an_event_takes_all_of_it() {
        let wide = "鍵".repeat(1000);
        let agent = UserAgent::clean(&wide);
        assert_eq!(UserAgent::bounded(Some(&agent)).get(), Some(agent.as_str()));
        assert_eq!(UserAgent::bounded(None).get(), None);
    }
}
