//! An opened key on its way out. It becomes a text datum only with the proof that its access is
//! recorded. Unsafe: two marker traits of pgrx, so that the buffer is wiped when the datum is made.
//! pgrx would not wipe a String.

use crate::audit::Recorded;
use crate::crypto::Secret;
use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::{Datum, IntoDatum};
use pgrx::pg_sys;
use pgrx::pgrx_sql_entity_graph::metadata::{
    ArgumentError, ReturnsError, ReturnsRef, SqlMappingRef, SqlTranslatable, TypeOrigin,
};

/// A plaintext whose access is recorded.
pub(crate) struct Disclosed(Secret);

impl Disclosed {
    /// Takes the secret, in exchange for the proof that its access is recorded.
    pub(crate) fn new(secret: Secret, _proof: Recorded) -> Disclosed {
        Disclosed(secret)
    }
}

impl IntoDatum for Disclosed {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        // Every sealed secret is text. Anything else is not disclosed.
        std::str::from_utf8(self.0.expose()).ok()?.into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }
}

// SAFETY: the type maps to `text`, and into_datum makes a text datum.
unsafe impl SqlTranslatable for Disclosed {
    const TYPE_IDENT: &'static str = pgrx::pgrx_resolved_type!(Disclosed);
    const TYPE_ORIGIN: TypeOrigin = TypeOrigin::External;
    const ARGUMENT_SQL: Result<SqlMappingRef, ArgumentError> = Ok(SqlMappingRef::literal("text"));
    const RETURN_SQL: Result<ReturnsRef, ReturnsError> =
        Ok(ReturnsRef::One(SqlMappingRef::literal("text")));
}

// SAFETY: the datum is a fresh text in the caller's memory context.
unsafe impl BoxRet for Disclosed {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        match self.into_datum() {
            // SAFETY: the datum was made just now, of the type the function returns.
            Some(datum) => unsafe { fcinfo.return_raw_datum(datum) },
            None => fcinfo.return_null(),
        }
    }
}
