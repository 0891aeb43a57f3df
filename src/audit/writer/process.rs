//! The writer as a process of the server: how it starts, reads its settings, reports and ends.
//! Unsafe lives here. It connects as the bootstrap superuser, as workers do. It leaves by proc_exit
//! only: anything else restarts the server (docs/facts.md).

use super::transaction::transaction;
use crate::audit::queue::{self, WriterState};
use crate::postgres::{process, session};
use crate::settings;
use pgrx::{pg_guard, pg_sys};
use std::sync::atomic::Ordering::*;

// SAFETY: both are PostgreSQL's own functions, with these very signatures.
unsafe extern "C-unwind" {
    /// PostgreSQL's own SIGTERM handler, which also ends a wait for a lock. pgrx wraps it in Rust's
    /// ABI.
    #[link_name = "die"]
    fn pg_die(signal: i32);
    #[link_name = "SignalHandlerForConfigReload"]
    fn pg_reload(signal: i32);
}

/// Connects this process to the database as the one writer of its slot, or leaves.
pub(super) fn connect(database: u32, slot_number: usize) {
    // SAFETY: signal handlers are PostgreSQL's own; called once at the start of the process.
    unsafe {
        pg_sys::pqsignal(pg_sys::SIGTERM as i32, Some(pg_die));
        pg_sys::pqsignal(pg_sys::SIGHUP as i32, Some(pg_reload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
    if !queue::exists() || !be_the_only_one(database, slot_number) {
        leave();
    }
    // SAFETY: registered before anything can fail, so that the slot is always handed over; then
    // connects.
    unsafe {
        pg_sys::before_shmem_exit(Some(hand_over), pg_sys::Datum::from(slot_number));
        pg_sys::BackgroundWorkerInitializeConnectionByOid(
            pg_sys::Oid::from(database),
            pg_sys::InvalidOid,
            0,
        );
    }
    own_settings();
}

fn be_the_only_one(database: u32, slot_number: usize) -> bool {
    let slot = queue::slot(slot_number);
    slot.locked(|| {
        let free = slot.database.load(Acquire) == database && slot.writer_pid.load(Acquire) == 0;
        if free {
            slot.writer_pid.store(process::backend_pid(), Release);
        }
        free
    })
}

/// Runs when the writer ends, for whatever reason. The slot becomes free, and waiting callers start
/// a new writer.
#[pg_guard]
unsafe extern "C-unwind" fn hand_over(_code: i32, argument: pg_sys::Datum) {
    let slot = queue::slot(argument.value());
    if slot.writer_pid.load(Acquire) == process::backend_pid() {
        slot.writer_pid.store(0, Release);
        slot.state.store(WriterState::Absent as u32, SeqCst);
    }
    queue::wake_all_waiting();
}

pub(super) fn leave() -> ! {
    // SAFETY: ends this process in PostgreSQL's order; 0: it is not to be restarted.
    unsafe { pg_sys::proc_exit(0) }
}

/// Reads the server's configuration again, if that was requested. Answers whether it was.
pub(super) fn reread_configuration() -> bool {
    // SAFETY: process-local flags; the configuration is read outside any transaction, as
    // PostgreSQL's workers do.
    let pending = unsafe {
        let pending = pg_sys::ConfigReloadPending != 0;
        if pending {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
        pending
    };
    if pending {
        own_settings();
    }
    pending
}

/// Settings of the writer that no ALTER DATABASE or configuration may change.
fn own_settings() {
    let lock_timeout = (settings::audit_timeout().as_millis() / 3).clamp(50, 1000).to_string();
    let asynchronous = session::setting(c"synchronous_commit")
        .is_some_and(|value| value == "off" || value == "local");
    let fixed = [
        (c"search_path", "pg_catalog, pg_temp"),
        (c"default_transaction_read_only", "off"),
        (c"default_transaction_isolation", "read committed"),
        (c"default_transaction_deferrable", "off"),
        (c"lock_timeout", lock_timeout.as_str()),
        (c"statement_timeout", "0"),
        (c"idle_in_transaction_session_timeout", "0"),
        (c"row_security", "on"),
        // Event triggers and triggers of applications are silent then, unless somebody made them
        // fire always. Ours always do. So a day of the trail can be made whatever the application
        // forbids itself.
        (c"session_replication_role", "replica"),
        (c"jit", "off"),
        (c"default_tablespace", ""),
        (c"exit_on_error", "off"),
    ];
    for (name, value) in fixed {
        session::override_setting(name, value);
    }
    if asynchronous {
        session::override_setting(c"synchronous_commit", "on");
    }
}

/// Passes statistics to PostgreSQL, and shows in pg_stat_activity that the writer is idle.
pub(super) fn report() {
    // SAFETY: outside a transaction, as PostgreSQL's workers report.
    unsafe {
        pg_sys::pgstat_report_stat(true);
        pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
    }
}

/// Tries, without waiting, the lock that every connection takes. DROP, RENAME and TEMPLATE hold a
/// lock against it.
pub(super) fn somebody_wants_the_database() -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: 0,
        locktag_field2: pg_sys::DatabaseRelationId.to_u32(),
        locktag_field3: session::database().to_u32(),
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    transaction(|| {
        // SAFETY: a lock of this transaction, released at its end; dontWait.
        let got =
            unsafe { pg_sys::LockAcquire(&tag, pg_sys::RowExclusiveLock as i32, false, true) };
        Ok(got == pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL)
    })
    .unwrap_or(false)
}
