//! Installing, the state of the vault, the keyring, projects and their members. `install()` runs the files of `sql/`
//! as its caller, a superuser; everything else goes through `Access` (DESIGN §4, §7).

use super::access::Access;
use super::changes::check_name;
use crate::acting_owner::session;
use crate::audit;
use crate::caller::{Caller, Context, new_id};
use crate::error::{Answer, Error};
use crate::redact;
use crate::store::{self, Id, installed};
use crate::trail::{AccessType, FailureReason};
use pgrx::prelude::*;

/// Creates or migrates the tables, policies, views and grants; can be run again. Superuser only. Errors: not UTF-8
/// 0A000, somebody else's tables or an open schema 42501.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn install() -> Answer<String> {
    if !session::is_superuser(session::effective_user()) {
        return Err(Error::Refused("only a superuser may install watchllm_keys").into());
    }
    let before = installed::schema_version();
    installed::run(installed::PREFLIGHT)?;
    if before < 1 {
        installed::run(installed::TABLES)?;
    }
    for script in installed::EVERY_TIME {
        installed::run(script)?;
    }
    let owner = installed::owner()?;
    installed::record_version(owner, env!("CARGO_PKG_VERSION"));
    let today = (session::now() / 86_400_000_000) as i32;
    (today..=today + 7).for_each(|day| store::trail::make_partition(owner, day));
    let version = installed::SCHEMA_VERSION;
    Ok(match before {
        0 => format!("watchllm_keys {}: installed, schema version {version}", env!("CARGO_PKG_VERSION")),
        _ => format!("watchllm_keys {}: up to date, schema version {version}", env!("CARGO_PKG_VERSION")),
    })
}

/// Loads the keyring anew and answers how many versions of the master key can be used; errors say what is wrong with
/// it, and what was loaded before stays in use.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn reload_keyring() -> Answer<i32> {
    if !Caller::new(Context::default()).may_administer() {
        // Recorded where a record can be written: without a master key there is none.
        Access::begin(AccessType::MasterKey, Context::default())?.must_administer()?;
    }
    Ok(audit::reload_keyring()? as i32)
}

/// Shows the state of the vault in this database: one row, also when something is missing.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
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
    ),
> {
    let found = installed::owner();
    let state = audit::state();
    let problem = match (&found, state.preloaded) {
        (_, false) => Some(Error::NotPreloaded.message()),
        (Err(error), _) => Some(error.message()),
        _ if session::is_standby() => Some(Error::Standby.message()),
        _ => state.problem.clone().or_else(|| state.keyring_problem.clone()),
    };
    TableIterator::once((
        env!("CARGO_PKG_VERSION").to_owned(),
        if found.is_ok() { installed::SCHEMA_VERSION } else { 0 },
        state.preloaded,
        found.is_ok(),
        session::is_standby(),
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
    ))
}

/// Creates a project and answers its id. `owner_id` is the JWT sub of its owner; `id` may be given by the caller.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn create_project(
    name: Option<&str>,
    owner_id: default!(Option<&str>, "NULL"),
    id: default!(Option<pgrx::Uuid>, "NULL"),
) -> Answer<pgrx::Uuid> {
    let mut access = Access::begin(AccessType::Project, Context::default())?;
    access.must_administer()?;
    let name = access.need(name, "name")?;
    access.accept(check_name(name))?;
    access.accept(owner_id.map_or(Ok(()), check_subject))?;
    let project: Id = match id {
        Some(id) => *id.as_bytes(),
        None => new_id()?,
    };
    access.event.project_id = Some(project);
    if !store::admin::create_project(access.recorder.owner(), project, name, owner_id) {
        return Err(access.refuse(FailureReason::BadInput, Error::AlreadyThere("a project of this id")).into());
    }
    access.keep_change();
    Ok(pgrx::Uuid::from_bytes(project))
}

/// Adds a member to a project: a JWT sub or a database role, exactly one of them. Adding it again changes nothing.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn add_project_member(
    project_id: Option<pgrx::Uuid>,
    subject: default!(Option<&str>, "NULL"),
    role_name: default!(Option<&str>, "NULL"),
) -> Answer<()> {
    let (access, project) = member_change(project_id, subject, role_name)?;
    if role_name.is_some_and(|role| !store::admin::role_exists(role)) {
        let error = Error::BadInput("there is no such database role", "Create the role first.");
        return Err(access.refuse(FailureReason::BadInput, error).into());
    }
    if store::admin::add_member(access.recorder.owner(), project, subject, role_name) {
        access.keep_change();
    }
    Ok(())
}

/// Removes a member from a project; a member that is not there is refused (22023).
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn remove_project_member(
    project_id: Option<pgrx::Uuid>,
    subject: default!(Option<&str>, "NULL"),
    role_name: default!(Option<&str>, "NULL"),
) -> Answer<()> {
    let (access, project) = member_change(project_id, subject, role_name)?;
    if !store::admin::remove_member(access.recorder.owner(), project, subject, role_name) {
        let error = Error::BadInput("the project has no such member", "Name it as it was added.");
        return Err(access.refuse(FailureReason::BadInput, error).into());
    }
    access.keep_change();
    Ok(())
}

/// Begins a change of a project's members: checks who, what and that the project exists.
fn member_change(
    project: Option<pgrx::Uuid>,
    subject: Option<&str>,
    role: Option<&str>,
) -> Result<(Access, Id), Error> {
    let mut access = Access::begin(AccessType::Member, Context::default())?;
    access.must_administer()?;
    let project = *access.need(project, "project_id")?.as_bytes();
    access.event.project_id = Some(project);
    if subject.is_some() == role.is_some() {
        let error = Error::BadInput("exactly one of subject and role_name must be given", "Name one member a call.");
        return Err(access.refuse(FailureReason::BadInput, error));
    }
    access.accept(subject.map_or(Ok(()), check_subject))?;
    // Not locked: a tenant that changes keys in an open transaction must not hold up its own removal.
    if store::admin::is_member(access.recorder.owner(), project, access.caller.user()).is_none() {
        return Err(access.refuse(FailureReason::NotFound, Error::NoSuchProject));
    }
    Ok((access, project))
}

/// A JWT subject: 1 to 128 bytes that are no key.
fn check_subject(subject: &str) -> Result<(), Error> {
    let hint = "Give the sub claim of the user's token: 1 to 128 bytes.";
    if subject.is_empty() || subject.len() > 128 || redact::contains_key(subject) {
        return Err(Error::BadInput("this is not a subject", hint));
    }
    Ok(())
}
