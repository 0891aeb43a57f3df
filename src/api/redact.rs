//! Masks keys in text (docs/leaks.md). These functions hold no secret and need no preloading, no
//! keyring and no tables, so they work in anybody's generated column. `redact` finds the keys.
#![forbid(unsafe_code)]

use crate::error::{Answer, Error};
use crate::postgres::memory;
use crate::redact::{self, OutOfMemory, Patterns};
use pgrx::prelude::*;
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

/// Masks provider keys in a text: their public prefix stays, the rest becomes `...[REDACTED]`.
/// Errors: no memory for the answer 53200, an answer over a gigabyte 54000.
#[pg_extern(name = "redact", immutable, strict, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
fn redact_text(text: &str) -> Answer<String> {
    Ok(answer(redact::redact_pausing(text, &mut pause))?)
}

/// Masks provider keys in a text, and whatever matches one of the patterns: regular expressions in
/// the syntax of Rust's regex crate. Errors: a pattern that is none, or matches everything or the
/// empty string 22023; NULL among them 22004.
#[pg_extern(name = "redact", immutable, strict, parallel_safe)]
#[search_path(pg_catalog, pg_temp)]
fn redact_with_patterns(text: &str, extra_patterns: Array<&str>) -> Answer<String> {
    Patterns::check(extra_patterns.len(), extra_patterns.iter().flatten()).map_err(refused)?;
    let patterns: Option<Vec<String>> =
        extra_patterns.iter().map(|pattern| pattern.map(str::to_owned)).collect();
    let patterns = compiled(patterns.ok_or(Error::NullInput("a pattern"))?)?;
    Ok(answer(patterns.redact(text, &mut pause))?)
}

/// The longest text that PostgreSQL takes.
const LONGEST: usize = 0x3fff_ffff - 4;

/// A masked text, if there was memory for it and PostgreSQL can take it.
fn answer(masked: Result<Cow<str>, OutOfMemory>) -> Result<String, Error> {
    let masked = masked.map_err(|OutOfMemory| Error::OutOfMemory("the masked text"))?;
    if masked.len() > LONGEST {
        return Err(Error::TooLarge("the masked text"));
    }
    match masked {
        Cow::Owned(masked) => Ok(masked),
        Cow::Borrowed(text) => Ok(memory::copied(text.as_bytes())),
    }
}

/// Lets a query be cancelled.
fn pause() {
    pgrx::check_for_interrupts!();
}

/// The error of a pattern that is refused.
fn refused(refusal: redact::Refusal) -> Error {
    Error::BadInput(refusal.message, refusal.hint)
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
    let patterns = Rc::new(Patterns::new(texts.iter().map(String::as_str)).map_err(refused)?);
    LAST.set(Some((texts, patterns.clone())));
    Ok(patterns)
}
