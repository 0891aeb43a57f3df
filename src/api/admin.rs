//! Installing, the state of the vault, the keyring. `install()` runs the files of `sql/` as its
//! caller, a superuser (docs/architecture.md#install-model).

use super::access::Access;
use crate::audit;
use crate::caller::{Caller, Context};
use crate::error::{Answer, Error};
use crate::log_hook;
use crate::postgres::{clock, locks, process, session};
use crate::store::{self, installed};
use crate::trail::AccessType;
use pgrx::prelude::*;

/// Creates or migrates the tables, policies, views and grants; can be run again. Superuser only.
/// Errors: not UTF-8 0A000, somebody else's tables or an open schema 42501, tables of a newer
/// schema version 55000.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn install() -> Answer<String> {
    if !session::is_superuser(session::effective_user()) {
        let hint = "Connect as a superuser, then: SELECT watchllm.install(); \
                    See docs/reference.md#install.";
        return Err(Error::Refused("only a superuser may install watchllm_keys", hint).into());
    }
    // Before anything is read: what somebody else put there in our name would run as a superuser.
    locks::lock_extension();
    log_hook::statement_runs_our_sql();
    installed::run(installed::PREFLIGHT)?;
    let before = installed::recorded_version()?;
    let migrations = installed::migrations_after(before)?;
    for migration in migrations {
        installed::run(migration)?;
    }
    if !migrations.is_empty() {
        installed::run(installed::NEW_TABLES)?;
    }
    for script in installed::EVERY_TIME {
        installed::run(script)?;
    }
    let owner = installed::record_version(env!("CARGO_PKG_VERSION"))?;
    let today = clock::now().day();
    (today..=today + 7).for_each(|day| store::trail::make_partition(owner, day));
    let done = match before {
        0 => "installed".to_owned(),
        installed::SCHEMA_VERSION => "up to date".to_owned(),
        older => format!("brought up from schema version {older}"),
    };
    let (extension, schema) = (env!("CARGO_PKG_VERSION"), installed::SCHEMA_VERSION);
    Ok(format!("watchllm_keys {extension}: {done}, schema version {schema}"))
}

/// Loads the keyring anew and answers how many versions of the master key can be used; errors say
/// what is wrong with it, and what was loaded before stays in use.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn reload_keyring() -> Answer<i32> {
    if !Caller::new(Context::default()).may_administer() {
        // Recorded if a record can be written; without a master key it cannot.
        Access::begin(AccessType::MasterKey, Context::default())?.must_administer()?;
    }
    Ok(audit::reload_keyring()? as i32)
}

/// Shows the state of the vault in this database: one row, also when something is missing. `health`
/// is `ok`, `problem`, `standby`, or `not called yet` after a start of the server. It starts
/// nothing and waits for nothing, so monitoring may ask as often as it likes.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
#[expect(clippy::too_many_lines, reason = "a table: a row for each column")]
fn status() -> TableIterator<
    'static,
    (
        name!(version, String),
        name!(schema_version, i32),
        name!(preloaded, bool),
        name!(installed, bool),
        name!(standby, bool),
        name!(writer_state, String),
        name!(writer_pid, Option<i32>),
        name!(writer_starts, i64),
        name!(queue_size, i32),
        name!(queue_waiting, i64),
        name!(batches_written, i64),
        name!(events_written, i64),
        name!(events_failed, i64),
        name!(last_writer_problem, Option<String>),
        name!(active_master_key_version, Option<i32>),
        name!(master_key_versions, Vec<i32>),
        name!(keyring_problem, Option<String>),
        name!(problem, Option<String>),
        name!(health, String),
    ),
> {
    let found = installed::owner();
    let state = audit::state();
    let problem = match (&found, state.preloaded) {
        (_, false) => Some(Error::NotPreloaded.message()),
        (Err(error), _) => Some(error.message()),
        _ if process::is_standby() => Some(Error::Standby.message()),
        _ => {
            let later = || state.days_problem.clone();
            state.problem.clone().or_else(|| state.keyring_problem.clone()).or_else(later)
        }
    };
    let health = match &problem {
        Some(_) if state.preloaded && found.is_ok() && process::is_standby() => "standby",
        Some(_) => "problem",
        None if !state.called => "not called yet",
        None => "ok",
    };
    TableIterator::once((
        env!("CARGO_PKG_VERSION").to_owned(),
        match found {
            Ok(_) => installed::SCHEMA_VERSION,
            Err(Error::OlderSchema { recorded, .. } | Error::NewerSchema { recorded, .. }) => {
                recorded
            }
            Err(_) => 0,
        },
        state.preloaded,
        found.is_ok(),
        process::is_standby(),
        state.writer_state,
        state.writer_pid,
        state.starts as i64,
        state.queue_size as i32,
        state.waiting as i64,
        state.batches as i64,
        state.events as i64,
        state.failed as i64,
        state.writer_problem,
        state.active_version,
        state.versions,
        state.keyring_problem,
        problem,
        health.to_owned(),
    ))
}
