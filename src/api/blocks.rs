//! Blocks, as people set and lift them: of a key, and of a caller that the watch blocked. The
//! writer carries them out: no session ever locks a row that it writes.

use super::access::Access;
use super::incidents::NOTE;
use crate::caller::Context;
use crate::error::{Answer, Error};
use crate::id::ProviderKeyId;
use crate::redact;
use crate::store;
use crate::trail::{AccessType, Bounded, CallerKind, FailureReason};
use pgrx::prelude::*;

/// Blocks a provider key: from the moment of the commit on nobody opens it, until
/// `unblock_provider_key()`. The note (cut at 500 bytes and redacted) says why, and is kept with
/// the key's last incident. Errors: no such key 02000.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn block_provider_key(
    provider_key_id: Option<pgrx::Uuid>,
    note: default!(Option<&str>, "NULL"),
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<()> {
    let context = Context { request_id, ip_address, user_agent };
    change_block(AccessType::Block, provider_key_id, note, context)
}

/// Unblocks a provider key: within a second it opens again. The note says why, and is kept with the
/// key's last incident.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn unblock_provider_key(
    provider_key_id: Option<pgrx::Uuid>,
    note: default!(Option<&str>, "NULL"),
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<()> {
    let context = Context { request_id, ip_address, user_agent };
    change_block(AccessType::Unblock, provider_key_id, note, context)
}

/// Unblocks a caller that the watch blocked: a role, the subject of trusted claims or an address
/// (`kind`). The note is kept with the incident. Errors: no such caller is blocked 02000, another
/// kind 22023.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn unblock_caller(
    kind: Option<&str>,
    subject: Option<&str>,
    note: default!(Option<&str>, "NULL"),
    request_id: default!(Option<&str>, "NULL"),
    ip_address: default!(Option<&str>, "NULL"),
    user_agent: default!(Option<&str>, "NULL"),
) -> Answer<()> {
    let mut access =
        Access::begin(AccessType::Unblock, Context { request_id, ip_address, user_agent })?;
    access.must_administer()?;
    let kind = access.need(kind, "kind")?;
    let known = CallerKind::ALL.iter().copied().find(|known| known.word() == kind);
    let wrong = || Error::BadInput("kind is no kind of caller", "One of: role, subject, address.");
    let kind = access.accept(known.ok_or_else(wrong))?;
    let subject = access.need(subject, "subject")?;
    let owner = access.recorder.owner();
    let Some(incident) = store::watch::is_blocked(owner, kind, subject) else {
        return Err(access.refuse(FailureReason::NotFound, Error::NoBlockedCaller).into());
    };
    if let (Some(incident), Some(note)) = (incident, note) {
        store::incidents::note_on(
            owner,
            incident,
            &redact::clean(note, NOTE),
            access.caller.name(),
        );
    }
    access.event.about_caller = Some((kind, Bounded::new(Some(subject))));
    access.keep_change();
    Ok(())
}

/// Has the writer block or unblock a key, and keeps the note.
fn change_block(
    to: AccessType,
    id: Option<pgrx::Uuid>,
    note: Option<&str>,
    context: Context,
) -> Answer<()> {
    let mut access = Access::begin(to, context)?;
    access.must_administer()?;
    let id = store::id_of::<ProviderKeyId>(access.need(id, "provider_key_id")?);
    let key = access.find_to_change(id)?;
    if let Some(note) = note.map(|note| redact::clean(note, NOTE))
        && !store::incidents::note(
            access.recorder.owner(),
            key.project_id,
            id,
            &note,
            access.caller.name(),
        )
    {
        notice!("the key has no incident to keep the note with");
    }
    access.keep_change();
    Ok(())
}
