//! What follows an anomaly, in words: `alert` or `block`, and exceptions as `detector=action`,
//! separated by commas. This is the setting `anomaly_action`, the server's and its overrides.

use super::detector::Detector;
use crate::setting::{Form, Scope, Setting, Wrong};
use std::ffi::CStr;

/// What follows an anomaly.
pub static ANOMALY_ACTION: Setting = Setting {
    guc: c"watchllm_keys.anomaly_action",
    says: c"What follows an anomaly: alert or block, and exceptions as detector=action, separated \
         by commas.",
    says_more: c"A caller who opens too many different keys is blocked only where \
         mass_key_reading=block is named.",
    form: Form::Words { default: c"alert", check },
    narrowest: Scope::Key,
};

/// The detectors that block, a bit each, or the fault of the text.
pub fn blocking(text: &str) -> Result<u16, &'static CStr> {
    let (mut plain, mut blocks, mut alerts) = (None, 0u16, 0u16);
    for (name, block) in text.split(',').map(exception) {
        let block = block?;
        match name {
            None if plain.is_some() => return Err(c"alert or block stands there twice"),
            None => plain = Some(block),
            Some(name) => {
                let bit = Detector::find(name).ok_or(c"no detector has this name")?.bit();
                if (blocks | alerts) & bit != 0 {
                    return Err(c"a detector is named twice");
                }
                *(if block { &mut blocks } else { &mut alerts }) |= bit;
            }
        }
    }
    let by_default = if plain == Some(true) { plain_block() } else { 0 };
    Ok(by_default & !alerts | blocks)
}

/// One part of the text: which detector it names, and whether that one blocks.
fn exception(part: &str) -> (Option<&str>, Result<bool, &'static CStr>) {
    let (name, action) = match part.split_once('=') {
        Some((name, action)) => (Some(name.trim()), action),
        None => (None, part),
    };
    let block = match action.trim() {
        "block" => Ok(true),
        "alert" => Ok(false),
        _ => Err(c"an action is alert or block"),
    };
    (name, block)
}

/// The detectors that block if the text is just `block`.
fn plain_block() -> u16 {
    let reached = Detector::ALL.iter().filter(|detector| detector.blocks_by_default());
    reached.fold(0, |set, detector| set | detector.bit())
}

/// Refuses a text that is misspelt, or that names a detector of callers for a project or a key.
fn check(text: &str, scope: Scope) -> Result<(), Wrong> {
    if let Err(problem) = blocking(text) {
        let hint = "alert or block, and exceptions as detector=action, separated by commas. \
                    See docs/reference.md#watchllm_keysanomaly_action.";
        return Err((problem.to_str().unwrap_or_default(), hint));
    }
    let names = text.split(',').filter_map(|part| Detector::find(exception(part).0?));
    if scope > Scope::Database && names.into_iter().any(Detector::is_about_callers) {
        let hint = "Whoever reads many keys is judged for the whole database: set it there.";
        return Err(("mass_key_reading is of no project and no key", hint));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_reaches_what_counts_of_a_key_and_the_others_by_name_alone() {
        let of_keys = Detector::OF_KEYS.iter().fold(0, |set, detector| set | detector.bit());
        let (theft, mass) = (Detector::Theft.bit(), Detector::MassReading.bit());
        assert_eq!(blocking("alert"), Ok(0));
        assert_eq!(blocking("block"), Ok(of_keys));
        assert_eq!(
            blocking(" block , potential_key_theft = alert,mass_key_reading=block"),
            Ok(of_keys & !theft | mass)
        );
        assert_eq!(blocking("repeated_failures=block"), Ok(Detector::Failures.bit()));
        assert_eq!(blocking("new_role=block"), Ok(Detector::NewRole.bit()));
    }

    #[test]
    fn what_is_misspelt_is_refused() {
        for wrong in [
            "",
            "Block",
            "block,",
            "block,alert",
            "theft=block",
            "repeated_failures=",
            "repeated_failures=off",
            "new_role=block,new_role=alert",
            "block;alert",
        ] {
            assert!(blocking(wrong).is_err(), "{wrong}");
            assert!(check(wrong, Scope::Database).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_detector_of_callers_is_named_for_the_whole_database_alone() {
        assert!(check("block, mass_key_reading=alert", Scope::Project).is_err());
        assert!(check("mass_key_reading=block", Scope::Key).is_err());
        assert_eq!(check("mass_key_reading=block", Scope::Database), Ok(()));
        assert_eq!(check("block, new_role=block", Scope::Key), Ok(()));
    }
}
