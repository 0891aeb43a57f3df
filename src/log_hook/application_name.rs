//! A session's own name, `application_name`. Every role reads it in pg_stat_activity, and lines of
//! the log begin with it. It is masked while it is set, by whatever way: at connect, by SET, by
//! set_config(), by a setting of a role. Unsafe: PostgreSQL's entry for the setting, whose check
//! ours comes after.

use super::client_text::text_of;
use super::masking::{self, MaskedKey};
use crate::postgres::hooks::HookChain;
use crate::redact::Ends;
use crate::settings;
use crate::trail::Channel;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

static CHECK: HookChain<pg_sys::GucStringCheckHook> = HookChain::new();

thread_local! {
    /// A key that was masked before it could be told who set it.
    static MASKED: Cell<Option<MaskedKey>> = const { Cell::new(None) };
}

/// Adds our check to the setting.
pub(super) fn install_hook() {
    // SAFETY: PostgreSQL's own list of settings, complete before libraries are loaded; called from
    // _PG_init, in a process of one thread.
    unsafe {
        let setting = setting(c"application_name").cast::<pg_sys::config_string>();
        if !setting.is_null() {
            CHECK.take(&raw mut (*setting).check_hook, Some(check));
        }
    }
}

/// # Safety
/// Called from _PG_init.
#[cfg(feature = "pg15")]
unsafe fn setting(name: &CStr) -> *mut pg_sys::config_generic {
    // SAFETY: PostgreSQL's own array of so many settings.
    unsafe {
        let settings = std::slice::from_raw_parts(
            pg_sys::get_guc_variables(),
            pg_sys::GetNumConfigOptions() as usize,
        );
        let named =
            |setting: &&*mut pg_sys::config_generic| CStr::from_ptr((***setting).name) == name;
        settings.iter().find(named).copied().unwrap_or(std::ptr::null_mut())
    }
}

/// # Safety
/// Called from _PG_init.
#[cfg(not(feature = "pg15"))]
unsafe fn setting(name: &CStr) -> *mut pg_sys::config_generic {
    // SAFETY: a look-up by name; a name that is not known answers null.
    unsafe { pg_sys::find_option(name.as_ptr(), false, true, pg_sys::DEBUG5 as i32) }
}

// SAFETY: PostgreSQL calls it with a value it has allocated, or null. Not #[pg_guard]: it raises no
// ERROR, and a panic would end the postmaster.
unsafe extern "C-unwind" fn check(
    value: *mut *mut c_char,
    extra: *mut *mut c_void,
    source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: as promised by PostgreSQL. The check that was there may replace the value.
    unsafe {
        if let Some(previous) = CHECK.previous()
            && !previous(value, extra, source)
        {
            return false;
        }
        if settings::redacts_server_log() {
            let name = text_of(*value);
            return catch_unwind(AssertUnwindSafe(|| name.map(mask))).is_ok();
        }
        true
    }
}

fn mask(name: &mut [u8]) {
    masking::mask_each(name, Ends::Whole, &mut |key, bytes| {
        MASKED.with(|masked| masked.set(Some(MaskedKey::of(key, bytes))));
    });
}

/// Reports the key that was masked since the last statement. At connect nobody knows yet who set
/// it.
pub(super) fn report() {
    if let Some(key) = MASKED.with(Cell::take) {
        masking::report(&key, Channel::ApplicationName);
    }
}
