//! Versions that were reported as leaked while a tenant held their key's row: marked as soon as the
//! row is free. The writer passes over rows that others hold, so it waits for nobody.

use super::transaction::now_or_later;
use crate::store;

/// Marks what can be marked now.
pub(super) fn settle() {
    // A failure is tried again with the next beat: the marks wait in their table.
    let _settled = now_or_later("leaked versions are marked", |owner| {
        if store::changes::has_marks(owner) {
            store::changes::settle_marks(owner);
        }
    });
}
