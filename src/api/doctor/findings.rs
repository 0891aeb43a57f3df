//! All checks of the doctor, as they stand now. Whether somebody accepted what they find is
//! `accept`'s business.

use super::check::Check;
use super::{looks, vault};
use crate::audit;
use crate::error::Error;
use crate::postgres::{Owner, attempt_or_why};
use crate::store::installed;

/// Every check as it stands now, whatever was accepted.
pub(super) fn findings() -> (Result<Owner, Error>, Vec<Check>) {
    let owner = sound(installed::owner_with_rights);
    // Calling them shows whether writer and keyring work. If not, one of the rows says why.
    let ready = sound(audit::check_ready);
    let state = audit::state();
    let mut checks = vault::checks(&owner, &ready, &state);
    checks.extend(looks::checks(&owner, &state));
    (owner, checks)
}

/// Asks something that reads our tables as their owner. Without its rights even that fails, and the
/// doctor is there to say so.
fn sound<T>(ask: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    attempt_or_why(|| Some(ask())).ok().flatten().unwrap_or(Err(Error::Refused(
        "watchllm_owner may not read its own tables",
        "Run install() as superuser: it gives back what a REVOKE took. \
         See docs/reference.md#42501.",
    )))
}
