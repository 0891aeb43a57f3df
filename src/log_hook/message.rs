//! Every message on its way to the server log and the client: `emit_log_hook` runs before both.
//! Unsafe: the error's own buffers. They are masked in place and keep their length, so that cursor
//! positions stay right. The STATEMENT line is `debug_query_string`. It is replaced by a masked
//! copy, because PostgreSQL may still have to parse the original.

use super::client_text::{self, text_of};
use super::{activity, hidden, intake, masking, statement};
use crate::postgres::hooks::HookChain;
use crate::postgres::process;
use crate::redact::Ends;
use crate::settings;
use crate::trail::Channel;
use pgrx::pg_sys;
use std::ffi::c_char;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

static HOOK: HookChain<pg_sys::emit_log_hook_type> = HookChain::new();
/// Set while the hook works. A message raised by the hook itself would end in a loop, and the loop
/// in a PANIC.
static BUSY: AtomicBool = AtomicBool::new(false);

/// A constant of fewer bytes holds no key.
const SMALL_CONSTANT: usize = 16;

/// Takes the hook.
pub(super) fn install_hook() {
    // SAFETY: PostgreSQL's own hook; called from _PG_init, in a process of one thread.
    unsafe { HOOK.take(&raw mut pg_sys::emit_log_hook, Some(on_message)) }
}

// Not #[pg_guard], which allocates. If masking panics half way, the whole message is blanked, and
// the server lives on.
// SAFETY: PostgreSQL calls it with its own error data, valid for this call.
unsafe extern "C-unwind" fn on_message(error: *mut pg_sys::ErrorData) {
    // SAFETY: the error data is PostgreSQL's. The previous hook gets it unchanged otherwise. It may
    // leave by an ERROR of its own, so nothing of ours is open then.
    unsafe {
        if !error.is_null() && !BUSY.swap(true, Relaxed) {
            if !survives(|| mask(error)) {
                blank(error);
            }
            BUSY.store(false, Relaxed);
        }
        if let Some(previous) = HOOK.previous() {
            previous(error);
        }
    }
}

/// Runs `work`. False: it panicked, and the panic was caught here, because it would end the whole
/// server. pgrx keeps the panic's message out of the log.
fn survives(work: impl FnOnce()) -> bool {
    catch_unwind(AssertUnwindSafe(work)).is_ok()
}

/// # Safety
/// `error` is PostgreSQL's own error data.
unsafe fn mask(error: *mut pg_sys::ErrorData) {
    // SAFETY: reads process-local variables; the statement's text lives as long as its statement.
    unsafe {
        let (redacts, hides) = (settings::redacts_server_log(), settings::hides_statements());
        let running = pg_sys::debug_query_string;
        let seen = client_text::seen(running);
        let statement = text_of(running.cast_mut());
        let is_ours = || {
            let names_us = || statement.as_deref().is_some_and(intake::names_us);
            intake::is_running() || seen.map_or_else(names_us, |seen| seen.ours) || within(error)
        };
        let ours = hides && is_ours();
        if ours {
            // So is what comes later of the same statement.
            intake::statement_holds_a_key();
            hidden::hide(error, statement.as_deref());
        } else if hides {
            hidden::hide_others(error);
        }
        if redacts {
            mask_texts(error);
        }
        if let Some(statement) = statement {
            match seen {
                None => mask_statement(error, statement, ours, redacts),
                Some(seen) if ours && !seen.ours => statement::blank_clients(statement),
                Some(_) => (),
            }
        }
        if redacts {
            activity::mask_application_name();
        }
    }
}

/// Whether a statement within the client's names us: the error's QUERY or CONTEXT does. The
/// statements of our own worker are constants.
///
/// # Safety
/// `error` is PostgreSQL's own error data.
unsafe fn within(error: *mut pg_sys::ErrorData) -> bool {
    // SAFETY: each text is null or a C string in the error's own memory.
    unsafe {
        let texts = [(*error).internalquery, (*error).context];
        let names_us =
            texts.into_iter().any(|text| text_of(text).is_some_and(|text| intake::names_us(text)));
        names_us && !process::is_our_worker()
    }
}

/// # Safety
/// `error` is PostgreSQL's own error data.
unsafe fn mask_texts(error: *mut pg_sys::ErrorData) {
    // SAFETY: each text is null or a C string in the error's own memory.
    unsafe {
        let e = &*error;
        // Some lines repeat a text that was cut off: pg_log_backend_memory_contexts, and parameters
        // longer than the limit.
        let message = text_of(e.message);
        let cut = message.as_deref().is_some_and(|text| text.ends_with(b"..."));
        message.map(|text| {
            masking::mask(text, if cut { Ends::Cut } else { Ends::Whole }, Channel::Message)
        });
        text_of(e.detail).map(mask_constants);
        for detail in [e.detail, e.detail_log] {
            text_of(detail).map(|text| masking::mask(text, Ends::Cut, Channel::Detail));
        }
        text_of(e.context).map(|text| masking::mask(text, Ends::Cut, Channel::Context));
        text_of(e.internalquery).map(|text| masking::mask(text, Ends::Whole, Channel::Context));
        text_of(e.backtrace).map(|text| masking::mask(text, Ends::Whole, Channel::Context));
        text_of(e.hint).map(|text| masking::mask(text, Ends::Whole, Channel::Hint));
        for name in [e.schema_name, e.table_name, e.column_name, e.datatype_name, e.constraint_name]
        {
            text_of(name).map(|text| masking::mask(text, Ends::Cut, Channel::Names));
        }
    }
}

/// Masks the STATEMENT line, and what pg_stat_activity shows of the statement.
///
/// # Safety
/// `error` is PostgreSQL's own error data, `statement` is `debug_query_string`.
unsafe fn mask_statement(
    error: *mut pg_sys::ErrorData,
    statement: &mut [u8],
    ours: bool,
    redacts: bool,
) {
    let running = statement.as_mut_ptr().cast::<c_char>();
    let is_masked = client_text::is_copy(running);
    if is_masked && ours {
        intake::blank(statement);
        activity::show(statement);
    }
    if is_masked || !(ours || redacts && masking::holds_key(statement)) {
        return;
    }
    // SAFETY: the copy is ours. The text itself stays unchanged, because it may still be parsed.
    unsafe {
        let Some(copy) = client_text::copied(statement) else {
            (*error).hide_stmt = true;
            return;
        };
        if ours {
            intake::blank(copy);
        } else {
            masking::mask(copy, Ends::Whole, Channel::Statement);
        }
        activity::show(copy);
        client_text::replace_by_copy(running);
    }
}

/// debug_print_parse and similar settings print a constant as the decimal numbers of its bytes,
/// which no rule recognises. So the digits of every longer constant become zeros. PostgreSQL may
/// break these lines at any blank.
fn mask_constants(text: &mut [u8]) {
    const CONSTANT: &[u8] = b":constvalue";
    let mut from = 0;
    while let Some(found) = text[from..].windows(CONSTANT.len()).position(|part| part == CONSTANT) {
        from += found + CONSTANT.len();
        from += text[from..].iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        let number = text[from..].iter().take_while(|byte| byte.is_ascii_digit());
        let bytes = number.fold(0usize, |sum, digit| {
            sum.saturating_mul(10).saturating_add(usize::from(digit - b'0'))
        });
        let open = from
            + text[from..]
                .iter()
                .take_while(|byte| byte.is_ascii_digit() || byte.is_ascii_whitespace())
                .count();
        if bytes < SMALL_CONSTANT || text.get(open) != Some(&b'[') {
            continue;
        }
        let values = text[open..].iter_mut().take_while(|byte| **byte != b']');
        values.filter(|byte| byte.is_ascii_digit()).for_each(|byte| *byte = b'0');
    }
}

/// Blanks every text of a message.
///
/// # Safety
/// `error` is PostgreSQL's own error data.
unsafe fn blank(error: *mut pg_sys::ErrorData) {
    // SAFETY: each text is null or a C string in the error's own memory.
    unsafe {
        (*error).hide_stmt = true;
        let e = &*error;
        for text in
            [e.message, e.detail, e.detail_log, e.hint, e.context, e.internalquery, e.backtrace]
        {
            if let Some(text) = text_of(text) {
                text.fill(b'*');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{mask_constants, survives};

    #[test]
    fn a_panic_stays_within() {
        assert!(survives(|| ()));
        assert!(!survives(|| panic!("within the hook")));
    }

    #[test]
    fn digits_of_longer_constants_are_zeroed() {
        let mut text = *b":constvalue 20 [ 80 0 0 0 115 107\n 45 6 8 ] :location 7 \
              :constvalue 4 [ 7 0 0 0 ] :constvalue <>";
        mask_constants(&mut text);
        let expected = b":constvalue 20 [ 00 0 0 0 000 000\n 00 0 0 ] :location 7 \
              :constvalue 4 [ 7 0 0 0 ] :constvalue <>";
        assert_eq!(text, *expected);
        for broken in
            [":constvalue\n20 [ 115 ]", ":constvalue 20\n[ 115 ]", ":constvalue\n\t  20 [ 115 ]"]
        {
            let mut text = broken.as_bytes().to_vec();
            mask_constants(&mut text);
            assert_eq!(String::from_utf8_lossy(&text), broken.replace("115", "000"));
        }
        for odd in [
            "",
            ":constvalue ",
            ":constvalue 20 [",
            ":constvalue 99999999999999999999999 [ 1",
            ":constvalue 20 x",
        ] {
            mask_constants(&mut odd.as_bytes().to_vec());
        }
    }
}
