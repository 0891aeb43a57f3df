//! Locks of this transaction: strong ones that others would wait for, those that we try to take
//! without waiting, and the one of `install()`. Unsafe: PostgreSQL's lock manager.

use super::lookup::relation;
use super::session::database;
use pgrx::pg_sys;

/// Whether this transaction holds a lock on the relation that makes an INSERT of another process
/// wait.
pub(crate) fn blocks_inserts(relation: pg_sys::Oid) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: database().to_u32(),
        locktag_field2: relation.to_u32(),
        locktag_field3: 0,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_RELATION as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    let strong = [
        pg_sys::ShareLock,
        pg_sys::ShareRowExclusiveLock,
        pg_sys::ExclusiveLock,
        pg_sys::AccessExclusiveLock,
    ];
    // SAFETY: looks into this process's own table of held locks.
    strong.iter().any(|&mode| unsafe { held(&tag, mode as i32) })
}

/// # Safety
/// None beyond a live `tag`: looks into this process's own table of held locks.
#[cfg(any(feature = "pg15", feature = "pg16"))]
unsafe fn held(tag: &pg_sys::LOCKTAG, mode: i32) -> bool {
    // SAFETY: as the caller's.
    unsafe { pg_sys::LockHeldByMe(tag, mode) }
}

/// # Safety
/// As for the older majors.
#[cfg(any(feature = "pg17", feature = "pg18"))]
unsafe fn held(tag: &pg_sys::LOCKTAG, mode: i32) -> bool {
    // SAFETY: as the caller's.
    unsafe { pg_sys::LockHeldByMe(tag, mode, false) }
}

/// Takes a lock of this transaction on a relation of ours and a number, without waiting. False:
/// another transaction holds it. No SQL takes such a lock, so nobody can hold it to block us.
pub(crate) fn try_lock(relation: pg_sys::Oid, thing: u32) -> bool {
    let tag = pg_sys::LOCKTAG {
        locktag_field1: database().to_u32(),
        locktag_field2: relation.to_u32(),
        locktag_field3: thing,
        locktag_field4: 0,
        locktag_type: pg_sys::LockTagType::LOCKTAG_OBJECT as u8,
        locktag_lockmethodid: pg_sys::DEFAULT_LOCKMETHOD as u8,
    };
    // SAFETY: a lock of this transaction, released at its end; dontWait.
    let got = unsafe { pg_sys::LockAcquire(&tag, pg_sys::ExclusiveLock as i32, false, true) };
    got != pg_sys::LockAcquireResult::LOCKACQUIRE_NOT_AVAIL
}

/// Takes the lock for reading and writing rows of a table of ours, without waiting. False: another
/// transaction holds a lock against it.
pub(crate) fn try_to_use(table: &str) -> bool {
    // SAFETY: a lock of this transaction, released at its end.
    relation(table).is_some_and(|table| unsafe {
        pg_sys::ConditionalLockRelationOid(table, pg_sys::RowExclusiveLock as i32)
    })
}

/// Waits until no other transaction installs, updates or drops the extension, and lets none begin
/// before this one ends. No stranger can hold such a lock.
pub(crate) fn lock_extension() {
    let mode = pg_sys::ShareUpdateExclusiveLock as i32;
    // SAFETY: a catalog look-up inside a transaction, and a lock released at its end.
    unsafe {
        let extension = pg_sys::get_extension_oid(c"watchllm_keys".as_ptr(), true);
        pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, extension, 0, mode);
    }
}
