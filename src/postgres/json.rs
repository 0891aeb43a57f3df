//! Values of type json and jsonb as text, exactly as PostgreSQL writes them. Parsing them would
//! round numbers. Unsafe: conversions of pgrx, and calls of built-in functions of PostgreSQL.

use pgrx::datum::{Datum, FromDatum, IntoDatum, UnboxDatum};
use pgrx::pg_sys;
use std::ffi::{CStr, CString};

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
        unsafe { String::from_polymorphic_datum(datum, null, pg_sys::TEXTOID) }.map(JsonText)
    }
}

impl IntoDatum for JsonText {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        let text = CString::new(self.0).ok()?;
        // SAFETY: the input function of the type; it raises an ERROR for what is no JSON.
        unsafe {
            pgrx::direct_function_call_as_datum(pg_sys::json_in, &[Some(text.as_ptr().into())])
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
        // SAFETY: as promised by the caller; not null.
        JsonText(unsafe { String::unbox(datum) })
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
        let text = CString::new(self.0).ok()?;
        // SAFETY: the input function of the type; it raises an ERROR for what is no JSON.
        unsafe {
            pgrx::direct_function_call_as_datum(pg_sys::jsonb_in, &[Some(text.as_ptr().into())])
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

/// # Safety
/// `jsonb` is a datum of type jsonb.
unsafe fn written(jsonb: pg_sys::Datum) -> String {
    // SAFETY: the output function of the type; its answer is copied at once.
    let text = unsafe { pgrx::direct_function_call::<&CStr>(pg_sys::jsonb_out, &[Some(jsonb)]) };
    text.map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}
