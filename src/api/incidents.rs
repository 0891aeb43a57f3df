//! Incidents, as people work on them: what is open (a view), and that somebody looked. Both are
//! insert-only: an incident is evidence.

use super::access::{Access, fingerprints_of};
use super::changes::check_api_key;
use crate::audit::commit;
use crate::caller::{Context, new_id};
use crate::crypto::Secret;
use crate::error::{Answer, Error};
use crate::id::IncidentId;
use crate::postgres::clock;
use crate::redact;
use crate::store;
use crate::store::keys::{Known, StoredKey};
use crate::trail::{AccessType, FailureReason, Incident, IncidentType, Severity, incident};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Bytes of a note or of the name of a source that are kept.
pub(super) const NOTE: usize = 500;

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
    let note = note.map(|note| redact::clean(note, NOTE));
    store::incidents::acknowledge(owner, incident, project, note.as_deref(), access.caller.name());
    access.event.project_id = project;
    access.keep_change();
    Ok(())
}

/// Reports that a key has leaked, as a secret-scanning alert tells: finds every version it is by
/// its fingerprint, marks it compromised (there is no way back to it), raises an incident, and
/// blocks the key if `block` and it is in use. Answers a row per version found, none for a key that
/// is not ours. `source` says who reported it, at most 500 bytes.
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
    let text = access.need(api_key, "api_key")?;
    access.accept(check_api_key(text))?;
    let source = redact::clean(access.need(source, "source")?, NOTE);
    let block = access.need(block, "block")?;
    let mut rows = Vec::new();
    for (version, fingerprints) in
        fingerprints_of(access.recorder, &[Secret::new(text.as_bytes().to_vec())])?
    {
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
    source: &str,
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
    raise(access, &key, number, in_use, &known.fingerprint, source);
    let blocked = block && in_use;
    if blocked {
        access.event.id = new_id()?;
        access.event.access_type = AccessType::Block;
        access.keep_change();
    }
    let (project, id) = (store::uuid(project), store::uuid(id));
    Ok(Some((id, project, key.provider, number, in_use, blocked || key.is_blocked)))
}

/// One incident for each version and source, however often it is reported.
fn raise(
    access: &Access,
    key: &StoredKey,
    number: i32,
    in_use: bool,
    fingerprint: &[u8],
    source: &str,
) {
    let details = serde_json::json!({
        "what": "a provider key was reported as leaked", "source": source, "key_version": number, "in_use": in_use,
    });
    let parts = [
        b"report",
        key.id.bytes().as_slice(),
        &number.to_be_bytes(),
        fingerprint,
        source.as_bytes(),
    ];
    let incident = Incident {
        id: incident::identity(&parts),
        kind: IncidentType::LeakedKey,
        severity: if in_use { Severity::Critical } else { Severity::Medium },
        project_id: Some(key.project_id),
        provider_key_id: Some(key.id),
        details: details.to_string(),
        detected_at: clock::now(),
    };
    if store::incidents::insert(access.recorder.owner(), &incident) {
        commit::announce(access.recorder, incident.notice());
    }
}
