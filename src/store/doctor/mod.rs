//! The queries of `security_check()`: each answers what it found, and whether that is wrong.
//! Catalogs are read as the caller, whoever that is; counts of our tables are read as their owner.
//! Nothing here changes or locks anything.

mod granted;
mod rights;
mod roles;
mod surfaces;

pub(crate) use granted::*;
pub(crate) use rights::*;
pub(crate) use roles::*;
pub(crate) use surfaces::*;

use crate::postgres::{Owner, Statement};
use crate::store::value;

/// One finding.
pub(crate) struct Seen {
    pub what: String,
    pub wrong: bool,
}

/// A finding about keys or members: how many there are, and a sample of the wrong ones.
pub(crate) struct RowCount {
    pub all: i64,
    pub wrong: i64,
    pub sample: Vec<String>,
}

static ROW_SECURITY: Statement = Statement::new(
    "SELECT pg_catalog.format('%I: row-level security is %s', c.relname,
            CASE WHEN c.relkind IN ('m', 'f') THEN 'not possible'
                WHEN c.relrowsecurity THEN 'not forced' ELSE 'off' END),
            NOT (c.relrowsecurity AND c.relforcerowsecurity)
     FROM pg_catalog.pg_class c
     WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace
         AND c.relkind IN ('r', 'p', 'm', 'f')
     ORDER BY c.relname",
    &[],
);

// UPDATE or DELETE for each row is 1 + 2 + 8 + 16, TRUNCATE 2 + 32 (pg_trigger.h).
static APPEND_ONLY: Statement = Statement::new(
    "SELECT pg_catalog.format('%I has no trigger %I that always fires', c.relname, w.name),
            NOT EXISTS (
                SELECT FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
                WHERE t.tgrelid = c.oid AND t.tgname = w.name AND t.tgtype = w.kind
                    AND t.tgenabled = 'A'
                  AND t.tgqual IS NULL AND p.proname = 'refuse_change'
                      AND p.pronamespace = c.relnamespace)
     FROM pg_catalog.pg_class c
     CROSS JOIN (VALUES ('refuse_change'::pg_catalog.name, 27), ('refuse_truncate', 34))
         AS w (name, kind)
     WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p')
       AND (c.relname IN ('install_history', 'provider_key_access_logs', 'committed_changes',
               'audit_checkpoints', 'audit_keys', 'database_identity', 'security_incidents',
               'incident_events', 'accepted_findings')
            OR EXISTS (
                SELECT FROM pg_catalog.pg_inherits i
                    JOIN pg_catalog.pg_class p ON p.oid = i.inhparent
                WHERE i.inhrelid = c.oid AND p.relname = 'provider_key_access_logs'
                  AND p.relnamespace = c.relnamespace))
     ORDER BY c.relname, w.name",
    &[],
);

static VIEWS: Statement = Statement::new(
    "SELECT pg_catalog.format('%I reads with the rights of its owner', c.relname),
            NOT EXISTS (
                SELECT FROM pg_catalog.pg_options_to_table(c.reloptions) o
                WHERE o.option_name = 'security_invoker' AND o.option_value::pg_catalog.bool)
     FROM pg_catalog.pg_class c
     WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace AND c.relkind = 'v'
     ORDER BY c.relname",
    &[],
);

static KEYS: Statement = Statement::new(
    "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE v.envelope IS NULL)
     FROM watchllm.provider_key_records r
     LEFT JOIN watchllm.provider_key_versions v
       ON v.project_id = r.project_id AND v.provider_key_id = r.id AND v.version = r.active_version
     WHERE r.deleted_at IS NULL",
    &[],
);

static KEYS_WITHOUT_ENVELOPE: Statement = Statement::new(
    "SELECT r.id::pg_catalog.text
     FROM watchllm.provider_key_records r
     LEFT JOIN watchllm.provider_key_versions v
       ON v.project_id = r.project_id AND v.provider_key_id = r.id AND v.version = r.active_version
     WHERE r.deleted_at IS NULL AND v.envelope IS NULL
     ORDER BY r.id LIMIT 10",
    &[],
);

/// Adopted tables, each with the number of our triggers on it that always fire.
macro_rules! adopted {
    ($columns:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $columns,
            " FROM (SELECT t.schema_name, t.table_name, (
                SELECT pg_catalog.count(*) FROM pg_catalog.pg_trigger g
                JOIN pg_catalog.pg_proc p ON p.oid = g.tgfoid AND p.proname = 'follow_projects'
                    AND p.pronamespace = 'watchllm'::pg_catalog.regnamespace
                JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid AND c.relname = t.table_name
                JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
                    AND n.nspname = t.schema_name
                WHERE g.tgenabled = 'A') AS triggers FROM watchllm.adopted_tables t) s ",
            $rest
        )
    };
}

static MEMBERS: Statement = Statement::new(
    "SELECT pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE r.oid IS NULL)
     FROM watchllm.project_members m LEFT JOIN pg_catalog.pg_roles r ON r.rolname = m.role_name
     WHERE m.role_name IS NOT NULL",
    &[],
);

static MEMBERS_WITHOUT_ROLE: Statement = Statement::new(
    "SELECT pg_catalog.format('%I in project %s', m.role_name, m.project_id)
     FROM watchllm.project_members m
     WHERE m.role_name IS NOT NULL AND NOT EXISTS (SELECT FROM pg_catalog.pg_roles r
         WHERE r.rolname = m.role_name)
     ORDER BY m.role_name, m.project_id LIMIT 10",
    &[],
);

static ADOPTED: Statement = Statement::new(
    adopted!("pg_catalog.count(*), pg_catalog.count(*) FILTER (WHERE s.triggers < 2)", ""),
    &[],
);

static ADOPTED_WITHOUT_TRIGGERS: Statement = Statement::new(
    adopted!(
        "pg_catalog.format('%I.%I', s.schema_name, s.table_name)",
        "WHERE s.triggers < 2 ORDER BY 1 LIMIT 10"
    ),
    &[],
);

/// Tables and partitions of schema watchllm. Wrong: those without forced row-level security.
pub(crate) fn row_security() -> Vec<Seen> {
    seen(&ROW_SECURITY)
}

/// The two triggers of each append-only table and partition. Wrong: missing, switched off, or not
/// ours.
pub(crate) fn append_only() -> Vec<Seen> {
    seen(&APPEND_ONLY)
}

/// Views of schema watchllm. Wrong: a view that does not read with its reader's rights.
pub(crate) fn views() -> Vec<Seen> {
    seen(&VIEWS)
}

/// Live keys. Wrong: those whose active version has no envelope.
pub(crate) fn keys(owner: Owner) -> RowCount {
    counted(owner, &KEYS, &KEYS_WITHOUT_ENVELOPE)
}

/// Members that are database roles. Wrong: those whose role no longer exists.
pub(crate) fn members(owner: Owner) -> RowCount {
    counted(owner, &MEMBERS, &MEMBERS_WITHOUT_ROLE)
}

/// Adopted tables of projects. Wrong: those that our triggers no longer follow.
pub(crate) fn adopted(owner: Owner) -> RowCount {
    counted(owner, &ADOPTED, &ADOPTED_WITHOUT_TRIGGERS)
}

fn seen(statement: &Statement) -> Vec<Seen> {
    statement.read_as_caller(&[], |row| Seen { what: value(row, 1), wrong: value(row, 2) })
}

fn counted(owner: Owner, counts: &Statement, sample: &Statement) -> RowCount {
    let (all, wrong) =
        counts.read(owner, &[], |row| (value(row, 1), value(row, 2))).pop().unwrap_or_default();
    RowCount { all, wrong, sample: sample.read(owner, &[], |row| value(row, 1)) }
}
