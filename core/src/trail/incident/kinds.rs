//! Every kind of incident, a function each: which incident it is, how urgent, and what it says. All
//! incidents are made here. Words and numbers come as they are, the texts of callers as `Shown`:
//! a `Secret` is neither, so that no incident can hold a key.

use super::{Incident, IncidentType, Severity, identity};
use crate::id::{EventId, IncidentId, KeyRef, ProviderKeyId};
use crate::moment::Moment;
use crate::trail::event::Event;
use crate::trail::leak::{Channel, Leak};
use crate::trail::terms::{AccessType, CallerKind};
use serde_json::{Value, json};

/// Text that may be shown to whoever reads an incident: keys are masked in it, and it was cut.
///
/// ```
/// use watchllm_core::input::ReportSource;
/// use watchllm_core::trail::Shown;
/// let source = ReportSource::clean("a scanner");
/// let shown: &dyn Shown = &source;
/// ```
///
/// A secret is none, nor is a key as it was given, nor any text that nobody has looked at:
///
/// ```compile_fail,E0277
/// let secret = watchllm_core::crypto::Secret::new(b"not-a-key".to_vec());
/// let shown: &dyn watchllm_core::trail::Shown = &secret;
/// ```
/// ```compile_fail,E0277
/// let key = watchllm_core::input::ApiKey::parse("not-a-key").ok().unwrap();
/// let shown: &dyn watchllm_core::trail::Shown = &key;
/// ```
/// ```compile_fail,E0277
/// let shown: &dyn watchllm_core::trail::Shown = &String::from("not-a-key");
/// ```
pub trait Shown {
    /// The text.
    fn shown(&self) -> &str;
}

/// A version of one of our keys.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct KeyVersion {
    /// The key.
    pub key: KeyRef,
    /// The number of its version.
    pub number: i32,
}

/// Makes an incident that is about no key of ours.
fn about_nobody(
    id: IncidentId,
    kind: IncidentType,
    severity: Severity,
    details: Value,
    at: Moment,
) -> Incident {
    Incident {
        id,
        kind,
        severity,
        project_id: None,
        provider_key_id: None,
        details: details.to_string(),
        detected_at: at,
    }
}

fn of_key(key: Option<KeyRef>, incident: Incident) -> Incident {
    Incident {
        project_id: key.map(|key| key.project),
        provider_key_id: key.map(|key| key.key),
        ..incident
    }
}

/// A key that the log hook masked. The same key in the same statement of the same process is the
/// same incident.
pub fn key_masked(leak: &Leak, role: Option<&dyn Shown>, database: Option<&dyn Shown>) -> Incident {
    let stays = leak.channel == Channel::Catalog;
    let parts: [&[u8]; 5] = [
        if stays { b"stored in the catalog" } else { b"masked" },
        &leak.database.to_be_bytes(),
        &leak.backend_pid.to_be_bytes(),
        &leak.key_hash.to_be_bytes(),
        &leak.statement_start.micros().to_be_bytes(),
    ];
    let what = if stays {
        "a statement put what looks like a provider key into the catalog"
    } else {
        "what looks like a provider key was masked"
    };
    let details = json!({
        "what": what, "channel": leak.channel.word(), "provider": leak.provider, "kind": leak.kind,
        "count": leak.count, "backend_pid": leak.backend_pid, "role": role.map(Shown::shown),
        "database": database.map(Shown::shown),
    });
    let severity = if stays { Severity::High } else { Severity::Medium };
    about_nobody(identity(&parts), IncidentType::LeakedKey, severity, details, leak.at)
}

/// Masked keys of which not all were reported: an incident each time, under a new id.
pub fn masked_unreported(dropped: u64, id: IncidentId, at: Moment) -> Incident {
    let details =
        json!({ "what": "more keys were masked than could be reported", "count": dropped });
    about_nobody(id, IncidentType::LeakedKey, Severity::Medium, details, at)
}

/// A key that a scan found in clear.
pub struct InClear<'a> {
    /// The function that scanned.
    pub source: &'static str,
    /// Where it lies.
    pub place: &'a dyn Shown,
    /// Whose key it is, where that is known.
    pub provider: Option<&'a dyn Shown>,
    /// What kind of key, by its rule.
    pub kind: &'static str,
    /// The key as it may be shown.
    pub redacted: &'a dyn Shown,
    /// How often it lies there.
    pub occurrences: i64,
    /// Which of ours it is.
    pub ours: Option<KeyVersion>,
}

/// Identifies a key in clear by its place and fingerprint, and by which of ours it is. The place is
/// only hashed.
pub fn in_clear_id(place: &str, fingerprint: &[u8; 32], ours: Option<KeyVersion>) -> IncidentId {
    let key = ours.map_or(ProviderKeyId::NIL, |ours| ours.key.key);
    let number = ours.map_or(0, |ours| ours.number).to_be_bytes();
    identity(&[b"leak", place.as_bytes(), fingerprint, key.bytes(), &number])
}

/// A key that lies in clear at a place; `id` is that of `in_clear_id`.
pub fn key_in_clear(id: IncidentId, found: &InClear, at: Moment) -> Incident {
    let details = json!({
        "what": "a provider key lies in clear", "source": found.source,
        "place": found.place.shown(), "provider": found.provider.map(Shown::shown),
        "kind": found.kind, "redacted": found.redacted.shown(), "occurrences": found.occurrences,
        "key_version": found.ours.map(|ours| ours.number),
    });
    let severity = if found.ours.is_some() { Severity::High } else { Severity::Medium };
    let incident = about_nobody(id, IncidentType::LeakedKey, severity, details, at);
    of_key(found.ours.map(|ours| ours.key), incident)
}

/// More keys in clear than the answer of a scan holds: one a day for each function that scans.
pub fn more_in_clear(source: &'static str, at: Moment) -> Incident {
    let id = identity(&[b"leak", b"more", source.as_bytes(), &day(at)]);
    let details = json!({ "what": "more keys lie in clear than a scan lists", "source": source });
    about_nobody(id, IncidentType::LeakedKey, Severity::High, details, at)
}

/// A key that a trigger masked before its row was stored.
pub struct MaskedColumn<'a> {
    /// The table and who owns it.
    pub table: &'a dyn Shown,
    /// Its owner.
    pub table_owner: &'a dyn Shown,
    /// The column.
    pub column: &'a dyn Shown,
    /// The one provider whose keys look like this, where there is one.
    pub provider: Option<&'static str>,
    /// What kind of key, by its rule.
    pub kind: &'static str,
    /// The key as it may be shown.
    pub redacted: &'a dyn Shown,
    /// Which of ours it is.
    pub ours: Option<KeyVersion>,
}

/// A key that `redact_columns()` masked. The same kind in the same column is the same incident for
/// a day, one of our keys always.
pub fn column_masked(masked: &MaskedColumn, at: Moment) -> Incident {
    let (table, column) = (masked.table.shown(), masked.column.shown());
    let (day, number) = (day(at), masked.ours.map_or(0, |ours| ours.number).to_be_bytes());
    let what: [&[u8]; 3] = match &masked.ours {
        Some(ours) => [b"ours", ours.key.key.bytes(), &number],
        None => [masked.provider.unwrap_or_default().as_bytes(), masked.kind.as_bytes(), &day],
    };
    let [of, which, when] = what;
    let parts = [b"masked column", table.as_bytes(), column.as_bytes(), of, which, when];
    let details = json!({
        "what": "a provider key was masked before its row was stored", "source": REDACT_COLUMNS,
        "table": table, "table_owner": masked.table_owner.shown(), "column": column,
        "provider": masked.provider, "kind": masked.kind, "redacted": masked.redacted.shown(),
        "key_version": masked.ours.map(|ours| ours.number),
    });
    let severity = if masked.ours.is_some() { Severity::High } else { Severity::Low };
    let incident = about_nobody(identity(&parts), IncidentType::LeakedKey, severity, details, at);
    of_key(masked.ours.map(|ours| ours.key), incident)
}

/// The function whose incidents are counted by their source (store/leaks).
const REDACT_COLUMNS: &str = "redact_columns";

/// More keys masked in the tables of an owner than are written down in a day.
pub fn more_columns_masked(table_owner: &dyn Shown, most: i64, at: Moment) -> Incident {
    let today = at.midnight().micros().to_be_bytes();
    let id = identity(&[b"masked column", b"more", table_owner.shown().as_bytes(), &today]);
    let details = json!({
        "what": "more keys were masked than are written down in a day", "source": REDACT_COLUMNS,
        "table_owner": table_owner.shown(), "most": most,
    });
    about_nobody(id, IncidentType::LeakedKey, Severity::Medium, details, at)
}

/// A key that somebody reported as leaked: one incident for each version and source, however often
/// it is reported.
pub fn leak_reported(
    version: KeyVersion,
    fingerprint: &[u8],
    source: &dyn Shown,
    in_use: bool,
    at: Moment,
) -> Incident {
    let (key, number, source) = (version.key.key, version.number.to_be_bytes(), source.shown());
    let id = identity(&[b"report", key.bytes(), &number, fingerprint, source.as_bytes()]);
    let details = json!({
        "what": "a provider key was reported as leaked", "source": source,
        "key_version": version.number, "in_use": in_use,
    });
    let severity = if in_use { Severity::Critical } else { Severity::Medium };
    let incident = about_nobody(id, IncidentType::LeakedKey, severity, details, at);
    of_key(Some(version.key), incident)
}

/// A version that is marked compromised and was opened all the same: one incident, however often.
/// Its evidence is the first such access.
pub fn compromised_opened(event: &Event) -> Incident {
    let key = event.provider_key_id.unwrap_or(ProviderKeyId::NIL);
    let version = event.key_version.unwrap_or_default();
    let details = json!({
        "what": "a version marked compromised was opened", "key_version": version,
        "event_id": event.id.to_string(),
    });
    let id = identity(&[b"opened", key.bytes(), &version.to_be_bytes()]);
    Incident {
        project_id: event.project_id,
        provider_key_id: event.provider_key_id,
        ..about_nobody(id, IncidentType::LeakedKey, Severity::High, details, event.accessed_at)
    }
}

/// A key without an incident that staff blocked or unblocked, with a note to keep. `event` is the
/// event of the block.
pub fn block_noted(key: KeyRef, done: AccessType, event: EventId, at: Moment) -> Incident {
    let what = match done {
        AccessType::Unblock => "an administrator unblocked this provider key",
        _ => "an administrator blocked this provider key",
    };
    let id = identity(&[b"blocked", key.key.bytes(), event.bytes()]);
    let details = json!({ "what": what, "event_id": event.to_string() });
    let incident = about_nobody(id, IncidentType::KeyBlocked, Severity::Low, details, at);
    of_key(Some(key), incident)
}

/// How far a key is on its way to be rotated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage {
    /// It should be rotated soon.
    Soon,
    /// It must be rotated.
    Required,
}

/// A key that has come to a stage.
pub struct Due<'a> {
    /// Its active version.
    pub version: KeyVersion,
    /// Whose key it is.
    pub provider: &'a dyn Shown,
    /// The stage.
    pub stage: Stage,
    /// Days since the version was made.
    pub days_old: i32,
    /// Days until it must be rotated; negative when that has passed.
    pub days_left: i64,
}

/// A key to be rotated: one incident for each version and stage.
pub fn rotation_due(due: &Due, at: Moment) -> Incident {
    let (what, word, severity) = match due.stage {
        Stage::Soon => ("this provider key should be rotated soon", "Rotation Soon", Severity::Low),
        Stage::Required => {
            ("this provider key must be rotated", "Rotation Required", Severity::Medium)
        }
    };
    let KeyVersion { key, number } = due.version;
    let details = json!({
        "what": what, "stage": word, "provider": due.provider.shown(), "key_version": number,
        "days_old": due.days_old, "days_left": due.days_left,
    });
    let id = identity(&[b"rotation", key.key.bytes(), &number.to_be_bytes(), word.as_bytes()]);
    of_key(Some(key), about_nobody(id, IncidentType::RotationDue, severity, details, at))
}

/// Whom the watch found something about.
#[derive(Clone, Copy)]
pub enum Whom<'a> {
    /// A key.
    Key(KeyRef),
    /// A caller, by its name in the trail.
    Caller(CallerKind, &'a str),
}

/// What the watch found.
pub struct Anomaly<'a> {
    /// The detector's type of incident.
    pub kind: IncidentType,
    /// How urgent the detector is.
    pub severity: Severity,
    /// What the detector says.
    pub what: &'a str,
    /// Whom it is about.
    pub whom: Whom<'a>,
    /// Of a count: its window, what was counted, and the limit that was crossed.
    pub count: Option<(&'static str, u32, u32)>,
    /// Of a key that was asleep: for how many days.
    pub days_asleep: Option<u32>,
    /// Whether it was blocked from then on.
    pub blocked: bool,
}

/// Identifies an episode: what a detector found about somebody, from a moment on.
pub fn episode_id(kind: IncidentType, whom: Whom, began: Moment) -> IncidentId {
    let (word, began) = (kind.word().as_bytes(), began.micros().to_be_bytes());
    match whom {
        Whom::Key(key) => identity(&[word, key.project.bytes(), key.key.bytes(), &began]),
        Whom::Caller(kind, name) => {
            identity(&[word, kind.word().as_bytes(), name.as_bytes(), &began])
        }
    }
}

/// Identifies what was found of a moment, which has no episode: the same is one incident a day.
/// `by` is the caller that is new to the key, where there is one.
pub fn moment_id(
    kind: IncidentType,
    key: KeyRef,
    by: Option<(CallerKind, &str)>,
    at: Moment,
) -> IncidentId {
    let by = by.map(|(kind, name)| [kind.word(), name].concat()).unwrap_or_default();
    let day = at.day().to_be_bytes();
    let word = kind.word().as_bytes();
    identity(&[word, key.project.bytes(), key.key.bytes(), by.as_bytes(), &day])
}

/// What the watch found; `id` is that of `episode_id` or `moment_id`. Details tell counts and
/// windows, of callers only where no tenant reads the incident.
pub fn anomaly(id: IncidentId, found: &Anomaly, at: Moment) -> Incident {
    let mut details = json!({ "what": found.what, "blocked": found.blocked });
    if let Some((window, observed, limit)) = found.count {
        details["window"] = window.into();
        details["observed"] = observed.into();
        details["limit"] = limit.into();
    }
    if let Some(days) = found.days_asleep {
        details["days_asleep"] = days.into();
    }
    let key = match found.whom {
        Whom::Key(key) => Some(key),
        Whom::Caller(kind, name) => {
            details["kind"] = kind.word().into();
            details["subject"] = name.into();
            None
        }
    };
    of_key(key, about_nobody(id, found.kind, found.severity, details, at))
}

/// The UTC day as the identities of incidents of a day hold it.
fn day(at: Moment) -> [u8; 8] {
    i64::from(at.day()).to_be_bytes()
}

#[cfg(test)]
#[path = "kinds_tests.rs"]
mod tests;
