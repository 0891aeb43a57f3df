//! Adopted tables of projects: which there are, their triggers, and the projects they feed. The
//! table itself belongs to the application. So its catalog rows are read, and its triggers created,
//! as the caller. Our own rows are read and written as the owner of our tables.

use super::oids::*;
use super::{id, id_of, uuid, value};
use crate::error::Error;
use crate::id::{AdoptionId, ProjectId};
use crate::input::{JwtSubject, ProjectName};
use crate::postgres::{Owner, Statement};
use pgrx::pg_sys;
use pgrx::spi::{quote_literal, quote_qualified_identifier};

/// A table of the application and the columns that feed projects.
pub(crate) struct Adoption {
    pub id: AdoptionId,
    pub schema: String,
    pub table: String,
    pub id_column: String,
    pub owner_column: String,
    pub name_column: Option<String>,
}

/// A project as the adopted table has it.
pub(crate) struct Project {
    pub id: ProjectId,
    pub owner_id: Option<JwtSubject>,
    pub name: ProjectName,
}

/// Only an ordinary table can be adopted. Rows of a partition or a parent could change without
/// firing the triggers. Ids must be unique, since a second row with the same id would bring a
/// second owner.
static TABLE: Statement = Statement::new(
    "SELECT n.nspname::pg_catalog.text, c.relname::pg_catalog.text,
        c.relkind = 'r' AND c.relpersistence = 'p' AND n.nspname <> 'watchllm'
            AND n.nspname !~ '^pg_'
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_inherits i
            WHERE c.oid IN (i.inhrelid, i.inhparent))
        AND EXISTS (SELECT FROM pg_catalog.pg_index x
            JOIN pg_catalog.pg_attribute a ON a.attrelid = x.indrelid
            WHERE x.indrelid = c.oid AND x.indisunique AND x.indisvalid AND x.indimmediate
                AND x.indpred IS NULL
            AND x.indnkeyatts = 1 AND x.indkey[0] = a.attnum AND a.attname = $2::pg_catalog.name)
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = $1",
    &[OID, TEXT],
);

/// The adoption whose triggers are on the table, whatever its name was then. Nobody else can attach
/// our function.
static ATTACHED: Statement = Statement::new(
    "SELECT pg_catalog.split_part(pg_catalog.encode(t.tgargs, 'escape'), '\\000',
        1)::pg_catalog.uuid
     FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
     WHERE t.tgrelid = $1 AND p.proname = 'follow_projects' AND n.nspname = 'watchllm' LIMIT 1",
    &[OID],
);

static BY_NAME: Statement = Statement::new(
    "SELECT id FROM watchllm.adopted_tables
     WHERE schema_name = $1::pg_catalog.name AND table_name = $2::pg_catalog.name",
    &[TEXT, TEXT],
);

static SAVE: Statement = Statement::new(
    "INSERT INTO watchllm.adopted_tables (id, schema_name, table_name, id_column, owner_column,
        name_column, adopted_by)
     VALUES ($1, $2, $3, $4, $5, $6, SESSION_USER)
     ON CONFLICT (id) DO UPDATE
         SET schema_name = EXCLUDED.schema_name, table_name = EXCLUDED.table_name,
        id_column = EXCLUDED.id_column, owner_column = EXCLUDED.owner_column,
            name_column = EXCLUDED.name_column,
        adopted_by = EXCLUDED.adopted_by, adopted_at = pg_catalog.now()",
    &[UUID, TEXT, TEXT, TEXT, TEXT, TEXT],
);

static COLUMNS: Statement = Statement::new(
    "SELECT id_column::pg_catalog.text, owner_column::pg_catalog.text, name_column::pg_catalog.text
     FROM watchllm.adopted_tables
     WHERE id = $1::pg_catalog.uuid AND schema_name = $2::pg_catalog.name
         AND table_name = $3::pg_catalog.name",
    &[TEXT, TEXT, TEXT],
);

/// Nothing that is there already is changed: whoever may write into the application's table could
/// name any id, and bring a deleted project back to life or take another one over.
static TAKE_IN: Statement = Statement::new(
    "INSERT INTO watchllm.projects (id, name, owner_id, adopted_table_id)
        VALUES ($1, $2, $3, $4)
     ON CONFLICT (id) DO NOTHING RETURNING id",
    &[UUID, TEXT, TEXT, UUID],
);

/// For `adopt_projects()`, where a superuser decides: a live project of the same owner that belongs
/// to no adopted table comes under this one.
static TAKE_OVER: Statement = Statement::new(
    "UPDATE watchllm.projects SET name = $2, adopted_table_id = $4
     WHERE id = $1 AND owner_id = $3 AND adopted_table_id IS NULL AND deleted_at IS NULL
     RETURNING id",
    &[UUID, TEXT, TEXT, UUID],
);

static IS_DELETED: Statement = Statement::new(
    "SELECT true FROM watchllm.projects
        WHERE id = $1 AND deleted_at IS NOT NULL
            AND (adopted_table_id = $2 OR adopted_table_id IS NULL)",
    &[UUID, UUID],
);

static FOLLOW: Statement = Statement::new(
    "UPDATE watchllm.projects SET name = $2, owner_id = $3
     WHERE id = $1 AND adopted_table_id = $4 AND deleted_at IS NULL RETURNING id",
    &[UUID, TEXT, TEXT, UUID],
);

static KNOWN: Statement = Statement::new(
    "SELECT name, owner_id FROM watchllm.projects
        WHERE id = $1 AND adopted_table_id = $2 AND deleted_at IS NULL",
    &[UUID, UUID],
);

/// Schema and name of a table, and whether it can be adopted.
pub(crate) fn table(relation: pg_sys::Oid, id_column: &str) -> Option<(String, String, bool)> {
    TABLE
        .read_as_caller(&[relation.into(), id_column.into()], |row| {
            (value(row, 1), value(row, 2), value(row, 3))
        })
        .pop()
}

/// The adoption of this table, found by its triggers or by its name.
pub(crate) fn known(
    owner: Owner,
    relation: pg_sys::Oid,
    schema: &str,
    table: &str,
) -> Option<AdoptionId> {
    let attached = ATTACHED.read_as_caller(&[relation.into()], |row| id(row, 1)).pop().flatten();
    attached.or_else(|| {
        BY_NAME.read(owner, &[schema.into(), table.into()], |row| id(row, 1)).pop().flatten()
    })
}

/// Stores the adoption, or the changes to it.
pub(crate) fn save(owner: Owner, adoption: &Adoption) {
    let arguments = [
        uuid(adoption.id).into(),
        adoption.schema.as_str().into(),
        adoption.table.as_str().into(),
        adoption.id_column.as_str().into(),
        adoption.owner_column.as_str().into(),
        adoption.name_column.as_deref().into(),
    ];
    SAVE.change(owner, &arguments, |_| ());
}

/// Creates the triggers on the table, as the caller.
pub(crate) fn attach(adoption: &Adoption) -> Result<(), Error> {
    let (table, id) = (
        quote_qualified_identifier(&adoption.schema, &adoption.table),
        quote_literal(adoption.id.to_string()),
    );
    let run =
        |sql: String| pgrx::Spi::run(&sql).map_err(|error| Error::Internal(error.to_string()));
    run(format!(
        "CREATE OR REPLACE TRIGGER watchllm_follow_projects
             AFTER INSERT OR UPDATE OR DELETE ON {table}
         FOR EACH ROW EXECUTE FUNCTION watchllm.follow_projects({id})"
    ))?;
    run(format!(
        "CREATE OR REPLACE TRIGGER watchllm_follow_truncate BEFORE TRUNCATE ON {table}
         FOR EACH STATEMENT EXECUTE FUNCTION watchllm.follow_projects({id})"
    ))?;
    // Tools that load data set session_replication_role to replica. Other triggers are silent then.
    run(format!(
        "ALTER TABLE {table} ENABLE ALWAYS TRIGGER watchllm_follow_projects,
            ENABLE ALWAYS TRIGGER watchllm_follow_truncate"
    ))
}

/// The adoption that a trigger names, if it is the adoption of this table.
pub(crate) fn of_trigger(owner: Owner, id: &str, schema: &str, table: &str) -> Option<Adoption> {
    let named: AdoptionId = id_of(uuid_of(id)?);
    let found = |row: &crate::postgres::Row| Adoption {
        id: named,
        schema: schema.to_owned(),
        table: table.to_owned(),
        id_column: value(row, 1),
        owner_column: value(row, 2),
        name_column: row.get(3),
    };
    COLUMNS.read(owner, &[id.into(), schema.into(), table.into()], found).pop()
}

/// Takes a new project in. False: there is a project of its id already, perhaps a deleted one.
pub(crate) fn take_in(owner: Owner, adoption: AdoptionId, project: &Project) -> bool {
    !TAKE_IN.change(owner, &arguments(adoption, project), |_| ()).is_empty()
}

/// Takes over a live project of the same owner. False: it is another's, deleted, or not there.
pub(crate) fn take_over(owner: Owner, adoption: AdoptionId, project: &Project) -> bool {
    !TAKE_OVER.change(owner, &arguments(adoption, project), |_| ()).is_empty()
}

/// Whether the project is deleted, and was of no other table.
pub(crate) fn is_deleted(owner: Owner, adoption: AdoptionId, project: ProjectId) -> bool {
    !IS_DELETED.read(owner, &[uuid(project).into(), uuid(adoption).into()], |_| ()).is_empty()
}

/// Updates a project's owner and name. False: it is not of this adoption, or it was deleted.
pub(crate) fn follow(owner: Owner, adoption: AdoptionId, project: &Project) -> bool {
    !FOLLOW.change(owner, &arguments(adoption, project), |_| ()).is_empty()
}

/// Whether the project is fed from this table, not deleted, and equal to the table's row.
pub(crate) fn is_in_step(owner: Owner, adoption: AdoptionId, project: &Project) -> bool {
    let same = |row: &crate::postgres::Row| {
        row.get::<String>(1).as_deref() == Some(project.name.as_str())
            && row.get::<String>(2).as_deref() == project.owner_id.as_ref().map(JwtSubject::as_str)
    };
    KNOWN
        .read(owner, &[uuid(project.id).into(), uuid(adoption).into()], same)
        .pop()
        .unwrap_or(false)
}

/// Whether the project is fed from this table and not deleted.
pub(crate) fn is_fed(owner: Owner, adoption: AdoptionId, project: ProjectId) -> bool {
    !KNOWN.read(owner, &[uuid(project).into(), uuid(adoption).into()], |_| ()).is_empty()
}

fn arguments(adoption: AdoptionId, project: &Project) -> [pgrx::datum::DatumWithOid<'_>; 4] {
    [
        uuid(project.id).into(),
        project.name.as_str().into(),
        project.owner_id.as_ref().map(JwtSubject::as_str).into(),
        uuid(adoption).into(),
    ]
}

/// Parses a uuid as an id's Display writes it.
fn uuid_of(text: &str) -> Option<pgrx::Uuid> {
    let digits: String = text.chars().filter(|c| *c != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 32)?;
    Some(pgrx::Uuid::from_bytes(number.to_be_bytes()))
}
