//! Starts the writer of a database when a caller needs it. Whoever waits may start it. PostgreSQL
//! restarts a worker after a second at the earliest, while this takes milliseconds
//! (docs/facts.md#the-durable-audit-writer).

use super::queue::{self, WriterState};
use crate::crypto::random;
use crate::error::Error;
use crate::moment::{Moment, Span};
use crate::postgres::{clock, process, session};
use pgrx::bgworkers::BackgroundWorkerBuilder;
use pgrx::pg_sys::Datum;
use std::sync::atomic::Ordering::*;
use std::time::{Duration, Instant};

/// The writer's pg_stat_activity.backend_type.
pub(super) const WRITER: &str = "watchllm_keys writer";

/// A writer that has not reported after this time has died.
const STALE: Span = Span::seconds(3);
/// A writer that ended so soon after its start is not followed at once.
const PAUSE: Span = Span::new(100_000);

/// This database's slot.
pub(super) fn claim() -> Result<usize, Error> {
    let database = session::database().to_u32();
    if let Some(known) = queue::find(database) {
        return Ok(known);
    }
    let fresh =
        random::random_bytes::<8>().map_err(|_| Error::Internal("no random bytes".into()))?;
    let epoch = i64::from_be_bytes(fresh) & i64::MAX;
    queue::claim(database, epoch).ok_or_else(|| {
        Error::AuditUnavailable(
            "every database slot is in use; raise watchllm_keys.max_databases".into(),
        )
    })
}

/// Waits until the slot's writer serves. Starts it if there is none.
pub(super) fn await_writer(number: usize, deadline: Instant) -> Result<(), Error> {
    let slot = queue::slot(number);
    let mut why = "the audit writer does not start";
    while slot.state() != WriterState::Running {
        if may_start(slot) && !start(number) {
            slot.state.store(WriterState::Absent as u32, SeqCst);
            why = "no worker slot is free for the audit writer; raise max_worker_processes";
        }
        if Instant::now() > deadline {
            let problem = slot.problem().map_or(String::new(), |problem| format!(": {problem}"));
            return Err(Error::AuditUnavailable(format!("{why}{problem}")));
        }
        process::sleep(Duration::from_millis(2));
        process::check_interrupts();
    }
    Ok(())
}

/// Waits until the slot's writer serves the vault with this trail. A vault that was removed and
/// installed again has another keyring, other keys and another chain, so its writer starts anew.
pub(super) fn await_vault(number: usize, trail: u32, deadline: Instant) -> Result<(), Error> {
    let slot = queue::slot(number);
    loop {
        await_writer(number, deadline)?;
        if slot.vault.load(SeqCst) == trail {
            return Ok(());
        }
        slot.look_again.store(1, SeqCst);
        slot.writer.wake();
        if Instant::now() > deadline {
            return Err(Error::AuditUnavailable(
                "the audit writer still serves the vault that was here before".into(),
            ));
        }
        process::sleep(Duration::from_millis(2));
        process::check_interrupts();
    }
}

/// Whether this process is the one that may start it now.
fn may_start(slot: &queue::Slot) -> bool {
    let now = clock::now();
    slot.locked(|| {
        let age = now - Moment::new(slot.started_at.load(Acquire));
        let may = match slot.state() {
            WriterState::Running => false,
            WriterState::Starting => age > STALE,
            WriterState::Absent => age > PAUSE,
        };
        if may {
            slot.state.store(WriterState::Starting as u32, SeqCst);
            slot.started_at.store(now.micros(), Release);
        }
        may
    })
}

fn start(number: usize) -> bool {
    let argument = u64::from(session::database().to_u32()) << 32 | number as u64;
    BackgroundWorkerBuilder::new(WRITER)
        .set_type(WRITER)
        .set_library("watchllm_keys")
        .set_function("watchllm_keys_writer")
        .set_argument(Some(Datum::from(argument as usize)))
        .enable_spi_access()
        .set_restart_time(None)
        .load_dynamic()
        .is_ok()
}
