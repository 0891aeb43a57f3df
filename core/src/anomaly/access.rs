//! What goes into the watch and what comes out: an access to count, a finding for people, a caller
//! that met a key. Accesses are made from events (trail/event). The writer stores the results
//! (audit/writer/findings).

use super::detector::Detector;
use super::subject::Subject;
use crate::id::{IncidentId, KeyRef};
use crate::moment::Moment;
use crate::trail::incident::kinds::{Anomaly, anomaly};
use crate::trail::{AccessType, CallerKind, Counted, Event, Incident};
use std::rc::Rc;

/// An access to a key by somebody with the right, as it is counted.
#[derive(Clone, Copy)]
pub struct KeyAccess<'a> {
    /// When it happened.
    pub at: Moment,
    /// The key.
    pub key: KeyRef,
    /// What was attempted.
    pub access_type: AccessType,
    /// How it counts.
    pub counted: Counted,
    /// Role, trusted subject and address, by `CallerKind`.
    pub callers: [Option<&'a str>; 3],
}

impl<'a> KeyAccess<'a> {
    /// None: the event counts for no key.
    pub fn of(event: &'a Event) -> Option<KeyAccess<'a>> {
        let key = event.key()?;
        let subject = event.claims_sub.get().filter(|_| event.claims_trusted);
        let callers = [event.session_role.get(), subject, event.client_addr.get()];
        let callers = callers.map(|name| name.filter(|name| !name.is_empty()));
        let (access_type, counted) = (event.access_type, event.counts()?);
        Some(KeyAccess { at: event.accessed_at, key, access_type, counted, callers })
    }
}

/// Something that a person must look at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WatchFinding {
    /// The incident that tells of it.
    pub incident: IncidentId,
    /// The detector that found it.
    pub detector: Detector,
    /// The key or caller it is about.
    pub subject: Subject,
    /// When its episode began.
    pub began: Moment,
    /// How many were counted.
    pub observed: u32,
    /// How many were allowed.
    pub limit: u32,
    /// The key or the caller is blocked from this access on.
    pub blocks: bool,
    /// When it ended, and how many accesses it had.
    pub ended: Option<(Moment, u64)>,
}

impl WatchFinding {
    /// The incident it is.
    pub fn to_incident(&self) -> Incident {
        let detector = self.detector;
        let is_dormant = detector == Detector::DormantKey;
        let found = Anomaly {
            kind: detector.incident_type(),
            severity: detector.severity(),
            what: &detector.says(self.limit),
            whom: self.subject.whom(),
            count: detector.window().map(|window| (window.word(), self.observed, self.limit)),
            days_asleep: is_dormant.then_some(self.observed),
            blocked: self.blocks,
        };
        anomaly(self.incident, &found, self.began)
    }
}

/// A caller that used a key and that today's writer did not know. The table knows whether it is
/// new.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Meeting {
    /// The key.
    pub key: KeyRef,
    /// What kind of caller it is.
    pub kind: CallerKind,
    /// The name of the caller.
    pub subject: Rc<str>,
    /// When it happened.
    pub at: Moment,
}
