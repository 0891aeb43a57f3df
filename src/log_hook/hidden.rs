//! Messages of a statement that names us. Our own errors pass, and texts that PostgreSQL's program
//! holds word for word. Of every other error the SQLSTATE, its meaning and the position stay. Lines
//! of the log are blanked in place. Unsafe: PostgreSQL's error data. The texts of an ERROR may be
//! replaced, because they are freed with their memory context; those of a lesser message may not.

use super::client_text::text_of;
use super::intake;
use pgrx::PgSqlErrorCode::{self, *};
use pgrx::pg_sys;
use std::cell::UnsafeCell;
use std::ffi::{CStr, c_char};
use std::ptr::null_mut;

/// Formats of PostgreSQL's that take only names out of the catalog.
const NAMES_OF_THE_CATALOG: [&CStr; 14] = [
    c"terminating background worker \"%s\" due to administrator command",
    c"permission denied for function %s",
    c"permission denied for procedure %s",
    c"permission denied for schema %s",
    c"permission denied for table %s",
    c"permission denied for view %s",
    c"permission denied for sequence %s",
    c"null value in column \"%s\" of relation \"%s\" violates not-null constraint",
    c"duplicate key value violates unique constraint \"%s\"",
    c"new row for relation \"%s\" violates check constraint \"%s\"",
    c"insert or update on table \"%s\" violates foreign key constraint \"%s\"",
    c"update or delete on table \"%s\" violates foreign key constraint \"%s\" on table \"%s\"",
    c"new row violates row-level security policy for table \"%s\"",
    c"query would be affected by row-level security policy for table \"%s\"",
];

/// What the commonest SQLSTATEs of typing errors mean.
const MEANINGS: [(PgSqlErrorCode, &str); 28] = [
    (ERRCODE_SYNTAX_ERROR, "syntax error"),
    (ERRCODE_UNDEFINED_FUNCTION, "no function of that name, or no operator, takes these arguments"),
    (ERRCODE_UNDEFINED_COLUMN, "there is no such column"),
    (ERRCODE_UNDEFINED_TABLE, "there is no such table"),
    (ERRCODE_UNDEFINED_PARAMETER, "there is no such parameter"),
    (ERRCODE_UNDEFINED_OBJECT, "there is no such object"),
    (ERRCODE_AMBIGUOUS_FUNCTION, "more than one function fits"),
    (ERRCODE_AMBIGUOUS_COLUMN, "more than one column fits"),
    (ERRCODE_DATATYPE_MISMATCH, "a value is of another type"),
    (ERRCODE_INDETERMINATE_DATATYPE, "the type of a value is not known"),
    (ERRCODE_INVALID_SCHEMA_NAME, "there is no such schema"),
    (ERRCODE_INVALID_TEXT_REPRESENTATION, "a value is not written as its type asks"),
    (ERRCODE_INVALID_DATETIME_FORMAT, "a value is not written as a time"),
    (ERRCODE_DATETIME_FIELD_OVERFLOW, "a time is out of range"),
    (ERRCODE_NUMERIC_VALUE_OUT_OF_RANGE, "a number is out of range"),
    (ERRCODE_INVALID_NAME, "a name is not written as names are"),
    (ERRCODE_BAD_COPY_FILE_FORMAT, "a line of COPY has another form"),
    (ERRCODE_UNTRANSLATABLE_CHARACTER, "a character has no like in the other encoding"),
    (ERRCODE_CHARACTER_NOT_IN_REPERTOIRE, "bytes are no text of their encoding"),
    (ERRCODE_WRONG_OBJECT_TYPE, "an object is of another kind"),
    (ERRCODE_GROUPING_ERROR, "a column is neither grouped nor aggregated"),
    (ERRCODE_INVALID_PARAMETER_VALUE, "a value is not allowed"),
    (ERRCODE_QUERY_CANCELED, "the statement was cancelled, or took too long"),
    (ERRCODE_LOCK_NOT_AVAILABLE, "a lock was not to be had in time"),
    (ERRCODE_READ_ONLY_SQL_TRANSACTION, "the transaction is read-only"),
    (ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "an object is not in the state that this needs"),
    (ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST, "other objects depend on it"),
    (ERRCODE_RAISE_EXCEPTION, "raised by a function of yours"),
];

const OTHER: &str = "the text may hold a key";
const HINT: &CStr = c"Statements that name watchllm show no values. \
    See docs/troubleshooting.md#hidden-errors.";

/// Where a text for an ERROR is put together. A process has one thread, and an error is shown
/// before the next one is.
struct FixedText<const N: usize>(UnsafeCell<[u8; N]>);

// SAFETY: a process of PostgreSQL has one thread.
unsafe impl<const N: usize> Sync for FixedText<N> {}

static MESSAGE: FixedText<200> = FixedText(UnsafeCell::new([0; 200]));
static CONTEXT: FixedText<64> = FixedText(UnsafeCell::new([0; 64]));
static ADVICE: FixedText<160> = FixedText(UnsafeCell::new([0; 160]));

impl<const N: usize> FixedText<N> {
    /// The parts in a row, as a C string of static memory.
    fn of(&self, parts: &[&[u8]]) -> *mut c_char {
        // SAFETY: nobody reads the former text any more, and its last byte stays NUL.
        let bytes = unsafe { &mut *self.0.get() };
        bytes.fill(0);
        let text = parts.iter().copied().flatten();
        bytes[..N - 1].iter_mut().zip(text).for_each(|(ours, byte)| *ours = *byte);
        bytes.as_mut_ptr().cast()
    }
}

/// Hides what may hold a value. `statement` is the client's, if it is known.
///
/// # Safety
/// `error` is PostgreSQL's own error data.
pub(super) unsafe fn hide(error: *mut pg_sys::ErrorData, statement: Option<&[u8]>) {
    // SAFETY: as promised by the caller.
    unsafe {
        (*error).hide_stmt = true;
        (*error).hide_ctx = true;
        if (*error).elevel == pg_sys::PGERROR as i32 {
            hide_error(error, statement);
        } else {
            blank_in_place(error);
        }
    }
}

/// Of a message that is not about a statement of ours, blanks what quotes another session's
/// statement that is: a deadlock, a crash, a lock that is waited for.
///
/// # Safety
/// `error` is PostgreSQL's own error data.
pub(super) unsafe fn hide_others(error: *mut pg_sys::ErrorData) {
    // SAFETY: as promised by the caller.
    unsafe {
        let e = &*error;
        let detail = if e.elevel == pg_sys::LOG as i32 { e.detail } else { null_mut() };
        for text in [detail, e.detail_log] {
            text_of(text).filter(|text| intake::names_us(text)).map(intake::blank);
        }
    }
}

/// # Safety
/// `error` is an ERROR.
unsafe fn hide_error(error: *mut pg_sys::ErrorData, statement: Option<&[u8]>) {
    // SAFETY: texts of an ERROR are never freed one by one, so others may stand in their place.
    unsafe {
        let e = &mut *error;
        let own = is_own(e);
        if !own {
            let had_more = !e.detail.is_null() || !e.detail_log.is_null() || !e.hint.is_null();
            let known = is_known_text(e.message_id);
            if !known {
                e.message = message_of(e.sqlerrcode);
            }
            let advises = !known || had_more;
            e.hint = if advises { ADVICE.of(&[HINT.to_bytes()]) } else { null_mut() };
            (e.detail, e.detail_log) = (null_mut(), null_mut());
            (e.schema_name, e.table_name, e.column_name) = (null_mut(), null_mut(), null_mut());
            (e.datatype_name, e.constraint_name) = (null_mut(), null_mut());
        }
        e.context = line_of_copy(e.context, statement);
        (e.internalquery, e.backtrace, e.internalpos) = (null_mut(), null_mut(), 0);
        e.hide_ctx = e.context.is_null();
    }
}

/// Blanks a line of the log, a warning, or what ends a process (FATAL). PostgreSQL frees its texts
/// one by one, so they stay in place: another text in their place ended the whole server.
///
/// # Safety
/// `error` is PostgreSQL's own error data, and no ERROR.
unsafe fn blank_in_place(error: *mut pg_sys::ErrorData) {
    // SAFETY: each text is null or a C string that may be written.
    unsafe {
        let e = &*error;
        if !is_own(e) {
            if !is_known_text(e.message_id)
                && let Some(message) = text_of(e.message)
            {
                let kept = if begins(e.message_id, c"duration: %s") { number(message) } else { 0 };
                intake::blank(&mut message[kept..]);
            }
            for text in [e.detail, e.detail_log, e.hint] {
                text_of(text).map(intake::blank);
            }
        }
        for text in [
            e.context,
            e.internalquery,
            e.backtrace,
            e.schema_name,
            e.table_name,
            e.column_name,
            e.datatype_name,
            e.constraint_name,
        ] {
            text_of(text).map(intake::blank);
        }
    }
}

/// Whether the message is ours: made by `ErrorReport` in this library, where values are never put
/// into a text. A panic has no function's name. `install()` takes no values, so that what stops its
/// scripts may be told.
///
/// # Safety
/// `error` is PostgreSQL's own error data.
unsafe fn is_own(error: &pg_sys::ErrorData) -> bool {
    // SAFETY: as promised by the caller; null or C strings.
    unsafe {
        let function = bytes(error.funcname);
        let ours = function == b"watchllm_keys" || function.starts_with(b"watchllm_keys::");
        ours && bytes(error.filename).ends_with(b".rs")
            || intake::runs_our_sql()
            || raised_by_our_sql(error)
    }
}

/// RAISE in a function of ours. The innermost line of the context names the function, in every
/// language.
///
/// # Safety
/// As above.
unsafe fn raised_by_our_sql(error: &pg_sys::ErrorData) -> bool {
    // SAFETY: as promised by the caller.
    unsafe {
        let innermost = bytes(error.context).split(|byte| *byte == b'\n').next();
        let names = |line: &[u8]| OUR_RAISERS.iter().any(|ours| has(line, ours));
        bytes(error.funcname) == b"exec_stmt_raise" && innermost.is_some_and(names)
    }
}

/// Functions of ours that RAISE: their texts hold names of the catalog. All functions of the schema
/// are ours. The second is how the name follows in Japanese.
const OUR_RAISERS: [&[u8]; 2] = [b" watchllm.", "関数watchllm.".as_bytes()];

fn has(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|found| found == part)
}

/// Whether the message holds no value: it is a text of the program, or has names of the catalog.
/// The format is asked, which is English in every language.
///
/// # Safety
/// `format` is null or a C string.
unsafe fn is_known_text(format: *const c_char) -> bool {
    // SAFETY: as promised by the caller.
    unsafe {
        let known = |format: &[u8]| NAMES_OF_THE_CATALOG.iter().any(|c| c.to_bytes() == format);
        is_constant(format) || known(bytes(format))
    }
}

/// # Safety
/// `format` is null or a C string.
unsafe fn is_constant(format: *const c_char) -> bool {
    // SAFETY: as promised by the caller.
    !format.is_null() && !unsafe { bytes(format) }.contains(&b'%')
}

/// # Safety
/// `format` is null or a C string.
unsafe fn begins(format: *const c_char, part: &CStr) -> bool {
    // SAFETY: as promised by the caller.
    unsafe { bytes(format) }.starts_with(part.to_bytes())
}

/// # Safety
/// `text` is null or a C string that lives as long as the answer is used.
unsafe fn bytes<'a>(text: *const c_char) -> &'a [u8] {
    // SAFETY: as promised by the caller.
    if text.is_null() { b"" } else { unsafe { CStr::from_ptr(text) }.to_bytes() }
}

/// Where the first number of a text ends.
fn number(text: &[u8]) -> usize {
    let start = text.iter().take_while(|byte| !byte.is_ascii_digit()).count();
    let digit = |byte: &&u8| byte.is_ascii_digit() || matches!(**byte, b'.' | b',');
    start + text[start..].iter().take_while(digit).count()
}

/// The fixed sentence for an SQLSTATE.
fn message_of(sqlstate: i32) -> *mut c_char {
    let meaning = MEANINGS.iter().find(|(code, _)| *code as i32 == sqlstate);
    let meaning = meaning.map_or(OTHER, |(_, meaning)| meaning);
    let letters: [u8; 5] = std::array::from_fn(|i| (sqlstate >> (6 * i) & 0x3f) as u8 + b'0');
    MESSAGE.of(&[b"error ", &letters, b": ", meaning.as_bytes(), b" (hidden by watchllm_keys)"])
}

/// The context of a row that COPY into the inbox read: its line, and nothing of it. Null otherwise.
///
/// # Safety
/// `context` is null or a C string.
unsafe fn line_of_copy(context: *mut c_char, statement: Option<&[u8]>) -> *mut c_char {
    const INBOX: &[u8] = b"provider_key_inbox";
    // SAFETY: as promised by the caller.
    let text = unsafe { bytes(context) };
    if !statement.is_some_and(is_copy) {
        return null_mut();
    }
    let Some(name) = text.windows(INBOX.len()).position(|part| part == INBOX) else {
        return null_mut();
    };
    // In each of PostgreSQL's languages the line's number follows the name before any quote.
    let after = &text[name + INBOX.len()..];
    let between = |byte: &&u8| !byte.is_ascii_digit() && !matches!(**byte, b'"' | b':' | b'\'');
    let after = &after[after.iter().take_while(between).count()..];
    let line = &after[..after.iter().take_while(|byte| byte.is_ascii_digit()).count().min(20)];
    if line.is_empty() {
        return null_mut();
    }
    CONTEXT.of(&[b"COPY ", INBOX, b", line ", line])
}

/// Whether a statement begins with the word COPY.
fn is_copy(statement: &[u8]) -> bool {
    let text = statement.trim_ascii_start();
    text.get(..4).is_some_and(|word| word.eq_ignore_ascii_case(b"copy"))
}

#[cfg(test)]
mod tests {
    use super::{is_copy, line_of_copy, number};
    use std::ffi::{CStr, CString};

    #[test]
    fn a_failing_row_keeps_its_line_in_every_language() {
        for (context, line) in [
            ("COPY provider_key_inbox, line 3: \"a 9\"", "3"),
            ("COPY provider_key_inbox, Zeile 12, Spalte api_key: »9«", "12"),
            ("provider_key_inbox 복사, 4번째 줄: \"9\"", "4"),
            ("provider_key_inboxのCOPY、行 5、列 name: \"9\"", "5"),
            ("COPY provider_key_inbox, 第 6 行: \"9\"", "6"),
        ] {
            let context = CString::new(context).unwrap().into_raw();
            // SAFETY: a C string; the answer is static.
            let shown = unsafe { line_of_copy(context, Some(b" copy x")) };
            // SAFETY: a C string of static memory.
            let shown = unsafe { CStr::from_ptr(shown) }.to_str().unwrap();
            assert_eq!(shown, format!("COPY provider_key_inbox, line {line}"));
            // SAFETY: as above; it is freed once.
            unsafe {
                assert!(line_of_copy(context, Some(b"SELECT")).is_null());
                drop(CString::from_raw(context));
            }
        }
        assert!(is_copy(b"\n COPY x") && !is_copy(b"COP") && !is_copy(b"SELECT"));
    }

    #[test]
    fn the_duration_of_a_line_stays() {
        for (text, kept) in [("duration: 0.123 ms  x", 15), ("Dauer: 7,5 ms", 10), ("none", 4)] {
            assert_eq!(number(text.as_bytes()), kept, "{text}");
        }
    }
}
