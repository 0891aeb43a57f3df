//! The setting `watchllm_keys.extra_key_patterns`, checked and built in every process when it is
//! assigned. So a search finds the patterns ready; the log hook may allocate nothing. A refused
//! value leaves the former one in force, as PostgreSQL does. Unsafe: hooks of a setting, and a
//! pointer that they replace.

use crate::redact::ExtraPatterns;
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use std::ffi::{CStr, CString, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

static SETTING: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

/// A value of the setting, and the patterns built from it.
struct Built {
    list: Vec<u8>,
    patterns: Option<ExtraPatterns>,
}

/// The value in force. A former value is never freed: a search may still use it, and the setting
/// seldom changes.
static IN_FORCE: AtomicPtr<Built> = AtomicPtr::new(ptr::null_mut());
/// The value that was checked last and will be assigned next.
static CHECKED: AtomicPtr<Built> = AtomicPtr::new(ptr::null_mut());
/// The reason of a refusal. PostgreSQL copies it while it reports.
static DETAIL: AtomicPtr<c_char> = AtomicPtr::new(ptr::null_mut());

/// The patterns in force, if there are any.
pub(crate) fn in_force() -> Option<&'static ExtraPatterns> {
    // SAFETY: null, or a box that is never freed.
    unsafe { IN_FORCE.load(Relaxed).as_ref() }.and_then(|built| built.patterns.as_ref())
}

/// Defines the setting; its value is checked and assigned at once.
pub(crate) fn define() {
    // SAFETY: the hooks keep panics to themselves, and raise no ERROR.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"watchllm_keys.extra_key_patterns",
            c"Regular expressions whose matches are keys too: a JSON list of strings.",
            c"For the server log, redact_columns() and scans; \
              not for redact(), whose answers must not change.",
            &SETTING,
            GucContext::Sighup,
            GucFlags::default(),
            Some(check),
            Some(assign),
            None,
        );
    }
}

// SAFETY: PostgreSQL calls it with a value it has allocated, or null. Not #[pg_guard]: it raises no
// ERROR, and a panic would end the postmaster.
unsafe extern "C-unwind" fn check(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as promised by PostgreSQL.
    let list = unsafe { text(*value) };
    catch_unwind(AssertUnwindSafe(|| build(list))).unwrap_or(false)
}

// SAFETY: as `check`; the value is one that was checked.
unsafe extern "C-unwind" fn assign(value: *const c_char, _extra: *mut c_void) {
    // SAFETY: as promised by PostgreSQL.
    let list = unsafe { text(value) };
    let built =
        || is(&CHECKED, list) || catch_unwind(AssertUnwindSafe(|| build(list))).unwrap_or(false);
    if !is(&IN_FORCE, list) && built() {
        IN_FORCE.store(CHECKED.swap(ptr::null_mut(), Relaxed), Relaxed);
    }
}

/// # Safety
/// `value` is null or a C string that lives as long as the answer is used.
unsafe fn text<'a>(value: *const c_char) -> &'a [u8] {
    // SAFETY: as promised by the caller.
    if value.is_null() { b"" } else { unsafe { CStr::from_ptr(value) }.to_bytes() }
}

/// Whether this was built from that value.
fn is(built: &AtomicPtr<Built>, list: &[u8]) -> bool {
    // SAFETY: null, or a box that nobody frees meanwhile: a process has one thread.
    unsafe { built.load(Relaxed).as_ref() }.is_some_and(|built| built.list == list)
}

/// Builds the patterns and keeps them for `assign`. False: they are refused, and PostgreSQL gets
/// the reason.
fn build(list: &[u8]) -> bool {
    // Every reload checks every setting in every process. An unchanged value is not built again.
    if is(&IN_FORCE, list) || is(&CHECKED, list) {
        return true;
    }
    match ExtraPatterns::from_json(list) {
        Ok(patterns) => {
            let built = Box::new(Built { list: list.to_vec(), patterns });
            let former = CHECKED.swap(Box::into_raw(built), Relaxed);
            if !former.is_null() {
                // SAFETY: a box of ours that was never in force.
                drop(unsafe { Box::from_raw(former) });
            }
            true
        }
        Err((number, refusal)) => {
            let which =
                if number == 0 { String::new() } else { format!("Pattern {number} of the list: ") };
            refuse(&format!("{which}{}. {}", refusal.message, refusal.hint));
            false
        }
    }
}

/// Gives PostgreSQL the reason. It copies the words while it reports.
fn refuse(why: &str) {
    let why = CString::new(why).unwrap_or_default().into_raw();
    let former = DETAIL.swap(why, Relaxed);
    // SAFETY: a process-local variable of PostgreSQL, which frees nothing in it. The former words
    // are ours and were reported long ago.
    unsafe {
        pg_sys::GUC_check_errdetail_string = why;
        if !former.is_null() {
            drop(CString::from_raw(former));
        }
    }
}
