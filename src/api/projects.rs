//! Projects and their members. Administrators change them, and each change is recorded before it
//! commits. Row-level security reads them (docs/architecture.md#roles).

use super::access::Access;
use crate::caller::{Caller, Context, new_id};
use crate::error::{Answer, Error};
use crate::id::ProjectId;
use crate::input::{JwtSubject, Member, ProjectName};
use crate::store::{self, installed};
use crate::trail::{AccessType, Event, FailureReason};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Lists the projects that are the caller's own: those of the subject of trusted JWT claims, and
/// those with a member role whose privileges it has. Row-level security asks it, once per query.
#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
fn current_project_ids() -> Result<SetOfIterator<'static, pgrx::Uuid>, ErrorReport> {
    let own = Caller::new(Context::default()).own_projects(installed::owner()?);
    Ok(SetOfIterator::new(own.into_iter().map(store::uuid)))
}

/// Creates a project and answers its id. `owner_id` is the JWT sub of its owner; `id` may be given
/// by the caller.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn create_project(
    name: Option<&str>,
    owner_id: default!(Option<&str>, "NULL"),
    id: default!(Option<pgrx::Uuid>, "NULL"),
) -> Answer<pgrx::Uuid> {
    let mut access = Access::begin(AccessType::Project, Context::default())?;
    access.must_administer()?;
    let name = access.accept(ProjectName::parse(access.need(name, "name")?))?;
    let owner_id = access.accept(owner_id.map(JwtSubject::parse).transpose())?;
    let project: ProjectId = match id {
        Some(id) => store::id_of(id),
        None => new_id()?,
    };
    access.event.project_id = Some(project);
    if !store::projects::create_project(access.recorder.owner(), project, &name, owner_id.as_ref())
    {
        return Err(access
            .refuse(FailureReason::AlreadyExists, Error::AlreadyThere("a project of this id"))
            .into());
    }
    if let Some(other) = store::projects::namesake(access.recorder.owner(), project, &name) {
        notice!("another project has the same name: {other}");
    }
    access.keep_change();
    Ok(store::uuid(project))
}

/// Deletes a project: deletes each of its keys as `delete_provider_key` does, one event each, and
/// keeps the project's row and its audit trail. Its id is not used again. Errors: no such project
/// 02000.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn delete_project(
    project_id: Option<pgrx::Uuid>,
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<()> {
    let mut access =
        Access::begin(AccessType::Project, Context { request_id, ip_address, user_agent })?;
    access.must_administer()?;
    let project = store::id_of::<ProjectId>(access.need(project_id, "project_id")?);
    access.event.project_id = Some(project);
    Ok(delete_whole(&mut access, project)?)
}

/// Deletes a project's keys, then the project.
pub(super) fn delete_whole(access: &mut Access, project: ProjectId) -> Result<(), Error> {
    let owner = access.recorder.owner();
    // The project comes first, as in store, so that no key is stored into it meanwhile.
    if !access.patiently(|| store::projects::lock_project(owner, project)) {
        return Err(access.refuse(FailureReason::NotFound, Error::NoSuchProject));
    }
    let of_project = Event { access_type: AccessType::Project, ..access.event };
    for key in store::keys::of_project(owner, project) {
        access.patiently(|| store::changes::lock(owner, project, key.id));
        access.event = Event { access_type: AccessType::Delete, id: new_id()?, ..of_project };
        access.about(&key);
        store::changes::delete(owner, project, key.id);
        access.keep_change();
    }
    access.event = Event { id: new_id()?, project_id: Some(project), ..of_project };
    store::projects::delete_project(owner, project);
    access.keep_change();
    Ok(())
}

/// Adds a member to a project: a JWT sub or a database role, exactly one of them. Adding it again
/// changes nothing.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn add_project_member(
    project_id: Option<pgrx::Uuid>,
    subject: default!(Option<&str>, "NULL"),
    role_name: default!(Option<&str>, "NULL"),
) -> Answer<()> {
    let (access, project, member) = member_change(project_id, subject, role_name)?;
    if member.role_name().is_some_and(|role| !store::projects::role_exists(role)) {
        let error = Error::BadInput("there is no such database role", "Create the role first.");
        return Err(access.refuse(FailureReason::BadInput, error).into());
    }
    if store::projects::add_member(access.recorder.owner(), project, &member) {
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
    let (access, project, member) = member_change(project_id, subject, role_name)?;
    if !store::projects::remove_member(access.recorder.owner(), project, &member) {
        let error = Error::BadInput("the project has no such member", "Name it as it was added.");
        return Err(access.refuse(FailureReason::BadInput, error).into());
    }
    access.keep_change();
    Ok(())
}

/// Begins a change of a project's members: who, whom, and that the project exists.
fn member_change(
    project: Option<pgrx::Uuid>,
    subject: Option<&str>,
    role: Option<&str>,
) -> Result<(Access, ProjectId, Member), Error> {
    let mut access = Access::begin(AccessType::Member, Context::default())?;
    access.must_administer()?;
    let project = store::id_of::<ProjectId>(access.need(project, "project_id")?);
    access.event.project_id = Some(project);
    let member = access.accept(Member::parse(subject, role))?;
    // Not locked, so that a tenant that changes keys in an open transaction cannot delay its own
    // removal.
    if !store::projects::project_exists(access.recorder.owner(), project) {
        return Err(access.refuse(FailureReason::NotFound, Error::NoSuchProject));
    }
    Ok((access, project, member))
}
