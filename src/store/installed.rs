//! Whether this database is installed, complete and of the schema version that this build knows,
//! and the scripts of `install()`. `owner()` is asked by every function and by the writer; its
//! answer is remembered until a relation changes.

use crate::error::Error;
use crate::postgres::lookup::{self, Lookup, Reads};
use crate::postgres::{Owner, Statement, search_start, session};
use pgrx::pg_sys;

/// What makes and changes the tables: the first leads to schema version 1, the next to 2. Each runs
/// once in a database; the recorded version says which have run.
const MIGRATIONS: &[&str] = &[
    include_str!("../../sql/migrations/0001_tables.sql"),
    include_str!("../../sql/migrations/0002_incident_sources.sql"),
    include_str!("../../sql/migrations/0003_own_past.sql"),
    include_str!("../../sql/migrations/0004_value.sql"),
    include_str!("../../sql/migrations/0005_sound.sql"),
];

/// The schema version that this build installs.
pub(crate) const SCHEMA_VERSION: i32 = MIGRATIONS.len() as i32;

/// What `install()` runs besides, in order: before the migrations, after any of them, every time.
pub(crate) const PREFLIGHT: &str = include_str!("../../sql/preflight.sql");
pub(crate) const NEW_TABLES: &str = include_str!("../../sql/new_tables.sql");
pub(crate) const EVERY_TIME: &[&str] = &[
    include_str!("../../sql/function_grants.sql"),
    include_str!("../../sql/access.sql"),
    include_str!("../../sql/trail.sql"),
    include_str!("../../sql/views.sql"),
    include_str!("../../sql/supabase.sql"),
    include_str!("../../sql/comments.sql"),
];

static INSTALLED: Statement = Statement::new(include_str!("../../sql/installed.sql"), &[]);

static RELATIONS: Statement = Statement::new(
    "SELECT c.oid FROM pg_catalog.pg_class c
     JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'watchllm' AND c.relkind IN ('r', 'p')",
    &[],
);

static VERSION: Statement =
    Statement::new("SELECT max(schema_version) FROM watchllm.install_history", &[]);

/// All of its rows, by the primary key's index: each installed version is one.
static HISTORY: Lookup = Lookup::new("install_history", "install_history_pkey", &[]);

static RECORD: Statement = Statement::new(
    "INSERT INTO watchllm.install_history (schema_version, extension_version)
     VALUES ($1, $2) ON CONFLICT DO NOTHING",
    &[pg_sys::INT4OID, pg_sys::TEXTOID],
);

/// The owner of our tables, when they are all there, complete, nobody else's, and of the schema
/// version that this build knows.
pub(crate) fn owner() -> Result<Owner, Error> {
    let is_of_this_version = |owner| version(owner).is_none_or(|found| found == SCHEMA_VERSION);
    if let Some(owner) = Owner::remembered().or_else(|| Owner::found_by_others(is_of_this_version))
    {
        return Ok(owner);
    }
    let start = search_start();
    let owner = complete()?;
    // Without a record the tables may well be of this version: pg_dump --schema-only leaves it out.
    match version(owner).unwrap_or(SCHEMA_VERSION) {
        SCHEMA_VERSION => {
            let ours = RELATIONS.read_as_caller(&[], |row| row.get::<pg_sys::Oid>(1));
            owner.remember(ours.into_iter().flatten().collect(), start);
            Ok(owner)
        }
        other => Err(of_another_version(other)),
    }
}

/// As `owner`, and it may read its tables. Without rights on them, this raises an ERROR. Point
/// reads ask for no rights, and every other statement fails.
pub(crate) fn owner_with_rights() -> Result<Owner, Error> {
    let owner = owner()?;
    VERSION.read(owner, &[], |_| ());
    Ok(owner)
}

/// The recorded schema version. None: there is no record. A parallel query cannot take the snapshot
/// that a point read needs.
fn version(owner: Owner) -> Option<i32> {
    if session::is_parallel() {
        return VERSION.read(owner, &[], |row| row.get::<i32>(1)).pop().flatten();
    }
    let versions = |reads: &Reads| reads.each(&HISTORY, &[], |row| row.get::<i32>(1));
    lookup::read(owner, versions).into_iter().flatten().flatten().max()
}

/// The owner of our tables, when they are all there, complete and nobody else's, of any version.
fn complete() -> Result<Owner, Error> {
    let mut found = INSTALLED.read_as_caller(&[], |row| {
        (
            row.get::<pg_sys::Oid>(1),
            row.get::<bool>(2),
            row.get::<pg_sys::Oid>(3),
            row.get::<String>(4),
        )
    });
    match found.pop() {
        Some((Some(role), Some(true), Some(trail), _)) => Ok(Owner::found(role, trail)),
        Some((.., Some(problem))) if problem == "restoring" => Err(Error::Restoring),
        Some((.., Some(problem))) if problem == "foreign_owner" => Err(Error::Refused(
            "watchllm_owner must own every table of watchllm_keys, and have no members and no \
             special rights",
            "watchllm.security_check() says what differs. \
             See docs/backup.md#without-owners.",
        )),
        Some((.., Some(problem))) if problem == "foreign_trigger" => Err(Error::Refused(
            "somebody put a trigger or rule on a table that the audit writer writes",
            "watchllm.install() as superuser names it, and how to drop it. \
             See docs/reference.md#42501.",
        )),
        _ => Err(Error::NotInstalled),
    }
}

/// The recorded schema version, read by a superuser after the preflight; 0 before the first
/// install.
pub(crate) fn recorded_version() -> Result<i32, Error> {
    if lookup::relation("install_history").is_none() {
        return Ok(0);
    }
    let recorded = VERSION.read_as_caller(&[], |row| row.get::<i32>(1)).pop().flatten();
    recorded.ok_or(Error::NoSchemaRecord)
}

/// The migrations that a database of this version still needs, in order; none where it needs none.
pub(crate) fn migrations_after(version: i32) -> Result<&'static [&'static str], Error> {
    steps_after(MIGRATIONS, version).ok_or_else(|| of_another_version(version))
}

/// None: the version is none that these steps lead to.
fn steps_after<'a>(steps: &'a [&'a str], version: i32) -> Option<&'a [&'a str]> {
    steps.get(usize::try_from(version).ok()?..)
}

/// Why tables of a version that is not this build's cannot be used.
fn of_another_version(recorded: i32) -> Error {
    if recorded < SCHEMA_VERSION {
        Error::OlderSchema { recorded, needed: SCHEMA_VERSION }
    } else {
        Error::NewerSchema { recorded, known: SCHEMA_VERSION }
    }
}

/// Runs a script of `install()` as the caller, who is a superuser.
pub(crate) fn run(script: &'static str) -> Result<(), Error> {
    pgrx::Spi::run(script).map_err(|e| Error::Internal(format!("install: {e}")))
}

/// Writes down that this version was installed; answers the owner of the tables, now that they are
/// of this version.
pub(crate) fn record_version(extension_version: &str) -> Result<Owner, Error> {
    RECORD.change(complete()?, &[SCHEMA_VERSION.into(), extension_version.into()], |_| ());
    owner()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_gets_the_steps_that_it_lacks_in_order() {
        let steps = ["one", "two", "three"];
        assert_eq!(steps_after(&steps, 0), Some(&steps[..]));
        assert_eq!(steps_after(&steps, 1), Some(&steps[1..]));
        assert_eq!(steps_after(&steps, 3), Some(&steps[3..]), "an install again runs none");
        assert_eq!(steps_after(&steps, 4), None, "made by a newer library");
        assert_eq!(steps_after(&steps, -1), None);
    }

    /// A file of the directory that no list names would never run.
    #[test]
    fn every_migration_is_listed_under_its_number() {
        let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/migrations");
        let mut files: Vec<_> =
            std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert_eq!(files.len(), MIGRATIONS.len());
        for ((file, migration), number) in files.iter().zip(MIGRATIONS).zip(1..) {
            let name = file.file_name().unwrap().to_string_lossy();
            assert!(name.starts_with(&format!("{number:04}_")), "{name} is not number {number}");
            assert_eq!(std::fs::read_to_string(file).unwrap(), *migration, "{name}");
        }
    }
}
