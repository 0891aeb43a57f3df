//! Record and wait: no answer before its record is durable, no change committed before its record
//! is. This is the caller's side. A `Recorder` proves that the vault is ready, and pushes events
//! into the queue. The other side is `writer`. Neither side sees plaintext or ciphertext. See
//! docs/architecture.md#flows.

pub(crate) mod commit;
pub(crate) mod queue;
mod start;
mod state;
mod wakeup;
mod writer;

pub(crate) use state::{State, state};

use crate::crypto::RootKey;
use crate::error::Error;
use crate::postgres::{Owner, clock, locks, lookup, process, session};
use crate::trail::{ColumnLeak, Event, FailureReason, Notice, Verdict};
use crate::{settings, shared_keyring, store};
use queue::{Slot, WriterState};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// The vault of this database, found ready: installed, a writer serving, the active master key
/// loaded.
#[derive(Clone, Copy)]
pub(crate) struct Recorder {
    owner: Owner,
    slot: usize,
}

/// Proof that an access is recorded durably. Only this room makes one, and a plaintext cannot leave
/// without one.
#[must_use]
pub(crate) struct Recorded(());

/// Who pushes. The last quarter of the queue is kept for authorised callers.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Authorised,
    Unauthorised,
}

/// Finds the vault ready, starting its writer when needed. Errors: not preloaded, standby, not
/// installed, no or wrong master key, audit unavailable.
pub(crate) fn ready() -> Result<Recorder, Error> {
    let (owner, slot) = served()?;
    await_keyring(slot)?;
    Ok(Recorder { owner, slot })
}

/// As `ready`, for a caller that only asks. No call was refused, so the server log gets no line.
pub(crate) fn check_ready() -> Result<(), Error> {
    let (_, slot) = served()?;
    await_first_load(slot)?;
    if shared_keyring::is_coming(slot) {
        return Err(Error::AuditUnavailable("the keyring is still being loaded".into()));
    }
    shared_keyring::problem(slot).map_or(Ok(()), Err)
}

/// The vault as it is at this moment. None: it is not ready. Waits for nothing and starts nothing,
/// so that an application's work never fails or waits because of the vault.
pub(crate) fn ready_now() -> Option<Recorder> {
    let owner = ready_to_read().ok().filter(|_| !process::is_standby())?;
    let slot = queue::find(session::database().to_u32())?;
    let serves = queue::slot(slot).state() == WriterState::Running
        && queue::slot(slot).vault.load(SeqCst) == owner.trail().to_u32()
        && shared_keyring::is_ready(slot);
    serves.then_some(Recorder { owner, slot })
}

/// Waits for the keyring's first load. If the load has a problem, that is the caller's error. This
/// call cannot be recorded, so a WARNING in the server log is its record.
fn await_keyring(slot: usize) -> Result<(), Error> {
    if shared_keyring::is_ready(slot) {
        return Ok(());
    }
    await_first_load(slot)?;
    let Some(problem) = shared_keyring::problem(slot) else { return Ok(()) };
    pgrx::warning!("watchllm_keys: a call was refused without a record: {}", problem.message());
    Err(problem)
}

/// Waits while the writer loads the keyring for the first time.
fn await_first_load(slot: usize) -> Result<(), Error> {
    let deadline = Instant::now() + settings::audit_timeout();
    while shared_keyring::is_coming(slot) && Instant::now() < deadline {
        pause(deadline, "the keyring is still being loaded")?;
    }
    Ok(())
}

/// The owner of the tables, for reading the trail. This needs neither a writer nor a master key.
pub(crate) fn ready_to_read() -> Result<Owner, Error> {
    if !queue::exists() {
        return Err(Error::NotPreloaded);
    }
    store::installed::owner()
}

/// Makes the writer load the keyring anew and waits for it; answers the number of versions that can
/// be used.
pub(crate) fn reload_keyring() -> Result<usize, Error> {
    let (_, number) = served()?;
    let slot = queue::slot(number);
    // The load that answers must have begun after this call: requests are numbered.
    let mine = slot.reloads_wanted.fetch_add(1, SeqCst).wrapping_add(1);
    slot.writer.wake();
    let deadline =
        Instant::now() + settings::audit_timeout() + settings::master_key_command_timeout();
    while (slot.reloads_done.load(SeqCst).wrapping_sub(mine) as i32) < 0 {
        pause(deadline, "the audit writer did not reload the keyring in time")?;
        start::await_writer(number, deadline)?;
    }
    if let Some(problem) = shared_keyring::last_problem(number) {
        return Err(problem);
    }
    Ok(shared_keyring::versions(number).len())
}

/// The database's slot with a running writer.
fn served() -> Result<(Owner, usize), Error> {
    if !queue::exists() {
        return Err(Error::NotPreloaded);
    }
    if process::is_standby() {
        return Err(Error::Standby);
    }
    if session::is_parallel() {
        return Err(Error::Parallel);
    }
    let owner = store::installed::owner()?;
    // Checked before a writer is started, because the writer could not see tables that this
    // transaction made.
    refuse_own_trail(owner)?;
    let number = start::claim()?;
    let deadline = Instant::now() + settings::audit_timeout();
    start::await_vault(number, owner.trail().to_u32(), deadline)?;
    Ok((owner, number))
}

fn pause(deadline: Instant, too_late: &str) -> Result<(), Error> {
    if Instant::now() > deadline {
        return Err(Error::AuditUnavailable(too_late.into()));
    }
    process::sleep(Duration::from_millis(2));
    process::check_interrupts();
    Ok(())
}

impl Recorder {
    pub(crate) fn owner(&self) -> Owner {
        self.owner
    }

    /// Passes committed incidents to the writer, which tells listeners. Raises no ERROR, because it
    /// runs after the commit.
    fn tell(self, notices: Vec<Notice>) {
        queue::slot(self.slot).announce_all(notices);
    }

    /// Tells the writer that settings have changed. Raises no ERROR, because it runs after the
    /// commit.
    fn tell_of_settings(self) {
        let slot = queue::slot(self.slot);
        slot.settings_changes.fetch_add(1, SeqCst);
        slot.writer.wake();
    }

    /// Tells the writer that a change has committed: some act from then on. Raises no ERROR,
    /// because it runs after the commit.
    fn tell_of_commit(self) {
        let slot = queue::slot(self.slot);
        slot.commits.fetch_add(1, SeqCst);
        slot.writer.wake();
    }

    /// Passes keys that were masked in a column to the writer, outside of this transaction.
    pub(crate) fn tell_of_columns(self, leaks: &[ColumnLeak]) {
        queue::slot(self.slot).tell_of_columns(leaks);
    }

    /// How many changes of this database have committed. What was read before stays true while
    /// this number stays.
    pub(crate) fn commits(self) -> u64 {
        queue::slot(self.slot).commits.load(SeqCst)
    }

    /// Checks at commit that the vault is still ready, without reading any table.
    fn again(self) -> Result<Recorder, Error> {
        refuse_own_trail(self.owner)?;
        let slot = start::claim()?;
        let deadline = Instant::now() + settings::audit_timeout();
        start::await_vault(slot, self.owner.trail().to_u32(), deadline)?;
        await_keyring(slot)?;
        Ok(Recorder { slot, ..self })
    }

    /// The root key of a master-key version. Waits while it is being derived.
    pub(crate) fn root_key(&self, version: i32) -> Result<RootKey, Error> {
        let deadline = Instant::now() + settings::audit_timeout();
        loop {
            if let Some(root) =
                shared_keyring::root_key(self.slot, session::database().to_u32(), version)?
            {
                return Ok(root);
            }
            pause(deadline, "the master key is still being derived")?;
        }
    }

    /// The version new envelopes are sealed under, and its root key.
    pub(crate) fn active_root_key(&self) -> Result<(i32, RootKey), Error> {
        let version = shared_keyring::active_version(self.slot).ok_or(Error::NoActiveMasterKey)?;
        Ok((version, self.root_key(version)?))
    }

    /// Records one event and waits until it is durable.
    pub(crate) fn record(&self, event: Event, standing: Standing) -> Result<Recorded, Error> {
        match self.record_all(&[event], standing)?.first() {
            Some(Verdict::Recorded) => Ok(Recorded(())),
            Some(Verdict::Refused(reason)) => Err(refusal(*reason)),
            _ => Err(self.not_recorded()),
        }
    }

    /// Records many events, with one durable wait per chunk. The outcomes are in the order of the
    /// events.
    pub(crate) fn record_each(
        &self,
        events: &[Event],
    ) -> Result<Vec<Result<Recorded, Error>>, Error> {
        let verdicts = self.record_all(events, Standing::Authorised)?;
        let outcome = |verdict: Verdict| match verdict {
            Verdict::Recorded => Ok(Recorded(())),
            Verdict::Refused(reason) => Err(refusal(reason)),
            Verdict::NotRecorded => Err(self.not_recorded()),
        };
        Ok(verdicts.into_iter().map(outcome).collect())
    }

    fn not_recorded(&self) -> Error {
        let problem = queue::slot(self.slot).problem();
        Error::AuditUnavailable(problem.unwrap_or_else(|| "the audit writer failed".into()))
    }

    fn record_all(&self, events: &[Event], standing: Standing) -> Result<Vec<Verdict>, Error> {
        let slot = queue::slot(self.slot);
        let mut verdicts = Vec::with_capacity(events.len());
        for chunk in events.chunks(queue::chunk()) {
            let deadline = Instant::now() + settings::audit_timeout();
            let last = push(self.slot, slot, chunk, standing, deadline)?;
            wait(self.slot, slot, last, deadline)?;
            let first = last + 1 - chunk.len() as u64;
            verdicts.extend(
                (first..=last).map(|ticket| queue::verdict(ticket).unwrap_or(Verdict::NotRecorded)),
            );
        }
        Ok(verdicts)
    }
}

/// If a transaction has locked the trail, it would wait for a writer that waits for its lock.
/// PostgreSQL cannot detect that deadlock.
fn refuse_own_trail(owner: Owner) -> Result<(), Error> {
    let today = store::trail::partition_name(clock::now().day());
    let partition = lookup::relation(&today);
    if locks::blocks_inserts(owner.trail()) || partition.is_some_and(locks::blocks_inserts) {
        return Err(Error::OwnTrail);
    }
    Ok(())
}

fn push(
    number: usize,
    slot: &Slot,
    events: &[Event],
    standing: Standing,
    deadline: Instant,
) -> Result<u64, Error> {
    let database = session::database().to_u32();
    loop {
        if let Some(last) = slot.push(database, events, standing == Standing::Authorised) {
            return Ok(last);
        }
        pause(deadline, "the audit queue is full")?;
        if queue::find(database) != Some(number) {
            return Err(Error::AuditUnavailable(
                "another database took the queue; try again".into(),
            ));
        }
        start::await_writer(number, deadline)?;
    }
}

fn wait(number: usize, slot: &Slot, ticket: u64, deadline: Instant) -> Result<(), Error> {
    if slot.has_one_caller() {
        wakeup::spin_until(|| queue::verdict(ticket).is_some(), settings::spin());
    }
    while queue::verdict(ticket).is_none() {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::AuditUnavailable("the audit writer did not answer in time".into()));
        }
        if slot.state() != WriterState::Running {
            start::await_writer(number, deadline)?;
        }
        process::while_waiting(|| {
            queue::sleep_for_verdict(ticket, left.min(Duration::from_millis(100)))
        });
        process::check_interrupts();
    }
    Ok(())
}

/// The error of an access that the writer refused.
fn refusal(reason: FailureReason) -> Error {
    match reason {
        FailureReason::Blocked => Error::Blocked,
        FailureReason::CallerBlocked => Error::CallerBlocked,
        _ => Error::NotAuthorized("use this provider key"),
    }
}
