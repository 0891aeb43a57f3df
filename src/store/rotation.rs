//! Finds the keys that must be rotated now or soon. The writer searches page by page, so that no
//! query takes long. The view provider_key_security_summary (sql/views.sql) gives the same answer
//! for the same ages.

use super::oids::*;
use super::{id, moment, settings, timestamp, uuid, value};
use crate::id::{IncidentId, KeyRef, ProjectId, ProviderKeyId};
use crate::input::ProviderSlug;
use crate::moment::Moment;
use crate::overrides::{ROTATION_REQUIRED_AFTER, ROTATION_WARN_AFTER};
use crate::postgres::{Owner, Statement};
use crate::trail::incident::kinds::Stage;
use pgrx::datum::Uuid;

/// The next keys after one, by id, each with its stage: 0, or the number of the stage it has
/// reached. If a key has its own interval, its rotation is announced after two thirds of that.
static PAGE: Statement = Statement::new(
    "WITH page AS (
        SELECT r.project_id, r.id, r.provider, r.is_active, r.active_version,
            r.active_version_created_at AS born,
            r.rotation_interval, r.rotation_required_at
        FROM watchllm.provider_key_records r
        WHERE (r.project_id, r.id) > ($1, $2) AND r.deleted_at IS NULL
        ORDER BY r.project_id, r.id LIMIT $3)
     SELECT p.project_id, p.id, p.provider, p.active_version, d.due_at,
        CASE WHEN NOT p.is_active THEN 0 WHEN d.due_at <= pg_catalog.now() THEN 2
             WHEN w.warn_at <= pg_catalog.now() THEN 1 ELSE 0 END,
        pg_catalog.floor(EXTRACT(epoch FROM pg_catalog.now() - p.born) / 86400)::int
     FROM page p
     CROSS JOIN LATERAL (SELECT LEAST(p.rotation_required_at,
         p.born + coalesce(p.rotation_interval, (
            SELECT s.value FROM watchllm.settings s
            WHERE s.name = 'rotation_required_after'
                AND (s.project_id IS NULL OR s.project_id = p.project_id)
              AND (s.provider_key_id IS NULL OR s.provider_key_id = p.id)
            ORDER BY s.provider_key_id NULLS LAST, s.project_id NULLS LAST LIMIT 1)::interval,
        pg_catalog.make_interval(mins => $5))) AS due_at OFFSET 0) d
     CROSS JOIN LATERAL (SELECT p.born + coalesce(p.rotation_interval * (2.0 / 3)::float8, (
            SELECT s.value FROM watchllm.settings s
            WHERE s.name = 'rotation_warn_after'
                AND (s.project_id IS NULL OR s.project_id = p.project_id)
              AND (s.provider_key_id IS NULL OR s.provider_key_id = p.id)
            ORDER BY s.provider_key_id NULLS LAST, s.project_id NULLS LAST LIMIT 1)::interval,
        pg_catalog.make_interval(mins => $4)) AS warn_at OFFSET 0) w
     ORDER BY p.project_id, p.id",
    &[UUID, UUID, INT4, INT4, INT4],
);

/// The id alone: nothing of the row is computed, so nothing can fail.
static NEXT: Statement = Statement::new(
    "SELECT r.project_id, r.id FROM watchllm.provider_key_records r
     WHERE (r.project_id, r.id) > ($1, $2) AND r.deleted_at IS NULL
     ORDER BY r.project_id, r.id LIMIT 1",
    &[UUID, UUID],
);

static ALERTED: Statement = Statement::new(
    "INSERT INTO watchllm.provider_key_usage AS u (project_id, provider_key_id,
        last_rotation_alert_sent_at)
     VALUES ($1, $2, $3) ON CONFLICT (project_id, provider_key_id)
        DO UPDATE SET last_rotation_alert_sent_at = EXCLUDED.last_rotation_alert_sent_at",
    &[UUID, UUID, TIME],
);

static KNOWN: Statement =
    Statement::new("SELECT id FROM watchllm.security_incidents WHERE id = ANY ($1)", &[UUIDS]);

/// A key, and when its active version must be rotated.
pub(crate) struct Aged {
    pub project: ProjectId,
    pub key: ProviderKeyId,
    pub provider: ProviderSlug,
    pub version: i32,
    pub days_old: i32,
    pub due_at: Moment,
    pub stage: Option<Stage>,
}

impl Aged {
    pub(crate) fn key(&self) -> KeyRef {
        KeyRef { project: self.project, key: self.key }
    }
}

/// At most `most` keys after this one.
pub(crate) fn page(owner: Owner, after: KeyRef, most: i32) -> Vec<Aged> {
    let minutes = |setting| settings::number_of_server(setting) as i32;
    let arguments = [
        uuid(after.project).into(),
        uuid(after.key).into(),
        most.into(),
        minutes(&ROTATION_WARN_AFTER).into(),
        minutes(&ROTATION_REQUIRED_AFTER).into(),
    ];
    let rows = PAGE.read(owner, &arguments, |row| {
        let stage = match value::<i32>(row, 6) {
            2 => Some(Stage::Required),
            1 => Some(Stage::Soon),
            _ => None,
        };
        Some(Aged {
            project: id(row, 1)?,
            key: id(row, 2)?,
            provider: ProviderSlug::stored(value(row, 3)),
            version: value(row, 4),
            days_old: value(row, 7),
            due_at: moment(row, 5),
            stage,
        })
    });
    rows.into_iter().flatten().collect()
}

/// The key after this one, whatever its row holds.
pub(crate) fn next(owner: Owner, after: KeyRef) -> Option<KeyRef> {
    let arguments = [uuid(after.project).into(), uuid(after.key).into()];
    let found =
        NEXT.read(owner, &arguments, |row| Some(KeyRef { project: id(row, 1)?, key: id(row, 2)? }));
    found.into_iter().flatten().next()
}

/// Those of these incidents that exist already.
pub(crate) fn known(owner: Owner, incidents: &[IncidentId]) -> Vec<IncidentId> {
    let wanted: Vec<Uuid> = incidents.iter().copied().map(uuid).collect();
    KNOWN.read(owner, &[wanted.into()], |row| id(row, 1)).into_iter().flatten().collect()
}

/// For the writer: the alert about this key was sent.
pub(crate) fn alerted(owner: Owner, key: KeyRef, at: Moment) {
    ALERTED.write(owner, &[uuid(key.project).into(), uuid(key.key).into(), timestamp(at).into()]);
}
