//! Values of type text, json and jsonb as text, exactly as PostgreSQL writes them. Parsing JSON
//! would round numbers. A value may be a gigabyte, so its copy asks for memory. Unsafe: conversions
//! of pgrx, and calls of built-in functions of PostgreSQL.

use super::memory::copied;
use pgrx::datum::{Datum, FromDatum, IntoDatum, UnboxDatum};
use pgrx::pg_sys;
use std::ffi::{CStr, c_char};

/// A value of type text or varchar.
pub(crate) struct PlainText(pub String);

/// A value of type json.
pub(crate) struct JsonText(pub String);

/// A value of type jsonb.
pub(crate) struct JsonbText(pub String);

impl FromDatum for JsonText {
    // SAFETY: `FromDatum` promises a datum of this type.
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        null: bool,
        _: pg_sys::Oid,
    ) -> Option<JsonText> {
        // SAFETY: json is stored as text is.
        (!null).then(|| JsonText(unsafe { stored(datum) }))
    }
}

impl IntoDatum for JsonText {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        // SAFETY: the input function of the type; it raises an ERROR for what is no JSON.
        unsafe {
            let text = c_string(&self.0)?;
            pgrx::direct_function_call_as_datum(pg_sys::json_in, &[Some(text.into())])
        }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONOID
    }
}

// SAFETY: as `from_polymorphic_datum`.
unsafe impl UnboxDatum for JsonText {
    type As<'src> = JsonText;

    // SAFETY: `UnboxDatum` promises a datum of this type that is not null.
    unsafe fn unbox<'src>(datum: Datum<'src>) -> JsonText
    where
        Self: 'src,
    {
        // SAFETY: as promised by the caller; not null. json is stored as text is.
        JsonText(unsafe { stored(datum.sans_lifetime()) })
    }
}

impl FromDatum for JsonbText {
    // SAFETY: `FromDatum` promises a datum of this type.
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        null: bool,
        _: pg_sys::Oid,
    ) -> Option<JsonbText> {
        // SAFETY: a jsonb, as promised by the caller; the text is copied.
        (!null).then(|| JsonbText(unsafe { written(datum) }))
    }
}

impl IntoDatum for JsonbText {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        // SAFETY: the input function of the type; it raises an ERROR for what is no JSON.
        unsafe {
            let text = c_string(&self.0)?;
            pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(text.into())])
        }
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

// SAFETY: as `from_polymorphic_datum`.
unsafe impl UnboxDatum for JsonbText {
    type As<'src> = JsonbText;

    // SAFETY: `UnboxDatum` promises a datum of this type that is not null.
    unsafe fn unbox<'src>(datum: Datum<'src>) -> JsonbText
    where
        Self: 'src,
    {
        // SAFETY: as promised by the caller; not null.
        JsonbText(unsafe { written(datum.sans_lifetime()) })
    }
}

impl FromDatum for PlainText {
    // SAFETY: `FromDatum` promises a datum of this type.
    unsafe fn from_polymorphic_datum(
        datum: pg_sys::Datum,
        null: bool,
        _: pg_sys::Oid,
    ) -> Option<PlainText> {
        // SAFETY: a text, as promised by the caller.
        (!null).then(|| PlainText(unsafe { stored(datum) }))
    }
}

impl IntoDatum for PlainText {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        self.0.into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }

    fn is_compatible_with(other: pg_sys::Oid) -> bool {
        String::is_compatible_with(other)
    }
}

// SAFETY: as `from_polymorphic_datum`.
unsafe impl UnboxDatum for PlainText {
    type As<'src> = PlainText;

    // SAFETY: `UnboxDatum` promises a datum of this type that is not null.
    unsafe fn unbox<'src>(datum: Datum<'src>) -> PlainText
    where
        Self: 'src,
    {
        // SAFETY: as promised by the caller; not null.
        PlainText(unsafe { stored(datum.sans_lifetime()) })
    }
}

/// # Safety
/// `text` is a datum of type text, varchar or json.
unsafe fn stored(text: pg_sys::Datum) -> String {
    // SAFETY: as promised by the caller. It is unpacked in PostgreSQL's memory and copied at once.
    unsafe {
        let text = pg_sys::pg_detoast_datum_packed(text.cast_mut_ptr());
        let start = pgrx::varlena::vardata_any(text).cast::<u8>();
        let bytes = std::slice::from_raw_parts(start, pgrx::varlena::varsize_any_exhdr(text));
        copied(bytes)
    }
}

/// A text as C has it, in PostgreSQL's memory, which raises an ERROR where there is none. None: it
/// holds a NUL.
///
/// # Safety
/// Only what lives no longer than the current memory context may use it.
unsafe fn c_string(text: &str) -> Option<*mut c_char> {
    if text.as_bytes().contains(&0) {
        return None;
    }
    // SAFETY: as many bytes as are written.
    unsafe {
        let flags = pg_sys::MCXT_ALLOC_HUGE as i32;
        let copy = pg_sys::palloc_extended(text.len() + 1, flags).cast::<u8>();
        copy.copy_from_nonoverlapping(text.as_ptr(), text.len());
        copy.add(text.len()).write(0);
        Some(copy.cast())
    }
}

/// # Safety
/// `jsonb` is a datum of type jsonb.
unsafe fn written(jsonb: pg_sys::Datum) -> String {
    // SAFETY: the output function of the type; its answer is copied at once.
    let text = unsafe { pgrx::direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(jsonb)]) };
    text.map(|text| copied(text.to_bytes())).unwrap_or_default()
}
