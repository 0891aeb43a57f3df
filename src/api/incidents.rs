//! Incidents, as people work on them: which are open (a view), and that somebody has looked. Both
//! only insert rows: an incident is evidence.

use super::access::Access;
use super::fingerprints::FingerprintKeys;
use crate::audit::commit;
use crate::caller::{Context, new_id};
use crate::error::{Answer, Error};
use crate::id::{IncidentId, KeyRef, ProjectId};
use crate::input::{ApiKey, Note, ReportSource};
use crate::postgres::clock;
use crate::store;
use crate::store::incidents::Which;
use crate::store::keys::Known;
use crate::trail::incident::kinds::leak_reported;
use crate::trail::{AccessType, FailureReason, IncidentType, KeyVersion, Severity};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Acknowledges an incident: somebody has looked at it, and says so in a note (cut at 500 bytes and
/// redacted). It leaves `open_incidents`; a second acknowledgement is one more note. Errors: no
/// such incident 02000, not authorized 42501.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn acknowledge_incident(
    id: Option<pgrx::Uuid>,
    note: default!(Option<&str>, "NULL"),
) -> Answer<()> {
    let mut access = Access::begin(AccessType::Report, Context::default())?;
    access.must_administer()?;
    let incident = store::id_of::<IncidentId>(access.need(id, "id")?);
    let owner = access.recorder.owner();
    let Some(project) = store::incidents::project_of(owner, incident) else {
        return Err(access.refuse(FailureReason::NotFound, Error::NoSuchIncident).into());
    };
    let (note, by) = (note.map(Note::clean), access.caller.changes_as());
    store::incidents::acknowledge(owner, incident, project, note.as_ref(), by);
    access.event.project_id = project;
    access.keep_change();
    Ok(())
}

/// Acknowledges every open incident that fits all that is given: its type, a severity up to this
/// one, its source, its project, and when it was noticed. `source` is what its details name: a
/// role, an address, an owner of tables, a function, a reporter. Answers how many there were. The
/// note is kept with each (cut at 500 bytes and redacted). Errors: nothing given, or no such type
/// or severity 22023; not authorized 42501.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn acknowledge_incidents(
    incident_type: default!(Option<&str>, "NULL"),
    severity_at_most: default!(Option<&str>, "NULL"),
    source: default!(Option<&str>, "NULL"),
    project_id: default!(Option<pgrx::Uuid>, "NULL"),
    since: default!(Option<TimestampWithTimeZone>, "NULL"),
    until: default!(Option<TimestampWithTimeZone>, "NULL"),
    note: default!(Option<&str>, "NULL"),
) -> Answer<i64> {
    let mut access = Access::begin(AccessType::Report, Context::default())?;
    access.must_administer()?;
    let texts = [incident_type, severity_at_most, source];
    let is_empty = texts.iter().all(Option::is_none) && project_id.is_none();
    if is_empty && since.is_none() && until.is_none() {
        let error = Error::BadInput(
            "say which incidents are acknowledged",
            "Give a type, a severity, a source, a project or a time; severity_at_most => \
             'critical' means all.",
        );
        return Err(access.refuse(FailureReason::BadInput, error).into());
    }
    let kind = access.accept(incident_type.map(known_type).transpose())?;
    let most = access.accept(severity_at_most.map(known_severity).transpose())?;
    let which = Which {
        kind,
        most,
        source,
        project: project_id.map(store::id_of::<ProjectId>),
        since,
        until,
    };
    access.event.project_id = which.project;
    let (note, by) = (note.map(Note::clean), access.caller.changes_as());
    let owner = access.recorder.owner();
    let count = store::incidents::acknowledge_many(owner, which, note.as_ref(), by);
    access.keep_change();
    Ok(count)
}

/// The type of incident that people know by this word.
fn known_type(word: &str) -> Result<IncidentType, Error> {
    let known = IncidentType::ALL.iter().find(|kind| kind.word() == word).copied();
    let hint = "See docs/reference.md#incident-types.";
    known.ok_or(Error::BadInput("there is no such type of incident", hint))
}

/// The severity that people know by this word.
fn known_severity(word: &str) -> Result<Severity, Error> {
    let known = Severity::ALL.iter().find(|severity| severity.word() == word).copied();
    known.ok_or(Error::BadInput("there is no such severity", "low, medium, high or critical."))
}

/// Reports that a key has leaked, as a secret-scanning alert tells. Finds every version it is by
/// its fingerprint, marks it compromised (which cannot be undone) and raises an incident. Blocks
/// the key if `block` is true and it is in use. Answers a row per version found, none for a key
/// that is not ours. `source` says who reported it, at most 500 bytes.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn report_leaked_key(
    api_key: Option<&str>,
    source: Option<&str>,
    block: default!(Option<bool>, false),
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(provider_key_id, pgrx::Uuid),
            name!(project_id, pgrx::Uuid),
            name!(provider, String),
            name!(key_version, i32),
            name!(in_use, bool),
            name!(blocked, bool),
        ),
    >,
    ErrorReport,
> {
    let mut access =
        Access::begin_with_key(AccessType::Report, Context { request_id, ip_address, user_agent })?;
    access.must_open(None)?;
    let api_key = access.accept(ApiKey::parse(access.need(api_key, "api_key")?))?;
    let source = ReportSource::clean(access.need(source, "source")?);
    let block = access.need(block, "block")?;
    let mut rows = Vec::new();
    for (version, key) in FingerprintKeys::all(access.recorder)?.each() {
        let fingerprints = [key.fingerprint(api_key.secret())];
        for known in store::keys::by_fingerprints(access.recorder.owner(), version, &fingerprints) {
            rows.extend(report(&mut access, &known, &source, block)?);
        }
    }
    if rows.is_empty() {
        match access.refuse(FailureReason::NotFound, Error::NoSuchKey) {
            Error::NoSuchKey => (),
            unrecorded => return Err(unrecorded.into()),
        }
    }
    Ok(TableIterator::new(rows))
}

type Reported = (pgrx::Uuid, pgrx::Uuid, String, i32, bool, bool);

/// Marks one version, on record, and raises its incident.
fn report(
    access: &mut Access,
    known: &Known,
    source: &ReportSource,
    block: bool,
) -> Result<Option<Reported>, Error> {
    let owner = access.recorder.owner();
    let (project, id, number) = (known.project, known.key, known.version);
    store::changes::lock(owner, project, id);
    let Some(key) = store::keys::by_id(owner, id) else { return Ok(None) };
    let in_use = key.version.number == number && !key.is_deleted;
    store::changes::mark_compromised(owner, project, id, number);
    access.event.id = new_id()?;
    access.event.access_type = AccessType::Report;
    access.about(&key);
    access.event.key_version = Some(number);
    access.keep_change();
    let version = KeyVersion { key: KeyRef { project, key: id }, number };
    let incident = leak_reported(version, &known.fingerprint, source, in_use, clock::now());
    if store::incidents::insert(owner, &incident) {
        commit::announce(access.recorder, incident.notice());
    }
    let blocked = block && in_use;
    if blocked {
        access.event.id = new_id()?;
        access.event.access_type = AccessType::Block;
        access.keep_change();
    }
    let (project, id) = (store::uuid(project), store::uuid(id));
    Ok(Some((id, project, key.provider.into_string(), number, in_use, blocked || key.is_blocked)))
}
