//! The text of a parsed statement, masked in every place that others read: pg_stat_activity,
//! pg_stat_statements, auto_explain, prepared statements, current_query(). The parse tree keeps the
//! real literals, so the statement does what it says. A text that may be parsed again (nested
//! statements) is only copied. Unsafe: hooks of the parser, the executor and utility statements.
//! Not #[pg_guard]: an ERROR of PostgreSQL passes over frames that have nothing to drop.

use super::catalog::{self, PlacedKey, Places};
use super::client_text::{self, SeenText, text_of};
use super::masking::MaskedKey;
use super::{activity, intake, masking, plan_source};
use crate::postgres::hooks::HookChain;
use crate::redact::Ends;
use crate::settings;
use crate::trail::Channel;
use pgrx::pg_sys;
use std::ffi::{c_char, c_int, c_void};
use std::ops::Range;

static ANALYZE: HookChain<pg_sys::post_parse_analyze_hook_type> = HookChain::new();
static START: HookChain<pg_sys::ExecutorStart_hook_type> = HookChain::new();
static UTILITY: HookChain<pg_sys::ProcessUtility_hook_type> = HookChain::new();

/// Shown for a nested statement's text if there is no memory for a copy.
const HIDDEN: &std::ffi::CStr = c"(hidden)";

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
    #[link_name = "MemoryContextAllocExtended"]
    fn allocate(context: pg_sys::MemoryContext, size: usize, flags: c_int) -> *mut c_void;
}

/// Takes the hooks.
pub(super) fn install_hooks() {
    // SAFETY: PostgreSQL's own hooks; called from _PG_init, in a process of one thread.
    unsafe {
        ANALYZE.take(&raw mut pg_sys::post_parse_analyze_hook, Some(on_analyze));
        START.take(&raw mut pg_sys::ExecutorStart_hook, Some(on_start));
        UTILITY.take(&raw mut pg_sys::ProcessUtility_hook, Some(on_utility));
    }
}

// Runs before pg_stat_statements in either order of loading, because that calls its predecessors
// first.
// SAFETY: PostgreSQL calls it with its own parse state and query.
unsafe extern "C-unwind" fn on_analyze(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: as PostgreSQL promises its hooks. The previous hook gets its arguments unchanged.
    unsafe {
        if settings::redacts_server_log() {
            analyze((*state).p_sourcetext, query);
        }
        if let Some(previous) = ANALYZE.previous() {
            previous(state, query, jumble);
        }
    }
}

// SAFETY: PostgreSQL calls it with its own query.
unsafe extern "C-unwind" fn on_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: as PostgreSQL promises its hooks.
    unsafe {
        if settings::redacts_server_log() {
            (*query).sourceText =
                shown((*query).sourceText, || pg_sys::GetMemoryChunkContext(query.cast()));
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
        let redacts = settings::redacts_server_log();
        let text = if redacts { shown(text, || pg_sys::CurrentMemoryContext) } else { text };
        let sets =
            redacts && (*(*statement).utilityStmt).type_ == pg_sys::NodeTag::T_VariableSetStmt;
        let next = UTILITY.previous().unwrap_or(process);
        next(statement, text, read_only, context, parameters, environment, destination, completion);
        if sets {
            activity::mask_application_name();
        }
    }
}

/// Masks the text of a statement that was just analyzed.
///
/// # Safety
/// `text` is null or a C string, `query` is its parse tree. Called while PostgreSQL analyzes it.
unsafe fn analyze(text: *const c_char, query: *mut pg_sys::Query) {
    // SAFETY: as promised by the caller.
    unsafe {
        let Some(bytes) = text_of(text.cast_mut()) else { return };
        let statement = range(query, bytes.len());
        let is_utility = !(*query).utilityStmt.is_null();
        let stores = catalog::stores(query);
        let told = if stores { statement.clone() } else { 0..0 };
        let seen = client_text::is_clients(text).then(|| mask_clients(bytes, &told));
        let masked = seen.map_or_else(|| mask_nested(bytes), |seen| seen.masked);
        if !masked {
            return;
        }
        if is_utility {
            // pg_stat_statements keeps the unmasked text of utility statements, so it must not see
            // this one.
            (*query).queryId = 0;
        }
        if stores {
            let places = match seen {
                Some(seen) if seen.keys => Places::remembered(),
                Some(_) => Places::NONE,
                None => places(&bytes[statement.clone()], statement.start),
            };
            catalog::warn_of(&places, &statement);
        }
    }
}

/// The part of the text that a statement takes.
///
/// # Safety
/// `query` is PostgreSQL's own.
unsafe fn range(query: *const pg_sys::Query, length: usize) -> Range<usize> {
    // SAFETY: as promised by the caller.
    let (start, count) = unsafe { ((*query).stmt_location, (*query).stmt_len) };
    let start = usize::try_from(start).unwrap_or(0).min(length);
    let end = usize::try_from(count)
        .ok()
        .filter(|count| *count > 0)
        .map_or(length, |count| (start + count).min(length));
    start..end
}

/// Masks the client's own text, once. It is parsed as a whole before its first statement is
/// analyzed, and never again. Answers what was found in it. A key within `told` is reported as one
/// in the catalog, so not here.
///
/// # Safety
/// `text` is `debug_query_string`, or the text it was copied from. Called while PostgreSQL analyzes
/// or starts it.
unsafe fn mask_clients(text: &mut [u8], told: &Range<usize>) -> SeenText {
    let (address, since) = (text.as_mut_ptr().cast::<c_char>(), masking::statement_start());
    if let Some(seen) = client_text::seen(address) {
        return seen;
    }
    activity::mask_application_name();
    let ours = intake::names_us(text);
    let mut is_first = true;
    let count = masking::mask_each(text, Ends::Whole, &mut |finding, bytes| {
        let key = MaskedKey::of(finding, bytes);
        let place = PlacedKey { at: finding.start, key };
        let is_kept = Places::remember(place, std::mem::replace(&mut is_first, false));
        // Handing a key to the vault is no leak.
        if !(ours || is_kept && told.contains(&finding.start)) {
            masking::report(&key, Channel::Statement);
        }
    });
    let blanked = ours && masking::blank_values(text);
    let masked = count > 0 || blanked;
    if masked {
        activity::show(text);
        // SAFETY: as promised by the caller.
        unsafe {
            plan_source::each_copy(|copy| {
                masking::follow(copy, text);
            });
        }
    }
    let seen = SeenText { masked, keys: count > 0, ours };
    client_text::remember(address, since, seen);
    seen
}

/// Masks the copy of a nested statement that its plan keeps. The text itself stays unchanged,
/// because it may be parsed again. Answers whether it holds a key.
///
/// # Safety
/// Called while PostgreSQL analyzes it.
unsafe fn mask_nested(text: &[u8]) -> bool {
    let holds = masking::holds_key(text);
    if holds {
        // SAFETY: as promised by the caller.
        unsafe {
            plan_source::each_copy(|copy| {
                if copy == text {
                    masking::mask_silently(copy, Ends::Whole);
                }
            });
        }
    }
    holds
}

/// The places of keys in a text that is not masked.
fn places(statement: &[u8], offset: usize) -> Places {
    let mut places = Places::NONE;
    for finding in masking::findings(statement) {
        let key = MaskedKey::of(&finding, &statement[finding.start..finding.end]);
        places.add(PlacedKey { at: offset + finding.start, key });
    }
    places
}

/// What may be shown of a statement that is about to run: its own text, or a masked copy in
/// `context`.
///
/// # Safety
/// `text` is null or a C string; `context` lives as long as the statement.
unsafe fn shown(
    text: *const c_char,
    context: impl FnOnce() -> pg_sys::MemoryContext,
) -> *const c_char {
    // SAFETY: as promised by the caller. Lack of memory raises no ERROR here.
    unsafe {
        let Some(bytes) = text_of(text.cast_mut()) else { return text };
        if client_text::is_clients(text) {
            mask_clients(bytes, &(0..0));
            return text;
        }
        if !masking::holds_key(bytes) {
            return text;
        }
        let flags = pg_sys::MCXT_ALLOC_HUGE | pg_sys::MCXT_ALLOC_NO_OOM;
        let copy = allocate(context(), bytes.len() + 1, flags as c_int).cast::<u8>();
        if copy.is_null() {
            return HIDDEN.as_ptr();
        }
        copy.copy_from_nonoverlapping(text.cast(), bytes.len() + 1);
        masking::mask_silently(std::slice::from_raw_parts_mut(copy, bytes.len()), Ends::Whole);
        copy.cast::<c_char>().cast_const()
    }
}
