//! Ids: sixteen bytes each, and a type for each kind of thing. So a project's id can never stand
//! where a key's belongs. `bytes()` alone turns one into plain bytes: for hashing and sealing, and
//! for SQL's uuids (src/store).
#![forbid(unsafe_code)]

use std::fmt;

/// What every id can do: for code that makes ids, and for code that passes them to SQL and back.
pub trait Id: Copy {
    /// The id that these bytes are.
    fn from_bytes(bytes: [u8; 16]) -> Self;
    /// Its bytes.
    fn to_bytes(self) -> [u8; 16];
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)+) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id of nothing (RFC 9562, nil): no row has it, and it sorts before all others.
            pub const NIL: $name = $name([0; 16]);

            /// The id that these bytes are.
            pub const fn new(bytes: [u8; 16]) -> $name {
                $name(bytes)
            }

            /// Its bytes, in the order in which people read them.
            pub const fn bytes(&self) -> &[u8; 16] {
                &self.0
            }
        }

        impl Id for $name {
            fn from_bytes(bytes: [u8; 16]) -> $name {
                $name(bytes)
            }

            fn to_bytes(self) -> [u8; 16] {
                self.0
            }
        }

        /// As people write a uuid: lower case, with hyphens.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                hyphened(&self.0, f)
            }
        }
    )+};
}

ids! {
    /// A project: a tenant of the vault.
    ProjectId
    /// A provider key; its versions share the id.
    ProviderKeyId
    /// An event of the audit trail.
    EventId
    /// An incident.
    IncidentId
    /// A database that writes a trail. A copy of it gets another.
    IdentityId
    /// A table that was adopted for its projects.
    AdoptionId
}

/// A provider key where it lives: its project and its own id.
///
/// ```
/// use watchllm_core::id::{KeyRef, ProjectId, ProviderKeyId};
/// let (project, key) = (ProjectId::new([1; 16]), ProviderKeyId::new([2; 16]));
/// let place = KeyRef { project: project, key: key };
/// ```
///
/// Swapped, it would be a key of another tenant. So the same does not compile:
///
/// ```compile_fail,E0308
/// use watchllm_core::id::{KeyRef, ProjectId, ProviderKeyId};
/// let (project, key) = (ProjectId::new([1; 16]), ProviderKeyId::new([2; 16]));
/// let place = KeyRef { project: key, key: project };
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct KeyRef {
    /// The project it belongs to.
    pub project: ProjectId,
    /// Its own id.
    pub key: ProviderKeyId,
}

impl KeyRef {
    /// No key: it sorts before all of them.
    pub const NIL: KeyRef = KeyRef { project: ProjectId::NIL, key: ProviderKeyId::NIL };
}

fn hyphened(bytes: &[u8; 16], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (at, byte) in bytes.iter().enumerate() {
        let hyphen = if matches!(at, 4 | 6 | 8 | 10) { "-" } else { "" };
        write!(f, "{hyphen}{byte:02x}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_written_as_a_uuid() {
        let bytes = std::array::from_fn(|i| i as u8 * 0x11);
        let written = "00112233-4455-6677-8899-aabbccddeeff";
        assert_eq!(ProjectId::new(bytes).to_string(), written);
        assert_eq!(ProjectId::from_bytes(bytes).to_bytes(), bytes);
    }

    #[test]
    fn keys_sort_by_project_first() {
        let of = |project, key| KeyRef {
            project: ProjectId::new([project; 16]),
            key: ProviderKeyId::new([key; 16]),
        };
        assert!(KeyRef::NIL < of(0, 1) && of(0, 1) < of(1, 0) && of(1, 0) < of(1, 1));
    }
}
