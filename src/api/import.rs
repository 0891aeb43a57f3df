//! Moving in from WatchLLM: each row of its table is opened with the old secret and sealed anew
//! under its id. One transaction; a bad row is reported and passed over; running it again changes
//! nothing. The old table stays untouched.

use super::access::{Access, lowest_free};
use super::changes::{check_apart, check_api_key, check_name, is_slug, new_version};
use crate::audit::Standing;
use crate::caller::{Context, new_id};
use crate::crypto::Secret;
use crate::crypto::secret_file::read_secret;
use crate::crypto::watchllm::{self, WatchllmError};
use crate::error::Error;
use crate::id::{KeyRef, ProjectId};
use crate::postgres::{StepMemory, clock, process};
use crate::redact;
use crate::store::import::{Imported, OldKey, OldKeys};
use crate::store::{self, uuid};
use crate::trail::{AccessType, Bounded, Event, FailureReason};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::HashMap;
use std::path::Path;

/// A NOTICE says how far an import is, each time so many rows are done: about every two seconds.
const ROWS_PER_NOTICE: usize = 100;
/// Bytes of the longest name.
const MAX_NAME: usize = 100;

/// The columns of the answer, in their order.
type ImportRow = (
    Option<pgrx::Uuid>,
    Option<pgrx::Uuid>,
    Option<String>,
    Option<String>,
    String,
    Option<String>,
);

/// Imports the rows of WatchLLM's `provider_keys` under their ids, each opened with the old secret
/// (the whole content of `secret_file`, on the server) and sealed anew; a row each says how it
/// went. `source` is read as the caller and must be a table. Errors: not an administrator or not
/// allowed to read the server's files 42501, a source or a file that will not do 22023. A bad row
/// is no error.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn import_watchllm_keys(
    source: Option<pgrx::PgRelation>,
    secret_file: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(provider_key_id, Option<pgrx::Uuid>),
            name!(project_id, Option<pgrx::Uuid>),
            name!(provider, Option<String>),
            name!(name, Option<String>),
            name!(outcome, String),
            name!(detail, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let access = Access::begin(AccessType::Import, Context::default())?;
    access.must_administer()?;
    access.must_read_files()?;
    let source = access.need(source, "source")?.oid();
    let path = access.need(secret_file, "secret_file")?;
    let secret = access.accept(read_secret(Path::new(path)).map_err(|problem| {
        Error::BadInput(
            problem.message(),
            "Give the path of a file on the server that holds the old secret alone.",
        )
    }))?;
    let source = store::import::judge(source).map_err(|error| match error {
        Error::NotAuthorized(_) => access.refuse(FailureReason::NotAuthorized, error),
        _ => access.refuse(FailureReason::BadInput, error),
    })?;
    Ok(TableIterator::new(store::import::read(&source, |old| {
        Import::new(access, secret).run(old)
    })?))
}

/// One run.
struct Import {
    access: Access,
    old_secret: Secret,
    /// The project whose row is locked, or found missing, last: rows come project by project.
    project: Option<(ProjectId, bool)>,
    /// The next number of a name of that project that is taken, by provider and name.
    numbers: HashMap<(String, String), u32>,
}

/// Why a row is passed over, or why the run ends.
enum Stop {
    Row { outcome: &'static str, reason: Option<FailureReason>, detail: Option<String> },
    Run(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Stop {
        Stop::Run(error)
    }
}

/// What became of a row that was imported.
struct Arrival {
    name: Option<String>,
    outcome: &'static str,
    details: Vec<String>,
}

impl Import {
    /// Begins a run with the old secret.
    fn new(access: Access, old_secret: Secret) -> Import {
        Import { access, old_secret, project: None, numbers: HashMap::new() }
    }

    /// Takes row by row; memory that PostgreSQL needs for one is given back before the next.
    fn run(mut self, old: &OldKeys) -> Result<Vec<ImportRow>, Error> {
        let memory = StepMemory::new();
        let total = old.places.len();
        let mut rows = Vec::with_capacity(total);
        for place in &old.places {
            process::check_interrupts();
            let row = memory.run(|| old.at(*place).map(|key| self.take(&key)));
            rows.extend(row.transpose()?);
            if rows.len() % ROWS_PER_NOTICE == 0 {
                notice!("import: {} of {total} rows done", rows.len());
            }
        }
        Ok(rows)
    }

    /// Imports a row or records why not, and says which.
    fn take(&mut self, old: &OldKey) -> Result<ImportRow, Error> {
        let provider = old.provider.as_deref();
        self.access.event = Event {
            id: new_id()?,
            accessed_at: clock::now(),
            project_id: old.project_id,
            provider_key_id: old.id,
            provider: Bounded::new(provider.filter(|provider| is_slug(provider))),
            key_version: None,
            last_used_at: None,
            about_caller: None,
            ..self.access.event
        };
        let clean = |text: Option<&str>, longest| text.map(|text| redact::clean(text, longest));
        let (name, outcome, detail) = match self.import(old) {
            Ok(arrival) => {
                let detail = (!arrival.details.is_empty()).then(|| arrival.details.join("; "));
                (arrival.name, arrival.outcome, detail)
            }
            Err(Stop::Row { outcome, reason, detail }) => {
                if let Some(reason) = reason {
                    let refused = self.access.event.refused(reason);
                    let _recorded = self.access.recorder.record(refused, Standing::Authorised)?;
                }
                (clean(old.name.as_deref(), MAX_NAME), outcome, detail)
            }
            Err(Stop::Run(error)) => return Err(error),
        };
        let (id, project) = (old.id.map(uuid), old.project_id.map(uuid));
        Ok((id, project, clean(provider, 63), name, outcome.into(), detail))
    }

    /// Opens a row and stores what came out.
    fn import(&mut self, old: &OldKey) -> Result<Arrival, Stop> {
        let key = self.place(old)?;
        let provider = old.provider.as_deref().filter(|provider| is_slug(provider));
        let provider =
            provider.ok_or_else(|| bad_input("the provider is not a slug such as openai"))?;
        let secret = self.open(old)?;
        let shape = redact::provider_of(&String::from_utf8_lossy(secret.expose()))
            .filter(|other| *other != provider);
        let mut arrival = self.store(old, key, provider, &secret)?;
        if let Some(other) = shape {
            arrival.details.push(format!("it has the shape of a key of provider {other}"));
        }
        Ok(arrival)
    }

    /// Seals a key for its place and stores it: active where it was and there is room, under a name
    /// that is free.
    fn store(
        &mut self,
        old: &OldKey,
        KeyRef { project, key: id }: KeyRef,
        provider: &str,
        secret: &Secret,
    ) -> Result<Arrival, Stop> {
        let owner = self.access.recorder.owner();
        let taken = store::keys::active_priorities(owner, project, provider, id);
        let limit = self.access.max_active_keys(project);
        let has_room = limit == 0 || taken.len() < limit as usize;
        let mut details = Vec::new();
        let outcome = match (old.is_active, has_room) {
            (true, false) => {
                details.push(format!(
                    "inactive: the project has {} active keys of this provider",
                    taken.len()
                ));
                "imported_inactive"
            }
            (true, true) => "imported",
            (false, _) => {
                details.push("inactive, as it was".into());
                "imported"
            }
        };
        if let Err(error) = check_apart(provider, secret) {
            self.access.event.provider = Bounded::NULL;
            return Err(bad_input(&error.message()));
        }
        let own_name = old.name.as_deref().filter(|name| check_apart(name, secret).is_ok());
        if own_name.is_none() && old.name.is_some() {
            details.push("the name was the key itself".into());
        }
        let (name, changed) = self.free_name(project, provider, own_name);
        if changed {
            details.push("the name was taken".into());
        }
        let sealed = self.access.seal(project, id, 1, provider, secret)?;
        let key = Imported {
            id,
            project,
            provider,
            name: name.as_deref(),
            priority: old.priority.unwrap_or_else(|| lowest_free(&taken)),
            is_active: old.is_active && has_room,
            created_at: old.created_at,
        };
        if !store::import::insert(owner, &key, &new_version(1, &sealed, &self.access)) {
            return Err(conflict());
        }
        self.access.event.key_version = Some(1);
        self.access.event.last_used_at = old.last_used_at.map(|at| at.min(clock::now()));
        self.access.keep_change();
        Ok(Arrival { name, outcome, details })
    }

    /// Whether there is a place for this row: its project, locked as for every new key, and no key
    /// of its id.
    fn place(&mut self, old: &OldKey) -> Result<KeyRef, Stop> {
        let id = old.id.ok_or_else(|| bad_input("the id is NULL"))?;
        let project = old.project_id.ok_or_else(unknown_project)?;
        let owner = self.access.recorder.owner();
        let exists = match self.project {
            Some((locked, exists)) if locked == project => exists,
            _ => store::projects::lock_project(owner, project),
        };
        if self.project.replace((project, exists)).is_none_or(|(before, _)| before != project) {
            self.numbers.clear();
        }
        match store::keys::by_id(owner, id) {
            // Deleted or rotated since, it stays as it is now.
            Some(key) if key.project_id == project => {
                Err(Stop::Row { outcome: "already_there", reason: None, detail: None })
            }
            Some(_) => Err(conflict()),
            None if !exists => Err(unknown_project()),
            None => Ok(KeyRef { project, key: id }),
        }
    }

    /// The plaintext of a row, if it is one that can be stored.
    fn open(&self, old: &OldKey) -> Result<Secret, Stop> {
        let damaged = || Stop::Row {
            outcome: "damaged",
            reason: Some(FailureReason::DamagedEnvelope),
            detail: Some("encrypted_key or encryption_iv is not what WatchLLM writes".into()),
        };
        let (Some(key), Some(iv)) = (&old.encrypted_key, &old.encryption_iv) else {
            return Err(damaged());
        };
        let secret = watchllm::open(&self.old_secret, key, iv).map_err(|error| match error {
            WatchllmError::Damaged => damaged(),
            WatchllmError::DoesNotOpen => Stop::Row {
                outcome: "wrong_secret",
                reason: Some(FailureReason::WrongMasterKey),
                detail: Some(
                    "it does not open: sealed under another secret, or changed since".into(),
                ),
            },
        })?;
        let text = std::str::from_utf8(secret.expose())
            .map_err(|_| bad_input("the API key is not UTF-8 text"))?;
        if text.contains('\0') {
            return Err(bad_input("the API key holds a NUL"));
        }
        check_api_key(text).map_err(|error| bad_input(&error.message()))?;
        Ok(secret)
    }

    /// The name as it may be stored, and whether it was taken and had to be changed: cleaned, none
    /// when nothing is left, with " (2)" and so on.
    fn free_name(
        &mut self,
        project: ProjectId,
        provider: &str,
        old: Option<&str>,
    ) -> (Option<String>, bool) {
        let owner = self.access.recorder.owner();
        let cleaned = old
            .map(|name| redact::clean(name.trim(), MAX_NAME))
            .filter(|name| check_name(name).is_ok());
        let Some(name) = cleaned else { return (None, false) };
        if !store::keys::name_taken(owner, project, provider, &name) {
            return (Some(name), false);
        }
        // Remembered, so that thousands of one name are not counted through for each of them.
        let number = self.numbers.entry((provider.to_owned(), name.clone())).or_insert(2);
        loop {
            let end = format!(" ({number})");
            *number += 1;
            let numbered = format!("{}{end}", redact::cut(&name, MAX_NAME - end.len()));
            if !store::keys::name_taken(owner, project, provider, &numbered) {
                return (Some(numbered), true);
            }
        }
    }
}

/// A row whose values will not do.
fn bad_input(detail: &str) -> Stop {
    Stop::Row {
        outcome: "bad_input",
        reason: Some(FailureReason::BadInput),
        detail: Some(detail.into()),
    }
}

/// A row of a project that is not here, or deleted.
fn unknown_project() -> Stop {
    let detail = Some("create or adopt the project first".into());
    Stop::Row { outcome: "unknown_project", reason: Some(FailureReason::NotFound), detail }
}

/// A row whose id another project's key has.
fn conflict() -> Stop {
    let detail = Some("a key of this id exists in another project".into());
    Stop::Row { outcome: "conflict", reason: Some(FailureReason::BadInput), detail }
}
