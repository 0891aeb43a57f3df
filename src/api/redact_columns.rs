//! A trigger for the users' own tables: masks keys in named columns before the row is stored, and
//! raises an incident. Anybody may use it, even without a vault. The row is always stored. So an
//! incident is raised in a subtransaction that waits for nobody. The number of incidents a day is
//! limited for each owner of tables and each key.

use super::finder::{Finder, StoredAs};
use crate::audit::{self, commit};
use crate::error::Error;
use crate::extra_patterns;
use crate::id::IncidentId;
use crate::input::{ShownKey, ShownName, ShownTable};
use crate::postgres::{
    JsonText, JsonbText, Owner, PlainText, attempt, clock, locks, lookup, process, session,
};
use crate::redact::{self, OutOfMemory};
use crate::store;
use crate::trail::Incident;
use crate::trail::incident::kinds::{MaskedColumn, column_masked, more_columns_masked};
use pgrx::heap_tuple::PgHeapTuple;
use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::num::NonZeroUsize;

/// The most keys of one row that incidents are raised for. All keys are masked.
const MOST_OF_ROW: usize = 1_000;
/// Incidents a day of keys that are not ours, in the tables of one owner.
const MOST_OF_OWNER: i64 = 100;
/// Incidents a day of one of our keys.
const MOST_OF_KEY: i64 = 20;
/// The tables an incident needs.
const READ_AND_WRITTEN: [&str; 4] =
    ["security_incidents", "audit_keys", "provider_key_versions", "provider_key_records"];

/// Masks keys in the columns that the trigger names, before a row is stored. The columns are of
/// type text, varchar, json or jsonb. If there is a vault, it raises an incident. BEFORE INSERT OR
/// UPDATE, FOR EACH ROW. Errors: a column that is not there 42703, of another type, or another kind
/// of trigger 22023.
#[pg_trigger(
    sql = "CREATE FUNCTION watchllm.redact_columns() RETURNS trigger LANGUAGE c VOLATILE PARALLEL \
         UNSAFE SET search_path TO pg_catalog, pg_temp AS 'MODULE_PATHNAME', '@FUNCTION_NAME@';"
)]
fn redact_columns<'a>(
    trigger: &'a PgTrigger<'a>,
) -> Result<Option<PgHeapTuple<'a, AllocatedByRust>>, Infallible> {
    match redact_row(trigger) {
        Ok(row) => Ok(Some(row)),
        Err(error) => {
            ErrorReport::from(error).report(PgLogLevel::ERROR);
            Ok(None)
        }
    }
}

/// A key that was masked: its column, its kind by its shape, its masked form, and the key itself
/// while the row is handled.
struct Masked {
    column: ShownName,
    provider: Option<&'static str>,
    kind: &'static str,
    redacted: ShownKey,
    key: String,
}

/// Masks the columns of one row.
fn redact_row<'a>(trigger: &'a PgTrigger<'a>) -> Result<PgHeapTuple<'a, AllocatedByRust>, Error> {
    let columns = trigger.extra_args().map_err(internal)?;
    let is_before = matches!(trigger.when(), Ok(PgTriggerWhen::Before));
    let row = trigger.new().filter(|_| is_before && !columns.is_empty());
    let hint = "Use: CREATE TRIGGER … BEFORE INSERT OR UPDATE ON … FOR EACH ROW EXECUTE FUNCTION \
         watchllm.redact_columns('column', …).";
    let row = row.ok_or(Error::BadInput(
        "redact_columns() serves BEFORE INSERT OR UPDATE FOR EACH ROW, and names columns",
        hint,
    ))?;
    let mut row = row.into_owned();
    let mut found = Vec::new();
    for column in &columns {
        redact_column(&mut row, column, &mut found)?;
    }
    if !found.is_empty() {
        raise(trigger, &found);
    }
    Ok(row)
}

/// Masks one column, whatever its type.
fn redact_column(
    row: &mut PgHeapTuple<AllocatedByRust>,
    column: &str,
    found: &mut Vec<Masked>,
) -> Result<(), Error> {
    let shown = || ShownName::clean(column);
    let (number, kind, longest) = match row.get_attribute_by_name(column) {
        Some((number, found)) if !found.attisdropped => (number, found.atttypid, longest(found)),
        _ => return Err(Error::NoSuchColumn(shown().into_string())),
    };
    let mut seen = |text: &str| {
        let room = MOST_OF_ROW.saturating_sub(found.len());
        found.extend(
            redact::first_findings(text, extra_patterns::in_force(), room).into_iter().map(
                |finding| {
                    let (column, redacted) = (shown(), ShownKey::found(text, &finding));
                    let key = text[finding.start..finding.end].to_owned();
                    Masked { column, provider: finding.provider, kind: finding.kind, redacted, key }
                },
            ),
        );
    };
    match kind {
        pg_sys::TEXTOID | pg_sys::VARCHAROID => {
            let Some(text) = row.get_by_index::<PlainText>(number).map_err(internal)? else {
                return Ok(());
            };
            let masked = redact::redact_with(
                &text.0,
                extra_patterns::in_force(),
                &mut process::check_interrupts,
            );
            let Cow::Owned(mut masked) = masked.map_err(no_room)? else { return Ok(()) };
            seen(&text.0);
            // The mask may be longer than the key it replaces.
            if let Some((end, _)) = masked.char_indices().nth(longest) {
                masked.truncate(end);
            }
            row.set_by_index(number, PlainText(masked)).map_err(internal)
        }
        pg_sys::JSONOID => redact_json(row, number, |json: JsonText| json.0, JsonText, &mut seen),
        pg_sys::JSONBOID => {
            redact_json(row, number, |json: JsonbText| json.0, JsonbText, &mut seen)
        }
        _ => Err(Error::UnfitColumn(shown().into_string())),
    }
}

/// How many characters a column takes: those of varchar(n).
fn longest(column: &pg_sys::FormData_pg_attribute) -> usize {
    let limited =
        column.atttypid == pg_sys::VARCHAROID && column.atttypmod >= pg_sys::VARHDRSZ as i32;
    if limited { column.atttypmod as usize - pg_sys::VARHDRSZ } else { usize::MAX }
}

/// Masks a column of type json or jsonb.
fn redact_json<T>(
    row: &mut PgHeapTuple<AllocatedByRust>,
    number: NonZeroUsize,
    text: impl FnOnce(T) -> String,
    json: impl Fn(String) -> T,
    seen: &mut dyn FnMut(&str),
) -> Result<(), Error>
where
    T: FromDatum + IntoDatum + for<'a> pgrx::datum::UnboxDatum<As<'a> = T> + 'static,
{
    let Some(value) = row.get_by_index::<T>(number).map_err(internal)? else { return Ok(()) };
    let text = text(value);
    let masked = redact::redact_json(
        &text,
        extra_patterns::in_force(),
        seen,
        &mut process::check_interrupts,
    );
    let Cow::Owned(masked) = masked.map_err(no_room)? else { return Ok(()) };
    // If masking ever leaves no valid JSON, the row must not be lost for it, and the key must not
    // be stored.
    match attempt(|| row.set_by_index(number, json(masked)).ok()) {
        Some(()) => Ok(()),
        None => row.set_by_index(number, json(format!("\"{}\"", redact::MASK))).map_err(internal),
    }
}

/// The table where something was masked.
struct MaskedTable {
    name: ShownTable,
    owner: ShownName,
}

/// Raises incidents for masked keys, if there is a vault. Never an error.
fn raise(trigger: &PgTrigger, found: &[Masked]) {
    // On a standby or in a read-only transaction, a temporary table can be filled, but no incident
    // can be written.
    if process::is_standby() || session::is_read_only() || session::is_parallel() {
        return;
    }
    let Ok(relation) = trigger.relid() else { return };
    let _raised = attempt(|| {
        let owner = audit::ready_to_read().ok()?;
        // It does not wait for tables that somebody has locked.
        if !READ_AND_WRITTEN.iter().all(|table| locks::try_to_use(table)) {
            return None;
        }
        let (name, table_owner) = store::leaks::table(relation)?;
        let table =
            MaskedTable { name: ShownTable::clean(&name), owner: ShownName::clean(&table_owner) };
        raise_each(owner, &table, found)
    });
}

/// One incident for each kind of key and column, and one for each of our keys.
fn raise_each(owner: Owner, table: &MaskedTable, found: &[Masked]) -> Option<()> {
    let recorder = audit::ready_now();
    let finder = recorder.and_then(|recorder| Finder::new(recorder).ok());
    let stored_as =
        |key: &str| finder.as_ref().map(|finder| finder.stored_as(key)).unwrap_or_default();
    let mut known: BTreeMap<&str, Vec<StoredAs>> = BTreeMap::new();
    let mut incidents: BTreeMap<IncidentId, (Incident, Option<StoredAs>)> = BTreeMap::new();
    for masked in found {
        let ours = known.entry(&masked.key).or_insert_with(|| stored_as(&masked.key));
        let each =
            if ours.is_empty() { vec![None] } else { ours.iter().copied().map(Some).collect() };
        for ours in each {
            let incident = incident_of(table, masked, ours);
            incidents.insert(incident.id, (incident, ours));
        }
    }
    for (incident, ours) in incidents.into_values() {
        if write(owner, table, &incident, ours) {
            recorder.into_iter().for_each(|recorder| commit::announce(recorder, incident.notice()));
        }
    }
    Some(())
}

/// The incident of a masked key. For the same kind in the same column it is one a day. For one of
/// our keys it is always the same.
fn incident_of(table: &MaskedTable, masked: &Masked, ours: Option<StoredAs>) -> Incident {
    let masked = MaskedColumn {
        table: &table.name,
        table_owner: &table.owner,
        column: &masked.column,
        provider: masked.provider,
        kind: masked.kind,
        redacted: &masked.redacted,
        ours: ours.map(StoredAs::version),
    };
    column_masked(&masked, clock::now())
}

/// Whether the incident is new and was stored. If another transaction is just storing it, the
/// answer is false, because no row waits for another's transaction.
fn write(owner: Owner, table: &MaskedTable, incident: &Incident, ours: Option<StoredAs>) -> bool {
    if store::leaks::is_known(owner, incident.id) {
        return false;
    }
    let today = incident.detected_at.midnight();
    let (count, most) = match ours {
        Some(ours) => (store::leaks::of_key_since(owner, today, ours.version().key), MOST_OF_KEY),
        None => (store::leaks::masked_since(owner, today, table.owner.as_str()), MOST_OF_OWNER),
    };
    if count >= most {
        let more = || more_columns_masked(&table.owner, MOST_OF_OWNER, incident.detected_at);
        return count == most && ours.is_none() && insert(owner, &more());
    }
    insert(owner, incident)
}

/// Stores an incident unless another transaction is just storing it.
fn insert(owner: Owner, incident: &Incident) -> bool {
    let [a, b, c, d, ..] = *incident.id.bytes();
    let table = lookup::relation("security_incidents");
    table.is_some_and(|table| locks::try_lock(table, u32::from_be_bytes([a, b, c, d])))
        && store::incidents::insert(owner, incident)
}

/// The row is not stored then: a key in it would stay readable.
fn no_room(_: OutOfMemory) -> Error {
    Error::OutOfMemory("the masked column")
}

/// An error of pgrx about a row: types and numbers of columns.
fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}
