//! Each check of the documentation fails on a page that breaks it, and passes the nearest page that
//! does not. Otherwise a check that never finds anything would stay green for ever.

use crate::page::{Page, anchor};
use crate::{anchors, blocks, limits};

pub(crate) fn page(path: &str, text: &str) -> Page {
    Page { path: path.into(), text: text.into() }
}

/// The name of a page that need not exist. It is assembled here, so that the check does not find it
/// in this file.
fn name(rest: &str) -> String {
    format!("{}/{rest}", "docs")
}

#[track_caller]
pub(crate) fn complains(found: &[String], about: &str) {
    assert!(
        found.iter().any(|complaint| complaint.contains(about)),
        "nothing about {about:?} in {found:?}"
    );
}

#[test]
fn anchors_are_githubs() {
    for (heading, expected) in [
        ("What to do by symptom", "what-to-do-by-symptom"),
        ("watchllm_keys.audit_timeout", "watchllm_keysaudit_timeout"),
        ("55000", "55000"),
        ("What's new -- here?", "whats-new----here"),
        ("Größe", "größe"),
    ] {
        assert_eq!(anchor(heading), expected);
    }
    let twice =
        page("a.md", "# The `same`\n## The same\n```sh\n# no heading\n```\n### [A link](b.md)\n");
    assert_eq!(twice.anchors(), ["the-same", "the-same-1", "a-link"]);
}

#[test]
fn a_dead_link_or_anchor_is_found() {
    let pages = [
        page(
            &name("a.md"),
            "# Here\n[there](b.md#there) [up](../README.md) [web](https://a.b/c#d)",
        ),
        page(&name("b.md"), "## There\n[self](#there) `[no](link.md)` ![image](x.png)"),
        page("README.md", "[a](docs/a.md#here)"),
    ];
    let exists = |path: &str| path == name("x.png");
    assert_eq!(anchors::broken(&pages, &[], &exists), Vec::<String>::new());
    for (text, about) in [
        ("# A\n[gone](c.md)", "c.md is not there".replace("c.md ", "")),
        ("# A\n[gone](b.md#gone)", "no heading for it".into()),
        ("# A\n[gone](#gone)", "no heading for it".into()),
        ("# A\n[gone]: y.png", "is not there".into()),
    ] {
        let broken = [page(&name("a.md"), text), page(&name("b.md"), "## There")];
        complains(&anchors::broken(&broken, &[], &exists), &about);
    }
    let hint = |rest: &str| page("src/a.rs", &format!("//! See {}.\n", name(rest)));
    assert_eq!(
        anchors::broken(&pages, &[hint("b.md#there"), hint("a.md")], &exists),
        Vec::<String>::new()
    );
    complains(&anchors::broken(&pages, &[hint("b.md#gone")], &exists), "src/a.rs:1");
    complains(&anchors::broken(&pages, &[hint("gone.md")], &exists), "is not there");
}

#[test]
fn a_page_that_is_too_long_or_wide_is_found() {
    let fits = |path: &str, text: String| limits::broken(&page(path, &text));
    assert!(fits("README.md", "a\n".repeat(130)).is_empty());
    complains(&fits("README.md", "a\n".repeat(131)), "131 lines");
    complains(&fits("README.md", "a".repeat(121)), "README.md:1: 121 characters");
    complains(&fits("README.md", format!("{}\n", "a".repeat(100)).repeat(90)), "bytes");
    assert!(fits("docs/app.md", "ä".repeat(100)).is_empty());
    complains(&fits("docs/app.md", "a".repeat(101)), "101 characters");
    complains(&fits("docs/app.md", "a\n".repeat(6000)), "bytes");
    assert!(fits("docs/reference.md", "a\n".repeat(6000)).is_empty());
    let address = format!("| [a]({}) |", "b".repeat(120));
    assert!(fits("docs/app.md", address.clone()).is_empty());
    complains(&fits("docs/app.md", address.replace('|', "")), "characters");
}

const SAMPLE: &str = "# Sample
```sql
CREATE ROLE tenant LOGIN;
SELECT watchllm.create_project('acme') AS project \\gset
```
  1. In a list, and the variable is still there:
     ```sql
     SELECT watchllm.store_provider_key(:'project', 'openai', 'a fake key'::text || md5('1'));
     ```
```sql error=22023
SELECT watchllm.store_provider_key(:'project', 'No slug', 'k');
```
```text
ERROR:  the provider is not a slug
```
```sql norun
SELECT this is only read;
```
```sql
SELECT count(*) = 1 FROM watchllm.projects;
```
";

#[test]
fn a_sample_page_runs_and_each_fault_of_it_is_found() {
    let sample = SAMPLE.replace("'a fake key'::text || md5('1')", "'fake-' || md5('1')");
    let faults = [
        ("FROM watchllm.projects", "FROM watchllm.gone", "sample.md:20: 42P01"),
        ("error=22023", "error=42501", "sample.md:10: must fail with 42501, once; met [\"22023\"]"),
        ("'No slug'", "'slug'", "sample.md:10: must fail with 22023, once; met []"),
        ("\\gset", "\\gset wrong_", "sample.md:8: 42601"),
        ("sql norun", "sql", "sample.md:17: 42601"),
        ("sql norun", "sql later", "sample.md:16: ```sql later"),
        ("CREATE ROLE tenant LOGIN;", "\\nonsense", "sample.md:3: psql: invalid command"),
        ("'k');\n```", "'k'); SELECT 1/0;\n```", "once; met [\"22023\", \"22012\"]"),
    ];
    std::thread::scope(|scope| {
        for fault in faults {
            let sample = &sample;
            scope.spawn(move || {
                let (old, new, about) = fault;
                assert!(sample.contains(old), "{old}");
                complains(
                    &blocks::run(&page(&name("sample.md"), &sample.replacen(old, new, 1))),
                    about,
                );
            });
        }
        assert_eq!(blocks::run(&page(&name("sample.md"), &sample)), Vec::<String>::new());
    });
    complains(&blocks::run(&page(&name("sample.md"), "```sql\nSELECT 1")), "no end");
}

#[test]
fn a_page_that_makes_the_extension_finds_none() {
    let text = "```sql\nCREATE EXTENSION watchllm_keys;\nSELECT watchllm.install();\n```\n";
    assert_eq!(blocks::run(&page("docs/install.md", text)), Vec::<String>::new());
    let twice = text.replace("SELECT", "CREATE EXTENSION watchllm_keys;\nSELECT");
    complains(&blocks::run(&page("docs/install.md", &twice)), "docs/install.md:3: 42710");
}
