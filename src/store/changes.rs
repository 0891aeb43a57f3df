//! Changing provider keys. Each change is one statement with sealed values, and carries the project
//! that the caller was authorised for. Reads are in `keys`.

use super::keys::StoredVersion;
use super::oids::*;
use super::{timestamp, uuid, value};
use crate::crypto::Sealed;
use crate::id::{KeyRef, ProjectId, ProviderKeyId};
use crate::input::{ChangedBy, KeyHint, KeyName, Priority, ProviderSlug, RotationInterval};
use crate::moment::Moment;
use crate::postgres::lookup::{self, Lookup};
use crate::postgres::{Owner, Statement};
use crate::trail::KeyVersion;
use pgrx::datum::Interval;

/// The values that a new version is stored with.
pub(crate) struct NewVersion<'a> {
    pub number: i32,
    pub sealed: &'a Sealed,
    pub fingerprint: &'a [u8; 32],
    pub fingerprint_key_version: i32,
    pub key_hint: &'a KeyHint,
    pub created_by: ChangedBy<'a>,
    /// When the project first had this value. Its age counts from then, under whatever name.
    pub first: Option<Moment>,
}

/// A key that is stored for the first time.
pub(crate) struct NewRecord<'a> {
    pub key: KeyRef,
    pub provider: &'a ProviderSlug,
    pub name: Option<&'a KeyName>,
    pub priority: Priority,
}

/// No column that others refer to changes. So a row that refers to the key (a setting) need not
/// wait for this lock, as it would for FOR UPDATE.
static LOCK: Statement = Statement::new(
    "SELECT id FROM watchllm.provider_key_records WHERE project_id = $1 AND id = $2
        FOR NO KEY UPDATE",
    &[UUID, UUID],
);

static TRY_LOCK: Statement = Statement::new(
    "SELECT id FROM watchllm.provider_key_records WHERE project_id = $1 AND id = $2
        FOR NO KEY UPDATE SKIP LOCKED",
    &[UUID, UUID],
);

static INSERT: Statement = Statement::new(
    "WITH record AS (
        INSERT INTO watchllm.provider_key_records
            (id, project_id, provider, name, key_hint, priority, active_version,
                active_version_created_at)
        VALUES ($1, $2, $3, $4, $5, $6, 1, LEAST($12, pg_catalog.now())))
     INSERT INTO watchllm.provider_key_versions (project_id, provider_key_id, version, envelope,
         master_key_version,
        fingerprint, fingerprint_key_version, created_by, created_at)
     VALUES ($2, $1, 1, $7, $8, $9, $10, $11, LEAST($12, pg_catalog.now()))",
    &[UUID, UUID, TEXT, TEXT, TEXT, INT4, BYTEA, INT4, BYTEA, INT4, TEXT, TIME],
);

static HIGHEST_VERSION: Statement = Statement::new(
    "SELECT max(version) FROM watchllm.provider_key_versions
        WHERE project_id = $1 AND provider_key_id = $2",
    &[UUID, UUID],
);

static INSERT_VERSION: Statement = Statement::new(
    "WITH retired AS (
        UPDATE watchllm.provider_key_versions SET retired_at = pg_catalog.now()
        WHERE project_id = $1 AND provider_key_id = $2 AND retired_at IS NULL),
     record AS (
        UPDATE watchllm.provider_key_records
            SET active_version = $3, active_version_created_at = LEAST($10, pg_catalog.now()),
            key_hint = $9, compromised_at = NULL,
                rotation_required_at = LEAST($10, pg_catalog.now()) + rotation_interval,
            updated_at = pg_catalog.now()
        WHERE project_id = $1 AND id = $2)
     INSERT INTO watchllm.provider_key_versions (project_id, provider_key_id, version, envelope,
         master_key_version,
        fingerprint, fingerprint_key_version, created_by, created_at)
     VALUES ($1, $2, $3, $4, $5, $6, $7, $8, LEAST($10, pg_catalog.now()))",
    &[UUID, UUID, INT4, BYTEA, INT4, BYTEA, INT4, TEXT, TEXT, TIME],
);

static POINT_TO: Statement = Statement::new(
    "WITH versions AS (
        UPDATE watchllm.provider_key_versions
        SET retired_at = CASE WHEN version = $3 THEN NULL ELSE pg_catalog.now() END
        WHERE project_id = $1 AND provider_key_id = $2 AND (version = $3 OR retired_at IS NULL))
     UPDATE watchllm.provider_key_records SET active_version = $3, active_version_created_at = $4,
         key_hint = $5,
        compromised_at = NULL, rotation_required_at = coalesce($4 + rotation_interval,
            rotation_required_at),
        updated_at = pg_catalog.now()
     WHERE project_id = $1 AND id = $2",
    &[UUID, UUID, INT4, TIME, TEXT],
);

static SET_ACTIVE: Statement = Statement::new(
    "UPDATE watchllm.provider_key_records SET is_active = $3, updated_at = pg_catalog.now()
     WHERE project_id = $1 AND id = $2",
    &[UUID, UUID, BOOL],
);

/// An interval of zero removes the key's own interval.
static UPDATE: Statement = Statement::new(
    "UPDATE watchllm.provider_key_records
        SET name = coalesce($3, name), priority = coalesce($4, priority),
        rotation_interval = CASE
            WHEN $5 IS NULL THEN rotation_interval ELSE NULLIF($5, '0'::interval) END,
        rotation_required_at = CASE WHEN $5 IS NULL THEN rotation_required_at
            ELSE active_version_created_at + NULLIF($5, '0'::interval) END,
        updated_at = pg_catalog.now()
     WHERE project_id = $1 AND id = $2",
    &[UUID, UUID, TEXT, INT4, INTERVAL],
);

static DELETE: Statement = Statement::new(
    "WITH destroyed AS (
        UPDATE watchllm.provider_key_versions
        SET envelope = NULL, destroyed_at = pg_catalog.now(),
            retired_at = coalesce(retired_at, pg_catalog.now())
        WHERE project_id = $1 AND provider_key_id = $2 AND destroyed_at IS NULL)
     UPDATE watchllm.provider_key_records SET deleted_at = pg_catalog.now(), is_active = false,
        updated_at = pg_catalog.now()
     WHERE project_id = $1 AND id = $2",
    &[UUID, UUID],
);

static MARK_COMPROMISED: Statement = Statement::new(
    "WITH version AS (
        UPDATE watchllm.provider_key_versions
            SET compromised_at = coalesce(compromised_at, pg_catalog.now())
        WHERE project_id = $1 AND provider_key_id = $2 AND version = $3)
     UPDATE watchllm.provider_key_records
         SET compromised_at = coalesce(compromised_at, pg_catalog.now()),
        updated_at = pg_catalog.now()
     WHERE project_id = $1 AND id = $2 AND active_version = $3",
    &[UUID, UUID, INT4],
);

/// Locks the key's row against other changes until this transaction ends.
pub(crate) fn lock(owner: Owner, project: ProjectId, key: ProviderKeyId) {
    LOCK.change(owner, &[uuid(project).into(), uuid(key).into()], |_| ());
}

/// As `lock`, without waiting. False: another transaction holds the row.
pub(crate) fn try_lock(owner: Owner, project: ProjectId, key: ProviderKeyId) -> bool {
    !TRY_LOCK.change(owner, &[uuid(project).into(), uuid(key).into()], |_| ()).is_empty()
}

/// Stores a new key with its first version, in one statement and already sealed.
pub(crate) fn insert(owner: Owner, new: &NewRecord, first: &NewVersion) {
    INSERT.change(
        owner,
        &[
            uuid(new.key.key).into(),
            uuid(new.key.project).into(),
            new.provider.as_str().into(),
            new.name.map(KeyName::as_str).into(),
            first.key_hint.as_str().into(),
            new.priority.number().into(),
            first.sealed.bytes().into(),
            (first.sealed.master_key_version() as i32).into(),
            first.fingerprint.as_slice().into(),
            first.fingerprint_key_version.into(),
            first.created_by.as_str().into(),
            first.first.and_then(timestamp).into(),
        ],
        |_| (),
    );
}

/// The highest version the key ever had.
pub(crate) fn highest_version(owner: Owner, project: ProjectId, key: ProviderKeyId) -> i32 {
    let arguments = [uuid(project).into(), uuid(key).into()];
    HIGHEST_VERSION.read(owner, &arguments, |row| value::<i32>(row, 1)).pop().unwrap_or(0)
}

/// Stores a new version and makes it the active one.
pub(crate) fn insert_version(owner: Owner, key: KeyRef, new: &NewVersion) {
    INSERT_VERSION.change(
        owner,
        &[
            uuid(key.project).into(),
            uuid(key.key).into(),
            new.number.into(),
            new.sealed.bytes().into(),
            (new.sealed.master_key_version() as i32).into(),
            new.fingerprint.as_slice().into(),
            new.fingerprint_key_version.into(),
            new.created_by.as_str().into(),
            new.key_hint.as_str().into(),
            new.first.and_then(timestamp).into(),
        ],
        |_| (),
    );
}

/// Makes an existing version the active one.
pub(crate) fn point_to(
    owner: Owner,
    project: ProjectId,
    key: ProviderKeyId,
    version: &StoredVersion,
    key_hint: &KeyHint,
) {
    let arguments = [
        uuid(project).into(),
        uuid(key).into(),
        version.number.into(),
        timestamp(version.created_at).into(),
        key_hint.as_str().into(),
    ];
    POINT_TO.change(owner, &arguments, |_| ());
}

/// Marks a version as leaked. If it is the active one, marks the key too.
pub(crate) fn mark_compromised(owner: Owner, project: ProjectId, key: ProviderKeyId, version: i32) {
    MARK_COMPROMISED.change(
        owner,
        &[uuid(project).into(), uuid(key).into(), version.into()],
        |_| (),
    );
}

static MARK_LATER: Statement = Statement::new(
    "INSERT INTO watchllm.leak_marks (project_id, provider_key_id, version)
        VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
    &[UUID, UUID, INT4],
);

/// Any of them.
static MARKS: Lookup = Lookup::new("leak_marks", "leak_marks_pkey", &[]);

/// Rows that others hold stay for later. So the writer never waits for a caller.
static SETTLE_MARKS: Statement = Statement::new(
    "WITH due AS (
        SELECT m.project_id, m.provider_key_id, m.version, m.marked_at
        FROM watchllm.leak_marks m JOIN watchllm.provider_key_records r
            ON r.project_id = m.project_id AND r.id = m.provider_key_id
        ORDER BY m.marked_at LIMIT 256 FOR NO KEY UPDATE OF r SKIP LOCKED),
     version AS (
        UPDATE watchllm.provider_key_versions v
            SET compromised_at = coalesce(v.compromised_at, due.marked_at)
        FROM due WHERE v.project_id = due.project_id
            AND v.provider_key_id = due.provider_key_id AND v.version = due.version),
     record AS (
        UPDATE watchllm.provider_key_records r
            SET compromised_at = coalesce(r.compromised_at, due.marked_at),
                updated_at = pg_catalog.now()
        FROM due WHERE r.project_id = due.project_id AND r.id = due.provider_key_id
            AND r.active_version = due.version)
     DELETE FROM watchllm.leak_marks m USING due
     WHERE m.project_id = due.project_id AND m.provider_key_id = due.provider_key_id
        AND m.version = due.version",
    &[],
);

/// Marks a version as leaked as soon as the writer finds its key's row free.
pub(crate) fn mark_later(owner: Owner, project: ProjectId, key: ProviderKeyId, version: i32) {
    let arguments = [uuid(project).into(), uuid(key).into(), version.into()];
    MARK_LATER.change(owner, &arguments, |_| ());
}

/// For the writer: as `mark_later`.
pub(crate) fn write_mark_later(owner: Owner, version: KeyVersion) {
    let KeyVersion { key, number } = version;
    MARK_LATER.write(owner, &[uuid(key.project).into(), uuid(key.key).into(), number.into()]);
}

/// Whether a version waits to be marked. It is asked each second, and reads no other table.
pub(crate) fn has_marks(owner: Owner) -> bool {
    lookup::read(owner, |reads| reads.one(&MARKS, &[], |_| ())).is_some()
}

/// For the writer: marks what `mark_later` left, where nobody holds the row.
pub(crate) fn settle_marks(owner: Owner) {
    SETTLE_MARKS.write(owner, &[]);
}

pub(crate) fn set_active(owner: Owner, project: ProjectId, key: ProviderKeyId, is_active: bool) {
    SET_ACTIVE.change(owner, &[uuid(project).into(), uuid(key).into(), is_active.into()], |_| ());
}

/// Changes the given properties of a key. An interval of zero removes its own.
pub(crate) fn update(
    owner: Owner,
    project: ProjectId,
    key: ProviderKeyId,
    name: Option<&KeyName>,
    priority: Option<Priority>,
    rotation_interval: Option<RotationInterval<Interval>>,
) {
    let arguments = [
        uuid(project).into(),
        uuid(key).into(),
        name.map(KeyName::as_str).into(),
        priority.map(Priority::number).into(),
        rotation_interval.map(RotationInterval::given).into(),
    ];
    UPDATE.change(owner, &arguments, |_| ());
}

/// Destroys the envelopes of all versions and marks the key deleted; fingerprints and history stay.
pub(crate) fn delete(owner: Owner, project: ProjectId, key: ProviderKeyId) {
    DELETE.change(owner, &[uuid(project).into(), uuid(key).into()], |_| ());
}
