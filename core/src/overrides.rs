//! Every setting that a database, a project or a key can override. One row here is enough. The
//! server's setting, the check of a value, `set_setting()`, `effective_setting()` and
//! `lowest_setting()` follow from it. The limits of the watch are in the rows of their detectors
//! (anomaly/detector).

use crate::anomaly::{ANOMALY_ACTION, Detector, LIMIT_BASIS, STALE_AFTER};
use crate::setting::{DAY, Scope, Setting};

/// Active keys per project and provider.
pub static MAX_ACTIVE_KEYS: Setting = Setting::count(
    c"watchllm_keys.max_active_keys",
    c"Active keys per project and provider; 0 means no limit.",
    3,
    (0, 1_000_000),
    Scope::Project,
);

/// Age of a key's active version from which its rotation is announced.
pub static ROTATION_WARN_AFTER: Setting = Setting::age(
    c"watchllm_keys.rotation_warn_after",
    c"Age of a key's active version from which rotation is announced.",
    60 * DAY,
    Scope::Key,
);

/// Age of a key's active version from which its rotation is required.
pub static ROTATION_REQUIRED_AFTER: Setting = Setting::age(
    c"watchllm_keys.rotation_required_after",
    c"Age of a key's active version from which rotation is required.",
    90 * DAY,
    Scope::Key,
);

/// The settings that are no detector's limit.
static OTHERS: [&Setting; 6] = [
    &MAX_ACTIVE_KEYS,
    &ANOMALY_ACTION,
    &LIMIT_BASIS,
    &ROTATION_WARN_AFTER,
    &ROTATION_REQUIRED_AFTER,
    &STALE_AFTER,
];

/// All of them.
pub fn all() -> impl Iterator<Item = &'static Setting> {
    let limits = Detector::ALL.iter().filter_map(|detector| detector.limit());
    OTHERS.into_iter().chain(limits)
}

/// The one of this name.
pub fn find(name: &str) -> Option<&'static Setting> {
    all().find(|setting| setting.name() == name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::setting::Form;

    #[test]
    fn every_default_is_a_value_that_can_be_set() {
        for setting in all() {
            let default = match setting.form {
                Form::Words { default, .. } => default.to_str().unwrap().to_owned(),
                _ => setting.written(setting.default_number()),
            };
            assert_eq!(setting.check(&default, setting.narrowest), Ok(()), "{}", setting.name());
        }
    }

    #[test]
    fn a_setting_is_found_by_its_name_and_only_once() {
        let names: Vec<&str> = all().map(Setting::name).collect();
        for name in &names {
            assert_eq!(names.iter().filter(|other| *other == name).count(), 1, "{name}");
            assert!(find(name).is_some_and(|found| found.name() == *name));
        }
        assert!(find("master_key_file").is_none());
    }

    #[test]
    fn two_settings_alone_are_of_words() {
        // src/settings/overridable.rs has a hook for each: it is not told which one it checks
        let words = all().filter(|setting| matches!(setting.form, Form::Words { .. }));
        assert_eq!(words.map(Setting::name).collect::<Vec<_>>(), ["anomaly_action", "limit_basis"]);
    }
}
