//! Queries for leaked keys: the fingerprints of all stored keys, and how many incidents somebody
//! has raised today. The count keeps anybody from flooding them.

use super::oids::*;
use super::{timestamp, uuid, value};
use crate::id::IncidentId;
use crate::moment::Moment;
use crate::postgres::{Owner, Statement, process};
use pgrx::pg_sys;

static FINGERPRINTS: Statement = Statement::new(
    "SELECT DISTINCT fingerprint FROM watchllm.provider_key_versions WHERE fingerprint > $1
     ORDER BY fingerprint LIMIT 10000",
    &[BYTEA],
);

static KNOWN: Statement =
    Statement::new("SELECT 1 FROM watchllm.security_incidents WHERE id = $1", &[UUID]);

static MASKED_SINCE: Statement = Statement::new(
    "SELECT pg_catalog.count(*) FROM (
        SELECT FROM watchllm.security_incidents
        WHERE detected_at >= $1 AND provider_key_id IS NULL
            AND details->>'source' = 'redact_columns'
            AND details->>'table_owner' = $2 LIMIT 200) i",
    &[TIME, TEXT],
);

/// Run as the caller: name and owner of a table.
static TABLE: Statement = Statement::new(
    "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname),
        pg_catalog.pg_get_userbyid(c.relowner)::pg_catalog.text
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
         WHERE c.oid = $1",
    &[OID],
);

/// The qualified name of a table, and its owner's.
pub(crate) fn table(relation: pg_sys::Oid) -> Option<(String, String)> {
    TABLE.read_as_caller(&[relation.into()], |row| (value(row, 1), value(row, 2))).pop()
}

/// The fingerprints of all stored versions, if there are at most `most`. None: there are more.
pub(crate) fn fingerprints(owner: Owner, most: usize) -> Option<Vec<[u8; 8]>> {
    let (mut all, mut last) = (Vec::new(), Vec::new());
    loop {
        process::check_interrupts();
        let page =
            FINGERPRINTS.read(owner, &[last.as_slice().into()], |row| value::<Vec<u8>>(row, 1));
        let Some(end) = page.last() else { return Some(all) };
        last.clone_from(end);
        // The first eight bytes are enough to tell that a text is none of them.
        all.extend(page.iter().filter_map(|fingerprint| fingerprint.first_chunk::<8>().copied()));
        if all.len() > most {
            return None;
        }
    }
}

/// Whether there is such an incident.
pub(crate) fn is_known(owner: Owner, incident: IncidentId) -> bool {
    !KNOWN.read(owner, &[uuid(incident).into()], |_| ()).is_empty()
}

/// How many incidents `redact_columns()` has raised since then in tables of this owner, for keys
/// that are not ours. At most 200.
pub(crate) fn masked_since(owner: Owner, since: Moment, table_owner: &str) -> i64 {
    let arguments = [timestamp(since).into(), table_owner.into()];
    MASKED_SINCE.read(owner, &arguments, |row| value(row, 1)).pop().unwrap_or(0)
}
