//! Stored keys in the texts of a call: each word of a text is compared with the fingerprints of one
//! project, whatever its shape. The work is bounded, and a text that was clean is remembered until
//! a change commits. Another project's keys are compared only for callers who may see everything.
#![forbid(unsafe_code)]

use super::fingerprints::FingerprintKeys;
use crate::audit::Recorder;
use crate::crypto::Secret;
use crate::error::Error;
use crate::id::ProjectId;
use crate::postgres::relation_changes;
use crate::redact::{self, Candidate, MASK};
use crate::store;
use std::cell::RefCell;
use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

/// The most words of a text that are compared: about 1 ms. Texts of callers are short by then.
const MOST_WORDS: usize = 512;
/// The most clean texts that are remembered.
const MOST_REMEMBERED: usize = 256;

/// What this process remembers while no change commits and no relation of ours changes.
#[derive(Default)]
struct Memory {
    as_of: (u64, u64),
    clean: HashSet<u64>,
    keys: Option<Rc<FingerprintKeys>>,
    hasher: RandomState,
}

thread_local! {
    static MEMORY: RefCell<Memory> = RefCell::default();
}

/// Whose keys are looked for.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Whose {
    /// One project's.
    Of(ProjectId),
    /// Everybody's: only for callers who may see everything.
    Everybodys,
}

/// The text without the stored keys in it. None: there is none. A vault whose fingerprint key does
/// not open compares nothing: such a vault stores nothing either.
pub(super) fn hidden(recorder: Recorder, whose: Whose, text: &str) -> Option<String> {
    let words: Vec<Candidate> = redact::candidates(text).take(MOST_WORDS).collect();
    if words.is_empty() {
        return None;
    }
    let hash = MEMORY.with_borrow_mut(|memory| {
        let as_of = (recorder.commits(), relation_changes());
        if memory.as_of != as_of {
            (memory.as_of, memory.keys) = (as_of, None);
            memory.clean.clear();
        }
        memory.hasher.hash_one((whose, text))
    });
    if MEMORY.with_borrow(|memory| memory.clean.contains(&hash)) {
        return None;
    }
    let places = places(recorder, whose, words).ok()?;
    if places.is_empty() {
        MEMORY.with_borrow_mut(|memory| {
            if memory.clean.len() >= MOST_REMEMBERED {
                memory.clean.clear();
            }
            memory.clean.insert(hash);
        });
        return None;
    }
    Some(without(text, &places))
}

/// Where stored keys stand.
fn places(
    recorder: Recorder,
    whose: Whose,
    words: Vec<Candidate>,
) -> Result<Vec<(usize, usize)>, Error> {
    let (keys, owner) = (keys(recorder)?, recorder.owner());
    let words: Vec<((usize, usize), Secret)> =
        words.into_iter().map(|word| ((word.start, word.end), Secret::from(word.key))).collect();
    let mut places = Vec::new();
    for (version, key) in keys.each() {
        for (place, word) in &words {
            let fingerprint = key.fingerprint(word);
            let is_stored = match whose {
                Whose::Of(project) => {
                    store::values::is_stored(owner, project, version, &fingerprint)
                }
                Whose::Everybodys => {
                    !store::keys::by_fingerprints(owner, version, &[fingerprint]).is_empty()
                }
            };
            if is_stored {
                places.push(*place);
            }
        }
    }
    Ok(places)
}

/// The fingerprint keys, opened once while nothing changes.
pub(super) fn keys(recorder: Recorder) -> Result<Rc<FingerprintKeys>, Error> {
    if let Some(keys) = MEMORY.with_borrow(|memory| memory.keys.clone()) {
        return Ok(keys);
    }
    let keys = Rc::new(FingerprintKeys::all(recorder)?);
    MEMORY.with_borrow_mut(|memory| memory.keys = Some(keys.clone()));
    Ok(keys)
}

/// The text with a mask at each place.
fn without(text: &str, places: &[(usize, usize)]) -> String {
    let mut places = places.to_vec();
    places.sort_unstable();
    let (mut hidden, mut from) = (String::with_capacity(text.len()), 0);
    for (start, end) in places {
        if start >= from {
            hidden.push_str(&text[from..start]);
            hidden.push_str(MASK);
        }
        from = from.max(end);
    }
    hidden.push_str(&text[from..]);
    hidden
}
