//! What a statement calls: functions of ours, functions whose body names us, triggers that do, and
//! prepared statements. So a wrapper's statement is known before it runs, with its parameters.
//! Unsafe: walks PostgreSQL's parse trees and reads its catalog caches. An ERROR there leaves as
//! PostgreSQL's own: no frame has anything to drop.

use super::client_text::text_of;
use super::intake;
use crate::postgres::hooks::HookChain;
use crate::settings;
use pgrx::pg_sys::{self, NodeTag};
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::null_mut;

static HOOK: HookChain<pg_sys::object_access_hook_type> = HookChain::new();

type Visit = unsafe extern "C-unwind" fn(*mut pg_sys::Node, *mut c_void) -> bool;

// SAFETY: PostgreSQL's own functions, with exactly these signatures. pgrx's wrappers would turn an
// ERROR into a panic.
unsafe extern "C-unwind" {
    #[cfg_attr(feature = "pg15", link_name = "query_tree_walker")]
    #[cfg_attr(not(feature = "pg15"), link_name = "query_tree_walker_impl")]
    fn walk_query(
        query: *mut pg_sys::Query,
        visit: Visit,
        context: *mut c_void,
        flags: c_int,
    ) -> bool;
    #[cfg_attr(feature = "pg15", link_name = "expression_tree_walker")]
    #[cfg_attr(not(feature = "pg15"), link_name = "expression_tree_walker_impl")]
    fn walk_expression(node: *mut pg_sys::Node, visit: Visit, context: *mut c_void) -> bool;
}

/// Functions whose answer is remembered.
const REMEMBERED: usize = 64;

thread_local! {
    /// Function, the transaction that wrote its row, and whether it is ours or calls us. A function
    /// that is replaced has another row.
    static KNOWN: [Cell<(u32, u32, bool)>; REMEMBERED] =
        const { [const { Cell::new((0, 0, false)) }; REMEMBERED] };
}

/// Takes the hook that is told of a function call of the old protocol.
pub(super) fn install_hook() {
    // SAFETY: PostgreSQL's own hook; called from _PG_init, in a process of one thread.
    unsafe { HOOK.take(&raw mut pg_sys::object_access_hook, Some(on_access)) }
}

// SAFETY: PostgreSQL calls it with its own arguments.
unsafe extern "C-unwind" fn on_access(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: c_int,
    argument: *mut c_void,
) {
    // SAFETY: a call by PQfn has no statement text, and its arguments are not read yet. The
    // previous hook gets its arguments unchanged.
    unsafe {
        if access == pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE
            && pg_sys::debug_query_string.is_null()
            && settings::hides_statements()
            && pg_sys::IsTransactionState()
            && is_ours(object)
        {
            intake::statement_holds_a_key();
        }
        if let Some(previous) = HOOK.previous() {
            previous(access, class, object, part, argument);
        }
    }
}

/// Whether a statement calls us, by whatever name.
///
/// # Safety
/// `query` is PostgreSQL's own, and was just analyzed.
pub(super) unsafe fn calls_us(query: *mut pg_sys::Query) -> bool {
    // SAFETY: as promised by the caller. Only analyzed parts of a utility statement are walked.
    unsafe {
        let utility = (*query).utilityStmt;
        if utility.is_null() {
            return visit(query.cast(), null_mut());
        }
        match (*utility).type_ {
            NodeTag::T_CallStmt => {
                visit((*utility.cast::<pg_sys::CallStmt>()).funcexpr.cast(), null_mut())
            }
            NodeTag::T_ExplainStmt => visit_query((*utility.cast::<pg_sys::ExplainStmt>()).query),
            NodeTag::T_DeclareCursorStmt => {
                visit_query((*utility.cast::<pg_sys::DeclareCursorStmt>()).query)
            }
            NodeTag::T_CreateTableAsStmt => {
                visit_query((*utility.cast::<pg_sys::CreateTableAsStmt>()).query)
            }
            NodeTag::T_ExecuteStmt => is_prepared((*utility.cast::<pg_sys::ExecuteStmt>()).name),
            NodeTag::T_CopyStmt => fires(utility.cast()),
            _ => false,
        }
    }
}

/// Remembers the name of a statement that is about to be prepared, and names us.
///
/// # Safety
/// `query` is PostgreSQL's own.
pub(super) unsafe fn note_prepared(query: *const pg_sys::Query) {
    // SAFETY: as promised by the caller; every node begins with its tag.
    unsafe {
        let utility = (*query).utilityStmt;
        if !utility.is_null() && (*utility).type_ == NodeTag::T_PrepareStmt {
            let name = text_of((*utility.cast::<pg_sys::PrepareStmt>()).name);
            if let Some(name) = name {
                intake::remember_prepared(&name.to_ascii_lowercase());
            }
        }
    }
}

/// # Safety
/// `node` is null, an analyzed query or a statement as it was parsed.
unsafe fn visit_query(node: *mut pg_sys::Node) -> bool {
    // SAFETY: every node begins with its tag.
    unsafe { !node.is_null() && (*node).type_ == NodeTag::T_Query && visit(node, null_mut()) }
}

// SAFETY: PostgreSQL's walkers call it with nodes of an analyzed query.
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: every node begins with its tag.
    unsafe {
        if node.is_null() {
            return false;
        }
        match (*node).type_ {
            NodeTag::T_Query => {
                let query = node.cast::<pg_sys::Query>();
                // EXPLAIN EXECUTE has a utility statement within
                if !(*query).utilityStmt.is_null() {
                    return calls_us(query);
                }
                changes_us(query) || walk_query(query, visit, context, 0)
            }
            NodeTag::T_FuncExpr if is_ours((*node.cast::<pg_sys::FuncExpr>()).funcid) => true,
            NodeTag::T_OpExpr if is_ours((*node.cast::<pg_sys::OpExpr>()).opfuncid) => true,
            _ => walk_expression(node, visit, context),
        }
    }
}

/// The nodes of a list.
///
/// # Safety
/// `list` is null or a list of pointers to such nodes.
unsafe fn nodes<Node>(list: *const pg_sys::List) -> impl Iterator<Item = *const Node> {
    // SAFETY: as promised by the caller.
    let count = if list.is_null() { 0 } else { unsafe { (*list).length as usize } };
    // SAFETY: as promised by the caller; `i` is within the list.
    (0..count)
        .map(move |i| unsafe { (*(*list).elements.add(i)).ptr_value.cast::<Node>().cast_const() })
}

/// Whether a query changes a relation of ours, a view of one, or one with a trigger that names us.
///
/// # Safety
/// `query` is PostgreSQL's own.
unsafe fn changes_us(query: *const pg_sys::Query) -> bool {
    // SAFETY: as promised by the caller; its relations are locked.
    unsafe {
        let Ok(place) = usize::try_from((*query).resultRelation - 1) else { return false };
        let target = nodes::<pg_sys::RangeTblEntry>((*query).rtable).nth(place);
        target.is_some_and(|target| leads_to_us((*target).relid))
    }
}

/// Whether COPY FROM reaches us by way of a relation.
///
/// # Safety
/// `copy` is PostgreSQL's own.
unsafe fn fires(copy: *const pg_sys::CopyStmt) -> bool {
    // SAFETY: as promised by the caller; a relation that is not there answers no oid.
    unsafe {
        let relation = (*copy).relation;
        if relation.is_null() || !(*copy).is_from {
            return false;
        }
        let missing = pg_sys::RVROption::RVR_MISSING_OK;
        let lock = pg_sys::AccessShareLock as c_int;
        let oid = pg_sys::RangeVarGetRelidExtended(relation, lock, missing, None, null_mut());
        leads_to_us(oid)
    }
}

/// Whether what is written into a relation comes to us.
///
/// # Safety
/// The relation is locked, or there is none.
unsafe fn leads_to_us(relation: pg_sys::Oid) -> bool {
    if relation.to_u32() < pg_sys::FirstNormalObjectId {
        return false;
    }
    // SAFETY: as promised by the caller; the relation's entry is pinned until it is closed.
    unsafe {
        if pg_sys::get_rel_namespace(relation) == our_namespace() {
            return true;
        }
        let entry = pg_sys::RelationIdGetRelation(relation);
        if entry.is_null() {
            return false;
        }
        let triggers = (*entry).trigdesc;
        let count = if triggers.is_null() { 0 } else { (*triggers).numtriggers as usize };
        let fires = (0..count).any(|i| is_ours((*(*triggers).triggers.add(i)).tgfoid));
        let ours = fires || is_view_of_ours(entry);
        pg_sys::RelationClose(entry);
        ours
    }
}

/// Whether a view or rule names a relation of ours.
///
/// # Safety
/// `entry` is an open relation.
unsafe fn is_view_of_ours(entry: pg_sys::Relation) -> bool {
    // SAFETY: as promised by the caller.
    unsafe {
        let rules = (*entry).rd_rules;
        let count = if rules.is_null() { 0 } else { (*rules).numLocks as usize };
        (0..count).any(|i| {
            nodes::<pg_sys::Query>((**(*rules).rules.add(i)).actions).any(|query| {
                let relations = nodes::<pg_sys::RangeTblEntry>((*query).rtable);
                relations.map(|relation| (*relation).relid).any(|relation| {
                    relation != pg_sys::InvalidOid
                        && pg_sys::get_rel_namespace(relation) == our_namespace()
                })
            })
        })
    }
}

/// Whether a statement that this session prepared by SQL names us.
///
/// # Safety
/// `name` is null or a C string.
unsafe fn is_prepared(name: *const c_char) -> bool {
    // SAFETY: as promised by the caller; a name that is not known answers null.
    unsafe {
        let prepared = pg_sys::FetchPreparedStatement(name, false);
        if prepared.is_null() {
            return false;
        }
        let text = (*(*prepared).plansource).query_string;
        text_of(text.cast_mut()).is_some_and(|text| intake::names_us(text))
    }
}

/// Never equal to a schema of somebody else, also while ours is missing.
fn our_namespace() -> pg_sys::Oid {
    // SAFETY: a look-up in a catalog cache, inside a transaction.
    let found = unsafe { pg_sys::get_namespace_oid(SCHEMA.as_ptr(), true) };
    if found == pg_sys::InvalidOid { u32::MAX.into() } else { found }
}

const SCHEMA: &CStr = c"watchllm";

/// Whether a function is ours, or its body names us.
///
/// # Safety
/// Called inside a transaction.
unsafe fn is_ours(function: pg_sys::Oid) -> bool {
    if function.to_u32() < pg_sys::FirstNormalObjectId {
        return false;
    }
    // SAFETY: a row of pg_proc, pinned until it is released.
    unsafe {
        let id = pg_sys::SysCacheIdentifier::PROCOID as c_int;
        let row = pg_sys::SearchSysCache1(id, pg_sys::Datum::from(function));
        if row.is_null() {
            return false;
        }
        let written = (*(*row).t_data).t_choice.t_heap.t_xmin;
        let written = pg_sys::TransactionId::into_inner(written);
        let place = function.to_u32() as usize % REMEMBERED;
        let known = KNOWN.with(|known| known[place].get());
        let answer = if (known.0, known.1) == (function.to_u32(), written) {
            known.2
        } else {
            let answer = names_us(row);
            KNOWN.with(|known| known[place].set((function.to_u32(), written, answer)));
            answer
        };
        pg_sys::ReleaseSysCache(row);
        answer
    }
}

/// Whether the function of this row is ours, or its body names us.
///
/// # Safety
/// `row` is a row of pg_proc.
unsafe fn names_us(row: pg_sys::HeapTuple) -> bool {
    // SAFETY: as promised by the caller; texts are copied into the current context.
    unsafe {
        let function = pg_sys::GETSTRUCT(row).cast::<pg_sys::FormData_pg_proc>();
        if (*function).pronamespace == our_namespace() {
            return true;
        }
        let column = |number: u32| {
            let id = pg_sys::SysCacheIdentifier::PROCOID as c_int;
            let mut null = false;
            let value = pg_sys::SysCacheGetAttr(id, row, number as i16, &mut null);
            (!null).then(|| pg_sys::text_to_cstring(value.cast_mut_ptr()))
        };
        let names = |text: *mut c_char| text_of(text).is_some_and(|text| intake::names_us(text));
        if column(pg_sys::Anum_pg_proc_prosrc).is_some_and(names) {
            return true;
        }
        // A body in SQL's own form is kept as a tree.
        column(pg_sys::Anum_pg_proc_prosqlbody).is_some_and(|tree| {
            let body = pg_sys::stringToNode(tree).cast::<pg_sys::Node>();
            visit(body, null_mut())
        })
    }
}
