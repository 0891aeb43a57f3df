//! Findings of the doctor that are known and meant, such as the roles that a cloud brings along.
//! Somebody accepts one until a date, on record. It counts as fine then, as long as the check says
//! the very same.

use super::check::Check;
use super::findings::findings;
use crate::api::access::Access;
use crate::caller::Context;
use crate::error::{Answer, Error};
use crate::input::Note;
use crate::moment::Span;
use crate::postgres::{Owner, clock};
use crate::store::accepted;
use crate::trail::{AccessType, FailureReason};
use pgrx::prelude::*;

/// The longest time that a finding is accepted for. Whoever accepted it may be gone by then.
const LONGEST: Span = Span::days(731);

/// Accepts what a check of `security_check()` finds now, until a date: until then the check counts
/// as fine, unless it says anything else. The note (cut at 500 bytes and redacted) says why. On
/// record. Errors: not an administrator 42501, no such check, nothing to accept, or a date that is
/// past or more than two years away 22023.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn accept_finding(
    check_name: Option<&str>,
    note: Option<&str>,
    until: Option<TimestampWithTimeZone>,
) -> Answer<()> {
    let access = Access::begin(AccessType::Setting, Context::default())?;
    access.must_administer()?;
    let check_name = access.need(check_name, "check_name")?;
    let note = Note::clean(access.need(note, "note")?);
    let until = clock::moment(access.need(until, "until")?.into_inner());
    let bad =
        |message, hint| access.refuse(FailureReason::BadInput, Error::BadInput(message, hint));
    if note.as_str().trim().is_empty() {
        return Err(bad("the note is empty", "Say why this finding is meant.").into());
    }
    let now = clock::now();
    if until <= now || until > now + LONGEST {
        let hint = "Give a date within two years, such as now() + interval '1 year'.";
        return Err(bad("until is past, or more than two years away", hint).into());
    }
    let (_, checks) = findings();
    let Some(check) = checks.iter().find(|check| check.name == check_name) else {
        let hint = "security_check() names its checks in the column check_name.";
        return Err(bad("there is no such check", hint).into());
    };
    if check.ok != Some(false) {
        let hint = "Only a row of security_check() with ok = false can be accepted.";
        return Err(bad("this check finds nothing to accept", hint).into());
    }
    let (owner, by) = (access.recorder.owner(), access.caller.changes_as());
    accepted::insert(owner, access.event.id, check.name, &check.detail, &note, until, by);
    access.keep_change();
    Ok(())
}

/// Marks the findings that are accepted now as fine.
pub(super) fn mark(checks: &mut [Check], owner: Owner) {
    if checks.iter().all(|check| check.ok != Some(false)) {
        return;
    }
    let accepted = accepted::now(owner);
    for check in checks.iter_mut().filter(|check| check.ok == Some(false)) {
        let same = |accepted: &&accepted::Accepted| {
            accepted.check == check.name && accepted.finding == check.detail
        };
        if let Some(accepted) = accepted.iter().find(same) {
            check.detail = format!(
                "accepted until {} by {} ({}): {}",
                accepted.until, accepted.by, accepted.note, check.detail
            );
            (check.ok, check.hint) = (Some(true), None);
        }
    }
}
