//! A key's own past as it is stored with its counters: for the watch, which reads it when it sees a
//! key first and stores it with each count. Also what an earlier writer flagged, and the trail
//! forwards, for a vault whose past nobody has counted yet.

use super::oids::*;
use super::watch::{Past, key, past_of};
use super::{moment, timestamp, uuid};
use crate::anomaly::{Busiest, DAYS, Detector, KeyPast};
use crate::id::KeyRef;
use crate::moment::Moment;
use crate::postgres::{Owner, Row, Statement};
use pgrx::datum::{TimestampWithTimeZone, Uuid};
use std::collections::HashMap;

/// What a clock that stood wrong left behind, or anybody but the writer, is passed over.
static STORED: Statement = Statement::new(
    "SELECT u.project_id, u.provider_key_id,
        CASE WHEN u.used_since BETWEEN '1970-01-01' AND t.day
             THEN u.used_since - '1970-01-01'::date END,
        CASE WHEN u.busiest_on BETWEEN '1970-01-01' AND t.day + 1
             THEN u.busiest_on - '1970-01-01'::date END,
        CASE WHEN pg_catalog.array_ndims(u.busiest_minute) = 1 THEN u.busiest_minute END,
        CASE WHEN pg_catalog.array_ndims(u.busiest_hour) = 1 THEN u.busiest_hour END,
        CASE WHEN pg_catalog.array_ndims(u.busiest_day) = 1 THEN u.busiest_day END
     FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS e (project_id, key_id)
     JOIN watchllm.provider_key_usage u ON u.project_id = e.project_id
         AND u.provider_key_id = e.key_id
     CROSS JOIN (SELECT (pg_catalog.now() AT TIME ZONE 'UTC')::date AS day OFFSET 0) AS t
     WHERE u.used_since IS NOT NULL",
    &[UUIDS, UUIDS],
);

/// Whether any writer has counted on an earlier day.
static IS_COUNTED: Statement = Statement::new(
    "SELECT true FROM watchllm.provider_key_usage u
     WHERE u.busiest_on < (pg_catalog.now() AT TIME ZONE 'UTC')::date
         OR 0 < ANY (u.busiest_day[2:8])
     LIMIT 1",
    &[],
);

/// Episodes of keys since a time, with their ends; an open one ends never.
static FLAGGED: Statement = Statement::new(
    "SELECT i.project_id, i.provider_key_id, i.detected_at, (
        SELECT pg_catalog.min(e.at) FROM watchllm.incident_events e
        WHERE e.incident_id = i.id AND e.event = 'ended')
     FROM watchllm.security_incidents i
     WHERE i.detected_at > $1 - '30 days'::interval AND i.type = ANY ($2)
         AND i.project_id IS NOT NULL AND i.provider_key_id IS NOT NULL
     ORDER BY i.detected_at DESC LIMIT $3",
    &[TIME, TEXTS, INT8],
);

/// The trail forwards from a place in it: a number of rows.
static FORWARDS: Statement = Statement::new(
    concat!(
        super::watch::past_columns!(),
        "WHERE l.accessed_at >= $1 AND l.accessed_at <= $2
             AND (l.accessed_at, l.epoch, l.queue_seq) > ($1, $3, $4)
         ORDER BY l.accessed_at, l.epoch, l.queue_seq LIMIT $6"
    ),
    &[TIME, TIME, INT8, INT8, INT8, INT8],
);

/// The most episodes that are read: of a week with more, the oldest count as no episodes.
const MAX_FLAGGED: i64 = 100_000;

/// Times in which a key had an open episode.
pub(crate) type Flagged = HashMap<KeyRef, Vec<(Moment, Moment)>>;

/// What is stored of these keys; keys without anything are left out.
pub(crate) fn of_keys(owner: Owner, keys: &[KeyRef]) -> HashMap<KeyRef, KeyPast> {
    let column = |part: fn(&KeyRef) -> Uuid| keys.iter().map(part).collect::<Vec<Uuid>>();
    let arguments = [column(|key| uuid(key.project)).into(), column(|key| uuid(key.key)).into()];
    let rows = STORED.read(owner, &arguments, |row| Some((key(row, 1, 2)?, read(row)?)));
    rows.into_iter().flatten().collect()
}

fn read(row: &Row) -> Option<KeyPast> {
    let mut past = KeyPast { since: Some(row.get(3)?), ..KeyPast::default() };
    if let Some(newest) = row.get(4) {
        past.newest = newest;
        for (place, column) in (5..).take(Detector::OF_THE_PAST.len()).enumerate() {
            let counts: Vec<Option<i32>> = row.get(column).unwrap_or_default();
            for (busiest, count) in past.busiest.iter_mut().zip(counts) {
                busiest[place] = count.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
            }
        }
    }
    Some(past)
}

/// The counts of one detector as SQL writes an array of eight days.
pub(super) fn written(past: &KeyPast, place: usize) -> String {
    let count = |day: &Busiest| day[place].min(i32::MAX as u32).to_string();
    let days: [String; DAYS] = past.busiest.each_ref().map(count);
    format!("{{{}}}", days.join(","))
}

/// Whether any writer has counted on an earlier day.
pub(crate) fn is_counted(owner: Owner) -> bool {
    !IS_COUNTED.read(owner, &[], |_| ()).is_empty()
}

/// When each key had an open episode, as far as that reaches beyond `since`.
pub(crate) fn flagged(owner: Owner, since: Moment) -> Flagged {
    let of_keys = Detector::ALL.iter().filter(|detector| detector.counts_keys());
    let names: Vec<&str> = of_keys.map(|detector| detector.word()).collect();
    let arguments = [timestamp(since).into(), names.into(), MAX_FLAGGED.into()];
    let mut flagged = Flagged::new();
    let episodes = FLAGGED.read(owner, &arguments, |row| {
        let ended = row.get::<TimestampWithTimeZone>(4).map(|_| moment(row, 4));
        let ended = ended.unwrap_or(Moment::LATEST);
        Some((key(row, 1, 2)?, (moment(row, 3), ended)))
    });
    for (key, episode) in episodes.into_iter().flatten().filter(|(_, (_, ended))| *ended > since) {
        flagged.entry(key).or_default().push(episode);
    }
    flagged
}

/// Rows of the trail after a place in it, the oldest first. `until` is the last sequence to read.
pub(crate) fn forwards(
    owner: Owner,
    after: (Moment, i64, i64),
    last: Moment,
    until: i64,
    most: i64,
) -> Vec<Past> {
    let (at, epoch, queue_seq) = after;
    let arguments = [
        timestamp(at).into(),
        timestamp(last).into(),
        epoch.into(),
        queue_seq.into(),
        until.into(),
        most.into(),
    ];
    FORWARDS.read(owner, &arguments, past_of)
}
