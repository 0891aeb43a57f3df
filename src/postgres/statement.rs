//! A constant statement with a kept plan: parsed once per process, run as the owner of our tables.
//! Unsafe: SPI by hand, for two reasons. A read must use the latest snapshot, so that a REPEATABLE
//! READ transaction does not reopen a deleted key. A read must not take a transaction id, as pgrx's
//! `update` does. A read takes 3 µs.

use super::owner::{Owner, Switch, switch_to};
use super::{StepMemory, process, session};
use pgrx::datum::{DatumWithOid, FromDatum};
use pgrx::pg_sys;
use std::ffi::CString;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// How many rows of a cursor are in memory at a time.
const BATCH: std::ffi::c_long = 100;

/// SQL that is a constant of this program.
pub(crate) struct Statement {
    sql: &'static str,
    arguments: &'static [pg_sys::Oid],
    plan: AtomicPtr<pg_sys::_SPI_plan>,
}

/// One row of an answer; columns count from 1.
pub(crate) struct Row {
    pub(super) tuple: pg_sys::HeapTuple,
    pub(super) columns: pg_sys::TupleDesc,
}

impl Row {
    pub(crate) fn get<T: FromDatum>(&self, column: i32) -> Option<T> {
        let mut null = false;
        // SAFETY: tuple and descriptor belong to a call or scan that stays open while a `Row` is
        // lent out.
        unsafe {
            let value = pg_sys::SPI_getbinval(self.tuple, self.columns, column, &mut null);
            T::from_polymorphic_datum(value, null, pg_sys::SPI_gettypeid(self.columns, column))
        }
    }
}

impl Statement {
    pub(crate) const fn new(sql: &'static str, arguments: &'static [pg_sys::Oid]) -> Statement {
        Statement { sql, arguments, plan: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Reads as the owner, with the latest snapshot.
    pub(crate) fn read<T>(
        &self,
        owner: Owner,
        arguments: &[DatumWithOid],
        row: impl FnMut(&Row) -> T,
    ) -> Vec<T> {
        let _restored = switch_to(owner, Switch::Caller);
        self.read_latest(arguments, row)
    }

    /// Reads as the caller: catalogs, and relations that the caller names.
    pub(crate) fn read_as_caller<T>(
        &self,
        arguments: &[DatumWithOid],
        row: impl FnMut(&Row) -> T,
    ) -> Vec<T> {
        self.read_latest(arguments, row)
    }

    /// Reads as the caller and calls `row` with each row, until it fails. Catalogs of any size:
    /// only one batch is in memory.
    pub(crate) fn each_as_caller<E>(
        &self,
        row: impl FnMut(&Row) -> Result<(), E>,
    ) -> Result<(), E> {
        debug_assert!(self.arguments.is_empty());
        // SAFETY: SPI is connected and finished in pairs; an ERROR in between aborts, which
        // finishes it.
        unsafe {
            pg_sys::SPI_connect();
            let outcome = each(self.plan(), row);
            pg_sys::SPI_finish();
            outcome
        }
    }

    /// Changes or locks rows as the owner. `work` gets the rows of RETURNING, or the locked rows.
    pub(crate) fn change<T>(
        &self,
        owner: Owner,
        arguments: &[DatumWithOid],
        row: impl FnMut(&Row) -> T,
    ) -> Vec<T> {
        let _restored = switch_to(owner, Switch::Caller);
        self.execute(arguments, false, row).1
    }

    /// As `change`, for the writer; answers the number of rows.
    pub(crate) fn write(&self, owner: Owner, arguments: &[DatumWithOid]) -> u64 {
        let _restored = switch_to(owner, Switch::Writer);
        self.execute(arguments, false, |_| ()).0
    }

    /// As `write`; `row` gets the rows of RETURNING.
    pub(crate) fn write_each<T>(
        &self,
        owner: Owner,
        arguments: &[DatumWithOid],
        row: impl FnMut(&Row) -> T,
    ) -> Vec<T> {
        let _restored = switch_to(owner, Switch::Writer);
        self.execute(arguments, false, row).1
    }

    fn read_latest<T>(&self, arguments: &[DatumWithOid], row: impl FnMut(&Row) -> T) -> Vec<T> {
        // A parallel query that asks for the caller's projects has its own snapshot. It cannot take
        // a newer one.
        if session::is_parallel() {
            return self.execute(arguments, true, row).1;
        }
        // SAFETY: inside a transaction; the pushed snapshot is popped below, or by the abort that
        // follows an ERROR.
        unsafe {
            pg_sys::CommandCounterIncrement();
            pg_sys::PushActiveSnapshot(pg_sys::GetLatestSnapshot());
        }
        let (_, rows) = self.execute(arguments, true, row);
        // SAFETY: pops what was pushed above.
        unsafe { pg_sys::PopActiveSnapshot() };
        rows
    }

    fn execute<T>(
        &self,
        arguments: &[DatumWithOid],
        read_only: bool,
        mut row: impl FnMut(&Row) -> T,
    ) -> (u64, Vec<T>) {
        let (mut values, nulls): (Vec<pg_sys::Datum>, Vec<std::ffi::c_char>) = arguments
            .iter()
            .map(|argument| match argument.datum() {
                Some(datum) => (datum.sans_lifetime(), b' ' as std::ffi::c_char),
                None => (pg_sys::Datum::null(), b'n' as std::ffi::c_char),
            })
            .unzip();
        debug_assert_eq!(values.len(), self.arguments.len());
        // SAFETY: SPI is connected and finished in pairs; an ERROR in between aborts, which
        // finishes it. The plan has as many arguments as `values`. Rows are read before SPI_finish
        // frees them.
        unsafe {
            pg_sys::SPI_connect();
            let plan = self.plan();
            let status =
                pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), nulls.as_ptr(), read_only, 0);
            if status < 0 {
                pgrx::error!("watchllm_keys: statement failed with SPI status {status}");
            }
            let count = pg_sys::SPI_processed;
            let mut rows = Vec::new();
            if let Some(table) = pg_sys::SPI_tuptable.as_ref() {
                rows.reserve(table.numvals as usize);
                for i in 0..table.numvals as usize {
                    rows.push(row(&Row { tuple: *table.vals.add(i), columns: table.tupdesc }));
                }
            }
            pg_sys::SPI_finish();
            (count, rows)
        }
    }

    /// # Safety
    /// SPI must be connected.
    unsafe fn plan(&self) -> pg_sys::SPIPlanPtr {
        let kept = self.plan.load(Relaxed);
        if !kept.is_null() {
            return kept;
        }
        // SAFETY: as promised by the caller; the kept plan lives until process end.
        unsafe {
            let plan = prepare(self.sql, self.arguments);
            if pg_sys::SPI_keepplan(plan) != 0 {
                let result = pg_sys::SPI_result;
                pgrx::error!("watchllm_keys: statement cannot be kept: SPI result {result}");
            }
            self.plan.store(plan, Relaxed);
            plan
        }
    }
}

/// As `Statement::each_as_caller`, on the objects of an extension whose schema only its
/// installation knows. `SCHEMA` in the constant stands for that schema.
pub(crate) fn each_in_schema<E>(
    sql: &'static str,
    schema: &str,
    row: impl FnMut(&Row) -> Result<(), E>,
) -> Result<(), E> {
    let sql = sql.replace("SCHEMA", &pgrx::spi::quote_identifier(schema));
    // SAFETY: as there; the plan is gone with SPI_finish.
    unsafe {
        pg_sys::SPI_connect();
        let outcome = each(prepare(&sql, &[]), row);
        pg_sys::SPI_finish();
        outcome
    }
}

/// # Safety
/// SPI must be connected.
unsafe fn prepare(sql: &str, arguments: &[pg_sys::Oid]) -> pg_sys::SPIPlanPtr {
    let Ok(sql) = CString::new(sql) else { pgrx::error!("watchllm_keys: a statement holds a NUL") };
    // SAFETY: the argument types outlive the call, which copies them.
    unsafe {
        let plan = pg_sys::SPI_prepare(
            sql.as_ptr(),
            arguments.len() as i32,
            arguments.as_ptr().cast_mut(),
        );
        if plan.is_null() {
            let result = pg_sys::SPI_result;
            pgrx::error!("watchllm_keys: statement cannot be prepared: SPI result {result}");
        }
        plan
    }
}

/// Calls `row` with each row of a plan without arguments, until it fails. What PostgreSQL allocates
/// for one row is freed before the next.
///
/// # Safety
/// SPI must be connected; the plan is of this connection or kept.
unsafe fn each<E>(
    plan: pg_sys::SPIPlanPtr,
    mut row: impl FnMut(&Row) -> Result<(), E>,
) -> Result<(), E> {
    let memory = StepMemory::new();
    // SAFETY: rows are read before their batch is freed. If an ERROR leaves early, the abort closes
    // the cursor.
    unsafe {
        let cursor = pg_sys::SPI_cursor_open(ptr::null(), plan, ptr::null_mut(), ptr::null(), true);
        let mut outcome = Ok(());
        while outcome.is_ok() {
            process::check_interrupts();
            pg_sys::SPI_cursor_fetch(cursor, true, BATCH);
            let table = pg_sys::SPI_tuptable;
            let count = if table.is_null() { 0 } else { (*table).numvals as usize };
            let tuple = |i: usize| Row { tuple: *(*table).vals.add(i), columns: (*table).tupdesc };
            for i in 0..count {
                memory.run(|| outcome = row(&tuple(i)));
                if outcome.is_err() {
                    break;
                }
            }
            pg_sys::SPI_freetuptable(table);
            if count == 0 {
                break;
            }
        }
        pg_sys::SPI_cursor_close(cursor);
        outcome
    }
}
