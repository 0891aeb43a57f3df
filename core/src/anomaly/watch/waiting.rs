//! What waits to be written: findings, first meetings, keys that woke, busiest minutes of callers.
//! What could not be written is put back.

use super::{MAX_WAITING, Meeting, Watch, WatchFinding};
use crate::anomaly::callers::Peak;
use crate::anomaly::subject::Subject;
use crate::id::KeyRef;
use crate::moment::Moment;

impl Watch {
    /// Findings since the last time.
    pub fn take_findings(&mut self) -> Vec<WatchFinding> {
        std::mem::take(&mut self.findings)
    }

    /// Puts back findings that could not be written.
    pub fn put_back(&mut self, findings: Vec<WatchFinding>) {
        self.findings.splice(0..0, findings);
    }

    /// Callers that met a key, at most `most` of them.
    pub fn take_meetings(&mut self, most: usize) -> Vec<Meeting> {
        self.meetings.drain(..most.min(self.meetings.len())).collect()
    }

    /// Keeps meetings that could not be written.
    pub fn put_back_meetings(&mut self, meetings: Vec<Meeting>) {
        self.meetings.splice(0..0, meetings);
    }

    /// Keys that were not used for a day, and the time of their new use.
    pub fn take_woken(&mut self) -> Vec<(KeyRef, Moment)> {
        std::mem::take(&mut self.woken)
    }

    /// Keeps woken keys that could not be looked up.
    pub fn put_back_woken(&mut self, woken: Vec<(KeyRef, Moment)>) {
        self.woken.splice(0..0, woken);
    }

    /// Keeps busiest minutes that could not be written.
    pub fn put_back_peaks(&mut self, peaks: &[Peak]) {
        peaks.iter().for_each(|peak| self.callers.put_back(peak));
    }

    /// At most so many busiest minutes that changed since they were last asked for.
    pub fn changed_peaks(&mut self, most: usize) -> Vec<Peak> {
        self.callers.changed(most)
    }

    /// Whether findings wait to be written.
    pub fn has_findings(&self) -> bool {
        !self.findings.is_empty()
    }

    /// Adds a finding that was made elsewhere: in the tables.
    pub fn add_finding(&mut self, finding: WatchFinding) {
        if finding.blocks {
            match &finding.subject {
                Subject::Key(key) => self.blocked.insert(*key),
                Subject::Caller(kind, name) => {
                    self.blocked_callers[*kind as usize].insert(name.clone())
                }
            };
        }
        if self.findings.len() < MAX_WAITING {
            self.findings.push(finding);
        } else {
            self.lost += 1;
        }
    }
}
