//! Finds keys in a text by their shape, and recognises ours by their fingerprints. A text's
//! fingerprint is compared with those of all stored versions. So a match is certain, and even a key
//! without any known shape is recognised.

use super::access::Access;
use super::finder::{Finder, Found};
use crate::caller::Context;
use crate::error::Error;
use crate::input::Veil;
use crate::store;
use crate::trail::{AccessType, FailureReason};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;

/// The most keys of the text that are looked for in the name of the application.
const MOST_HIDDEN: usize = 100;
/// The longest text that is searched in one piece, 128 MB. Scans search longer ones.
const LONGEST: usize = 128 << 20;

/// Finds the keys in a text: by known shapes, and by fingerprint those that are stored here, also
/// as escapes of URLs and JSON write them, each once. `start` counts characters from 1, `length`
/// characters. Never answers a key; each call is on record. Only for staff and auditors (42501). A
/// text over 128 MB, or with more than 100,000 keys, is refused (54000).
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
    let mut access = Access::begin_with_key(AccessType::Validate, Context::default(), None)?;
    must_see_everything(&access)?;
    let text = access.need(text, "text")?;
    if text.len() > LONGEST {
        return Err(access.refuse(FailureReason::Limit, Error::TooLarge("the text")).into());
    }
    let found = Finder::new(access.recorder)?.find(text).map_err(|error| match error {
        Error::TooLarge(_) => access.refuse(FailureReason::Limit, error),
        other => other,
    })?;
    let hidden = found.iter().take(MOST_HIDDEN);
    hidden.for_each(|found| access.hide(Veil::of(&text[found.start..found.end])));
    // A caller who guesses keys would like to know whether a text is one of ours. So it is recorded
    // who asks, and how often.
    let _recorded = access.record()?;
    let characters = |bytes: &str| i32::try_from(bytes.chars().count()).unwrap_or(i32::MAX);
    // They come in order, so that each part of the text is counted once.
    let (mut counted, mut start) = (0, 1);
    let row = |found: Found| {
        start += characters(&text[counted..found.start]);
        counted = found.start;
        let length = characters(&text[found.start..found.end]);
        let key = found.ours.map(|ours| store::uuid(ours.key));
        (found.provider, found.kind.to_owned(), start, length, found.redacted.into_string(), key)
    };
    Ok(TableIterator::new(found.into_iter().map(row).collect::<Vec<_>>()))
}

/// Only a caller who sees every project may ask which keys a text holds.
fn must_see_everything(access: &Access) -> Result<(), Error> {
    if access.caller.sees_everything() {
        return Ok(());
    }
    Err(access.refuse(FailureReason::NotAuthorized, Error::NotAuthorized("look for keys in text")))
}
