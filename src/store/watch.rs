//! What the watch keeps in tables: blocks, busiest minutes of callers, first uses of a key by a
//! caller. Also what a new writer reads back. Only the writer uses these rows, and no caller can
//! lock one.

use super::oids::*;
use super::{id, moment, timestamp, uuid, value};
use crate::anomaly::{Detector, KeyAccess, Meeting, Peak, Subject, WatchFinding};
use crate::id::{IncidentId, KeyRef};
use crate::input::NamedCaller;
use crate::moment::Moment;
use crate::postgres::{Owner, Row, Statement};
use crate::trail::{AccessType, CallerKind, Counted};
use pgrx::datum::{TimestampWithTimeZone, Uuid};

static BLOCKED_KEYS: Statement = Statement::new(
    "SELECT project_id, provider_key_id FROM watchllm.provider_key_usage
        WHERE blocked_at IS NOT NULL",
    &[],
);

static BLOCKED_CALLERS: Statement =
    Statement::new("SELECT kind, subject FROM watchllm.blocked_callers", &[]);

static PEAKS: Statement = Statement::new(
    "SELECT kind, subject, day - '1970-01-01'::date, distinct_keys FROM watchllm.caller_peaks
     WHERE day > (pg_catalog.now() AT TIME ZONE 'UTC')::date - 8
         AND day <= (pg_catalog.now() AT TIME ZONE 'UTC')::date + 1
     ORDER BY day",
    &[],
);

/// A day's window is half empty after at most a day.
static OPEN_EPISODES: Statement = Statement::new(
    "SELECT i.id, i.type, i.project_id, i.provider_key_id, i.details ->> 'kind',
        i.details ->> 'subject', i.detected_at
     FROM watchllm.security_incidents i
     WHERE i.detected_at > pg_catalog.now() - '30 days'::interval
         AND i.detected_at < pg_catalog.now() + '1 day'::interval
       AND i.type = ANY ($1)
       AND NOT EXISTS (SELECT FROM watchllm.incident_events e
           WHERE e.incident_id = i.id AND e.event = 'ended')",
    &[TEXTS],
);

/// What is read of the trail to count it. `$5`: later rows than this sequence count for nothing.
macro_rules! past_columns {
    () => {
        "SELECT l.accessed_at, l.epoch, l.queue_seq,
        CASE WHEN l.seq > $5 THEN NULL
             WHEN watchllm.counts_as('access', l.access_type, l.success, l.failure_reason)
             THEN 'access'
             WHEN watchllm.counts_as('failure', l.access_type, l.success, l.failure_reason)
             THEN 'failure' END,
        l.access_type, l.project_id, l.provider_key_id, l.session_role,
        CASE WHEN l.claims_trusted THEN l.claims_sub END, pg_catalog.host(l.client_addr),
        CASE WHEN l.seq > $5 OR NOT l.success THEN NULL WHEN l.access_type = 'block' THEN true
            WHEN l.access_type = 'unblock' AND EXISTS (
                SELECT FROM watchllm.committed_changes c WHERE c.event_id = l.id) THEN false END,
        l.success
     FROM watchllm.provider_key_access_logs l "
    };
}
pub(super) use past_columns;

/// The trail backwards from a place in it: a number of rows, whatever they are.
static PAST: Statement = Statement::new(
    concat!(
        past_columns!(),
        "WHERE l.accessed_at >= $1 AND l.accessed_at <= $2
             AND (l.accessed_at, l.epoch, l.queue_seq) < ($2, $3, $4)
         ORDER BY l.accessed_at DESC, l.epoch DESC, l.queue_seq DESC LIMIT $6"
    ),
    &[TIME, TIME, INT8, INT8, INT8, INT8],
);

static DETECTED: Statement = Statement::new(
    "INSERT INTO watchllm.provider_key_usage AS u (project_id, provider_key_id,
        access_anomaly_detected_at)
     VALUES ($1, $2, $3)
     ON CONFLICT (project_id, provider_key_id) DO UPDATE SET
        access_anomaly_detected_at = GREATEST(u.access_anomaly_detected_at,
            EXCLUDED.access_anomaly_detected_at)",
    &[UUID, UUID, TIME],
);

static BLOCK_CALLER: Statement = Statement::new(
    "INSERT INTO watchllm.blocked_callers (kind, subject, blocked_at, incident_id)
        VALUES ($1, $2, $3, $4)
     ON CONFLICT (kind, subject) DO NOTHING",
    &[TEXT, TEXT, TIME, UUID],
);

static UNBLOCK_CALLER: Statement = Statement::new(
    "DELETE FROM watchllm.blocked_callers WHERE kind = $1 AND subject = $2",
    &[TEXT, TEXT],
);

static IS_BLOCKED: Statement = Statement::new(
    "SELECT incident_id FROM watchllm.blocked_callers WHERE kind = $1 AND subject = $2",
    &[TEXT, TEXT],
);

static SAVE_PEAKS: Statement = Statement::new(
    "INSERT INTO watchllm.caller_peaks AS p (kind, subject, day, distinct_keys)
     SELECT e.kind, e.subject, '1970-01-01'::date + e.day, e.distinct_keys
     FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
         pg_catalog.unnest($4))
        AS e (kind, subject, day, distinct_keys)
     ON CONFLICT (kind, subject, day)
         DO UPDATE SET distinct_keys = GREATEST(p.distinct_keys, EXCLUDED.distinct_keys)",
    &[TEXTS, TEXTS, INT4S, INT4S],
);

/// Answers the callers that are new to a key which somebody used a week ago already. It sees the
/// table as it was before.
static MEET: Statement = Statement::new(
    "WITH met AS (
        INSERT INTO watchllm.provider_key_callers AS c
            (project_id, provider_key_id, kind, subject, first_seen_at, last_seen_at)
        SELECT e.project_id, e.key_id, e.kind, e.subject, e.at, e.at
        FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
            pg_catalog.unnest($4),
            pg_catalog.unnest($5)) AS e (project_id, key_id, kind, subject, at)
        ON CONFLICT (project_id, provider_key_id, kind, subject)
            DO UPDATE SET last_seen_at = GREATEST(c.last_seen_at, EXCLUDED.last_seen_at)
        RETURNING c.project_id, c.provider_key_id, c.kind, c.subject, c.first_seen_at)
     SELECT m.project_id, m.provider_key_id, m.kind, m.subject, m.first_seen_at
     FROM met m
     WHERE m.kind IN ('role', 'address')
       AND NOT EXISTS (
            SELECT FROM watchllm.provider_key_callers k
            WHERE k.project_id = m.project_id AND k.provider_key_id = m.provider_key_id
                AND k.kind = m.kind
              AND k.subject = m.subject)
       AND EXISTS (
            SELECT FROM watchllm.provider_key_callers k
            WHERE k.project_id = m.project_id AND k.provider_key_id = m.provider_key_id
              AND k.first_seen_at <= m.first_seen_at - '7 days'::interval)",
    &[UUIDS, UUIDS, TEXTS, TEXTS, TIMES],
);

/// When each of these keys was last used before its present use. If it never was, when it was
/// stored.
static LAST_USED: Statement = Statement::new(
    "SELECT r.project_id, r.id, coalesce(u.last_used_at, r.created_at)
     FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS e (project_id, key_id)
     JOIN watchllm.provider_key_records r ON r.project_id = e.project_id AND r.id = e.key_id
     LEFT JOIN watchllm.provider_key_usage u ON u.project_id = r.project_id
         AND u.provider_key_id = r.id",
    &[UUIDS, UUIDS],
);

/// Who used a key within a time, most often first. This is evidence for the staff.
static CALLERS: Statement = Statement::new(
    "SELECT pg_catalog.count(*), l.session_role, CASE WHEN l.claims_trusted THEN l.claims_sub END,
        pg_catalog.host(l.client_addr), l.failure_reason
     FROM watchllm.provider_key_access_logs l
     WHERE l.project_id = $1 AND l.provider_key_id = $2 AND l.accessed_at BETWEEN $3 AND $4
       AND l.access_type IN ('decrypt', 'validate')
     GROUP BY 2, 3, 4, 5 ORDER BY 1 DESC LIMIT 5",
    &[UUID, UUID, TIME, TIME],
);

/// A row of the trail as the counters read it, and its place.
pub(crate) struct Past {
    pub place: (Moment, i64, i64),
    access: Option<(KeyRef, AccessType, Counted)>,
    pub success: bool,
    callers: [Option<String>; 3],
    /// The key that somebody blocked here (true), or let in again.
    pub block: Option<(KeyRef, bool)>,
}

impl Past {
    /// The access, if the row is one of a caller with the right.
    pub(crate) fn access(&self) -> Option<KeyAccess<'_>> {
        let callers = [0, 1, 2].map(|kind| self.callers[kind].as_deref());
        let (key, access_type, counted) = self.access?;
        Some(KeyAccess { at: self.place.0, key, access_type, counted, callers })
    }
}

pub(crate) fn blocked_keys(owner: Owner) -> Vec<KeyRef> {
    let rows = BLOCKED_KEYS.read(owner, &[], |row| key(row, 1, 2));
    rows.into_iter().flatten().collect()
}

pub(crate) fn blocked_callers(owner: Owner) -> Vec<(CallerKind, String)> {
    BLOCKED_CALLERS
        .read(owner, &[], |row| Some((kind(row, 1)?, value(row, 2))))
        .into_iter()
        .flatten()
        .collect()
}

pub(crate) fn peaks(owner: Owner) -> Vec<Peak> {
    let peak = |row: &Row| {
        let subject = value::<String>(row, 2).into();
        Some(Peak {
            kind: kind(row, 1)?,
            subject,
            day: value(row, 3),
            distinct_keys: value::<i32>(row, 4) as u32,
        })
    };
    PEAKS.read(owner, &[], peak).into_iter().flatten().collect()
}

/// Episodes that no writer has ended: detector, subject, incident, beginning.
pub(crate) fn open_episodes(owner: Owner) -> Vec<(Detector, Subject, IncidentId, Moment)> {
    let lasting = Detector::ALL.iter().filter(|detector| detector.window().is_some());
    let names: Vec<&str> = lasting.map(|detector| detector.word()).collect();
    let episode = |row: &Row| {
        let name: String = value(row, 2);
        let detector = Detector::find(&name)?;
        let subject = match key(row, 3, 4) {
            Some(key) => Subject::Key(key),
            None => Subject::Caller(kind(row, 5)?, value::<String>(row, 6).into()),
        };
        Some((detector, subject, id(row, 1)?, moment(row, 7)))
    };
    OPEN_EPISODES.read(owner, &[names.into()], episode).into_iter().flatten().collect()
}

/// Rows of the trail before a place in it, the newest first. `until` is the last sequence to read.
pub(crate) fn past(
    owner: Owner,
    since: Moment,
    before: (Moment, i64, i64),
    until: i64,
    most: i64,
) -> Vec<Past> {
    let (at, epoch, queue_seq) = before;
    let arguments = [
        timestamp(since).into(),
        timestamp(at).into(),
        epoch.into(),
        queue_seq.into(),
        until.into(),
        most.into(),
    ];
    PAST.read(owner, &arguments, past_of)
}

/// A row of `past_columns`.
pub(super) fn past_of(row: &Row) -> Past {
    let access = || Some((key(row, 6, 7)?, access_type(row, 5)?, counted(row, 4)?));
    Past {
        place: (moment(row, 1), value(row, 2), value(row, 3)),
        access: access(),
        success: value(row, 12),
        callers: [row.get(8), row.get(9), row.get(10)],
        block: row.get(11).and_then(|is_block| Some((key(row, 6, 7)?, is_block))),
    }
}

fn counted(row: &Row, column: i32) -> Option<Counted> {
    let word: String = row.get(column)?;
    Counted::ALL.iter().copied().find(|counted| counted.word() == word)
}

fn access_type(row: &Row, column: i32) -> Option<AccessType> {
    let word: String = row.get(column)?;
    AccessType::ALL.iter().copied().find(|access_type| access_type.word() == word)
}

/// For the writer: an anomaly of this key was detected.
pub(crate) fn detected(owner: Owner, key: KeyRef, at: Moment) {
    DETECTED.write(owner, &[uuid(key.project).into(), uuid(key.key).into(), timestamp(at).into()]);
}

/// For the writer: blocks a caller because of an incident.
pub(crate) fn block_caller(owner: Owner, kind: CallerKind, subject: &str, finding: &WatchFinding) {
    let arguments = [
        kind.word().into(),
        subject.into(),
        timestamp(finding.began).into(),
        uuid(finding.incident).into(),
    ];
    BLOCK_CALLER.write(owner, &arguments);
}

/// For the writer: lets a caller in again.
pub(crate) fn unblock_caller(owner: Owner, kind: CallerKind, subject: &str) {
    UNBLOCK_CALLER.write(owner, &[kind.word().into(), subject.into()]);
}

/// Whether a caller is blocked, and because of which incident.
pub(crate) fn is_blocked(owner: Owner, caller: &NamedCaller) -> Option<Option<IncidentId>> {
    let arguments = [caller.kind().word().into(), caller.subject().into()];
    IS_BLOCKED.read(owner, &arguments, |row| id(row, 1)).pop()
}

/// For the writer: stores busiest minutes that rose.
pub(crate) fn save_peaks(owner: Owner, peaks: &[Peak]) {
    let arguments = [
        peaks.iter().map(|peak| peak.kind.word()).collect::<Vec<&str>>().into(),
        peaks.iter().map(|peak| &*peak.subject).collect::<Vec<&str>>().into(),
        peaks.iter().map(|peak| peak.day).collect::<Vec<i32>>().into(),
        peaks.iter().map(|peak| peak.distinct_keys as i32).collect::<Vec<i32>>().into(),
    ];
    SAVE_PEAKS.write(owner, &arguments);
}

/// For the writer: stores which caller used which key. Answers the callers that are new to a key
/// which has been in use for a week. No two meetings may be of the same caller and key.
pub(crate) fn save_meetings(owner: Owner, meetings: &[Meeting]) -> Vec<Meeting> {
    let times: Vec<Option<TimestampWithTimeZone>> =
        meetings.iter().map(|meeting| timestamp(meeting.at)).collect();
    let arguments = [
        meetings.iter().map(|meeting| uuid(meeting.key.project)).collect::<Vec<Uuid>>().into(),
        meetings.iter().map(|meeting| uuid(meeting.key.key)).collect::<Vec<Uuid>>().into(),
        meetings.iter().map(|meeting| meeting.kind.word()).collect::<Vec<&str>>().into(),
        meetings.iter().map(|meeting| &*meeting.subject).collect::<Vec<&str>>().into(),
        times.into(),
    ];
    let new = |row: &Row| {
        let subject = value::<String>(row, 4).into();
        Some(Meeting { key: key(row, 1, 2)?, kind: kind(row, 3)?, subject, at: moment(row, 5) })
    };
    MEET.write_each(owner, &arguments, new).into_iter().flatten().collect()
}

/// When each of these keys was last used, leaving out what is not counted yet. If it never was,
/// when it was stored.
pub(crate) fn last_used(owner: Owner, keys: &[KeyRef]) -> Vec<(KeyRef, Moment)> {
    let column = |part: fn(&KeyRef) -> Uuid| keys.iter().map(part).collect::<Vec<Uuid>>();
    let arguments = [column(|key| uuid(key.project)).into(), column(|key| uuid(key.key)).into()];
    let rows = LAST_USED.read(owner, &arguments, |row| Some((key(row, 1, 2)?, moment(row, 3))));
    rows.into_iter().flatten().collect()
}

/// Who used a key within a time, in words.
pub(crate) fn callers(owner: Owner, key: KeyRef, since: Moment, until: Moment) -> Vec<String> {
    let arguments = [
        uuid(key.project).into(),
        uuid(key.key).into(),
        timestamp(since).into(),
        timestamp(until).into(),
    ];
    CALLERS.read(owner, &arguments, |row| {
        let named = |column: i32, word: &str| {
            row.get::<String>(column).map(|name| format!(" {word} {name}")).unwrap_or_default()
        };
        let times: i64 = value(row, 1);
        let who =
            [named(2, "role"), named(3, "subject"), named(4, "from"), named(5, "failed:")].concat();
        format!("{times} x{who}")
    })
}

/// The key that these two columns name.
pub(super) fn key(row: &Row, project: i32, key: i32) -> Option<KeyRef> {
    Some(KeyRef { project: id(row, project)?, key: id(row, key)? })
}

fn kind(row: &Row, column: i32) -> Option<CallerKind> {
    let word: String = row.get(column)?;
    CallerKind::ALL.iter().copied().find(|kind| kind.word() == word)
}
