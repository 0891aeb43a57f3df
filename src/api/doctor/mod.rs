//! The doctor: `security_check()` checks everything the promises rest on, a row per check. It
//! repairs nothing, but calls the audit writer, so that the answer is up to date. `vault` checks
//! this server's part, `looks` the catalog; `accept` is for findings that are known and meant.
//! `store/doctor` holds what each check reads.

mod accept;
mod check;
mod findings;
mod looks;
mod vault;

use crate::caller::{Caller, Context};
use crate::error::Error;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// Checks everything that the vault's promises rest on: a row per check, `ok` false for what is
/// wrong, with a hint, and NULL for what could not be looked at. What `accept_finding()` accepted
/// is true, and the detail says until when. It works even if the vault is not installed or the
/// library not preloaded, and says so. Starts the audit writer. For watchllm_admin and
/// watchllm_auditor; 42501 for others.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn security_check() -> Result<
    TableIterator<
        'static,
        (
            name!(check_name, String),
            name!(ok, Option<bool>),
            name!(detail, String),
            name!(hint, Option<String>),
        ),
    >,
    ErrorReport,
> {
    if !Caller::new(Context::default()).may_audit() {
        return Err(Error::NotAuthorized("check the vault").into());
    }
    let (owner, mut checks) = findings::findings();
    if let Ok(owner) = owner {
        accept::mark(&mut checks, owner);
    }
    Ok(TableIterator::new(
        checks.into_iter().map(|c| (c.name.to_owned(), c.ok, c.detail, c.hint.map(str::to_owned))),
    ))
}
