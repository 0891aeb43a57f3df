//! Settings that a database, a project or a key has of its own, in place of the server's: which
//! they are, who sets them, and what holds for a key. The writer reads them after the commit
//! (audit/writer/findings).

use super::access::Access;
use crate::anomaly::action;
use crate::caller::{Caller, Context};
use crate::error::{Answer, Error};
use crate::id::{ProjectId, ProviderKeyId};
use crate::postgres::{Owner, session};
use crate::settings::watch;
use crate::store::{self, Projects, id_of};
use crate::trail::{AccessType, FailureReason};
use pgrx::prelude::*;
use std::ffi::CString;

/// Where a setting can be overridden, the widest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Database,
    Project,
    Key,
}

/// What a value must be.
#[derive(Clone, Copy)]
enum Kind {
    Count { least: u32, most: u32 },
    Age,
    Action,
}

/// What can be overridden, how narrowly, and by what.
const KNOWN: [(&str, Scope, Kind); 10] = [
    ("max_active_keys", Scope::Project, Kind::Count { least: 0, most: 1_000_000 }),
    (
        "max_accesses_per_minute",
        Scope::Key,
        Kind::Count { least: 1, most: watch::MAX_A_MINUTE as u32 },
    ),
    ("max_accesses_per_hour", Scope::Key, Kind::Count { least: 1, most: i32::MAX as u32 }),
    ("max_accesses_per_day", Scope::Key, Kind::Count { least: 1, most: i32::MAX as u32 }),
    ("max_failures_per_hour", Scope::Key, Kind::Count { least: 1, most: i32::MAX as u32 }),
    (
        "max_distinct_keys_per_minute",
        Scope::Database,
        Kind::Count { least: 1, most: watch::MAX_A_MINUTE as u32 },
    ),
    ("anomaly_action", Scope::Key, Kind::Action),
    ("rotation_warn_after", Scope::Key, Kind::Age),
    ("rotation_required_after", Scope::Key, Kind::Age),
    ("stale_after", Scope::Key, Kind::Age),
];

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
    let (name, narrowest, kind) = access.accept(known(name))?;
    let key = provider_key_id.map(|id| access.find_to_change(id_of(id))).transpose()?;
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
    if scope > narrowest {
        let hint = "max_distinct_keys_per_minute is of the whole database, max_active_keys also of a project.";
        return Err(access
            .refuse(FailureReason::BadInput, Error::BadInput("no setting of this scope", hint))
            .into());
    }
    let value = value.map(str::trim);
    if let Some(value) = value {
        access.accept(check(kind, value, scope))?;
    }
    store::settings::set(access.recorder.owner(), name, value, project, key.map(|key| key.id));
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
    let (name, ..) = known(name.ok_or(Error::NullInput("name"))?)?;
    let owner = store::installed::owner()?;
    // A view asks once per key: most vaults have no override of most names.
    if !store::settings::exists(owner, name) {
        return Ok(effective(owner, name, None, None));
    }
    let visible = Caller::new(Context::default()).may_see(owner);
    let is_visible = |project: &ProjectId| match &visible {
        Projects::Every => true,
        Projects::Own(own) => own.contains(project),
    };
    let key = provider_key_id.map(id_of::<ProviderKeyId>);
    // A key names its project; views name both, which saves the look.
    let of_key =
        || key.and_then(|key| store::keys::within(owner, &visible, key)).map(|key| key.project_id);
    let project = project_id.map(id_of::<ProjectId>).filter(is_visible).or_else(of_key);
    Ok(effective(owner, name, project, key.filter(|_| project.is_some())))
}

/// Tells the lowest limit or age that holds for any key the caller may see, so that the detectors
/// pass over what lies below it; an age in minutes, `5min`. Errors: unknown name, or one that has
/// no order, 22023.
#[pg_extern(stable, parallel_restricted)]
#[search_path(pg_catalog, pg_temp)]
fn lowest_setting(name: Option<&str>) -> Answer<Option<String>> {
    let (name, _, kind) = known(name.ok_or(Error::NullInput("name"))?)?;
    let owner = store::installed::owner()?;
    let visible = Caller::new(Context::default()).may_see(owner);
    let counts = |own: &store::settings::Own| match (&visible, own.project) {
        (Projects::Own(projects), Some(project)) => projects.contains(&project),
        _ => true,
    };
    let overrides =
        store::settings::all(owner).into_iter().filter(|own| own.name == name && counts(own));
    let values = overrides.map(|own| own.value).chain(effective(owner, name, None, None));
    Ok(match kind {
        Kind::Count { .. } => values
            .filter_map(|value| value.parse::<u32>().ok())
            .min()
            .map(|count| count.to_string()),
        Kind::Age => {
            values.filter_map(|value| watch::minutes(&value)).min().map(|age| format!("{age}min"))
        }
        Kind::Action => {
            return Err(
                Error::BadInput("an action is neither high nor low", "Ask for a limit.").into()
            );
        }
    })
}

/// The setting that holds: the nearest override's, or the server's.
pub(super) fn effective(
    owner: Owner,
    name: &str,
    project: Option<ProjectId>,
    key: Option<ProviderKeyId>,
) -> Option<String> {
    let own = store::settings::nearest(owner, name, project, key);
    own.or_else(|| {
        CString::new(format!("watchllm_keys.{name}"))
            .ok()
            .and_then(|guc| session::shown_setting(&guc))
    })
}

/// A setting that can be overridden.
fn known(name: &str) -> Result<(&'static str, Scope, Kind), Error> {
    KNOWN.into_iter().find(|(known, ..)| *known == name).ok_or(Error::BadInput(
        "no setting of this name can be overridden",
        "One of: max_active_keys, max_accesses_per_minute, max_accesses_per_hour, max_accesses_per_day, \
         max_failures_per_hour, max_distinct_keys_per_minute, anomaly_action, rotation_warn_after, \
         rotation_required_after, stale_after.",
    ))
}

/// Refuses a value that this kind of setting cannot have, or that would have no effect in this
/// scope.
fn check(kind: Kind, value: &str, scope: Scope) -> Result<(), Error> {
    let wrong = Error::BadInput;
    match kind {
        Kind::Count { least, most } => match value.parse::<u32>() {
            Ok(count) if (least..=most).contains(&count) => Ok(()),
            _ => Err(wrong(
                "the value is no count that this setting can have",
                "A whole number within the setting's range.",
            )),
        },
        Kind::Age if watch::minutes(value).is_some() => Ok(()),
        Kind::Age => {
            Err(wrong("the value is no age", "A number with its unit: '90d', '36h' or '5min'."))
        }
        Kind::Action => {
            let hint = "alert or block, and exceptions as detector=action, separated by commas. \
                        See docs/reference.md#watchllm_keysanomaly_action.";
            action::blocking(value)
                .map_err(|problem| wrong(problem.to_str().unwrap_or_default(), hint))?;
            if scope > Scope::Database && value.contains("mass_key_reading") {
                let hint =
                    "Whoever reads many keys is judged for the whole database: set it there.";
                return Err(wrong("mass_key_reading is of no project and no key", hint));
            }
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_would_switch_the_watch_off_are_refused() {
        let (_, _, count) = known("max_accesses_per_minute").unwrap();
        for wrong in ["0", "-1", "", "100001", "1e3", "many", "NULL"] {
            assert!(check(count, wrong, Scope::Key).is_err(), "{wrong}");
        }
        assert!(check(count, "100", Scope::Key).is_ok());
        let (_, _, age) = known("stale_after").unwrap();
        for wrong in ["0d", "-1d", "30", "d", "30 months", "99999999999d", "30days"] {
            assert!(check(age, wrong, Scope::Key).is_err(), "{wrong}");
        }
        assert!(
            ["30d", "36h", "5min", "1 d"].iter().all(|right| check(age, right, Scope::Key).is_ok())
        );
        let (_, _, action) = known("anomaly_action").unwrap();
        assert!(check(action, "mass_key_reading=block", Scope::Project).is_err());
        assert!(check(action, "mass_key_reading=block", Scope::Database).is_ok());
        assert!(known("master_key_file").is_err());
    }
}
