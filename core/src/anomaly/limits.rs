//! The limits of the watch for a key, and what follows when one is crossed. The server's limits are
//! overridden per database, project and key. The writer fills them from the settings, by name.
//! Afterwards they are only looked up.

use super::action::{self, ANOMALY_ACTION};
use super::basis::{self, LIMIT_BASIS};
use super::detector::Detector;
use crate::id::{KeyRef, ProjectId};
use crate::moment::Span;
use crate::setting::{self, Scope, Setting};
use std::collections::HashMap;

/// Time without an access after which a key is asleep.
pub static STALE_AFTER: Setting = Setting::age(
    c"watchllm_keys.stale_after",
    c"Time without an access after which a key counts as stale.",
    30 * setting::DAY,
    Scope::Key,
);

/// The limits of one key; each is crossed by more than its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// By detector. 0 for those without a limit.
    most: [u32; Detector::COUNT],
    /// The time without an access after which a key counts as asleep.
    pub stale: Span,
    /// Detectors that block, by `Detector::bit`.
    pub blocks: u16,
    /// Whether the own past can allow more than these limits.
    pub knows_past: bool,
}

/// Limits that the server, a database, a project or a key sets. None: those of the wider scope
/// hold.
#[derive(Clone, Copy, Default)]
pub struct OwnLimits {
    most: [Option<u32>; Detector::COUNT],
    stale: Option<Span>,
    blocks: Option<u16>,
    knows_past: Option<bool>,
}

/// Every limit there is.
#[derive(Default)]
pub struct Rules {
    /// Of the whole database.
    pub base: Limits,
    /// The limits that projects have of their own.
    pub projects: HashMap<ProjectId, OwnLimits>,
    /// The limits that keys have of their own.
    pub keys: HashMap<KeyRef, OwnLimits>,
}

impl OwnLimits {
    /// Takes the value of a setting. Names that are not the watch's are ignored, and so are values
    /// that nobody can have set.
    pub fn take(&mut self, name: &str, value: &str) {
        let limit = |detector: &Detector| detector.limit().filter(|limit| limit.name() == name);
        let of_detector =
            Detector::ALL.iter().find_map(|detector| Some((*detector, limit(detector)?)));
        if let Some((detector, limit)) = of_detector {
            self.most[detector as usize] = limit.number(value);
        } else if name == STALE_AFTER.name() {
            self.stale = STALE_AFTER.number(value).map(|minutes| Span::minutes(i64::from(minutes)));
        } else if name == ANOMALY_ACTION.name() {
            self.blocks = action::blocking(value).ok();
        } else if name == LIMIT_BASIS.name() {
            self.knows_past = basis::knows_past(value).ok();
        }
    }
}

impl Limits {
    /// These limits, with those of a narrower scope in their place.
    pub fn overridden(self, by: &OwnLimits) -> Limits {
        let mut limits = self;
        for (most, own) in limits.most.iter_mut().zip(by.most) {
            *most = own.unwrap_or(*most);
        }
        limits.stale = by.stale.unwrap_or(limits.stale);
        limits.blocks = by.blocks.unwrap_or(limits.blocks);
        limits.knows_past = by.knows_past.unwrap_or(limits.knows_past);
        limits
    }

    /// The same, but for one detector.
    pub fn with(mut self, detector: Detector, most: u32) -> Limits {
        self.most[detector as usize] = most;
        self
    }

    /// The limit of a detector.
    pub fn of(&self, detector: Detector) -> u32 {
        self.most[detector as usize]
    }

    /// Whether the detector refuses what it finds.
    pub fn block(&self, detector: Detector) -> bool {
        self.blocks & detector.bit() != 0
    }
}

impl Default for Limits {
    /// The limits if nobody has set anything.
    fn default() -> Self {
        let mut most = [0; Detector::COUNT];
        for &detector in Detector::ALL {
            most[detector as usize] = detector.limit().map_or(0, Setting::default_number);
        }
        let stale = Span::minutes(i64::from(STALE_AFTER.default_number()));
        Limits { most, stale, blocks: 0, knows_past: true }
    }
}

impl Rules {
    /// The limits of a key: its own come before its project's, and those before the database's.
    pub fn of(&self, key: &KeyRef) -> Limits {
        let project = self.projects.get(&key.project).copied().unwrap_or_default();
        let own = self.keys.get(key).copied().unwrap_or_default();
        self.base.overridden(&project).overridden(&own)
    }

    /// Takes a value of the server or of the whole database. The server's come first.
    pub fn take(&mut self, name: &str, value: &str) {
        let mut own = OwnLimits::default();
        own.take(name, value);
        self.base = self.base.overridden(&own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::ProviderKeyId;

    fn key(project: u8, key: u8) -> KeyRef {
        KeyRef { project: ProjectId::new([project; 16]), key: ProviderKeyId::new([key; 16]) }
    }

    fn own(settings: &[(&str, &str)]) -> OwnLimits {
        let mut own = OwnLimits::default();
        settings.iter().for_each(|(name, value)| own.take(name, value));
        own
    }

    #[test]
    fn a_keys_own_limit_beats_its_projects_beats_the_databases() {
        let (ours, others) = (key(1, 2), key(1, 3));
        let mut rules = Rules::default();
        let project = own(&[("max_accesses_per_minute", "7"), ("max_accesses_per_hour", "70")]);
        rules.projects.insert(ours.project, project);
        let theft = "potential_key_theft=block";
        rules
            .keys
            .insert(ours, own(&[("max_accesses_per_minute", "9"), ("anomaly_action", theft)]));
        let limits = rules.of(&ours);
        assert_eq!((limits.of(Detector::RapidAccess), limits.of(Detector::Theft)), (9, 70));
        assert_eq!(limits.of(Detector::UnusuallyHigh), 100_000);
        assert!(limits.block(Detector::Theft) && !limits.block(Detector::RapidAccess));
        let limits = rules.of(&others);
        assert_eq!((limits.of(Detector::RapidAccess), limits.blocks), (7, 0));
        assert_eq!(rules.of(&key(9, 2)), rules.base);
    }

    #[test]
    fn every_setting_of_the_watch_reaches_its_limit_and_nonsense_reaches_none() {
        for &detector in Detector::ALL {
            let mut rules = Rules::default();
            if let Some(limit) = detector.limit() {
                rules.take(limit.name(), "4711");
            }
            let expected = Limits::default().with(detector, detector.limit().map_or(0, |_| 4711));
            assert_eq!(rules.base, expected, "{detector:?}");
        }
        let mut rules = Rules::default();
        rules.take("stale_after", "2h");
        assert_eq!(rules.base.stale, Span::minutes(120));
        rules.take("anomaly_action", "new_role=block");
        assert_eq!(rules.base.blocks, Detector::NewRole.bit());
        rules.take("limit_basis", "fixed");
        assert!(!rules.base.knows_past);
        let before = rules.base;
        let nonsense = [
            ("max_accesses_per_minute", "-1"),
            ("max_accesses_per_hour", "99999999999999999999"),
            ("stale_after", "soon"),
            ("anomaly_action", "explode"),
            ("limit_basis", "tomorrow"),
            ("max_active_keys", "1"),
            ("nonsense", ""),
        ];
        nonsense.iter().for_each(|(name, value)| rules.take(name, value));
        assert_eq!(rules.base, before);
    }
}
