//! Whether this database is installed and complete, and the statements of `install()`. `owner()` is
//! asked by every function and by the writer; its answer is remembered until a relation changes.

use crate::error::Error;
use crate::postgres::{Owner, Statement, lookup, relation_changes};
use pgrx::pg_sys;

/// The schema version that this build installs.
pub(crate) const SCHEMA_VERSION: i32 = 1;

/// What `install()` runs, in order; the tables only while the recorded version is below 1.
pub(crate) const PREFLIGHT: &str = include_str!("../../sql/preflight.sql");
pub(crate) const TABLES: &str = include_str!("../../sql/tables.sql");
pub(crate) const EVERY_TIME: &[&str] = &[
    include_str!("../../sql/access.sql"),
    include_str!("../../sql/views.sql"),
    include_str!("../../sql/supabase.sql"),
    include_str!("../../sql/comments.sql"),
];

static INSTALLED: Statement = Statement::new(include_str!("../../sql/installed.sql"), &[]);

static RELATIONS: Statement = Statement::new(
    "SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'watchllm' AND c.relkind IN ('r', 'p')",
    &[],
);

static VERSION: Statement =
    Statement::new("SELECT max(schema_version) FROM watchllm.install_history", &[]);

static HISTORY: Statement = Statement::new(
    "INSERT INTO watchllm.install_history (schema_version, extension_version)
     VALUES ($1, $2) ON CONFLICT DO NOTHING",
    &[pg_sys::INT4OID, pg_sys::TEXTOID],
);

/// The owner of our tables, when they are all there, complete and nobody else's.
pub(crate) fn owner() -> Result<Owner, Error> {
    if let Some(owner) = Owner::remembered() {
        return Ok(owner);
    }
    let changes = relation_changes();
    let mut found = INSTALLED.read_as_caller(&[], |row| {
        (
            row.get::<pg_sys::Oid>(1),
            row.get::<bool>(2),
            row.get::<pg_sys::Oid>(3),
            row.get::<String>(4),
        )
    });
    match found.pop() {
        Some((Some(role), Some(true), Some(trail), _)) => {
            let ours = RELATIONS.read_as_caller(&[], |row| row.get::<pg_sys::Oid>(1));
            Ok(Owner::remember(role, trail, ours.into_iter().flatten().collect(), changes))
        }
        Some((.., Some(problem))) if problem == "restoring" => Err(Error::Restoring),
        Some((.., Some(problem))) if problem == "foreign_owner" => Err(Error::Refused(
            "watchllm_owner must own every table of watchllm_keys, and have no members and no \
             special rights",
            "watchllm.security_check() says what differs. \
             See docs/security.md#roles.",
        )),
        Some((.., Some(problem))) if problem == "foreign_trigger" => Err(Error::Refused(
            "somebody put a trigger or rule on a table that the audit writer writes",
            "watchllm.install() as superuser names it, and how to drop it. \
             See docs/reference.md#42501.",
        )),
        _ => Err(Error::NotInstalled),
    }
}

/// The recorded schema version; 0 before the first install.
pub(crate) fn schema_version() -> i32 {
    if lookup::relation("install_history").is_none() {
        return 0;
    }
    VERSION.read_as_caller(&[], |row| row.get::<i32>(1)).pop().flatten().unwrap_or(0)
}

/// Runs a script of `install()` as the caller, who is a superuser.
pub(crate) fn run(script: &'static str) -> Result<(), Error> {
    pgrx::Spi::run(script).map_err(|e| Error::Internal(format!("install: {e}")))
}

/// Writes down that this version was installed.
pub(crate) fn record_version(owner: Owner, extension_version: &str) {
    HISTORY.change(owner, &[SCHEMA_VERSION.into(), extension_version.into()], |_| ());
}
