//! The server's value of each setting that a database, a project or a key can override. They are
//! defined from the rows in core/src/overrides.rs. The value in force is read by name, as overrides
//! are (store/settings).

use crate::anomaly::{ANOMALY_ACTION, LIMIT_BASIS, action, basis};
use crate::overrides;
use crate::setting::{Form, MAX_AGE, Setting};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;

/// Defines them all.
pub(crate) fn define() {
    for setting in overrides::all() {
        match setting.form {
            Form::Count { default, least, most } => {
                number(setting, default, (least, most), GucFlags::default());
            }
            Form::Age { default } => number(setting, default, (1, MAX_AGE), GucFlags::UNIT_MIN),
            Form::Words { default, .. } => words(setting, default),
        }
    }
}

/// PostgreSQL keeps the address of a value as long as the process lives.
fn number(row: &'static Setting, default: i32, (least, most): (i32, i32), flags: GucFlags) {
    let kept = Box::leak(Box::new(GucSetting::<i32>::new(default)));
    GucRegistry::define_int_guc(
        row.guc,
        row.says,
        row.says_more,
        kept,
        least,
        most,
        GucContext::Sighup,
        flags,
    );
}

fn words(row: &'static Setting, default: &'static CStr) {
    let kept = Box::leak(Box::new(GucSetting::<Option<std::ffi::CString>>::new(Some(default))));
    // A hook is not told which setting it checks, so each setting of words has its own.
    let check: pg_sys::GucStringCheckHook = if ptr::eq(row, &raw const ANOMALY_ACTION) {
        Some(check_action)
    } else if ptr::eq(row, &raw const LIMIT_BASIS) {
        Some(check_basis)
    } else {
        None
    };
    // SAFETY: the hook raises no ERROR and does not panic.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            row.guc,
            row.says,
            row.says_more,
            kept,
            GucContext::Sighup,
            GucFlags::default(),
            check,
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
    // SAFETY: as promised by PostgreSQL.
    unsafe { check(value, |text| action::blocking(text).map(drop)) }
}

// SAFETY: as `check_action`.
unsafe extern "C-unwind" fn check_basis(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as promised by PostgreSQL.
    unsafe { check(value, |text| basis::knows_past(text).map(drop)) }
}

/// # Safety
/// `value` points to null or to a text that PostgreSQL has allocated.
unsafe fn check(
    value: *mut *mut c_char,
    judge: impl FnOnce(&str) -> Result<(), &'static CStr>,
) -> bool {
    // SAFETY: as promised by the caller; PostgreSQL only reads the detail, which is a constant.
    unsafe {
        let text = if (*value).is_null() { c"" } else { CStr::from_ptr(*value) };
        let judged = judge(&text.to_string_lossy());
        if let Err(problem) = judged {
            pg_sys::GUC_check_errdetail_string = problem.as_ptr().cast_mut();
        }
        judged.is_ok()
    }
}
