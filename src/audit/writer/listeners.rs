//! Who listens on `watchllm_security` is told of incidents, in a transaction of its own. Any user
//! can fill PostgreSQL's notification queue: that stops this alone.

use super::transaction::now_or_later;
use crate::audit::queue::Slot;
use crate::store;

/// Tells what was announced at the slot; what cannot be told now is announced again.
pub(super) fn tell(slot: &Slot) {
    let notices = slot.take_notices();
    if notices.is_empty() {
        return;
    }
    let told = now_or_later("listeners are told", |owner| {
        notices.iter().for_each(|notice| store::incidents::notify(owner, notice));
    });
    if told.is_none() {
        slot.announce_all(notices);
    }
}
