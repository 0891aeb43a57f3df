//! Statements that store their text in the catalog, where other roles read it: a comment, a
//! function's body, a view, a setting of a role. Masking would change their meaning, so they run
//! unchanged, with a WARNING and an incident. Unsafe: reads nodes of PostgreSQL's parse tree.

use super::masking::{self, MaskedKey};
use crate::trail::Channel;
use pgrx::pg_sys::{self, NodeTag};
use pgrx::prelude::*;
use std::cell::Cell;
use std::ops::Range;

/// The most keys of one text whose places are remembered.
const PLACES: usize = 8;

/// A key that was masked in a client's text, and its place.
#[derive(Clone, Copy)]
pub(super) struct PlacedKey {
    pub at: usize,
    pub key: MaskedKey,
}

const NOWHERE: PlacedKey =
    PlacedKey { at: 0, key: MaskedKey { provider: None, kind: "", key_hash: None } };

/// Keys of one text.
#[derive(Clone, Copy)]
pub(super) struct Places {
    found: [PlacedKey; PLACES],
    count: usize,
}

thread_local! {
    /// What was masked in the client's text. Later statements of the same text need it, because the
    /// masked text no longer shows the keys.
    static LAST: Cell<Places> = const { Cell::new(Places::NONE) };
}

impl Places {
    pub(super) const NONE: Places = Places { found: [NOWHERE; PLACES], count: 0 };

    /// Answers whether there was room.
    pub(super) fn add(&mut self, place: PlacedKey) -> bool {
        let Some(free) = self.found.get_mut(self.count) else { return false };
        *free = place;
        self.count += 1;
        true
    }

    /// Remembers one more key of the client's text. Answers whether there was room.
    pub(super) fn remember(place: PlacedKey, is_first: bool) -> bool {
        let mut places = if is_first { Places::NONE } else { LAST.get() };
        let has_room = places.add(place);
        LAST.set(places);
        has_room
    }

    /// The keys that were found in the client's text.
    pub(super) fn remembered() -> Places {
        LAST.get()
    }
}

/// Whether this utility statement stores its text, or parts of it, in the catalog.
///
/// # Safety
/// `query` is PostgreSQL's own.
pub(super) unsafe fn stores(query: *const pg_sys::Query) -> bool {
    use NodeTag::*;
    // SAFETY: every node begins with its tag.
    let tag = unsafe {
        if (*query).utilityStmt.is_null() { return false } else { (*(*query).utilityStmt).type_ }
    };
    matches!(
        tag,
        T_CommentStmt
            | T_SecLabelStmt
            | T_CreateFunctionStmt
            | T_ViewStmt
            | T_RuleStmt
            | T_RenameStmt
            | T_CreateSchemaStmt
            | T_CreateStatsStmt
            | T_CreateTrigStmt
            | T_CreatePolicyStmt
            | T_AlterPolicyStmt
            | T_AlterRoleSetStmt
            | T_AlterDatabaseSetStmt
            | T_AlterFunctionStmt
            | T_AlterSystemStmt
            | T_CreateStmt
            | T_AlterTableStmt
            | T_CreateDomainStmt
            | T_AlterDomainStmt
            | T_IndexStmt
            | T_CreateForeignServerStmt
            | T_AlterForeignServerStmt
            | T_CreateUserMappingStmt
            | T_AlterUserMappingStmt
            | T_CreateSubscriptionStmt
            | T_AlterSubscriptionStmt
    )
}

/// Warns once if a key at one of these places lies within the statement, and reports each such key.
pub(super) fn warn_of(places: &Places, statement: &Range<usize>) {
    let within =
        || places.found[..places.count].iter().filter(|place| statement.contains(&place.at));
    within().for_each(|place| masking::report(&place.key, Channel::Catalog));
    if within().next().is_some() {
        // SAFETY: `warn` is guarded, so that an ERROR in it leaves as PostgreSQL's own.
        unsafe { warn() };
    }
}

/// # Safety
/// Called where an ERROR may be raised.
#[pg_guard]
unsafe extern "C-unwind" fn warn() {
    pgrx::pg_sys::panic::ErrorReport::new(
        PgSqlErrorCode::ERRCODE_WARNING,
        "watchllm_keys: this statement puts what looks like a provider key into the catalog, \
         where other roles can read it",
        function_name!(),
    )
    .set_hint("Take it out again and rotate the key; keep keys in the vault.")
    .report(PgLogLevel::WARNING);
}
