//! Statements that hand a key of any shape to the vault. The message shows none of the key:
//! STATEMENT and CONTEXT are hidden, and values in the statement's text are blanked. For a failing
//! row only its line number stays. Unsafe: PostgreSQL's texts, changed in place.

use super::client_text::text_of;
use super::masking;
use pgrx::PgSqlErrorCode;
use pgrx::pg_sys;
use std::ffi::c_char;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

/// The functions and the table that take a key. A statement that names one is hidden even if it
/// fails before our code runs. Examples: no right to execute, an error while planning, a type that
/// does not fit.
const TAKE_A_KEY: [&[u8]; 5] = [
    b"store_provider_key",
    b"rotate_provider_key",
    b"report_leaked_key",
    b"provider_key_inbox",
    b"find_keys",
];
/// All of those names contain this text.
const KEY: &[u8] = b"_key";
/// The context of a failing row begins with this text in every language.
const COPY: &[u8] = b"COPY provider_key_inbox";

/// The start time of the statement that last passed a key to us, perhaps through a wrapper. 0 means
/// none. It is compared and never reset, because the next statement has another start time.
static SENSITIVE_SINCE: AtomicI64 = AtomicI64::new(0);

/// Called at the entry of every function that takes a key.
pub(crate) fn statement_holds_a_key() {
    SENSITIVE_SINCE.store(masking::statement_start(), Relaxed);
}

/// Whether the running statement has passed a key to us.
pub(super) fn is_running() -> bool {
    let since = SENSITIVE_SINCE.load(Relaxed);
    since != 0 && since == masking::statement_start()
}

/// Whether a statement names a function or table that takes a key. Its text may be long, so only
/// places with an underscore are compared.
pub(super) fn names_us(text: &[u8]) -> bool {
    let named = |at: usize| {
        TAKE_A_KEY.iter().any(|name| {
            let before = name.windows(KEY.len()).position(|part| part == KEY).unwrap_or_default();
            let start = at.checked_sub(before);
            let part = start.and_then(|start| text.get(start..start + name.len()));
            part.is_some_and(|part| part.eq_ignore_ascii_case(name))
        })
    };
    let underscores = text.iter().enumerate().filter(|(_, byte)| **byte == b'_').map(|(at, _)| at);
    underscores
        .filter(|at| {
            text.get(*at..at + KEY.len()).is_some_and(|part| part.eq_ignore_ascii_case(KEY))
        })
        .any(named)
}

/// Hides the statement that an error message would repeat, and the values in the message itself.
///
/// # Safety
/// `error` is PostgreSQL's own error data.
pub(super) unsafe fn hide(error: *mut pg_sys::ErrorData) {
    // SAFETY: as promised by the caller; texts keep their length or get shorter.
    unsafe {
        (*error).hide_stmt = true;
        (*error).hide_ctx = true;
        cut_row((*error).context);
        if (*error).sqlerrcode == PgSqlErrorCode::ERRCODE_INVALID_TEXT_REPRESENTATION as i32 {
            blank_after_colon((*error).message);
        }
        // An error stays readable for the client. Only lines that repeat statements and parameters
        // are blanked.
        if (*error).elevel < pg_sys::PGERROR as i32 {
            text_of((*error).message).filter(|text| names_us(text)).map(masking::blank_values);
            text_of((*error).detail).map(masking::blank_values);
        }
    }
}

/// Keeps the line number in the context of a COPY into the inbox, and cuts off the row. Clients see
/// this text too.
///
/// # Safety
/// `context` is null or a C string that may be written.
unsafe fn cut_row(context: *mut c_char) {
    // SAFETY: as promised by the caller.
    let Some(text) = (unsafe { text_of(context) }) else { return };
    let Some(copy) = text.windows(COPY.len()).position(|part| part == COPY) else { return };
    let after = copy + COPY.len();
    let digit = |byte: &&u8| byte.is_ascii_digit();
    let line = after + text[after..].iter().take_while(|byte| !digit(byte)).count();
    let end = line + text[line..].iter().take_while(digit).count();
    if let Some(byte) = text.get_mut(end) {
        *byte = 0;
    }
}

/// Blanks the text after the first colon. A value that is no uuid may be a key in the wrong column.
///
/// # Safety
/// `message` is null or a C string that may be written.
unsafe fn blank_after_colon(message: *mut c_char) {
    // SAFETY: as promised by the caller; as many bytes as before.
    let Some(text) = (unsafe { text_of(message) }) else { return };
    let value = text.iter_mut().skip_while(|byte| **byte != b':').skip(1);
    value.filter(|byte| **byte != b' ').for_each(|byte| *byte = b'*');
}

#[cfg(test)]
mod tests {
    use super::{TAKE_A_KEY, names_us};

    #[test]
    fn a_statement_that_names_us_is_known_wherever_it_does() {
        for name in TAKE_A_KEY {
            for text in [
                name.to_vec(),
                name.to_ascii_uppercase(),
                [b"_key x", name].concat(),
                [name, b"('"].concat(),
            ] {
                assert!(names_us(&text), "{}", String::from_utf8_lossy(&text));
            }
            assert!(!names_us(&name[1..]) && !names_us(&name[..name.len() - 1]));
        }
        for other in [
            "",
            "_",
            "_key",
            "SELECT provider_key_id, store_provider_ke FROM provider_keys",
            "find key",
        ] {
            assert!(!names_us(other.as_bytes()), "{other}");
        }
    }
}
