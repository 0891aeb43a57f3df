//! What a row of a table needs elsewhere. A detector needs its SQL and its tests. A setting that
//! can be overridden needs a reader, and a test that sets it. Each check is proven to fail.
//! tests/docs finds a missing heading of docs/reference.md.

use super::{files, re};
use std::collections::BTreeMap;
use std::path::Path;
use watchllm_core::anomaly::Detector;
use watchllm_core::overrides;

/// Every file that a row may be named in, by its path from the root.
fn texts() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |home: &'static str, ending| {
        let found = files(&root.join(home), "", ending).into_iter();
        found.map(move |(path, text)| (format!("{home}/{path}"), text))
    };
    read("src", ".rs")
        .chain(read("core/src", ".rs"))
        .chain(read("sql", ".sql"))
        .chain(read("tests/cluster", ".rs"))
        .collect()
}

/// Whether a text below these directories says it.
fn says(texts: &BTreeMap<String, String>, homes: &[&str], what: &str) -> bool {
    let is_there = |path: &String| homes.iter().any(|home| path.starts_with(home));
    texts.iter().any(|(path, text)| is_there(path) && text.contains(what))
}

/// What is missing of a detector; a test names it by its word or by its row.
fn of_detector(texts: &BTreeMap<String, String>, word: &str, row: &str) -> Vec<String> {
    let sql = format!("sql/anomalies/{word}.sql");
    let needs = [
        (texts.contains_key(&sql), format!("{word}: there is no {sql}")),
        (
            says(texts, &["src/lib.rs"], &format!("../{sql}")),
            format!("{word}: src/lib.rs does not bring {sql}"),
        ),
        (
            says(texts, &["sql/anomalies.sql"], &format!("detect_{word}(since, until)")),
            format!("{word}: key_access_anomalies() does not ask it"),
        ),
        (
            says(texts, &["tests/cluster/"], &format!("\"{word}\""))
                || says(texts, &["tests/cluster/"], &format!("Detector::{row},")),
            format!("{word}: no test on a server names it"),
        ),
    ];
    needs.into_iter().filter(|(is_there, _)| !is_there).map(|(_, complaint)| complaint).collect()
}

/// What is missing of a setting; `row`: how Rust names it.
fn of_setting(texts: &BTreeMap<String, String>, name: &str, row: &str) -> Vec<String> {
    let use_of_it = re(&format!(r"(&{row}\b|\b{row}\.\w)"));
    let reads = |path: &String| path != "core/src/overrides.rs" && !path.starts_with("tests/");
    let is_read = texts.iter().any(|(path, text)| reads(path) && use_of_it.is_match(text))
        || says(texts, &["sql/"], &format!("effective_setting('{name}'"));
    let is_set = says(texts, &["tests/cluster/"], &format!("'{name}'"))
        || says(texts, &["tests/cluster/"], &format!("\"{name}\""));
    let mut complaints = Vec::new();
    if !is_read {
        complaints.push(format!("{name}: nobody reads it"));
    }
    if !is_set {
        complaints.push(format!("{name}: no test on a server sets it"));
    }
    complaints
}

/// The names that Rust gives to rows: by the setting's name.
fn names(texts: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let row = re(r#"(?s)pub static (\w+): Setting = .*?c"watchllm_keys\.(\w+)""#);
    let core = texts.iter().filter(|(path, _)| path.starts_with("core/src/"));
    core.flat_map(|(_, text)| row.captures_iter(text))
        .map(|found| (found[2].to_string(), found[1].to_string()))
        .collect()
}

#[test]
fn every_detector_has_what_it_needs() {
    let texts = texts();
    let of = |detector: &Detector| of_detector(&texts, detector.word(), &format!("{detector:?}"));
    let missing: Vec<String> = Detector::ALL.iter().flat_map(of).collect();
    assert_eq!(missing, [""; 0]);
    // and no file that no row names
    for path in texts.keys().filter_map(|path| path.strip_prefix("sql/anomalies/")) {
        let word = path.trim_end_matches(".sql");
        assert!(Detector::find(word).is_some(), "sql/anomalies/{path} is of no detector");
    }
}

/// The limits of the detectors are read by their rows, and tested with them.
#[test]
fn every_setting_that_can_be_overridden_is_listed_read_and_tested() {
    let texts = texts();
    let names = names(&texts);
    let is_limit = |name: &&str| {
        let is_it =
            |detector: &Detector| detector.limit().is_some_and(|limit| limit.name() == *name);
        Detector::ALL.iter().any(is_it)
    };
    let mut listed: Vec<&str> =
        overrides::all().map(|setting| setting.name()).filter(|name| !is_limit(name)).collect();
    listed.sort_unstable();
    assert_eq!(names.keys().collect::<Vec<_>>(), listed, "rows, and the list of them");
    let missing: Vec<String> =
        names.iter().flat_map(|(name, row)| of_setting(&texts, name, row)).collect();
    assert_eq!(missing, [""; 0]);
}

#[test]
fn a_detector_that_lacks_something_is_named() {
    let whole: BTreeMap<String, String> = [
        ("sql/anomalies/odd.sql", "CREATE FUNCTION"),
        ("src/lib.rs", "extension_sql_file!(\"../sql/anomalies/odd.sql\")"),
        ("sql/anomalies.sql", "RETURN QUERY SELECT d.* FROM watchllm.detect_odd(since, until) d"),
        ("tests/cluster/odd.rs", "found(c, \"odd\")"),
    ]
    .map(|(path, text)| (path.to_string(), text.to_string()))
    .into();
    assert_eq!(of_detector(&whole, "odd", "Odd"), [""; 0]);
    for path in whole.keys() {
        let mut without = whole.clone();
        without.remove(path);
        assert_eq!(of_detector(&without, "odd", "Odd").len(), 1, "without {path}");
    }
    let mut by_row = whole.clone();
    by_row.insert("tests/cluster/odd.rs".into(), "(Detector::Odd, 20, 20)".into());
    assert_eq!(of_detector(&by_row, "odd", "Odd"), [""; 0]);
}

#[test]
fn a_setting_that_lacks_something_is_named() {
    let whole: BTreeMap<String, String> = [
        ("core/src/overrides.rs", "static OTHERS: [&Setting; 1] = [&ODD];"),
        ("src/api/keys.rs", "store::settings::number(owner, &ODD, None, None)"),
        ("tests/cluster/odd.rs", "set_setting('odd', '7')"),
    ]
    .map(|(path, text)| (path.to_string(), text.to_string()))
    .into();
    assert_eq!(of_setting(&whole, "odd", "ODD"), [""; 0]);
    for (path, complaint) in
        [("src/api/keys.rs", "nobody reads it"), ("tests/cluster/odd.rs", "no test on a server")]
    {
        let mut without = whole.clone();
        without.remove(path);
        let missing = of_setting(&without, "odd", "ODD");
        assert!(
            missing.len() == 1 && missing[0].contains(complaint),
            "without {path}: {missing:?}"
        );
    }
    let mut in_sql = whole.clone();
    in_sql.insert("sql/views.sql".into(), "watchllm.effective_setting('odd', r.id)".into());
    in_sql.remove("src/api/keys.rs");
    assert_eq!(of_setting(&in_sql, "odd", "ODD"), [""; 0]);
}
