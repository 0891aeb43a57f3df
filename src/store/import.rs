//! WatchLLM's own table of keys, wherever the caller has it, and the INSERT of the imported keys.
//! The table is read as the caller and never inside the switch
//! (docs/facts.md#privileges-and-transactions). `named_source` judges it, `table` reads its rows.

use super::changes::{NewRecord, NewVersion};
use super::named_source;
use super::oids::*;
use super::{id_of, timestamp, uuid};
use crate::error::Error;
use crate::id::{Id, ProjectId, ProviderKeyId};
use crate::input::{KeyName, Priority, ProviderSlug};
use crate::moment::Moment;
use crate::postgres::table::{self, Leaf, NamedRow, RowPlace, Rows};
use crate::postgres::{Owner, Statement, clock};
use pgrx::datum::Uuid;
use pgrx::pg_sys;
use std::convert::Infallible;
use std::ffi::CStr;

/// Characters of the longest base64 that is read: a key of 4,096 bytes has 5,504.
const LONGEST_BASE64: usize = 8_192;
/// Bytes of a name that are read: more than `KeyName::cleaned` looks at.
const LONGEST_NAME: usize = 16_384;

/// A column of WatchLLM's table, its allowed types, and what the error says about any other type.
struct Wanted {
    name: &'static CStr,
    types: &'static [pg_sys::Oid],
    is_needed: bool,
    otherwise: &'static str,
}

const TEXTS_OF_ANY_LENGTH: &[pg_sys::Oid] = &[TEXT, pg_sys::VARCHAROID];
const TIMES_OF_ANY_KIND: &[pg_sys::Oid] = &[TIME, pg_sys::TIMESTAMPOID];

const fn wanted(
    name: &'static CStr,
    types: &'static [pg_sys::Oid],
    is_needed: bool,
    otherwise: &'static str,
) -> Wanted {
    Wanted { name, types, is_needed, otherwise }
}

/// In the order of the numbers below.
const COLUMNS: [Wanted; 10] = [
    wanted(c"id", &[UUID], true, "the source has no column id of type uuid"),
    wanted(c"project_id", &[UUID], true, "the source has no column project_id of type uuid"),
    wanted(
        c"provider",
        TEXTS_OF_ANY_LENGTH,
        true,
        "the source has no column provider of type text or varchar",
    ),
    wanted(
        c"encrypted_key",
        TEXTS_OF_ANY_LENGTH,
        true,
        "the source has no column encrypted_key of type text or varchar",
    ),
    wanted(
        c"encryption_iv",
        TEXTS_OF_ANY_LENGTH,
        true,
        "the source has no column encryption_iv of type text or varchar",
    ),
    wanted(
        c"name",
        TEXTS_OF_ANY_LENGTH,
        false,
        "the column name of the source is neither text nor varchar",
    ),
    wanted(
        c"priority",
        &[pg_sys::INT2OID, INT4, INT8],
        false,
        "the column priority of the source is no integer",
    ),
    wanted(c"is_active", &[BOOL], false, "the column is_active of the source is not boolean"),
    wanted(
        c"created_at",
        TIMES_OF_ANY_KIND,
        false,
        "the column created_at of the source is no timestamp",
    ),
    wanted(
        c"last_used_at",
        TIMES_OF_ANY_KIND,
        false,
        "the column last_used_at of the source is no timestamp",
    ),
];
const ID_COLUMN: usize = 0;
const PROJECT_ID: usize = 1;
const PROVIDER: usize = 2;
const ENCRYPTED_KEY: usize = 3;
const ENCRYPTION_IV: usize = 4;
const NAME: usize = 5;
const PRIORITY: usize = 6;
const IS_ACTIVE: usize = 7;
const CREATED_AT: usize = 8;
const LAST_USED_AT: usize = 9;

/// Answers no row if the id exists by now, in whichever project. The import then continues.
static INSERT: Statement = Statement::new(
    "WITH record AS (
        INSERT INTO watchllm.provider_key_records (id, project_id, provider, name, key_hint,
            priority, is_active,
            active_version, active_version_created_at, created_at)
        VALUES ($1, $2, $3, $4, $5, $6, $7, 1,
            GREATEST(LEAST($8, $14, pg_catalog.now()), '1970-01-01 00:00:00+00'),
            GREATEST(LEAST($8, pg_catalog.now()), '1970-01-01 00:00:00+00'))
        ON CONFLICT (id) DO NOTHING RETURNING id, project_id, created_at)
     INSERT INTO watchllm.provider_key_versions (project_id, provider_key_id, version, envelope,
         master_key_version,
        fingerprint, fingerprint_key_version, created_at, created_by)
     SELECT r.project_id, r.id, 1, $9, $10, $11, $12, LEAST(r.created_at, $14), $13
         FROM record r RETURNING version",
    &[UUID, UUID, TEXT, TEXT, TEXT, INT4, BOOL, TIME, BYTEA, INT4, BYTEA, INT4, TEXT, TIME],
);

/// A table that the caller may read and that has WatchLLM's columns.
pub(crate) struct ImportSource(Vec<Leaf>);

/// The rows of a source, in the order they are to be imported.
pub(crate) struct OldKeys<'a> {
    rows: &'a Rows<'a>,
    pub places: Vec<RowPlace>,
}

/// A row as it was. Infinite times count as NULL.
pub(crate) struct OldKey {
    pub id: Option<ProviderKeyId>,
    pub project_id: Option<ProjectId>,
    /// In lower case; None when it is NULL or longer than a provider may be.
    pub provider: Option<String>,
    /// None when it is NULL or longer than any key's.
    pub encrypted_key: Option<String>,
    pub encryption_iv: Option<String>,
    pub name: Option<String>,
    pub priority: Option<Priority>,
    pub is_active: bool,
    pub created_at: Option<Moment>,
    pub last_used_at: Option<Moment>,
}

/// Judges the table that the caller named, as the caller. Locks its shape until the transaction
/// ends.
pub(crate) fn judge(source: pg_sys::Oid) -> Result<ImportSource, Error> {
    let names: Vec<&CStr> = COLUMNS.iter().map(|column| column.name).collect();
    let source = named_source::judge(source, &names, judge_columns)?;
    if source.locked.is_empty() {
        return Ok(ImportSource(source.leaves));
    }
    let hint = "Run the import again when that transaction has ended.";
    Err(Error::BadInput("somebody has locked a partition of the source", hint))
}

/// WatchLLM's columns, of built-in types.
fn judge_columns(leaf: &Leaf) -> Result<(), Error> {
    let hint = "The source must be WatchLLM's table provider_keys, or have its columns.";
    for (number, wanted) in COLUMNS.iter().enumerate() {
        let fits = match leaf.column_type(number) {
            Some(found) => wanted.types.contains(&found),
            None => !wanted.is_needed,
        };
        if !fits {
            return Err(Error::BadInput(wanted.otherwise, hint));
        }
    }
    Ok(())
}

/// Reads a source for `work`, in the order of project, provider, priority, age and id. The order
/// decides which keys are the first of their provider.
pub(crate) fn read<T>(source: &ImportSource, work: impl FnOnce(&OldKeys) -> T) -> T {
    table::read(&source.0, |rows| {
        let mut sorted = Vec::new();
        rows.each(|place, row| {
            let last = (
                priority(row).map_or(i32::MAX, Priority::number),
                time(row, CREATED_AT).unwrap_or(Moment::LATEST),
            );
            sorted.push((
                uuid_of::<ProjectId>(row, PROJECT_ID),
                provider(row),
                last,
                uuid_of::<ProviderKeyId>(row, ID_COLUMN),
                place,
            ));
            Ok::<(), Infallible>(())
        })
        .unwrap_or_else(|never| match never {});
        sorted.sort_by(|a, b| (&a.0, &a.1, &a.2, &a.3).cmp(&(&b.0, &b.1, &b.2, &b.3)));
        work(&OldKeys { rows, places: sorted.into_iter().map(|row| row.4).collect() })
    })
}

impl OldKeys<'_> {
    /// The row at a place.
    pub(crate) fn at(&self, place: RowPlace) -> Option<OldKey> {
        self.rows.at(place, |row| OldKey {
            id: uuid_of(row, ID_COLUMN),
            project_id: uuid_of(row, PROJECT_ID),
            provider: provider(row),
            encrypted_key: row.text(ENCRYPTED_KEY, LONGEST_BASE64),
            encryption_iv: row.text(ENCRYPTION_IV, LONGEST_BASE64),
            name: row.beginning(NAME, LONGEST_NAME),
            priority: priority(row),
            is_active: row.get::<bool>(IS_ACTIVE).unwrap_or(true),
            created_at: time(row, CREATED_AT),
            last_used_at: time(row, LAST_USED_AT),
        })
    }
}

fn uuid_of<T: Id>(row: &NamedRow, column: usize) -> Option<T> {
    row.get::<Uuid>(column).map(id_of)
}

fn provider(row: &NamedRow) -> Option<String> {
    row.text(PROVIDER, ProviderSlug::MAX_BYTES).map(|provider| provider.to_ascii_lowercase())
}

fn priority(row: &NamedRow) -> Option<Priority> {
    let found = match row.column_type(PRIORITY)? {
        pg_sys::INT2OID => row.get::<i16>(PRIORITY).map(i64::from),
        INT4 => row.get::<i32>(PRIORITY).map(i64::from),
        _ => row.get::<i64>(PRIORITY),
    };
    found.and_then(|number| Priority::parse(i32::try_from(number).ok()?).ok())
}

/// A timestamp with or without time zone. Both are stored as microseconds since 2000; the latter is
/// taken for UTC.
fn time(row: &NamedRow, column: usize) -> Option<Moment> {
    let at = row.get::<i64>(column).filter(|at| *at != i64::MIN && *at != i64::MAX)?;
    Some(clock::moment(at)).filter(|at| *at != Moment::LATEST)
}

/// An imported key, beside its first version. A `created_at` in the future becomes now, one before
/// 1970 its beginning.
pub(crate) struct Imported<'a> {
    pub new: NewRecord<'a>,
    pub is_active: bool,
    pub created_at: Option<Moment>,
}

/// Whether the key was stored. False: the id exists by now.
pub(crate) fn insert(owner: Owner, key: &Imported, first: &NewVersion) -> bool {
    let new = &key.new;
    let arguments = [
        uuid(new.key.key).into(),
        uuid(new.key.project).into(),
        new.provider.as_str().into(),
        new.name.map(KeyName::as_str).into(),
        first.key_hint.as_str().into(),
        new.priority.number().into(),
        key.is_active.into(),
        key.created_at.and_then(timestamp).into(),
        first.sealed.bytes().into(),
        (first.sealed.master_key_version() as i32).into(),
        first.fingerprint.as_slice().into(),
        first.fingerprint_key_version.into(),
        first.created_by.as_str().into(),
        first.first.and_then(timestamp).into(),
    ];
    !INSERT.change(owner, &arguments, |_| ()).is_empty()
}
