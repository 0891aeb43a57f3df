//! The properties of a key that can be changed without its secret: name, priority, how long a
//! version may be used. Such a change is recorded before it commits, as any other.

use super::access::Access;
use crate::caller::Context;
use crate::error::Answer;
use crate::id::ProviderKeyId;
use crate::input::{KeyName, Priority, RotationInterval};
use crate::store;
use crate::trail::AccessType;
use pgrx::prelude::*;

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
    let name = access.accept(name.map(KeyName::parse).transpose())?;
    let priority = access.accept(priority.map(Priority::parse).transpose())?;
    let interval = rotation_interval
        .map(|given| RotationInterval::parse(given, given.months(), given.days(), given.micros()));
    let interval = access.accept(interval.transpose())?;
    if let Some(name) = &name {
        access.name_must_be_no_key(key.project_id, name.as_str())?;
        if key.name.as_ref() != Some(name) {
            access.name_must_be_free(key.project_id, &key.provider, name)?;
        }
    }
    let owner = access.recorder.owner();
    store::changes::update(owner, key.project_id, id, name.as_ref(), priority, interval);
    access.keep_change();
    Ok(())
}
