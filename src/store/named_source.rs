//! A table that a caller names as a source: may the caller read it, is it a table, and which
//! relations hold its rows? Asked as the caller and never inside the switch
//! (docs/facts.md#privileges-and-transactions). `table` reads the rows.

use super::oids::*;
use super::value;
use crate::error::Error;
use crate::postgres::table::{self, Leaf};
use crate::postgres::{Failed, Statement, attempt_or_why, session};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::time::Duration;

/// Run as the caller: the privileges that a SELECT of these columns needs, and whether row security
/// would apply.
static RIGHTS: Statement = Statement::new(
    "SELECT pg_catalog.row_security_active(c.oid),
        pg_catalog.has_schema_privilege(c.relnamespace, 'USAGE')
        AND NOT EXISTS (SELECT FROM pg_catalog.pg_attribute a
            WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                AND a.attname::pg_catalog.text = ANY ($2)
              AND NOT pg_catalog.has_column_privilege(c.oid, a.attnum, 'SELECT'))
     FROM pg_catalog.pg_class c WHERE c.oid = $1",
    &[OID, TEXTS],
);

/// The relation, its partitions and its children.
static TREE: Statement = Statement::new(
    "WITH RECURSIVE tree (relation) AS (
        SELECT $1
        UNION
        SELECT i.inhrelid FROM tree t JOIN pg_catalog.pg_inherits i ON i.inhparent = t.relation
        WHERE NOT i.inhdetachpending)
     SELECT t.relation, pg_catalog.format('%I.%I', n.nspname, c.relname)
     FROM tree t JOIN pg_catalog.pg_class c ON c.oid = t.relation
         JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     ORDER BY t.relation",
    &[OID],
);

static COLUMNS_OF: Statement = Statement::new(
    "SELECT a.attname::pg_catalog.text FROM pg_catalog.pg_attribute a
     WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
        AND a.atttypid IN ('text'::pg_catalog.regtype, 'varchar'::pg_catalog.regtype,
            'json'::pg_catalog.regtype,
            'jsonb'::pg_catalog.regtype)
     ORDER BY a.attnum",
    &[OID],
);

/// How long to wait for a table that somebody has locked.
const PATIENCE: Duration = Duration::from_secs(5);

/// The relations that hold the rows of a source, with their qualified names.
pub(crate) struct Source {
    pub leaves: Vec<Leaf>,
    pub names: Vec<String>,
    /// Partitions that could not be locked, each with the reason.
    pub locked: Vec<(String, Failed)>,
}

/// Judges the table that the caller named, as the caller. Locks its shape until the transaction
/// ends. `columns` judges the columns of each part by their types.
pub(crate) fn judge(
    source: pg_sys::Oid,
    names: &[&CStr],
    columns: impl Fn(&Leaf) -> Result<(), Error>,
) -> Result<Source, Error> {
    let look = |relation| session::with_lock_timeout(PATIENCE, || table::look(relation, names));
    let root = look(source).ok_or_else(gone)?;
    let texts: Vec<&str> = names.iter().filter_map(|name| name.to_str().ok()).collect();
    let judged = RIGHTS
        .read_as_caller(&[source.into(), texts.into()], |row| (value(row, 1), value(row, 2)))
        .pop();
    let (row_security, readable): (bool, bool) = judged.ok_or_else(gone)?;
    if !readable {
        return Err(Error::NotAuthorized("read the source"));
    }
    if row_security {
        let hint = "Call as a role that row security does not bind, such as the table's owner.";
        return Err(Error::BadInput("row security of the source would hide rows from you", hint));
    }
    judge_kind(&root)?;
    columns(&root)?;
    let mut found = Source { leaves: vec![], names: vec![], locked: vec![] };
    let tree = TREE.read_as_caller(&[source.into()], |row| {
        (value::<pg_sys::Oid>(row, 1), value::<String>(row, 2))
    });
    for (relation, name) in tree {
        let leaf = match attempt_or_why(|| look(relation)) {
            Ok(Some(leaf)) => leaf,
            Ok(None) => continue,
            Err(failed) => {
                found.locked.push((name, failed));
                continue;
            }
        };
        judge_kind(&leaf)?;
        columns(&leaf)?;
        if leaf.kind != b'p' {
            found.leaves.push(leaf);
            found.names.push(name);
        }
    }
    Ok(found)
}

/// Accepts tables only. A view would run its owner's functions with the reader's rights. A foreign
/// table would connect to a server of its owner's choice, with the reader's login.
fn judge_kind(leaf: &Leaf) -> Result<(), Error> {
    let hint = "Copy its rows into a table of your own first: CREATE TABLE … AS SELECT ….";
    match leaf.kind {
        b'r' | b'm' | b'p' => Ok(()),
        b'v' => Err(Error::BadInput("the source is a view, not a table", hint)),
        b'f' => Err(Error::BadInput("the source is or has a foreign table", hint)),
        _ => Err(Error::BadInput("the source is not a table", "Name a table.")),
    }
}

/// The columns of a relation that hold text: of type text, varchar, json and jsonb.
pub(crate) fn text_columns(source: pg_sys::Oid) -> Vec<String> {
    COLUMNS_OF.read_as_caller(&[source.into()], |row| value(row, 1))
}

fn gone() -> Error {
    Error::BadInput("the source is gone", "Name a table that is there.")
}
