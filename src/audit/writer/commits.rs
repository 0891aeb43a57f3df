//! Changes that act when they have committed, and not before: keys and callers that are let in
//! again, and values that were stored. Their events are recorded in pre-commit, and the commit may
//! still fail (docs/architecture.md#changing). A block acts at once, since it opens nothing.

use super::counters::Counters;
use super::transaction::now_or_later;
use super::values::Values;
use crate::anomaly::Watch;
use crate::id::KeyRef;
use crate::store;
use crate::trail::{AccessType, Bounded, CallerKind, Event, KeyVersion};
use std::collections::HashMap;

/// The most stored versions that wait. Of an import of more, the rest is not asked about.
const MOST: usize = 65_536;

/// What is opened once a transaction has committed.
#[derive(Clone, Copy)]
enum Opening {
    Key(KeyRef),
    Caller(CallerKind, Bounded<128>),
}

/// What waits for the end of its transaction.
#[derive(Default)]
pub(super) struct Awaited {
    openings: Vec<(u64, Opening)>,
    /// Versions whose values are asked about. Nobody waits for that: the beat is soon enough.
    stored: Vec<(u64, KeyVersion)>,
    /// The committed changes that were seen last.
    commits_seen: u64,
}

impl Awaited {
    /// Takes up a recorded event. A block takes back an unblocking of the same key that waits.
    pub(super) fn take_up(&mut self, event: &Event) {
        use AccessType::*;
        let (Some(txid), true) = (event.txid, event.success()) else { return };
        match (event.access_type, event.about_caller, event.key()) {
            (Unblock, Some((kind, subject)), _) => {
                self.openings.push((txid, Opening::Caller(kind, subject)));
            }
            (Unblock, None, Some(key)) => self.openings.push((txid, Opening::Key(key))),
            (Block, _, Some(key)) => self
                .openings
                .retain(|(_, waits)| !matches!(waits, Opening::Key(waiting) if *waiting == key)),
            (Store | Rotate | Import, _, Some(key)) if self.stored.len() < MOST => {
                let version = event.key_version.map(|number| KeyVersion { key, number });
                self.stored.extend(version.map(|version| (txid, version)));
            }
            _ => (),
        }
    }

    /// Waits also for what an earlier writer may not have asked about.
    pub(super) fn look_back(&mut self) {
        let lately = now_or_later("stored values are asked about", store::trail::stored_lately);
        self.stored.extend(lately.into_iter().flatten());
    }

    /// Whether somebody waits to be let in.
    pub(super) fn is_urgent(&self) -> bool {
        !self.openings.is_empty()
    }

    /// Whether a change has committed since the last look, for which somebody may wait.
    pub(super) fn has_news(&self, commits: u64) -> bool {
        self.is_urgent() && commits != self.commits_seen
    }

    /// Does what waited for transactions that have committed by now, and forgets what was rolled
    /// back.
    pub(super) fn act(
        &mut self,
        commits: u64,
        watch: &mut Watch,
        counters: &mut Counters,
        values: &mut Values,
    ) {
        self.commits_seen = commits;
        let opening = self.openings.iter().map(|(txid, _)| *txid);
        let mut txids: Vec<u64> =
            opening.chain(self.stored.iter().map(|(txid, _)| *txid)).collect();
        txids.dedup();
        if txids.is_empty() {
            return;
        }
        let ended = now_or_later("changes act", |owner| store::trail::ended(owner, &txids));
        let ended: HashMap<u64, bool> = ended.into_iter().flatten().collect();
        for opening in taken(&mut self.openings, &ended) {
            match opening {
                Opening::Key(key) => {
                    watch.unblock(&key);
                    counters.unblock(key);
                }
                Opening::Caller(kind, subject) => {
                    watch.unblock_caller(kind, subject.get().unwrap_or_default());
                    counters.unblock_caller(kind, subject);
                }
            }
        }
        taken(&mut self.stored, &ended).into_iter().for_each(|version| values.ask(version));
    }
}

/// Takes out what waited for transactions that have ended. Answers that of committed ones.
fn taken<T: Copy>(waiting: &mut Vec<(u64, T)>, ended: &HashMap<u64, bool>) -> Vec<T> {
    let committed = waiting.iter().filter(|(txid, _)| ended.get(txid) == Some(&true));
    let committed = committed.map(|(_, what)| *what).collect();
    waiting.retain(|(txid, _)| !ended.contains_key(txid));
    committed
}
