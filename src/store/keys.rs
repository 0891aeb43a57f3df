//! Provider keys as they are stored: records with their versions (envelopes). Reads only; `changes` has the rest.
//! The hot path reads by index, lists and candidates by SQL; both answer a `StoredKey`.

use super::oids::*;
use super::{Id, id, uuid, value};
use crate::acting_owner::lookup::{self, Key, Lookup};
use crate::acting_owner::{Owner, Row, Statement};
use crate::crypto::Sealed;
use pgrx::datum::Uuid;

/// What is stored of a provider key and its active version.
pub struct StoredKey {
    pub id: Id,
    pub project_id: Id,
    pub provider: String,
    pub name: Option<String>,
    pub priority: i32,
    pub is_active: bool,
    pub is_deleted: bool,
    pub is_blocked: bool,
    pub version: StoredVersion,
}

/// One version of a provider key. `sealed` is None when the envelope was destroyed or is not an envelope at all.
pub struct StoredVersion {
    pub number: i32,
    pub sealed: Option<Sealed>,
    pub is_compromised: bool,
    pub fingerprint: Vec<u8>,
    pub fingerprint_key_version: i32,
    pub created_at_micros: i64,
}

/// The columns of a `StoredKey`, in its order; a macro because statements are constants.
macro_rules! key_statement {
    ($rest:literal) => {
        concat!(
            "SELECT r.id, r.project_id, r.provider, r.name, r.priority, r.is_active, r.deleted_at IS NOT NULL,
                u.blocked_at IS NOT NULL, r.active_version, v.envelope, v.compromised_at IS NOT NULL, v.fingerprint,
                v.fingerprint_key_version, v.created_at
             FROM watchllm.provider_key_records r
             LEFT JOIN watchllm.provider_key_versions v
                ON v.project_id = r.project_id AND v.provider_key_id = r.id AND v.version = r.active_version
             LEFT JOIN watchllm.provider_key_usage u
                ON u.project_id = r.project_id AND u.provider_key_id = r.id ",
            $rest
        )
    };
}

/// The same three rows one by one, for the hot path; numbers are those of the columns in `sql/tables.sql`.
static RECORD: Lookup = Lookup::new("provider_key_records", "provider_key_records_id_key", &[1]);
static VERSION: Lookup = Lookup::new("provider_key_versions", "provider_key_versions_pkey", &[1, 2, 3]);
static USAGE: Lookup = Lookup::new("provider_key_usage", "provider_key_usage_pkey", &[1, 2]);

static BY_IDS: Statement = Statement::new(key_statement!("WHERE r.id = ANY ($1)"), &[UUIDS]);

static CANDIDATES: Statement = Statement::new(
    key_statement!(
        "WHERE r.project_id = $1 AND r.provider = $2 AND r.deleted_at IS NULL AND r.is_active
         ORDER BY r.priority, r.created_at, r.id"
    ),
    &[UUID, TEXT],
);

static ACTIVE_PRIORITIES: Statement = Statement::new(
    "SELECT priority FROM watchllm.provider_key_records
     WHERE project_id = $1 AND provider = $2 AND deleted_at IS NULL AND is_active AND id <> $3",
    &[UUID, TEXT, UUID],
);

static NAME_TAKEN: Statement = Statement::new(
    "SELECT true FROM watchllm.provider_key_records
     WHERE project_id = $1 AND provider = $2 AND name = $3 AND deleted_at IS NULL",
    &[UUID, TEXT, TEXT],
);

static EARLIER_VERSIONS: Statement = Statement::new(
    "SELECT version, envelope, compromised_at IS NOT NULL, fingerprint, fingerprint_key_version, created_at
     FROM watchllm.provider_key_versions
     WHERE project_id = $1 AND provider_key_id = $2 AND version < $3 AND destroyed_at IS NULL ORDER BY version DESC",
    &[UUID, UUID, INT4],
);

static ONE_VERSION: Statement = Statement::new(
    "SELECT version, envelope, compromised_at IS NOT NULL, fingerprint, fingerprint_key_version, created_at
     FROM watchllm.provider_key_versions
     WHERE project_id = $1 AND provider_key_id = $2 AND version = $3 AND destroyed_at IS NULL",
    &[UUID, UUID, INT4],
);

fn stored_key(row: &Row) -> StoredKey {
    StoredKey {
        id: id(row, 1).unwrap_or_default(),
        project_id: id(row, 2).unwrap_or_default(),
        provider: value(row, 3),
        name: row.get(4),
        priority: value(row, 5),
        is_active: value(row, 6),
        is_deleted: value(row, 7),
        is_blocked: value(row, 8),
        version: stored_version(row, 9),
    }
}

/// A row of provider_key_records; its version is filled in from the other tables.
fn record_row(row: &Row) -> StoredKey {
    let version = StoredVersion {
        number: value(row, 8),
        sealed: None,
        is_compromised: false,
        fingerprint: Vec::new(),
        fingerprint_key_version: 0,
        created_at_micros: 0,
    };
    StoredKey {
        id: id(row, 1).unwrap_or_default(),
        project_id: id(row, 2).unwrap_or_default(),
        provider: value(row, 3),
        name: row.get(4),
        priority: value(row, 6),
        is_active: value(row, 7),
        is_deleted: row.get::<pgrx::datum::TimestampWithTimeZone>(13).is_some(),
        is_blocked: false,
        version,
    }
}

/// A row of provider_key_versions.
fn version_row(row: &Row) -> StoredVersion {
    StoredVersion {
        number: value(row, 3),
        sealed: row.get::<Vec<u8>>(4).and_then(|bytes| Sealed::parse(bytes).ok()),
        is_compromised: row.get::<pgrx::datum::TimestampWithTimeZone>(11).is_some(),
        fingerprint: value(row, 6),
        fingerprint_key_version: value(row, 7),
        created_at_micros: super::micros(row.get(8)),
    }
}

/// Reads the six columns of a version that begin at `first`.
fn stored_version(row: &Row, first: i32) -> StoredVersion {
    let created_at = row.get::<pgrx::datum::TimestampWithTimeZone>(first + 5);
    StoredVersion {
        number: value(row, first),
        sealed: row.get::<Vec<u8>>(first + 1).and_then(|bytes| Sealed::parse(bytes).ok()),
        is_compromised: value(row, first + 2),
        fingerprint: value(row, first + 3),
        fingerprint_key_version: value(row, first + 4),
        created_at_micros: super::micros(created_at),
    }
}

/// The key with its active version, deleted ones too.
pub fn by_id(owner: Owner, key: Id) -> Option<StoredKey> {
    lookup::read(owner, |reads| {
        let mut found = reads.one(&RECORD, &[Key::Uuid(key)], record_row)?;
        let place = [Key::Uuid(found.project_id), Key::Uuid(key), Key::Int4(found.version.number)];
        let blocked = |row: &Row| row.get::<pgrx::datum::TimestampWithTimeZone>(11).is_some();
        found.is_blocked = reads.one(&USAGE, &place[..2], blocked).unwrap_or(false);
        found.version = reads.one(&VERSION, &place, version_row).unwrap_or(found.version);
        Some(found)
    })
}

/// The keys among `ids` that exist, in no order.
pub fn by_ids(owner: Owner, ids: &[Id]) -> Vec<StoredKey> {
    let ids: Vec<Uuid> = ids.iter().map(|&key| uuid(key)).collect();
    BY_IDS.read(owner, &[ids.into()], stored_key)
}

/// Active keys of a provider in the order they are tried: priority, age, id.
pub fn candidates(owner: Owner, project: Id, provider: &str) -> Vec<StoredKey> {
    CANDIDATES.read(owner, &[uuid(project).into(), provider.into()], stored_key)
}

/// Priorities of the active keys of this provider, other than `except`.
pub fn active_priorities(owner: Owner, project: Id, provider: &str, except: Id) -> Vec<i32> {
    let arguments = [uuid(project).into(), provider.into(), uuid(except).into()];
    ACTIVE_PRIORITIES.read(owner, &arguments, |row| value::<i32>(row, 1))
}

pub fn name_taken(owner: Owner, project: Id, provider: &str, name: &str) -> bool {
    let arguments = [uuid(project).into(), provider.into(), name.into()];
    !NAME_TAKEN.read(owner, &arguments, |_| ()).is_empty()
}

/// Versions below `active`, the highest first.
pub fn earlier_versions(owner: Owner, project: Id, key: Id, active: i32) -> Vec<StoredVersion> {
    let arguments = [uuid(project).into(), uuid(key).into(), active.into()];
    EARLIER_VERSIONS.read(owner, &arguments, |row| stored_version(row, 1))
}

pub fn one_version(owner: Owner, project: Id, key: Id, number: i32) -> Option<StoredVersion> {
    let arguments = [uuid(project).into(), uuid(key).into(), number.into()];
    ONE_VERSION.read(owner, &arguments, |row| stored_version(row, 1)).pop()
}
