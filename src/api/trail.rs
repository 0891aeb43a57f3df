//! Reads the audit trail: the history of a key, and failed accesses. Tenants see their own
//! projects, and never the database identity of callers (roles, address of the connection,
//! application).

use crate::audit;
use crate::caller::{Caller, Context};
use crate::error::Error;
use crate::id::ProviderKeyId;
use crate::input::{Back, MaxRows};
use crate::postgres::clock;
use crate::store;
use crate::store::history::Read;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Shows the last accesses of a provider key, the newest first; `max_rows` from 1 to 10,000.
/// `committed` is false for a change whose transaction failed in its commit.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn key_access_history(
    provider_key_id: Option<pgrx::Uuid>,
    max_rows: default!(Option<i32>, 50),
) -> Result<
    TableIterator<
        'static,
        (
            name!(accessed_at, Option<TimestampWithTimeZone>),
            name!(project_id, Option<pgrx::Uuid>),
            name!(provider_key_id, Option<pgrx::Uuid>),
            name!(provider, Option<String>),
            name!(key_version, Option<i32>),
            name!(access_type, Option<String>),
            name!(success, bool),
            name!(failure_reason, Option<String>),
            name!(attempt_count, i32),
            name!(ip_address, Option<String>),
            name!(user_agent, Option<String>),
            name!(request_id, Option<String>),
            name!(session_role, Option<String>),
            name!(effective_role, Option<String>),
            name!(claims_sub, Option<String>),
            name!(client_addr, Option<String>),
            name!(application_name, Option<String>),
            name!(committed, bool),
        ),
    >,
    ErrorReport,
> {
    let owner = audit::ready_to_read()?;
    let caller = Caller::new(Context::default());
    let id =
        store::id_of::<ProviderKeyId>(provider_key_id.ok_or(Error::NullInput("provider_key_id"))?);
    let rows =
        MaxRows::parse(max_rows.ok_or(Error::NullInput("max_rows"))?).map_err(Error::from)?;
    let key = store::keys::within(owner, &caller.may_see(owner), id).ok_or(Error::NoSuchKey)?;
    Ok(shown(store::history::history(owner, key.project_id, id, rows), &caller))
}

/// Shows refused and failed accesses since a time back from now, the newest first, at most 10,000.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn failed_access_attempts(
    since: default!(Option<Interval>, "'24 hours'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(accessed_at, Option<TimestampWithTimeZone>),
            name!(project_id, Option<pgrx::Uuid>),
            name!(provider_key_id, Option<pgrx::Uuid>),
            name!(provider, Option<String>),
            name!(key_version, Option<i32>),
            name!(access_type, Option<String>),
            name!(success, bool),
            name!(failure_reason, Option<String>),
            name!(attempt_count, i32),
            name!(ip_address, Option<String>),
            name!(user_agent, Option<String>),
            name!(request_id, Option<String>),
            name!(session_role, Option<String>),
            name!(effective_role, Option<String>),
            name!(claims_sub, Option<String>),
            name!(client_addr, Option<String>),
            name!(application_name, Option<String>),
            name!(committed, bool),
        ),
    >,
    ErrorReport,
> {
    let owner = audit::ready_to_read()?;
    let caller = Caller::new(Context::default());
    let back = since.ok_or(Error::NullInput("since"))?.as_micros();
    let from = Back::parse(back).map_err(Error::from)?.before(clock::now());
    Ok(shown(store::history::failed(owner, from, &caller.may_see(owner)), &caller))
}

/// The columns of both answers, in their order.
type HistoryRow = (
    Option<TimestampWithTimeZone>,
    Option<pgrx::Uuid>,
    Option<pgrx::Uuid>,
    Option<String>,
    Option<i32>,
    Option<String>,
    bool,
    Option<String>,
    i32,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    Option<String>,
    bool,
);

/// The rows as the caller may see them.
fn shown(rows: Vec<Read>, caller: &Caller) -> TableIterator<'static, HistoryRow> {
    let everything = caller.sees_everything();
    let staff = move |text: Option<String>| text.filter(|_| everything);
    TableIterator::new(rows.into_iter().map(move |row| {
        (
            row.accessed_at,
            row.project_id,
            row.provider_key_id,
            row.provider,
            row.key_version,
            row.access_type,
            row.success,
            row.failure_reason,
            row.attempt_count,
            row.ip_address,
            row.user_agent,
            row.request_id,
            staff(row.session_role),
            staff(row.effective_role),
            row.claims_sub,
            staff(row.client_addr),
            staff(row.application_name),
            row.committed,
        )
    }))
}
