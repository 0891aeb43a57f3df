//! Masks keys in text (docs/leaks.md). These functions hold no secret and need no preloading, no
//! keyring and no tables, so they work in anybody's generated column. `redact` finds the keys.
#![forbid(unsafe_code)]

use crate::error::{Answer, Error};
use crate::redact::{self, Patterns};
use pgrx::prelude::*;
use std::cell::RefCell;
use std::rc::Rc;

/// Masks provider keys in a text: their public prefix stays, the rest becomes `...[REDACTED]`.
#[pg_extern(name = "redact", immutable, strict, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
fn redact_text(text: &str) -> String {
    redact::redact_pausing(text, &mut pause).into_owned()
}

/// Masks provider keys in a text, and whatever matches one of the patterns: regular expressions in
/// the syntax of Rust's regex crate. Errors: a pattern that is none, or matches everything or the
/// empty string 22023; NULL among them 22004.
#[pg_extern(name = "redact", immutable, strict, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
fn redact_with_patterns(text: &str, extra_patterns: Vec<Option<String>>) -> Answer<String> {
    let patterns: Option<Vec<String>> = extra_patterns.into_iter().collect();
    let patterns = compiled(patterns.ok_or(Error::NullInput("a pattern"))?)?;
    Ok(patterns.redact(text, &mut pause).into_owned())
}

/// Lets a query be cancelled.
fn pause() {
    pgrx::check_for_interrupts!();
}

/// Compiles patterns, or takes those of the last call, because a query uses the same patterns for
/// every row.
fn compiled(texts: Vec<String>) -> Result<Rc<Patterns>, Error> {
    thread_local! {
        static LAST: RefCell<Option<(Vec<String>, Rc<Patterns>)>> = const { RefCell::new(None) };
    }
    let last = LAST.with_borrow(|last| {
        last.as_ref().filter(|last| last.0 == texts).map(|last| last.1.clone())
    });
    if let Some(patterns) = last {
        return Ok(patterns);
    }
    let refused = |refusal: redact::Refusal| Error::BadInput(refusal.message, refusal.hint);
    let patterns = Rc::new(Patterns::new(texts.iter().map(String::as_str)).map_err(refused)?);
    LAST.set(Some((texts, patterns.clone())));
    Ok(patterns)
}
