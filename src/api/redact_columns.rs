//! A trigger for the users' own tables: masks keys in named columns before the row is stored, and
//! raises an incident. Anybody may use it, even without a vault. The row is always stored. So the
//! writer is told, and writes the incident (audit/writer/columns); nobody waits for that.

use super::fingerprints::FingerprintKeys;
use super::stored_words;
use crate::alarms::AlarmSource;
use crate::audit::queue::leaks;
use crate::audit::{self, Recorder};
use crate::crypto::Secret;
use crate::error::Error;
use crate::extra_patterns;
use crate::id::IncidentId;
use crate::input::{ShownKey, ShownName, ShownTable};
use crate::postgres::{
    JsonText, JsonbText, Owner, PlainText, attempt, clock, locks, lookup, origin, process, session,
};
use crate::redact::{self, OutOfMemory};
use crate::store;
use crate::trail::incident::kinds::{MaskedColumn, column_masked};
use crate::trail::{Bounded, Channel, ColumnLeak, Incident, MOST_FINGERPRINTS, Shown};
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
/// The most spellings of one key: an escape makes two or three.
const MOST_SPELLINGS: usize = 16;

/// Masks keys in the columns that the trigger names, before a row is stored. The columns are of
/// type text, varchar, json or jsonb. If there is a vault, the writer raises an incident, also if
/// the row is rolled back. BEFORE INSERT OR UPDATE, FOR EACH ROW. Errors: a column that is not
/// there 42703, of another type, or another kind of trigger 22023.
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

/// Raises incidents for masked keys, if there is a vault. Never an error. The writer finds out
/// whether a key is ours, outside of this transaction: here that would tell the caller.
fn raise(trigger: &PgTrigger, found: &[Masked]) {
    // On a standby or in a read-only transaction, a temporary table can be filled, but no incident
    // can be written.
    if process::is_standby() || session::is_read_only() || session::is_parallel() {
        return;
    }
    let Ok(relation) = trigger.relid() else { return };
    let _raised = attempt(|| {
        let owner = audit::ready_to_read().ok()?;
        let (name, table_owner) = store::leaks::table(relation)?;
        let name = ShownTable::clean(&name);
        let table_owner = ShownName::clean(&table_owner);
        match audit::ready_now() {
            Some(recorder) => tell(recorder, &name, &table_owner, found),
            None => raise_each(owner, &name, &table_owner, found),
        }
    });
}

/// Passes masked keys to the writer.
fn tell(
    recorder: Recorder,
    table: &ShownTable,
    table_owner: &ShownName,
    found: &[Masked],
) -> Option<()> {
    // It does not wait for a table that somebody has locked.
    if !locks::try_to_use("audit_keys") {
        return None;
    }
    let keys = stored_words::keys(recorder).ok()?;
    let (at, origin) = (clock::now(), origin());
    let leaks: Vec<ColumnLeak> = found
        .iter()
        .map(|masked| {
            let (fingerprints, count) = fingerprints(&keys, &masked.key);
            ColumnLeak {
                origin,
                table: ShownTable::bounded(Some(table)),
                table_owner: ShownName::bounded(Some(table_owner)),
                column: ShownName::bounded(Some(&masked.column)),
                provider: masked.provider,
                kind: masked.kind,
                redacted: Bounded::new(Some(masked.redacted.shown())),
                fingerprints,
                count,
                more: false,
                at,
            }
        })
        .collect();
    recorder.tell_of_columns(&leaks);
    Some(())
}

/// Fingerprints of a key as it stands and without its escapes.
fn fingerprints(
    keys: &FingerprintKeys,
    key: &str,
) -> ([(i32, [u8; 32]); MOST_FINGERPRINTS], usize) {
    let mut spellings = vec![key.to_owned()];
    let others = redact::candidates(key).take(MOST_SPELLINGS).map(|candidate| candidate.key);
    others.for_each(|other| {
        if !spellings.contains(&other) {
            spellings.push(other);
        }
    });
    let (mut all, mut count) = ([(0, [0; 32]); MOST_FINGERPRINTS], 0);
    for spelling in spellings.into_iter().map(Secret::from) {
        for (version, of) in keys.each() {
            if let Some(place) = all.get_mut(count) {
                (*place, count) = ((version, of.fingerprint(&spelling)), count + 1);
            }
        }
    }
    (all, count)
}

/// Without a master key nothing can be compared, so the incidents are written here: one for each
/// kind of key and column.
fn raise_each(
    owner: Owner,
    table: &ShownTable,
    table_owner: &ShownName,
    found: &[Masked],
) -> Option<()> {
    if !locks::try_to_use("security_incidents") {
        return None;
    }
    let mut incidents: BTreeMap<IncidentId, Incident> = BTreeMap::new();
    for masked in found {
        let masked = MaskedColumn {
            table,
            table_owner,
            column: &masked.column,
            provider: masked.provider,
            kind: masked.kind,
            redacted: &masked.redacted,
            fingerprint: None,
            ours: None,
        };
        let incident = column_masked(&masked, clock::now());
        incidents.insert(incident.id, incident);
    }
    incidents.into_values().for_each(|incident| write(owner, &incident));
    Some(())
}

/// Stores an incident if it is new and within the budget of its source. No row waits for another's
/// transaction.
fn write(owner: Owner, incident: &Incident) {
    let (database, channel) = (session::database().to_u32(), Channel::RedactColumns);
    let source = AlarmSource { origin: origin(), database, channel };
    if !store::leaks::is_known(owner, incident.id)
        && leaks::may_raise(&source, incident.detected_at)
    {
        insert(owner, incident);
    }
}

/// Stores an incident unless another transaction is just storing it.
fn insert(owner: Owner, incident: &Incident) {
    let [a, b, c, d, ..] = *incident.id.bytes();
    let table = lookup::relation("security_incidents");
    if table.is_some_and(|table| locks::try_lock(table, u32::from_be_bytes([a, b, c, d]))) {
        store::incidents::insert(owner, incident);
    }
}

/// The row is not stored then: a key in it would stay readable.
fn no_room(_: OutOfMemory) -> Error {
    Error::OutOfMemory("the masked column")
}

/// An error of pgrx about a row: types and numbers of columns.
fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}
