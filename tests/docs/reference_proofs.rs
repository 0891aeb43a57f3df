//! The checks of the reference fail on a page that differs from catalog or sources in one place.
//! The reader of the sources fails if it finds nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::catalog::{Catalog, Function, Relation, Setting, written};
use crate::page::Page;
use crate::proofs::{complains, page};
use crate::reference;
use crate::sources::{Sources, conditions, messages, reasons, sqlstates, words};

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
        let page: Page = page("docs/reference.md", text);
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
    assert_eq!(
        words(std::slice::from_ref(&table), "Kind"),
        BTreeSet::from(["a_a".to_string(), "b".into()])
    );
    assert!(
        std::panic::catch_unwind(|| words(&[table], "Other")).is_err(),
        "a table that is not there"
    );
    let error = "pub enum Error {\n    A,\n    B(i32),\n}\n\
                 let rows = [\n(A, \"02000\", \"a\"),\n(B(\"x, 12345\"), \"55000\", \"b\"),\n];";
    assert_eq!(sqlstates(error).len(), 2);
    assert_eq!(reasons(error), BTreeSet::from(["a".to_string(), "b".into()]));
    let raised = "USING ERRCODE = 'duplicate_table', DETAIL = 'not_ours'";
    assert_eq!(reasons(raised), BTreeSet::from(["not_ours".to_string()]));
    assert!(std::panic::catch_unwind(|| reasons("ERRCODE = 'x', HINT")).is_err(), "no reason");
    let forgotten = error.replace("    A,", "    A,\n    C,");
    assert!(std::panic::catch_unwind(|| sqlstates(&forgotten)).is_err(), "an error without a row");
    assert!(std::panic::catch_unwind(|| messages("fn message fn hint")).is_err(), "no messages");
    assert_eq!(conditions("USING ERRCODE = 'duplicate_table'"), ["42P07"]);
    assert!(
        std::panic::catch_unwind(|| conditions("ERRCODE = 'strange'")).is_err(),
        "an unknown condition"
    );
}
