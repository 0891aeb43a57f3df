//! The text of a parsed statement, masked in every place that others read: pg_stat_activity,
//! pg_stat_statements, auto_explain, prepared statements, current_query(). The parse tree keeps the
//! real literals, so the statement does what it says. A text that may be parsed again (nested
//! statements) is only copied. Unsafe: hooks of the parser, the executor and utility statements.
//! Not #[pg_guard]: an ERROR of PostgreSQL passes over frames that have nothing to drop.

use super::catalog::{self, PlacedKey, Places};
use super::client_text::{self, SeenText, text_of};
use super::masking::MaskedKey;
use super::{activity, calls, intake, masking, plan_source};
use crate::postgres::acts_as_owner;
use crate::postgres::hooks::HookChain;
use crate::redact::Ends;
use crate::settings;
use crate::trail::Channel;
use pgrx::pg_sys;
use std::ffi::{c_char, c_int, c_void};
use std::ops::Range;

static ANALYZE: HookChain<pg_sys::post_parse_analyze_hook_type> = HookChain::new();
static START: HookChain<pg_sys::ExecutorStart_hook_type> = HookChain::new();
static RUN: HookChain<pg_sys::ExecutorRun_hook_type> = HookChain::new();
static UTILITY: HookChain<pg_sys::ProcessUtility_hook_type> = HookChain::new();

/// Shown for a nested statement's text if there is no memory for a copy.
const HIDDEN: &std::ffi::CStr = c"(hidden)";

// SAFETY: PostgreSQL's own functions, with exactly these signatures. pgrx's wrappers would turn an
// ERROR into a panic.
unsafe extern "C-unwind" {
    #[link_name = "standard_ExecutorStart"]
    fn start(query: *mut pg_sys::QueryDesc, flags: c_int);
    #[cfg(not(feature = "pg18"))]
    #[link_name = "standard_ExecutorRun"]
    fn run(
        query: *mut pg_sys::QueryDesc,
        direction: pg_sys::ScanDirection::Type,
        count: u64,
        once: bool,
    );
    #[cfg(feature = "pg18")]
    #[link_name = "standard_ExecutorRun"]
    fn run(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64);
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
        RUN.take(&raw mut pg_sys::ExecutorRun_hook, Some(on_run));
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
        analyze(state, query);
        if let Some(previous) = ANALYZE.previous() {
            previous(state, query, jumble);
        }
    }
}

// SAFETY: PostgreSQL calls it with its own query.
unsafe extern "C-unwind" fn on_start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: as PostgreSQL promises its hooks.
    unsafe {
        (*query).sourceText =
            shown((*query).sourceText, || pg_sys::GetMemoryChunkContext(query.cast()));
        match START.previous() {
            Some(previous) => previous(query, flags),
            None => start(query, flags),
        }
    }
}

// A cursor's rows are fetched by statements that do not name us.
// SAFETY: PostgreSQL calls it with its own query.
#[cfg(not(feature = "pg18"))]
unsafe extern "C-unwind" fn on_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
    once: bool,
) {
    // SAFETY: as PostgreSQL promises its hooks.
    unsafe {
        note((*query).sourceText);
        let next = RUN.previous().unwrap_or(run);
        next(query, direction, count, once);
    }
}

// SAFETY: as above.
#[cfg(feature = "pg18")]
unsafe extern "C-unwind" fn on_run(
    query: *mut pg_sys::QueryDesc,
    direction: pg_sys::ScanDirection::Type,
    count: u64,
) {
    // SAFETY: as PostgreSQL promises its hooks.
    unsafe {
        note((*query).sourceText);
        let next = RUN.previous().unwrap_or(run);
        next(query, direction, count);
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
        let text = shown(text, || pg_sys::CurrentMemoryContext);
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
/// `state` and `query` are PostgreSQL's own. Called while PostgreSQL analyzes it.
unsafe fn analyze(state: *mut pg_sys::ParseState, query: *mut pg_sys::Query) {
    // SAFETY: as promised by the caller.
    unsafe {
        let text = (*state).p_sourcetext;
        let Some(bytes) = text_of(text.cast_mut()) else { return };
        let stores = settings::redacts_server_log() && catalog::stores(query);
        let statement = range(query, bytes.len());
        let told = if stores { statement.clone() } else { 0..0 };
        let seen = client_text::is_clients(text).then(|| mask_clients(bytes, Some(query), &told));
        let masked = match seen {
            Some(seen) => seen.masked,
            None => mask_nested(state, bytes, query),
        };
        if !masked {
            return;
        }
        if !(*query).utilityStmt.is_null() {
            calls::note_prepared(query);
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
/// analyzed, and never again. Answers what was found in it. `query` is a statement of it that was
/// just analyzed, if one was. A key within `told` is reported as one in the catalog, so not here.
///
/// # Safety
/// `text` is `debug_query_string`, or the text it was copied from. Called while PostgreSQL analyzes
/// or starts it.
unsafe fn mask_clients(
    text: &mut [u8],
    query: Option<*mut pg_sys::Query>,
    told: &Range<usize>,
) -> SeenText {
    let (address, since) = (text.as_mut_ptr().cast::<c_char>(), masking::statement_start());
    let hides = settings::hides_statements();
    if let Some(seen) = client_text::seen(address) {
        // SAFETY: as promised by the caller.
        let calls_us = || query.is_some_and(|query| unsafe { calls::calls_us(query) });
        if !seen.ours && hides && calls_us() {
            // SAFETY: as promised by the caller.
            unsafe { blank_clients(text) };
        }
        return client_text::seen(address).unwrap_or(seen);
    }
    let redacts = settings::redacts_server_log();
    // SAFETY: as promised by the caller.
    let calls_us = || query.is_some_and(|query| unsafe { calls::calls_us(query) });
    let ours = hides && (intake::names_us(text) || calls_us());
    let mut count = 0;
    if redacts {
        activity::mask_application_name();
        count = mask_keys(text, ours, told);
    }
    if ours {
        intake::statement_holds_a_key();
        intake::blank(text);
        // What named us may have been blanked too.
        if !intake::names_us(text) {
            intake::remember_call(text);
        }
    }
    let masked = count > 0 || ours;
    if masked {
        // SAFETY: as promised by the caller.
        unsafe { show_masked(text) };
    }
    let seen = SeenText { masked, keys: count > 0, ours };
    client_text::remember(address, since, seen);
    seen
}

/// Masks the keys of the client's text and remembers their places. Answers how many there were.
fn mask_keys(text: &mut [u8], ours: bool, told: &Range<usize>) -> usize {
    let mut is_first = true;
    masking::mask_each(text, Ends::Whole, &mut |finding, bytes| {
        let key = MaskedKey::of(finding, bytes);
        let place = PlacedKey { at: finding.start, key };
        let is_kept = Places::remember(place, std::mem::replace(&mut is_first, false));
        // Handing a key to the vault is no leak.
        if !(ours || is_kept && told.contains(&finding.start)) {
            masking::report(&key, Channel::Statement);
        }
    })
}

/// Blanks the client's text, which was found to name us only after it was masked.
///
/// # Safety
/// As `mask_clients`.
pub(super) unsafe fn blank_clients(text: &mut [u8]) {
    let address = text.as_mut_ptr().cast::<c_char>();
    let keys = client_text::seen(address).is_some_and(|seen| seen.keys);
    intake::statement_holds_a_key();
    intake::blank(text);
    intake::remember_call(text);
    // SAFETY: as promised by the caller.
    unsafe { show_masked(text) };
    let seen = SeenText { masked: true, keys, ours: true };
    client_text::remember(address, masking::statement_start(), seen);
}

/// Shows the masked text in every place that has a copy of it.
///
/// # Safety
/// As `mask_clients`.
unsafe fn show_masked(text: &[u8]) {
    activity::show(text);
    // SAFETY: as promised by the caller.
    unsafe {
        plan_source::each_copy(|copy| {
            masking::follow(copy, text);
        });
    }
}

/// Masks what is shown of a nested statement. The text itself stays unchanged, because it may be
/// parsed again. Answers whether something in it was hidden.
///
/// # Safety
/// Called while PostgreSQL analyzes it.
unsafe fn mask_nested(
    state: *mut pg_sys::ParseState,
    text: &[u8],
    query: *mut pg_sys::Query,
) -> bool {
    // SAFETY: as promised by the caller.
    unsafe {
        if settings::hides_statements() && !is_constant() && calls::calls_us(query) {
            intake::remember_call(text);
        }
        let Some(hide) = hider(text) else { return false };
        plan_source::each_copy(|copy| {
            if copy == text {
                hide(copy);
            }
        });
        // Whoever comes after us reads this text: pg_stat_statements keeps it.
        (*state).p_sourcetext = hidden_copy(text, pg_sys::CurrentMemoryContext, hide);
        true
    }
}

/// Whether the running statement is a constant: of an extension's script, or of ours.
fn is_constant() -> bool {
    // SAFETY: reads a process-local variable.
    let script = unsafe { pg_sys::creating_extension };
    script || intake::runs_our_sql() || acts_as_owner()
}

/// How to hide what a nested statement may not show. None: nothing. One that names us makes the
/// whole statement ours.
fn hider(text: &[u8]) -> Option<fn(&mut [u8])> {
    if settings::hides_statements() && !is_constant() && intake::names_us(text) {
        intake::statement_holds_a_key();
        return Some(intake::blank);
    }
    let mask = |text: &mut [u8]| {
        masking::mask_silently(text, Ends::Whole);
    };
    (settings::redacts_server_log() && masking::holds_key(text)).then_some(mask)
}

/// A copy of a text with what may not be shown hidden.
///
/// # Safety
/// `text` ends with a NUL beyond its bytes; `context` is a live memory context.
unsafe fn hidden_copy(
    text: &[u8],
    context: pg_sys::MemoryContext,
    hide: fn(&mut [u8]),
) -> *const c_char {
    // SAFETY: as promised by the caller. Lack of memory raises no ERROR here.
    unsafe {
        let flags = pg_sys::MCXT_ALLOC_HUGE | pg_sys::MCXT_ALLOC_NO_OOM;
        let copy = allocate(context, text.len() + 1, flags as c_int).cast::<u8>();
        if copy.is_null() {
            return HIDDEN.as_ptr();
        }
        copy.copy_from_nonoverlapping(text.as_ptr(), text.len() + 1);
        hide(std::slice::from_raw_parts_mut(copy, text.len()));
        copy.cast::<c_char>().cast_const()
    }
}

/// A query runs whose text names us: the statement that runs it is ours, whatever its own text.
///
/// # Safety
/// `text` is null or a C string.
unsafe fn note(text: *const c_char) {
    // SAFETY: as promised by the caller.
    unsafe {
        let names_us = || text_of(text.cast_mut()).is_some_and(|text| intake::names_us(text));
        let known = || client_text::seen(text).is_some() || intake::is_running();
        if settings::hides_statements() && !known() && !acts_as_owner() && names_us() {
            intake::statement_holds_a_key();
        }
    }
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
    // SAFETY: as promised by the caller.
    unsafe {
        let Some(bytes) = text_of(text.cast_mut()) else { return text };
        if client_text::is_clients(text) {
            mask_clients(bytes, None, &(0..0));
            return text;
        }
        match hider(bytes) {
            Some(hide) => hidden_copy(bytes, context(), hide),
            None => text,
        }
    }
}
