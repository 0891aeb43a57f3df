//! Scans the database's own texts: has somebody written a key into a function, a comment or a
//! setting? `store/definitions` holds the queries. Objects that the caller may not read are
//! reported.

use super::table::ScannedColumns;
use super::{Place, Scan, begin};
use crate::api::access::Access;
use crate::error::Error;
use crate::input::PlaceName;
use crate::postgres::attempt_or_why;
use crate::store::{definitions, named_source};
use crate::trail::Channel;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::cell::LazyCell;

/// Scans the definitions that the caller may read: functions, views, rules, comments, defaults,
/// constraints, triggers, policies, indexes, settings of roles and databases. Also options of
/// foreign servers and user mappings, subscriptions, pg_cron's jobs, texts of pg_stat_statements. A
/// row per key and place; each key is an incident once. What it may not read a NOTICE names.
/// Errors: not an auditor 42501.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn scan_database_for_leaks() -> Result<
    TableIterator<
        'static,
        (
            name!(place, String),
            name!(provider, Option<String>),
            name!(kind, String),
            name!(redacted, String),
            name!(provider_key_id, Option<pgrx::Uuid>),
            name!(occurrences, i64),
            name!(is_new, bool),
        ),
    >,
    ErrorReport,
> {
    let mut scan = Scan::new(begin(Access::must_audit)?, Channel::ScanDatabase)?;
    let mut unread = Vec::new();
    definitions::each(
        |defined, text| search(&mut scan, text, || defined.place()),
        |what, why| unread.push((PlaceName::clean(what), why.to_owned())),
    )?;
    unread.iter().for_each(|(what, why)| scan.pass_over(what.as_str(), why));
    let hidden = definitions::hidden();
    if hidden.subscriptions {
        passed_over("connection strings of subscriptions", "only superusers may read them");
    }
    if hidden.mappings {
        passed_over(
            "options of some user mappings",
            "their server's owner and superusers may read them",
        );
    }
    search_jobs(&mut scan)?;
    search_statements(&mut scan)?;
    Ok(TableIterator::new(scan.finish()))
}

/// Searches one text. Its place is looked up only if a key is found, once.
fn search(scan: &mut Scan, text: &str, place: impl FnOnce() -> String) -> Result<(), Error> {
    scan.search(LazyCell::new(|| Place::named(&place())), text.as_bytes())
}

/// Searches pg_cron's commands. They are read as any table, so that code of a table with the same
/// name cannot run.
fn search_jobs(scan: &mut Scan) -> Result<(), Error> {
    let Some(jobs) = definitions::cron_jobs() else { return Ok(()) };
    let columns = ScannedColumns::new(named_source::text_columns(jobs), None, None);
    match attempt_or_why(|| Some(columns.judge(jobs))) {
        Ok(Some(Ok(source))) => columns.search(scan, &source),
        Ok(Some(Err(error))) => {
            passed_over("cron.job", &error.message());
            Ok(())
        }
        Ok(None) => Ok(()),
        Err(failed) => {
            passed_over("cron.job", &failed.why());
            Ok(())
        }
    }
}

/// The texts that pg_stat_statements keeps.
fn search_statements(scan: &mut Scan) -> Result<(), Error> {
    let Some(schema) = definitions::statistics() else { return Ok(()) };
    let Some(schema) = schema else {
        passed_over("pg_stat_statements", "you may not read it, or it is not preloaded");
        return Ok(());
    };
    if definitions::each_statement(&schema, |place, text| search(scan, text, || place.to_owned()))?
    {
        passed_over(
            "statements of other roles in pg_stat_statements",
            "members of pg_read_all_stats may read them",
        );
    }
    Ok(())
}

/// Says what was not searched, because that differs from finding nothing.
fn passed_over(what: &str, why: &str) {
    notice!("scan_database_for_leaks: not scanned: {what}: {why}");
}
