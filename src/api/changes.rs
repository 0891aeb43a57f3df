//! Changing keys: store, rotate, roll back, switch on and off, delete. Changes are recorded before
//! they commit; a rolled-back change leaves no row, an unrecordable one does not commit.

use super::access::{Access, SealedKey, open};
use super::finder::Finder;
use crate::caller::{Context, new_id};
use crate::crypto::Secret;
use crate::error::{Answer, Error};
use crate::id::{ProjectId, ProviderKeyId};
use crate::redact;
use crate::store;
use crate::store::changes::NewVersion;
use crate::store::keys::{StoredKey, StoredVersion};
use crate::trail::{AccessType, Bounded, FailureReason};
use pgrx::prelude::*;

/// Bytes of the longest key.
const MAX_KEY: usize = 4096;

/// Stores a provider key: seals it and answers its id. `provider` is a slug, `name` is unique per
/// project and provider, `priority` from 1 (NULL: the lowest free). Errors: no such project 02000,
/// bad input 22023, over watchllm_keys.max_active_keys 23514, name taken 23505.
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
    let mut access =
        Access::begin_with_key(AccessType::Store, Context { request_id, ip_address, user_agent })?;
    let project = store::id_of::<ProjectId>(access.need(project_id, "project_id")?);
    Ok(store::uuid(store_key(&mut access, project, NewKey { provider, api_key, name, priority })?))
}

/// A key to be stored, as its caller gives it.
pub(super) struct NewKey<'a> {
    pub provider: Option<&'a str>,
    pub api_key: Option<&'a str>,
    pub name: Option<&'a str>,
    pub priority: Option<i32>,
}

/// Checks a new key, seals and stores it, on record; answers its id.
pub(super) fn store_key(
    access: &mut Access,
    project: ProjectId,
    new: NewKey,
) -> Result<ProviderKeyId, Error> {
    access.must_change(project)?;
    let provider = access.need(new.provider, "provider")?;
    access.accept(check_provider(provider))?;
    let secret = api_key_of(access, new.api_key, provider, "api_key")?;
    access.accept(new.name.map_or(Ok(()), check_name))?;
    for text in new.name.into_iter().chain([provider]) {
        access.accept(check_apart(text, &secret))?;
    }
    access.event.provider = Bounded::new(Some(provider)); // not before it is known to be no key
    access.accept(check_priority(new.priority))?;
    let owner = access.recorder.owner();
    if !store::projects::lock_project(owner, project) {
        return Err(access.refuse(FailureReason::NotFound, Error::NoSuchProject));
    }
    // Again: the right may have been withdrawn while this call waited for the lock.
    access.must_change(project)?;
    refuse_stored_key(access, project, new.name)?;
    let id = new_id()?;
    let lowest_free = access.free_place(project, provider, id)?;
    if new.name.is_some_and(|name| store::keys::name_taken(owner, project, provider, name)) {
        let taken = Error::AlreadyThere("a key of this name for this project and provider");
        return Err(access.refuse(FailureReason::BadInput, taken));
    }
    let sealed = access.seal(project, id, 1, provider, &secret)?;
    let first = new_version(1, &sealed, access);
    store::changes::insert(
        owner,
        id,
        project,
        provider,
        new.name,
        new.priority.unwrap_or(lowest_free),
        &first,
    );
    access.event.provider_key_id = Some(id);
    access.event.key_version = Some(1);
    access.keep_change();
    Ok(id)
}

/// Rotates a provider key: seals the new vendor key as the next version and answers its number.
/// `expected_version`, when given, must be the active one (23505 otherwise), so that no rotation is
/// lost.
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
    let mut access =
        Access::begin_with_key(AccessType::Rotate, Context { request_id, ip_address, user_agent })?;
    let id = store::id_of::<ProviderKeyId>(access.need(provider_key_id, "provider_key_id")?);
    let key = access.find_to_change(id)?;
    let active = key.version.number;
    if let Some(expected) = expected_version.filter(|expected| *expected != active) {
        let conflict = Error::VersionConflict { expected, active };
        return Err(access.refuse(FailureReason::VersionConflict, conflict).into());
    }
    let secret = api_key_of(&access, new_api_key, &key.provider, "new_api_key")?;
    access.accept(key.name.as_deref().map_or(Ok(()), |name| check_apart(name, &secret)))?;
    let owner = access.recorder.owner();
    let next = store::changes::highest_version(owner, key.project_id, id) + 1;
    let sealed = access.seal(key.project_id, id, next, &key.provider, &secret)?;
    store::changes::insert_version(owner, key.project_id, id, &new_version(next, &sealed, &access));
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
    let key_hint = std::str::from_utf8(secret.expose()).map(redact::key_hint).unwrap_or_default();
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
    // The project first, as store does: two callers never wait for each other in a circle.
    if is_active
        && let Ok(projects) = access.caller.may_change(owner)
        && let Some(key) = store::keys::within(owner, &projects, id)
    {
        store::projects::lock_project(owner, key.project_id);
    }
    let key = access.find_to_change(id)?;
    if is_active {
        access.free_place(key.project_id, &key.provider, id)?;
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

/// What a sealed key is stored with.
pub(super) fn new_version<'a>(
    number: i32,
    sealed: &'a SealedKey,
    access: &'a Access,
) -> NewVersion<'a> {
    NewVersion {
        number,
        sealed: &sealed.sealed,
        fingerprint: &sealed.fingerprint,
        fingerprint_key_version: sealed.fingerprint_key_version,
        key_hint: &sealed.key_hint,
        created_by: access.caller.name(),
    }
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
    if version.is_compromised {
        return Err(access.refuse(FailureReason::Compromised, Error::CompromisedVersion(number)));
    }
    let secret = open(access.recorder, key, &version)
        .map_err(|(reason, error)| access.refuse(reason, error))?;
    Ok((version, secret))
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
    .filter(|version| !version.is_compromised)
    .find_map(|version| open(access.recorder, key, &version).ok().map(|secret| (version, secret)))
    .ok_or_else(|| access.refuse(FailureReason::NotFound, Error::NoEarlierVersion))
}

/// Takes an API key from an argument: not empty, no white space, at most 4,096 bytes. A shape that
/// belongs to another provider is a WARNING.
fn api_key_of(
    access: &Access,
    argument: Option<&str>,
    provider: &str,
    name: &'static str,
) -> Result<Secret, Error> {
    let text = access.need(argument, name)?;
    access.accept(check_api_key(text))?;
    if let Some(other) = redact::provider_of(text).filter(|other| *other != provider) {
        warning!(
            "this key has the shape of a key of provider \"{other}\", and is stored for \"{provider}\""
        );
    }
    Ok(Secret::new(text.as_bytes().to_vec()))
}

/// An API key: 1 to 4,096 bytes without white space.
pub(super) fn check_api_key(text: &str) -> Result<(), Error> {
    if text.is_empty() {
        Err(Error::BadInput("the API key is empty", "Pass the key as the vendor shows it."))
    } else if text.len() > MAX_KEY {
        Err(Error::BadInput(
            "the API key is longer than 4096 bytes",
            "Pass the key alone, without a file around it.",
        ))
    } else if text.contains(char::is_whitespace) {
        Err(Error::BadInput(
            "the API key contains white space",
            "Pass the key alone, without spaces or line ends.",
        ))
    } else {
        Ok(())
    }
}

/// A provider: a slug.
fn check_provider(provider: &str) -> Result<(), Error> {
    if is_slug(provider) {
        return Ok(());
    }
    let hint =
        "Use 1 to 63 of a-z, 0-9, '-' and '_', beginning with a letter or digit, such as openai.";
    Err(Error::BadInput("the provider is not a slug", hint))
}

/// Whether a text can name a provider: so that nothing else (a key, say) is ever kept in that
/// place.
pub(super) fn is_slug(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.starts_with(plain)
        && text.chars().all(|c| plain(c) || c == '-' || c == '_')
        && !redact::contains_key(text)
}

/// A name: 1 to 100 bytes, no key, nothing that does not print.
pub(super) fn check_name(name: &str) -> Result<(), Error> {
    let hint = "Use 1 to 100 bytes of text that is no key.";
    if name.trim().is_empty() || name.len() > 100 || !redact::is_visible(name) {
        Err(Error::BadInput("the name is empty, too long or holds invisible characters", hint))
    } else if redact::contains_key(name) {
        Err(Error::BadInput("the name looks like a key", hint))
    } else {
        Ok(())
    }
}

/// Bytes from which on a text that holds a key is taken to hold it on purpose: shorter ones are in
/// many words.
const TELLING: usize = 8;

/// What is kept in clear beside a key must not be the key: one made of words has no shape by which
/// it is known.
pub(super) fn check_apart(text: &str, secret: &Secret) -> Result<(), Error> {
    let key = secret.expose();
    let holds = key.len() >= TELLING && text.as_bytes().windows(key.len()).any(|part| part == key);
    if holds || text.as_bytes() == key {
        return Err(Error::BadInput(
            "the name or the provider is the key itself",
            "Name the key by what it is for.",
        ));
    }
    Ok(())
}

/// Refuses a name that holds a key which this project has stored, in any version. Others' keys are
/// not looked for: an answer would tell a tenant what they are.
pub(super) fn refuse_stored_key(
    access: &Access,
    project: ProjectId,
    name: Option<&str>,
) -> Result<(), Error> {
    let Some(name) = name else { return Ok(()) };
    let found = Finder::new(access.recorder)?.find(name)?;
    if found.iter().any(|found| found.ours.is_some_and(|ours| ours.project == project)) {
        let error = Error::BadInput(
            "the name looks like a key",
            "Use 1 to 100 bytes of text that is no key.",
        );
        return Err(access.refuse(FailureReason::BadInput, error));
    }
    Ok(())
}

/// A priority: from 1.
pub(super) fn check_priority(priority: Option<i32>) -> Result<(), Error> {
    match priority {
        Some(priority) if priority < 1 => {
            Err(Error::BadInput("the priority is below 1", "1 is tried first."))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_keys_are_bounded_and_without_white_space() {
        for good in ["k", "sk-proj-abc", "schlüssel", "鍵"] {
            assert_eq!(check_api_key(good), Ok(()), "{good}");
        }
        let long = "x".repeat(MAX_KEY + 1);
        for bad in ["", " k", "k\n", "a b", "a\u{00a0}b", "a\u{3000}b", &long] {
            assert!(check_api_key(bad).is_err());
        }
        assert_eq!(check_api_key(&long[1..]), Ok(()));
    }

    #[test]
    fn providers_are_slugs() {
        for good in ["openai", "azure-openai", "x", "9router", "a_b"] {
            assert!(is_slug(good), "{good}");
        }
        for bad in ["", "OpenAI", "-a", "a b", "ünï", &"a".repeat(64)] {
            assert!(!is_slug(bad), "{bad}");
        }
    }

    #[test]
    fn a_name_that_is_a_key_is_refused() {
        assert_eq!(check_name("production 日本"), Ok(()));
        assert!(check_name(&format!("sk-proj-{}", "Ab3".repeat(20))).is_err());
        assert!(check_name("  ").is_err());
        assert!(check_name("a\nb").is_err());
    }
}
