//! What follows an anomaly, as it is written: `alert` or `block`, and exceptions as
//! `detector=action`, separated by commas. Pure. Named by `watchllm_keys.anomaly_action` and by its
//! overrides.

use std::ffi::CStr;

/// The detectors; each has the bit of its place. Those of `ONLY_BY_NAME` never block because of the
/// plain word `block`: a caller may be everybody's backend, and a first use is seen after it has
/// been answered.
pub const DETECTORS: [&str; 8] = [
    "rapid_automated_access",
    "potential_key_theft",
    "unusually_high_access",
    "repeated_failures",
    "mass_key_reading",
    "new_address",
    "new_role",
    "dormant_key_used",
];
const ONLY_BY_NAME: usize = 4;

/// The detectors that block, a bit each; or what is wrong with the text.
pub fn blocking(text: &str) -> Result<u8, &'static CStr> {
    let (mut plain, mut blocks, mut alerts) = (None, 0u8, 0u8);
    for part in text.split(',').map(str::trim) {
        let (detector, action) = match part.split_once('=') {
            Some((detector, action)) => (Some(detector.trim()), action.trim()),
            None => (None, part),
        };
        let block = match action {
            "block" => true,
            "alert" => false,
            _ => return Err(c"an action is alert or block"),
        };
        match detector {
            None if plain.is_some() => return Err(c"alert or block stands there twice"),
            None => plain = Some(block),
            Some(name) => {
                let place = DETECTORS
                    .iter()
                    .position(|known| *known == name)
                    .ok_or(c"no detector has this name")?;
                if (blocks | alerts) & 1 << place != 0 {
                    return Err(c"a detector is named twice");
                }
                *(if block { &mut blocks } else { &mut alerts }) |= 1 << place;
            }
        }
    }
    let by_default = if plain == Some(true) { (1 << ONLY_BY_NAME) - 1 } else { 0 };
    Ok(by_default & !alerts | blocks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn block_reaches_the_first_four_and_the_others_by_name_alone() {
        assert_eq!(blocking("alert"), Ok(0));
        assert_eq!(blocking("block"), Ok(0b1111));
        assert_eq!(
            blocking(" block , potential_key_theft = alert,mass_key_reading=block"),
            Ok(0b1_1101)
        );
        assert_eq!(blocking("repeated_failures=block"), Ok(0b1000));
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
        }
    }
}
