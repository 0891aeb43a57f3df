//! Changing keys: store, rotate, roll back, switch on and off, delete. Changes are recorded before
//! they commit. A rolled-back change leaves no row, and a change that cannot be recorded does not
//! commit.

use super::access::{Access, open};
use super::fingerprints::FingerprintKeys;
use crate::caller::{Context, new_id};
use crate::crypto::Secret;
use crate::error::{Answer, Error};
use crate::id::{KeyRef, ProjectId, ProviderKeyId};
use crate::input::{ApiKey, GivenKey, KeyHint, KeyName, NewKey, ProviderSlug};
use crate::store;
use crate::store::changes::NewRecord;
use crate::store::keys::{StoredKey, StoredVersion};
use crate::trail::{AccessType, FailureReason, KeyVersion};
use pgrx::prelude::*;

/// Stores a provider key: seals it and answers its id. `provider` is a slug, `name` is unique per
/// project and provider, `priority` from 1 (NULL: the lowest free). Errors: no such project 02000,
/// bad input or no key 22023, over watchllm_keys.max_active_keys 23514, name taken 23505. A key
/// that leaked or is blocked in this project is refused (42000).
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn store_provider_key(
    project_id: Option<pgrx::Uuid>,
    provider: Option<&str>,
    api_key: Option<&str>,
    name: default!(Option<&str>, "NULL"),
    priority: default!(Option<i32>, "NULL"),
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<pgrx::Uuid> {
    let context = Context { request_id, ip_address, user_agent };
    let mut access = Access::begin_with_key(AccessType::Store, context, api_key)?;
    let project = store::id_of::<ProjectId>(access.need(project_id, "project_id")?);
    Ok(store::uuid(store_key(
        &mut access,
        project,
        GivenKey { provider, api_key, name, priority },
    )?))
}

/// Seals and stores a new key, on record; answers its id.
pub(super) fn store_key(
    access: &mut Access,
    project: ProjectId,
    given: GivenKey,
) -> Result<ProviderKeyId, Error> {
    access.must_change(project)?;
    let NewKey { provider, api_key, name, priority } = access.accept(NewKey::parse(given))?;
    access.event.provider = provider.bounded(); // only after it is known to be no key
    warn_of_shape(&api_key, &provider);
    access.lock_project(project)?;
    let keys = FingerprintKeys::all(access.recorder)?;
    let first = access.must_be_sound(project, &api_key, &keys)?;
    let name = name.as_ref();
    name.map_or(Ok(()), |name| access.name_must_be_no_key(project, name.as_str()))?;
    let key = KeyRef { project, key: new_id()? };
    let lowest_free = access.free_place(key, &provider)?;
    name.map_or(Ok(()), |name| access.name_must_be_free(project, &provider, name))?;
    let sealed = access.seal(key, 1, &provider, &api_key, &keys)?.known_since(first);
    let priority = priority.unwrap_or(lowest_free);
    let record = NewRecord { key, provider: &provider, name, priority };
    store::changes::insert(access.recorder.owner(), &record, &access.new_version(&sealed));
    (access.event.provider_key_id, access.event.key_version) = (Some(key.key), Some(1));
    access.keep_change();
    Ok(key.key)
}

/// Rotates a provider key: seals the new vendor key as the next version and answers its number.
/// `expected_version`, when given, must be the active one (23505 otherwise), so that no rotation is
/// lost. The key in use is no new one (22023), nor is one that leaked or is blocked here (42000).
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn rotate_provider_key(
    provider_key_id: Option<pgrx::Uuid>,
    new_api_key: Option<&str>,
    expected_version: default!(Option<i32>, "NULL"),
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<i32> {
    let context = Context { request_id, ip_address, user_agent };
    let mut access = Access::begin_with_key(AccessType::Rotate, context, new_api_key)?;
    let id = store::id_of::<ProviderKeyId>(access.need(provider_key_id, "provider_key_id")?);
    let key = access.find_to_change(id)?;
    let active = key.version.number;
    if let Some(expected) = expected_version.filter(|expected| *expected != active) {
        let conflict = Error::VersionConflict { expected, active };
        return Err(access.refuse(FailureReason::VersionConflict, conflict).into());
    }
    let api_key = access.accept(ApiKey::parse(access.need(new_api_key, "new_api_key")?))?;
    warn_of_shape(&api_key, &key.provider);
    let name = key.name.as_ref().map_or("", KeyName::as_str);
    access.accept(api_key.stays_out_of(name))?;
    access.accept(api_key.stays_out_of(key.provider.as_str()))?;
    let keys = FingerprintKeys::all(access.recorder)?;
    access.must_be_another(&key, &api_key, &keys)?;
    let first = access.must_be_sound(key.project_id, &api_key, &keys)?;
    let owner = access.recorder.owner();
    let next = store::changes::highest_version(owner, key.project_id, id) + 1;
    let sealed = access.seal(key.place(), next, &key.provider, &api_key, &keys)?.known_since(first);
    store::changes::insert_version(owner, key.place(), &access.new_version(&sealed));
    access.event.key_version = Some(next);
    access.keep_change();
    Ok(next)
}

/// Rolls a provider key back to an earlier version and answers it; NULL: the highest lower version
/// that opens and is not compromised. The next rotation takes the highest number plus one.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn rollback_provider_key(
    provider_key_id: Option<pgrx::Uuid>,
    to_version: default!(Option<i32>, "NULL"),
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<i32> {
    let mut access =
        Access::begin(AccessType::Rollback, Context { request_id, ip_address, user_agent })?;
    let id = store::id_of::<ProviderKeyId>(access.need(provider_key_id, "provider_key_id")?);
    let key = access.find_to_change(id)?;
    let (version, secret) = match to_version {
        Some(number) => named_version(&mut access, &key, number)?,
        None => earlier_version(&access, &key)?,
    };
    let key_hint = KeyHint::of(&secret);
    store::changes::point_to(access.recorder.owner(), key.project_id, id, &version, &key_hint);
    access.event.key_version = Some(version.number);
    access.keep_change();
    Ok(version.number)
}

/// Switches a provider key on or off; one that is off is not opened.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn set_provider_key_active(
    provider_key_id: Option<pgrx::Uuid>,
    is_active: Option<bool>,
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<()> {
    let access_type =
        if is_active == Some(false) { AccessType::Deactivate } else { AccessType::Activate };
    let mut access = Access::begin(access_type, Context { request_id, ip_address, user_agent })?;
    let id = store::id_of::<ProviderKeyId>(access.need(provider_key_id, "provider_key_id")?);
    access.event.provider_key_id = Some(id);
    let is_active = access.need(is_active, "is_active")?;
    let owner = access.recorder.owner();
    // The project comes first, as in store, so that two callers never wait for each other.
    if is_active
        && let Ok(projects) = access.caller.may_change(owner)
        && let Some(key) = store::keys::within(owner, &projects, id)
    {
        store::projects::lock_project(owner, key.project_id);
    }
    let key = access.find_to_change(id)?;
    if is_active {
        access.free_place(key.place(), &key.provider)?;
    }
    store::changes::set_active(owner, key.project_id, id, is_active);
    access.keep_change();
    Ok(())
}

/// Deletes a provider key: destroys the envelopes of all its versions, keeps its metadata and audit
/// trail.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn delete_provider_key(
    provider_key_id: Option<pgrx::Uuid>,
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<()> {
    let mut access =
        Access::begin(AccessType::Delete, Context { request_id, ip_address, user_agent })?;
    let id = store::id_of::<ProviderKeyId>(access.need(provider_key_id, "provider_key_id")?);
    let key = access.find_to_change(id)?;
    store::changes::delete(access.recorder.owner(), key.project_id, id);
    access.keep_change();
    Ok(())
}

/// The version the caller named, opened; a compromised one is refused.
fn named_version(
    access: &mut Access,
    key: &StoredKey,
    number: i32,
) -> Result<(StoredVersion, Secret), Error> {
    access.event.key_version = (number > 0).then_some(number);
    let version = store::keys::one_version(access.recorder.owner(), key.project_id, key.id, number)
        .ok_or_else(|| access.refuse(FailureReason::NotFound, Error::NoSuchVersion(number)))?;
    if is_compromised(access, key, &version) {
        return Err(access.refuse(FailureReason::Compromised, Error::CompromisedVersion(number)));
    }
    let secret = open(access.recorder, key, &version)
        .map_err(|(reason, error)| access.refuse(reason, error))?;
    Ok((version, secret))
}

/// Whether a version is marked as leaked, or about to be: a tenant that holds the row of its key
/// delays the mark.
fn is_compromised(access: &Access, key: &StoredKey, version: &StoredVersion) -> bool {
    let place = KeyVersion { key: key.place(), number: version.number };
    version.is_compromised || store::values::is_to_be_marked(access.recorder.owner(), place)
}

/// The highest lower version that opens and is not compromised.
fn earlier_version(access: &Access, key: &StoredKey) -> Result<(StoredVersion, Secret), Error> {
    store::keys::earlier_versions(
        access.recorder.owner(),
        key.project_id,
        key.id,
        key.version.number,
    )
    .into_iter()
    .filter(|version| !is_compromised(access, key, version))
    .find_map(|version| open(access.recorder, key, &version).ok().map(|secret| (version, secret)))
    .ok_or_else(|| access.refuse(FailureReason::NotFound, Error::NoEarlierVersion))
}

/// Warns of a key whose shape belongs to another provider than it is stored for.
fn warn_of_shape(api_key: &ApiKey, provider: &ProviderSlug) {
    if let Some(other) = api_key.provider_other_than(provider) {
        warning!(
            "this key has the shape of a key of provider \"{other}\", and is stored for \"{}\"",
            provider.as_str()
        );
    }
}
