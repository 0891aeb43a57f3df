//! What other projects know of a value that was stored. The caller's own transaction asks its own
//! project alone, or it could ask whose key a text is and roll the question back. This asks after
//! the commit, with the same work for every value. A value that is known as leaked or blocked
//! elsewhere is marked here too, and only the staff is told.

use super::counters::Counters;
use super::transaction::now_or_later;
use crate::anomaly::Watch;
use crate::audit::queue::Slot;
use crate::moment::Moment;
use crate::postgres::{Owner, clock};
use crate::store;
use crate::store::values::Neighbour;
use crate::trail::incident::kinds::{KnownAs, known_value_stored};
use crate::trail::{Incident, KeyVersion, Notice};

/// Versions asked about in one transaction: about 5 ms, so an event waits at most that long.
const AT_ONCE: usize = 64;

/// The versions that are still to be asked about.
#[derive(Default)]
pub(super) struct Values(Vec<AskedVersion>);

/// A stored version, and when its commit was seen. A block that came later was of another key: it
/// blocks no twin that was there before.
#[derive(Clone, Copy)]
struct AskedVersion {
    version: KeyVersion,
    at: Moment,
}

/// What is known of a stored value.
struct Judged {
    version: KeyVersion,
    fingerprint: Vec<u8>,
    known: KnownAs,
    /// Another key of its project that is blocked has the same value.
    is_blocked: bool,
}

impl Values {
    /// Asks about a version that is committed.
    pub(super) fn ask(&mut self, version: KeyVersion) {
        self.0.push(AskedVersion { version, at: clock::now() });
    }

    /// Asks about the next versions, and acts on what is known of them.
    pub(super) fn judge(&mut self, slot: &Slot, watch: &mut Watch, counters: &mut Counters) {
        let part = &self.0[..self.0.len().min(AT_ONCE)];
        if part.is_empty() {
            return;
        }
        let outcome = now_or_later("stored values are asked about", |owner| {
            let judged: Vec<Judged> =
                part.iter().filter_map(|asked| judge(owner, *asked)).collect();
            let notices: Vec<Notice> =
                judged.iter().filter_map(|known| tell(owner, known)).collect();
            (judged, notices)
        });
        let Some((judged, notices)) = outcome else { return };
        self.0.drain(..self.0.len().min(AT_ONCE));
        slot.announce_all(notices);
        for known in judged {
            if known.is_blocked {
                watch.block(known.version.key);
                counters.block_again(known.version.key, clock::now());
            }
        }
    }
}

/// Asks about one version. None: nothing is known of its value, or it is gone.
fn judge(owner: Owner, AskedVersion { version, at }: AskedVersion) -> Option<Judged> {
    let is_blocked = |other: &Neighbour| other.blocked_at.is_some_and(|blocked| blocked <= at);
    let stored = store::values::of_version(owner, version)?;
    let near = store::values::near(owner, &stored);
    let same: Vec<&Neighbour> = near
        .iter()
        .filter(|other| other.version.key != version.key || other.is_leaked)
        .filter(|other| other.version != version && other.has(&stored))
        .collect();
    let is_leaked = same.iter().any(|other| other.is_leaked);
    let known = match same.iter().any(|other| is_blocked(other)) {
        _ if is_leaked => KnownAs::Leaked,
        true => KnownAs::Blocked,
        false => return None,
    };
    let own = |other: &&&Neighbour| other.version.key.project == version.key.project;
    let is_blocked = same.iter().filter(own).any(|other| is_blocked(other));
    Some(Judged { version, fingerprint: stored.fingerprint, known, is_blocked })
}

/// Has the version marked, and raises the incident. Answers whom to tell when it is new.
fn tell(owner: Owner, judged: &Judged) -> Option<Notice> {
    store::changes::write_mark_later(owner, judged.version);
    let incident: Incident =
        known_value_stored(judged.version, &judged.fingerprint, judged.known, clock::now());
    store::incidents::write(owner, &incident).then(|| incident.notice())
}
