//! Keys that come as rows instead of arguments: `COPY watchllm.provider_key_inbox FROM STDIN`
//! stores them in bulk. No statement, log or statistics view holds a key (docs/log-channels.md).
//! The inbox is a view that never holds a row.

use super::access::Access;
use super::changes::store_key;
use crate::caller::Context;
use crate::crypto::Secret;
use crate::error::Error;
use crate::id::ProjectId;
use crate::input::{GivenKey, Veil};
use crate::store;
use crate::trail::AccessType;
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::convert::Infallible;

/// Stores the key of a row that is inserted into `provider_key_inbox`, as `store_provider_key`
/// does; what is left of the row has no key.
#[pg_trigger(
    sql = "CREATE FUNCTION watchllm.store_from_inbox() RETURNS trigger LANGUAGE c VOLATILE \
         PARALLEL UNSAFE SET search_path TO pg_catalog, pg_temp AS 'MODULE_PATHNAME', \
         '@FUNCTION_NAME@';"
)]
fn store_from_inbox<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, AllocatedByRust>>, Infallible> {
    match store_row(trigger) {
        Ok(row) => Ok(Some(row)),
        Err(error) => {
            ErrorReport::from(error).report(PgLogLevel::ERROR);
            Ok(None)
        }
    }
}

/// Stores one row's key.
fn store_row<'a>(trigger: &'a PgTrigger<'a>) -> Result<PgHeapTuple<'a, AllocatedByRust>, Error> {
    let mut access = Access::begin_with_key(AccessType::Store, Context::default(), None)?;
    let is_inbox = trigger.table_schema().is_ok_and(|schema| schema == "watchllm")
        && trigger.table_name().is_ok_and(|name| name == "provider_key_inbox");
    let row = trigger.new().filter(|_| is_inbox);
    let row = row.ok_or(Error::Refused(
        "this trigger serves only watchllm.provider_key_inbox",
        "Drop this trigger, and give keys to the view. See docs/leaks.md#keys-without-literals.",
    ))?;
    let text = |column: &str| row.get_by_name::<String>(column).map_err(internal);
    // Wiped when it goes out of scope, as is the secret made from it.
    let api_key = text("api_key")?.map(Secret::from);
    let api_key = api_key.as_ref().and_then(|key| std::str::from_utf8(key.expose()).ok());
    api_key.into_iter().for_each(|key| access.hide(Veil::of(key)));
    let project = row.get_by_name::<pgrx::Uuid>("project_id").map_err(internal)?;
    let project = store::id_of::<ProjectId>(access.need(project, "project_id")?);
    let (provider, name) = (text("provider")?, text("name")?);
    let given =
        GivenKey { provider: provider.as_deref(), api_key, name: name.as_deref(), priority: None };
    store_key(&mut access, project, given)?;
    let mut left = row.into_owned();
    left.set_by_name("api_key", None::<String>).map_err(internal)?;
    Ok(left)
}

/// An error of pgrx about a row.
fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}
