//! The detectors, a row each: what it counts, its limit, how urgent its incident is, its text, and
//! whether it blocks. Everything else follows from the row: the counters of a key, the limits and
//! their settings, `anomaly_action`. The SQL is in sql/anomalies.

use super::counter::Window;
use crate::setting::{Form, Scope, Setting};
use crate::trail::{AccessType, Counted, IncidentType, Severity};

/// The row of a detector.
struct Definition {
    /// Its word is the detector's word.
    incident: IncidentType,
    severity: Severity,
    /// What happened, for people. `{limit}` becomes the number that was crossed.
    says: &'static str,
    looks_at: Looks,
    blocks: Blocks,
}

/// What a detector counts. A limit is crossed by more than its number.
pub(super) enum Looks {
    /// Events of a key within a window.
    Key(Frequency),
    /// Different keys that one caller opens within a minute.
    Caller { limit: Setting },
    /// A single moment, which only the tables can judge.
    Moment,
}

/// How often an event of a key may occur within a window.
pub(super) struct Frequency {
    /// Whether an attempt to open the key is counted here.
    pub counts: fn(Counted, AccessType) -> bool,
    pub window: Window,
    pub limit: Setting,
    /// Whether the key's own past can allow more than the limit. Failures are no use of a key, so
    /// yesterday's failures allow none today.
    pub of_the_past: bool,
}

/// When an anomaly blocks.
enum Blocks {
    /// Where `anomaly_action` says `block`.
    ByDefault,
    /// Only if the text names the detector. A caller may be everybody's backend, and a moment is
    /// judged after its access was answered.
    ByName,
}

/// Times of the last minute are kept, 4 bytes each, up to this limit.
const MAX_A_MINUTE: i32 = 100_000;

macro_rules! detectors {
    ($($name:ident = $definition:expr;)+) => {
        /// What the watch detects.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        #[repr(u8)]
        pub enum Detector {
            $(#[doc = concat!("The row `", stringify!($name), "`.")] $name),+
        }

        impl Detector {
            /// All of them, in the order of their bits.
            pub const ALL: &'static [Detector] = &[$(Detector::$name),+];
        }

        static DEFINITIONS: [Definition; Detector::COUNT] = [$($definition),+];
    };
}

detectors! {
    RapidAccess = Definition {
        incident: IncidentType::RapidAutomatedAccess,
        severity: Severity::High,
        says: "rapid automated access: more than {limit} accesses within a minute",
        looks_at: Looks::Key(Frequency {
            counts: |counted, _| counted == Counted::Access,
            window: Window::Minute,
            limit: Setting::count(
                c"watchllm_keys.max_accesses_per_minute",
                c"Accesses of one key within a minute; more is an anomaly.",
                100,
                (1, MAX_A_MINUTE),
                Scope::Key,
            ),
            of_the_past: true,
        }),
        blocks: Blocks::ByDefault,
    };
    Theft = Definition {
        incident: IncidentType::PotentialKeyTheft,
        severity: Severity::Critical,
        says: "potential key theft: more than {limit} accesses within an hour",
        looks_at: Looks::Key(Frequency {
            counts: |counted, _| counted == Counted::Access,
            window: Window::Hour,
            limit: Setting::count(
                c"watchllm_keys.max_accesses_per_hour",
                c"Accesses of one key within an hour; more is an anomaly.",
                10_000,
                (1, i32::MAX),
                Scope::Key,
            ),
            of_the_past: true,
        }),
        blocks: Blocks::ByDefault,
    };
    UnusuallyHigh = Definition {
        incident: IncidentType::UnusuallyHighAccess,
        severity: Severity::Medium,
        says: "unusually high access: more than {limit} accesses within a day",
        looks_at: Looks::Key(Frequency {
            counts: |counted, _| counted == Counted::Access,
            window: Window::Day,
            limit: Setting::count(
                c"watchllm_keys.max_accesses_per_day",
                c"Accesses of one key within a day; more is an anomaly.",
                100_000,
                (1, i32::MAX),
                Scope::Key,
            ),
            of_the_past: true,
        }),
        blocks: Blocks::ByDefault,
    };
    Failures = Definition {
        incident: IncidentType::RepeatedFailures,
        severity: Severity::Medium,
        says: "repeated failures: more than {limit} failed accesses within an hour",
        looks_at: Looks::Key(Frequency {
            counts: |counted, _| counted == Counted::Failure,
            window: Window::RareHour,
            limit: Setting::count(
                c"watchllm_keys.max_failures_per_hour",
                c"Failed accesses of one key within an hour; more is an anomaly.",
                100,
                (1, i32::MAX),
                Scope::Key,
            ),
            of_the_past: false,
        }),
        blocks: Blocks::ByDefault,
    };
    MassReading = Definition {
        incident: IncidentType::MassKeyReading,
        severity: Severity::Critical,
        says: "mass reading: one caller opened more than {limit} different keys within a minute",
        looks_at: Looks::Caller {
            limit: Setting::count(
                c"watchllm_keys.max_distinct_keys_per_minute",
                c"Different keys that one caller opens within a minute; more is an anomaly.",
                50,
                (1, MAX_A_MINUTE),
                Scope::Database,
            ),
        },
        blocks: Blocks::ByName,
    };
    NewAddress = Definition {
        incident: IncidentType::NewAddress,
        severity: Severity::Medium,
        says: "a key that is in use for a week was used from a new address",
        looks_at: Looks::Moment,
        blocks: Blocks::ByName,
    };
    NewRole = Definition {
        incident: IncidentType::NewRole,
        severity: Severity::Low,
        says: "a key that is in use for a week was used by a new role",
        looks_at: Looks::Moment,
        blocks: Blocks::ByName,
    };
    DormantKey = Definition {
        incident: IncidentType::DormantKeyUsed,
        severity: Severity::Medium,
        says: "a key that was asleep was used again",
        looks_at: Looks::Moment,
        blocks: Blocks::ByName,
    };
}

const _: () = assert!(Detector::COUNT <= u16::BITS as usize, "a set of detectors has 16 bits");

const fn looks_at_keys(place: usize) -> bool {
    matches!(DEFINITIONS[place].looks_at, Looks::Key(_))
}

const fn knows_the_past(place: usize) -> bool {
    matches!(DEFINITIONS[place].looks_at, Looks::Key(Frequency { of_the_past: true, .. }))
}

/// Lists the detectors that a constant function chooses, in the order of their bits.
macro_rules! choose {
    ($chosen:ident, $count:ident, $list:ident) => {
        const $count: usize = {
            let (mut count, mut place) = (0, 0);
            while place < Detector::COUNT {
                count += $chosen(place) as usize;
                place += 1;
            }
            count
        };
        const $list: [Detector; $count] = {
            let (mut found, mut next, mut place) = ([Detector::ALL[0]; $count], 0, 0);
            while place < Detector::COUNT {
                if $chosen(place) {
                    found[next] = Detector::ALL[place];
                    next += 1;
                }
                place += 1;
            }
            found
        };
    };
}

choose!(looks_at_keys, COUNT_OF_KEYS, OF_KEYS);
choose!(knows_the_past, COUNT_OF_THE_PAST, OF_THE_PAST);

impl Detector {
    /// How many detectors there are.
    pub const COUNT: usize = Detector::ALL.len();
    /// The detectors that count events of a key.
    pub(super) const OF_KEYS: [Detector; COUNT_OF_KEYS] = OF_KEYS;
    /// Those of them whose limit goes by the key's own past: its minute, hour and day.
    pub const OF_THE_PAST: [Detector; COUNT_OF_THE_PAST] = OF_THE_PAST;

    fn definition(self) -> &'static Definition {
        &DEFINITIONS[self as usize]
    }

    /// Its name: of its incidents, of its SQL function behind `detect_`, and in `anomaly_action`.
    pub fn word(self) -> &'static str {
        self.incident_type().word()
    }

    /// The detector of this name.
    pub fn find(word: &str) -> Option<Detector> {
        Detector::ALL.iter().copied().find(|detector| detector.word() == word)
    }

    /// The type of its incidents.
    pub fn incident_type(self) -> IncidentType {
        self.definition().incident
    }

    /// The severity of its incidents.
    pub fn severity(self) -> Severity {
        self.definition().severity
    }

    /// What happened, for people. `limit` is the number that was crossed.
    pub fn says(self, limit: u32) -> String {
        self.definition().says.replace("{limit}", &limit.to_string())
    }

    /// Whether it counts such an attempt to open a key.
    pub fn counts(self, counted: Counted, access_type: AccessType) -> bool {
        match &self.definition().looks_at {
            Looks::Key(frequency) => (frequency.counts)(counted, access_type),
            Looks::Caller { .. } | Looks::Moment => false,
        }
    }

    /// Whether it counts events of a key.
    pub fn counts_keys(self) -> bool {
        matches!(self.definition().looks_at, Looks::Key(_))
    }

    /// The setting of its limit.
    pub fn limit(self) -> Option<&'static Setting> {
        match &self.definition().looks_at {
            Looks::Key(Frequency { limit, .. }) | Looks::Caller { limit } => Some(limit),
            Looks::Moment => None,
        }
    }

    /// The window of a count.
    pub fn window(self) -> Option<Window> {
        match &self.definition().looks_at {
            Looks::Key(frequency) => Some(frequency.window),
            Looks::Caller { .. } => Some(Window::Minute),
            Looks::Moment => None,
        }
    }

    /// The greatest limit that can be set, and that a past can allow.
    pub(super) fn greatest_limit(self) -> u32 {
        match self.limit().map(|limit| &limit.form) {
            Some(Form::Count { most, .. }) => *most as u32,
            _ => u32::MAX,
        }
    }

    /// Whether it is about callers, who are judged for the whole database.
    pub fn is_about_callers(self) -> bool {
        matches!(self.definition().looks_at, Looks::Caller { .. })
    }

    /// Whether the plain word `block` makes it block.
    pub fn blocks_by_default(self) -> bool {
        matches!(self.definition().blocks, Blocks::ByDefault)
    }

    /// Its bit in a set of detectors.
    pub const fn bit(self) -> u16 {
        1 << self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_detector_has_a_word_a_bit_and_a_setting_that_no_other_has() {
        let mut words: Vec<&str> = Detector::ALL.iter().map(|detector| detector.word()).collect();
        words.extend(Detector::ALL.iter().filter_map(|detector| Some(detector.limit()?.name())));
        let all = words.len();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), all);
        let bits = Detector::ALL.iter().fold(0, |set, detector| set | detector.bit());
        assert_eq!(bits.count_ones() as usize, Detector::COUNT);
        assert!(
            Detector::ALL.iter().all(|&detector| Detector::find(detector.word()) == Some(detector))
        );
    }

    #[test]
    fn what_counts_says_its_limit_and_what_sees_a_moment_has_none() {
        for &detector in Detector::ALL {
            let says_limit = detector.says(4_711).contains("4711");
            assert_eq!(detector.limit().is_some(), says_limit, "{detector:?}");
            assert_eq!(detector.limit().is_some(), detector.window().is_some(), "{detector:?}");
        }
    }
}
