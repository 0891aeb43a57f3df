//! The detectors: what each looks for, how urgent its incident is, and whom it is about. Their
//! names are the types of incidents (trail/incident) and stand in `anomaly_action`
//! (settings/action).

use crate::id::KeyRef;
use crate::trail::incident::kinds::Whom;
use crate::trail::{CallerKind, IncidentType, Severity, words};
use std::rc::Rc;

words! {
    /// What is looked for.
    Detector {
        RapidAccess = "rapid_automated_access", Theft = "potential_key_theft", UnusuallyHigh = "unusually_high_access",
        Failures = "repeated_failures", MassReading = "mass_key_reading", NewAddress = "new_address",
        NewRole = "new_role", DormantKey = "dormant_key_used",
    }
}

/// Whom an incident of the watch is about.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Subject {
    Key(KeyRef),
    Caller(CallerKind, Rc<str>),
}

impl Subject {
    /// The same, as an incident names it.
    pub fn whom(&self) -> Whom<'_> {
        match self {
            Subject::Key(key) => Whom::Key(*key),
            Subject::Caller(kind, name) => Whom::Caller(*kind, name),
        }
    }
}

impl Detector {
    pub fn incident_type(self) -> IncidentType {
        match self {
            Detector::RapidAccess => IncidentType::RapidAutomatedAccess,
            Detector::Theft => IncidentType::PotentialKeyTheft,
            Detector::UnusuallyHigh => IncidentType::UnusuallyHighAccess,
            Detector::Failures => IncidentType::RepeatedFailures,
            Detector::MassReading => IncidentType::MassKeyReading,
            Detector::NewAddress => IncidentType::NewAddress,
            Detector::NewRole => IncidentType::NewRole,
            Detector::DormantKey => IncidentType::DormantKeyUsed,
        }
    }

    pub fn severity(self) -> Severity {
        match self {
            Detector::Theft | Detector::MassReading => Severity::Critical,
            Detector::RapidAccess => Severity::High,
            Detector::UnusuallyHigh
            | Detector::Failures
            | Detector::NewAddress
            | Detector::DormantKey => Severity::Medium,
            Detector::NewRole => Severity::Low,
        }
    }

    /// What happened, for people; `limit` is the number that was crossed.
    pub fn says(self, limit: u32) -> String {
        match self {
            Detector::RapidAccess => {
                format!("rapid automated access: more than {limit} accesses within a minute")
            }
            Detector::Theft => {
                format!("potential key theft: more than {limit} accesses within an hour")
            }
            Detector::UnusuallyHigh => {
                format!("unusually high access: more than {limit} accesses within a day")
            }
            Detector::Failures => {
                format!("repeated failures: more than {limit} failed accesses within an hour")
            }
            Detector::MassReading => {
                format!(
                    "mass reading: one caller opened more than {limit} different keys within a minute"
                )
            }
            Detector::NewAddress => {
                "a key that is in use for a week was used from a new address".into()
            }
            Detector::NewRole => "a key that is in use for a week was used by a new role".into(),
            Detector::DormantKey => "a key that was asleep was used again".into(),
        }
    }

    /// The window of a count, in words.
    pub fn window(self) -> Option<&'static str> {
        match self {
            Detector::RapidAccess | Detector::MassReading => Some("1 minute"),
            Detector::Theft | Detector::Failures => Some("1 hour"),
            Detector::UnusuallyHigh => Some("1 day"),
            Detector::NewAddress | Detector::NewRole | Detector::DormantKey => None,
        }
    }

    /// Its bit in a set of detectors.
    pub const fn bit(self) -> u8 {
        1 << self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_written_with_the_detectors_names_and_bits() {
        let words: Vec<&str> = Detector::ALL.iter().map(|detector| detector.word()).collect();
        assert_eq!(words, crate::anomaly::action::DETECTORS);
        assert_eq!(crate::anomaly::action::blocking("new_role=block"), Ok(Detector::NewRole.bit()));
    }

    #[test]
    fn an_incident_is_named_as_its_detector() {
        for &detector in Detector::ALL {
            assert_eq!(detector.word(), detector.incident_type().word());
        }
    }
}
