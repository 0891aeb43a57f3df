//! The writer: one background worker per database takes events from the queue, commits them and
//! answers. This file holds the order of its work; the steps do not know each other. Every
//! statement runs as the owner of the tables in a restricted operation, and touches no row that a
//! caller can lock. Unsafe: the worker's entry. See docs/architecture.md#flows and
//! docs/facts.md#the-durable-audit-writer.

mod batch;
mod chain;
mod columns;
mod commits;
mod counters;
mod days;
mod findings;
mod keyring;
mod leaks;
mod listeners;
mod marks;
mod past;
mod process;
mod rotation;
mod sources;
mod transaction;
mod values;
mod vault;
mod warm_up;

use crate::anomaly::Watch;
use crate::audit::queue::{self, WriterState};
use crate::audit::wakeup;
use crate::error::Error;
use crate::postgres::{self, session};
use crate::{settings, shared_keyring, store};
use batch::Desk;
use chain::Chain;
use pgrx::prelude::*;
use std::sync::atomic::Ordering::*;
use std::time::{Duration, Instant};
use transaction::{Failure, as_owner, transaction};
use warm_up::WarmUp;

/// How long the writer sleeps at most, and how often it checks whether somebody wants the database.
const BEAT: Duration = Duration::from_secs(1);
/// The same, while a block waits to be written, or an incident waits to be announced.
const SOON: Duration = Duration::from_millis(100);
/// The writer spins only within this time of its last event.
const BUSY: Duration = Duration::from_millis(5);

/// The writer of one database. `desk` is a field of its own, because it serves callers while the
/// keyring's command runs.
struct Writer {
    slot_number: usize,
    desk: Desk,
    keyring: keyring::Loaded,
    leaks: leaks::Pending,
    rotation: rotation::Walk,
    source_days: sources::ClosedDays,
    values: values::Values,
    columns: columns::Columns,
    /// None: the watch is not filled yet.
    warm_up: Option<WarmUp>,
    days: days::Days,
    vault: vault::Vault,
    /// The changes of settings that this writer has read.
    settings_seen: u32,
    /// The limits have changed but could not be read yet.
    limits_are_late: bool,
    last_event: Instant,
    last_beat: Instant,
    /// Whether somebody wanted the database at the last beat.
    wanted: bool,
}

/// The worker's entry. `argument` holds the database oid in its high half, the slot number in its
/// low half.
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn watchllm_keys_writer(argument: pg_sys::Datum) {
    let (database, slot_number) =
        ((argument.value() as u64 >> 32) as u32, argument.value() & 0xffff_ffff);
    process::connect(database, slot_number);
    let mut writer = Writer::new(slot_number);
    let slot = writer.desk.slot;
    if let Err(failure) = writer.look_around() {
        log!("watchllm_keys writer: cannot serve: {}", failure.message);
        slot.set_problem(&failure.message);
        writer.desk.fail_all();
        process::leave();
    }
    slot.starts.fetch_add(1, AcqRel);
    slot.state.store(WriterState::Running as u32, SeqCst);
    writer.take_up_keyring();
    writer.serve()
}

/// The steps before it serves: the database, the keyring, the chain and the watch.
impl Writer {
    fn new(slot_number: usize) -> Writer {
        let slot = queue::slot(slot_number);
        Writer {
            slot_number,
            desk: Desk::new(slot),
            keyring: keyring::Loaded::default(),
            leaks: leaks::Pending::default(),
            rotation: rotation::Walk::default(),
            source_days: sources::ClosedDays::default(),
            values: values::Values::default(),
            columns: columns::Columns::default(),
            warm_up: None,
            days: days::Days::default(),
            vault: vault::Vault::default(),
            settings_seen: slot.settings_changes.load(SeqCst),
            limits_are_late: false,
            last_event: Instant::now(),
            last_beat: Instant::now(),
            wanted: false,
        }
    }

    /// Checks whether this database can be served. Answers what an earlier writer committed but did
    /// not answer.
    fn look_around(&mut self) -> Result<(), Failure> {
        transaction(|| if session::is_utf8_database() { Ok(()) } else { Err(Error::NotUtf8) })?;
        let (trail, last) = as_owner(|owner| Ok((owner.trail(), store::trail::last(owner))))?;
        self.vault.take_up(self.slot_number, self.desk.slot, trail);
        match last {
            Some(last) => self.desk.answer_committed(&last),
            None => Ok(()),
        }
    }

    /// Loads the keyring unless an earlier writer has, and opens the chain. A missing or wrong
    /// master key is no failure: the writer stays and waits for a reload.
    fn take_up_keyring(&mut self) {
        let is_loaded = shared_keyring::is_complete(self.slot_number);
        let loaded = if is_loaded { Ok(()) } else { self.load_keyring() };
        if let Err(failure) = loaded.and_then(|()| self.open_chain()) {
            log!("watchllm_keys writer: {}", failure.message);
            self.desk.slot.set_problem(&failure.message);
            self.publish_problem(failure);
        }
    }

    /// Reads the keyring again. If it cannot be loaded, the keyring in use stays.
    fn reload(&mut self) {
        if let Err(failure) = self.load_keyring().and_then(|()| self.open_chain()) {
            warning!("watchllm_keys writer: the keyring was not reloaded: {}", failure.message);
            self.publish_problem(failure);
        }
    }

    fn publish_problem(&self, failure: Failure) {
        shared_keyring::publish_problem(self.slot_number, &Error::NoMasterKey(failure.message));
    }

    /// Loads the keyring. While a command runs, callers are served with the keyring in use, and a
    /// server that wants to stop need not wait.
    fn load_keyring(&mut self) -> Result<(), Failure> {
        let desk = &mut self.desk;
        let mut meanwhile = || {
            if desk.chain.is_some() && !desk.slot.is_empty() {
                desk.serve();
            }
            !postgres::process::must_end()
        };
        keyring::load(self.slot_number, &mut self.keyring, &mut meanwhile)
    }

    /// Opens the chain once the keyring is there, and fills the watch. If the watch cannot be
    /// filled, the chain stays closed and nobody is served. Otherwise blocked callers would be let
    /// in, and every limit would be the default.
    fn open_chain(&mut self) -> Result<(), Failure> {
        if !shared_keyring::is_ready(self.slot_number) {
            return Ok(());
        }
        let chain = Chain::open(self.slot_number)?;
        let until = chain.last_seq();
        self.desk.chain = Some(chain);
        if self.warm_up.is_some() {
            return Ok(());
        }
        let begun = WarmUp::begin(&mut self.desk.watch, until);
        let (warm_up, blocks) = begun.inspect_err(|_| {
            // A second attempt fills the watch from the beginning, not twice.
            (self.desk.chain, self.desk.watch) = (None, Watch::default());
        })?;
        self.warm_up = Some(warm_up);
        self.desk.awaited.look_back();
        blocks.into_iter().for_each(|(key, since)| self.desk.counters.block_again(key, since));
        Ok(())
    }

    /// Tries again to open a chain that stayed closed although the keyring is there. A lock may
    /// have been the reason.
    fn open_chain_late(&mut self) {
        if self.desk.chain.is_some() || !shared_keyring::is_ready(self.slot_number) {
            return;
        }
        match self.open_chain() {
            Ok(()) => shared_keyring::publish_same(self.slot_number),
            Err(failure) => self.desk.slot.set_problem(&failure.message),
        }
    }
}

/// The steps while it serves.
impl Writer {
    fn serve(&mut self) -> ! {
        loop {
            if postgres::process::must_end() {
                self.end();
            }
            postgres::process::check_interrupts();
            if self.desk.slot.look_again.swap(0, SeqCst) != 0 {
                self.vault.look(self.slot_number, self.desk.slot);
            }
            self.reload_if_wanted();
            self.act_on_commits();
            if !self.desk.slot.is_empty() || self.spin() {
                self.desk.serve();
                self.last_event = Instant::now();
            } else {
                self.idle();
            }
            if self.last_beat.elapsed() >= self.next_beat() {
                self.beat();
                // Set at the end of the beat, so that callers are served between two beats that
                // wait for a lock.
                self.last_beat = Instant::now();
            }
        }
    }

    /// Ends between two batches, when told to. Only this process knows its counters, so they are
    /// written first.
    fn end(&mut self) -> ! {
        postgres::process::put_off_the_end();
        self.desk.write_counted();
        self.flush();
        process::leave()
    }

    fn spin(&self) -> bool {
        let slot = self.desk.slot;
        let likely = self.last_event.elapsed() <= BUSY && slot.has_one_caller();
        likely && wakeup::spin_until(|| !slot.is_empty(), settings::spin())
    }

    /// Derives a waiting version. If there is none, sleeps until an event comes or a beat is due.
    fn idle(&mut self) {
        if self.keyring.derive_one_version(self.slot_number) || self.fill_watch() {
            return;
        }
        let Desk { slot, awaited, .. } = &self.desk;
        let seen = self.settings_seen;
        let wanted = || {
            !slot.is_empty()
                || awaited.has_news(slot.commits.load(SeqCst))
                || slot.reloads_wanted.load(SeqCst) != slot.reloads_done.load(SeqCst)
                || slot.settings_changes.load(SeqCst) != seen
                || slot.look_again.load(SeqCst) != 0
        };
        postgres::process::while_waiting(|| slot.writer.sleep_unless(wanted, self.next_beat()));
    }

    /// How long after the last beat the next one is due.
    fn next_beat(&self) -> Duration {
        let Desk { slot, counters, watch, awaited, .. } = &self.desk;
        let is_urgent = slot.has_notices()
            || counters.is_urgent()
            || watch.has_findings()
            || awaited.is_urgent()
            || slot.has_column_leaks()
            || queue::leaks::are_many();
        if is_urgent { SOON } else { BEAT }
    }

    fn reload_if_wanted(&mut self) {
        let slot = self.desk.slot;
        let configuration = process::reread_configuration();
        if configuration {
            self.read_limits();
        }
        let changes = slot.settings_changes.load(SeqCst);
        if std::mem::replace(&mut self.settings_seen, changes) != changes {
            self.read_limits();
        }
        let wanted = slot.reloads_wanted.load(SeqCst);
        if configuration || slot.reloads_done.load(SeqCst) != wanted {
            self.reload();
            slot.reloads_done.store(wanted, SeqCst);
        }
    }

    /// Does what waited for a commit. A caller tells of its commit; the beat looks too, since a
    /// caller may end before it tells.
    fn act_on_commits(&mut self) {
        let Desk { slot, awaited, .. } = &self.desk;
        if awaited.has_news(slot.commits.load(SeqCst)) {
            self.look_at_commits();
        }
    }

    fn look_at_commits(&mut self) {
        let Desk { slot, watch, counters, awaited, .. } = &mut self.desk;
        awaited.act(slot.commits.load(SeqCst), watch, counters, &mut self.values);
    }

    /// Reads the limits again. If that fails, the next beat tries again.
    fn read_limits(&mut self) {
        let rules = warm_up::read_rules();
        self.limits_are_late = rules.is_none();
        rules.into_iter().for_each(|rules| self.desk.watch.set_rules(rules));
    }

    /// Takes the next rows of the trail into the watch's counters. Answers whether there were any.
    fn fill_watch(&mut self) -> bool {
        let Desk { watch, counters, .. } = &mut self.desk;
        self.warm_up.as_mut().is_some_and(|warm_up| warm_up.step(watch, counters))
    }

    /// Once a second: counted refusals, counters, partitions ahead, statistics, and whether
    /// somebody wants to drop the database.
    fn beat(&mut self) {
        if self.vault.is_there(self.slot_number, self.desk.slot) {
            self.open_chain_late();
            self.desk.past_is_late = false;
            if self.limits_are_late {
                self.read_limits();
            }
            self.desk.write_counted();
            self.fill_watch();
            self.flush();
        }
        process::report();
        if !postgres::process::postmaster_lives() {
            process::leave();
        }
        // Twice in a row, because anybody's DROP DATABASE takes the lock for a moment before it is
        // refused.
        let wanted = self.desk.slot.is_empty() && process::somebody_wants_the_database();
        if std::mem::replace(&mut self.wanted, wanted) && wanted {
            log!("watchllm_keys writer: the database is wanted, leaving");
            process::leave();
        }
    }

    /// Writes what is pending, each step in a transaction of its own.
    fn flush(&mut self) {
        if self.desk.chain.is_none() {
            return;
        }
        self.look_at_commits();
        let Desk { slot, watch, counters, .. } = &mut self.desk;
        self.days.make_ahead(slot);
        counters.write_blocks();
        findings::flush(slot, watch);
        counters.write_incidents(slot);
        self.leaks.write_incidents(slot);
        self.columns.write_incidents(slot);
        self.values.judge(slot, watch, counters);
        marks::settle();
        self.rotation.look_at_next_page(slot);
        self.source_days.close();
        listeners::tell(slot);
        counters.write_uses(watch);
    }
}
