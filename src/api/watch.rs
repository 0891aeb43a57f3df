//! The watch's answer about one key, when people ask. What it finds by itself becomes incidents.
//! The detectors over the whole trail are in `sql/anomalies.sql`.

use crate::anomaly::{Detector, LIMIT_BASIS, Limits, OwnLimits};
use crate::audit;
use crate::caller::{Caller, Context};
use crate::error::Error;
use crate::id::{KeyRef, ProviderKeyId};
use crate::input::HoursBack;
use crate::postgres::{Owner, clock};
use crate::store;
use crate::store::history::Rates;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Judges how a provider key was used in the last hours, 1 to 744: whether a limit of its minute,
/// hour or day was crossed, how many accesses and failures there were, and in words which limit it
/// was. Errors: no such key 02000.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn detect_unusual_key_access(
    provider_key_id: Option<pgrx::Uuid>,
    hours_back: default!(Option<i32>, 1),
) -> Result<
    TableIterator<
        'static,
        (
            name!(unusual_pattern, bool),
            name!(access_count, i64),
            name!(failure_count, i64),
            name!(reason, String),
        ),
    >,
    ErrorReport,
> {
    let owner = audit::ready_to_read()?;
    let caller = Caller::new(Context::default());
    let id =
        store::id_of::<ProviderKeyId>(provider_key_id.ok_or(Error::NullInput("provider_key_id"))?);
    let back = hours_back.ok_or(Error::NullInput("hours_back"))?;
    let back = HoursBack::parse(back).map_err(Error::from)?.span();
    let key = store::keys::within(owner, &caller.may_see(owner), id).ok_or(Error::NoSuchKey)?;
    let rates = store::history::rates(owner, clock::now() - back, key.project_id, id);
    let limits = limits(owner, KeyRef { project: key.project_id, key: id });
    let crossed = |detector: Detector, count: i64| count > i64::from(limits.of(detector));
    let found = counts(&rates).into_iter().find(|(detector, count, _)| crossed(*detector, *count));
    let reason = found.map_or("Normal", |(.., reason)| reason);
    Ok(TableIterator::once((found.is_some(), rates.accesses, rates.failures, reason.to_owned())))
}

/// The limits that hold for a key today: the stated ones, or what its own past allows.
fn limits(owner: Owner, key: KeyRef) -> Limits {
    let (project, id) = (Some(key.project), Some(key.key));
    let mut own = OwnLimits::default();
    let settings = Detector::ALL.iter().filter_map(|detector| detector.limit());
    for setting in settings.chain([&LIMIT_BASIS]) {
        let value = store::settings::effective(owner, setting, project, id);
        value.into_iter().for_each(|value| own.take(setting.name(), &value));
    }
    let past = store::past::of_keys(owner, &[key]).remove(&key).unwrap_or_default();
    past.limits(Limits::default().overridden(&own), clock::now().day())
}

/// Each count, the setting it is compared with, and what it means. The most urgent comes first.
fn counts(rates: &Rates) -> [(Detector, i64, &'static str); 4] {
    [
        (Detector::Theft, rates.most_in_hour, "Potential key theft"),
        (Detector::RapidAccess, rates.most_in_minute, "Rapid automated access"),
        (Detector::UnusuallyHigh, rates.most_in_day, "Unusually high access"),
        (Detector::Failures, rates.most_failures_in_hour, "Repeated failures"),
    ]
}
