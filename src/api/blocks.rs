//! Blocks that people set and lift: of a key, and of a caller that the watch blocked. The writer
//! carries them out, so no session ever locks a row that the writer writes.

use super::access::Access;
use crate::audit::commit;
use crate::caller::Context;
use crate::error::{Answer, Error};
use crate::id::{KeyRef, ProviderKeyId};
use crate::input::{NamedCaller, Note};
use crate::postgres::clock;
use crate::store;
use crate::trail::incident::kinds::block_noted;
use crate::trail::{AccessType, FailureReason};
use pgrx::prelude::*;

/// Blocks a provider key: from the moment of the commit on nobody opens it, until
/// `unblock_provider_key()`. The note (cut at 500 bytes and redacted) says why, and is kept with
/// the key's last incident, or with one made for it. Errors: no such key 02000.
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
    let blocked = access.accept(NamedCaller::parse(kind, subject))?;
    let owner = access.recorder.owner();
    let Some(incident) = store::watch::is_blocked(owner, &blocked) else {
        return Err(access.refuse(FailureReason::NotFound, Error::NoBlockedCaller).into());
    };
    if let (Some(incident), Some(note)) = (incident, note) {
        let by = access.caller.changes_as();
        store::incidents::note_on(owner, incident, &Note::clean(note), by);
    }
    access.event.about_caller = Some(blocked.bounded());
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
    let key = access.find_without_lock(id)?;
    if let Some(note) = note.map(Note::clean) {
        keep_note(&access, key.place(), &note);
    }
    access.keep_change();
    Ok(())
}

/// Keeps the note with the key's last incident. A key without one gets an incident that says what
/// was done.
fn keep_note(access: &Access, key: KeyRef, note: &Note) {
    let (owner, by) = (access.recorder.owner(), access.caller.changes_as());
    if store::incidents::note(owner, key.project, key.key, note, by) {
        return;
    }
    let incident = block_noted(key, access.event.access_type, access.event.id, clock::now());
    store::incidents::insert(owner, &incident);
    commit::announce(access.recorder, incident.notice());
    store::incidents::note_on(owner, incident.id, note, by);
}
