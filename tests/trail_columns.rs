//! The columns of the audit trail stand in SQL too: in the table that migrations make, in grants,
//! in a view, in comments. All are compared with the one list, COLUMNS of core/src/trail/event.rs,
//! so that a column is forgotten nowhere. Each comparison is proven to find what is forgotten.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // a failed expectation is a failed test

use regex::Regex;
use std::path::Path;
use watchllm_core::trail::{COLUMNS, Mark, TrailColumn};

const TRAIL: &str = "provider_key_access_logs";

/// The SQL that says something of the columns: what migrations do, in order, and trail.sql.
#[derive(Clone)]
struct Sql {
    migrations: String,
    trail: String,
}

fn sql() -> Sql {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
    let mut files: Vec<_> = std::fs::read_dir(directory.join("migrations"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.sort();
    let migrations = files.iter().map(|file| std::fs::read_to_string(file).unwrap()).collect();
    Sql { migrations, trail: std::fs::read_to_string(directory.join("trail.sql")).unwrap() }
}

fn names(of: impl Fn(&TrailColumn) -> bool) -> Vec<String> {
    COLUMNS.iter().filter(|column| of(column)).map(|column| column.name.to_owned()).collect()
}

fn read_by_tenants(column: &TrailColumn) -> bool {
    column.is(Mark::Tenants)
}

fn re(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

fn all(pattern: &str, text: &str) -> Vec<String> {
    re(pattern).captures_iter(text).map(|found| found[1].to_owned()).collect()
}

/// Each column of the table: its name, type, and whether it is NOT NULL, in table order.
fn table(sql: &Sql) -> Vec<String> {
    let created = re(&format!(r"(?s)CREATE TABLE watchllm\.{TRAIL} \((.*?)\n\) PARTITION"));
    let body = created.captures(&sql.migrations).expect("the table is made")[1].to_owned();
    let altered = re(&format!(r"(?s)ALTER TABLE watchllm\.{TRAIL}\s+(ADD COLUMN [^;]*);"));
    let later =
        altered.captures_iter(&sql.migrations).map(|found| found[1].replace("ADD COLUMN ", ""));
    let all = std::iter::once(body).chain(later).collect::<Vec<String>>().join(",");
    let column = re(r"^([a-z_]+)\s+([a-z0-9]+)(.*)$");
    let lines = all.split(',').map(str::trim).filter_map(|line| column.captures(line));
    lines
        .map(|found| {
            let required = if found[3].contains("NOT NULL") { " NOT NULL" } else { "" };
            format!("{} {}{required}", &found[1], &found[2])
        })
        .collect()
}

fn of_the_list() -> Vec<String> {
    let one = |column: &TrailColumn| {
        let required = if column.is(Mark::Required) { " NOT NULL" } else { "" };
        format!("{} {}{required}", column.name, column.sql_type())
    };
    COLUMNS.iter().map(one).collect()
}

/// The columns granted to roles that are named so.
fn granted(sql: &Sql, roles: &str) -> Vec<String> {
    let grant = re(&format!(r"GRANT SELECT \(([a-z_,\s]+)\)\s+ON watchllm\.{TRAIL} TO {roles};"));
    let columns = grant.captures(&sql.trail).map(|found| found[1].to_owned()).unwrap_or_default();
    columns.split(',').map(|name| name.trim().to_owned()).collect()
}

fn commented(sql: &Sql, relation: &str) -> Vec<String> {
    all(&format!(r"COMMENT ON COLUMN watchllm\.{relation}\.([a-z_]+) IS"), &sql.trail)
}

/// What of the SQL does not say what the list says.
fn differences(sql: &Sql) -> Vec<String> {
    let view = re(r"(?s)VIEW watchllm\.access_logs .*?;");
    let view = view.find(&sql.trail).map(|found| found.as_str()).unwrap_or_default();
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let mut shown = names(read_by_tenants);
    let unseen = re(r"(?s)a\.attname IN \((.*?)\)");
    let unseen = unseen.captures(&sql.trail).map(|found| found[1].to_owned()).unwrap_or_default();
    let mut compared = vec![
        ("the table", table(sql), of_the_list()),
        (
            "the grant to the staff",
            granted(sql, "watchllm_admin, watchllm_auditor"),
            names(|_| true),
        ),
        ("the grant to tenants", granted(sql, "watchllm_tenant"), names(read_by_tenants)),
        (
            "columns without statistics",
            all(r"'([a-z_]+)'", &unseen),
            names(|column| column.is(Mark::Said)),
        ),
        (
            "the view",
            sorted(all(r"(?m)^(?:SELECT)?\s+l\.([a-z_]+),?$", view)),
            sorted(shown.clone()),
        ),
        ("comments of the table", commented(sql, TRAIL), names(|_| true)),
    ];
    shown.push("committed".into());
    compared.push(("comments of the view", sorted(commented(sql, "access_logs")), sorted(shown)));
    compared
        .into_iter()
        .filter(|(_, found, listed)| found != listed)
        .map(|(what, found, listed)| format!("{what}: found {found:?}, the list has {listed:?}"))
        .collect()
}

#[test]
fn sql_says_of_the_trails_columns_what_the_list_says() {
    assert_eq!(differences(&sql()), Vec::<String>::new());
}

/// What is left out ¦ where that shows.
const FORGOTTEN: &str = "
    role_setting      text, ¦ the table
claims_trusted, client_addr, ¦ the grant to the staff
request_id, claims_sub, ¦ the grant to tenants
, 'request_id' ¦ columns without statistics
       l.claims_sub, ¦ the view
COMMENT ON COLUMN watchllm.provider_key_access_logs.hash IS ¦ comments of the table
COMMENT ON COLUMN watchllm.access_logs.claims_sub IS ¦ comments of the view";

#[test]
fn what_is_forgotten_is_found() {
    let whole = sql();
    for line in FORGOTTEN.lines().filter(|line| !line.is_empty()) {
        let (words, what) = line.split_once(" ¦ ").unwrap();
        let lacking = Sql {
            migrations: whole.migrations.replace(words, ""),
            trail: whole.trail.replace(words, ""),
        };
        assert!(
            lacking.migrations.len() + lacking.trail.len()
                < whole.migrations.len() + whole.trail.len(),
            "{words}"
        );
        let found = differences(&lacking);
        assert!(found.iter().any(|difference| difference.starts_with(what)), "{words}: {found:?}");
    }
    let mut added = whole;
    added.migrations += &format!("ALTER TABLE watchllm.{TRAIL} ADD COLUMN more text;");
    assert!(differences(&added)[0].starts_with("the table"), "{:?}", differences(&added));
}
