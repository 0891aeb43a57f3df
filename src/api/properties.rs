//! What of a key can be changed without its secret: name, priority, how long a version may be used.
//! A change like others: recorded before it commits.

use super::access::Access;
use super::changes::{check_name, check_priority, refuse_stored_key};
use crate::caller::Context;
use crate::error::{Answer, Error};
use crate::id::ProviderKeyId;
use crate::moment::Span;
use crate::store;
use crate::trail::{AccessType, FailureReason};
use pgrx::prelude::*;

/// A hundred years in microseconds, of months of 30 days as PostgreSQL compares them.
const MAX_INTERVAL: i128 = Span::days(36_000).micros() as i128;

/// Changes name, priority and rotation interval of a provider key; what is NULL stays.
/// `rotation_interval` is how long a version may be used, counted from when it was made; zero takes
/// it back, and the settings hold again. Errors: no such key 02000, bad input 22023, name taken
/// 23505.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn update_provider_key(
    provider_key_id: Option<pgrx::Uuid>,
    name: default!(Option<&str>, "NULL"),
    priority: default!(Option<i32>, "NULL"),
    rotation_interval: default!(Option<Interval>, "NULL"),
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<()> {
    let mut access =
        Access::begin(AccessType::Update, Context { request_id, ip_address, user_agent })?;
    let id = store::id_of::<ProviderKeyId>(access.need(provider_key_id, "provider_key_id")?);
    let key = access.find_to_change(id)?;
    access.accept(name.map_or(Ok(()), check_name))?;
    access.accept(check_priority(priority))?;
    access.accept(rotation_interval.as_ref().map_or(Ok(()), check_interval))?;
    let owner = access.recorder.owner();
    refuse_stored_key(&access, key.project_id, name)?;
    let renamed = name.filter(|name| key.name.as_deref() != Some(*name));
    if renamed
        .is_some_and(|name| store::keys::name_taken(owner, key.project_id, &key.provider, name))
    {
        let taken = Error::AlreadyThere("a key of this name for this project and provider");
        return Err(access.refuse(FailureReason::BadInput, taken).into());
    }
    store::changes::update(owner, key.project_id, id, name, priority, rotation_interval);
    access.keep_change();
    Ok(())
}

/// From nothing to a hundred years.
fn check_interval(interval: &Interval) -> Result<(), Error> {
    if (0..=MAX_INTERVAL).contains(&interval.as_micros()) {
        return Ok(());
    }
    let hint = "Such as '90 days'; '0' takes it back, and the settings hold again.";
    Err(Error::BadInput("rotation_interval is negative or longer than a hundred years", hint))
}
