//! An application's own table of projects feeds `projects`. It is adopted once, and triggers on it
//! follow its changes. The table is read without SQL. Each row is judged: an id that belongs to
//! somebody else is refused.

use super::access::Access;
use super::projects::delete_whole;
use super::stored_words::{self, Whose};
use crate::caller::{Context, new_id};
use crate::error::{Answer, Error};
use crate::id::ProjectId;
use crate::input::{Invalid, JwtSubject, ProjectName};
use crate::postgres::table::{self, Leaf, NamedRow};
use crate::postgres::{StepMemory, process, session};
use crate::store::adoption::{self, Adoption, Project};
use crate::store::id_of;
use crate::trail::{AccessType, FailureReason};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::convert::Infallible;
use std::ffi::CString;

/// Adopts an application's projects table: every row becomes a project of the same id, and triggers
/// keep both in step. `id_column` is a uuid, `owner_column` a uuid or text (the JWT sub of the
/// owner), `name_column` text or NULL for none. Answers how many projects the table feeds. Run
/// again after the table was renamed or its columns were. A live project of the same owner that
/// create_project() made comes under the table; a deleted one stays deleted. Superuser only.
/// Errors: no plain table, or columns of other types 22023, an id that is another project's 23505.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn adopt_projects(
    source: Option<pgrx::PgRelation>,
    id_column: default!(Option<&str>, "'id'"),
    owner_column: default!(Option<&str>, "'user_id'"),
    name_column: default!(Option<&str>, "'name'"),
) -> Answer<i64> {
    let mut access = Access::begin(AccessType::Adopt, Context::default())?;
    access.must_administer()?;
    if !session::is_superuser(session::effective_user()) {
        let error = Error::NotAuthorized("put triggers of watchllm_keys on a table");
        return Err(access.refuse(FailureReason::NotAuthorized, error).into());
    }
    // Closed at once: ALTER TABLE refuses a table that its own session holds open.
    let source = access.need(source, "source")?.oid();
    let columns = (
        access.need(id_column, "id_column")?,
        access.need(owner_column, "owner_column")?,
        name_column,
    );
    let looked = look(&access, source, columns);
    let (adoption, leaf) = access.accept(looked)?;
    adoption::save(access.recorder.owner(), &adoption);
    // Done before the rows are read: from here on nobody changes them without firing the triggers.
    adoption::attach(&adoption)?;
    access.keep_change();
    Ok(feed_all(&mut access, &adoption, leaf)?)
}

/// Keeps projects in step with an adopted table: a row inserted, updated or deleted there is a
/// project made, changed or deleted here. It never brings a deleted project back, nor takes over
/// one that create_project() made. Refuses any other table (42501), ids of other or deleted
/// projects (23505), a changed id and TRUNCATE (22023).
#[pg_trigger(
    sql = "CREATE FUNCTION watchllm.follow_projects() RETURNS trigger LANGUAGE c VOLATILE PARALLEL \
         UNSAFE SET search_path TO pg_catalog, pg_temp AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';"
)]
fn follow_projects<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, AllocatedByPostgres>>, Infallible> {
    if let Err(error) = follow(trigger) {
        ErrorReport::from(error).report(PgLogLevel::ERROR);
    }
    Ok(None)
}

/// The table and its columns, judged.
fn look(
    access: &Access,
    source: pg_sys::Oid,
    columns: (&str, &str, Option<&str>),
) -> Result<(Adoption, Leaf), Error> {
    let owner = access.recorder.owner();
    let (id_column, owner_column, name_column) = columns;
    let (schema, table, suits) = adoption::table(source, id_column).ok_or_else(gone)?;
    if !suits {
        let hint = "It must be no partition, parent or child of another table, and its id a \
             primary or unique key alone.";
        return Err(Error::BadInput("only a plain table with unique ids can be adopted", hint));
    }
    let names = [Some(id_column), Some(owner_column), name_column];
    let names: Vec<CString> =
        names.into_iter().flatten().filter_map(|name| CString::new(name).ok()).collect();
    let names: Vec<&std::ffi::CStr> = names.iter().map(|name| name.as_c_str()).collect();
    let leaf = table::look(source, &names).ok_or_else(gone)?;
    let is = |column: usize, types: &[pg_sys::Oid]| {
        leaf.column_type(column).is_some_and(|found| types.contains(&found))
    };
    let text = [pg_sys::TEXTOID, pg_sys::VARCHAROID];
    if !is(0, &[pg_sys::UUIDOID]) {
        return Err(Error::BadInput(
            "the id column is missing or no uuid",
            "Name the column of the project's id.",
        ));
    }
    if !is(1, &[pg_sys::UUIDOID, text[0], text[1]]) {
        let hint = "Name the column of the owner: a uuid or text, as in the sub claim.";
        return Err(Error::BadInput("the owner column is missing or neither uuid nor text", hint));
    }
    if name_column.is_some() && !is(2, &text) {
        let hint = "Name the column of the project's name, or give NULL for none.";
        return Err(Error::BadInput("the name column is missing or no text", hint));
    }
    let id = adoption::known(owner, source, &schema, &table).map_or_else(new_id, Ok)?;
    let (id_column, owner_column) = (id_column.to_owned(), owner_column.to_owned());
    let name_column = name_column.map(str::to_owned);
    Ok((Adoption { id, schema, table, id_column, owner_column, name_column }, leaf))
}

/// The error of a table that was dropped meanwhile.
fn gone() -> Error {
    Error::BadInput("the table is gone", "Name a table that is there.")
}

/// Takes in the rows that the table holds now. A row that is in step already leaves no row in the
/// trail.
fn feed_all(access: &mut Access, adoption: &Adoption, leaf: Leaf) -> Result<i64, Error> {
    let (mut fed, mut deleted, memory) = (0, 0, StepMemory::new());
    table::read(&[leaf], |rows| {
        rows.each(|_, row| {
            process::check_interrupts();
            let state = memory.run(|| {
                let project = without_keys(access, of_row(row, adoption)?)?;
                adopt_one(access, adoption, &project)
            })?;
            match state {
                RowState::Follows => fed += 1,
                RowState::Deleted => deleted += 1,
            }
            Ok::<(), Error>(())
        })
    })?;
    if deleted > 0 {
        notice!("{deleted} rows are of deleted projects, which stay deleted");
    }
    Ok(fed)
}

/// What became of a row of an adopted table.
enum RowState {
    /// Its project is in step with it.
    Follows,
    /// Its project was deleted, and stays so.
    Deleted,
}

/// The project of a row of the table.
fn of_row(row: &NamedRow, adoption: &Adoption) -> Result<Project, Error> {
    let text = |column: usize| match row.column_type(column) {
        Some(pg_sys::UUIDOID) => row.get::<pgrx::Uuid>(column).map(|id| id.to_string()),
        _ => row.beginning(column, 1024),
    };
    project(row.get::<pgrx::Uuid>(0), text(1), adoption.name_column.as_ref().and_then(|_| text(2)))
}

/// A project from the columns of its row. The application chooses its names: they are cleaned and
/// cut, not refused.
fn project(
    id: Option<pgrx::Uuid>,
    owner: Option<String>,
    name: Option<String>,
) -> Result<Project, Error> {
    let id = id.ok_or(Error::NullInput("the id of an adopted project"))?;
    let (id, owner_id) = (id_of(id), owner.map(JwtSubject::adopted).transpose()?);
    Ok(Project { id, owner_id, name: ProjectName::adopted(name.as_deref(), id) })
}

/// The project as it may be kept: its name and owner hold no key of the project.
fn without_keys(access: &Access, project: Project) -> Result<Project, Error> {
    let whose = Whose::Of(project.id);
    let hidden = |text: &str| stored_words::hidden(access.recorder, whose, text);
    if project.owner_id.as_ref().is_some_and(|owner| hidden(owner.as_str()).is_some()) {
        return Err(Invalid::SubjectIsKey.into());
    }
    let name = match hidden(project.name.as_str()) {
        Some(hidden) => ProjectName::adopted(Some(&hidden), project.id),
        None => project.name,
    };
    Ok(Project { name, ..project })
}

/// Brings one project under the table, as a superuser wants it.
fn adopt_one(
    access: &mut Access,
    adoption: &Adoption,
    project: &Project,
) -> Result<RowState, Error> {
    let owner = access.recorder.owner();
    if adoption::take_over(owner, adoption.id, project) {
        record(access, project.id)?;
        return Ok(RowState::Follows);
    }
    update(access, adoption, project)
}

/// Takes a project of a new row in, on record. The id of another project is refused, and that of a
/// deleted one.
fn feed(access: &mut Access, adoption: &Adoption, project: &Project) -> Result<(), Error> {
    let owner = access.recorder.owner();
    if adoption::is_in_step(owner, adoption.id, project) {
        return Ok(());
    }
    // Fed from this table, and not deleted: a dump restores the table after our rows.
    if adoption::take_in(owner, adoption.id, project)
        || adoption::follow(owner, adoption.id, project)
    {
        return record(access, project.id);
    }
    let taken = Error::AlreadyThere("another project of this id");
    Err(access.refuse(FailureReason::AlreadyExists, taken))
}

/// Keeps the change of a project, under an event of its own.
fn record(access: &mut Access, project: ProjectId) -> Result<(), Error> {
    access.event.id = new_id()?;
    access.event.project_id = Some(project);
    access.keep_change();
    Ok(())
}

/// Follows one change of an adopted table.
fn follow(trigger: &PgTrigger) -> Result<(), Error> {
    let mut access = Access::begin(AccessType::Adopt, Context::default())?;
    let adoption = adoption_of(&access, trigger)?;
    let Some(adoption) = adoption else {
        let error = Error::Refused(
            "this trigger serves only the projects table that was adopted under its name",
            "Adopt the table again, if it or its columns were renamed: watchllm.adopt_projects(). \
             See docs/tenants.md#your-own-projects-table.",
        );
        return Err(access.refuse(FailureReason::NotAuthorized, error));
    };
    let read = |tuple: Option<PgHeapTuple<AllocatedByPostgres>>| match tuple {
        Some(tuple) => of_tuple(&tuple, &adoption),
        None => Err(Error::Internal("a trigger without a row".into())),
    };
    match trigger.op().map_err(internal)? {
        PgTriggerOperation::Insert => {
            let new = without_keys(&access, read(trigger.new())?)?;
            feed(&mut access, &adoption, &new)
        }
        PgTriggerOperation::Update => {
            let new = without_keys(&access, read(trigger.new())?)?;
            change(&mut access, &adoption, &read(trigger.old())?, &new)
        }
        PgTriggerOperation::Delete => {
            let gone = read(trigger.old())?.id;
            if adoption::is_fed(access.recorder.owner(), adoption.id, gone) {
                delete_whole(&mut access, gone)?;
            }
            Ok(())
        }
        PgTriggerOperation::Truncate => {
            let hint =
                "Delete the rows: each project's keys are destroyed and recorded one by one.";
            let error = Error::BadInput("an adopted projects table cannot be truncated", hint);
            Err(access.refuse(FailureReason::BadInput, error))
        }
    }
}

/// Follows a changed row, whose id must stay.
fn change(
    access: &mut Access,
    adoption: &Adoption,
    old: &Project,
    new: &Project,
) -> Result<(), Error> {
    if old.id != new.id {
        let hint = "Insert the project under its new id and delete the old one, with its keys.";
        let error = Error::BadInput("the id of an adopted project cannot change", hint);
        return Err(access.refuse(FailureReason::BadInput, error));
    }
    update(access, adoption, new).map(|_| ())
}

/// Gives a project what its row now says; one that is not there yet is taken in. The row of a
/// deleted project may change as the application likes: nothing follows it.
fn update(access: &mut Access, adoption: &Adoption, new: &Project) -> Result<RowState, Error> {
    let owner = access.recorder.owner();
    if adoption::is_in_step(owner, adoption.id, new) {
        return Ok(RowState::Follows);
    }
    if adoption::is_deleted(owner, adoption.id, new.id) {
        return Ok(RowState::Deleted);
    }
    if adoption::follow(owner, adoption.id, new) {
        record(access, new.id)?;
    } else {
        feed(access, adoption, new)?;
    }
    Ok(RowState::Follows)
}

/// The adoption that the trigger's argument names, if its table is the adopted one.
fn adoption_of(access: &Access, trigger: &PgTrigger) -> Result<Option<Adoption>, Error> {
    let arguments = trigger.extra_args().map_err(internal)?;
    let schema = trigger.table_schema().map_err(internal)?;
    let table = trigger.table_name().map_err(internal)?;
    let named = arguments.first();
    Ok(named.and_then(|id| adoption::of_trigger(access.recorder.owner(), id, &schema, &table)))
}

/// The project of a trigger's row.
fn of_tuple(
    tuple: &PgHeapTuple<AllocatedByPostgres>,
    adoption: &Adoption,
) -> Result<Project, Error> {
    let changed = || {
        let hint = "Adopt the table again: SELECT watchllm.adopt_projects(…);";
        Error::BadInput("the columns of this adopted projects table have changed", hint)
    };
    let text =
        |column: &str| match tuple.get_attribute_by_name(column).map(|(_, found)| found.atttypid) {
            Some(pg_sys::UUIDOID) => tuple
                .get_by_name::<pgrx::Uuid>(column)
                .map(|id| id.map(|id| id.to_string()))
                .map_err(|_| changed()),
            Some(pg_sys::TEXTOID | pg_sys::VARCHAROID) => {
                tuple.get_by_name::<String>(column).map_err(|_| changed())
            }
            _ => Err(changed()),
        };
    let id = tuple.get_by_name::<pgrx::Uuid>(&adoption.id_column).map_err(|_| changed())?;
    let name = adoption.name_column.as_deref().map_or(Ok(None), text)?;
    project(id, text(&adoption.owner_column)?, name)
}

/// What pgrx says of a trigger.
fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}
