//! Every query: a constant, schema-qualified, with $1. Sees only `Sealed` and `Event`, never a plaintext.
//! Each statement names its argument types; rows are read by position. DESIGN §6, §9.
#![forbid(unsafe_code)]

pub mod admin;
pub mod adoption;
pub mod changes;
pub mod definitions;
pub mod doctor;
pub mod history;
pub mod import;
pub mod incidents;
pub mod installed;
pub mod keys;
pub mod leaks;
pub mod named_source;
pub mod projects;
pub mod rotation;
pub mod settings;
pub mod trail;
pub mod watch;

use pgrx::datum::{FromDatum, TimestampWithTimeZone, Uuid};
use pgrx::pg_sys;

/// Sixteen bytes of a uuid.
pub type Id = [u8; 16];

/// The projects within which a caller may look: judged by `caller`, and carried into what is read.
pub enum Projects {
    Every,
    Own(Vec<Id>),
}

fn uuid(id: Id) -> Uuid {
    Uuid::from_bytes(id)
}

/// A timestamptz from microseconds since 1970.
fn timestamp(micros: i64) -> Option<TimestampWithTimeZone> {
    TimestampWithTimeZone::try_from(micros.saturating_sub(crate::acting_owner::session::POSTGRES_EPOCH)).ok()
}

/// Microseconds since 1970 of a timestamptz.
fn micros(at: Option<TimestampWithTimeZone>) -> i64 {
    at.map_or(0, |at| at.into_inner().saturating_add(crate::acting_owner::session::POSTGRES_EPOCH))
}

/// A uuid column.
fn id(row: &crate::acting_owner::Row, column: i32) -> Option<Id> {
    row.get::<Uuid>(column).map(|id| *id.as_bytes())
}

/// A column that the tables declare NOT NULL; its default stands for the impossible.
fn value<T: FromDatum + Default>(row: &crate::acting_owner::Row, column: i32) -> T {
    row.get(column).unwrap_or_default()
}

/// Oids of argument types, short.
mod oids {
    use super::pg_sys;
    pub use pg_sys::{
        BOOLARRAYOID as BOOLS, BOOLOID as BOOL, BYTEAARRAYOID as BYTEAS, BYTEAOID as BYTEA, INT4ARRAYOID as INT4S,
        INT4OID as INT4, INT8ARRAYOID as INT8S, INT8OID as INT8, INTERVALOID as INTERVAL, OIDOID as OID,
        TEXTARRAYOID as TEXTS, TEXTOID as TEXT, TIMESTAMPTZARRAYOID as TIMES, TIMESTAMPTZOID as TIME,
        UUIDARRAYOID as UUIDS, UUIDOID as UUID,
    };
}
