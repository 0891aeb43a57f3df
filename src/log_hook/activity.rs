//! The two texts that pg_stat_activity shows of this process: the statement and the application's
//! name. Unsafe: this process's own entry in shared memory. It is written as PostgreSQL writes it,
//! between two counts, so that a concurrent reader reads again.

use super::client_text::text_of;
use super::{application_name, masking};
use crate::audit::queue::leaks;
use crate::redact::Ends;
use crate::trail::Channel;
use pgrx::pg_sys;
use std::cell::Cell;
use std::ffi::c_char;
use std::sync::atomic::{Ordering::SeqCst, fence};

/// Shows `masked`, the reported statement with keys masked. If the entry shows another text, the
/// keys in that text are masked. The entry may be cut off in the middle of a key.
pub(super) fn show(masked: &[u8]) {
    // SAFETY: the entry's own buffer, `pgstat_track_activity_query_size` bytes that end with NUL.
    let text = |entry: *mut pg_sys::PgBackendStatus| unsafe {
        ((*entry).st_activity_raw, pg_sys::pgstat_track_activity_query_size as usize)
    };
    write(text, |shown| {
        if !masking::follow(shown, masked) {
            masking::mask_silently(shown, Ends::Cut);
        }
    });
}

/// Masks the application's name. Every role reads it in pg_stat_activity, and lines of the server
/// log may begin with it.
pub(super) fn mask_application_name() {
    application_name::report();
    // SAFETY: the setting's value, which only this process changes; as many bytes as before.
    let Some(name) = (unsafe { text_of(pg_sys::application_name) }) else { return };
    if CLEAN.with(|clean| clean.is(name)) {
        return;
    }
    let count = masking::mask(name, Ends::Whole, Channel::ApplicationName);
    CLEAN.with(|clean| clean.remember(name));
    if count > 0 {
        // SAFETY: the entry's own buffer of NAMEDATALEN bytes.
        write(
            |entry| unsafe { ((*entry).st_appname, pg_sys::NAMEDATALEN as usize) },
            |name| {
                masking::mask_silently(name, Ends::Cut);
            },
        );
    }
}

thread_local! {
    static CLEAN: Clean =
        const { Clean { length: Cell::new(usize::MAX), bytes: [const { Cell::new(0) }; LONGEST] } };
}

/// Longer names are searched each time; PostgreSQL cuts them.
const LONGEST: usize = 64;

/// The application's name that was searched last. It seldom changes, and every statement compares
/// it.
struct Clean {
    length: Cell<usize>,
    bytes: [Cell<u8>; LONGEST],
}

impl Clean {
    fn is(&self, name: &[u8]) -> bool {
        self.length.get() == name.len()
            && self.bytes.iter().zip(name).all(|(ours, theirs)| ours.get() == *theirs)
    }

    fn remember(&self, name: &[u8]) {
        self.length.set(if name.len() <= LONGEST { name.len() } else { usize::MAX });
        self.bytes.iter().zip(name).for_each(|(ours, theirs)| ours.set(*theirs));
    }
}

/// Changes one text of this process's entry, if it has one. The postmaster, the logger and an
/// ending process have none.
fn write(
    text: impl FnOnce(*mut pg_sys::PgBackendStatus) -> (*mut c_char, usize),
    change: impl FnOnce(&mut [u8]),
) {
    // SAFETY: this process's own entry, mapped as just checked; nobody else writes it. No ERROR can
    // come between the two counts. PGSTAT_BEGIN_WRITE_ACTIVITY begins the same critical section.
    unsafe {
        let entry = pg_sys::MyBEEntry;
        if entry.is_null() || !leaks::is_mapped() || (*entry).st_changecount % 2 != 0 {
            return;
        }
        let (start, size) = text(entry);
        if start.is_null() {
            return;
        }
        let bytes = std::slice::from_raw_parts_mut(start.cast::<u8>(), size);
        let length = bytes.iter().position(|byte| *byte == 0).unwrap_or(size);
        let count = &raw mut (*entry).st_changecount;
        pg_sys::CritSectionCount += 1;
        count.write_volatile(count.read_volatile().wrapping_add(1));
        fence(SeqCst);
        change(&mut bytes[..length]);
        fence(SeqCst);
        count.write_volatile(count.read_volatile().wrapping_add(1));
        pg_sys::CritSectionCount -= 1;
    }
}
