//! Opening keys: decrypt, decrypt many, resolve by priority, validate. Reads are recorded before
//! they are answered. A plaintext becomes a datum only with the proof that the writer gives
//! (docs/architecture.md#flows).

use super::access::{Access, about, open, usable};
use super::fingerprints::FingerprintKeys;
use crate::caller::Context;
use crate::crypto::{Secret, fingerprint};
use crate::disclosed::Disclosed;
use crate::error::{Answer, Error};
use crate::id::{ProjectId, ProviderKeyId};
use crate::input::{self, KeyName, ProviderSlug, Veil};
use crate::postgres::memory;
use crate::store::keys::StoredKey;
use crate::store::{self, id_of, uuid};
use crate::trail::{AccessType, Bounded, Event, FailureReason};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::HashMap;

/// Ids that `decrypt_provider_keys` takes at once.
const MAX_KEYS: usize = 1000;
/// The bytes that a row of an answer takes in a tuplestore beside its key.
const ROW_OVERHEAD: usize = 96;

type Opened = (Option<pgrx::Uuid>, Option<Disclosed>, Option<String>);

/// Opens a provider key: answers its plaintext once the access is durably recorded. `project_id`,
/// when given, must be the key's. Errors: no such key 02000, not authorized 42501, blocked or
/// inactive 42000, damaged XX001, wrong master key 28000, audit unavailable 53000.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn decrypt_provider_key(
    provider_key_id: Option<pgrx::Uuid>,
    project_id: default!(Option<pgrx::Uuid>, "NULL"),
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<Disclosed> {
    let mut access =
        Access::begin(AccessType::Decrypt, Context { request_id, ip_address, user_agent })?;
    let id = id_of::<ProviderKeyId>(access.need(provider_key_id, "provider_key_id")?);
    open_by_id(&mut access, id, project_id.map(id_of::<ProjectId>))
}

/// Opens the key of this id, on record, if the caller may open keys.
fn open_by_id(
    access: &mut Access,
    id: ProviderKeyId,
    project: Option<ProjectId>,
) -> Answer<Disclosed> {
    access.event.provider_key_id = Some(id);
    access.must_open(None)?;
    let key = access.find(id, project)?;
    let secret = access.open(&key)?;
    Ok(access.disclose(secret)?)
}

/// As `decrypt_provider_key`, for drivers that bind an id as text. JDBC's `setString` and
/// SQLAlchemy's `String` do. Errors: what is no uuid 22023.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn decrypt_provider_key_text(
    provider_key_id: Option<&str>,
    project_id: default!(Option<&str>, "NULL"),
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<Disclosed> {
    let mut access =
        Access::begin(AccessType::Decrypt, Context { request_id, ip_address, user_agent })?;
    let id = access.need(provider_key_id, "provider_key_id")?;
    let id: ProviderKeyId = access.accept(input::id(id))?;
    let project = project_id.map(|project| access.accept(input::id(project))).transpose()?;
    open_by_id(&mut access, id, project)
}

/// Opens a provider key by its name, which is unique among the keys of a project and provider.
/// Errors: as `decrypt_provider_key`; no key of this name 02000.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn decrypt_provider_key_by_name(
    project_id: Option<pgrx::Uuid>,
    provider: Option<&str>,
    name: Option<&str>,
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<Disclosed> {
    let mut access =
        Access::begin(AccessType::Decrypt, Context { request_id, ip_address, user_agent })?;
    let project = id_of::<ProjectId>(access.need(project_id, "project_id")?);
    let (provider, name) = (access.need(provider, "provider")?, access.need(name, "name")?);
    access.must_open(Some(project))?;
    access.event.project_id = Some(project);
    let owner = access.recorder.owner();
    let named = (ProviderSlug::parse(provider).ok())
        .zip(KeyName::parse(name).ok())
        .and_then(|(provider, name)| store::keys::by_name(owner, project, &provider, &name));
    let Some(id) = named else {
        return Err(access.refuse(FailureReason::NotFound, Error::NoSuchKey).into());
    };
    open_by_id(&mut access, id, Some(project))
}

/// Opens many provider keys with one durable wait: a row per id, in input order, duplicates kept; a
/// key that does not open has its reason instead. At most 1,000 ids, and only when the answer fits
/// a quarter of work_mem (23514), so that no plaintext spills into a temporary file.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn decrypt_provider_keys(
    provider_key_ids: Option<Array<pgrx::Uuid>>,
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(provider_key_id, Option<pgrx::Uuid>),
            name!(api_key, Option<Disclosed>),
            name!(failure_reason, Option<String>),
        ),
    >,
    ErrorReport,
> {
    let mut access =
        Access::begin(AccessType::Decrypt, Context { request_id, ip_address, user_agent })?;
    access.must_open(None)?;
    let ids = access.need(provider_key_ids, "provider_key_ids")?;
    if ids.len() > MAX_KEYS {
        let message = format!("{} ids given; at most {MAX_KEYS} are opened at once", ids.len());
        return Err(access
            .refuse(FailureReason::Limit, Error::OverLimit(message, "Ask in several calls."))
            .into());
    }
    // Unpacked only now: a caller without the right would choose how much memory that takes.
    let ids: Vec<Option<pgrx::Uuid>> = ids.iter().collect();
    Ok(TableIterator::new(open_each(&access, &ids)?))
}

/// Opens the first key of a provider that opens, by priority: blocked and damaged ones are passed
/// over, each attempt recorded. No candidate: 02000; all failed: the first failure.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn resolve_provider_key(
    project_id: Option<pgrx::Uuid>,
    provider: Option<&str>,
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(provider_key_id, pgrx::Uuid),
            name!(name, Option<String>),
            name!(priority, i32),
            name!(key_version, i32),
            name!(api_key, Disclosed),
        ),
    >,
    ErrorReport,
> {
    let mut access =
        Access::begin(AccessType::Decrypt, Context { request_id, ip_address, user_agent })?;
    let project = id_of::<ProjectId>(access.need(project_id, "project_id")?);
    let provider = access.need(provider, "provider")?;
    access.must_open(Some(project))?;
    access.event.project_id = Some(project);
    let provider = ProviderSlug::parse(provider).ok();
    access.event.provider = provider.as_ref().map_or(Bounded::NULL, ProviderSlug::bounded);
    let mut first_failure = None;
    let candidates = |provider| store::keys::candidates(access.recorder.owner(), project, provider);
    for key in provider.as_ref().map(candidates).unwrap_or_default() {
        access.about(&key);
        match access.open(&key).and_then(|secret| access.disclose(secret)) {
            Ok(disclosed) => {
                let row = (
                    uuid(key.id),
                    key.name.map(KeyName::into_string),
                    key.priority,
                    key.version.number,
                    disclosed,
                );
                return Ok(TableIterator::once(row));
            }
            Err(unrecorded @ Error::AuditUnavailable(_)) => return Err(unrecorded.into()),
            Err(failure) => first_failure = first_failure.or(Some(failure)),
        }
        access.event.id = crate::caller::new_id()?;
    }
    Err(match first_failure {
        Some(failure) => failure,
        None => access.refuse(FailureReason::NotFound, Error::NoUsableKey),
    }
    .into())
}

/// Verifies that a provider key opens and is the one that was stored; false when its envelope is
/// damaged.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn validate_provider_key(
    provider_key_id: Option<pgrx::Uuid>,
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<bool> {
    let mut access =
        Access::begin(AccessType::Validate, Context { request_id, ip_address, user_agent })?;
    let id = id_of::<ProviderKeyId>(access.need(provider_key_id, "provider_key_id")?);
    access.event.provider_key_id = Some(id);
    access.must_open(None)?;
    let key = access.find(id, None)?;
    if key.is_deleted || key.is_blocked {
        let (reason, error) =
            usable(&key).err().unwrap_or((FailureReason::Deleted, Error::NoSuchKey));
        return Err(access.refuse(reason, error).into());
    }
    let outcome = open(access.recorder, &key, &key.version)
        .and_then(|secret| same_key(&access, &key, &secret).map(|()| secret));
    if let Ok(secret) = &outcome {
        access.hide(Veil::of_secret(secret));
    }
    match outcome.map(|_| ()) {
        Ok(()) => {
            let _recorded = access.record()?;
            Ok(true)
        }
        Err((FailureReason::DamagedEnvelope, error)) => {
            match access.refuse(FailureReason::DamagedEnvelope, error) {
                Error::DamagedEnvelope => Ok(false),
                unrecorded => Err(unrecorded.into()),
            }
        }
        Err((reason, error)) => Err(access.refuse(reason, error).into()),
    }
}

/// Compares an opened key with the fingerprint it was stored with.
fn same_key(
    access: &Access,
    key: &StoredKey,
    secret: &Secret,
) -> Result<(), (FailureReason, Error)> {
    let damaged = (FailureReason::DamagedEnvelope, Error::DamagedEnvelope);
    let version = key.version.fingerprint_key_version;
    let fingerprint_key = FingerprintKeys::of_version(access.recorder, version)
        .map_err(|e| (FailureReason::UnknownMasterKey, e))?;
    let same = fingerprint::same(&fingerprint_key.fingerprint(secret), &key.version.fingerprint);
    if same { Ok(()) } else { Err(damaged) }
}

/// Opens the keys that open, records all in chunks, and only then pairs each plaintext with its
/// proof.
fn open_each(access: &Access, ids: &[Option<pgrx::Uuid>]) -> Result<Vec<Opened>, Error> {
    let known: Vec<ProviderKeyId> = ids.iter().flatten().map(|id| id_of(*id)).collect();
    let keys: HashMap<ProviderKeyId, StoredKey> =
        store::keys::by_ids(access.recorder.owner(), &known)
            .into_iter()
            .map(|key| (key.id, key))
            .collect();
    refuse_spill(access, ids, &keys)?;
    let mut events = Vec::with_capacity(ids.len());
    let mut outcomes = Vec::with_capacity(ids.len());
    for id in ids {
        let (event, outcome) = open_one(access, *id, &keys)?;
        events.push(event);
        outcomes.push(outcome);
    }
    let recorded = access.recorder.record_each(&events)?;
    let rows = ids.iter().zip(outcomes).zip(recorded);
    rows.map(|((id, outcome), recorded)| match (outcome, recorded) {
        (Ok(secret), Ok(proof)) => Ok((*id, Some(Disclosed::new(secret, proof)), None)),
        (Err(reason), Ok(_)) => Ok((*id, None, Some(reason.word().to_owned()))),
        (_, Err(Error::Blocked)) => Ok((*id, None, Some(FailureReason::Blocked.word().to_owned()))),
        (_, Err(Error::CallerBlocked)) => {
            Ok((*id, None, Some(FailureReason::CallerBlocked.word().to_owned())))
        }
        (_, Err(unrecorded)) => Err(unrecorded),
    })
    .collect()
}

type OneOutcome = (Event, Result<Secret, FailureReason>);

/// Opens one of many: the event to record, and the plaintext or why there is none.
fn open_one(
    access: &Access,
    id: Option<pgrx::Uuid>,
    keys: &HashMap<ProviderKeyId, StoredKey>,
) -> Result<OneOutcome, Error> {
    let id = id.map(id_of::<ProviderKeyId>);
    let fresh = Event { id: crate::caller::new_id()?, provider_key_id: id, ..access.event };
    let Some(id) = id else {
        return Ok((fresh.refused(FailureReason::BadInput), Err(FailureReason::BadInput)));
    };
    let Some(key) = keys.get(&id) else {
        return Ok((fresh.refused(FailureReason::NotFound), Err(FailureReason::NotFound)));
    };
    let event = about(&fresh, key);
    match usable(key).and_then(|()| open(access.recorder, key, &key.version)) {
        Ok(secret) => Ok((access.shown_beside(&event, &secret), Ok(secret))),
        Err((reason, _)) => Ok((access.shown(&event).refused(reason), Err(reason))),
    }
}

/// PostgreSQL keeps a set-returning answer in a tuplestore, which it writes to disk above work_mem.
fn refuse_spill(
    access: &Access,
    ids: &[Option<pgrx::Uuid>],
    keys: &HashMap<ProviderKeyId, StoredKey>,
) -> Result<(), Error> {
    let length = |id: &pgrx::Uuid| {
        keys.get(&id_of(*id))
            .and_then(|key| key.version.sealed.as_ref())
            .map_or(0, |s| s.bytes().len())
    };
    let answer: usize = ids.iter().flatten().map(length).sum::<usize>() + ids.len() * ROW_OVERHEAD;
    if answer <= memory::work_mem() / 4 {
        return Ok(());
    }
    let message = format!("the answer of about {} kB could spill to disk", answer / 1024 + 1);
    Err(access.refuse(
        FailureReason::Limit,
        Error::OverLimit(message, "Ask for fewer keys at once, or raise work_mem."),
    ))
}
