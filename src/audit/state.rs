//! What `status()` and the doctor show of queue, writer and keyring. It only reads: it starts
//! nothing and waits for nothing.

use super::queue::{self, Slot, WriterState};
use crate::moment::Span;
use crate::postgres::{clock, process, session};
use crate::settings;
use crate::shared_keyring;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

/// What `status()` shows of queue, writer and keyring.
#[derive(Default)]
pub(crate) struct State {
    pub preloaded: bool,
    pub writer_state: String,
    pub writer_pid: Option<i32>,
    pub starts: u64,
    pub queue_size: usize,
    pub waiting: u64,
    pub batches: u64,
    pub events: u64,
    pub failed: u64,
    pub writer_problem: Option<String>,
    pub active_version: Option<i32>,
    pub versions: Vec<i32>,
    pub keyring_problem: Option<String>,
    /// Whether the vault was called since the server started. If not, nothing is known, and nothing
    /// is wrong.
    pub called: bool,
    /// Why the writer may not serve.
    pub problem: Option<String>,
    /// Why it will not from some day on.
    pub days_problem: Option<String>,
}

/// The state of this database's queue, writer and keyring.
pub(crate) fn state() -> State {
    if !queue::exists() {
        return State { writer_state: "absent".into(), ..State::default() };
    }
    let idle = State {
        preloaded: true,
        writer_state: "absent".into(),
        queue_size: queue::capacity(),
        ..State::default()
    };
    let Some(number) = queue::find(session::database().to_u32()) else {
        let full = "every database slot is in use; raise watchllm_keys.max_databases";
        return State { problem: (!queue::has_room()).then(|| full.into()), ..idle };
    };
    let slot = queue::slot(number);
    let count = |counter: &AtomicU64| counter.load(SeqCst);
    let pid = slot.writer_pid.load(SeqCst);
    State {
        writer_state: format!("{:?}", slot.state()).to_lowercase(),
        writer_pid: (pid != 0).then_some(pid),
        starts: count(&slot.starts),
        waiting: slot.waiting(),
        batches: count(&slot.batches),
        events: count(&slot.events),
        failed: count(&slot.failed),
        writer_problem: slot.problem(),
        active_version: shared_keyring::active_version(number),
        versions: shared_keyring::versions(number)
            .into_iter()
            .filter(|(_, ready)| *ready)
            .map(|(v, _)| v)
            .collect(),
        keyring_problem: shared_keyring::last_problem(number).map(|problem| problem.message()),
        called: true,
        problem: problem(slot),
        days_problem: slot.days_problem(),
        ..idle
    }
}

/// Why the writer of this slot may not serve.
fn problem(slot: &Slot) -> Option<String> {
    let since = clock::now() - Span::of(settings::audit_timeout());
    let no_worker_is_free = || {
        let (running, room) = process::worker_slots();
        running >= room
    };
    if slot.is_stuck_since(since) {
        Some("events wait longer than audit_timeout: the audit writer does not answer".into())
    } else if slot.state() == WriterState::Absent && no_worker_is_free() {
        Some("no worker slot is free for the audit writer; raise max_worker_processes".into())
    } else {
        None
    }
}
