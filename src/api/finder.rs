//! The step shared by recipes that search a text for keys: by shape, and by fingerprint for those
//! that are ours. A `Finder` holds the fingerprint keys for one call. For long texts it also holds
//! all stored fingerprints.

use super::fingerprints::FingerprintKeys;
use crate::audit::Recorder;
use crate::crypto::Secret;
use crate::error::Error;
use crate::extra_patterns;
use crate::id::{KeyRef, ProjectId, ProviderKeyId};
use crate::input::ShownKey;
use crate::postgres::process;
use crate::redact::{self, Candidate, ExtraPatterns, Finding};
use crate::store;
use crate::store::keys::Known;
use crate::trail::KeyVersion;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashSet};

/// The most keys of one text: some 30 MB of answers.
const MOST_FOUND: usize = 100_000;
/// How many candidates have their fingerprints compared at a time.
const AT_ONCE: usize = 1000;
/// The most fingerprints kept in memory, 8 bytes of each: 20 MB. If there are more keys, each
/// candidate is looked up.
const MOST_KEPT: usize = 1_000_000;

/// A key found in a text. Offsets in bytes.
pub(super) struct Found {
    pub provider: Option<String>,
    pub kind: &'static str,
    pub start: usize,
    pub end: usize,
    pub redacted: ShownKey,
    /// Which of our keys it is, one `Found` each.
    pub ours: Option<StoredAs>,
    /// Its fingerprint: equal for equal keys, and tells nothing.
    pub fingerprint: [u8; 32],
}

/// Where a key is stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StoredAs {
    pub key: ProviderKeyId,
    pub project: ProjectId,
    pub version: i32,
}

impl StoredAs {
    /// The same, as an incident names it.
    pub(super) fn version(self) -> KeyVersion {
        KeyVersion { key: KeyRef { project: self.project, key: self.key }, number: self.version }
    }
}

/// What finds keys during one call.
pub(super) struct Finder {
    recorder: Recorder,
    keys: FingerprintKeys,
    stored: Option<HashSet<[u8; 8]>>,
    /// Patterns that count beside the rules, for scans.
    extra: Option<&'static ExtraPatterns>,
}

/// The places in a text where keys of ours stand. Each has its fingerprint and the stored keys it
/// is, with their providers.
type Ours = BTreeMap<(usize, usize), ([u8; 32], Vec<(StoredAs, String)>)>;

impl Finder {
    /// Opens the fingerprint keys.
    pub(super) fn new(recorder: Recorder) -> Result<Finder, Error> {
        let keys = FingerprintKeys::all(recorder)?;
        Ok(Finder { recorder, keys, stored: None, extra: None })
    }

    /// For scans. Every word of texts of megabytes is compared in memory first, and extra patterns
    /// count.
    pub(super) fn for_scans(recorder: Recorder) -> Result<Finder, Error> {
        let stored = store::leaks::fingerprints(recorder.owner(), MOST_KEPT)
            .map(|all| all.into_iter().collect());
        Ok(Finder { stored, extra: extra_patterns::in_force(), ..Finder::new(recorder)? })
    }

    /// The keys in a text, in order. More than `MOST_FOUND` are refused (54000).
    pub(super) fn find(&self, text: &str) -> Result<Vec<Found>, Error> {
        let ours = self.ours(text)?;
        let mut found: Vec<Found> = ours
            .iter()
            .flat_map(|((start, end), (fingerprint, keys))| {
                keys.iter().map(move |key| (*start, *end, *fingerprint, key))
            })
            .map(|(start, end, fingerprint, (key, provider))| Found {
                provider: Some(provider.clone()),
                kind: kind_at(text, start, end).unwrap_or("stored key"),
                start,
                end,
                redacted: ShownKey::of(&text[start..end]),
                ours: Some(*key),
                fingerprint,
            })
            .collect();
        // No place of ours lies within another. So among the places that begin before `end`, the
        // last one also ends last.
        let is_ours = |finding: &Finding| {
            ours.range(..(finding.end, 0))
                .next_back()
                .is_some_and(|((_, to), _)| finding.start < *to)
        };
        let others = redact::first_findings(text, self.extra, MOST_FOUND + 1);
        if others.len() > MOST_FOUND {
            return Err(Error::TooLarge("the list of keys in the text"));
        }
        let foreign = others.into_iter().filter(|finding| !is_ours(finding));
        found.extend(foreign.map(|finding| Found {
            provider: finding.provider.map(str::to_owned),
            kind: finding.kind,
            start: finding.start,
            end: finding.end,
            redacted: ShownKey::found(text, &finding),
            ours: None,
            fingerprint: self.fingerprint(&text[finding.start..finding.end]),
        }));
        found.sort_by_key(|found| (found.start, found.end));
        Ok(found)
    }

    /// The fingerprint of a key under the newest fingerprint key.
    fn fingerprint(&self, key: &str) -> [u8; 32] {
        let secret = Secret::new(key.as_bytes().to_vec());
        self.keys.current().map_or([0; 32], |(_, newest)| newest.fingerprint(&secret))
    }

    /// The stored versions of these keys. For each: the number of the key, its fingerprint, and
    /// where it is stored.
    fn known(&self, secrets: &[Secret]) -> Vec<(usize, [u8; 32], Known)> {
        let mut all = Vec::new();
        for (version, key) in self.keys.each() {
            let may_be = |fingerprint: &[u8; 32]| {
                let beginning = fingerprint.first_chunk::<8>();
                self.stored.as_ref().is_none_or(|stored| {
                    beginning.is_some_and(|beginning| stored.contains(beginning))
                })
            };
            let fingerprints = secrets.iter().map(|secret| key.fingerprint(secret)).enumerate();
            let wanted: Vec<(usize, [u8; 32])> =
                fingerprints.filter(|(_, fingerprint)| may_be(fingerprint)).collect();
            if wanted.is_empty() {
                continue;
            }
            let fingerprints: Vec<[u8; 32]> =
                wanted.iter().map(|(_, fingerprint)| *fingerprint).collect();
            for known in store::keys::by_fingerprints(self.recorder.owner(), version, &fingerprints)
            {
                let same = wanted
                    .iter()
                    .filter(|(_, fingerprint)| fingerprint.as_slice() == known.fingerprint);
                all.extend(
                    same.map(|(number, fingerprint)| (*number, *fingerprint, known.clone())),
                );
            }
        }
        all
    }

    /// The places in a text where keys of ours stand, whatever their shape and spelling.
    fn ours(&self, text: &str) -> Result<Ours, Error> {
        let mut ours = Ours::new();
        let mut candidates = redact::candidates(text);
        loop {
            process::check_interrupts();
            let some: Vec<Candidate> = candidates.by_ref().take(AT_ONCE).collect();
            if some.is_empty() {
                return Ok(innermost(ours));
            }
            let places: Vec<(usize, usize)> =
                some.iter().map(|candidate| (candidate.start, candidate.end)).collect();
            let secrets: Vec<Secret> =
                some.into_iter().map(|candidate| Secret::from(candidate.key)).collect();
            for (number, fingerprint, known) in self.known(&secrets) {
                let keys = &mut ours.entry(places[number]).or_insert((fingerprint, vec![])).1;
                keys.push((stored_as(&known), known.provider));
            }
            if ours.len() > MOST_FOUND {
                return Err(Error::TooLarge("the list of keys in the text"));
            }
        }
    }
}

/// Where this version of a key is stored.
fn stored_as(known: &Known) -> StoredAs {
    StoredAs { key: known.key, project: known.project, version: known.version }
}

/// If one key is found at several places that contain each other, only the shortest stays: the one
/// without punctuation around it.
fn innermost(mut ours: Ours) -> Ours {
    // Sorted from the last beginning to the first, and for equal beginnings the shortest first. So
    // a place that contains another comes after it.
    let mut places: Vec<(usize, usize)> = ours.keys().copied().collect();
    places.sort_by_key(|(start, end)| (Reverse(*start), *end));
    let mut nearest = usize::MAX;
    for place in places {
        if nearest <= place.1 {
            ours.remove(&place);
        }
        nearest = nearest.min(place.1);
    }
    // A key may have had the same value in several versions. The last of them stands for all.
    for (_, keys) in ours.values_mut() {
        keys.sort_by_key(|(stored, _)| (stored.key, Reverse(stored.version)));
        keys.dedup_by_key(|(stored, _)| stored.key);
    }
    ours
}

/// The kind of the rule that sees a key at this place.
fn kind_at(text: &str, start: usize, end: usize) -> Option<&'static str> {
    redact::findings(&text[start..end]).next().map(|finding| finding.kind)
}
