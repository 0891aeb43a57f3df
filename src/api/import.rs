//! Moving in from WatchLLM: each row of its table is opened with the old secret and sealed again
//! under its id. It is one transaction. A bad row is reported and skipped, and a second run changes
//! nothing. The old table is not changed.

use super::access::Access;
use super::fingerprints::FingerprintKeys;
use crate::audit::Standing;
use crate::caller::{Context, new_id};
use crate::crypto::Secret;
use crate::crypto::secret_file::read_secret;
use crate::crypto::watchllm::{self, WatchllmError};
use crate::error::Error;
use crate::id::{KeyRef, ProjectId};
use crate::input::{ApiKey, Invalid, KeyName, Priority, ProviderSlug, ShownName};
use crate::postgres::{StepMemory, clock, process};
use crate::store::changes::NewRecord;
use crate::store::import::{Imported, OldKey, OldKeys};
use crate::store::{self, uuid};
use crate::trail::{AccessType, Bounded, Event, FailureReason};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::HashMap;
use std::path::Path;

/// A NOTICE reports the progress each time so many rows are done: about every two seconds.
const ROWS_PER_NOTICE: usize = 100;

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
/// and sealed anew; a row each says how it went. The old secret is the whole content of
/// `secret_file`, on the server. `source` is read as the caller and must be a table. Errors: not an
/// administrator or not allowed to read the server's files 42501, a source or a file that will not
/// do 22023. A bad row is no error.
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
        Import::new(access, secret)?.run(old)
    })?))
}

/// One run.
struct Import {
    access: Access,
    old_secret: Secret,
    /// What every key of the run is stored under.
    fingerprint_keys: FingerprintKeys,
    /// The project whose row was locked, or found missing, last. Rows come project by project.
    project: Option<(ProjectId, bool)>,
    /// The next free number for a name of that project, by provider and name.
    numbers: HashMap<(ProviderSlug, KeyName), u32>,
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

impl From<Invalid> for Stop {
    fn from(invalid: Invalid) -> Stop {
        bad_input(&Error::from(invalid).message())
    }
}

/// What became of a row that was imported.
struct Arrival {
    name: Option<KeyName>,
    outcome: &'static str,
    details: Vec<String>,
}

impl Import {
    /// Begins a run with the old secret.
    fn new(access: Access, old_secret: Secret) -> Result<Import, Error> {
        let fingerprint_keys = FingerprintKeys::all(access.recorder)?;
        let numbers = HashMap::new();
        Ok(Import { access, old_secret, fingerprint_keys, project: None, numbers })
    }

    /// Takes row by row. PostgreSQL's memory for one row is freed before the next.
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
        let provider = old.provider.as_deref().and_then(|text| ProviderSlug::parse(text).ok());
        self.access.event = Event {
            id: new_id()?,
            accessed_at: clock::now(),
            project_id: old.project_id,
            provider_key_id: old.id,
            provider: provider.as_ref().map_or(Bounded::NULL, ProviderSlug::bounded),
            key_version: None,
            last_used_at: None,
            about_caller: None,
            ..self.access.event
        };
        let (name, outcome, detail) = match self.import(old, provider.as_ref()) {
            Ok(arrival) => {
                let detail = (!arrival.details.is_empty()).then(|| arrival.details.join("; "));
                (arrival.name.map(KeyName::into_string), arrival.outcome, detail)
            }
            Err(Stop::Row { outcome, reason, detail }) => {
                if let Some(reason) = reason {
                    let refused = self.access.shown(&self.access.event).refused(reason);
                    let _recorded = self.access.recorder.record(refused, Standing::Authorised)?;
                }
                (old.name.as_deref().map(KeyName::shown), outcome, detail)
            }
            Err(Stop::Run(error)) => return Err(error),
        };
        let provider = old.provider.as_deref().map(|text| ShownName::clean(text).into_string());
        Ok((old.id.map(uuid), old.project_id.map(uuid), provider, name, outcome.into(), detail))
    }

    /// Opens a row and stores what came out.
    fn import(&mut self, old: &OldKey, provider: Option<&ProviderSlug>) -> Result<Arrival, Stop> {
        let key = self.place(old)?;
        let provider =
            provider.ok_or_else(|| bad_input("the provider is not a slug such as openai"))?;
        let api_key = self.open(old)?;
        let mut arrival = self.store(old, key, provider, &api_key)?;
        if let Some(other) = api_key.provider_other_than(provider) {
            arrival.details.push(format!("it has the shape of a key of provider {other}"));
        }
        Ok(arrival)
    }

    /// Seals a key for its place and stores it. It becomes active if it was and if there is room,
    /// under a free name.
    fn store(
        &mut self,
        old: &OldKey,
        key: KeyRef,
        provider: &ProviderSlug,
        api_key: &ApiKey,
    ) -> Result<Arrival, Stop> {
        let owner = self.access.recorder.owner();
        let taken = store::keys::active_priorities(owner, key.project, provider, key.key);
        let limit = self.access.max_active_keys(key.project);
        let has_room = limit == 0 || taken.len() < limit;
        let (outcome, mut details) = state(old.is_active, has_room, taken.len());
        if let Err(invalid) = api_key.stays_out_of(provider.as_str()) {
            self.access.event.provider = Bounded::NULL;
            return Err(invalid.into());
        }
        let known = self.access.known_in(key.project, api_key, &self.fingerprint_keys)?;
        refuse_known(known)?;
        let name = self.name(old, key.project, provider, api_key, &mut details);
        let sealed = self.access.seal(key, 1, provider, api_key, &self.fingerprint_keys)?;
        let sealed = sealed.known_since(known.first);
        let priority = old.priority.unwrap_or_else(|| Priority::lowest_free(&taken));
        let imported = Imported {
            new: NewRecord { key, provider, name: name.as_ref(), priority },
            is_active: old.is_active && has_room,
            created_at: old.created_at,
        };
        if !store::import::insert(owner, &imported, &self.access.new_version(&sealed)) {
            return Err(conflict());
        }
        self.access.event.key_version = Some(1);
        self.access.event.last_used_at = old.last_used_at.map(|at| at.min(clock::now()));
        self.access.keep_change();
        Ok(Arrival { name, outcome, details })
    }

    /// The name a key is stored under, and how it was changed.
    fn name(
        &mut self,
        old: &OldKey,
        project: ProjectId,
        provider: &ProviderSlug,
        api_key: &ApiKey,
        details: &mut Vec<String>,
    ) -> Option<KeyName> {
        let own = old.name.as_deref().filter(|name| api_key.stays_out_of(name).is_ok());
        if own.is_none() && old.name.is_some() {
            details.push("the name was the key itself".into());
        }
        let name = KeyName::cleaned(own?)?;
        let name = match self.access.hidden(name.as_str()) {
            Some(hidden) => KeyName::cleaned(&hidden)?,
            None => name,
        };
        let (name, changed) = self.free_name(project, provider, name);
        if changed {
            details.push("the name was taken".into());
        }
        Some(name)
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
            // If it was deleted or rotated since, it stays as it is now.
            Some(key) if key.project_id == project => {
                Err(Stop::Row { outcome: "already_there", reason: None, detail: None })
            }
            Some(_) => Err(conflict()),
            None if !exists => Err(unknown_project()),
            None => Ok(KeyRef { project, key: id }),
        }
    }

    /// The plaintext of a row, if it is one that can be stored.
    fn open(&self, old: &OldKey) -> Result<ApiKey, Stop> {
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
        Ok(ApiKey::from_secret(secret)?)
    }

    /// The name, or the name with " (2)" and so on if it is taken. Also answers whether it was
    /// taken.
    fn free_name(
        &mut self,
        project: ProjectId,
        provider: &ProviderSlug,
        name: KeyName,
    ) -> (KeyName, bool) {
        let owner = self.access.recorder.owner();
        if !store::keys::name_taken(owner, project, provider, &name) {
            return (name, false);
        }
        // Remembered, so that thousands of equal names are not counted through again for each of
        // them.
        let number = self.numbers.entry((provider.clone(), name.clone())).or_insert(2);
        loop {
            let numbered = name.numbered(*number);
            *number += 1;
            if !store::keys::name_taken(owner, project, provider, &numbered) {
                return (numbered, true);
            }
        }
    }
}

/// Whether a key can be imported as it was, by its state and by the room its project has.
fn state(was_active: bool, has_room: bool, active: usize) -> (&'static str, Vec<String>) {
    match (was_active, has_room) {
        (true, true) => ("imported", vec![]),
        (true, false) => {
            let why = format!("inactive: the project has {active} active keys of this provider");
            ("imported_inactive", vec![why])
        }
        (false, _) => ("imported", vec!["inactive, as it was".into()]),
    }
}

/// Passes over a row whose value leaked or is blocked in its project.
fn refuse_known(known: store::values::KnownValue) -> Result<(), Stop> {
    let (reason, error) = match (known.is_leaked, known.is_blocked) {
        (true, _) => (FailureReason::Compromised, Error::KnownLeaked),
        (_, true) => (FailureReason::Blocked, Error::KnownBlocked),
        _ => return Ok(()),
    };
    let detail = Some(error.message());
    Err(Stop::Row { outcome: "refused", reason: Some(reason), detail })
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
