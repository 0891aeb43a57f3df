//! What a row of a table needs elsewhere: a detector its SQL and its tests, a setting that can be
//! overridden somebody who reads it and a test that sets it. Each check is proven to fail. That a
//! heading of docs/reference.md is missing is found by tests/docs.

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

/// What is missing of a detector.
fn of_detector(texts: &BTreeMap<String, String>, word: &str) -> Vec<String> {
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
            says(texts, &["tests/cluster/"], &format!("\"{word}\"")),
            format!("{word}: no test on a server names it"),
        ),
    ];
    needs.into_iter().filter(|(is_there, _)| !is_there).map(|(_, complaint)| complaint).collect()
}

/// What is missing of a setting; `reader`: how Rust names it where it reads it, if it has a name.
fn of_setting(texts: &BTreeMap<String, String>, name: &str, reader: Option<&str>) -> Vec<String> {
    let is_read = reader.is_none_or(|reader| {
        let use_of_it = re(&format!(r"(&{reader}\b|\b{reader}\.\w)"));
        let reads = |path: &String| path != "core/src/overrides.rs" && !path.starts_with("tests/");
        texts.iter().any(|(path, text)| reads(path) && use_of_it.is_match(text))
            || says(texts, &["sql/"], &format!("effective_setting('{name}'"))
    });
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
    let missing: Vec<String> =
        Detector::ALL.iter().flat_map(|detector| of_detector(&texts, detector.word())).collect();
    assert_eq!(missing, [""; 0]);
    // and nothing looks for what no row names
    for path in texts.keys().filter_map(|path| path.strip_prefix("sql/anomalies/")) {
        let word = path.trim_end_matches(".sql");
        assert!(Detector::find(word).is_some(), "sql/anomalies/{path} is of no detector");
    }
}

#[test]
fn every_setting_that_can_be_overridden_is_read_and_tested() {
    let texts = texts();
    let names = names(&texts);
    let is_limit = |name: &str| {
        Detector::ALL
            .iter()
            .any(|detector| detector.limit().is_some_and(|limit| limit.name() == name))
    };
    let missing: Vec<String> = overrides::all()
        .flat_map(|setting| {
            let name = setting.name();
            let reader = names.get(name).map(String::as_str);
            assert!(reader.is_some() || is_limit(name), "{name}: its row has no name");
            of_setting(&texts, name, reader)
        })
        .collect();
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
    assert_eq!(of_detector(&whole, "odd"), [""; 0]);
    for path in whole.keys() {
        let mut without = whole.clone();
        without.remove(path);
        assert_eq!(of_detector(&without, "odd").len(), 1, "without {path}");
    }
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
    assert_eq!(of_setting(&whole, "odd", Some("ODD")), [""; 0]);
    for (path, complaint) in
        [("src/api/keys.rs", "nobody reads it"), ("tests/cluster/odd.rs", "no test on a server")]
    {
        let mut without = whole.clone();
        without.remove(path);
        let missing = of_setting(&without, "odd", Some("ODD"));
        assert!(
            missing.len() == 1 && missing[0].contains(complaint),
            "without {path}: {missing:?}"
        );
    }
    let mut in_sql = whole.clone();
    in_sql.insert("sql/views.sql".into(), "watchllm.effective_setting('odd', r.id)".into());
    in_sql.remove("src/api/keys.rs");
    assert_eq!(of_setting(&in_sql, "odd", Some("ODD")), [""; 0]);
}
