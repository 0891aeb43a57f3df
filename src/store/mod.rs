//! Every query: a constant, schema-qualified, with $1. Queries see only `Sealed` and `Event`, never
//! a plaintext. Each statement names its argument types, and rows are read by position
//! (docs/architecture.md#rooms).
#![forbid(unsafe_code)]

pub(crate) mod accepted;
pub(crate) mod admin;
pub(crate) mod adoption;
pub(crate) mod changes;
pub(crate) mod definitions;
pub(crate) mod doctor;
pub(crate) mod history;
pub(crate) mod import;
pub(crate) mod incidents;
pub(crate) mod installed;
pub(crate) mod keys;
pub(crate) mod leaks;
pub(crate) mod named_source;
pub(crate) mod past;
pub(crate) mod projects;
pub(crate) mod rotation;
pub(crate) mod settings;
pub(crate) mod sources;
pub(crate) mod trail;
pub(crate) mod values;
pub(crate) mod watch;

use crate::id::{Id, ProjectId};
use crate::moment::Moment;
use crate::postgres::clock;
use pgrx::datum::{FromDatum, TimestampWithTimeZone, Uuid};
use pgrx::pg_sys;

/// The projects that a caller may read. `caller` decides, and each read carries them.
pub(crate) enum Projects {
    Every,
    Own(Vec<ProjectId>),
}

/// An id as SQL has it.
pub(crate) fn uuid(id: impl Id) -> Uuid {
    Uuid::from_bytes(id.to_bytes())
}

/// The id that a uuid of SQL stands for. The reader says of what kind.
pub(crate) fn id_of<T: Id>(uuid: Uuid) -> T {
    T::from_bytes(*uuid.as_bytes())
}

/// A moment as SQL writes it. None: it is outside the range of SQL's timestamps.
fn timestamp(moment: Moment) -> Option<TimestampWithTimeZone> {
    TimestampWithTimeZone::try_from(clock::since_2000(moment)).ok()
}

/// A timestamptz column that is not NULL.
fn moment(row: &crate::postgres::Row, column: i32) -> Moment {
    let at = row.get::<TimestampWithTimeZone>(column);
    at.map_or(Moment::EPOCH, |at| clock::moment(at.into_inner()))
}

/// A uuid column.
fn id<T: Id>(row: &crate::postgres::Row, column: i32) -> Option<T> {
    row.get::<Uuid>(column).map(id_of)
}

/// A column that the tables declare NOT NULL. Its type's default stands for a NULL, which cannot
/// occur.
fn value<T: FromDatum + Default>(row: &crate::postgres::Row, column: i32) -> T {
    row.get(column).unwrap_or_default()
}

/// Oids of argument types, short.
mod oids {
    use super::pg_sys;
    pub(super) use pg_sys::{
        BOOLARRAYOID as BOOLS, BOOLOID as BOOL, BYTEAARRAYOID as BYTEAS, BYTEAOID as BYTEA,
        INT4ARRAYOID as INT4S, INT4OID as INT4, INT8ARRAYOID as INT8S, INT8OID as INT8,
        INTERVALOID as INTERVAL, OIDARRAYOID as OIDS, OIDOID as OID, TEXTARRAYOID as TEXTS,
        TEXTOID as TEXT, TIMESTAMPTZARRAYOID as TIMES, TIMESTAMPTZOID as TIME,
        UUIDARRAYOID as UUIDS, UUIDOID as UUID,
    };
}
