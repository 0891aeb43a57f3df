//! Episodes: one finding for each. It begins with the access that crosses a limit, and ends when
//! half the limit is left.

use super::{Episode, MAX_WAITING, Watch, WatchFinding};
use crate::anomaly::counter::Window;
use crate::anomaly::detector::Detector;
use crate::anomaly::subject::Subject;
use crate::id::KeyRef;
use crate::moment::Moment;
use crate::trail::incident::kinds::episode_id;

impl Watch {
    /// Ends the episodes that are over `now`. While the counters are being filled, those of an hour
    /// or a day may only seem over.
    pub fn end_episodes(&mut self, now: Moment) {
        self.callers.forget(now);
        let is_whole =
            |detector: Detector| !self.is_filling || detector.window() == Some(Window::Minute);
        let subjects: Vec<(Detector, Subject)> =
            self.episodes.keys().filter(|(detector, _)| is_whole(*detector)).cloned().collect();
        for (detector, subject) in subjects {
            let (count, limit) = self.count_of(detector, &subject, now);
            if count > limit / 2 {
                continue;
            }
            self.flag(detector, &subject, false);
            if let Some(episode) = self.episodes.remove(&(detector, subject.clone())) {
                let ended = Some((now, episode.accesses));
                let (incident, began) = (episode.incident, episode.began);
                self.add_finding(WatchFinding {
                    incident,
                    detector,
                    subject,
                    began,
                    observed: count,
                    limit,
                    blocks: false,
                    ended,
                });
            }
        }
    }

    /// Continues the detector's open episode, or begins one.
    pub(super) fn judge_count(&mut self, id: KeyRef, at: Moment, flagged: u16, detector: Detector) {
        if flagged & detector.bit() != 0 {
            return self.continue_episode(detector, Subject::Key(id));
        }
        let Some(key) = self.keys.peek_mut(&id) else { return };
        let (observed, limit) = (key.count(detector, at), key.limits.of(detector));
        self.begin(detector, Subject::Key(id), at, observed, limit);
    }

    pub(super) fn begin(
        &mut self,
        detector: Detector,
        subject: Subject,
        at: Moment,
        observed: u32,
        limit: u32,
    ) {
        let incident = episode_id(detector.incident_type(), subject.whom(), at);
        let blocks = match &subject {
            Subject::Key(key) => self.blocks(detector, key),
            Subject::Caller(..) => self.rules.base.block(detector),
        };
        // If there is no room for its finding, the episode has not begun, and the next access tries
        // again.
        if self.findings.len() < MAX_WAITING {
            self.flag(detector, &subject, true);
            self.episodes
                .insert((detector, subject.clone()), Episode { incident, began: at, accesses: 1 });
        }
        self.add_finding(WatchFinding {
            incident,
            detector,
            subject,
            began: at,
            observed,
            limit,
            blocks,
            ended: None,
        });
    }

    pub(super) fn continue_episode(&mut self, detector: Detector, subject: Subject) {
        if let Some(episode) = self.episodes.get_mut(&(detector, subject)) {
            episode.accesses += 1;
        }
    }

    pub(super) fn flag(&mut self, detector: Detector, subject: &Subject, flagged: bool) {
        match subject {
            Subject::Key(id) => {
                if let Some(key) = self.keys.peek_mut(id) {
                    let others = key.flagged & !detector.bit();
                    key.flagged = if flagged { others | detector.bit() } else { others };
                }
            }
            Subject::Caller(kind, name) => {
                let place = if flagged {
                    self.callers.place(*kind, name)
                } else {
                    self.callers.find(*kind, name)
                };
                place.into_iter().for_each(|place| self.callers.flag(place, flagged));
            }
        }
    }

    /// The present count and the limit of an episode.
    fn count_of(&mut self, detector: Detector, subject: &Subject, now: Moment) -> (u32, u32) {
        match subject {
            Subject::Caller(kind, name) => {
                let base = &self.rules.base;
                self.callers.find(*kind, name).map_or((0, base.of(detector)), |place| {
                    let caller = self.callers.get(place);
                    (caller.distinct, caller.limit(base, now))
                })
            }
            Subject::Key(id) => {
                let stated = self.rules.of(id);
                self.keys.peek_mut(id).map_or((0, stated.of(detector)), |key| {
                    let limit = key.past.limits(stated, now.day()).of(detector);
                    (key.count(detector, now), limit)
                })
            }
        }
    }
}
