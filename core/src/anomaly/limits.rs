//! Limits of the watch as they hold for a key: the server's, overridden per database, project and
//! key, and what follows when one is crossed. Read from the settings by the writer; here they are
//! only looked up.

use super::detector::Detector;
use crate::id::{KeyRef, ProjectId};
use crate::moment::Span;
use std::collections::HashMap;

/// The limits of one key; each is crossed by more than its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    pub minute: u32,
    pub hour: u32,
    pub day: u32,
    pub failures: u32,
    /// The time without an access after which a key counts as asleep.
    pub stale: Span,
    /// Detectors that block, by `Detector::bit`.
    pub blocks: u8,
}

/// What an override says; None: nothing.
#[derive(Clone, Copy, Default)]
pub struct Override {
    pub minute: Option<u32>,
    pub hour: Option<u32>,
    pub day: Option<u32>,
    pub failures: Option<u32>,
    pub stale: Option<Span>,
    pub blocks: Option<u8>,
}

/// Every limit there is.
pub struct Rules {
    /// Of the whole database.
    pub base: Limits,
    /// Different keys that one caller may open within a minute.
    pub distinct: u32,
    pub projects: HashMap<ProjectId, Override>,
    pub keys: HashMap<KeyRef, Override>,
}

impl Limits {
    pub fn overridden(self, by: &Override) -> Limits {
        Limits {
            minute: by.minute.unwrap_or(self.minute),
            hour: by.hour.unwrap_or(self.hour),
            day: by.day.unwrap_or(self.day),
            failures: by.failures.unwrap_or(self.failures),
            stale: by.stale.unwrap_or(self.stale),
            blocks: by.blocks.unwrap_or(self.blocks),
        }
    }

    /// The limit of a detector that counts accesses or failures of a key.
    pub fn of(&self, detector: Detector) -> Option<u32> {
        match detector {
            Detector::RapidAccess => Some(self.minute),
            Detector::Theft => Some(self.hour),
            Detector::UnusuallyHigh => Some(self.day),
            Detector::Failures => Some(self.failures),
            Detector::MassReading
            | Detector::NewAddress
            | Detector::NewRole
            | Detector::DormantKey => None,
        }
    }

    pub fn block(&self, detector: Detector) -> bool {
        self.blocks & detector.bit() != 0
    }
}

impl Rules {
    /// The limits of a key: its own before its project's before the database's.
    pub fn of(&self, key: &KeyRef) -> Limits {
        let project = self.projects.get(&key.project).copied().unwrap_or_default();
        let own = self.keys.get(key).copied().unwrap_or_default();
        self.base.overridden(&project).overridden(&own)
    }
}

impl Default for Rules {
    /// The defaults of DESIGN §11.
    fn default() -> Self {
        let base = Limits {
            minute: 100,
            hour: 10_000,
            day: 100_000,
            failures: 100,
            stale: Span::days(30),
            blocks: 0,
        };
        Rules { base, distinct: 50, projects: HashMap::new(), keys: HashMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProviderKeyId;

    fn key(project: u8, key: u8) -> KeyRef {
        KeyRef { project: ProjectId::new([project; 16]), key: ProviderKeyId::new([key; 16]) }
    }

    #[test]
    fn a_keys_own_limit_beats_its_projects_beats_the_databases() {
        let (ours, others) = (key(1, 2), key(1, 3));
        let mut rules = Rules::default();
        rules.projects.insert(
            ours.project,
            Override { minute: Some(7), hour: Some(70), ..Override::default() },
        );
        rules.keys.insert(
            ours,
            Override {
                minute: Some(9),
                blocks: Some(Detector::Theft.bit()),
                ..Override::default()
            },
        );
        assert_eq!(
            (rules.of(&ours).minute, rules.of(&ours).hour, rules.of(&ours).day),
            (9, 70, 100_000)
        );
        assert_eq!((rules.of(&others).minute, rules.of(&others).blocks), (7, 0));
        assert!(
            rules.of(&ours).block(Detector::Theft) && !rules.of(&ours).block(Detector::RapidAccess)
        );
        assert_eq!(rules.of(&key(9, 2)), rules.base);
    }
}
