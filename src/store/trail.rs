//! The audit trail as the writer writes it: one multi-row INSERT, where the chain stopped,
//! partitions, counters. The INSERTs' columns stand in table order, as they are hashed: `COLUMNS`.

use super::oids::*;
use super::{id, past, timestamp, uuid, value};
use crate::anomaly::KeyPast;
use crate::id::{EventId, KeyRef, ProjectId};
use crate::moment::Moment;
use crate::postgres::{Owner, Statement};
use crate::trail::{COLUMNS, ColumnValue, FailureReason, KeyVersion, TrailRow};
use pgrx::datum::{Date, DatumWithOid, TimestampWithTimeZone, Uuid};
use pgrx::pg_sys;

/// One row: most batches of a quiet server. A plan without unnest() is 1.3 times as fast. Both
/// texts are what `COLUMNS` says, in its order; a test compares them.
const INSERT_ONE: &str = "INSERT INTO watchllm.provider_key_access_logs VALUES (
        $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19,
        $20::pg_catalog.inet, $21, $22, $23::pg_catalog.text::pg_catalog.xid8, $24, $25, $26,
        $27, $28)";

const INSERT_MANY: &str = "INSERT INTO watchllm.provider_key_access_logs
     SELECT
        e.c1, e.c2, e.c3, e.c4, e.c5, e.c6, e.c7, e.c8, e.c9, e.c10, e.c11, e.c12, e.c13, e.c14,
        e.c15, e.c16, e.c17, e.c18, e.c19, e.c20::pg_catalog.inet, e.c21, e.c22,
        e.c23::pg_catalog.text::pg_catalog.xid8, e.c24, e.c25, e.c26, e.c27, e.c28
     FROM ROWS FROM (
        pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
        pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6),
        pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9),
        pg_catalog.unnest($10), pg_catalog.unnest($11), pg_catalog.unnest($12),
        pg_catalog.unnest($13), pg_catalog.unnest($14), pg_catalog.unnest($15),
        pg_catalog.unnest($16), pg_catalog.unnest($17), pg_catalog.unnest($18),
        pg_catalog.unnest($19), pg_catalog.unnest($20), pg_catalog.unnest($21),
        pg_catalog.unnest($22), pg_catalog.unnest($23), pg_catalog.unnest($24),
        pg_catalog.unnest($25), pg_catalog.unnest($26), pg_catalog.unnest($27),
        pg_catalog.unnest($28))
        AS e (
        c1, c2, c3, c4, c5, c6, c7, c8, c9, c10, c11, c12, c13, c14, c15, c16, c17, c18,
        c19, c20, c21, c22, c23, c24, c25, c26, c27, c28)";

static APPEND_ONE: Statement = Statement::new(INSERT_ONE, &ONE);
static APPEND: Statement = Statement::new(INSERT_MANY, &MANY);

/// The types of a row's arguments, and of the arrays of many rows.
const ONE: [pg_sys::Oid; COLUMNS.len()] = types(false);
const MANY: [pg_sys::Oid; COLUMNS.len()] = types(true);

const fn types(many: bool) -> [pg_sys::Oid; COLUMNS.len()] {
    let mut types = [pg_sys::InvalidOid; COLUMNS.len()];
    let mut at = 0;
    while at < types.len() {
        let (one, array) = match COLUMNS[at].cell {
            // a number that a cast makes a transaction id of: it has no type of its own in Rust
            ColumnValue::Bigint(_) | ColumnValue::Xid8(_) => (INT8, INT8S),
            ColumnValue::Integer(_) => (INT4, INT4S),
            ColumnValue::Boolean(_) => (BOOL, BOOLS),
            ColumnValue::Uuid(_) => (UUID, UUIDS),
            ColumnValue::Timestamptz(_) => (TIME, TIMES),
            ColumnValue::Text(_) | ColumnValue::Inet(_) => (TEXT, TEXTS),
            ColumnValue::Hash => (BYTEA, BYTEAS),
        };
        types[at] = if many { array } else { one };
        at += 1;
    }
    types
}

static LAST: Statement = Statement::new(
    "SELECT seq, hash, epoch, queue_seq FROM watchllm.provider_key_access_logs
     ORDER BY seq DESC LIMIT 1",
    &[],
);

static REFUSED: Statement = Statement::new(
    "SELECT queue_seq, failure_reason FROM watchllm.provider_key_access_logs
     WHERE accessed_at >= $1 AND epoch = $2 AND queue_seq >= $3 AND NOT success",
    &[TIME, INT8, INT8],
);

static MAKE_PARTITION: Statement =
    Statement::new("SELECT watchllm.make_log_partition($1)", &[pg_sys::DATEOID]);

static COMMITTED: Statement = Statement::new(
    "INSERT INTO watchllm.committed_changes (event_id, project_id) VALUES ($1, $2)",
    &[UUID, UUID],
);

/// Half-hour buckets, newest first: what has passed since `bucket_start` is shifted in as zeros.
/// A key's past comes whole from the watch, or not at all.
static COUNT_USE: Statement = Statement::new(
    "INSERT INTO watchllm.provider_key_usage AS u
        (project_id, provider_key_id, access_count, failure_count, bucket_start, accesses, failures,
         last_used_at, used_since, busiest_on, busiest_minute, busiest_hour, busiest_day)
     SELECT e.project_id, e.key_id, e.accesses, e.failures,
        CASE WHEN e.accesses + e.failures > 0 THEN b.now_bucket END,
        ARRAY[e.accesses::int] || pg_catalog.array_fill(0, ARRAY[47]),
        ARRAY[e.failures::int] || pg_catalog.array_fill(0, ARRAY[47]), e.last_used_at,
        '1970-01-01'::date + e.used_since, '1970-01-01'::date + e.busiest_on,
        e.busiest_minute::int[], e.busiest_hour::int[], e.busiest_day::int[]
     FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
        pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6),
        pg_catalog.unnest($7), pg_catalog.unnest($8), pg_catalog.unnest($9),
        pg_catalog.unnest($10))
        AS e (project_id, key_id, accesses, failures, last_used_at, used_since, busiest_on,
            busiest_minute, busiest_hour, busiest_day),
        (SELECT pg_catalog.date_bin('30 minutes', pg_catalog.now(), '2000-01-01Z')
            AS now_bucket) AS b
     ON CONFLICT (project_id, provider_key_id) DO UPDATE SET
        access_count = u.access_count + EXCLUDED.access_count,
        failure_count = u.failure_count + EXCLUDED.failure_count,
        accesses = (SELECT ARRAY[s.a[1] + EXCLUDED.accesses[1]] || s.a[2:48]
            FROM (SELECT (pg_catalog.array_fill(0, ARRAY[LEAST(48, GREATEST(0,
                EXTRACT(epoch FROM EXCLUDED.bucket_start - u.bucket_start)::bigint / 1800))::int])
            || u.accesses)[1:48] AS a) AS s),
        failures = (SELECT ARRAY[s.f[1] + EXCLUDED.failures[1]] || s.f[2:48]
            FROM (SELECT (pg_catalog.array_fill(0, ARRAY[LEAST(48, GREATEST(0,
                EXTRACT(epoch FROM EXCLUDED.bucket_start - u.bucket_start)::bigint / 1800))::int])
            || u.failures)[1:48] AS f) AS s),
        bucket_start = GREATEST(u.bucket_start, EXCLUDED.bucket_start),
        last_used_at = GREATEST(u.last_used_at, EXCLUDED.last_used_at),
        used_since = coalesce(EXCLUDED.used_since, u.used_since),
        busiest_on = coalesce(EXCLUDED.busiest_on, u.busiest_on),
        busiest_minute = coalesce(EXCLUDED.busiest_minute, u.busiest_minute),
        busiest_hour = coalesce(EXCLUDED.busiest_hour, u.busiest_hour),
        busiest_day = coalesce(EXCLUDED.busiest_day, u.busiest_day)",
    &[UUIDS, UUIDS, INT8S, INT8S, TIMES, INT4S, INT4S, TEXTS, TEXTS, TEXTS],
);

static BLOCK: Statement = Statement::new(
    "INSERT INTO watchllm.provider_key_usage AS u (project_id, provider_key_id, blocked_at)
     VALUES ($1, $2, $3) ON CONFLICT (project_id, provider_key_id)
     DO UPDATE SET blocked_at = coalesce(u.blocked_at, EXCLUDED.blocked_at)",
    &[UUID, UUID, TIME],
);

static UNBLOCK: Statement = Statement::new(
    "UPDATE watchllm.provider_key_usage SET blocked_at = NULL
     WHERE project_id = $1 AND provider_key_id = $2",
    &[UUID, UUID],
);

/// NULL is a transaction so old that nobody knows its end.
static ENDED: Statement = Statement::new(
    "SELECT t.id, s.status = 'committed'
     FROM pg_catalog.unnest($1) AS t (id)
        CROSS JOIN LATERAL pg_catalog.pg_xact_status(
            t.id::pg_catalog.text::pg_catalog.xid8) AS s (status)
     WHERE s.status IS DISTINCT FROM 'in progress'",
    &[INT8S],
);

/// Keys stored within the last minutes, whose values an earlier writer may not have asked about.
static STORED_LATELY: Statement = Statement::new(
    "SELECT l.txid::pg_catalog.text::pg_catalog.int8, l.project_id, l.provider_key_id,
        l.key_version
     FROM watchllm.provider_key_access_logs l
     WHERE l.accessed_at > pg_catalog.now() - '10 minutes'::interval AND l.success
        AND l.access_type IN ('store', 'rotate', 'import') AND l.txid IS NOT NULL
     ORDER BY l.accessed_at DESC LIMIT 10000",
    &[],
);

static CLIENT_ADDRESS: Statement =
    Statement::new("SELECT pg_catalog.host(pg_catalog.inet_client_addr())", &[]);

/// Where the chain stopped.
pub(crate) struct Last {
    pub seq: i64,
    pub hash: [u8; 32],
    pub epoch: i64,
    pub queue_seq: i64,
}

/// The last day that a past is stored of, in the year 5000: a date of SQL, whatever the clock said.
const MAX_DAY: i32 = 1_100_000;

/// Uses of one key since the last count. `last_used_at`: of the last successful access.
pub(crate) struct Uses {
    pub key: KeyRef,
    pub accesses: i64,
    pub failures: i64,
    pub last_used_at: Option<Moment>,
    /// Its own past as the watch knows it. None: what is stored stays.
    pub past: Option<KeyPast>,
}

/// Appends a batch; its rows are chained and carry their hashes.
pub(crate) fn append(owner: Owner, rows: &[(TrailRow<'_>, [u8; 32])]) -> u64 {
    match rows {
        [] => 0,
        [row] => append_one(owner, row),
        rows => append_many(owner, rows),
    }
}

/// The client's address, None over a Unix socket.
pub(crate) fn client_address() -> Option<String> {
    CLIENT_ADDRESS.read_as_caller(&[], |row| row.get(1)).pop().flatten()
}

/// A row with its hash.
type HashedRow<'a> = (TrailRow<'a>, [u8; 32]);

fn append_one(owner: Owner, row: &HashedRow) -> u64 {
    let arguments: Vec<DatumWithOid> =
        COLUMNS.iter().map(|column| argument(column.cell, row)).collect();
    APPEND_ONE.write(owner, &arguments)
}

fn append_many(owner: Owner, rows: &[HashedRow]) -> u64 {
    let arguments: Vec<DatumWithOid> =
        COLUMNS.iter().map(|column| array(column.cell, rows)).collect();
    APPEND.write(owner, &arguments)
}

/// What a row has in a column.
fn argument<'a>(cell: ColumnValue, (row, hash): &'a HashedRow) -> DatumWithOid<'a> {
    match cell {
        ColumnValue::Bigint(get) => get(row).into(),
        ColumnValue::Integer(get) => get(row).into(),
        ColumnValue::Boolean(get) => get(row).into(),
        ColumnValue::Uuid(get) => get(row).map(Uuid::from_bytes).into(),
        ColumnValue::Timestamptz(get) => timestamp(get(row)).into(),
        ColumnValue::Text(get) | ColumnValue::Inet(get) => get(row).into(),
        ColumnValue::Xid8(get) => get(row).map(|id| id as i64).into(),
        ColumnValue::Hash => hash.as_slice().into(),
    }
}

/// What rows have in a column.
fn array<'a>(cell: ColumnValue, rows: &'a [HashedRow]) -> DatumWithOid<'a> {
    fn each<'a, T>(rows: &'a [HashedRow], get: impl Fn(&'a TrailRow<'a>) -> T) -> Vec<T> {
        rows.iter().map(|(row, _)| get(row)).collect()
    }
    match cell {
        ColumnValue::Bigint(get) => each(rows, |row| get(row)).into(),
        ColumnValue::Integer(get) => each(rows, |row| get(row)).into(),
        ColumnValue::Boolean(get) => each(rows, |row| get(row)).into(),
        ColumnValue::Uuid(get) => each(rows, |row| get(row).map(Uuid::from_bytes)).into(),
        ColumnValue::Timestamptz(get) => each(rows, |row| timestamp(get(row))).into(),
        ColumnValue::Text(get) | ColumnValue::Inet(get) => each(rows, |row| get(row)).into(),
        ColumnValue::Xid8(get) => each(rows, |row| get(row).map(|id| id as i64)).into(),
        ColumnValue::Hash => rows.iter().map(|(_, hash)| hash.to_vec()).collect::<Vec<_>>().into(),
    }
}

/// The last row of the trail.
pub(crate) fn last(owner: Owner) -> Option<Last> {
    LAST.read(owner, &[], |row| Last {
        seq: value(row, 1),
        hash: row.get::<Vec<u8>>(2).and_then(|h| h.try_into().ok()).unwrap_or([0; 32]),
        epoch: value(row, 3),
        queue_seq: value(row, 4),
    })
    .pop()
}

/// What an earlier writer recorded as refused or failed, from a place in the queue on.
pub(crate) fn refused(
    owner: Owner,
    since: Moment,
    epoch: i64,
    first: i64,
) -> Vec<(i64, Option<FailureReason>)> {
    REFUSED.read(owner, &[timestamp(since).into(), epoch.into(), first.into()], |row| {
        let word: Option<String> = row.get(2);
        let reason = FailureReason::ALL
            .iter()
            .copied()
            .find(|reason| word.as_deref() == Some(reason.word()));
        (value(row, 1), reason)
    })
}

/// A UTC day, counted from 1970.
fn date(day: i32) -> Option<Date> {
    /// Days between 1970-01-01 and 2000-01-01, where PostgreSQL's dates begin.
    const POSTGRES_EPOCH_DAYS: i32 = 10_957;
    Date::try_from(day - POSTGRES_EPOCH_DAYS).ok()
}

/// Year, month and day of a day counted from 1970 (proleptic Gregorian); pgrx's accessors go
/// through numeric.
fn civil(day: i32) -> (i32, i32, i32) {
    // Eras of 400 years that begin on 1 March, so that the leap day is the last of its year.
    let since_era = day + 719_468;
    let (era, of_era) = (since_era.div_euclid(146_097), since_era.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i32::from(month <= 2), month, of_year - (153 * shifted + 2) / 5 + 1)
}

/// A day as people write it.
pub(crate) fn day_name(day: i32) -> String {
    let (year, month, day) = civil(day);
    format!("{year:04}-{month:02}-{day:02}")
}

/// The name of a day's partition.
pub(crate) fn partition_name(day: i32) -> String {
    let (year, month, day) = civil(day);
    format!("provider_key_access_logs_{year:04}{month:02}{day:02}")
}

/// Makes the partition of a UTC day where it is missing; runs with the writer's rights.
pub(crate) fn make_partition(owner: Owner, day: i32) {
    MAKE_PARTITION.write(owner, &[date(day).into()]);
}

/// Says, inside the changing transaction, that the change of this event commits.
pub(crate) fn mark_committed(owner: Owner, event_id: EventId, project_id: Option<ProjectId>) {
    COMMITTED.change(owner, &[uuid(event_id).into(), project_id.map(uuid).into()], |_| ());
}

/// The writer's: blocks a key since that time; None: unblocks it.
pub(crate) fn block(owner: Owner, key: KeyRef, since: Option<Moment>) {
    let (project, key) = (uuid(key.project), uuid(key.key));
    match since {
        Some(since) => BLOCK.write(owner, &[project.into(), key.into(), timestamp(since).into()]),
        None => UNBLOCK.write(owner, &[project.into(), key.into()]),
    };
}

/// For the writer: those of these transactions that have ended, and whether they committed.
pub(crate) fn ended(owner: Owner, txids: &[u64]) -> Vec<(u64, bool)> {
    let txids: Vec<i64> = txids.iter().map(|id| *id as i64).collect();
    ENDED.read(owner, &[txids.into()], |row| (value::<i64>(row, 1) as u64, value(row, 2)))
}

/// For the writer: the versions stored lately, each with the transaction that stored it.
pub(crate) fn stored_lately(owner: Owner) -> Vec<(u64, KeyVersion)> {
    let rows = STORED_LATELY.read(owner, &[], |row| {
        let key = KeyRef { project: id(row, 2)?, key: id(row, 3)? };
        Some((value::<i64>(row, 1) as u64, KeyVersion { key, number: row.get(4)? }))
    });
    rows.into_iter().flatten().collect()
}

/// Adds uses to the counters that people see; the writer's second transaction.
pub(crate) fn count_use(owner: Owner, uses: &[Uses]) -> u64 {
    let column = |get: fn(&Uses) -> i64| uses.iter().map(get).collect::<Vec<i64>>();
    COUNT_USE.write(
        owner,
        &[
            uses.iter().map(|u| uuid(u.key.project)).collect::<Vec<Uuid>>().into(),
            uses.iter().map(|u| uuid(u.key.key)).collect::<Vec<Uuid>>().into(),
            column(|u| u.accesses).into(),
            column(|u| u.failures).into(),
            uses.iter()
                .map(|u| u.last_used_at.and_then(timestamp))
                .collect::<Vec<Option<TimestampWithTimeZone>>>()
                .into(),
            days(uses, |past| past.since).into(),
            days(uses, |past| Some(past.newest)).into(),
            busiest(uses, 0).into(),
            busiest(uses, 1).into(),
            busiest(uses, 2).into(),
        ],
    )
}

fn days(uses: &[Uses], day: fn(&KeyPast) -> Option<i32>) -> Vec<Option<i32>> {
    let in_range = |day: &i32| (0..=MAX_DAY).contains(day);
    uses.iter().map(|uses| uses.past.as_ref().and_then(day).filter(in_range)).collect()
}

/// The busiest minute, hour or day of each key's past.
fn busiest(uses: &[Uses], place: usize) -> Vec<Option<String>> {
    uses.iter().map(|uses| uses.past.as_ref().map(|past| past::written(past, place))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments of types that Rust has none for are cast.
    fn cast(cell: ColumnValue) -> &'static str {
        match cell {
            ColumnValue::Inet(_) => "::pg_catalog.inet",
            ColumnValue::Xid8(_) => "::pg_catalog.text::pg_catalog.xid8",
            _ => "",
        }
    }

    fn listed(one: impl Fn(usize, ColumnValue) -> String) -> String {
        let columns = COLUMNS.iter().zip(1..).map(|(column, number)| one(number, column.cell));
        columns.collect::<Vec<String>>().join(", ")
    }

    /// White space counts once, and not after an opening bracket.
    fn flat(sql: &str) -> String {
        sql.split_whitespace().collect::<Vec<&str>>().join(" ").replace("( ", "(")
    }

    #[test]
    fn the_inserts_name_every_column_of_the_trail_in_order() {
        let table = "INSERT INTO watchllm.provider_key_access_logs";
        let arguments = listed(|n, cell| format!("${n}{}", cast(cell)));
        assert_eq!(flat(INSERT_ONE), format!("{table} VALUES ({arguments})"));
        let columns = listed(|n, cell| format!("e.c{n}{}", cast(cell)));
        let arrays = listed(|n, _| format!("pg_catalog.unnest(${n})"));
        let names = listed(|n, _| format!("c{n}"));
        let many = format!("{table} SELECT {columns} FROM ROWS FROM ({arrays}) AS e ({names})");
        assert_eq!(flat(INSERT_MANY), many);
    }

    #[test]
    fn partitions_are_named_by_their_day() {
        let known = [
            (0, (1970, 1, 1)),
            (10_957, (2000, 1, 1)),
            (11_016, (2000, 2, 29)),
            (20_780, (2026, 11, 23)),
            (-1, (1969, 12, 31)),
        ];
        for (day, date) in known {
            assert_eq!(civil(day), date);
        }
    }
}
