//! What is known of a value, whatever key has it: that it leaked, that a key of it is blocked, when
//! it was first stored. A value is known by its fingerprint. `in_project` is for callers, and reads
//! rows of one project alone. `near` is for the writer, and reads as much for one value as for
//! another.

use super::oids::*;
use super::{id, moment, uuid, value};
use crate::crypto::fingerprint;
use crate::id::{KeyRef, ProjectId};
use crate::moment::Moment;
use crate::postgres::lookup::{self, IndexKey, Lookup};
use crate::postgres::{Owner, Row, Statement};
use crate::trail::KeyVersion;
use pgrx::datum::TimestampWithTimeZone;

/// The versions of a project that have a value, by an index that holds no other project's rows
/// between them. A planner might take the index of all fingerprints, and what it fetches is counted
/// where everybody reads it.
static OF_VALUE: Lookup =
    Lookup::new("provider_key_versions", "provider_key_versions_value_key", &[1, 6]);
/// Versions that were reported while somebody held their key's row. The writer marks them later.
static MARKS: Lookup = Lookup::new("leak_marks", "leak_marks_pkey", &[1, 2, 3]);
static USAGE: Lookup = Lookup::new("provider_key_usage", "provider_key_usage_pkey", &[1, 2]);

/// What was decided last about a key that may not be written yet: the writer takes a moment.
static BLOCKED_LATELY: Statement = Statement::new(
    "SELECT l.access_type = 'block' FROM watchllm.provider_key_access_logs l
     WHERE l.project_id = $1 AND l.provider_key_id = $2
        AND l.accessed_at > pg_catalog.now() - '1 minute'::interval AND l.success
        AND (l.access_type = 'block' OR l.access_type = 'unblock' AND EXISTS (
            SELECT FROM watchllm.committed_changes c WHERE c.event_id = l.id))
     ORDER BY l.accessed_at DESC LIMIT 1",
    &[UUID, UUID],
);

/// As many rows after a fingerprint as before it, whether or not one of them has it.
static NEAR: Statement = Statement::new(
    "WITH near AS MATERIALIZED (
        (SELECT v.project_id, v.provider_key_id, v.version, v.fingerprint,
            v.fingerprint_key_version, v.compromised_at
         FROM watchllm.provider_key_versions v WHERE v.fingerprint >= $1
         ORDER BY v.fingerprint LIMIT 16)
        UNION ALL
        (SELECT v.project_id, v.provider_key_id, v.version, v.fingerprint,
            v.fingerprint_key_version, v.compromised_at
         FROM watchllm.provider_key_versions v WHERE v.fingerprint < $1
         ORDER BY v.fingerprint DESC LIMIT 16))
     SELECT n.project_id, n.provider_key_id, n.version, n.fingerprint, n.fingerprint_key_version,
        n.compromised_at IS NOT NULL OR EXISTS (SELECT FROM watchllm.leak_marks m
            WHERE m.project_id = n.project_id AND m.provider_key_id = n.provider_key_id
                AND m.version = n.version),
        u.blocked_at
     FROM near n LEFT JOIN watchllm.provider_key_usage u
        ON u.project_id = n.project_id AND u.provider_key_id = n.provider_key_id",
    &[BYTEA],
);

/// Rows of one value beyond those that `NEAR` reads. Only where it filled them all.
static ALL_OF: Statement = Statement::new(
    "SELECT v.project_id, v.provider_key_id, v.version, v.fingerprint, v.fingerprint_key_version,
        v.compromised_at IS NOT NULL OR EXISTS (SELECT FROM watchllm.leak_marks m
            WHERE m.project_id = v.project_id AND m.provider_key_id = v.provider_key_id
                AND m.version = v.version),
        u.blocked_at
     FROM watchllm.provider_key_versions v LEFT JOIN watchllm.provider_key_usage u
        ON u.project_id = v.project_id AND u.provider_key_id = v.provider_key_id
     WHERE v.fingerprint = $1 LIMIT 10000",
    &[BYTEA],
);

static OF_VERSION: Statement = Statement::new(
    "SELECT fingerprint, fingerprint_key_version FROM watchllm.provider_key_versions
     WHERE project_id = $1 AND provider_key_id = $2 AND version = $3",
    &[UUID, UUID, INT4],
);

/// What a project knows of a value.
#[derive(Clone, Copy, Default)]
pub(crate) struct KnownValue {
    pub is_leaked: bool,
    pub is_blocked: bool,
    /// When a version of it was first made there.
    pub first: Option<Moment>,
}

/// A value as it is stored.
pub(crate) struct StoredValue {
    pub fingerprint: Vec<u8>,
    key_version: i32,
}

/// A version whose fingerprint lies near to one that was asked about.
pub(crate) struct Neighbour {
    pub version: KeyVersion,
    pub is_leaked: bool,
    pub blocked_at: Option<Moment>,
    value: StoredValue,
}

impl Neighbour {
    /// Whether it has this fingerprint, under this version of the fingerprint key.
    pub(crate) fn is_of(&self, key_version: i32, fingerprint: &[u8]) -> bool {
        self.value.key_version == key_version
            && fingerprint::same(&self.value.fingerprint, fingerprint)
    }

    /// Whether it has this very value.
    pub(crate) fn has(&self, other: &StoredValue) -> bool {
        self.is_of(other.key_version, &other.fingerprint)
    }
}

/// What a project knows of the value with these fingerprints, one for each version of the
/// fingerprint key. None: the index is missing.
pub(crate) fn in_project(
    owner: Owner,
    project: ProjectId,
    fingerprints: &[(i32, [u8; 32])],
) -> Option<KnownValue> {
    let mut known = KnownValue::default();
    for (key_version, fingerprint) in fingerprints {
        for (version, made_at, is_leaked, of) in versions(owner, project, fingerprint)? {
            if of != *key_version {
                continue;
            }
            known.is_leaked |= is_leaked || is_to_be_marked(owner, version);
            known.is_blocked |= is_blocked(owner, version.key);
            known.first = known.first.map_or(Some(made_at), |first| Some(first.min(made_at)));
        }
    }
    Some(known)
}

/// Whether a project has a version with this fingerprint. False too while the index is missing.
pub(crate) fn is_stored(
    owner: Owner,
    project: ProjectId,
    key_version: i32,
    fingerprint: &[u8; 32],
) -> bool {
    let versions = versions(owner, project, fingerprint).unwrap_or_default();
    versions.iter().any(|(.., of)| *of == key_version)
}

type VersionOfValue = (KeyVersion, Moment, bool, i32);

/// The versions of a project with this fingerprint, each with when it was made, whether it leaked,
/// and the version of the fingerprint key.
fn versions(
    owner: Owner,
    project: ProjectId,
    fingerprint: &[u8; 32],
) -> Option<Vec<VersionOfValue>> {
    let version = |row: &Row| {
        let key = KeyRef { project, key: id(row, 2)? };
        let is_leaked = row.get::<TimestampWithTimeZone>(11).is_some();
        let version = KeyVersion { key, number: value(row, 3) };
        Some((version, moment(row, 8), is_leaked, value(row, 7)))
    };
    let keys = [IndexKey::Uuid(uuid(project)), IndexKey::Bytes(fingerprint)];
    let found = lookup::read(owner, |reads| reads.each(&OF_VALUE, &keys, version))?;
    Some(found.into_iter().flatten().collect())
}

/// Whether a version was reported as leaked, and waits to be marked.
pub(crate) fn is_to_be_marked(owner: Owner, version: KeyVersion) -> bool {
    let KeyVersion { key, number } = version;
    let place =
        [IndexKey::Uuid(uuid(key.project)), IndexKey::Uuid(uuid(key.key)), IndexKey::Int4(number)];
    lookup::read(owner, |reads| reads.one(&MARKS, &place, |_| ())).is_some()
}

/// Whether a key is blocked, or was a moment ago and the writer has not written it yet.
fn is_blocked(owner: Owner, key: KeyRef) -> bool {
    let place = [uuid(key.project).into(), uuid(key.key).into()];
    let lately = BLOCKED_LATELY.read(owner, &place, |row| value::<bool>(row, 1)).pop();
    lately.unwrap_or_else(|| {
        let place = [IndexKey::Uuid(uuid(key.project)), IndexKey::Uuid(uuid(key.key))];
        let blocked = |row: &Row| row.get::<TimestampWithTimeZone>(11).is_some();
        lookup::read(owner, |reads| reads.one(&USAGE, &place, blocked)).unwrap_or(false)
    })
}

/// The value of a version. None: there is no such version.
pub(crate) fn of_version(owner: Owner, version: KeyVersion) -> Option<StoredValue> {
    let stored = |row: &Row| StoredValue { fingerprint: value(row, 1), key_version: value(row, 2) };
    OF_VERSION.read(owner, &place(version), stored).pop()
}

/// For the writer: the versions near to a value, in all projects; among them all that have it.
pub(crate) fn near(owner: Owner, stored: &StoredValue) -> Vec<Neighbour> {
    near_to(owner, stored.key_version, &stored.fingerprint)
}

/// As `near`, of a fingerprint that nobody need have stored.
pub(crate) fn near_to(owner: Owner, key_version: i32, fingerprint: &[u8]) -> Vec<Neighbour> {
    let asked = StoredValue { fingerprint: fingerprint.to_vec(), key_version };
    let near = NEAR.read(owner, &[fingerprint.into()], neighbour);
    let near: Vec<Neighbour> = near.into_iter().flatten().collect();
    if near.iter().filter(|other| other.has(&asked)).count() < 16 {
        return near;
    }
    ALL_OF.read(owner, &[fingerprint.into()], neighbour).into_iter().flatten().collect()
}

fn neighbour(row: &Row) -> Option<Neighbour> {
    let key = KeyRef { project: id(row, 1)?, key: id(row, 2)? };
    let value_ = StoredValue { fingerprint: value(row, 4), key_version: value(row, 5) };
    let version = KeyVersion { key, number: value(row, 3) };
    let blocked_at = row.get::<TimestampWithTimeZone>(7).map(|_| moment(row, 7));
    Some(Neighbour { version, is_leaked: value(row, 6), blocked_at, value: value_ })
}

fn place(version: KeyVersion) -> [pgrx::datum::DatumWithOid<'static>; 3] {
    [uuid(version.key.project).into(), uuid(version.key.key).into(), version.number.into()]
}
