//! An incident: something a person must look at. Pure data; no key is ever in it. Its identity is
//! computed from what it is about, so that what is found again is not an incident again. Each kind
//! has its constructor in `kinds`; nobody else can make an incident, or an identity.

pub mod kinds;

use crate::id::{IncidentId, KeyRef, ProjectId, ProviderKeyId};
use crate::moment::Moment;
use sha2::{Digest, Sha256};

words! {
    /// What kind of incident: a leaked key, what the detector of that name found, or a key to
    /// rotate.
    IncidentType {
        LeakedKey = "leaked_key", RapidAutomatedAccess = "rapid_automated_access",
        PotentialKeyTheft = "potential_key_theft", UnusuallyHighAccess = "unusually_high_access",
        RepeatedFailures = "repeated_failures", MassKeyReading = "mass_key_reading",
        NewAddress = "new_address", NewRole = "new_role", DormantKeyUsed = "dormant_key_used",
        RotationDue = "rotation_due", KeyBlocked = "key_blocked",
    }
}

words! {
    /// How urgent it is.
    Severity { Low = "low", Medium = "medium", High = "high", Critical = "critical" }
}

/// An incident before it is stored, made in `kinds`. `details` is a JSON object.
#[non_exhaustive]
pub struct Incident {
    /// Names the incident.
    pub id: IncidentId,
    /// What kind it is.
    pub kind: IncidentType,
    /// How urgent it is.
    pub severity: Severity,
    /// The project it is about.
    pub project_id: Option<ProjectId>,
    /// The key it is about.
    pub provider_key_id: Option<ProviderKeyId>,
    /// A JSON object for people to read, with `what` in it.
    pub details: String,
    /// When it was found.
    pub detected_at: Moment,
}

/// What listeners are told: which incident, and of what type. They read the row under their own
/// rights.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Notice {
    /// The incident.
    pub incident: IncidentId,
    /// What kind it is.
    pub kind: IncidentType,
}

impl Notice {
    /// The payload of the notification: a JSON object of id and type.
    pub fn payload(&self) -> String {
        format!(r#"{{"id":"{}","type":"{}"}}"#, self.incident, self.kind.word())
    }
}

impl Incident {
    /// The key it is about, where it is about one.
    pub fn key(&self) -> Option<KeyRef> {
        Some(KeyRef { project: self.project_id?, key: self.provider_key_id? })
    }

    /// What listeners are told of it.
    pub fn notice(&self) -> Notice {
        Notice { incident: self.id, kind: self.kind }
    }
}

/// The identity of the incident that is about exactly these parts (RFC 9562, version 8). A part
/// that is a key must come as its fingerprint.
fn identity(parts: &[&[u8]]) -> IncidentId {
    let mut digest = Sha256::new_with_prefix(b"watchllm_keys incident v1");
    for part in parts {
        digest.update((part.len() as u32).to_be_bytes());
        digest.update(part);
    }
    let mut id = [0; 16];
    id.copy_from_slice(&digest.finalize()[..16]);
    (id[6], id[8]) = (id[6] & 0x0f | 0x80, id[8] & 0x3f | 0x80);
    IncidentId::new(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_that_of_its_parts_and_their_borders() {
        assert_eq!(identity(&[b"ab", b"c"]), identity(&[b"ab", b"c"]));
        assert_ne!(identity(&[b"ab", b"c"]), identity(&[b"a", b"bc"]));
        assert_ne!(identity(&[b"ab"]), identity(&[b"ab", b""]));
        let id = *identity(&[]).bytes();
        assert_eq!((id[6] >> 4, id[8] >> 6), (8, 2));
    }

    #[test]
    fn a_notice_tells_id_and_type_and_nothing_else() {
        let notice =
            Notice { incident: IncidentId::new([0x1f; 16]), kind: IncidentType::LeakedKey };
        assert_eq!(
            notice.payload(),
            r#"{"id":"1f1f1f1f-1f1f-1f1f-1f1f-1f1f1f1f1f1f","type":"leaked_key"}"#
        );
    }
}
