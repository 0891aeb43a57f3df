//! The guarded user switch: our statements run as the owner of our tables, and nothing else does.
//! Unsafe lives here. The switch is what foreign-key triggers use (SECURITY_LOCAL_USERID_CHANGE and
//! NOFORCE_RLS) and is undone on every exit, error and subtransaction abort. It encloses only
//! `Statement`s: SQL that is a constant of this program, on our own tables. Never put a caller's
//! relation or column inside. DESIGN §5.

use pgrx::pg_sys;
use std::cell::RefCell;
use std::sync::Once;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// Proof that the tables of this database were found complete and owned by `watchllm_owner`.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    role: pg_sys::Oid,
    trail: pg_sys::Oid,
}

thread_local! {
    /// Relations whose change matters: ours. Empty: not known yet, every change matters.
    static RELATIONS: RefCell<Vec<pg_sys::Oid>> = const { RefCell::new(Vec::new()) };
}

/// What was found stays true until PostgreSQL tells this process that one of our relations changed.
static REMEMBERED_ROLE: AtomicU32 = AtomicU32::new(0);
static REMEMBERED_TRAIL: AtomicU32 = AtomicU32::new(0);
/// Grows with every change of a relation of ours.
static CHANGES: AtomicU64 = AtomicU64::new(0);
static WATCHING: Once = Once::new();

impl Owner {
    /// The owner found earlier by this process, while no relation has changed since.
    pub(crate) fn remembered() -> Option<Owner> {
        let role = REMEMBERED_ROLE.load(Relaxed);
        (role != 0)
            .then(|| Owner { role: role.into(), trail: REMEMBERED_TRAIL.load(Relaxed).into() })
    }

    /// Takes what `sql/installed.sql` found.
    pub(crate) fn found(role: pg_sys::Oid, trail: pg_sys::Oid) -> Owner {
        Owner { role, trail }
    }

    /// Remembers the owner for as long as these relations do not change. `changes` is
    /// `relation_changes()` from before the look. Other relations may come and go: an application
    /// with many temporary tables pays nothing.
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

/// How many changes of our relations this process has heard of; starts listening at the first call.
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

/// Which rights a statement runs with.
#[derive(Clone, Copy)]
pub(super) enum Switch {
    /// A caller's process acts as the owner of the tables.
    Caller,
    /// The writer acts as the owner and may not change its own settings or leave anything behind.
    Writer,
}

/// Restores the user when dropped: on return and on unwinding. On ERROR PostgreSQL's own abort does
/// the same.
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
