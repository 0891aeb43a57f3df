//! One row of the doctor's answer, and how a check makes it: fine, wrong with a hint, or not looked
//! at.

use crate::error::Error;

/// The most findings that a detail names. The others are counted.
const MOST: usize = 20;

/// One row of the answer. `ok` is None if the check could not look.
pub(super) struct Check {
    pub name: &'static str,
    pub ok: Option<bool>,
    pub detail: String,
    pub hint: Option<&'static str>,
}

/// A check that is fine, or not.
pub(super) fn check(
    name: &'static str,
    problem: Option<(String, &'static str)>,
    fine: impl FnOnce() -> String,
) -> Check {
    match problem {
        Some((detail, hint)) => Check { name, ok: Some(false), detail, hint: Some(hint) },
        None => Check { name, ok: Some(true), detail: fine(), hint: None },
    }
}

/// A check whose object does not exist. Another row says why.
pub(super) fn not_looked_at(name: &'static str, why: impl Into<String>) -> Check {
    Check { name, ok: None, detail: format!("not looked at: {}", why.into()), hint: None }
}

/// An error as a problem.
pub(super) fn problem(error: &Error) -> (String, &'static str) {
    (error.message(), error.hint().unwrap_or("See the server log."))
}

/// A few names, and how many more there are.
pub(super) fn listed(names: &[impl ToString]) -> String {
    let shown: Vec<String> = names.iter().take(MOST).map(ToString::to_string).collect();
    match names.len().saturating_sub(MOST) {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
