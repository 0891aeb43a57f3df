//! Each rule of the house fails on a text that breaks it, and passes the nearest text that does
//! not. Without this a rule that never matches anything would stay green for ever.

use super::{Source, broken, doubles, drawing, forget_test_files, sql_head};

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
fn doubles_can_fail() {
    let two = |path, body: &str| {
        [Source::new("core/src/id.rs", "pub struct Key(u8);"), Source::new(path, body)]
    };
    for body in [
        "enum Key {}",
        "pub(crate) struct Key;",
        "pub type Key<'a> = &'a str;",
        "unsafe trait Key {}",
        "words! { Key { A = \"a\" } }",
        "ids! {\n    /// Of a project.\n    ProjectId\n    /// Of a key.\n    Key\n}",
        "mod a {\n    pub(super) union Key {}\n}",
        "fn a(b: impl Fn() -> u8) {}\nstruct Key;",
    ] {
        assert_eq!(doubles(&two("src/store/keys.rs", body)).len(), 1, "{body}");
    }
    for body in [
        "struct Keys;",
        "// struct Key;\nconst A: &str = \"\n struct Key;\";",
        "impl A for B {\n    type Key = u8;\n}",
        "trait A {\n    type Key;\n}",
        "#[cfg(test)]\nmod tests {\n    struct Key;\n}",
        "use crate::id::Key;\nfn a(key: Key) {}",
    ] {
        assert_eq!(doubles(&two("src/store/keys.rs", body)), Vec::<String>::new(), "{body}");
    }
    assert_eq!(doubles(&two("core/src/crypto/envelope_tests.rs", "struct Key;")).len(), 0);
}

#[test]
fn parsed_can_fail() {
    fails("src/api/keys.rs", "/// Says.\nfn a() { KeyName::stored(b) }", "only store/ takes");
    fails("src/api/keys.rs", "/// Says.\nfn a() { b.map(KeyName::stored) }", "only store/ takes");
    passes("src/store/keys.rs", "fn a() { KeyName::stored(b) }");
    passes("src/api/keys.rs", "/// Says.\nfn a() { store::keys::stored_as(b) }");
}

#[test]
fn words_can_fail() {
    fails("src/lib.rs", "mod utils;", "says nothing");
    fails("core/src/crypto/common.rs", "", "says nothing");
    fails("src/store/types/mod.rs", "", "says nothing");
    passes("src/api/keys.rs", "use pgrx::prelude::*;");
}

/// What is drawn of a house of these files.
#[track_caller]
fn house(name: &str, files: &[(&str, &str)]) -> (String, bool) {
    let root = std::env::temp_dir().join(format!("house-{name}-{}", std::process::id()));
    for (path, text) in files {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let drawn = drawing(&root);
    std::fs::remove_dir_all(&root).unwrap();
    drawn
}

#[test]
fn circles_can_fail() {
    for (name, mine, other) in [
        ("use", "use super::b::B;", "use super::{\n    c,\n    a::{A, C as D},\n};"),
        ("path", "fn a() { super::b::b() }", "use crate::store::a;\nfn b() { a::a() }"),
        ("through", "use super::b::B;", "use super::c::C;\nuse super::A;"),
    ] {
        let room =
            ("src/store/mod.rs", "mod a;\nmod b;\nmod c;\npub(crate) use a::A;\nconst C: u8 = 1;");
        let c = ("src/store/c.rs", "");
        let files = [room, ("src/store/a.rs", mine), ("src/store/b.rs", other), c];
        let (drawn, is_right) = house(name, &files);
        assert!(drawn.contains("circle: store/a, store/b\n") && !is_right, "{name}: {drawn}");
        let (drawn, is_right) = house(name, &[room, files[1], ("src/store/b.rs", ""), c]);
        assert!(drawn.contains(" 0 wrong") && is_right, "{name}: {drawn}");
    }
}

#[test]
fn a_file_and_what_it_leads_can_be_a_circle() {
    let child = ("src/store/a.rs", "use super::C;");
    let leads = ("src/store/mod.rs", "mod a;\nconst C: u8 = a::A;");
    let (drawn, is_right) = house("leads", &[leads, child]);
    assert!(drawn.contains("circle: store, store/a\n") && !is_right, "{drawn}");
    for room in
        ["mod a;\npub(crate) use a::A;\nconst C: u8 = 1;", "mod a;\n// a::A\nconst C: u8 = 1;"]
    {
        let (drawn, is_right) = house("passes-on", &[("src/store/mod.rs", room), child]);
        assert!(is_right, "{drawn}");
    }
    let uses = "mod a;\npub(crate) use a::A;\nconst C: u8 = A;";
    let (drawn, _) = house("passes-on-and-uses", &[("src/store/mod.rs", uses), child]);
    assert!(drawn.contains("circle: store, store/a\n"), "{drawn}");
    let tests = "mod a;\nconst C: u8 = 1;\n#[cfg(test)]\nmod tests {\n    use super::a::A;\n}";
    assert!(house("tests", &[("src/store/mod.rs", tests), child]).1);
}

#[test]
fn arrows_up_can_fail() {
    let up = [
        ("src/store/keys.rs", "use crate::{api::keys, id};"),
        ("src/api/mod.rs", ""),
        ("src/api/keys.rs", ""),
        ("core/src/id.rs", ""),
    ];
    let (drawn, is_right) = house("up", &up);
    assert!(drawn.contains("arrow up: store/keys -> api/keys\n") && !is_right, "{drawn}");
    let both =
        [("src/audit.rs", "fn a() { crate::caller::b() }"), ("src/caller.rs", "use crate::audit;")];
    let (drawn, _) = house("both", &both);
    assert!(drawn.contains("circle: audit, caller\n"), "{drawn}");
    let pure = [("core/src/trail.rs", "use crate::id::B;"), ("core/src/id.rs", "")];
    assert!(house("pure", &pure).1);
    assert!(!house("nothing", &[("Cargo.toml", "")]).1);
}
