//! Lists that the catalog lacks, read from the tables of the sources: words of the trail and of
//! incidents, errors with SQLSTATE and message. Finding nothing is a failure, so that a moved table
//! is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::re;
use crate::walk;

#[derive(Default)]
pub(crate) struct Sources {
    pub(crate) access_types: BTreeSet<String>,
    pub(crate) failure_reasons: BTreeSet<String>,
    pub(crate) incident_types: BTreeSet<String>,
    /// The product's errors by SQLSTATE. Empty for a SQLSTATE that SQL alone raises.
    pub(crate) errors: BTreeMap<String, BTreeSet<String>>,
    /// Messages by error, with `…` for the parts that differ. An error whose places have their own
    /// messages has no entry.
    pub(crate) messages: BTreeMap<String, String>,
    /// All texts of the product, written as messages are.
    pub(crate) text: String,
}

/// Conditions that scripts of install() raise by name.
const CONDITIONS: [(&str, &str); 7] = [
    ("object_not_in_prerequisite_state", "55000"),
    ("null_value_not_allowed", "22004"),
    ("insufficient_privilege", "42501"),
    ("feature_not_supported", "0A000"),
    ("undefined_object", "42704"),
    ("invalid_parameter_value", "22023"),
    ("duplicate_table", "42P07"),
];

impl Sources {
    pub(crate) fn read(root: &Path) -> Sources {
        let is_ours = |path: &String| {
            let is_code = path.starts_with("src/") || path.starts_with("core/src/");
            is_code && path.ends_with(".rs") || path.starts_with("sql/")
        };
        let files: Vec<String> = walk::files(root).into_iter().filter(is_ours).collect();
        let texts: Vec<String> = files.iter().map(|path| walk::read(root, path).text).collect();
        let error = walk::read(root, "src/error.rs").text;
        let mut errors = sqlstates(&error);
        for text in files
            .iter()
            .zip(&texts)
            .filter(|(path, _)| path.ends_with(".sql"))
            .map(|(_, text)| text)
        {
            for code in conditions(text) {
                errors.entry(code).or_default();
            }
        }
        Sources {
            access_types: words(&texts, "AccessType"),
            failure_reasons: &words(&texts, "FailureReason") | &reasons(&texts.join("\n")),
            incident_types: words(&texts, "IncidentType"),
            errors,
            messages: messages(&error),
            text: texts.iter().map(|text| told(text)).collect::<Vec<_>>().join("\n"),
        }
    }
}

/// The words of a `words!` table: `Name { Variant = "word", … }`, wherever it is.
pub(crate) fn words(texts: &[String], name: &str) -> BTreeSet<String> {
    let table = re(&format!(r"\b{name}\s*\{{([^{{}}]*)\}}"));
    let word = re(r#"\b[A-Z]\w*\s*=\s*"(\w+)""#);
    let bodies =
        texts.iter().flat_map(|text| table.captures_iter(text).map(|found| found[1].to_string()));
    let found: BTreeSet<String> = bodies
        .flat_map(|body| word.captures_iter(&body).map(|w| w[1].to_string()).collect::<Vec<_>>())
        .collect();
    assert!(!found.is_empty(), "no table of words {name} in the sources");
    found
}

/// Errors by SQLSTATE, from the rows of the test of error.rs; every variant has one.
pub(crate) fn sqlstates(error: &str) -> BTreeMap<String, BTreeSet<String>> {
    let rows = error
        .split_once("let rows = [")
        .and_then(|(_, rest)| rest.split_once("];"))
        .expect("rows in error.rs")
        .0;
    let row = re(r#"(?s)\(\s*([A-Z]\w*)\b[^\n]*?,\s*"([0-9A-Z]{5})",\s*"([a-z_0-9]+)",?\s*\)"#);
    let mut found: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for row in row.captures_iter(rows) {
        found.entry(row[2].into()).or_default().insert(row[1].into());
    }
    let body = error
        .split_once("pub enum Error {")
        .and_then(|(_, rest)| rest.split_once("\n}"))
        .expect("enum Error")
        .0;
    let variants = re(r"(?m)^    ([A-Z]\w*)")
        .captures_iter(body)
        .map(|v| v[1].to_string())
        .collect::<BTreeSet<_>>();
    let with_row: BTreeSet<String> = found.values().flatten().cloned().collect();
    assert!(
        !variants.is_empty() && variants == with_row,
        "errors without a row: {variants:?} {with_row:?}"
    );
    found
}

/// The reasons that errors give in their DETAIL: from the rows of the test of error.rs, or from
/// what a script raises, which must always give one.
pub(crate) fn reasons(text: &str) -> BTreeSet<String> {
    let row = re(r#""[0-9A-Z]{5}",\s*"([a-z_0-9]+)",?\s*\)"#);
    let raised = re(r"ERRCODE = '\w+'(?:, DETAIL = '([a-z_0-9]+)')?");
    let said = |found: regex::Captures| match found.get(1) {
        Some(reason) => reason.as_str().to_string(),
        None => panic!("{} comes without a DETAIL", &found[0]),
    };
    row.captures_iter(text).chain(raised.captures_iter(text)).map(said).collect()
}

/// Messages by error, of those that are one literal.
pub(crate) fn messages(error: &str) -> BTreeMap<String, String> {
    let body = error
        .split_once("fn message")
        .and_then(|(_, rest)| rest.split_once("fn hint"))
        .expect("messages")
        .0;
    let arm = re(r#"(?x) \b([A-Z]\w*) (?:\([^)]*\)|\s*\{[^}]*\})? \s*=>\s* (?:\{\s*)?
        (?:format!\(\s*)? "( (?: [^"\\] | \\(?s:.) )* )""#);
    let found: BTreeMap<String, String> =
        arm.captures_iter(body).map(|arm| (arm[1].to_string(), told(&arm[2]))).collect();
    assert!(found.len() > 20, "only {} messages in error.rs", found.len());
    found
}

/// SQLSTATEs of the conditions that a script raises.
pub(crate) fn conditions(sql: &str) -> Vec<String> {
    let named = re(r"ERRCODE = '(\w+)'");
    let code = |found: regex::Captures| {
        let known = CONDITIONS.iter().find(|(name, _)| *name == &found[1]);
        known
            .unwrap_or_else(|| {
                panic!("give the SQLSTATE of {} in tests/docs/sources.rs", &found[1])
            })
            .1
            .to_string()
    };
    named.captures_iter(sql).map(code).collect()
}

/// A text of the sources as it is shown: lines joined, quotes unescaped, `…` for the parts that
/// differ.
fn told(text: &str) -> String {
    let joined = re(r"\\\n\s*").replace_all(text, "");
    let open = re(r"\{[A-Za-z_.:?0-9]*\}|\{[^{}\n]*\(\)\}|%").replace_all(&joined, "…");
    open.replace("\\\"", "\"").replace("''", "'")
}
