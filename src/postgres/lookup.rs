//! Point reads: rows of our own tables by unique index, without the executor. Opening a key reads
//! three rows. Three index scans through SPI took 25 µs, a quarter of the caller's work; this takes
//! 4 µs. All reads of one `Reads` share the latest snapshot. Unsafe: the scan that PostgreSQL uses
//! for its catalogs.

use super::{Owner, Row, relation_changes};
use pgrx::datum::IntoDatum;
use pgrx::pg_sys;
use std::ffi::CString;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// A unique index of one of our tables, or its first columns. `columns` are the numbers of its
/// columns in the table.
pub(crate) struct Lookup {
    table: &'static str,
    index: &'static str,
    columns: &'static [i16],
    table_oid: AtomicU32,
    index_oid: AtomicU32,
    /// `relation_changes()` at the time the oids were found, plus one. 0: not found yet.
    found_at: AtomicU64,
}

/// The value that a column must have.
pub(crate) enum IndexKey<'a> {
    Uuid(pgrx::Uuid),
    Int4(i32),
    Bytes(&'a [u8; 32]),
}

/// Reads under one snapshot.
pub(crate) struct Reads {
    snapshot: pg_sys::Snapshot,
}

impl Lookup {
    pub(crate) const fn new(
        table: &'static str,
        index: &'static str,
        columns: &'static [i16],
    ) -> Lookup {
        let (table_oid, index_oid) = (AtomicU32::new(0), AtomicU32::new(0));
        Lookup { table, index, columns, table_oid, index_oid, found_at: AtomicU64::new(0) }
    }

    fn oids(&self) -> Option<(pg_sys::Oid, pg_sys::Oid)> {
        let now = relation_changes() + 1;
        if self.found_at.load(Relaxed) != now {
            self.table_oid.store(relation(self.table)?.to_u32(), Relaxed);
            self.index_oid.store(relation(self.index)?.to_u32(), Relaxed);
            self.found_at.store(now, Relaxed);
        }
        Some((self.table_oid.load(Relaxed).into(), self.index_oid.load(Relaxed).into()))
    }
}

/// Runs `work` with the latest snapshot. `Owner` proves that the tables are ours and complete.
pub(crate) fn read<T>(_owner: Owner, work: impl FnOnce(&Reads) -> T) -> T {
    // SAFETY: inside a transaction; the registered snapshot is given back below, or by the abort
    // after an ERROR.
    unsafe {
        pg_sys::CommandCounterIncrement();
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let answer = work(&Reads { snapshot });
        pg_sys::UnregisterSnapshot(snapshot);
        answer
    }
}

impl Reads {
    /// The row with these keys, which are in the order of the lookup's columns.
    pub(crate) fn one<T>(
        &self,
        lookup: &Lookup,
        keys: &[IndexKey],
        row: impl FnMut(&Row) -> T,
    ) -> Option<T> {
        self.scan(lookup, keys, 1, row)?.pop()
    }

    /// The rows whose first columns have these keys. None: table or index is missing.
    pub(crate) fn each<T>(
        &self,
        lookup: &Lookup,
        keys: &[IndexKey],
        row: impl FnMut(&Row) -> T,
    ) -> Option<Vec<T>> {
        self.scan(lookup, keys, usize::MAX, row)
    }

    fn scan<T>(
        &self,
        lookup: &Lookup,
        keys: &[IndexKey],
        most: usize,
        mut row: impl FnMut(&Row) -> T,
    ) -> Option<Vec<T>> {
        debug_assert_eq!(keys.len(), lookup.columns.len());
        let (table, index) = lookup.oids()?;
        let mut rows = Vec::new();
        // SAFETY: table and index are opened and closed in pairs; an ERROR in between aborts, which
        // closes them. The keys live through the scan, and each row is read before the next.
        unsafe {
            let mut scan_keys: Vec<pg_sys::ScanKeyData> =
                lookup.columns.iter().zip(keys).map(scan_key).collect();
            let relation = pg_sys::table_open(table, pg_sys::AccessShareLock as i32);
            let count = scan_keys.len() as i32;
            let scan = pg_sys::systable_beginscan(
                relation,
                index,
                true,
                self.snapshot,
                count,
                scan_keys.as_mut_ptr(),
            );
            while rows.len() < most {
                let tuple = pg_sys::systable_getnext(scan);
                if tuple.is_null() {
                    break;
                }
                rows.push(row(&Row { tuple, columns: (*relation).rd_att }));
            }
            pg_sys::systable_endscan(scan);
            pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
        }
        Some(rows)
    }
}

fn scan_key((column, key): (&i16, &IndexKey)) -> pg_sys::ScanKeyData {
    let (equals, value) = match key {
        IndexKey::Uuid(id) => (pg_sys::F_UUID_EQ, pg_sys::Datum::from(id.as_bytes().as_ptr())),
        IndexKey::Int4(number) => (pg_sys::F_INT4EQ, pg_sys::Datum::from(*number)),
        IndexKey::Bytes(bytes) => {
            (pg_sys::F_BYTEAEQ, bytes.as_slice().into_datum().unwrap_or(pg_sys::Datum::null()))
        }
    };
    let mut scan_key = pg_sys::ScanKeyData::default();
    let strategy = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
    // SAFETY: fills the struct; `equals` is a built-in function of the column's type.
    unsafe { pg_sys::ScanKeyInit(&mut scan_key, *column, strategy, equals.into(), value) };
    scan_key
}

/// A relation of schema `watchllm` by name.
pub(crate) fn relation(name: &str) -> Option<pg_sys::Oid> {
    let name = CString::new(name).ok()?;
    // SAFETY: catalog look-ups inside a transaction.
    let oid = unsafe {
        pg_sys::get_relname_relid(
            name.as_ptr(),
            pg_sys::get_namespace_oid(c"watchllm".as_ptr(), true),
        )
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}
