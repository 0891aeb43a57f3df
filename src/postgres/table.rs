//! A table that a caller names, read as the caller and without SQL. So no code of its owner can
//! run: no view, policy, operator, cast or domain. No code can run through the planner either,
//! which evaluates index expressions, CHECKs and statistics with the reader's rights. `store`
//! judges rights before. Unsafe: the heap scan that PostgreSQL uses for its catalogs, and fetches
//! by row address, all under one snapshot.

use super::{JsonbText, Row};
use pgrx::datum::FromDatum;
use pgrx::pg_sys;
use std::ffi::CStr;

/// A relation that holds rows itself: a table, a materialised view or a partition.
pub(crate) struct Leaf {
    /// The `relkind` in pg_class.
    pub kind: u8,
    relation: pg_sys::Oid,
    columns: Vec<Option<Column>>,
}

/// The place of a column in one leaf, and its type.
#[derive(Clone, Copy)]
struct Column {
    number: i32,
    kind: pg_sys::Oid,
}

/// Open leaves under one snapshot.
pub(crate) struct Rows<'a> {
    leaves: Vec<(&'a Leaf, pg_sys::Relation)>,
    snapshot: pg_sys::Snapshot,
}

/// The address of a row.
#[derive(Clone, Copy)]
pub(crate) struct RowPlace {
    leaf: u32,
    address: pg_sys::ItemPointerData,
}

/// A row of a leaf. Columns count from 0, in the order of the names given to `look`.
pub(crate) struct NamedRow<'a> {
    row: Row,
    leaf: &'a Leaf,
}

/// Locks a relation against changes of its shape until this transaction ends, and finds the named
/// columns. None: the relation is gone. A column that is computed when read counts as missing.
pub(crate) fn look(relation: pg_sys::Oid, names: &[&CStr]) -> Option<Leaf> {
    // SAFETY: opened and closed here. The lock stays, so that the answer stays true.
    let kind = unsafe {
        let open = pg_sys::try_table_open(relation, pg_sys::AccessShareLock as i32);
        let kind = (!open.is_null()).then(|| (*(*open).rd_rel).relkind as u8)?;
        pg_sys::table_close(open, pg_sys::NoLock as i32);
        kind
    };
    let column = |name: &&CStr| {
        // SAFETY: catalog look-ups on a relation that is locked.
        unsafe {
            let number = pg_sys::get_attnum(relation, name.as_ptr());
            let stored = number > 0 && pg_sys::get_attgenerated(relation, number) as u8 != b'v';
            stored.then(|| Column {
                number: number.into(),
                kind: pg_sys::get_atttype(relation, number),
            })
        }
    };
    Some(Leaf { kind, relation, columns: names.iter().map(column).collect() })
}

impl Leaf {
    /// The type of a column. None: there is no such column.
    pub(crate) fn column_type(&self, column: usize) -> Option<pg_sys::Oid> {
        self.columns.get(column).copied().flatten().map(|found| found.kind)
    }
}

/// Opens the leaves for `work`, in their present state. They must be tables (`kind` r or m) that
/// `look` has locked.
pub(crate) fn read<T>(leaves: &[Leaf], work: impl FnOnce(&Rows) -> T) -> T {
    debug_assert!(leaves.iter().all(|leaf| matches!(leaf.kind, b'r' | b'm')));
    // SAFETY: inside a transaction; relations and snapshot are given back below, or by the abort
    // after an ERROR.
    unsafe {
        pg_sys::CommandCounterIncrement();
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
        let open = |leaf: &Leaf| pg_sys::table_open(leaf.relation, pg_sys::AccessShareLock as i32);
        let rows =
            Rows { leaves: leaves.iter().map(|leaf| (leaf, open(leaf))).collect(), snapshot };
        let answer = work(&rows);
        rows.leaves.iter().for_each(|(_, open)| pg_sys::table_close(*open, pg_sys::NoLock as i32));
        pg_sys::UnregisterSnapshot(snapshot);
        answer
    }
}

impl Rows<'_> {
    /// Calls `visit` with every row, leaf by leaf, until it fails.
    pub(crate) fn each<E>(
        &self,
        mut visit: impl FnMut(RowPlace, &NamedRow) -> Result<(), E>,
    ) -> Result<(), E> {
        for (number, (leaf, open)) in self.leaves.iter().enumerate() {
            // SAFETY: the relation is open. A scan without index and keys reads its heap, and each
            // tuple is read before the next is fetched.
            unsafe {
                let none = std::ptr::null_mut();
                let scan = pg_sys::systable_beginscan(
                    *open,
                    pg_sys::InvalidOid,
                    false,
                    self.snapshot,
                    0,
                    none,
                );
                let mut outcome = Ok(());
                while outcome.is_ok() {
                    let tuple = pg_sys::systable_getnext(scan);
                    if tuple.is_null() {
                        break;
                    }
                    let row = Row { tuple, columns: (**open).rd_att };
                    outcome = visit(
                        RowPlace { leaf: number as u32, address: (*tuple).t_self },
                        &NamedRow { row, leaf },
                    );
                }
                pg_sys::systable_endscan(scan);
                outcome?;
            }
        }
        Ok(())
    }

    /// The row at an address. None if it is gone, which the snapshot rules out.
    pub(crate) fn at<T>(&self, place: RowPlace, read: impl FnOnce(&NamedRow) -> T) -> Option<T> {
        let (leaf, open) = self.leaves.get(place.leaf as usize)?;
        let mut address = place.address;
        // SAFETY: the relation is open, and the address came from it under the same snapshot. The
        // slot holds the tuple until it is dropped.
        unsafe {
            let fetch = (*(**open).rd_tableam).tuple_fetch_row_version?;
            let slot = pg_sys::table_slot_create(*open, std::ptr::null_mut());
            let answer = fetch(*open, &mut address, self.snapshot, slot).then(|| {
                let mut copied = false;
                let tuple = pg_sys::ExecFetchSlotHeapTuple(slot, false, &mut copied);
                read(&NamedRow { row: Row { tuple, columns: (**open).rd_att }, leaf })
            });
            pg_sys::ExecDropSingleTupleTableSlot(slot);
            answer
        }
    }
}

impl RowPlace {
    /// The row's address as SQL shows it (`ctid`).
    pub(crate) fn address(&self) -> String {
        let block = self.address.ip_blkid;
        let block = u32::from(block.bi_hi) << 16 | u32::from(block.bi_lo);
        format!("({block},{})", self.address.ip_posid)
    }

    /// The number of the row's leaf, from 0.
    pub(crate) fn leaf(&self) -> usize {
        self.leaf as usize
    }
}

impl NamedRow<'_> {
    /// The type of a column. None: there is no such column.
    pub(crate) fn column_type(&self, column: usize) -> Option<pg_sys::Oid> {
        self.leaf.column_type(column)
    }

    /// A value, read as `T`. The caller has compared the column's type.
    pub(crate) fn get<T: FromDatum>(&self, column: usize) -> Option<T> {
        self.row.get(self.leaf.columns.get(column).copied().flatten()?.number)
    }

    /// A text of at most `longest` bytes. None if it is NULL, longer or not UTF-8. A longer text is
    /// not unpacked.
    pub(crate) fn text(&self, column: usize, longest: usize) -> Option<String> {
        // SAFETY: a datum of type text or varchar; its size is read from its header.
        let fits =
            |datum| unsafe { pg_sys::toast_raw_datum_size(datum) } <= longest + pg_sys::VARHDRSZ;
        let datum = self.datum(column).filter(|datum| fits(*datum))?;
        // SAFETY: as above; unpacked in the current memory context and copied at once.
        let bytes = unsafe { content(pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr())) };
        String::from_utf8(bytes).ok()
    }

    /// The first bytes of a text, at most `longest`, cut at a character. None if it is NULL.
    pub(crate) fn beginning(&self, column: usize, longest: usize) -> Option<String> {
        let datum = self.datum(column)?;
        // SAFETY: a datum of type text or varchar; only the slice is unpacked, and copied at once.
        let bytes = unsafe {
            content(pg_sys::pg_detoast_datum_slice(datum.cast_mut_ptr(), 0, longest as i32))
        };
        let whole = std::str::from_utf8(&bytes).map_or_else(|error| error.valid_up_to(), str::len);
        String::from_utf8(bytes[..whole].to_vec()).ok()
    }

    /// Lends a whole text, of type text, varchar, json or jsonb, to `work`. None if it is NULL. The
    /// text lies in the current memory context, so that a gigabyte is not copied again.
    pub(crate) fn with_text<T>(&self, column: usize, work: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let datum = self.datum(column)?;
        if self.column_type(column) == Some(pg_sys::JSONBOID) {
            return self.get::<JsonbText>(column).map(|text| work(text.0.as_bytes()));
        }
        // SAFETY: a datum of one of the other three types, which are stored alike. It is unpacked,
        // and lent out for this call alone.
        Some(work(unsafe { borrowed(pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr())) }))
    }

    /// Whether a value lies in the table's second storage, where it may be a gigabyte or damaged.
    pub(crate) fn is_stored_elsewhere(&self, column: usize) -> bool {
        // SAFETY: a datum of a type that is stored with its length.
        self.datum(column)
            .is_some_and(|datum| unsafe { pgrx::varlena::varatt_is_1b_e(datum.cast_mut_ptr()) })
    }

    fn datum(&self, column: usize) -> Option<pg_sys::Datum> {
        let number = self.leaf.columns.get(column).copied().flatten()?.number;
        let mut null = false;
        // SAFETY: tuple and descriptor belong to a scan or slot that stays open while a `NamedRow`
        // is lent out.
        let datum =
            unsafe { pg_sys::SPI_getbinval(self.row.tuple, self.row.columns, number, &mut null) };
        (!null).then_some(datum)
    }
}

/// # Safety
/// `text` is a varlena that is neither compressed nor stored elsewhere.
unsafe fn content(text: *const pg_sys::varlena) -> Vec<u8> {
    // SAFETY: as promised by the caller.
    unsafe { borrowed(text) }.to_vec()
}

/// # Safety
/// As `content`, and the text must live as long as the answer is used.
unsafe fn borrowed<'a>(text: *const pg_sys::varlena) -> &'a [u8] {
    // SAFETY: as promised by the caller.
    unsafe {
        let (start, length) =
            (pgrx::varlena::vardata_any(text), pgrx::varlena::varsize_any_exhdr(text));
        std::slice::from_raw_parts(start.cast::<u8>(), length)
    }
}
