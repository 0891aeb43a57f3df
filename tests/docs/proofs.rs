//! Each check of the documentation fails on a page that breaks it, and passes the nearest page that
//! does not. Without this a check that never finds anything would stay green for ever.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::{Catalog, Function, Relation, Setting, written};
use crate::page::{Page, anchor};
use crate::sources::{Sources, conditions, messages, sqlstates, words};
use crate::{anchors, blocks, limits, reference};

fn page(path: &str, text: &str) -> Page {
    Page { path: path.into(), text: text.into() }
}

/// The name of a page that need not be there, kept out of sight of the check of this very file.
fn name(rest: &str) -> String {
    format!("{}/{rest}", "docs")
}

#[track_caller]
fn complains(found: &[String], about: &str) {
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

const REFERENCE: &str = "# Reference
## Functions for applications
### open_it
Callers: watchllm_admin, watchllm_service.
```signature
open_it(
    id uuid,
    since timestamptz DEFAULT NULL
) RETURNS text

open_it(text text DEFAULT 'a') RETURNS text
```
## Views
### keys
Readers: watchllm_tenant.
- `id` uuid: which.
- `at` timestamptz:
  when.
## Tables an auditor may read
### trail
Readers: watchllm_auditor.
Writers: watchllm_admin.
## Settings
### watchllm_keys.wait
- Default: `5s`
- Range: 100 to 600000 ms
- Applies: on reload
- Override: database, project
## Access types
| word | |
|---|---|
| `store` | it |
## Failure reasons
| word | |
|---|---|
| `limit` | it |
## Incident types
### leaked_key
## SQLSTATEs
### 55000
- `version … is gone`: why.
  What to do.
";

fn catalog() -> Catalog {
    let set =
        |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect::<BTreeSet<String>>();
    let signatures = [
        "open_it(id uuid, since timestamp with time zone \
         DEFAULT NULL::timestamp with time zone) RETURNS text",
        "open_it(text text DEFAULT 'a'::text) RETURNS text",
    ];
    let open_it = Function {
        signatures: signatures.iter().map(|signature| written(signature)).collect(),
        callers: set(&["watchllm_admin", "watchllm_service"]),
    };
    let wait = Setting {
        default: "5s".into(),
        range: Some("100 to 600000 ms".into()),
        applies: "on reload".into(),
        is_overridable: true,
    };
    Catalog {
        functions: BTreeMap::from([("open_it".into(), open_it)]),
        views: BTreeMap::from([(
            "keys".into(),
            Relation {
                columns: set(&["id uuid", "at timestamptz"]),
                readers: set(&["watchllm_tenant"]),
                writers: set(&[]),
            },
        )]),
        readable_tables: BTreeMap::from([(
            "trail".into(),
            Relation {
                columns: set(&[]),
                readers: set(&["watchllm_auditor"]),
                writers: set(&["watchllm_admin"]),
            },
        )]),
        settings: BTreeMap::from([("watchllm_keys.wait".into(), wait)]),
    }
}

fn sources() -> Sources {
    let one = |word: &str| BTreeSet::from([word.to_string()]);
    Sources {
        access_types: one("store"),
        failure_reasons: one("limit"),
        incident_types: one("leaked_key"),
        errors: BTreeMap::from([("55000".into(), one("Gone"))]),
        messages: BTreeMap::from([("Gone".into(), "version … is gone".into())]),
        text: "version … is gone".into(),
    }
}

#[test]
fn a_reference_that_differs_is_found() {
    let judge = |text: &str| {
        let page = page("docs/reference.md", text);
        let mut found = reference::against_catalog(&page, &catalog());
        found.extend(reference::against_sources(&page, &sources()));
        found
    };
    assert_eq!(judge(REFERENCE), Vec::<String>::new());
    for (old, new, about) in [
        ("### open_it", "### shut_it", "no heading of function open_it"),
        ("### open_it", "### shut_it", "there is no function shut_it"),
        ("## Views", "### open_it\n## Views", "a second time"),
        ("since timestamptz", "until timestamptz", "signatures of open_it"),
        ("id uuid", "id text", "signatures of open_it"),
        ("DEFAULT 'a'", "DEFAULT 'b'", "signatures of open_it"),
        (", watchllm_service", "", "callers of open_it"),
        ("### keys", "", "no heading of view keys"),
        ("### trail", "### envelopes", "there is no table envelopes"),
        ("- `id` uuid", "- `id` text", "columns of keys"),
        ("watchllm_tenant", "watchllm_admin", "readers of keys"),
        ("Writers: watchllm_admin.", "", "writers of trail"),
        ("### watchllm_keys.wait", "", "no heading of setting watchllm_keys.wait"),
        ("`5s`", "`6s`", "Default is \"`5s`\""),
        ("600000 ms", "600000 s", "Range is"),
        ("on reload", "after a restart", "Applies is"),
        ("database, project", "none", "can be overridden"),
        ("| `store` |", "| `restore` |", "no heading of access type store"),
        ("| `limit` | it |\n", "", "no heading of failure reason limit"),
        ("### leaked_key", "### leaked", "there is no incident type leaked"),
        ("### 55000", "### 55001", "no heading of SQLSTATE 55000"),
        ("`version … is gone`", "`a version is gone`", "no item with the message"),
        ("`version … is gone`", "`a version is gone`", "nothing says"),
    ] {
        assert!(REFERENCE.contains(old), "{old}");
        complains(&judge(&REFERENCE.replacen(old, new, 1)), about);
    }
}

#[test]
fn lists_are_read_from_the_sources() {
    let table =
        "words! {\n /// a\n Kind {\n A = \"a_a\", B = \"b\" => 3,\n }\n}\nimpl Kind { fn a() { } }"
            .to_string();
    assert_eq!(words(&[table.clone()], "Kind"), BTreeSet::from(["a_a".to_string(), "b".into()]));
    assert!(
        std::panic::catch_unwind(|| words(&[table], "Other")).is_err(),
        "a table that is not there"
    );
    let error = "pub enum Error {\n    A,\n    B(i32),\n}\n\
                 let rows = [\n(A, \"02000\"),\n(B(\"x, 12345\"), \"55000\"),\n];";
    assert_eq!(sqlstates(error).len(), 2);
    let forgotten = error.replace("    A,", "    A,\n    C,");
    assert!(std::panic::catch_unwind(|| sqlstates(&forgotten)).is_err(), "an error without a row");
    assert!(std::panic::catch_unwind(|| messages("fn message fn hint")).is_err(), "no messages");
    assert_eq!(conditions("USING ERRCODE = 'duplicate_table'"), ["42P07"]);
    assert!(
        std::panic::catch_unwind(|| conditions("ERRCODE = 'strange'")).is_err(),
        "an unknown condition"
    );
}
