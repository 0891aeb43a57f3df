//! What a caller is told of bad input: a message and a hint for each `Invalid` of the room `input`.
//! All are bad input (22023), except a missing value (22004).

use super::Error;
use crate::input::Invalid;

const KEY_ALONE: &str = "Pass the key alone, without a file around it.";
const NAME: &str = "Use 1 to 100 bytes of text that is no key.";

impl From<Invalid> for Error {
    #[expect(clippy::too_many_lines, reason = "a table: a row for each fault")]
    fn from(invalid: Invalid) -> Error {
        use Invalid::*;
        let (message, hint) = match invalid {
            Missing(argument) => return Error::NullInput(argument),
            KeyEmpty => ("the API key is empty", "Pass the key as the vendor shows it."),
            KeyTooLong => ("the API key is longer than 4096 bytes", KEY_ALONE),
            KeyHasWhiteSpace => (
                "the API key contains white space",
                "Pass the key alone, without spaces or line ends.",
            ),
            KeyHasNul => ("the API key holds a NUL", KEY_ALONE),
            KeyNotUtf8 => ("the API key is not UTF-8 text", KEY_ALONE),
            ProviderNotSlug | ProviderIsKey => (
                "the provider is not a slug",
                "Use 1 to 63 of a-z, 0-9, '-' and '_', beginning with a letter or digit, such as \
                 openai.",
            ),
            NameEmpty | NameTooLong | NameInvisible => {
                ("the name is empty, too long or holds invisible characters", NAME)
            }
            NameIsKey => ("the name looks like a key", NAME),
            NamesItsKey => {
                ("the name or the provider is the key itself", "Name the key by what it is for.")
            }
            PriorityTooLow => ("the priority is below 1", "1 is tried first."),
            RotationInterval => (
                "rotation_interval or a part of it is negative or longer than a hundred years",
                "Such as '90 days'; '0' takes it back, and the settings hold again.",
            ),
            SubjectEmpty | SubjectTooLong | SubjectIsKey => {
                ("this is not a subject", "Give the sub claim of the user's token: 1 to 128 bytes.")
            }
            AdoptedOwner => (
                "the owner of an adopted project is empty or too long",
                "An owner is the sub claim of a user's token: 1 to 128 bytes, or NULL.",
            ),
            NotOneMember => {
                ("exactly one of subject and role_name must be given", "Name one member a call.")
            }
            CallerKind => ("kind is no kind of caller", "One of: role, subject, address."),
            NotBack => {
                ("since is not a time back from now", "Give an interval such as '24 hours'.")
            }
            MaxRows => ("max_rows is not between 1 and 10000", "The newest rows are shown first."),
            NotUuid => (
                "an id is not a uuid",
                "Such as '6f1c2a3e-8a4b-4c1d-9e2f-0a1b2c3d4e5f', from watchllm.provider_keys.",
            ),
            HoursBack => ("hours_back is not between 1 and 744", "744 hours are 31 days."),
        };
        Error::BadInput(message, hint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input;
    use crate::trail::CallerKind;

    /// A number in a message is the one that counts.
    #[test]
    fn messages_name_the_limits_that_hold() {
        for (invalid, limit) in [
            (Invalid::KeyTooLong, input::ApiKey::MAX_BYTES),
            (Invalid::ProviderNotSlug, input::ProviderSlug::MAX_BYTES),
            (Invalid::NameTooLong, input::KeyName::MAX_BYTES),
            (Invalid::NameTooLong, input::ProjectName::MAX_BYTES),
            (Invalid::SubjectTooLong, input::JwtSubject::MAX_BYTES),
            (Invalid::AdoptedOwner, input::JwtSubject::MAX_BYTES),
            (Invalid::MaxRows, input::MaxRows::MOST as usize),
            (Invalid::HoursBack, input::HoursBack::MOST as usize),
        ] {
            let error = Error::from(invalid);
            let said = format!("{} {}", error.message(), error.hint().unwrap_or_default());
            let numbers = said.split(|c: char| !c.is_ascii_digit());
            assert!(numbers.into_iter().any(|number| number == limit.to_string()), "{said}");
        }
    }

    #[test]
    fn every_kind_of_caller_is_named() {
        let hint = Error::from(Invalid::CallerKind).hint().unwrap_or_default();
        assert!(CallerKind::ALL.iter().all(|kind| hint.contains(kind.word())), "{hint}");
    }

    #[test]
    fn a_missing_value_is_not_merely_bad() {
        assert_eq!(Error::from(Invalid::Missing("provider")), Error::NullInput("provider"));
        assert_eq!(
            Error::from(Invalid::NameIsKey),
            Error::BadInput("the name looks like a key", NAME)
        );
    }
}
