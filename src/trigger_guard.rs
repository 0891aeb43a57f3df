//! Our triggers fire, or the statement fails. With session_replication_role = replica, as tools
//! that load data set it, PostgreSQL fires only triggers that were made to fire always. A view's
//! cannot be: COPY into the inbox would say "COPY 1" and store nothing. All other sessions pay one
//! comparison. Unsafe: hooks of the executor and of utility statements, as in the log hook.

use crate::error::Error;
use crate::postgres::hooks::HookChain;
use crate::postgres::{session, silent_trigger};
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::PgLogLevel;
use std::ffi::{c_char, c_int};

static START: HookChain<pg_sys::ExecutorStart_hook_type> = HookChain::new();
static UTILITY: HookChain<pg_sys::ProcessUtility_hook_type> = HookChain::new();

// SAFETY: PostgreSQL's own functions, with exactly these signatures. pgrx's wrappers would turn an
// ERROR into a panic.
unsafe extern "C-unwind" {
    #[link_name = "standard_ExecutorStart"]
    fn start(query: *mut pg_sys::QueryDesc, flags: c_int);
    #[link_name = "standard_ProcessUtility"]
    fn process(
        statement: *mut pg_sys::PlannedStmt,
        text: *const c_char,
        read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Takes the hooks, once, when the library is preloaded.
pub(crate) fn install_hooks() {
    // SAFETY: PostgreSQL's own hooks; called from _PG_init, in a process of one thread.
    unsafe {
        START.take(&raw mut pg_sys::ExecutorStart_hook, Some(on_start));
        UTILITY.take(&raw mut pg_sys::ProcessUtility_hook, Some(on_utility));
    }
}

// SAFETY: PostgreSQL calls it with its own query.
unsafe extern "C-unwind" fn on_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: as PostgreSQL promises its hooks.
    unsafe {
        if session::is_replica() && !(*query).plannedstmt.is_null() {
            judge_plan((*query).plannedstmt);
        }
        match START.previous() {
            Some(previous) => previous(query, flags),
            None => start(query, flags),
        }
    }
}

// SAFETY: PostgreSQL calls it with its own statement.
#[allow(clippy::too_many_arguments)]
unsafe extern "C-unwind" fn on_utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: as PostgreSQL promises its hooks.
    unsafe {
        let node = (*statement).utilityStmt;
        if session::is_replica() && (*node).type_ == pg_sys::NodeTag::T_CopyStmt {
            judge_copy(node.cast());
        }
        let next = UTILITY.previous().unwrap_or(process);
        next(statement, text, read_only, context, parameters, environment, destination, completion);
    }
}

// SAFETY: called with a plan of PostgreSQL's, inside a transaction. An ERROR leaves by the guard.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn judge_plan(plan: *const pg_sys::PlannedStmt) {
    // SAFETY: as above.
    let changed = unsafe { silent_trigger::changed_relations(plan) };
    changed.into_iter().for_each(judge);
}

// SAFETY: called with a COPY statement of PostgreSQL's, inside a transaction. An ERROR leaves by
// the guard.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn judge_copy(copy: *const pg_sys::CopyStmt) {
    // SAFETY: as above.
    unsafe { silent_trigger::copied_into(copy) }.into_iter().for_each(judge);
}

/// Refuses to change a relation with a trigger of ours that would stay silent.
fn judge(relation: pg_sys::Oid) {
    if let Some(trigger) = silent_trigger::of(relation) {
        ErrorReport::from(Error::SilentTrigger(trigger)).report(PgLogLevel::ERROR);
    }
}
