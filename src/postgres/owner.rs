//! The guarded user switch: our statements, and only they, run as the owner of our tables.
//! Foreign-key triggers switch the same way (SECURITY_LOCAL_USERID_CHANGE and NOFORCE_RLS). Every
//! exit, error and subtransaction abort undoes it. It encloses only `Statement`s: constant SQL on
//! our own tables. Never put a caller's relation or column inside. See docs/architecture.md#rooms.
//! Unsafe lives here.

use super::{found, process, session};
use pgrx::pg_sys;
use std::cell::{Cell, RefCell};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::thread::LocalKey;

/// Changes that a transaction remembers one by one. After more of them, anything may have changed.
const REMEMBERED_CHANGES: usize = 64;

/// Proof that the tables of this database are complete and owned by `watchllm_owner`.
#[derive(Clone, Copy)]
pub(crate) struct Owner {
    role: pg_sys::Oid,
    trail: pg_sys::Oid,
}

/// From before a search for the owner: how many changes this process, and all processes, knew of.
pub(crate) struct SearchStart {
    changes: u64,
    generation: Option<u64>,
}

thread_local! {
    /// Our relations. While this is empty, they are not known yet, and every change counts.
    static RELATIONS: RefCell<Vec<pg_sys::Oid>> = const { RefCell::new(Vec::new()) };
    /// Relations that changed since this transaction got its number: by itself, or by others.
    static CHANGED: RefCell<Vec<pg_sys::Oid>> = const { RefCell::new(Vec::new()) };
    /// So many relations, roles or schemas changed that they are not remembered one by one; or a
    /// membership did, which may be of anybody.
    static CHANGED_MUCH: Cell<bool> = const { Cell::new(false) };
    /// Roles and schemas that changed, by their hashes. Which of them are ours may be found later.
    static CHANGED_HASHES: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
}

/// The owner found earlier. It stays true until PostgreSQL tells this process that one of our
/// relations changed.
static REMEMBERED_ROLE: AtomicU32 = AtomicU32::new(0);
static REMEMBERED_TRAIL: AtomicU32 = AtomicU32::new(0);
/// Grows with every change of a relation of ours.
static CHANGES: AtomicU64 = AtomicU64::new(0);

impl Owner {
    /// The owner that this process found earlier, unless one of our relations has changed since.
    pub(crate) fn remembered() -> Option<Owner> {
        let role = REMEMBERED_ROLE.load(Relaxed);
        (role != 0)
            .then(|| Owner { role: role.into(), trail: REMEMBERED_TRAIL.load(Relaxed).into() })
    }

    /// The owner that another process found, unless something of ours has changed since, and if
    /// `holds` says so. Rows of our tables may have changed: only changes of relations are told.
    /// What this transaction itself has changed, no other process can judge.
    pub(crate) fn found_by_others(holds: impl FnOnce(Owner) -> bool) -> Option<Owner> {
        if process::is_standby() || session::is_parallel() || has_changed_ours() {
            return None;
        }
        let changes = relation_changes();
        let (role, trail) = found::read(session::database().to_u32())?;
        let owner = Owner { role: role.into(), trail: trail.into() };
        if !holds(owner) {
            return None;
        }
        owner.remember_here(Vec::new(), changes);
        Some(owner)
    }

    /// Takes the result of `sql/installed.sql`.
    pub(crate) fn found(role: pg_sys::Oid, trail: pg_sys::Oid) -> Owner {
        Owner { role, trail }
    }

    /// Remembers the owner until one of these relations changes, and tells all other processes.
    /// `start` is from before the query that found it. Changes of other relations cost nothing,
    /// even in an application with many temporary tables.
    pub(crate) fn remember(self, relations: Vec<pg_sys::Oid>, start: SearchStart) {
        let is_foreign = |changed: &Vec<_>| changed.iter().all(|oid| !relations.contains(oid));
        let undisturbed = CHANGED.with_borrow(is_foreign)
            && !CHANGED_MUCH.get()
            && CHANGED_HASHES.with_borrow(Vec::is_empty);
        if let Some(generation) = start.generation
            && undisturbed
        {
            let search = found::Search {
                role: self.role,
                trail: self.trail,
                relations: &relations,
                role_hash: catalog_hash(pg_sys::SysCacheIdentifier::AUTHOID, self.role),
                schema_hash: catalog_hash(pg_sys::SysCacheIdentifier::NAMESPACEOID, schema()),
            };
            found::publish(session::database().to_u32(), generation, &search);
        }
        self.remember_here(relations, start.changes);
    }

    fn remember_here(self, relations: Vec<pg_sys::Oid>, changes: u64) {
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

/// Begins a search for the owner.
pub(crate) fn search_start() -> SearchStart {
    // A standby learns of changes by replay, which tells no process of ours.
    let is_shared = !process::is_standby() && !session::is_parallel();
    let generation = is_shared.then(|| found::generation(session::database().to_u32())).flatten();
    SearchStart { changes: relation_changes(), generation }
}

/// How many changes of our relations this process has been told of.
pub(crate) fn relation_changes() -> u64 {
    CHANGES.load(Relaxed)
}

/// Listens to changes in every process: PostgreSQL tells each what others have committed. What this
/// process changes itself, it tells all others at its commit. So a new connection, which is told of
/// nothing earlier, can trust what it reads in shared memory.
pub(crate) fn install_hooks() {
    use pg_sys::SysCacheIdentifier::{AUTHMEMROLEMEM, AUTHOID, NAMESPACEOID};
    // SAFETY: static callbacks, registered for the life of the process; they only touch atomics and
    // this process's own memory.
    unsafe {
        pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::from(0usize));
        for cache in [AUTHOID, AUTHMEMROLEMEM, NAMESPACEOID] {
            pg_sys::CacheRegisterSyscacheCallback(
                cache as i32,
                Some(role_or_schema_changed),
                pg_sys::Datum::from(0usize),
            );
        }
        pg_sys::RegisterXactCallback(Some(at_transaction_end), std::ptr::null_mut());
    }
}

/// Whether a prepared transaction may change a table, role or schema of any vault. Of a database
/// that was never searched, nobody knows its tables.
fn may_change_ours_later() -> bool {
    let unknown = !found::is_known(session::database().to_u32());
    has_changed_ours()
        || CHANGED_HASHES.with_borrow(|changed| !changed.is_empty())
        || unknown && CHANGED.with_borrow(|changed| !changed.is_empty())
}

/// How PostgreSQL names the row with this oid when it tells that it changed.
fn catalog_hash(cache: pg_sys::SysCacheIdentifier::Type, oid: pg_sys::Oid) -> u32 {
    let none = pg_sys::Datum::from(0usize);
    // SAFETY: hashes one oid, inside a transaction; these caches have one key, an oid.
    unsafe { pg_sys::GetSysCacheHashValue(cache as i32, oid.into(), none, none, none) }
}

/// The schema of our tables.
fn schema() -> pg_sys::Oid {
    // SAFETY: a catalog look-up inside a transaction.
    unsafe { pg_sys::get_namespace_oid(c"watchllm".as_ptr(), true) }
}

/// Whether this transaction may have changed one of our tables.
fn has_changed_ours() -> bool {
    let database = session::database().to_u32();
    let is_ours = |oid: &pg_sys::Oid| found::may_be_ours(database, *oid);
    has_changed_role_or_schema() || CHANGED.with_borrow(|changed| changed.iter().any(is_ours))
}

/// Whether this transaction may have changed a role or schema that was found by now.
fn has_changed_role_or_schema() -> bool {
    let is_ours = |hash: &u32| found::is_role_or_schema(*hash);
    CHANGED_MUCH.get() || CHANGED_HASHES.with_borrow(|changed| changed.iter().any(is_ours))
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    // InvalidOid stands for all relations: this process was told of too many changes. Those who
    // made them have told the others.
    if relation != pg_sys::InvalidOid && changes_something() {
        found::relation_changed(session::database().to_u32(), relation);
        note(&CHANGED, relation);
    }
    let foreign = RELATIONS.with(|ours| {
        ours.try_borrow().is_ok_and(|ours| !ours.is_empty() && !ours.contains(&relation))
    });
    if foreign && relation != pg_sys::InvalidOid {
        return;
    }
    CHANGES.fetch_add(1, Relaxed);
    REMEMBERED_ROLE.store(0, Relaxed);
}

/// `hash` is 0 when this process was told of too many changes.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn role_or_schema_changed(
    _argument: pg_sys::Datum,
    cache: i32,
    hash: u32,
) {
    if hash != 0 && changes_something() {
        if cache == pg_sys::SysCacheIdentifier::AUTHMEMROLEMEM as i32 {
            CHANGED_MUCH.set(true);
        }
        note(&CHANGED_HASHES, hash);
        if has_changed_role_or_schema() {
            found::anything_changed();
        }
    }
    CHANGES.fetch_add(1, Relaxed);
    REMEMBERED_ROLE.store(0, Relaxed);
}

/// Whether this transaction may be the one that changed something. Others are told by whoever did,
/// once, and not by each process that hears of it.
fn changes_something() -> bool {
    // SAFETY: reads the transaction state.
    unsafe { pg_sys::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}

/// Remembers a change until the transaction ends.
fn note<T: PartialEq>(changes: &'static LocalKey<RefCell<Vec<T>>>, change: T) {
    changes.with(|changes| match changes.try_borrow_mut() {
        Ok(changes) if changes.contains(&change) => (),
        Ok(mut changes) if changes.len() < REMEMBERED_CHANGES => changes.push(change),
        _ => CHANGED_MUCH.set(true),
    });
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn at_transaction_end(
    event: pg_sys::XactEvent::Type,
    _argument: *mut c_void,
) {
    use pg_sys::XactEvent::*;
    match event {
        // The last command's changes are told to this process now, not after its commit.
        // SAFETY: inside a transaction that is not parallel.
        XACT_EVENT_PRE_COMMIT | XACT_EVENT_PRE_PREPARE => unsafe {
            pg_sys::CommandCounterIncrement();
        },
        // Another process commits it, which is told of nothing.
        XACT_EVENT_PREPARE if may_change_ours_later() => {
            found::close();
            forget_changes();
        }
        XACT_EVENT_COMMIT => {
            let database = session::database().to_u32();
            if has_changed_role_or_schema() {
                found::anything_changed();
            }
            CHANGED.with_borrow(|changed| {
                changed.iter().for_each(|oid| found::relation_changed(database, *oid));
            });
            forget_changes();
        }
        XACT_EVENT_ABORT | XACT_EVENT_PREPARE => forget_changes(),
        _ => (),
    }
}

fn forget_changes() {
    CHANGED.with_borrow_mut(Vec::clear);
    CHANGED_MUCH.set(false);
    CHANGED_HASHES.with_borrow_mut(Vec::clear);
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
