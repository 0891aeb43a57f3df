//! The hash chain of the audit trail: each row's hash covers the row before it. It is
//! HMAC-SHA256(MAC key, previous hash ‖ 0x01 ‖ every other column in table order). A column is
//! its length (u32, big endian) ‖ bytes, NULL the length 0xFFFFFFFF. A column that came later has
//! its number in front, or no trace if NULL: older rows stay (docs/architecture.md#bytes).

use super::event::{COLUMNS, ColumnValue, Mark, TrailColumn, TrailRow};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The hash before the first row.
pub const FIRST: [u8; 32] = [0; 32];

/// The format of a chained row.
const ROW_FORMAT: u8 = 1;

/// The audit MAC key: 32 bytes, wiped when dropped, without Debug.
pub struct MacKey(Zeroizing<[u8; 32]>);

impl MacKey {
    /// A key of 32 bytes; None: another length.
    pub fn new(bytes: &[u8]) -> Option<MacKey> {
        bytes.try_into().ok().map(|b: [u8; 32]| MacKey(Zeroizing::new(b)))
    }
}

/// Computes the hash of `row` after `previous`.
pub fn hash(key: &MacKey, previous: &[u8; 32], row: &TrailRow<'_>) -> [u8; 32] {
    hash_columns(key, previous, &COLUMNS, row)
}

fn hash_columns(
    key: &MacKey,
    previous: &[u8; 32],
    columns: &[TrailColumn],
    row: &TrailRow<'_>,
) -> [u8; 32] {
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key.0.as_slice()) else { return FIRST };
    let mut fields = Fields { mac, number: None };
    fields.mac.update(previous);
    fields.mac.update(&[ROW_FORMAT]);
    for (number, column) in (1u32..).zip(columns) {
        fields.number = column.is(Mark::Later).then_some(number);
        fields.column(column, row);
    }
    fields.mac.finalize().into_bytes().into()
}

/// What the hash is made of, field by field.
struct Fields {
    mac: Hmac<Sha256>,
    /// The number of a column that came later: then NULL leaves no trace.
    number: Option<u32>,
}

impl Fields {
    fn column(&mut self, column: &TrailColumn, row: &TrailRow<'_>) {
        match column.cell {
            ColumnValue::Bigint(get) => self.fixed(Some(get(row).to_be_bytes())),
            ColumnValue::Timestamptz(get) => self.fixed(Some(get(row).micros().to_be_bytes())),
            ColumnValue::Integer(get) => self.fixed(get(row).map(i32::to_be_bytes)),
            ColumnValue::Boolean(get) => self.fixed(Some([u8::from(get(row))])),
            ColumnValue::Uuid(get) => self.fixed(get(row)),
            ColumnValue::Text(get) | ColumnValue::Inet(get) => {
                self.bytes(get(row).map(str::as_bytes))
            }
            ColumnValue::Xid8(get) => self.fixed(get(row).map(u64::to_be_bytes)),
            ColumnValue::Hash => (),
        }
    }

    fn fixed<const N: usize>(&mut self, bytes: Option<[u8; N]>) {
        self.bytes(bytes.as_ref().map(<[u8; N]>::as_slice));
    }

    fn bytes(&mut self, bytes: Option<&[u8]>) {
        match (bytes, self.number) {
            (None, Some(_)) => return,
            (_, Some(number)) => self.mac.update(&number.to_be_bytes()),
            (_, None) => (),
        }
        match bytes {
            Some(bytes) => {
                self.mac.update(&(bytes.len() as u32).to_be_bytes());
                self.mac.update(bytes);
            }
            None => self.mac.update(&u32::MAX.to_be_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::event::column;
    use crate::trail::event::tests::{empty, event, full, row};
    use crate::trail::{Bounded, Event, FailureReason};

    fn hashed(change: impl Fn(&mut Event), seq: i64, previous: [u8; 32]) -> [u8; 32] {
        let mut e = event();
        change(&mut e);
        hash(&key(), &previous, &TrailRow { seq, ..row(&e) })
    }

    /// Computed by itself from the rule above, with Python's hmac: what is in the databases of
    /// people must go on to verify, so these bytes never change.
    const KNOWN: [&str; 2] = [
        "5ea7cc36194f1878af5326a7517f855d6d255105593c6ffa3ce71636a74ec176",
        "459e33f57f8001d78d5dc68df1982e14ee427ca8e0c3e5f320534ef1915ad321",
    ];

    fn hex(bytes: [u8; 32]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn key() -> MacKey {
        MacKey::new(&[8; 32]).unwrap()
    }

    /// A row with a value in every column of the first version, and one with NULL wherever a column
    /// may be NULL.
    #[test]
    fn the_hash_of_known_rows_stays() {
        let first_version = &COLUMNS[..28];
        let first = hash_columns(&key(), &FIRST, first_version, &row(&full()));
        let (empty, next) = (empty(), |row| TrailRow { seq: 43, queue_seq: 7, ..row });
        let second = hash(&key(), &first, &next(row(&empty)));
        assert_eq!([hex(first), hex(second)], KNOWN);
    }

    /// As a column is added: NULL is as if it were not there, a value counts, and where it stands.
    #[test]
    fn a_column_that_came_later_counts_where_it_has_a_value() {
        let (null, one) = (ColumnValue::Text(|_| None), ColumnValue::Text(|_| Some("1")));
        let hash = |cells: &[ColumnValue]| {
            let added = cells.iter().map(|cell| column("more", *cell, &[Mark::Later]));
            let columns: Vec<TrailColumn> = COLUMNS.iter().copied().chain(added).collect();
            hash_columns(&key(), &FIRST, &columns, &row(&empty()))
        };
        assert_eq!(hash(&[]), hash(&[null, null]));
        let all = [hash(&[]), hash(&[one]), hash(&[null, one]), hash(&[one, one])];
        for (at, hash) in all.iter().enumerate() {
            assert!(!all[..at].contains(hash));
        }
        assert_ne!(hash(&[one]), hash(&[ColumnValue::Text(|_| Some(""))]));
    }

    #[test]
    fn a_changed_field_changes_the_hash() {
        let plain = hashed(|_| (), 1, FIRST);
        assert_eq!(plain, hashed(|_| (), 1, FIRST));
        assert_ne!(plain, hashed(|_| (), 2, FIRST));
        assert_ne!(plain, hashed(|_| (), 1, [1; 32]));
        assert_ne!(plain, hashed(|e| e.failure = Some(FailureReason::NotFound), 1, FIRST));
        assert_ne!(plain, hashed(|e| e.claims_trusted = true, 1, FIRST));
        assert_ne!(plain, hashed(|e| e.txid = Some(0), 1, FIRST));
    }

    #[test]
    fn text_cannot_slide_between_columns() {
        let left = hashed(
            |e| (e.ip_address, e.user_agent) = (Bounded::new(Some("ab")), Bounded::new(Some("c"))),
            1,
            FIRST,
        );
        let right = hashed(
            |e| (e.ip_address, e.user_agent) = (Bounded::new(Some("a")), Bounded::new(Some("bc"))),
            1,
            FIRST,
        );
        assert_ne!(left, right);
        let empty = hashed(|e| e.ip_address = Bounded::new(Some("")), 1, FIRST);
        assert_ne!(empty, hashed(|e| e.ip_address = Bounded::NULL, 1, FIRST));
    }
}
