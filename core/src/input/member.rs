//! People and roles that a caller names: a project's owner, its members, a blocked caller. Subjects
//! are compared exactly, so a bad one is refused and never cut.

use super::Invalid;
use crate::redact;
use crate::trail::{Bounded, CallerKind};

/// The `sub` claim of a user's token: 1 to 128 bytes that are no key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JwtSubject(String);

impl JwtSubject {
    /// The most bytes of a subject.
    pub const MAX_BYTES: usize = 128;

    /// Parses a subject.
    pub fn parse(text: &str) -> Result<JwtSubject, Invalid> {
        if text.is_empty() {
            Err(Invalid::SubjectEmpty)
        } else if text.len() > Self::MAX_BYTES {
            Err(Invalid::SubjectTooLong)
        } else if redact::contains_key(text) {
            Err(Invalid::SubjectIsKey)
        } else {
            Ok(JwtSubject(text.to_owned()))
        }
    }

    /// Parses the owner that an adopted table names. An owner that looks like a key is accepted:
    /// the application's rows are not refused for the names of its users.
    pub fn adopted(text: String) -> Result<JwtSubject, Invalid> {
        if (1..=Self::MAX_BYTES).contains(&text.len()) {
            Ok(JwtSubject(text))
        } else {
            Err(Invalid::AdoptedOwner)
        }
    }

    /// Shows the subject.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The name of a database role. The catalog knows whether there is such a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleName(String);

impl RoleName {
    /// Shows the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Somebody who belongs to a project: the subject of claims, or a database role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// The subject of trusted claims.
    Subject(JwtSubject),
    /// Everybody with the privileges of this role.
    Role(RoleName),
}

impl Member {
    /// Parses a member. Exactly one of the two names is given.
    pub fn parse(subject: Option<&str>, role_name: Option<&str>) -> Result<Member, Invalid> {
        match (subject, role_name) {
            (Some(subject), None) => JwtSubject::parse(subject).map(Member::Subject),
            (None, Some(role)) => Ok(Member::Role(RoleName(role.to_owned()))),
            _ => Err(Invalid::NotOneMember),
        }
    }

    /// The subject, if it is one.
    pub fn subject(&self) -> Option<&str> {
        match self {
            Member::Subject(subject) => Some(subject.as_str()),
            Member::Role(_) => None,
        }
    }

    /// The role, if it is one.
    pub fn role_name(&self) -> Option<&RoleName> {
        match self {
            Member::Subject(_) => None,
            Member::Role(role) => Some(role),
        }
    }
}

/// A caller that an administrator names, to unblock it. Only a blocked caller is acted on, so any
/// text is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedCaller {
    kind: CallerKind,
    subject: String,
}

impl NamedCaller {
    /// Parses the kind of a caller and who it is.
    pub fn parse(kind: Option<&str>, subject: Option<&str>) -> Result<NamedCaller, Invalid> {
        let word = kind.ok_or(Invalid::Missing("kind"))?;
        let kind = CallerKind::ALL.iter().copied().find(|kind| kind.word() == word);
        let kind = kind.ok_or(Invalid::CallerKind)?;
        let subject = subject.ok_or(Invalid::Missing("subject"))?.to_owned();
        Ok(NamedCaller { kind, subject })
    }

    /// What kind of caller it is.
    pub fn kind(&self) -> CallerKind {
        self.kind
    }

    /// Who it is, as it was blocked.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Takes the caller into an event.
    pub fn bounded(&self) -> (CallerKind, Bounded<{ JwtSubject::MAX_BYTES }>) {
        (self.kind, Bounded::new(Some(&self.subject)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::examples::expand;

    #[test]
    fn a_subject_is_bounded_and_no_key() {
        let (longest, wide) = ("u".repeat(JwtSubject::MAX_BYTES), "ü".repeat(64));
        for good in ["u-1", " ", "größe 日本", "a\nb", &longest, &wide] {
            assert_eq!(JwtSubject::parse(good).unwrap().as_str(), good);
            assert_eq!(JwtSubject::adopted(good.into()).unwrap().as_str(), good);
        }
        assert_eq!(JwtSubject::parse(""), Err(Invalid::SubjectEmpty));
        for long in [longest + "u", wide + "u"] {
            assert_eq!(JwtSubject::parse(&long), Err(Invalid::SubjectTooLong));
            assert_eq!(JwtSubject::adopted(long), Err(Invalid::AdoptedOwner));
        }
        assert_eq!(JwtSubject::adopted(String::new()), Err(Invalid::AdoptedOwner));
        let key = expand("sk-proj-<60>");
        assert_eq!(JwtSubject::parse(&key), Err(Invalid::SubjectIsKey));
        assert!(JwtSubject::adopted(key).is_ok());
    }

    #[test]
    fn a_member_has_one_name() {
        let subject = Member::parse(Some("u-1"), None).unwrap();
        assert_eq!((subject.subject(), subject.role_name()), (Some("u-1"), None));
        let role = Member::parse(None, Some("app")).unwrap();
        assert_eq!((role.subject(), role.role_name().map(RoleName::as_str)), (None, Some("app")));
        assert_eq!(Member::parse(None, None), Err(Invalid::NotOneMember));
        assert_eq!(Member::parse(Some("u-1"), Some("app")), Err(Invalid::NotOneMember));
        assert_eq!(Member::parse(Some(""), None), Err(Invalid::SubjectEmpty));
    }

    #[test]
    fn a_caller_is_named_by_kind_and_subject() {
        for kind in CallerKind::ALL {
            let caller = NamedCaller::parse(Some(kind.word()), Some("x")).unwrap();
            assert_eq!((caller.kind(), caller.subject()), (*kind, "x"));
            assert_eq!(caller.bounded().1.get(), Some("x"));
        }
        for (kind, subject, why) in [
            (None, None, Invalid::Missing("kind")),
            (Some("Role"), None, Invalid::CallerKind),
            (Some(""), Some("x"), Invalid::CallerKind),
            (Some("role"), None, Invalid::Missing("subject")),
        ] {
            assert_eq!(NamedCaller::parse(kind, subject), Err(why));
        }
    }
}
