//! Scans a table. Its rows are read as the caller and without SQL, so that no code of its owner
//! runs (docs/facts.md#privileges-and-transactions). `store/named_source` judges the table, as it
//! does for an import.

use super::{Place, Scan, back, begin};
use crate::api::access::Access;
use crate::error::Error;
use crate::input::{PlaceName, ShownName};
use crate::moment::{Moment, Span};
use crate::postgres::table::{self, Leaf, NamedRow, RowPlace};
use crate::postgres::{StepMemory, attempt_or_why, clock, process};
use crate::store::named_source::{self, Source};
use crate::trail::{Channel, FailureReason};
use pgrx::datum::Interval;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::ffi::{CStr, CString};

const TEXTS: [pg_sys::Oid; 4] =
    [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::JSONOID, pg_sys::JSONBOID];
const TIMES: [pg_sys::Oid; 3] = [pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPOID, pg_sys::DATEOID];
/// As many columns as a table can have (MaxHeapAttributeNumber).
const MOST_COLUMNS: usize = 1_600;
const DAY: i64 = Span::DAY.micros();

/// Scans a table for keys in its columns of type text, varchar, json and jsonb, or in those named.
/// With `time_column` and `since` only rows of that time or none. A row per key and column; each
/// key is an incident once. Reads as the caller. Errors: not an auditor, or may not read the source
/// 42501; no table, or row security hides rows of it 22023. No such column 42703, one of another
/// type 22023.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn scan_table_for_leaks(
    source: Option<pgrx::PgRelation>,
    columns: default!(Option<Array<&str>>, "NULL"),
    time_column: default!(Option<&str>, "NULL"),
    since: default!(Option<Interval>, "NULL"),
) -> Result<
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
    let access = begin(Access::must_audit)?;
    let source = access.need(source, "source")?.oid();
    let names = match columns {
        Some(columns) if columns.len() > MOST_COLUMNS => {
            let error = Error::BadInput("too many columns are named", "Name each column once.");
            return Err(access.refuse(FailureReason::BadInput, error).into());
        }
        Some(columns) => columns
            .iter()
            .map(|name| Ok(access.need(name, "a column")?.to_owned()))
            .collect::<Result<Vec<_>, Error>>()?,
        None => named_source::text_columns(source),
    };
    let since = match (time_column, since) {
        (Some(_), Some(since)) => Some(back(&access, since)?),
        (None, None) => None,
        _ => {
            let error =
                Error::BadInput("time_column and since belong together", "Give both, or neither.");
            return Err(access.refuse(FailureReason::BadInput, error).into());
        }
    };
    let columns = ScannedColumns::new(names, time_column, since);
    let source = columns.judge(source).map_err(|error| match error {
        Error::NotAuthorized(_) => access.refuse(FailureReason::NotAuthorized, error),
        _ => access.refuse(FailureReason::BadInput, error),
    })?;
    let mut scan = Scan::new(access, Channel::ScanTable)?;
    columns.search(&mut scan, &source)?;
    Ok(TableIterator::new(scan.finish()))
}

/// The columns of a table that are read, and which of its rows.
pub(super) struct ScannedColumns {
    names: Vec<String>,
    time_column: Option<String>,
    /// Older rows are skipped.
    since: Option<Moment>,
}

impl ScannedColumns {
    /// The columns to search, each once, and which rows.
    pub(super) fn new(
        mut names: Vec<String>,
        time_column: Option<&str>,
        since: Option<Moment>,
    ) -> ScannedColumns {
        names.sort();
        names.dedup();
        ScannedColumns { names, time_column: time_column.map(str::to_owned), since }
    }

    /// Judges the table as the caller.
    pub(super) fn judge(&self, source: pg_sys::Oid) -> Result<Source, Error> {
        let names =
            self.names.iter().chain(&self.time_column).map(|name| CString::new(name.as_str()));
        let names: Vec<CString> = names.filter_map(Result::ok).collect();
        let names: Vec<&CStr> = names.iter().map(|name| name.as_c_str()).collect();
        named_source::judge(source, &names, |leaf| self.judge_columns(leaf))
    }

    /// Checks that the columns exist and have types that can be read.
    fn judge_columns(&self, leaf: &Leaf) -> Result<(), Error> {
        if self.names.is_empty() {
            let hint = "A scan reads columns of type text, varchar, json and jsonb.";
            return Err(Error::BadInput("there is no column to scan", hint));
        }
        for (number, name) in self.names.iter().enumerate() {
            let shown = || ShownName::clean(name).into_string();
            let kind = leaf.column_type(number).ok_or_else(|| Error::NoSuchColumn(shown()))?;
            if !TEXTS.contains(&kind) {
                return Err(Error::UnfitColumn(shown()));
            }
        }
        let Some(time_column) = &self.time_column else { return Ok(()) };
        let shown = || ShownName::clean(time_column).into_string();
        let kind =
            leaf.column_type(self.names.len()).ok_or_else(|| Error::NoSuchColumn(shown()))?;
        let hint = "Name a column of type timestamptz, timestamp or date.";
        if TIMES.contains(&kind) {
            Ok(())
        } else {
            Err(Error::BadInput("the time column is no time", hint))
        }
    }

    /// Searches every row. PostgreSQL's memory for one row is freed before the next.
    pub(super) fn search(&self, scan: &mut Scan, source: &Source) -> Result<(), Error> {
        let memory = StepMemory::new();
        for (name, why) in &source.locked {
            scan.pass_over(PlaceName::clean(name).as_str(), &why.why());
        }
        let places: Vec<Vec<Place>> = source
            .names
            .iter()
            .map(|table| {
                self.names.iter().map(|column| Place::named(&format!("{table}.{column}"))).collect()
            })
            .collect();
        table::read(&source.leaves, |rows| {
            rows.each(|at, row| {
                process::check_interrupts();
                memory.run(|| self.search_row(scan, &places[at.leaf()], at, row))
            })
        })
    }

    /// Searches one row, if it has the wanted time. A value that PostgreSQL cannot unpack or write
    /// out is passed over, and named by its row.
    fn search_row(
        &self,
        scan: &mut Scan,
        places: &[Place],
        at: RowPlace,
        row: &NamedRow,
    ) -> Result<(), Error> {
        if self
            .since
            .is_some_and(|since| time(row, self.names.len()).is_some_and(|time| time < since))
        {
            return Ok(());
        }
        for (number, place) in places.iter().enumerate() {
            if !row.is_stored_elsewhere(number) {
                row.with_text(number, |text| scan.search(place, text)).transpose()?;
                continue;
            }
            let searched = attempt_or_why(|| {
                let searched = row.with_text(number, |text| scan.search(place, text));
                Some(searched.transpose().map(|_| ()))
            });
            match searched {
                Ok(searched) => searched.unwrap_or(Ok(()))?,
                Err(why) => {
                    let which = format!("{}, row {}", place.shown.as_str(), at.address());
                    scan.pass_over(&which, &why.why());
                }
            }
        }
        Ok(())
    }
}

/// The time of a row. None if it has none. A time without a zone may be a day off; then the later
/// one is taken, so that no row is missed.
fn time(row: &NamedRow, column: usize) -> Option<Moment> {
    let since_2000 = match row.column_type(column)? {
        pg_sys::DATEOID => {
            i64::from(row.get::<i32>(column)?).saturating_mul(DAY).saturating_add(2 * DAY)
        }
        pg_sys::TIMESTAMPOID => row.get::<i64>(column)?.saturating_add(DAY),
        _ => row.get::<i64>(column)?,
    };
    Some(clock::moment(since_2000))
}
