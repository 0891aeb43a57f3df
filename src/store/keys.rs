//! Provider keys as they are stored: records with their versions (envelopes). Reads only; `changes`
//! has the rest. A key is read by index (`lookup`). SQL finds which keys and versions there are.

use super::oids::*;
use super::{Projects, id, moment, uuid, value};
use crate::crypto::Sealed;
use crate::id::{KeyRef, ProjectId, ProviderKeyId};
use crate::input::{KeyName, ProviderSlug};
use crate::moment::Moment;
use crate::postgres::lookup::{self, IndexKey, Lookup, Reads};
use crate::postgres::{Owner, Row, Statement};
use pgrx::datum::TimestampWithTimeZone;

/// What is stored of a provider key and its active version.
pub(crate) struct StoredKey {
    pub id: ProviderKeyId,
    pub project_id: ProjectId,
    pub provider: ProviderSlug,
    pub name: Option<KeyName>,
    pub priority: i32,
    pub is_active: bool,
    pub is_deleted: bool,
    pub is_blocked: bool,
    pub version: StoredVersion,
}

impl StoredKey {
    /// Where the key lives.
    pub(crate) fn place(&self) -> KeyRef {
        KeyRef { project: self.project_id, key: self.id }
    }
}

/// One version of a provider key. `sealed` is None if the envelope was destroyed or is no envelope.
pub(crate) struct StoredVersion {
    pub number: i32,
    pub sealed: Option<Sealed>,
    pub is_compromised: bool,
    pub fingerprint: Vec<u8>,
    pub fingerprint_key_version: i32,
    pub created_at: Moment,
}

/// A version that was recognised by its fingerprint.
#[derive(Clone)]
pub(crate) struct Known {
    pub project: ProjectId,
    pub key: ProviderKeyId,
    pub version: i32,
    pub fingerprint: Vec<u8>,
    pub provider: String,
}

/// The three rows of a key; numbers here and in `record_row` are those of the columns in
/// `sql/migrations`.
static RECORD: Lookup = Lookup::new("provider_key_records", "provider_key_records_id_key", &[1]);
static RECORD_IN_PROJECT: Lookup =
    Lookup::new("provider_key_records", "provider_key_records_pkey", &[2, 1]);
static VERSION: Lookup =
    Lookup::new("provider_key_versions", "provider_key_versions_pkey", &[1, 2, 3]);
static USAGE: Lookup = Lookup::new("provider_key_usage", "provider_key_usage_pkey", &[1, 2]);

static CANDIDATES: Statement = Statement::new(
    "SELECT id FROM watchllm.provider_key_records
     WHERE project_id = $1 AND provider = $2 AND deleted_at IS NULL
         AND is_active ORDER BY priority, created_at, id",
    &[UUID, TEXT],
);

static OF_PROJECT: Statement = Statement::new(
    "SELECT id FROM watchllm.provider_key_records
        WHERE project_id = $1 AND deleted_at IS NULL ORDER BY id",
    &[UUID],
);

static BY_FINGERPRINTS: Statement = Statement::new(
    "SELECT v.project_id, v.provider_key_id, v.version, v.fingerprint, r.provider
     FROM watchllm.provider_key_versions v JOIN watchllm.provider_key_records r
        ON r.project_id = v.project_id AND r.id = v.provider_key_id
     WHERE v.fingerprint = ANY ($2) AND v.fingerprint_key_version = $1 ORDER BY 1, 2, 3",
    &[INT4, BYTEAS],
);

static ACTIVE_PRIORITIES: Statement = Statement::new(
    "SELECT priority FROM watchllm.provider_key_records
     WHERE project_id = $1 AND provider = $2 AND deleted_at IS NULL AND is_active AND id <> $3",
    &[UUID, TEXT, UUID],
);

static BY_NAME: Statement = Statement::new(
    "SELECT id FROM watchllm.provider_key_records
     WHERE project_id = $1 AND provider = $2 AND name = $3 AND deleted_at IS NULL",
    &[UUID, TEXT, TEXT],
);

/// Versions that still have their envelope. The columns are in the order of the table, as
/// `version_row` reads them.
macro_rules! version_statement {
    ($rest:literal) => {
        concat!(
            "SELECT project_id, provider_key_id, version, envelope, master_key_version, fingerprint,
                fingerprint_key_version, created_at, created_by, retired_at, compromised_at
             FROM watchllm.provider_key_versions
             WHERE project_id = $1 AND provider_key_id = $2 AND destroyed_at IS NULL ",
            $rest
        )
    };
}

static EARLIER_VERSIONS: Statement = Statement::new(
    version_statement!("AND version < $3 ORDER BY version DESC"),
    &[UUID, UUID, INT4],
);

static ONE_VERSION: Statement =
    Statement::new(version_statement!("AND version = $3"), &[UUID, UUID, INT4]);

/// A row of provider_key_records. Its version is filled in from the other tables.
fn record_row(row: &Row) -> StoredKey {
    let version = StoredVersion {
        number: value(row, 8),
        sealed: None,
        is_compromised: false,
        fingerprint: Vec::new(),
        fingerprint_key_version: 0,
        created_at: Moment::EPOCH,
    };
    StoredKey {
        id: id(row, 1).unwrap_or(ProviderKeyId::NIL),
        project_id: id(row, 2).unwrap_or(ProjectId::NIL),
        provider: ProviderSlug::stored(value(row, 3)),
        name: row.get(4).map(KeyName::stored),
        priority: value(row, 6),
        is_active: value(row, 7),
        is_deleted: row.get::<TimestampWithTimeZone>(13).is_some(),
        is_blocked: false,
        version,
    }
}

/// A row of provider_key_versions.
fn version_row(row: &Row) -> StoredVersion {
    StoredVersion {
        number: value(row, 3),
        sealed: row.get::<Vec<u8>>(4).and_then(|bytes| Sealed::parse(bytes).ok()),
        is_compromised: row.get::<TimestampWithTimeZone>(11).is_some(),
        fingerprint: value(row, 6),
        fingerprint_key_version: value(row, 7),
        created_at: moment(row, 8),
    }
}

/// The key with its active version, even if it is deleted.
pub(crate) fn by_id(owner: Owner, key: ProviderKeyId) -> Option<StoredKey> {
    by_ids(owner, &[key]).pop()
}

/// Those keys among `ids` that exist, each with its active version, in their order and under one
/// snapshot.
pub(crate) fn by_ids(owner: Owner, ids: &[ProviderKeyId]) -> Vec<StoredKey> {
    lookup::read(owner, |reads| ids.iter().filter_map(|&key| one(reads, key)).collect())
}

/// The key, if it is in one of these projects. For a tenant, another's key and a missing key cost
/// the same look-ups, so their times do not differ.
pub(crate) fn within(owner: Owner, projects: &Projects, key: ProviderKeyId) -> Option<StoredKey> {
    let Projects::Own(own) = projects else { return by_id(owner, key) };
    lookup::read(owner, |reads| {
        let found = |project: &ProjectId| {
            reads.one(
                &RECORD_IN_PROJECT,
                &[IndexKey::Uuid(uuid(*project)), IndexKey::Uuid(uuid(key))],
                record_row,
            )
        };
        own.iter().find_map(found).map(|found| with_version(reads, found))
    })
}

fn one(reads: &Reads, key: ProviderKeyId) -> Option<StoredKey> {
    reads
        .one(&RECORD, &[IndexKey::Uuid(uuid(key))], record_row)
        .map(|found| with_version(reads, found))
}

/// The record with its active version, and whether the key is blocked.
fn with_version(reads: &Reads, mut found: StoredKey) -> StoredKey {
    let place = [
        IndexKey::Uuid(uuid(found.project_id)),
        IndexKey::Uuid(uuid(found.id)),
        IndexKey::Int4(found.version.number),
    ];
    let blocked = |row: &Row| row.get::<TimestampWithTimeZone>(11).is_some();
    found.is_blocked = reads.one(&USAGE, &place[..2], blocked).unwrap_or(false);
    found.version = reads.one(&VERSION, &place, version_row).unwrap_or(found.version);
    found
}

/// Active keys of a provider in the order they are tried: priority, age, id.
pub(crate) fn candidates(
    owner: Owner,
    project: ProjectId,
    provider: &ProviderSlug,
) -> Vec<StoredKey> {
    let ids =
        CANDIDATES.read(owner, &[uuid(project).into(), provider.as_str().into()], |row| id(row, 1));
    by_ids(owner, &ids.into_iter().flatten().collect::<Vec<_>>())
}

/// The versions that have these fingerprints, even if they are destroyed.
pub(crate) fn by_fingerprints(
    owner: Owner,
    key_version: i32,
    fingerprints: &[[u8; 32]],
) -> Vec<Known> {
    let wanted: Vec<&[u8]> = fingerprints.iter().map(<[u8; 32]>::as_slice).collect();
    let found = BY_FINGERPRINTS.read(owner, &[key_version.into(), wanted.into()], |row| {
        let (project, key, version) = (id(row, 1)?, id(row, 2)?, value(row, 3));
        Some(Known { project, key, version, fingerprint: value(row, 4), provider: value(row, 5) })
    });
    found.into_iter().flatten().collect()
}

/// The keys of a project that are not deleted, by id.
pub(crate) fn of_project(owner: Owner, project: ProjectId) -> Vec<StoredKey> {
    let ids = OF_PROJECT.read(owner, &[uuid(project).into()], |row| id(row, 1));
    by_ids(owner, &ids.into_iter().flatten().collect::<Vec<_>>())
}

/// Priorities of the active keys of this provider, other than `except`.
pub(crate) fn active_priorities(
    owner: Owner,
    project: ProjectId,
    provider: &ProviderSlug,
    except: ProviderKeyId,
) -> Vec<i32> {
    let arguments = [uuid(project).into(), provider.as_str().into(), uuid(except).into()];
    ACTIVE_PRIORITIES.read(owner, &arguments, |row| value::<i32>(row, 1))
}

/// The key of this name, which is unique among the keys of a project and provider.
pub(crate) fn by_name(
    owner: Owner,
    project: ProjectId,
    provider: &ProviderSlug,
    name: &KeyName,
) -> Option<ProviderKeyId> {
    let arguments = [uuid(project).into(), provider.as_str().into(), name.as_str().into()];
    BY_NAME.read(owner, &arguments, |row| id(row, 1)).pop().flatten()
}

pub(crate) fn name_taken(
    owner: Owner,
    project: ProjectId,
    provider: &ProviderSlug,
    name: &KeyName,
) -> bool {
    by_name(owner, project, provider, name).is_some()
}

/// Versions below `active`, the highest first.
pub(crate) fn earlier_versions(
    owner: Owner,
    project: ProjectId,
    key: ProviderKeyId,
    active: i32,
) -> Vec<StoredVersion> {
    let arguments = [uuid(project).into(), uuid(key).into(), active.into()];
    EARLIER_VERSIONS.read(owner, &arguments, version_row)
}

pub(crate) fn one_version(
    owner: Owner,
    project: ProjectId,
    key: ProviderKeyId,
    number: i32,
) -> Option<StoredVersion> {
    let arguments = [uuid(project).into(), uuid(key).into(), number.into()];
    ONE_VERSION.read(owner, &arguments, version_row).pop()
}
