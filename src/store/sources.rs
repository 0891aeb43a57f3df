//! What each source of incidents has raised today, and what was held back. The table is the
//! writer's alone and may change. Evidence are the incident that tells of the cut, and its event
//! that tells the day's count.

use super::oids::*;
use super::{timestamp, uuid};
use crate::moment::Moment;
use crate::postgres::{Owner, Statement};
use crate::trail::incident::kinds::{CutOff, cut_off_id};
use pgrx::datum::DatumWithOid;

/// No row: the source has used its budget.
static RAISE: Statement = Statement::new(
    "INSERT INTO watchllm.incident_sources AS s (day, kind, name, database, channel, project_id,
        raised)
     VALUES ('1970-01-01'::date + $1, $2, $3, $4, $5, $6, 1)
     ON CONFLICT (day, kind, name, database, channel)
        DO UPDATE SET raised = s.raised + 1 WHERE s.raised < $7",
    &[INT4, TEXT, TEXT, TEXT, TEXT, UUID, INT4],
);

static HOLD: Statement = Statement::new(
    "INSERT INTO watchllm.incident_sources AS s (day, kind, name, database, channel, project_id,
        held_back, cut_off_at, last_at, incident_id)
     VALUES ('1970-01-01'::date + $1, $2, $3, $4, $5, $6, $7, $8, $8, $9)
     ON CONFLICT (day, kind, name, database, channel) DO UPDATE SET
        held_back = CASE WHEN $10 THEN GREATEST(s.held_back, EXCLUDED.held_back)
            ELSE s.held_back + EXCLUDED.held_back END,
        cut_off_at = coalesce(s.cut_off_at, EXCLUDED.cut_off_at), last_at = EXCLUDED.last_at,
        incident_id = coalesce(s.incident_id, EXCLUDED.incident_id)",
    &[INT4, TEXT, TEXT, TEXT, TEXT, UUID, INT8, TIME, UUID, BOOL],
);

static CLOSE: Statement = Statement::new(
    "WITH over AS (
        UPDATE watchllm.incident_sources SET closed_at = $2
        WHERE closed_at IS NULL AND held_back > 0 AND day < '1970-01-01'::date + $1
        RETURNING incident_id, project_id, held_back, last_at)
     INSERT INTO watchllm.incident_events (id, incident_id, project_id, event, note, by, at)
     SELECT pg_catalog.gen_random_uuid(), o.incident_id, o.project_id, 'ended',
        pg_catalog.format('%s held back in all, the last at %s UTC', o.held_back,
            o.last_at AT TIME ZONE 'UTC'),
        'watchllm_keys', $2
     FROM over o",
    &[INT4, TIME],
);

static FORGET: Statement = Statement::new(
    "DELETE FROM watchllm.incident_sources WHERE day < '1970-01-01'::date + $1",
    &[INT4],
);

/// For the writer: takes one of a source's budget of a day. False: none is left.
pub(crate) fn raise(owner: Owner, source: &CutOff) -> bool {
    let [day, kind, name, database, channel, project] = key(source);
    let most = (source.budget as i32).into();
    RAISE.write(owner, &[day, kind, name, database, channel, project, most]) > 0
}

/// For the writer: counts what was held back. `is_total`: the number is all of the day, not more.
pub(crate) fn hold(owner: Owner, source: &CutOff, is_total: bool, at: Moment) {
    let [day, kind, name, database, channel, project] = key(source);
    let (count, at) = (source.held_back.into(), timestamp(at).into());
    let incident = uuid(cut_off_id(source)).into();
    let arguments =
        [day, kind, name, database, channel, project, count, at, incident, is_total.into()];
    HOLD.write(owner, &arguments);
}

/// For the writer: tells of each source that was cut off before this day how much was held back.
pub(crate) fn close(owner: Owner, day: i32, at: Moment) {
    CLOSE.write(owner, &[day.into(), timestamp(at).into()]);
}

/// For the writer: deletes what is older than this day.
pub(crate) fn forget(owner: Owner, day: i32) {
    FORGET.write(owner, &[day.into()]);
}

fn key<'a>(source: &CutOff<'a>) -> [DatumWithOid<'a>; 6] {
    [
        source.day.into(),
        source.kind.into(),
        source.name.shown().into(),
        source.database.shown().into(),
        source.channel.into(),
        source.project.map(uuid).into(),
    ]
}
