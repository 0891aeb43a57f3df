//! Triggers of ours that do not fire in a session with session_replication_role = replica, and the
//! relations that a statement changes. Unsafe: PostgreSQL's plans and its cache of relations.

use pgrx::pg_sys;
use std::ffi::CStr;

/// Our trigger functions that serve tables of applications, and the inbox.
const OURS: [&CStr; 3] = [c"follow_projects", c"redact_columns", c"store_from_inbox"];

/// The relations that a plan changes.
///
/// # Safety
/// `plan` is a plan of PostgreSQL's.
pub(crate) unsafe fn changed_relations(plan: *const pg_sys::PlannedStmt) -> Vec<pg_sys::Oid> {
    // SAFETY: as promised by the caller. The numbers count the range table from 1.
    unsafe {
        let (numbers, table) = ((*plan).resultRelations, (*plan).rtable);
        if numbers.is_null() || table.is_null() {
            return Vec::new();
        }
        let number = |i: i32| (*(*numbers).elements.add(i as usize)).int_value;
        let entry = |number: i32| {
            let cell = (*table).elements.add(number as usize - 1);
            (*cell).ptr_value.cast::<pg_sys::RangeTblEntry>()
        };
        (0..(*numbers).length).map(|i| (*entry(number(i))).relid).collect()
    }
}

/// The relation that COPY fills, if there is one.
///
/// # Safety
/// `copy` is a statement of PostgreSQL's. Inside a transaction.
pub(crate) unsafe fn copied_into(copy: *const pg_sys::CopyStmt) -> Option<pg_sys::Oid> {
    // SAFETY: as promised by the caller; a relation that is missing answers InvalidOid.
    let relation = unsafe {
        if !(*copy).is_from || (*copy).relation.is_null() {
            return None;
        }
        pg_sys::RangeVarGetRelidExtended(
            (*copy).relation,
            pg_sys::NoLock as i32,
            pg_sys::RVROption::RVR_MISSING_OK,
            None,
            std::ptr::null_mut(),
        )
    };
    (relation != pg_sys::InvalidOid).then_some(relation)
}

/// The name of a trigger of ours on this relation that fires only outside of replica mode.
pub(crate) fn of(relation: pg_sys::Oid) -> Option<String> {
    // SAFETY: inside a transaction. The relation is opened and closed here; its triggers are read
    // meanwhile. An ERROR in between aborts, which closes it.
    unsafe {
        let open = pg_sys::try_relation_open(relation, pg_sys::AccessShareLock as i32);
        if open.is_null() {
            return None;
        }
        let triggers = (*open).trigdesc;
        let count = if triggers.is_null() { 0 } else { (*triggers).numtriggers as usize };
        let silent = (0..count).map(|i| (*triggers).triggers.add(i)).find(|trigger| {
            (**trigger).tgenabled as u8 == pg_sys::TRIGGER_FIRES_ON_ORIGIN
                && is_ours((**trigger).tgfoid)
        });
        let name =
            silent.map(|trigger| CStr::from_ptr((*trigger).tgname).to_string_lossy().into_owned());
        pg_sys::relation_close(open, pg_sys::AccessShareLock as i32);
        name
    }
}

/// Whether a function is one of our trigger functions.
fn is_ours(function: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups inside a transaction; the name is a palloc'ed C string or null.
    unsafe {
        let ours = pg_sys::get_namespace_oid(c"watchllm".as_ptr(), true);
        let name = pg_sys::get_func_name(function);
        !name.is_null()
            && pg_sys::get_func_namespace(function) == ours
            && OURS.contains(&CStr::from_ptr(name))
    }
}
