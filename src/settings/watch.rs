//! Settings of the watch: when an access is one too many, what follows, and when a key must be
//! rotated. Each can be overridden per database, project or key, under the same name, in the table
//! `settings`. DESIGN §11.

use crate::anomaly::action;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use std::ffi::{CStr, CString, c_char, c_void};

static MAX_ACCESSES_PER_MINUTE: GucSetting<i32> = GucSetting::<i32>::new(100);
static MAX_ACCESSES_PER_HOUR: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static MAX_ACCESSES_PER_DAY: GucSetting<i32> = GucSetting::<i32>::new(100_000);
static MAX_FAILURES_PER_HOUR: GucSetting<i32> = GucSetting::<i32>::new(100);
static MAX_DISTINCT_KEYS_PER_MINUTE: GucSetting<i32> = GucSetting::<i32>::new(50);
static ANOMALY_ACTION: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"alert"));
static ROTATION_WARN_AFTER: GucSetting<i32> = GucSetting::<i32>::new(60 * DAY);
static ROTATION_REQUIRED_AFTER: GucSetting<i32> = GucSetting::<i32>::new(90 * DAY);
static STALE_AFTER: GucSetting<i32> = GucSetting::<i32>::new(30 * DAY);

/// Minutes of a day: the unit of the three ages.
const DAY: i32 = 24 * 60;
/// An age of a hundred years is never reached.
const MAX_AGE: i32 = 36_525 * DAY;
/// Times of the last minute are kept, 4 bytes each, up to this limit.
pub(crate) const MAX_A_MINUTE: i32 = 100_000;

/// A threshold of the watch, crossed by more than its number.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Threshold {
    AccessesPerMinute,
    AccessesPerHour,
    AccessesPerDay,
    FailuresPerHour,
    DistinctKeysPerMinute,
}

pub(crate) fn threshold(of: Threshold) -> u32 {
    let setting = match of {
        Threshold::AccessesPerMinute => &MAX_ACCESSES_PER_MINUTE,
        Threshold::AccessesPerHour => &MAX_ACCESSES_PER_HOUR,
        Threshold::AccessesPerDay => &MAX_ACCESSES_PER_DAY,
        Threshold::FailuresPerHour => &MAX_FAILURES_PER_HOUR,
        Threshold::DistinctKeysPerMinute => &MAX_DISTINCT_KEYS_PER_MINUTE,
    };
    setting.get() as u32
}

/// Minutes without an access after which a key counts as asleep.
pub(crate) fn stale_after() -> i32 {
    STALE_AFTER.get()
}

/// Age in minutes of a key's active version from which its rotation is announced.
pub(crate) fn rotation_warn_after() -> i32 {
    ROTATION_WARN_AFTER.get()
}

/// Age in minutes of a key's active version from which its rotation is required.
pub(crate) fn rotation_required_after() -> i32 {
    ROTATION_REQUIRED_AFTER.get()
}

/// Minutes of an age as it is written: a whole number with its unit, d, h or min. None: it is none,
/// or is out of range.
pub(crate) fn minutes(age: &str) -> Option<i32> {
    let unit = age.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = age.split_at(unit);
    let minutes = match unit.trim() {
        "d" => DAY,
        "h" => 60,
        "min" => 1,
        _ => return None,
    };
    number
        .parse::<i32>()
        .ok()?
        .checked_mul(minutes)
        .filter(|minutes| (1..=MAX_AGE).contains(minutes))
}

/// What follows an anomaly, as it is written: `alert` or `block`, and exceptions per detector.
pub(crate) fn anomaly_action() -> String {
    ANOMALY_ACTION.get().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Defines them.
pub(crate) fn define() {
    let counts = [
        (
            c"watchllm_keys.max_accesses_per_minute",
            c"Accesses of one key within a minute; more is an anomaly.",
            &MAX_ACCESSES_PER_MINUTE,
            MAX_A_MINUTE,
        ),
        (
            c"watchllm_keys.max_accesses_per_hour",
            c"Accesses of one key within an hour; more is an anomaly.",
            &MAX_ACCESSES_PER_HOUR,
            i32::MAX,
        ),
        (
            c"watchllm_keys.max_accesses_per_day",
            c"Accesses of one key within a day; more is an anomaly.",
            &MAX_ACCESSES_PER_DAY,
            i32::MAX,
        ),
        (
            c"watchllm_keys.max_failures_per_hour",
            c"Failed accesses of one key within an hour; more is an anomaly.",
            &MAX_FAILURES_PER_HOUR,
            i32::MAX,
        ),
        (
            c"watchllm_keys.max_distinct_keys_per_minute",
            c"Different keys that one caller opens within a minute; more is an anomaly.",
            &MAX_DISTINCT_KEYS_PER_MINUTE,
            MAX_A_MINUTE,
        ),
    ];
    let ages = [
        (
            c"watchllm_keys.rotation_warn_after",
            c"Age of a key's active version from which rotation is announced.",
            &ROTATION_WARN_AFTER,
        ),
        (
            c"watchllm_keys.rotation_required_after",
            c"Age of a key's active version from which rotation is required.",
            &ROTATION_REQUIRED_AFTER,
        ),
        (
            c"watchllm_keys.stale_after",
            c"Time without an access after which a key counts as stale.",
            &STALE_AFTER,
        ),
    ];
    for (name, what, setting, most) in counts {
        number(name, what, setting, most, GucFlags::default());
    }
    for (name, what, setting) in ages {
        number(name, what, setting, MAX_AGE, GucFlags::UNIT_MIN);
    }
    // SAFETY: the hook raises no ERROR and does not panic.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"watchllm_keys.anomaly_action",
            c"What follows an anomaly: alert or block, and exceptions as detector=action, separated by commas.",
            c"A caller who opens too many different keys is blocked only where mass_key_reading=block is named.",
            &ANOMALY_ACTION,
            GucContext::Sighup,
            GucFlags::default(),
            Some(check_action),
            None,
            None,
        );
    }
}

// SAFETY: PostgreSQL calls it with a value it has allocated, or null. Not #[pg_guard]: it runs in
// the postmaster too.
unsafe extern "C-unwind" fn check_action(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as promised by PostgreSQL; it only reads the detail, which is a constant.
    unsafe {
        let text = if (*value).is_null() { c"" } else { CStr::from_ptr(*value) };
        match action::blocking(&text.to_string_lossy()) {
            Ok(_) => true,
            Err(problem) => {
                pg_sys::GUC_check_errdetail_string = problem.as_ptr().cast_mut();
                false
            }
        }
    }
}

fn number(
    name: &'static CStr,
    what: &'static CStr,
    setting: &'static GucSetting<i32>,
    most: i32,
    flags: GucFlags,
) {
    let long = c"Can be overridden per database, project or key: watchllm.set_setting().";
    GucRegistry::define_int_guc(name, what, long, setting, 1, most, GucContext::Sighup, flags);
}
