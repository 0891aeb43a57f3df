//! Findings of the doctor that somebody accepted until a date. Rows are only added; the last of a
//! check counts.

use super::oids::*;
use super::{timestamp, uuid, value};
use crate::id::EventId;
use crate::input::{ChangedBy, Note};
use crate::moment::Moment;
use crate::postgres::{Owner, Statement};

static INSERT: Statement = Statement::new(
    "INSERT INTO watchllm.accepted_findings (id, check_name, finding, note, until, accepted_by)
     VALUES ($1, $2, $3, $4, $5, $6)",
    &[UUID, TEXT, TEXT, TEXT, TIME, TEXT],
);

static NOW: Statement = Statement::new(
    "SELECT a.check_name, a.finding, a.note, a.accepted_by,
        pg_catalog.to_char(a.until AT TIME ZONE 'UTC', 'YYYY-MM-DD')
     FROM (SELECT DISTINCT ON (f.check_name) f.check_name, f.finding, f.note, f.accepted_by, f.until
           FROM watchllm.accepted_findings f ORDER BY f.check_name, f.accepted_at DESC, f.id) a
     WHERE a.until > pg_catalog.now()",
    &[],
);

/// A finding that is accepted now.
pub(crate) struct Accepted {
    pub check: String,
    pub finding: String,
    pub note: String,
    pub by: String,
    /// The UTC day on which that ends.
    pub until: String,
}

/// Accepts a finding under the id of its event.
pub(crate) fn insert(
    owner: Owner,
    event: EventId,
    check: &str,
    finding: &str,
    note: &Note,
    until: Moment,
    by: ChangedBy,
) {
    let arguments = [
        uuid(event).into(),
        check.into(),
        finding.into(),
        note.as_str().into(),
        timestamp(until).into(),
        by.as_str().into(),
    ];
    INSERT.change(owner, &arguments, |_| ());
}

/// What is accepted now.
pub(crate) fn now(owner: Owner) -> Vec<Accepted> {
    NOW.read(owner, &[], |row| Accepted {
        check: value(row, 1),
        finding: value(row, 2),
        note: value(row, 3),
        by: value(row, 4),
        until: value(row, 5),
    })
}
