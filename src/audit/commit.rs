//! Events of changes wait here until their transaction commits. They are written in pre-commit, and
//! dropped with a rollback. A failure here aborts the transaction, so that no change commits
//! unrecorded. Interrupts and our own deadline end the wait, because statement_timeout does not
//! reach COMMIT (docs/architecture.md#flows). Unsafe: transaction callbacks.

use super::Recorder;
use crate::error::Error;
use crate::postgres::{clock, session};
use crate::redact;
use crate::trail::{AccessType, Event, Notice};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::PgLogLevel;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;

/// Events written at a time: 150 kB of copies.
const PART: usize = 128;
/// The most events that a transaction of others than administrators keeps: 120 MB.
const MOST: usize = 100_000;
/// The most incidents that listeners are told of after one transaction.
const MOST_NOTICES: usize = 1_000;

/// What a transaction keeps, each with the subtransaction it belongs to.
type Kept<T> = RefCell<Vec<(pg_sys::SubTransactionId, T)>>;

thread_local! {
    /// Events of this transaction.
    static KEPT: Kept<Event> = const { RefCell::new(Vec::new()) };
    /// Incidents stored in this transaction. Listeners are told of them after the commit.
    static STORED: Kept<Notice> = const { RefCell::new(Vec::new()) };
    /// The vault as the last change found it. At commit no SQL may look anything up, because no
    /// search_path is fixed there. A type or operator that somebody put into the session's path
    /// would run with the rights of the committing role.
    static VAULT: Cell<Option<Recorder>> = const { Cell::new(None) };
}

/// Registers the callbacks; once, while libraries are preloaded.
pub(crate) fn install_hooks() {
    // SAFETY: static functions, registered for the life of the process.
    unsafe {
        pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
        pg_sys::RegisterSubXactCallback(Some(at_subtransaction_end), std::ptr::null_mut());
    }
}

/// Keeps the event of a change until its transaction commits.
/// Raises an ERROR if there is no memory for it (53200), or if a caller that is `bounded` keeps too
/// many (54000).
pub(crate) fn keep(recorder: Recorder, event: Event, bounded: bool) {
    VAULT.set(Some(recorder));
    let kept = (subtransaction(), event);
    let outcome = KEPT.with_borrow_mut(|all| {
        if bounded && all.len() >= MOST {
            return Err(Error::TooManyChanges(MOST));
        }
        if all.len() == all.capacity() {
            // The list may be moved, and then both lie in memory for a moment.
            let grown = (all.len() + PART) * 2 * size_of_val(&kept);
            let has_room = redact::ask(grown).is_ok() && all.try_reserve(PART).is_ok();
            if !has_room {
                return Err(Error::OutOfMemory("the events of this transaction"));
            }
        }
        all.push(kept);
        Ok(())
    });
    outcome.unwrap_or_else(raise);
}

/// Has listeners told of an incident that this transaction stored, if the transaction commits.
pub(crate) fn announce(recorder: Recorder, notice: Notice) {
    VAULT.set(Some(recorder));
    STORED.with_borrow_mut(|stored| {
        // Far more than can wait to be announced. The others are in the table all the same.
        if stored.len() < MOST_NOTICES {
            stored.push((subtransaction(), notice));
        }
    });
}

fn subtransaction() -> pg_sys::SubTransactionId {
    // SAFETY: reads the transaction state.
    unsafe { pg_sys::GetCurrentSubTransactionId() }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(
    event: pg_sys::XactEvent::Type,
    _argument: *mut c_void,
) {
    use pg_sys::XactEvent::*;
    let (changes, incidents) =
        (!KEPT.with_borrow(Vec::is_empty), !STORED.with_borrow(Vec::is_empty));
    match event {
        XACT_EVENT_PRE_COMMIT if changes => write_kept().unwrap_or_else(raise),
        XACT_EVENT_PRE_PREPARE if changes => raise(Error::PreparedChange),
        // An application's transaction in which a key was masked can be prepared. Its incident is
        // then not announced.
        XACT_EVENT_COMMIT | XACT_EVENT_ABORT | XACT_EVENT_PREPARE if changes || incidents => {
            if event == XACT_EVENT_COMMIT
                && let Some(recorder) = VAULT.get()
            {
                let stored = |stored: &Vec<(_, Notice)>| stored.iter().map(|(_, n)| *n).collect();
                recorder.tell(STORED.with_borrow(stored));
                if changes {
                    recorder.tell_of_commit();
                }
                let is_setting = |(_, event): &(_, Event)| event.access_type == AccessType::Setting;
                if KEPT.with_borrow(|kept| kept.iter().any(is_setting)) {
                    recorder.tell_of_settings();
                }
            }
            KEPT.with_borrow_mut(Vec::clear);
            STORED.with_borrow_mut(Vec::clear);
        }
        _ => (),
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_subtransaction_end(
    event: pg_sys::SubXactEvent::Type,
    mine: pg_sys::SubTransactionId,
    parent: pg_sys::SubTransactionId,
    _argument: *mut c_void,
) {
    use pg_sys::SubXactEvent::*;
    fn end<T>(kept: &mut Vec<(u32, T)>, aborted: bool, mine: u32, parent: u32) {
        if aborted {
            kept.retain(|(owner, _)| *owner != mine);
        } else {
            kept.iter_mut().filter(|(owner, _)| *owner == mine).for_each(|kept| kept.0 = parent);
        }
    }
    if matches!(event, SUBXACT_EVENT_ABORT_SUB | SUBXACT_EVENT_COMMIT_SUB) {
        let aborted = event == SUBXACT_EVENT_ABORT_SUB;
        KEPT.with_borrow_mut(|kept| end(kept, aborted, mine, parent));
        STORED.with_borrow_mut(|stored| end(stored, aborted, mine, parent));
    }
}

fn write_kept() -> Result<(), Error> {
    let recorder = VAULT.get().ok_or(Error::VaultForgotten)?.again()?;
    let (now, txid) = (clock::now(), session::transaction_id());
    // In parts, because an import keeps thousands. They must not all be copied at once.
    for first in (0..KEPT.with_borrow(Vec::len)).step_by(PART) {
        let current = |(_, event): &(_, Event)| Event { accessed_at: now, txid, ..*event };
        let part: Vec<Event> =
            KEPT.with_borrow(|kept| kept.iter().skip(first).take(PART).map(current).collect());
        for outcome in recorder.record_each(&part)? {
            let _recorded = outcome?;
        }
    }
    Ok(())
}

fn raise(error: Error) {
    ErrorReport::from(error).report(PgLogLevel::ERROR);
}
