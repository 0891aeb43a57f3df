//! The faults of something a caller gave: one value each, without the text itself, which may be a
//! key. The extension's table of errors holds SQLSTATE, message and hint of each.

/// The fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// An argument that is needed is NULL; its name.
    Missing(&'static str),
    /// An API key of no bytes.
    KeyEmpty,
    /// An API key of more than `ApiKey::MAX_BYTES`.
    KeyTooLong,
    /// An API key with a space, a line end or other white space in it.
    KeyHasWhiteSpace,
    /// An API key with a NUL, which no text of PostgreSQL can hold.
    KeyHasNul,
    /// An API key of bytes that are no UTF-8.
    KeyNotUtf8,
    /// A provider that is no slug of at most `ProviderSlug::MAX_BYTES`.
    ProviderNotSlug,
    /// A slug that has the shape of a key.
    ProviderIsKey,
    /// A name of nothing but white space.
    NameEmpty,
    /// A name of more than `KeyName::MAX_BYTES`.
    NameTooLong,
    /// A name with characters that do not show.
    NameInvisible,
    /// A name that holds something of the shape of a key.
    NameIsKey,
    /// A name or a provider that holds the very key it is given with.
    NamesItsKey,
    /// A text that is no uuid.
    NotUuid,
    /// A priority below 1.
    PriorityTooLow,
    /// A rotation interval below zero or above `RotationInterval::MAX_MICROS`.
    RotationInterval,
    /// A subject of no bytes.
    SubjectEmpty,
    /// A subject of more than `JwtSubject::MAX_BYTES`.
    SubjectTooLong,
    /// A subject that holds something of the shape of a key.
    SubjectIsKey,
    /// An adopted project's owner of no bytes or more than `JwtSubject::MAX_BYTES`.
    AdoptedOwner,
    /// Neither or both of a member's two names are given.
    NotOneMember,
    /// A word that is no kind of caller.
    CallerKind,
    /// An interval that leads into the future.
    NotBack,
    /// A number of rows outside of 1 to `MaxRows::MOST`.
    MaxRows,
    /// A number of hours outside of 1 to `HoursBack::MOST`.
    HoursBack,
}
