//! Tells listeners on `watchllm_security` of incidents, in a transaction of its own. Any user can
//! fill PostgreSQL's notification queue; then only this stops.

use super::transaction::now_or_later;
use crate::audit::queue::Slot;
use crate::store;

/// Tells the incidents announced at the slot. If that fails, they are announced again.
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
