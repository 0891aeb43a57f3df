//! Projects (tenants), their members, and who owns them. `changes` handles the keys of a project.
//! `caller` decides whether a caller may do this.

use super::oids::*;
use super::{id, uuid, value};
use crate::id::ProjectId;
use crate::input::{ClaimedSubject, JwtSubject, Member, ProjectName, RoleName};
use crate::postgres::{Owner, Statement};
use pgrx::datum::DatumWithOid;
use pgrx::pg_sys;

static CREATE_PROJECT: Statement = Statement::new(
    "INSERT INTO watchllm.projects (id, name, owner_id)
        VALUES ($1, $2, $3) ON CONFLICT (id) DO NOTHING RETURNING id",
    &[UUID, TEXT, TEXT],
);

static NAMESAKE: Statement = Statement::new(
    "SELECT p.id FROM watchllm.projects p
     WHERE p.name = $1 AND p.id <> $2 AND p.deleted_at IS NULL ORDER BY p.created_at LIMIT 1",
    &[TEXT, UUID],
);

static LOCK_PROJECT: Statement = Statement::new(
    "SELECT deleted_at IS NULL FROM watchllm.projects WHERE id = $1 FOR NO KEY UPDATE",
    &[UUID],
);

static PROJECT: Statement = Statement::new(
    "SELECT true FROM watchllm.projects p WHERE p.id = $1 AND p.deleted_at IS NULL",
    &[UUID],
);

/// The projects of a subject and of roles. Roles are read first, because a cluster has few roles,
/// while a vault may have many members.
static OWN_PROJECTS: Statement = Statement::new(
    "SELECT p.id FROM watchllm.projects p WHERE p.owner_id = $2 AND p.deleted_at IS NULL
     UNION
     SELECT p.id FROM watchllm.project_members m JOIN watchllm.projects p ON p.id = m.project_id
     WHERE m.subject = $2 AND p.deleted_at IS NULL
     UNION
     SELECT p.id FROM pg_catalog.pg_roles g
         JOIN watchllm.project_members m ON m.role_name = g.rolname
        JOIN watchllm.projects p ON p.id = m.project_id
     WHERE pg_catalog.pg_has_role($1, g.oid, 'USAGE') AND p.deleted_at IS NULL",
    &[OID, TEXT],
);

static DELETE_PROJECT: Statement = Statement::new(
    "UPDATE watchllm.projects SET deleted_at = pg_catalog.now() WHERE id = $1",
    &[UUID],
);

static ADD_MEMBER: Statement = Statement::new(
    "INSERT INTO watchllm.project_members (project_id, subject, role_name)
        VALUES ($1, $2, $3::pg_catalog.name)
     ON CONFLICT DO NOTHING RETURNING id",
    &[UUID, TEXT, TEXT],
);

static REMOVE_MEMBER: Statement = Statement::new(
    "DELETE FROM watchllm.project_members WHERE project_id = $1 AND subject IS NOT DISTINCT FROM $2
        AND role_name IS NOT DISTINCT FROM $3::pg_catalog.name RETURNING id",
    &[UUID, TEXT, TEXT],
);

static ROLE_EXISTS: Statement = Statement::new(
    "SELECT true FROM pg_catalog.pg_roles WHERE rolname = $1::pg_catalog.name",
    &[TEXT],
);

/// Whether the project was created. False: the id is taken.
pub(crate) fn create_project(
    owner: Owner,
    project: ProjectId,
    name: &ProjectName,
    owner_id: Option<&JwtSubject>,
) -> bool {
    !CREATE_PROJECT
        .change(
            owner,
            &[uuid(project).into(), name.as_str().into(), owner_id.map(JwtSubject::as_str).into()],
            |_| (),
        )
        .is_empty()
}

/// Another project of this name. Names need not differ: they are the tenants' own.
pub(crate) fn namesake(owner: Owner, project: ProjectId, name: &ProjectName) -> Option<ProjectId> {
    let arguments = [name.as_str().into(), uuid(project).into()];
    NAMESAKE.read(owner, &arguments, |row| id(row, 1)).pop().flatten()
}

/// Locks the project's row, so that counts of its keys stay true. Answers whether the project
/// exists and is not deleted.
pub(crate) fn lock_project(owner: Owner, project: ProjectId) -> bool {
    LOCK_PROJECT
        .change(owner, &[uuid(project).into()], |row| value::<bool>(row, 1))
        .pop()
        .unwrap_or(false)
}

/// Whether the project exists and is not deleted.
pub(crate) fn project_exists(owner: Owner, project: ProjectId) -> bool {
    !PROJECT.read(owner, &[uuid(project).into()], |_| ()).is_empty()
}

/// The projects that the subject owns or is a member of, and those with a role as member whose
/// privileges `user` has.
pub(crate) fn own_projects(
    owner: Owner,
    user: pg_sys::Oid,
    subject: Option<&ClaimedSubject>,
) -> Vec<ProjectId> {
    OWN_PROJECTS
        .read(owner, &[user.into(), subject.map(ClaimedSubject::as_str).into()], |row| id(row, 1))
        .into_iter()
        .flatten()
        .collect()
}

/// Marks a project as deleted. Its row stays, so that its id is not used again.
pub(crate) fn delete_project(owner: Owner, project: ProjectId) {
    DELETE_PROJECT.change(owner, &[uuid(project).into()], |_| ());
}

/// Whether the member was added. False: it is a member already.
pub(crate) fn add_member(owner: Owner, project: ProjectId, member: &Member) -> bool {
    !ADD_MEMBER.change(owner, &membership(project, member), |_| ()).is_empty()
}

/// Whether there was such a member.
pub(crate) fn remove_member(owner: Owner, project: ProjectId, member: &Member) -> bool {
    !REMOVE_MEMBER.change(owner, &membership(project, member), |_| ()).is_empty()
}

fn membership(project: ProjectId, member: &Member) -> [DatumWithOid<'_>; 3] {
    let role = member.role_name().map(RoleName::as_str);
    [uuid(project).into(), member.subject().into(), role.into()]
}

pub(crate) fn role_exists(role: &RoleName) -> bool {
    !ROLE_EXISTS.read_as_caller(&[role.as_str().into()], |_| ()).is_empty()
}
