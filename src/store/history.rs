//! The audit trail as people read it: the history of a key, and what failed. Who may read what:
//! `caller`. A change's row says "about to commit"; no row in committed_changes means that it did
//! not (docs/architecture.md#flows).

use super::oids::*;
use super::{Projects, timestamp, uuid, value};
use crate::id::{ProjectId, ProviderKeyId};
use crate::input::MaxRows;
use crate::moment::Moment;
use crate::postgres::{Owner, Row, Statement};
use pgrx::datum::{TimestampWithTimeZone, Uuid};

/// What of the trail is shown: the columns that `COLUMNS` marks so, in its order (a test compares
/// them), and whether a change was committed: so the changing transaction says. A subject counts
/// only where it is to be believed.
macro_rules! shown {
    () => {
        "SELECT l.accessed_at, l.project_id, l.provider_key_id, l.provider, l.key_version,
            l.access_type, l.success, l.failure_reason, l.attempt_count, l.ip_address, l.user_agent,
            l.request_id, l.session_role, l.effective_role,
            CASE WHEN l.claims_trusted THEN l.claims_sub END,
            pg_catalog.host(l.client_addr), l.application_name,
            NOT l.success OR l.access_type IN ('decrypt', 'validate')
                OR EXISTS (SELECT FROM watchllm.committed_changes c WHERE c.event_id = l.id)
         FROM watchllm.provider_key_access_logs l "
    };
}

static HISTORY: Statement = Statement::new(
    concat!(
        shown!(),
        "WHERE l.project_id = $1 AND l.provider_key_id = $2
         ORDER BY l.accessed_at DESC, l.seq DESC LIMIT $3"
    ),
    &[UUID, UUID, INT4],
);

static FAILED: Statement = Statement::new(
    concat!(
        shown!(),
        "WHERE NOT l.success AND l.accessed_at >= $1 AND ($2 IS NULL OR l.project_id = ANY ($2))
         ORDER BY l.accessed_at DESC, l.seq DESC LIMIT 10000"
    ),
    &[TIME, UUIDS],
);

static RATES: Statement = Statement::new(
    "SELECT count(*) FILTER (WHERE NOT r.failed), count(*) FILTER (WHERE r.failed),
        max(r.accesses_minute), max(r.accesses_hour), max(r.accesses_day), max(r.failures_hour)
     FROM watchllm.key_access_rates($1, NULL, $2, $3) r",
    &[TIME, UUID, UUID],
);

/// How a key was used within a time: how often, and the most within a minute, an hour and a day
/// that end in it.
#[derive(Default)]
pub(crate) struct Rates {
    pub accesses: i64,
    pub failures: i64,
    pub most_in_minute: i64,
    pub most_in_hour: i64,
    pub most_in_day: i64,
    pub most_failures_in_hour: i64,
}

/// One row of the trail as people read it.
pub(crate) struct Read {
    pub accessed_at: Option<TimestampWithTimeZone>,
    pub project_id: Option<Uuid>,
    pub provider_key_id: Option<Uuid>,
    pub provider: Option<String>,
    pub key_version: Option<i32>,
    pub access_type: Option<String>,
    pub success: bool,
    pub failure_reason: Option<String>,
    pub attempt_count: i32,
    pub ip_address: Option<String>,
    pub user_agent: Option<String>,
    pub request_id: Option<String>,
    pub session_role: Option<String>,
    pub effective_role: Option<String>,
    pub claims_sub: Option<String>,
    pub client_addr: Option<String>,
    pub application_name: Option<String>,
    pub committed: bool,
}

/// The last `most` accesses of a key, the newest first.
pub(crate) fn history(
    owner: Owner,
    project: ProjectId,
    key: ProviderKeyId,
    most: MaxRows,
) -> Vec<Read> {
    HISTORY.read(owner, &[uuid(project).into(), uuid(key).into(), most.number().into()], read)
}

/// Refused and failed accesses in these projects since `since`, the newest 10,000 at
/// most.
pub(crate) fn failed(owner: Owner, since: Moment, projects: &Projects) -> Vec<Read> {
    let own = match projects {
        Projects::Every => None,
        Projects::Own(own) => Some(own.iter().copied().map(uuid).collect::<Vec<Uuid>>()),
    };
    FAILED.read(owner, &[timestamp(since).into(), own.into()], read)
}

/// How a key was used since `since`.
pub(crate) fn rates(owner: Owner, since: Moment, project: ProjectId, key: ProviderKeyId) -> Rates {
    let arguments = [timestamp(since).into(), uuid(project).into(), uuid(key).into()];
    let rates = RATES.read(owner, &arguments, |row| Rates {
        accesses: value(row, 1),
        failures: value(row, 2),
        most_in_minute: value(row, 3),
        most_in_hour: value(row, 4),
        most_in_day: value(row, 5),
        most_failures_in_hour: value(row, 6),
    });
    rates.into_iter().next().unwrap_or_default()
}

fn read(row: &Row) -> Read {
    Read {
        accessed_at: row.get(1),
        project_id: row.get(2),
        provider_key_id: row.get(3),
        provider: row.get(4),
        key_version: row.get(5),
        access_type: row.get(6),
        success: value(row, 7),
        failure_reason: row.get(8),
        attempt_count: value(row, 9),
        ip_address: row.get(10),
        user_agent: row.get(11),
        request_id: row.get(12),
        session_role: row.get(13),
        effective_role: row.get(14),
        claims_sub: row.get(15),
        client_addr: row.get(16),
        application_name: row.get(17),
        committed: value(row, 18),
    }
}

#[cfg(test)]
mod tests {
    use crate::trail::{COLUMNS, Mark};

    #[test]
    fn the_columns_marked_for_the_history_are_shown_in_order() {
        let shown: String = shown!().split_whitespace().collect::<Vec<&str>>().join(" ");
        let listed = COLUMNS.iter().filter(|column| column.is(Mark::History));
        let expected = listed.map(|column| match column.name {
            "claims_sub" => "CASE WHEN l.claims_trusted THEN l.claims_sub END".to_owned(),
            "client_addr" => "pg_catalog.host(l.client_addr)".to_owned(),
            name => format!("l.{name}"),
        });
        let expected = expected.collect::<Vec<String>>().join(", ");
        assert!(shown.starts_with(&format!("SELECT {expected}, NOT l.success")), "{shown}");
    }
}
