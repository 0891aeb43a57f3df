//! The writer: one background worker per database takes events from the queue, commits them,
//! answers. Unsafe lives here: a server process of its own. It connects as the bootstrap superuser,
//! as workers do, but every statement runs as the owner of the tables in a restricted operation. It
//! leaves by proc_exit only (anything else restarts the server) and touches no row that a caller
//! can lock. FACTS §2, DESIGN §8.

mod batch;
mod counters;
mod findings;
mod keyring;
mod leaks;
mod rotation;
mod warm_up;

use crate::anomaly::{Refusals, Watch};
use crate::audit::queue::{self, Slot, WriterState};
use crate::audit::wakeup;
use crate::error::Error;
use crate::postgres::{process, session};
use crate::settings;
use batch::Chain;
use counters::Uses;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;
use pgrx::prelude::*;
use std::cell::RefCell;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::Ordering::*;
use std::time::{Duration, Instant};
use warm_up::WarmUp;

// SAFETY: both are PostgreSQL's own functions, with these very signatures.
unsafe extern "C-unwind" {
    /// PostgreSQL's own SIGTERM handler: also ends a wait for a lock. pgrx wraps it in Rust's ABI.
    #[link_name = "die"]
    fn pg_die(signal: i32);
    #[link_name = "SignalHandlerForConfigReload"]
    fn pg_reload(signal: i32);
}

/// How long the writer sleeps at most, and how often it looks whether somebody wants the database.
const BEAT: Duration = Duration::from_secs(1);
/// The same, while a block waits to be seen, or listeners wait to be told of an incident.
const SOON: Duration = Duration::from_millis(100);
/// The writer spins only within this time of its last event.
const BUSY: Duration = Duration::from_millis(5);

/// What a failed transaction said.
struct Failure {
    pub sqlstate: PgSqlErrorCode,
    pub message: String,
}

/// The writer of one database.
struct Writer {
    pub number: usize,
    pub slot: &'static Slot,
    pub chain: Option<Chain>,
    pub keyring: keyring::Loaded,
    pub uses: Uses,
    /// Refusals that are counted and not yet written, with the first one's place in the queue.
    pub refusals: Refusals<u64>,
    pub watch: Watch,
    pub warm_up: Option<WarmUp>,
    /// Changes of settings that this writer has taken up.
    settings_seen: u32,
    /// The limits could not be read when they changed.
    pub limits_are_late: bool,
    last_event: Instant,
    last_beat: Instant,
    /// Whether somebody wanted the database at the last beat.
    wanted: bool,
}

/// The worker's entry; `argument`: database oid in the high half, slot number in the low.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn watchllm_keys_writer(argument: pg_sys::Datum) {
    let (database, number) =
        ((argument.value() as u64 >> 32) as u32, argument.value() & 0xffff_ffff);
    // SAFETY: signal handlers are PostgreSQL's own; called once at the start of the process.
    unsafe {
        pg_sys::pqsignal(pg_sys::SIGTERM as i32, Some(pg_die));
        pg_sys::pqsignal(pg_sys::SIGHUP as i32, Some(pg_reload));
        pg_sys::BackgroundWorkerUnblockSignals();
    }
    if !queue::exists() || !be_the_only_one(database, number) {
        leave();
    }
    // SAFETY: registered before anything can fail, so that the slot is always handed over; then
    // connects.
    unsafe {
        pg_sys::before_shmem_exit(Some(hand_over), pg_sys::Datum::from(number));
        pg_sys::BackgroundWorkerInitializeConnectionByOid(
            pg_sys::Oid::from(database),
            pg_sys::InvalidOid,
            0,
        );
    }
    own_settings();
    let mut writer = Writer {
        number,
        slot: queue::slot(number),
        chain: None,
        keyring: keyring::Loaded::default(),
        uses: Uses::default(),
        refusals: Refusals::default(),
        watch: Watch::default(),
        warm_up: None,
        settings_seen: queue::slot(number).settings_changes.load(SeqCst),
        limits_are_late: false,
        last_event: Instant::now(),
        last_beat: Instant::now(),
        wanted: false,
    };
    if let Err(failure) = keyring::look_around(&mut writer) {
        log!("watchllm_keys writer: cannot serve: {}", failure.message);
        writer.slot.set_problem(&failure.message);
        batch::fail_all(writer.slot);
        leave();
    }
    writer.slot.starts.fetch_add(1, AcqRel);
    writer.slot.state.store(WriterState::Running as u32, SeqCst);
    keyring::take_up(&mut writer);
    writer.serve()
}

fn be_the_only_one(database: u32, number: usize) -> bool {
    let slot = queue::slot(number);
    slot.locked(|| {
        let free = slot.database.load(Acquire) == database && slot.writer_pid.load(Acquire) == 0;
        if free {
            slot.writer_pid.store(process::backend_pid(), Release);
        }
        free
    })
}

/// Runs when the writer ends, however it ends: the slot is free, and everybody who waits looks for
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

fn leave() -> ! {
    // SAFETY: ends this process in PostgreSQL's order; 0: it is not to be restarted.
    unsafe { pg_sys::proc_exit(0) }
}

/// What no ALTER DATABASE or configuration may change for the writer.
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
        (c"session_replication_role", "origin"),
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

impl Failure {
    /// Whether another try of each event alone could end differently: faults of the server hit all
    /// alike.
    pub(super) fn may_be_one_events_fault(&self) -> bool {
        use PgSqlErrorCode::*;
        !matches!(
            self.sqlstate,
            ERRCODE_DISK_FULL
                | ERRCODE_OUT_OF_MEMORY
                | ERRCODE_INSUFFICIENT_RESOURCES
                | ERRCODE_LOCK_NOT_AVAILABLE
                | ERRCODE_QUERY_CANCELED
                | ERRCODE_IO_ERROR
                | ERRCODE_READ_ONLY_SQL_TRANSACTION
                | ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
                | ERRCODE_UNDEFINED_TABLE
        )
    }
}

/// Runs `work` in a transaction of its own; an ERROR or an `Err` rolls it back and leaves the
/// writer alive.
fn transaction<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Failure> {
    let outcome: RefCell<Option<Result<T, Failure>>> = RefCell::new(None);
    let (inside, outside) = (AssertUnwindSafe(&outcome), AssertUnwindSafe(&outcome));
    let work = AssertUnwindSafe(work);
    PgTryBuilder::new(move || {
        let (inside, work) = (inside, work);
        // SAFETY: a worker outside any transaction starts one, with a snapshot, and ends it.
        unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::StartTransactionCommand();
            pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        }
        match (work.0)() {
            Ok(value) => {
                // SAFETY: pops the snapshot pushed above; the commit is synchronous.
                unsafe {
                    pg_sys::PopActiveSnapshot();
                    pg_sys::CommitTransactionCommand();
                }
                inside.replace(Some(Ok(value)));
            }
            Err(error) => {
                // SAFETY: rolls back the transaction started above.
                unsafe { pg_sys::AbortCurrentTransaction() };
                inside.replace(Some(Err(Failure {
                    sqlstate: error.sqlstate(),
                    message: error.message(),
                })));
            }
        }
    })
    .catch_others(move |caught| {
        let (CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. }) = &caught;
        outside.replace(Some(Err(Failure {
            sqlstate: report.sql_error_code(),
            message: report.message().into(),
        })));
        // SAFETY: rolls back whatever the failed transaction left.
        unsafe { pg_sys::AbortCurrentTransaction() };
    })
    .execute();
    outcome.into_inner().unwrap_or_else(|| {
        Err(Failure {
            sqlstate: PgSqlErrorCode::ERRCODE_INTERNAL_ERROR,
            message: "no outcome".into(),
        })
    })
}

impl Writer {
    fn serve(&mut self) -> ! {
        loop {
            if process::must_end() {
                self.end();
            }
            process::check_interrupts();
            self.reload_if_wanted();
            if !self.slot.is_empty() || self.spin() {
                batch::serve(self);
                self.last_event = Instant::now();
            } else {
                self.idle();
            }
            if self.last_beat.elapsed() >= self.next_beat() {
                self.beat();
                // Afterwards: between two beats that wait for a lock callers are served.
                self.last_beat = Instant::now();
            }
        }
    }

    /// Told to end between two batches: what is counted is known to this process alone, so it is
    /// written first.
    fn end(&mut self) -> ! {
        process::put_off_the_end();
        batch::write_counted(self);
        counters::flush(self);
        leave()
    }

    fn spin(&self) -> bool {
        let likely = self.last_event.elapsed() <= BUSY && self.slot.has_one_caller();
        likely && wakeup::spin_until(|| !self.slot.is_empty(), settings::spin())
    }

    /// Derives what is still to be derived, else sleeps until an event comes or a beat has passed.
    fn idle(&mut self) {
        if keyring::derive_one(self) || warm_up::warm_up(self) {
            return;
        }
        let slot = self.slot;
        let seen = self.settings_seen;
        let wanted = || {
            !slot.is_empty()
                || slot.reloads_wanted.load(SeqCst) != slot.reloads_done.load(SeqCst)
                || slot.settings_changes.load(SeqCst) != seen
        };
        process::while_waiting(|| slot.writer.sleep_unless(wanted, self.next_beat()));
    }

    /// How long after the last beat the next one is due.
    fn next_beat(&self) -> Duration {
        if self.slot.has_notices() || self.uses.is_urgent() || self.watch.has_findings() {
            SOON
        } else {
            BEAT
        }
    }

    fn reload_if_wanted(&mut self) {
        // SAFETY: process-local flags; the configuration is read outside any transaction, as
        // PostgreSQL's workers do.
        let configuration = unsafe {
            let pending = pg_sys::ConfigReloadPending != 0;
            if pending {
                pg_sys::ConfigReloadPending = 0;
                pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
            }
            pending
        };
        if configuration {
            own_settings();
            warm_up::read_rules(self);
        }
        let changes = self.slot.settings_changes.load(SeqCst);
        if std::mem::replace(&mut self.settings_seen, changes) != changes {
            warm_up::read_rules(self);
        }
        let wanted = self.slot.reloads_wanted.load(SeqCst);
        if configuration || self.slot.reloads_done.load(SeqCst) != wanted {
            keyring::reload(self);
            self.slot.reloads_done.store(wanted, SeqCst);
        }
    }

    /// Once a second: counted refusals, counters, partitions ahead, statistics, and whether
    /// somebody wants to drop the database.
    fn beat(&mut self) {
        keyring::open_late(self);
        if self.limits_are_late {
            warm_up::read_rules(self);
        }
        batch::write_counted(self);
        warm_up::warm_up(self);
        counters::flush(self);
        // SAFETY: outside a transaction, as PostgreSQL's workers report.
        unsafe {
            pg_sys::pgstat_report_stat(true);
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
        }
        if !process::postmaster_lives() {
            leave();
        }
        // Twice in a row: anybody's DROP DATABASE takes the lock for a moment before it is refused.
        let wanted = self.slot.is_empty() && somebody_wants_the_database();
        if std::mem::replace(&mut self.wanted, wanted) && wanted {
            log!("watchllm_keys writer: the database is wanted, leaving");
            leave();
        }
    }
}

/// Tries, without waiting, the lock that every connection takes: DROP, RENAME and TEMPLATE hold one
/// against it.
fn somebody_wants_the_database() -> bool {
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
