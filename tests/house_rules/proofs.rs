//! Each rule of the house fails on a text that breaks it, and passes the nearest text that does
//! not. Without this a rule that never matches anything would stay green for ever.

use super::{Source, broken, forget_test_files, sql_head};

const HEAD: &str = "//! What lives here.\n//! What it may touch.\n";

#[track_caller]
fn fails(path: &str, body: &str, complaint: &str) {
    let found = broken(&[Source::new(path, &format!("{HEAD}{body}"))]);
    assert!(found.iter().any(|text| text.contains(complaint)), "{path} {body:?} gave {found:?}");
}

#[track_caller]
fn passes(path: &str, body: &str) {
    assert_eq!(
        broken(&[Source::new(path, &format!("{HEAD}{body}"))]),
        Vec::<String>::new(),
        "{path} {body:?}"
    );
}

#[test]
fn head_can_fail() {
    assert_eq!(broken(&[Source::new("src/error.rs", "//! One line.\nfn a() {}")]).len(), 1);
    assert_eq!(broken(&[Source::new("src/error.rs", &HEAD.repeat(3))]).len(), 1);
    assert_eq!(sql_head("a.sql", "CREATE TABLE a ()").len(), 1);
    assert!(sql_head("a.sql", "-- Why.\n").is_empty());
    passes("src/error.rs", "");
}

#[test]
fn purity_can_fail() {
    fails("core/src/crypto/secret.rs", "use pgrx::prelude::*;", "pure room");
    fails(
        "core/src/anomaly/mod.rs",
        "#[cfg(test)]\nmod tests { fn a() { unsafe { b() } } }",
        "pure room",
    );
    passes(
        "core/src/crypto/secret.rs",
        "#![forbid(unsafe_code)]\n// not even pgrx\nfn a() { b(\"unsafe pgrx\") }",
    );
}

#[test]
fn fence_can_fail() {
    fails("src/api/keys.rs", "// SAFETY: none\nconst A: B = unsafe { b() };", "unsafe here");
    fails("src/lib.rs", "#[unsafe(no_mangle)]\npub extern \"C\" fn a() {}", "unsafe here");
    passes("src/audit/writer/mod.rs", "#[unsafe(no_mangle)]\npub extern \"C\" fn a() {}");
}

#[test]
fn safety_can_fail() {
    fails("src/log_hook.rs", "fn a() {\n    unsafe { b() }\n}", "without // SAFETY:");
    fails(
        "src/log_hook.rs",
        "// SAFETY: too far\n\n\n\nunsafe impl Send for A {}",
        "without // SAFETY:",
    );
    fails("src/log_hook.rs", "unsafe fn a() {}", "without // SAFETY:");
    passes(
        "src/log_hook.rs",
        "// SAFETY: long\n// and\n// very\n// long\n#[inline]\nunsafe fn a() {}",
    );
    passes(
        "src/log_hook.rs",
        "/// Does.\n///\n/// # Safety\n/// a\n/// b\n/// c\npub unsafe fn a() {}",
    );
    passes("src/log_hook.rs", "type Hook = Option<unsafe extern \"C-unwind\" fn(i32)>;");
}

#[test]
fn floors_can_fail() {
    fails(
        "core/src/crypto/keyring.rs",
        "use crate::audit::record;",
        "crate::audit is not on a lower floor",
    );
    fails(
        "src/store/keys.rs",
        "use crate::{\n    crypto::{Sealed, seal},\n    caller,\n};",
        "crate::caller is not",
    );
    fails("core/src/trail/event.rs", "fn a() { crate::crypto::open() }", "crate::crypto is not");
    fails("src/caller.rs", "use super::api;", "climbs out");
    fails("src/cupboard/mod.rs", "", "on no floor");
    passes("src/api/keys.rs", "use crate::{audit, caller::Caller, api::trail};\nuse super::trail;");
    passes("src/store/mod.rs", "mod numbers {\n    use super::a;\n}");
    passes(
        "core/src/trail/event.rs",
        "#[cfg(test)]\nmod tests {\n    use super::*;\n    use crate::crypto::seal;\n}",
    );
}

#[test]
fn panics_can_fail() {
    for word in ["b().unwrap();", "panic!();", "println!(\"a\");", "dbg!(1);", "todo!();"] {
        fails("src/settings.rs", &format!("fn a() {{ {word} }}"), "not outside tests");
        passes(
            "src/settings.rs",
            &format!("// {word}\n#[cfg(test)]\nmod tests {{ fn a() {{ {word} }} }}\nfn c() {{}}"),
        );
        fails(
            "src/settings.rs",
            &format!("#[cfg(test)]\nmod tests {{}}\nfn a() {{ {word} }}"),
            "not outside tests",
        );
    }
}

#[test]
fn files_of_tests_may_panic() {
    let parent = format!("{HEAD}#[cfg(test)]\nmod known_answers;");
    let child = format!("{HEAD}fn a() {{ panic!() }}");
    let mut sources = [
        Source::new("core/src/crypto/mod.rs", &parent),
        Source::new("core/src/crypto/known_answers.rs", &child),
    ];
    assert_eq!(broken(&sources).len(), 1);
    forget_test_files(&mut sources);
    assert_eq!(broken(&sources), Vec::<String>::new());
    let parent = format!("{HEAD}#[cfg(test)]\n#[path = \"examples.rs\"]\npub(super) mod b;");
    let mut sources = [
        Source::new("core/src/redact/scan.rs", &parent),
        Source::new("core/src/redact/examples.rs", &child),
    ];
    forget_test_files(&mut sources);
    assert_eq!(broken(&sources), Vec::<String>::new());
}

#[test]
fn surface_can_fail() {
    fails("src/caller.rs", "#[pg_extern]\nfn a() {}", "only api/");
    fails("src/api/keys.rs", "#[pg_extern(\n    name = \"b\",\n)]\nfn a() {}", "no doc comment");
    fails("src/api/keys.rs", "/// Says.\nfn a() {}\npub(crate) fn b() {}", "no doc comment");
    passes("src/api/keys.rs", "impl Drop for A {\n    fn drop(&mut self) {}\n}");
    passes("src/api/keys.rs", "/// Says.\n#[pg_extern(\n    name = \"b\",\n)]\nfn a() {}");
}

#[test]
fn queries_can_fail() {
    fails("src/api/keys.rs", "/// Says.\nfn a() { Spi::run(B) }", "only store/ speaks");
    fails("src/audit/mod.rs", "const A: &str = \"SELECT 1\";", "SQL is a const in store/");
    fails("src/store/keys.rs", "fn a() { b(\"\n  DELETE FROM c\") }", "SQL is a const in store/");
    passes(
        "src/store/keys.rs",
        "const A: &str = \"SELECT 1\";\nconst B: &[&str] = &[r#\"INSERT INTO a\"#, \"SELECT 2\"];",
    );
    passes(
        "src/audit/mod.rs",
        "/// See \"SELECT 1\".\n#[cfg(test)]\nmod tests { const A: &str = \"SELECT 1\"; }",
    );
}

#[test]
fn words_can_fail() {
    fails("src/lib.rs", "mod utils;", "says nothing");
    fails("core/src/crypto/common.rs", "", "says nothing");
    fails("src/store/types/mod.rs", "", "says nothing");
    passes("src/api/keys.rs", "use pgrx::prelude::*;");
}
