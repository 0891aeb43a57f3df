//! Whether the vault that this writer serves is still there. If it was removed, the writer ends. If
//! another one took its place, the writer ends too, and whoever calls starts a new one: it loads
//! the keyring, opens the chain and draws an identity anew. A vault is known by the table of its
//! trail.

use super::process;
use super::transaction::{Failure, as_owner};
use crate::audit::queue::Slot;
use crate::postgres::{relation_changes, session};
use crate::shared_keyring;
use pgrx::{PgSqlErrorCode, log, pg_sys, warning};
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

/// How long the writer stays while the vault cannot be used: a restore may be under way.
const PATIENCE: Duration = Duration::from_secs(10);
/// How often the server log is told that the vault cannot be used.
const TELL_EVERY: Duration = Duration::from_secs(3_600);

/// The vault that the writer serves.
#[derive(Default)]
pub(super) struct Vault {
    trail: u32,
    /// Changes of our relations that were looked at.
    seen: Option<u64>,
    /// Since when it cannot be used, why, and when that was told.
    unusable: Option<(Instant, String, Instant)>,
}

impl Vault {
    /// The vault as it was found at the start. What an earlier writer loaded for another vault is
    /// wiped.
    pub(super) fn take_up(&mut self, slot_number: usize, slot: &Slot, trail: pg_sys::Oid) {
        self.trail = trail.to_u32();
        if slot.vault.load(SeqCst) != self.trail {
            shared_keyring::hand_over(slot_number, session::database().to_u32());
            slot.vault.store(self.trail, SeqCst);
        }
    }

    /// Whether the vault can be used. Asks again only if a relation of ours changed.
    pub(super) fn is_there(&mut self, slot_number: usize, slot: &Slot) -> bool {
        if self.unusable.is_some() || self.seen != Some(relation_changes()) {
            self.look(slot_number, slot);
        }
        self.unusable.is_none()
    }

    /// Asks for the vault. Ends the writer if it is gone, or another one.
    pub(super) fn look(&mut self, slot_number: usize, slot: &Slot) {
        match as_owner(|owner| Ok((owner.trail().to_u32(), relation_changes()))) {
            Ok((trail, seen)) if trail == self.trail => {
                (self.seen, self.unusable) = (Some(seen), None);
            }
            Ok(_) => {
                log!("watchllm_keys writer: another vault is here now, leaving");
                forget(slot_number, slot);
                process::leave();
            }
            Err(failure) => self.wait(slot_number, slot, failure),
        }
    }

    /// The vault cannot be used now. Without tables, or after a while without anybody who waits,
    /// the writer ends.
    fn wait(&mut self, slot_number: usize, slot: &Slot, failure: Failure) {
        let now = Instant::now();
        let (since, told) = match &self.unusable {
            Some((since, why, told)) if *why == failure.message && told.elapsed() < TELL_EVERY => {
                (*since, *told)
            }
            other => {
                warning!("watchllm_keys writer: the vault cannot be used: {}", failure.message);
                (other.as_ref().map_or(now, |(since, ..)| *since), now)
            }
        };
        slot.set_problem(&failure.message);
        let is_gone = failure.sqlstate == PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
            && since.elapsed() > PATIENCE;
        self.unusable = Some((since, failure.message, told));
        if is_gone && slot.is_empty() {
            log!("watchllm_keys writer: the vault is gone, leaving");
            forget(slot_number, slot);
            process::leave();
        }
    }
}

/// Wipes what was loaded for the vault that is no longer served.
fn forget(slot_number: usize, slot: &Slot) {
    slot.vault.store(0, SeqCst);
    slot.set_days_problem(None);
    shared_keyring::hand_over(slot_number, session::database().to_u32());
}
