//! Keys in text: which there are by their shape, and which of them are ours. Whether one is ours is certain, because its
//! fingerprint is compared with those of all stored versions; so even a key without any known shape is recognised.

use super::access::{Access, fingerprints_of};
use crate::acting_owner::session;
use crate::audit::Standing;
use crate::caller::Context;
use crate::crypto::Secret;
use crate::error::Error;
use crate::redact::{self, Candidate};
use crate::store::{self, Id};
use crate::trail::{AccessType, FailureReason};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::collections::BTreeMap;

/// Candidates whose fingerprints are compared at a time.
const AT_ONCE: usize = 1000;

/// A key found in a text. Offsets in bytes; `redacted` holds no secret.
pub struct Found {
    pub provider: Option<String>,
    pub kind: String,
    pub start: usize,
    pub end: usize,
    pub redacted: String,
    /// Which of our keys it is (key, project, version), one row each.
    pub ours: Option<(Id, Id, i32)>,
}

/// Finds the keys in a text: by known shapes, and by fingerprint those that are stored here, also as escapes of URLs and
/// JSON write them. `start` counts characters from 1, `length` characters. Never answers a key; each call is on record.
/// Only for staff and auditors (42501).
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn find_keys(
    text: Option<&str>,
) -> Result<
    TableIterator<
        'static,
        (
            name!(provider, Option<String>),
            name!(kind, String),
            name!(start, i32),
            name!(length, i32),
            name!(redacted, String),
            name!(provider_key_id, Option<pgrx::Uuid>),
        ),
    >,
    ErrorReport,
> {
    let access = Access::begin_with_key(AccessType::Validate, Context::default())?;
    must_see_everything(&access)?;
    let text = access.need(text, "text")?;
    let found = find(&access, text)?;
    // Whether a text is one of our keys is worth knowing to somebody who guesses: so it is on record who asks, how often.
    let _recorded = access.recorder.record(access.event, Standing::Authorised)?;
    let characters = |bytes: &str| i32::try_from(bytes.chars().count()).unwrap_or(i32::MAX);
    let row = |found: Found| {
        let (start, length) = (1 + characters(&text[..found.start]), characters(&text[found.start..found.end]));
        let key = found.ours.map(|(key, ..)| pgrx::Uuid::from_bytes(key));
        (found.provider, found.kind, start, length, found.redacted, key)
    };
    Ok(TableIterator::new(found.into_iter().map(row).collect::<Vec<_>>()))
}

/// Only who sees every project may ask which keys a text holds.
pub fn must_see_everything(access: &Access) -> Result<(), Error> {
    if access.caller.sees_everything() {
        return Ok(());
    }
    Err(access.refuse(FailureReason::NotAuthorized, Error::NotAuthorized("look for keys in text")))
}

/// The keys in a text, in order.
pub fn find(access: &Access, text: &str) -> Result<Vec<Found>, Error> {
    let ours = ours(access, text)?;
    let mut found: Vec<Found> = ours
        .iter()
        .flat_map(|((start, end), keys)| keys.iter().map(move |key| (*start, *end, key)))
        .map(|(start, end, (key, provider))| Found {
            provider: Some(provider.clone()),
            kind: kind_at(text, start, end).unwrap_or("stored key").to_owned(),
            start,
            end,
            redacted: masked(&text[start..end]),
            ours: Some(*key),
        })
        .collect();
    let is_ours = |start: usize, end: usize| ours.keys().any(|(from, to)| start < *to && *from < end);
    let foreign = redact::findings(text).filter(|finding| !is_ours(finding.start, finding.end));
    found.extend(foreign.map(|finding| Found {
        provider: finding.provider.map(str::to_owned),
        kind: finding.kind.to_owned(),
        start: finding.start,
        end: finding.end,
        redacted: masked(&text[finding.start..finding.end]),
        ours: None,
    }));
    found.sort_by_key(|found| (found.start, found.end));
    Ok(found)
}

/// Places of a text that are keys of ours, each with which keys (and their provider) it is.
type Ours = BTreeMap<(usize, usize), Vec<((Id, Id, i32), String)>>;

/// Looks up the fingerprints of everything in the text that may be a key.
fn ours(access: &Access, text: &str) -> Result<Ours, Error> {
    let mut ours = Ours::new();
    let mut candidates = redact::candidates(text);
    loop {
        session::check_interrupts();
        let some: Vec<Candidate> = candidates.by_ref().take(AT_ONCE).collect();
        if some.is_empty() {
            return Ok(innermost(ours));
        }
        let places: Vec<(usize, usize)> = some.iter().map(|candidate| (candidate.start, candidate.end)).collect();
        let keys: Vec<Secret> = some.into_iter().map(|candidate| Secret::from(candidate.key)).collect();
        for (version, fingerprints) in fingerprints_of(access.recorder, &keys)? {
            for known in store::keys::by_fingerprints(access.recorder.owner(), version, &fingerprints) {
                for (place, fingerprint) in places.iter().zip(&fingerprints) {
                    if fingerprint.as_slice() == known.fingerprint {
                        ours.entry(*place)
                            .or_default()
                            .push(((known.key, known.project, known.version), known.provider.clone()));
                    }
                }
            }
        }
    }
}

/// Of places that are one key in several spellings the shortest: without the punctuation around it.
fn innermost(mut ours: Ours) -> Ours {
    let places: Vec<(usize, usize)> = ours.keys().copied().collect();
    let within =
        |inner: &(usize, usize), outer: &(usize, usize)| inner != outer && outer.0 <= inner.0 && inner.1 <= outer.1;
    ours.retain(|outer, _| !places.iter().any(|inner| within(inner, outer)));
    for keys in ours.values_mut() {
        keys.sort();
        keys.dedup();
    }
    ours
}

/// The kind of the rule that sees a key at this place.
fn kind_at(text: &str, start: usize, end: usize) -> Option<&'static str> {
    redact::findings(&text[start..end]).next().map(|finding| finding.kind)
}

/// The piece without its secret; where no rule knows which part is public, nothing of it is shown.
fn masked(piece: &str) -> String {
    let masked = redact::redact(piece);
    if masked == piece { redact::MASK.to_owned() } else { masked.into_owned() }
}
