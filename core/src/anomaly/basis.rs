//! What the limits of a key go by, in words: `own_past` or `fixed`. This is the setting
//! `limit_basis`, the server's and its overrides. What a key's past allows is in `past`.

use crate::setting::{Form, Scope, Setting, Wrong};
use std::ffi::CStr;

/// What the limits go by.
pub static LIMIT_BASIS: Setting = Setting {
    guc: c"watchllm_keys.limit_basis",
    says: c"What the limits of the watch go by: own_past or fixed.",
    says_more:
        c"own_past: after a week of use, three times the busiest minute, hour or day of the \
         week before is allowed, where that is more than the limit. fixed: the limit alone holds.",
    form: Form::Words { default: c"own_past", check },
    narrowest: Scope::Key,
};

/// Whether the past counts, or the fault of the text.
pub fn knows_past(text: &str) -> Result<bool, &'static CStr> {
    match text.trim() {
        "own_past" => Ok(true),
        "fixed" => Ok(false),
        _ => Err(c"a basis is own_past or fixed"),
    }
}

fn check(text: &str, _: Scope) -> Result<(), Wrong> {
    let hint = "own_past or fixed. See docs/reference.md#watchllm_keyslimit_basis.";
    let wrong = |problem: &'static CStr| (problem.to_str().unwrap_or_default(), hint);
    knows_past(text).map(drop).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_basis_is_one_of_two_words() {
        assert_eq!((knows_past("own_past"), knows_past(" fixed ")), (Ok(true), Ok(false)));
        for wrong in ["", "own", "Fixed", "own_past,fixed", "on"] {
            assert!(knows_past(wrong).is_err() && check(wrong, Scope::Key).is_err(), "{wrong}");
        }
    }
}
