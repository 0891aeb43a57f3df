//! What the writer reads before it serves: the database's identity, master keys, audit keys.
//! `install_history` is in `installed`, projects and members are in `projects`.

use super::oids::*;
use super::{id, uuid, value};
use crate::crypto::Sealed;
use crate::id::IdentityId;
use crate::postgres::{Owner, Statement};
use pgrx::pg_sys;

static MASTER_KEYS: Statement = Statement::new(
    "SELECT version, salt, iterations, canary, is_active FROM watchllm.master_keys
     WHERE retired_at IS NULL ORDER BY is_active DESC, version DESC",
    &[],
);

static FIRST_MASTER_KEY: Statement = Statement::new(
    "INSERT INTO watchllm.master_keys (version, salt, iterations, canary, is_active)
        VALUES ($1, $2, $3, $4, true)",
    &[INT4, BYTEA, INT4, BYTEA],
);

static AUDIT_KEY: Statement = Statement::new(
    "SELECT version, envelope FROM watchllm.audit_keys
        WHERE kind = $1 AND ($2 IS NULL OR version = $2)
     ORDER BY version DESC, created_at DESC",
    &[TEXT, INT4],
);

static INSERT_AUDIT_KEY: Statement = Statement::new(
    "INSERT INTO watchllm.audit_keys (kind, version, master_key_version, envelope, public_key)
     VALUES ($1, $2, $3, $4, $5)",
    &[TEXT, INT4, INT4, BYTEA, BYTEA],
);

static IDENTITY: Statement = Statement::new(
    "SELECT id FROM watchllm.database_identity
     WHERE system_identifier = $1 AND database_oid = $2 ORDER BY created_at DESC LIMIT 1",
    &[INT8, OID],
);

static INSERT_IDENTITY: Statement = Statement::new(
    "INSERT INTO watchllm.database_identity (id, system_identifier, database_oid, database_name,
        reason)
     VALUES ($1, $2, $3, pg_catalog.current_database(), $4)",
    &[UUID, INT8, OID, TEXT],
);

/// A row of `master_keys`.
pub(crate) struct MasterKey {
    pub version: i32,
    pub salt: [u8; 16],
    pub iterations: u32,
    pub canary: Option<Sealed>,
    pub is_active: bool,
}

/// Master keys that are not retired, the active one first.
pub(crate) fn master_keys(owner: Owner) -> Vec<MasterKey> {
    MASTER_KEYS.read(owner, &[], |row| MasterKey {
        version: value(row, 1),
        salt: row.get::<Vec<u8>>(2).and_then(|salt| salt.try_into().ok()).unwrap_or_default(),
        iterations: value::<i32>(row, 3) as u32,
        canary: row.get::<Vec<u8>>(4).and_then(|bytes| Sealed::parse(bytes).ok()),
        is_active: value(row, 5),
    })
}

/// For the writer: stores the first master key of this database, as the active one.
pub(crate) fn insert_first_master_key(
    owner: Owner,
    version: i32,
    salt: &[u8; 16],
    iterations: u32,
    canary: &Sealed,
) {
    let arguments =
        [version.into(), salt.as_slice().into(), (iterations as i32).into(), canary.bytes().into()];
    FIRST_MASTER_KEY.write(owner, &arguments);
}

/// Sealed copies of an audit key, newest version first; `version` None: of every version.
pub(crate) fn audit_key(
    owner: Owner,
    kind: &str,
    version: Option<i32>,
) -> Vec<(i32, Option<Sealed>)> {
    AUDIT_KEY.read(owner, &[kind.into(), version.into()], |row| {
        (value(row, 1), row.get::<Vec<u8>>(2).and_then(|bytes| Sealed::parse(bytes).ok()))
    })
}

/// For the writer: stores a sealed audit key.
pub(crate) fn insert_audit_key(
    owner: Owner,
    kind: &str,
    version: i32,
    sealed: &Sealed,
    public_key: Option<&[u8; 32]>,
) {
    let arguments = [
        kind.into(),
        version.into(),
        (sealed.master_key_version() as i32).into(),
        sealed.bytes().into(),
        public_key.map(|key| key.as_slice()).into(),
    ];
    INSERT_AUDIT_KEY.write(owner, &arguments);
}

/// The identity under which exactly this database on this server writes its trail.
pub(crate) fn identity(
    owner: Owner,
    system_identifier: u64,
    database: pg_sys::Oid,
) -> Option<IdentityId> {
    let arguments = [(system_identifier as i64).into(), database.into()];
    IDENTITY.read(owner, &arguments, |row| id(row, 1)).pop().flatten()
}

/// For the writer: a new identity, for a new, restored or copied database.
pub(crate) fn insert_identity(
    owner: Owner,
    new: IdentityId,
    system_identifier: u64,
    database: pg_sys::Oid,
    reason: &str,
) {
    let arguments =
        [uuid(new).into(), (system_identifier as i64).into(), database.into(), reason.into()];
    INSERT_IDENTITY.write(owner, &arguments);
}
