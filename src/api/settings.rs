//! Settings that a database, a project or a key has in place of the server's: which there are, who
//! sets them, and which one holds for a key. The writer reads them after the commit
//! (audit/writer/warm_up).

use super::access::Access;
use crate::caller::{Caller, Context};
use crate::error::{Answer, Error};
use crate::id::{ProjectId, ProviderKeyId};
use crate::overrides;
use crate::setting::{Form, Scope, Setting};
use crate::store::{self, Projects, id_of};
use crate::trail::{AccessType, FailureReason};
use pgrx::prelude::*;
use std::sync::LazyLock;

/// Sets a setting of a database, a project or a key in place of the server's; within a second it
/// holds. NULL takes it back. A count is a number, an age a number with its unit ('90d', '36h',
/// '5min'), an action as in `anomaly_action`. Errors: not authorized 42501, no such project or key
/// 02000, unknown name, scope or value 22023.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn set_setting(
    name: Option<&str>,
    value: Option<&str>,
    project_id: default!(Option<pgrx::Uuid>, "NULL"),
    provider_key_id: default!(Option<pgrx::Uuid>, "NULL"),
) -> Answer<()> {
    let mut access = Access::begin(AccessType::Setting, Context::default())?;
    access.must_administer()?;
    let name = access.need(name, "name")?;
    let setting = access.accept(known(name))?;
    let key = provider_key_id.map(|id| access.find_without_lock(id_of(id))).transpose()?;
    let project = project_id.map(id_of::<ProjectId>).or(key.as_ref().map(|key| key.project_id));
    if key.as_ref().is_some_and(|key| project != Some(key.project_id)) {
        return Err(access.refuse(FailureReason::NotFound, Error::NoSuchKey).into());
    }
    if let Some(project) = project {
        access.event.project_id = Some(project);
        if !store::projects::project_exists(access.recorder.owner(), project) {
            return Err(access.refuse(FailureReason::NotFound, Error::NoSuchProject).into());
        }
    }
    let scope = match (project, &key) {
        (_, Some(_)) => Scope::Key,
        (Some(_), None) => Scope::Project,
        (None, None) => Scope::Database,
    };
    let value = value.map(str::trim);
    let checked = match value {
        Some(value) => setting.check(value, scope),
        None => setting.check_scope(scope),
    };
    access.accept(checked.map_err(|(what, hint)| Error::BadInput(what, hint)))?;
    let owner = access.recorder.owner();
    store::settings::set(owner, setting.name(), value, project, key.map(|key| key.id));
    access.keep_change();
    Ok(())
}

/// Tells the setting that holds for a key, a project or the database: its own, the next wider
/// one's, or the server's. For views; tenants are told of their own projects, and of others' what
/// holds for all. Errors: unknown name 22023.
#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
fn effective_setting(
    name: Option<&str>,
    project_id: default!(Option<pgrx::Uuid>, "NULL"),
    provider_key_id: default!(Option<pgrx::Uuid>, "NULL"),
) -> Answer<Option<String>> {
    let setting = known(name.ok_or(Error::NullInput("name"))?)?;
    let owner = store::installed::owner()?;
    // A view asks once per key, and most vaults have no override of most names.
    if !store::settings::exists(owner, setting.name()) {
        return Ok(store::settings::of_server(setting));
    }
    let visible = Caller::new(Context::default()).may_see(owner);
    let is_visible = |project: &ProjectId| match &visible {
        Projects::Every => true,
        Projects::Own(own) => own.contains(project),
    };
    let key = provider_key_id.map(id_of::<ProviderKeyId>);
    // A key belongs to a project. Views name both, which saves the look-up.
    let of_key =
        || key.and_then(|key| store::keys::within(owner, &visible, key)).map(|key| key.project_id);
    let project = project_id.map(id_of::<ProjectId>).filter(is_visible).or_else(of_key);
    let key = key.filter(|_| project.is_some());
    Ok(store::settings::effective(owner, setting, project, key))
}

/// Tells the lowest limit or age that holds for any key the caller may see, so that the detectors
/// pass over what lies below it; an age in minutes, `5min`. Errors: unknown name, or one that has
/// no order, 22023.
#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
fn lowest_setting(name: Option<&str>) -> Answer<Option<String>> {
    let setting = known(name.ok_or(Error::NullInput("name"))?)?;
    if matches!(setting.form, Form::Words { .. }) {
        let hint = "Ask for a limit.";
        return Err(Error::BadInput("a word is neither high nor low", hint).into());
    }
    let owner = store::installed::owner()?;
    let visible = Caller::new(Context::default()).may_see(owner);
    let counts = |own: &store::settings::StoredOverride| match (&visible, own.project) {
        (Projects::Own(projects), Some(project)) => projects.contains(&project),
        _ => true,
    };
    let all = store::settings::all(owner).into_iter();
    let own = all.filter(|own| own.name == setting.name() && counts(own)).map(|own| own.value);
    let values = own.chain(store::settings::effective(owner, setting, None, None));
    let lowest = values.filter_map(|value| setting.number(&value)).min();
    Ok(lowest.map(|lowest| setting.written(lowest)))
}

/// A setting that can be overridden.
fn known(name: &str) -> Result<&'static Setting, Error> {
    static HINT: LazyLock<String> = LazyLock::new(|| {
        let names: Vec<&str> = overrides::all().map(Setting::name).collect();
        format!("One of: {}.", names.join(", "))
    });
    overrides::find(name)
        .ok_or_else(|| Error::BadInput("no setting of this name can be overridden", &HINT))
}
