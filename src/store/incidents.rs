//! Incidents and notes about them; both tables only get inserts. Listeners are told id and type
//! alone. This has its own transaction, because a full notification queue fails every transaction
//! that notifies (docs/facts.md#the-durable-audit-writer).

use super::oids::*;
use super::{id, timestamp, uuid, value};
use crate::id::{IncidentId, ProjectId, ProviderKeyId};
use crate::input::{ChangedBy, Note};
use crate::moment::Moment;
use crate::postgres::{Owner, Statement};
use crate::trail::{Incident, IncidentType, Notice, Severity};
use pgrx::datum::{DatumWithOid, TimestampWithTimeZone};

static INSERT: Statement = Statement::new(
    "INSERT INTO watchllm.security_incidents (id, type, severity, project_id, provider_key_id,
        details, detected_at)
     VALUES ($1, $2, $3, $4, $5, $6::pg_catalog.jsonb, $7) ON CONFLICT (id) DO NOTHING
         RETURNING id",
    &[UUID, TEXT, TEXT, UUID, UUID, TEXT, TIME],
);

static NOTIFY: Statement =
    Statement::new("SELECT pg_catalog.pg_notify('watchllm_security', $1)", &[TEXT]);

static PROJECT_OF: Statement =
    Statement::new("SELECT project_id FROM watchllm.security_incidents WHERE id = $1", &[UUID]);

static ACKNOWLEDGE: Statement = Statement::new(
    "INSERT INTO watchllm.incident_events (id, incident_id, project_id, event, note, by, at)
     VALUES (pg_catalog.gen_random_uuid(), $1, $2, 'acknowledged', $3, $4, pg_catalog.now())",
    &[UUID, UUID, TEXT, TEXT],
);

static ACKNOWLEDGE_MANY: Statement = Statement::new(
    "WITH acknowledged AS (
        INSERT INTO watchllm.incident_events (id, incident_id, project_id, event, note, by, at)
        SELECT pg_catalog.gen_random_uuid(), i.id, i.project_id, 'acknowledged', $7, $8,
            pg_catalog.now()
        FROM watchllm.security_incidents i
        WHERE ($1 IS NULL OR i.type = $1) AND ($2 IS NULL OR i.severity = ANY ($2))
          AND ($3 IS NULL OR $3 IN (i.details ->> 'role', i.details ->> 'set_role',
              i.details ->> 'address', i.details ->> 'process', i.details ->> 'source',
              i.details ->> 'table_owner', i.details ->> 'subject'))
          AND ($4 IS NULL OR i.project_id = $4)
          AND ($5 IS NULL OR i.detected_at >= $5) AND ($6 IS NULL OR i.detected_at < $6)
          AND NOT EXISTS (SELECT FROM watchllm.incident_events e
              WHERE e.incident_id = i.id AND e.event = 'acknowledged')
        RETURNING id)
     SELECT pg_catalog.count(*) FROM acknowledged",
    &[TEXT, TEXTS, TEXT, UUID, TIME, TIME, TEXT, TEXT],
);

static NOTE: Statement = Statement::new(
    "INSERT INTO watchllm.incident_events (id, incident_id, project_id, event, note, by, at)
     SELECT pg_catalog.gen_random_uuid(), i.id, i.project_id, 'note', $3, $4, pg_catalog.now()
     FROM watchllm.security_incidents i WHERE i.project_id = $1 AND i.provider_key_id = $2
     ORDER BY i.detected_at DESC LIMIT 1 RETURNING id",
    &[UUID, UUID, TEXT, TEXT],
);

/// Stored once each, so that a retry after a failure writes nothing twice. An incident that was
/// held back has no events.
static EVENT: Statement = Statement::new(
    "INSERT INTO watchllm.incident_events (id, incident_id, project_id, event, note, by, at)
     SELECT pg_catalog.gen_random_uuid(), $1, $2, $3, $4, 'watchllm_keys', $5
     WHERE EXISTS (SELECT FROM watchllm.security_incidents i WHERE i.id = $1)
       AND NOT EXISTS (SELECT FROM watchllm.incident_events e
        WHERE e.incident_id = $1 AND e.event = $3 AND e.by = 'watchllm_keys')",
    &[UUID, UUID, TEXT, TEXT, TIME],
);

static NOTE_ON: Statement = Statement::new(
    "INSERT INTO watchllm.incident_events (id, incident_id, project_id, event, note, by, at)
     SELECT pg_catalog.gen_random_uuid(), i.id, i.project_id, 'note', $2, $3, pg_catalog.now()
     FROM watchllm.security_incidents i WHERE i.id = $1",
    &[UUID, TEXT, TEXT],
);

/// Stores an incident in the caller's transaction. False: it is known already.
pub(crate) fn insert(owner: Owner, incident: &Incident) -> bool {
    !INSERT.change(owner, &arguments(incident), |_| ()).is_empty()
}

/// For the writer: as `insert`.
pub(crate) fn write(owner: Owner, incident: &Incident) -> bool {
    INSERT.write(owner, &arguments(incident)) > 0
}

/// For the writer: tells the listeners on `watchllm_security`.
pub(crate) fn notify(owner: Owner, notice: &Notice) {
    NOTIFY.write(owner, &[notice.payload().as_str().into()]);
}

/// For the writer: adds an event to an incident (`ended`, `note`).
pub(crate) fn add_event(
    owner: Owner,
    incident: &IncidentId,
    project: Option<ProjectId>,
    event: &str,
    note: &str,
    at: Moment,
) {
    let arguments = [
        uuid(*incident).into(),
        project.map(uuid).into(),
        event.into(),
        note.into(),
        timestamp(at).into(),
    ];
    EVENT.write(owner, &arguments);
}

/// Adds a note to an incident.
pub(crate) fn note_on(owner: Owner, incident: IncidentId, note: &Note, by: ChangedBy) {
    NOTE_ON.change(
        owner,
        &[uuid(incident).into(), note.as_str().into(), by.as_str().into()],
        |_| (),
    );
}

/// The project that an incident is about. None: there is no such incident.
pub(crate) fn project_of(owner: Owner, incident: IncidentId) -> Option<Option<ProjectId>> {
    PROJECT_OF.read(owner, &[uuid(incident).into()], |row| id(row, 1)).pop()
}

/// Records that somebody looked at an incident, and their note.
pub(crate) fn acknowledge(
    owner: Owner,
    incident: IncidentId,
    project: Option<ProjectId>,
    note: Option<&Note>,
    by: ChangedBy,
) {
    let arguments = [
        uuid(incident).into(),
        project.map(uuid).into(),
        note.map(Note::as_str).into(),
        by.as_str().into(),
    ];
    ACKNOWLEDGE.change(owner, &arguments, |_| ());
}

/// Which incidents are acknowledged; what is None is not asked.
pub(crate) struct Which<'a> {
    pub kind: Option<IncidentType>,
    /// This severity and the lower ones.
    pub most: Option<Severity>,
    pub source: Option<&'a str>,
    pub project: Option<ProjectId>,
    pub since: Option<TimestampWithTimeZone>,
    pub until: Option<TimestampWithTimeZone>,
}

/// Records that somebody looked at all of these that are open. Answers how many they were.
pub(crate) fn acknowledge_many(
    owner: Owner,
    which: Which,
    note: Option<&Note>,
    by: ChangedBy,
) -> i64 {
    let up_to = |most: Severity| {
        Severity::ALL[..=most as usize].iter().map(|severity| severity.word()).collect::<Vec<_>>()
    };
    let arguments = [
        which.kind.map(IncidentType::word).into(),
        which.most.map(up_to).into(),
        which.source.into(),
        which.project.map(uuid).into(),
        which.since.into(),
        which.until.into(),
        note.map(Note::as_str).into(),
        by.as_str().into(),
    ];
    ACKNOWLEDGE_MANY.change(owner, &arguments, |row| value(row, 1)).pop().unwrap_or_default()
}

/// Adds a note to the last incident of a key. False: it has none.
pub(crate) fn note(
    owner: Owner,
    project: ProjectId,
    key: ProviderKeyId,
    note: &Note,
    by: ChangedBy,
) -> bool {
    !NOTE
        .change(
            owner,
            &[uuid(project).into(), uuid(key).into(), note.as_str().into(), by.as_str().into()],
            |_| (),
        )
        .is_empty()
}

fn arguments(incident: &Incident) -> [DatumWithOid<'_>; 7] {
    [
        uuid(incident.id).into(),
        incident.kind.word().into(),
        incident.severity.word().into(),
        incident.project_id.map(uuid).into(),
        incident.provider_key_id.map(uuid).into(),
        incident.details.as_str().into(),
        timestamp(incident.detected_at).into(),
    ]
}
