//! The guarded user switch: our statements, and only they, run as the owner of our tables.
//! Foreign-key triggers switch the same way (SECURITY_LOCAL_USERID_CHANGE and NOFORCE_RLS). Every
//! exit, error and subtransaction abort undoes it. It encloses only `Statement`s: constant SQL on
//! our own tables. Never put a caller's relation or column inside. See docs/architecture.md#rooms.
//! Unsafe lives here.

use pgrx::pg_sys;
use std::cell::RefCell;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Proof that the tables of this database are complete and owned by `watchllm_owner`.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    role: pg_sys::Oid,
    trail: pg_sys::Oid,
}

thread_local! {
    /// Our relations. While this is empty, they are not known yet, and every change counts.
    static RELATIONS: RefCell<Vec<pg_sys::Oid>> = const { RefCell::new(Vec::new()) };
}

/// The owner found earlier. It stays true until PostgreSQL tells this process that one of our
/// relations changed.
static REMEMBERED_ROLE: AtomicU32 = AtomicU32::new(0);
static REMEMBERED_TRAIL: AtomicU32 = AtomicU32::new(0);
/// Grows with every change of a relation of ours.
static CHANGES: AtomicU64 = AtomicU64::new(0);
static WATCHING: Once = Once::new();

impl Owner {
    /// The owner found earlier by this process, unless one of our relations has changed since.
    pub(crate) fn remembered() -> Option<Owner> {
        let role = REMEMBERED_ROLE.load(Relaxed);
        (role != 0)
            .then(|| Owner { role: role.into(), trail: REMEMBERED_TRAIL.load(Relaxed).into() })
    }

    /// Takes the result of `sql/installed.sql`.
    pub(crate) fn found(role: pg_sys::Oid, trail: pg_sys::Oid) -> Owner {
        Owner { role, trail }
    }

    /// Remembers the owner until one of these relations changes. `changes` is `relation_changes()`
    /// from before the query that found it. Changes of other relations cost nothing, even in an
    /// application with many temporary tables.
    pub(crate) fn remember(self, relations: Vec<pg_sys::Oid>, changes: u64) {
        if changes == CHANGES.load(Relaxed) {
            RELATIONS.replace(relations);
            REMEMBERED_ROLE.store(self.role.to_u32(), Relaxed);
            REMEMBERED_TRAIL.store(self.trail.to_u32(), Relaxed);
        }
    }

    /// The partitioned table of the audit trail.
    pub(crate) fn trail(self) -> pg_sys::Oid {
        self.trail
    }
}

/// How many changes of our relations this process has been told of. The first call starts the
/// listening.
pub(crate) fn relation_changes() -> u64 {
    // SAFETY: registers a static callback once per process; it only stores to atomics.
    WATCHING.call_once(|| unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0usize));
    });
    CHANGES.load(Relaxed)
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    let foreign = RELATIONS.with(|ours| {
        ours.try_borrow().is_ok_and(|ours| !ours.is_empty() && !ours.contains(&relation))
    });
    // InvalidOid stands for all relations.
    if foreign && relation != pg_sys::InvalidOid {
        return;
    }
    CHANGES.fetch_add(1, Relaxed);
    REMEMBERED_ROLE.store(0, Relaxed);
}

/// Whether the running statement is one of ours, or PostgreSQL's own check of a foreign key: a
/// constant, run with rights that only these have.
pub(crate) fn acts_as_owner() -> bool {
    let (mut user, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: reads two process-local variables.
    unsafe { pg_sys::GetUserIdAndSecContext(&mut user, &mut context) };
    context & pg_sys::SECURITY_NOFORCE_RLS as i32 != 0
}

/// Which rights a statement runs with.
#[derive(Clone, Copy)]
pub(super) enum Switch {
    /// A caller's process acts as the owner of the tables.
    Caller,
    /// The writer acts as the owner. It may not change its own settings or leave anything behind.
    Writer,
}

/// Restores the user when dropped: on return and on unwinding. After an ERROR, PostgreSQL's own
/// abort restores it.
pub(super) struct Restore {
    user: pg_sys::Oid,
    context: i32,
}

impl Drop for Restore {
    fn drop(&mut self) {
        // SAFETY: assigns two process-local variables to values read before the switch.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) }
    }
}

pub(super) fn switch_to(owner: Owner, switch: Switch) -> Restore {
    let mut before = Restore { user: pg_sys::InvalidOid, context: 0 };
    let restricted = match switch {
        Switch::Caller => 0,
        Switch::Writer => pg_sys::SECURITY_RESTRICTED_OPERATION,
    };
    let rights = pg_sys::SECURITY_LOCAL_USERID_CHANGE | pg_sys::SECURITY_NOFORCE_RLS | restricted;
    // SAFETY: both calls only read and assign process-local variables; `before` restores them.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut before.user, &mut before.context);
        pg_sys::SetUserIdAndSecContext(owner.role, before.context | rights as i32);
    }
    before
}
