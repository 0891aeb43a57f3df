//! Checks of what carries the vault's rows: tables that a crash empties, days of the trail that are
//! missing, triggers that stay silent, copies that go to others. Also whether the trail and the
//! adopted tables still agree with what they are about.

use super::{RowCount, Seen, seen};
use crate::crypto::Sealed;
use crate::id::{KeyRef, ProjectId, ProviderKeyId};
use crate::postgres::table::{self, Leaf};
use crate::postgres::{Owner, Statement, attempt, session};
use crate::store::oids::{INT4, UUID, UUIDS};
use crate::store::{id, value};
use pgrx::datum::Uuid;
use pgrx::pg_sys;
use std::ffi::CString;
use std::time::Duration;

static LOGGED: Statement = Statement::new(
    "SELECT pg_catalog.format('%I is unlogged', c.relname), c.relpersistence <> 'p'
     FROM pg_catalog.pg_class c
     WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p')
     ORDER BY c.relname",
    &[],
);

// The writer makes the seventh day ahead at midnight, so it is not asked for.
static DAYS_AHEAD: Statement = Statement::new(
    "SELECT pg_catalog.format('the day %s has no partition',
             pg_catalog.to_char(d.day, 'YYYY-MM-DD')),
         NOT EXISTS (
             SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_inherits i
                 ON i.inhrelid = c.oid AND i.inhparent = t.oid AND NOT i.inhdetachpending
             WHERE c.relnamespace = t.relnamespace AND c.relname =
                 'provider_key_access_logs_' || pg_catalog.to_char(d.day, 'YYYYMMDD'))
     FROM pg_catalog.pg_class t
     CROSS JOIN LATERAL (
         SELECT (pg_catalog.now() AT TIME ZONE 'UTC')::pg_catalog.date + n AS day
         FROM pg_catalog.generate_series(0, 6) AS g (n)) d
     WHERE t.relnamespace = 'watchllm'::pg_catalog.regnamespace
         AND t.relname = 'provider_key_access_logs' AND t.relkind = 'p'
     ORDER BY d.day",
    &[],
);

// A trigger of redact_columns() that fires on origin only is fine: trigger_guard refuses the
// statement in other sessions.
static TRIGGERS: Statement = Statement::new(
    "SELECT pg_catalog.format('trigger %I on %s is switched off', t.tgname,
             t.tgrelid::pg_catalog.regclass), t.tgenabled IN ('D', 'R')
     FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
     WHERE p.pronamespace = 'watchllm'::pg_catalog.regnamespace
         AND p.proname IN ('redact_columns', 'store_from_inbox')
     UNION ALL
     SELECT 'provider_key_inbox has no trigger that stores keys', NOT EXISTS (
         SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
         WHERE t.tgrelid = c.oid AND p.proname = 'store_from_inbox' AND t.tgtype = 69)
     FROM pg_catalog.pg_class c
     WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace AND c.relkind = 'v'
         AND c.relname = 'provider_key_inbox'
     ORDER BY 1",
    &[],
);

// The trail may be published to those who keep it. Ciphertext goes nowhere.
static PUBLICATIONS: Statement = Statement::new(
    "SELECT pg_catalog.format('publication %I: %s', p.pubname, CASE WHEN p.puballtables
             THEN 'all tables' ELSE pg_catalog.string_agg(t.tablename, ', '
                 ORDER BY t.tablename) END),
         p.puballtables OR pg_catalog.bool_or(t.tablename IN ('provider_key_versions',
             'master_keys', 'audit_keys'))
     FROM pg_catalog.pg_publication p
     LEFT JOIN pg_catalog.pg_publication_tables t
         ON t.pubname = p.pubname AND t.schemaname = 'watchllm'
     WHERE p.puballtables OR t.tablename IS NOT NULL
     GROUP BY p.pubname, p.puballtables ORDER BY 1",
    &[],
);

/// Each committed change has a row of the trail, and rows are numbered without gaps. So a trail
/// with a smaller last number has lost rows. One that begins with number 1 long after the first
/// project has lost them too.
static TRAIL: Statement = Statement::new(
    "SELECT l.last, CASE
         WHEN c.changes > l.last THEN pg_catalog.format(
             'the trail ends at %s, although %s changes were committed', l.last, c.changes)
         WHEN l.first = 1 AND l.first_at > c.oldest + '1 hour'::interval THEN pg_catalog.format(
             'the trail begins at %s, although the first project is of %s',
             pg_catalog.to_char(l.first_at AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'),
             pg_catalog.to_char(c.oldest AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI'))
         END
     FROM (SELECT coalesce((SELECT a.seq FROM watchllm.provider_key_access_logs a
               ORDER BY a.seq DESC LIMIT 1), 0) AS last,
             (SELECT a.seq FROM watchllm.provider_key_access_logs a
                ORDER BY a.seq LIMIT 1) AS first,
             (SELECT a.accessed_at FROM watchllm.provider_key_access_logs a
                ORDER BY a.seq LIMIT 1) AS first_at) l
     CROSS JOIN (SELECT (SELECT pg_catalog.count(*) FROM watchllm.committed_changes) AS changes,
             (SELECT pg_catalog.min(p.created_at) FROM watchllm.projects p) AS oldest) c",
    &[],
);

static ENVELOPES_OF: Statement = Statement::new(
    "SELECT r.project_id, r.id, v.version, r.provider, v.envelope
     FROM watchllm.provider_key_records r JOIN watchllm.provider_key_versions v
         ON v.project_id = r.project_id AND v.provider_key_id = r.id
             AND v.version = r.active_version
     WHERE r.deleted_at IS NULL AND v.envelope IS NOT NULL
     ORDER BY v.created_at DESC LIMIT $1",
    &[INT4],
);

static FED: Statement = Statement::new(
    "SELECT c.oid, pg_catalog.format('%I.%I', t.schema_name, t.table_name),
         t.id_column::pg_catalog.text, t.id, (
             SELECT pg_catalog.count(*) FROM watchllm.projects p
             WHERE p.adopted_table_id = t.id AND p.deleted_at IS NULL)
     FROM watchllm.adopted_tables t
     JOIN pg_catalog.pg_namespace n ON n.nspname = t.schema_name
     JOIN pg_catalog.pg_class c ON c.relnamespace = n.oid AND c.relname = t.table_name
         AND c.relkind = 'r'
     ORDER BY t.adopted_at",
    &[],
);

/// Of ids of an adopted table: those without any project, and how many have a live one of it.
static KNOWN: Statement = Statement::new(
    "SELECT g.id, p.id IS NULL, p.adopted_table_id IS NOT DISTINCT FROM $2
             AND p.deleted_at IS NULL AND p.id IS NOT NULL
     FROM pg_catalog.unnest($1) AS g (id) LEFT JOIN watchllm.projects p ON p.id = g.id",
    &[UUIDS, UUID],
);

/// An envelope that is in use, and the row that it belongs to.
pub(crate) struct Stored {
    pub key: KeyRef,
    pub version: i32,
    pub provider: String,
    pub sealed: Option<Sealed>,
}

/// Ids of an adopted table that are looked up at a time.
const AT_ONCE: usize = 1_000;
/// The most rows of an adopted table that are compared.
const MOST_ROWS: i64 = 1_000_000;
/// How long to wait for an adopted table that somebody has locked.
const PATIENCE: Duration = Duration::from_secs(1);

/// Our tables and partitions. Wrong: those that a crash empties.
pub(crate) fn logged() -> Vec<Seen> {
    seen(&LOGGED)
}

/// The days of the trail from today on. Wrong: those without a partition.
pub(crate) fn days_ahead() -> Vec<Seen> {
    seen(&DAYS_AHEAD)
}

/// Our triggers on tables of applications and on the inbox. Wrong: switched off, or missing.
pub(crate) fn triggers() -> Vec<Seen> {
    seen(&TRIGGERS)
}

/// Publications that send rows of ours. Wrong: of all tables, or of ciphertext.
pub(crate) fn publications() -> Vec<Seen> {
    seen(&PUBLICATIONS)
}

/// Whether the trail has its beginning. One finding, wrong if it has lost it; none: it is empty,
/// and rightly so.
pub(crate) fn trail(owner: Owner) -> Vec<Seen> {
    TRAIL.read(owner, &[], |row| {
        let problem = row.get::<String>(2);
        let fine = || format!("the trail ends at {}", value::<i64>(row, 1));
        Seen { wrong: problem.is_some(), what: problem.unwrap_or_else(fine) }
    })
}

/// The envelopes of the newest live keys, at most so many.
pub(crate) fn newest_envelopes(owner: Owner, most: i32) -> Vec<Stored> {
    let rows = ENVELOPES_OF.read(owner, &[most.into()], |row| {
        Some(Stored {
            key: KeyRef { project: id::<ProjectId>(row, 1)?, key: id::<ProviderKeyId>(row, 2)? },
            version: value(row, 3),
            provider: value(row, 4),
            sealed: row.get::<Vec<u8>>(5).and_then(|bytes| Sealed::parse(bytes).ok()),
        })
    });
    rows.into_iter().flatten().collect()
}

/// An adopted table and how many live projects it feeds.
struct Fed {
    relation: pg_sys::Oid,
    name: String,
    id_column: String,
    adoption: Option<Uuid>,
    projects: i64,
}

/// Rows of adopted tables, and projects that they feed. Wrong: rows without a project, and projects
/// without a row. Only ids are read, as `adopt_projects()` reads them.
pub(crate) fn drifted(owner: Owner) -> RowCount {
    let fed = FED.read(owner, &[], |row| Fed {
        relation: value(row, 1),
        name: value(row, 2),
        id_column: value(row, 3),
        adoption: row.get(4),
        projects: value(row, 5),
    });
    let mut count = RowCount { all: 0, wrong: 0, sample: Vec::new() };
    for table in fed {
        let looked = attempt(|| session::with_lock_timeout(PATIENCE, || compare(owner, &table)));
        let Some((rows, orphans, live)) = looked else {
            count.wrong += 1;
            count.sample.push(format!("{} cannot be read", table.name));
            continue;
        };
        count.all += rows;
        count.wrong += orphans.len() as i64 + (table.projects - live).max(0);
        let first = orphans.iter().take(5);
        count.sample.extend(first.map(|id| format!("row {id} of {} has no project", table.name)));
        if table.projects > live {
            let more = table.projects - live;
            count.sample.push(format!("{more} projects have no row in {}", table.name));
        }
    }
    count
}

/// How many rows a table has, which have no project, and how many have a live one.
fn compare(owner: Owner, fed: &Fed) -> Option<(i64, Vec<Uuid>, i64)> {
    let column = CString::new(fed.id_column.as_str()).ok()?;
    let leaf = table::look(fed.relation, &[&column]).filter(is_plain)?;
    let (mut ids, mut rows, mut orphans, mut live) = (Vec::new(), 0, Vec::new(), 0);
    let mut settle = |ids: &mut Vec<Uuid>| {
        let known = KNOWN.read(owner, &[std::mem::take(ids).into(), fed.adoption.into()], |row| {
            (row.get::<Uuid>(1), value::<bool>(row, 2), value::<bool>(row, 3))
        });
        for (id, is_orphan, is_live) in known {
            orphans.extend(id.filter(|_| is_orphan));
            live += i64::from(is_live);
        }
    };
    table::read(&[leaf], |open| {
        open.each(|_, row| {
            rows += 1;
            ids.extend(row.get::<Uuid>(0));
            if ids.len() >= AT_ONCE {
                settle(&mut ids);
            }
            if rows >= MOST_ROWS { Err(()) } else { Ok(()) }
        })
    })
    .ok()?;
    settle(&mut ids);
    Some((rows, orphans, live))
}

/// A table whose first column is the id.
fn is_plain(leaf: &Leaf) -> bool {
    leaf.kind == b'r' && leaf.column_type(0) == Some(pg_sys::UUIDOID)
}
