//! Scans for leaked keys: of a table, of the server log, of the database's definitions. Each reads
//! as the caller, and only what the caller may read. It answers a row per key and place, never a
//! key, and raises an incident for each new one. The common steps are here.

mod database;
mod log;
mod table;

use crate::alarms::AlarmSource;
use crate::api::access::Access;
use crate::api::finder::{Finder, Found, StoredAs};
use crate::audit::commit;
use crate::audit::queue::leaks;
use crate::caller::Context;
use crate::error::Error;
use crate::id::IncidentId;
use crate::input::{Back, PlaceName, ShownKey, ShownName};
use crate::moment::Moment;
use crate::postgres::{clock, origin, process, session};
use crate::redact;
use crate::store;
use crate::trail::incident::kinds::{InClear, in_clear_id, key_in_clear, more_in_clear};
use crate::trail::{AccessType, Channel, FailureReason, Incident, Origin, Shown};
use pgrx::notice;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;

/// The most rows of an answer, for keys that are not ours and for ours. A scanned text may be an
/// attacker's, full of keys.
const MOST: usize = 10_000;
/// The most things passed over that are named. Anybody may have made thousands.
const MOST_NAMED: usize = 100;
/// A NOTICE reports the progress each time so much was searched: every few seconds.
const BYTES_PER_NOTICE: usize = 64 << 20;

/// The place of a text: the name that people see, and the name that its incidents are about. A log
/// file may be renamed and packed, but its keys are not new then.
struct Place {
    shown: PlaceName,
    identity: String,
}

impl Place {
    /// A place with this name, which may itself hold a key.
    fn named(name: &str) -> Place {
        Place { shown: PlaceName::clean(name), identity: name.to_owned() }
    }
}

/// A row of the answer: place, provider, kind, redacted, provider_key_id, occurrences, is_new.
type LeakRow = (String, Option<String>, String, String, Option<pgrx::Uuid>, i64, bool);

/// A key at a place, with the number of its occurrences.
struct KeyInClear {
    incident: IncidentId,
    provider: Option<ShownName>,
    kind: &'static str,
    redacted: ShownKey,
    occurrences: i64,
}

/// One scan.
struct Scan {
    access: Access,
    finder: Finder,
    /// The function.
    source: Channel,
    leaks: BTreeMap<(Option<StoredAs>, PlaceName, [u8; 32]), KeyInClear>,
    ours: usize,
    /// The number of keys found beyond the rows of the answer.
    more: i64,
    searched: usize,
    /// What was passed over, with a NOTICE for the first.
    passed: usize,
}

/// Begins a call of a caller that passes `may`. Refusals are recorded.
fn begin(may: fn(&Access) -> Result<(), Error>) -> Result<Access, Error> {
    let access = Access::begin_with_key(AccessType::Validate, Context::default(), None)?;
    may(&access)?;
    if session::is_read_only() {
        let hint = "Call it outside of a read-only transaction.";
        return Err(access.refuse(
            FailureReason::BadInput,
            Error::BadInput("a scan writes down what it finds", hint),
        ));
    }
    Ok(access)
}

impl Scan {
    /// Begins to search, on record.
    fn new(access: Access, source: Channel) -> Result<Scan, Error> {
        let _recorded = access.record()?;
        let finder = Finder::for_scans(access.recorder)?;
        Ok(Scan {
            access,
            finder,
            source,
            leaks: BTreeMap::new(),
            ours: 0,
            more: 0,
            searched: 0,
            passed: 0,
        })
    }

    /// Searches a text of any length, piece by piece. The place may be looked up only when a key is
    /// found.
    fn search<P: Deref<Target = Place>>(&mut self, place: P, text: &[u8]) -> Result<(), Error> {
        let mut from = 0;
        while let Some(piece) = redact::piece(&text[from..], true).filter(|_| from < text.len()) {
            self.search_piece(&place, &text[from..from + piece.end], piece.next)?;
            from += piece.next;
        }
        Ok(())
    }

    /// Searches a piece. A key that begins at `next` or later is searched with the next piece.
    fn search_piece<P: Deref<Target = Place>>(
        &mut self,
        place: &P,
        piece: &[u8],
        next: usize,
    ) -> Result<(), Error> {
        process::check_interrupts();
        let text = String::from_utf8_lossy(piece);
        // Bytes that are no UTF-8 are replaced by longer ones.
        let next = if next >= piece.len() {
            text.len()
        } else {
            String::from_utf8_lossy(&piece[..next]).len()
        };
        for found in self.finder.find(&text)?.into_iter().filter(|found| found.start < next) {
            self.note(place, found);
        }
        let before = self.searched / BYTES_PER_NOTICE;
        self.searched += piece.len();
        if self.searched / BYTES_PER_NOTICE > before {
            let (megabytes, count) = (self.searched >> 20, self.leaks.len());
            notice!(
                "{}: {megabytes} MB searched, {count} keys found; now at {}",
                self.source.word(),
                place.shown.as_str()
            );
        }
        Ok(())
    }

    /// Says what was not searched, because that differs from finding nothing. `what` is clean text.
    fn pass_over(&mut self, what: &str, why: &str) {
        self.passed += 1;
        if self.passed <= MOST_NAMED {
            notice!("{}: not scanned: {what}: {why}", self.source.word());
        } else if self.passed == MOST_NAMED + 1 {
            notice!("{}: more is not scanned than is named", self.source.word());
        }
    }

    /// Notes a key that was found.
    fn note(&mut self, place: &Place, found: Found) {
        let key = (found.ours, place.shown.clone(), found.fingerprint);
        if let Some(leak) = self.leaks.get_mut(&key) {
            leak.occurrences += 1;
            return;
        }
        let count = if found.ours.is_some() { self.ours } else { self.leaks.len() - self.ours };
        if count >= MOST {
            self.more += 1;
            return;
        }
        self.ours += usize::from(found.ours.is_some());
        let ours = found.ours.map(StoredAs::version);
        let incident = in_clear_id(&place.identity, &found.fingerprint, ours);
        let provider = found.provider.map(|provider| ShownName::clean(&provider));
        let Found { kind, redacted, .. } = found;
        self.leaks.insert(key, KeyInClear { incident, provider, kind, redacted, occurrences: 1 });
    }

    /// The incident of a key that lies in clear at a place.
    fn incident_of(
        &self,
        ours: Option<StoredAs>,
        place: &PlaceName,
        leak: &KeyInClear,
    ) -> Incident {
        let found = InClear {
            source: self.source.word(),
            place,
            provider: leak.provider.as_ref().map(|provider| provider as &dyn Shown),
            kind: leak.kind,
            redacted: &leak.redacted,
            occurrences: leak.occurrences,
            ours: ours.map(StoredAs::version),
        };
        key_in_clear(leak.incident, &found, clock::now())
    }

    /// The new incidents that are within their sources' budgets. Ours come first, then a key of
    /// each place in turn, so that one place full of keys does not hide the others.
    fn admitted(&self) -> (BTreeSet<IncidentId>, BTreeSet<IncidentId>) {
        let owner = self.access.recorder.owner();
        let mut rounds: BTreeMap<(bool, &PlaceName), u32> = BTreeMap::new();
        let mut order = Vec::with_capacity(self.leaks.len());
        for ((ours, place, _), leak) in &self.leaks {
            let round = rounds.entry((ours.is_some(), place)).or_default();
            order.push((ours.is_none(), *round, leak.incident, *ours));
            *round += 1;
        }
        order.sort_unstable();
        order.dedup_by_key(|(.., incident, _)| *incident);
        let (mut new, mut admitted) = (BTreeSet::new(), BTreeSet::new());
        let database = session::database().to_u32();
        for (_, _, incident, ours) in order {
            if store::leaks::is_known(owner, incident) || !new.insert(incident) {
                continue;
            }
            let origin =
                ours.map_or_else(origin, |ours| Origin::Project(ours.version().key.project));
            if leaks::may_raise(
                &AlarmSource { origin, database, channel: self.source },
                clock::now(),
            ) {
                admitted.insert(incident);
            }
        }
        (new, admitted)
    }

    /// Raises the incidents that are new, and answers the rows, ours first. A key over the budget
    /// is new all the same.
    fn finish(self) -> Vec<LeakRow> {
        let (mut new, admitted) = self.admitted();
        let mut incidents: BTreeMap<IncidentId, Incident> = BTreeMap::new();
        for ((ours, place, _), leak) in &self.leaks {
            if admitted.contains(&leak.incident) {
                let incident = || self.incident_of(*ours, place, leak);
                incidents.entry(leak.incident).or_insert_with(incident);
            }
        }
        // In the order of their ids, so that two scans at once never wait for each other.
        for (id, incident) in incidents {
            if !raise(&self.access, &incident) {
                new.remove(&id);
            }
        }
        let is_new = |leak: &KeyInClear| new.contains(&leak.incident);
        let mut rows: Vec<LeakRow> = Vec::with_capacity(self.leaks.len() + 1);
        let of =
            |((ours, place, _), leak): (&(Option<StoredAs>, PlaceName, [u8; 32]), &KeyInClear)| {
                let key = ours.map(|ours| store::uuid(ours.key));
                let place = place.clone().into_string();
                let provider = leak.provider.clone().map(ShownName::into_string);
                let (kind, redacted) = (leak.kind.to_owned(), leak.redacted.clone().into_string());
                (place, provider, kind, redacted, key, leak.occurrences, is_new(leak))
            };
        rows.extend(self.leaks.iter().filter(|((ours, ..), _)| ours.is_some()).map(of));
        rows.extend(self.leaks.iter().filter(|((ours, ..), _)| ours.is_none()).map(of));
        if self.more > 0 {
            let is_new = raise(&self.access, &more_in_clear(self.source.word(), clock::now()));
            rows.push((
                "elsewhere".into(),
                None,
                "more keys".into(),
                redact::MASK.into(),
                None,
                self.more,
                is_new,
            ));
        }
        rows
    }
}

/// Whether the incident is new; then listeners are told once this transaction has committed.
fn raise(access: &Access, incident: &Incident) -> bool {
    let is_new = store::incidents::insert(access.recorder.owner(), incident);
    if is_new {
        commit::announce(access.recorder, incident.notice());
    }
    is_new
}

/// The moment that lies this far back.
fn back(access: &Access, since: pgrx::datum::Interval) -> Result<Moment, Error> {
    Ok(access.accept(Back::parse(since.as_micros()))?.before(clock::now()))
}
