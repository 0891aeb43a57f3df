//! Incidents and notes about them; both tables only get inserts. Listeners are told id and type
//! alone. This has its own transaction, because a full notification queue fails every transaction
//! that notifies (docs/facts.md#the-durable-audit-writer).

use super::oids::*;
use super::{id, timestamp, uuid};
use crate::id::{IncidentId, ProjectId, ProviderKeyId};
use crate::input::{ChangedBy, Note};
use crate::moment::Moment;
use crate::postgres::{Owner, Statement};
use crate::trail::{Incident, Notice};
use pgrx::datum::DatumWithOid;

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

static NOTE: Statement = Statement::new(
    "INSERT INTO watchllm.incident_events (id, incident_id, project_id, event, note, by, at)
     SELECT pg_catalog.gen_random_uuid(), i.id, i.project_id, 'note', $3, $4, pg_catalog.now()
     FROM watchllm.security_incidents i WHERE i.project_id = $1 AND i.provider_key_id = $2
     ORDER BY i.detected_at DESC LIMIT 1 RETURNING id",
    &[UUID, UUID, TEXT, TEXT],
);

/// Stored once each, so that a retry after a failure writes nothing twice.
static EVENT: Statement = Statement::new(
    "INSERT INTO watchllm.incident_events (id, incident_id, project_id, event, note, by, at)
     SELECT pg_catalog.gen_random_uuid(), $1, $2, $3, $4, 'watchllm_keys', $5
     WHERE NOT EXISTS (SELECT FROM watchllm.incident_events e
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

/// For the writer: writes each. Answers what to tell listeners about the new ones.
pub(crate) fn write_new(owner: Owner, incidents: &[Incident]) -> Vec<Notice> {
    let new = incidents.iter().filter(|incident| write(owner, incident));
    new.map(Incident::notice).collect()
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
