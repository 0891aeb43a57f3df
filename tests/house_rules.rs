//! The rules of the house, read from the source text: rooms, floors, fences, words
//! (docs/architecture.md#rooms). `proofs` shows for every rule that a text can break it. If a rule
//! is wrong, change it here and say why.

// A failed expectation here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

#[path = "house_rules/proofs.rs"]
mod proofs;
#[path = "house_rules/prose.rs"]
mod prose;
#[path = "house_rules/rows.rs"]
mod rows;

use regex::Regex;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

/// Rooms by floor, the lowest first. An import may only point to a lower floor.
const FLOORS: [&[&str]; 9] = [
    &["id", "moment"],
    &["crypto", "trail", "redact", "blanks", "server_log", "setting"],
    &["anomaly", "input"],    // below store: what it writes down, and takes
    &["overrides", "alarms"], // the limits of the watch are among them
    &["postgres", "error", "settings"],
    &["store", "shared_keyring", "extra_patterns"],
    &["audit", "caller"],
    &["api", "log_hook", "disclosed", "trigger_guard"],
    &["lib"],
];
/// The crate of the pure rooms, and the extension.
const PURE: &str = "core/src/";
const HOMES: [&str; 2] = [PURE, "src/"];
/// Where `unsafe` may stand. A name without an ending is a file or a whole room.
const UNSAFE: [&str; 12] = [
    "audit/queue",
    "audit/writer/mod.rs", // the entry
    "audit/writer/process.rs",
    "audit/writer/transaction.rs",
    "audit/commit.rs",
    "shared_keyring",
    "settings/overridable.rs", // the hook that checks a setting
    "extra_patterns",
    "log_hook",
    "postgres",
    "disclosed",
    "trigger_guard",
];
const NAMES: &str = "util|utils|helper|helpers|common|manager|types|models|prelude";
const LONG: usize = 300;

/// One source file: its crate's directory, its path below that, and its text. `code` is the text
/// with comments and literals blanked; `product` is the code without tests.
struct Source {
    home: &'static str,
    path: String,
    text: String,
    code: String,
    product: String,
}

impl Source {
    /// `path` from the root of the repository.
    fn new(path: &str, text: &str) -> Source {
        let home = HOMES.into_iter().find(|home| path.starts_with(home)).unwrap();
        let path = &path[home.len()..];
        let code = blank_literals(text);
        let product = if path.ends_with("tests.rs") {
            blank(&code)
        } else {
            blank_items(&code, r"#\[cfg\(test\)\]")
        };
        Source { home, path: path.into(), text: text.into(), code, product }
    }

    fn room(&self) -> &str {
        self.path.split(['/', '.']).next().unwrap()
    }

    fn in_room(&self, rooms: &[&str]) -> bool {
        rooms.iter().any(|room| self.path.starts_with(room))
    }
}

fn re(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

/// Blanks with the same number of bytes, so that an offset in the code is an offset in the text.
fn blank(text: &str) -> String {
    text.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }).collect()
}

/// Comments, strings and characters become blanks; lines stay where they are.
fn blank_literals(text: &str) -> String {
    let token = re(
        r####"(?s)//[^\n]*|/\*.*?\*/|b?r###".*?"###|b?r##".*?"##|b?r#".*?"#|b?r".*?"|b?"(?:\\.|[^"\\])*"|b?'(?:\\[^\n]{1,8}?|[^'\\\n])'"####,
    );
    token.replace_all(text, |found: &regex::Captures| blank(&found[0])).into_owned()
}

/// Blanks each item that begins with `opening`, to the end of its braces. An item without braces
/// ends at its semicolon.
fn blank_items(code: &str, opening: &str) -> String {
    let (opening, mut rest) = (re(opening), code.to_string());
    while let Some(start) = opening.find(&rest).map(|found| found.start()) {
        let (mut depth, mut end) = (0, rest.len());
        for (at, c) in rest[start..].char_indices() {
            depth += match c {
                '{' => 1,
                '}' => -1,
                _ => 0,
            };
            if depth == 0 && (c == '}' || c == ';') {
                end = start + at + 1;
                break;
            }
        }
        rest = format!("{}{}{}", &rest[..start], blank(&rest[start..end]), &rest[end..]);
    }
    rest
}

/// Files that their parent declares as `#[cfg(test)] mod name;` hold no product.
fn forget_test_files(sources: &mut [Source]) {
    let declared = re(
        r#"#\[cfg\(test\)\]\s*(?:#\[path = "(.*)\.rs"\]\s*)?(?:pub(?:\(\w+\))?\s+)?mod\s+(\w+);"#,
    );
    let of = |source: &Source| -> Vec<String> {
        let own = source
            .path
            .trim_end_matches("mod.rs")
            .trim_end_matches("lib.rs")
            .trim_end_matches(".rs");
        let room =
            if own.is_empty() || own.ends_with('/') { own.to_string() } else { format!("{own}/") };
        let beside = source
            .path
            .rsplit_once('/')
            .map_or(String::new(), |(directory, _)| format!("{directory}/"));
        let file = |found: regex::Captures| match found.get(1) {
            Some(path) => format!("{beside}{}", path.as_str()),
            None => format!("{room}{}", &found[2]),
        };
        declared.captures_iter(&source.text).map(file).collect()
    };
    let tests: Vec<String> = sources.iter().flat_map(of).collect();
    for source in sources {
        let name = source.path.trim_end_matches(".rs").trim_end_matches("/mod").to_string();
        if tests.iter().any(|test| name == *test || name.starts_with(&format!("{test}/"))) {
            source.product = blank(&source.code);
        }
    }
}

type Rule = fn(&Source) -> Vec<String>;
const RULES: [Rule; 10] =
    [head, purity, fence, safety, floors, panics, surface, queries, parsed, words];

fn broken(sources: &[Source]) -> Vec<String> {
    let of = |source: &Source| -> Vec<String> {
        let found = RULES.iter().flat_map(|rule| rule(source));
        found.map(|complaint| format!("{}{}: {complaint}", source.home, source.path)).collect()
    };
    sources.iter().flat_map(of).collect()
}

fn matches(source: &str, pattern: &str, why: &str) -> Vec<String> {
    let pattern = re(pattern);
    let lines = source.lines().enumerate().filter(|(_, line)| pattern.is_match(line));
    lines.map(|(at, line)| format!("line {}: {why}: {}", at + 1, line.trim())).collect()
}

fn head(source: &Source) -> Vec<String> {
    let lines = source.text.lines().skip_while(|line| line.starts_with("#![") || line.is_empty());
    match lines.take_while(|line| line.starts_with("//!")).count() {
        2..=5 => vec![],
        count => vec![format!("opens with {count} lines of //!, not two to five")],
    }
}

fn purity(source: &Source) -> Vec<String> {
    if source.home == PURE {
        matches(&source.code, r"\b(pgrx|unsafe)\b", "a pure room names it")
    } else {
        vec![]
    }
}

fn fence(source: &Source) -> Vec<String> {
    if source.in_room(&UNSAFE) {
        vec![]
    } else {
        matches(&source.code, r"\bunsafe\b", "unsafe here")
    }
}

/// `// SAFETY:` must stand in the three lines above, or in the comment and attributes directly
/// above. For an unsafe fn, `/// # Safety` will do.
fn safety(source: &Source) -> Vec<String> {
    let lines: Vec<&str> = source.text.lines().collect();
    let unsafe_starts = re(r#"\bunsafe\s*(\{|impl\b|fn\s+\w|extern\s*\{|$)"#);
    let says = |line: &&str| line.contains("// SAFETY:") || line.trim() == "/// # Safety";
    let aside = |line: &&&str| line.trim().starts_with("//") || line.trim().starts_with('#');
    let above = |at: usize| {
        let mut up = lines[..at].iter().rev().copied();
        up.clone().take(3).any(|line| says(&line))
            || up.by_ref().take_while(|line| aside(&line)).any(|line| says(&line))
    };
    let starts = source.code.lines().enumerate().filter(|(_, line)| unsafe_starts.is_match(line));
    let silent = starts.filter(|(at, _)| !above(*at) && !lines[*at].contains("// SAFETY:"));
    silent.map(|(at, _)| format!("line {}: unsafe without // SAFETY:", at + 1)).collect()
}

fn floor(room: &str) -> Option<usize> {
    FLOORS.iter().position(|rooms| rooms.contains(&room))
}

/// Rooms named as `crate::room` or `use crate::{room::…, room}`.
fn named_rooms(code: &str) -> Vec<String> {
    let mut rooms: Vec<String> =
        re(r"\bcrate::(\w+)").captures_iter(code).map(|found| found[1].to_string()).collect();
    for group in re(r"\bcrate::\{").find_iter(code) {
        let (mut depth, mut name) = (1, String::new());
        for c in code[group.end()..].chars() {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            if depth == 1 && c != '}' && c != ',' {
                name.push(c);
            }
            if depth == 0 || (depth == 1 && c == ',') {
                rooms.push(name.trim().split("::").next().unwrap().to_string());
                name.clear();
            }
            if depth == 0 {
                break;
            }
        }
    }
    rooms.retain(|room| !room.is_empty());
    rooms
}

fn floors(source: &Source) -> Vec<String> {
    let Some(own) = floor(source.room()) else {
        return vec![format!("room {} is on no floor", source.room())];
    };
    let mut complaints =
        matches(&source.product, r"\bsuper::super::", "climbs out of its room: say crate::");
    if !source.path.contains('/') || source.path.ends_with("/mod.rs") {
        // within an inline module super:: is the file itself
        let flat = blank_items(&source.product, r"\bmod\s+\w+\s*\{");
        complaints.extend(matches(&flat, r"\bsuper::", "climbs out of its room: say crate::"));
    }
    // api leads: it alone may call rooms of its own floor
    let leads = usize::from(source.room() == "api");
    let allowed = |room: &String| {
        room == source.room() || floor(room).is_some_and(|other| other < own + leads)
    };
    let upward = named_rooms(&source.product).into_iter().filter(|room| !allowed(room));
    complaints.extend(upward.map(|room| format!("crate::{room} is not on a lower floor")));
    complaints
}

fn panics(source: &Source) -> Vec<String> {
    let words = r"\.unwrap\(\)|\b(panic|println|eprintln|print|eprint|dbg|todo|unimplemented)!";
    matches(&source.product, words, "not outside tests")
}

/// `#[pg_extern` lives in api/ alone, and every function there says what it does.
fn surface(source: &Source) -> Vec<String> {
    if !source.in_room(&["api/"]) {
        return matches(&source.code, r"#\[pg_extern", "only api/ has functions of SQL");
    }
    let lines: Vec<&str> = source.text.lines().collect();
    let function = re(r"^\s*(pub(\([^)]*\))?\s+)?(const\s+|async\s+)*fn\s+\w");
    let documented = |at: usize| {
        let ends = |line: &&&str| line.trim().is_empty() || line.ends_with(['}', ';', '{']);
        lines[..at]
            .iter()
            .rev()
            .take_while(|line| !ends(line))
            .any(|line| line.trim().starts_with("///"))
    };
    // methods of a trait are documented there
    let own = blank_items(&source.product, r"\bimpl\b[^{;]*\bfor\b[^{;]*\{");
    let functions = own.lines().enumerate().filter(|(_, line)| function.is_match(line));
    let silent = functions.filter(|(at, _)| !documented(*at));
    silent.map(|(at, line)| format!("line {}: no doc comment: {}", at + 1, line.trim())).collect()
}

/// SQL and SPI live in store/ alone; SQL there is a const.
fn queries(source: &Source) -> Vec<String> {
    let store = source.in_room(&["store/"]);
    let mut complaints = if store {
        vec![]
    } else {
        matches(&source.product, r"\bSpi::", "only store/ speaks to SPI")
    };
    let statement = re(
        r#"(?s)"\s*(SELECT\s|INSERT\s+INTO\s|UPDATE\s+\S+\s+SET\s|DELETE\s+FROM\s|WITH\s+\w+\s+AS\s)"#,
    );
    for found in statement.find_iter(&source.text) {
        let line = source.text[..found.start()].lines().count();
        let is_code = |at: &str| !at.trim().is_empty();
        let before = &source.product[..found.start()];
        let item = before.rsplit([';', '}', '{']).next().unwrap();
        // blanked tests and comments leave nothing before the literal
        if is_code(item) && !(store && re(r"\b(const|static)\b|\bconcat!").is_match(item)) {
            complaints.push(format!("line {line}: SQL is a const in store/"));
        }
    }
    complaints
}

/// Types of the room `input` are made without parsing only from values of our own columns.
fn parsed(source: &Source) -> Vec<String> {
    if source.in_room(&["store/"]) {
        vec![]
    } else {
        matches(&source.product, r"::stored\b", "only store/ takes what was parsed before")
    }
}

fn words(source: &Source) -> Vec<String> {
    let mut complaints =
        matches(&source.code, &format!(r"\bmod\s+({NAMES})\b"), "a name that says nothing");
    if re(&format!(r"(^|/)({NAMES})(\.rs$|/)")).is_match(&source.path) {
        complaints.push("a name that says nothing".into());
    }
    complaints
}

/// Types that may have a name twice, each with its reason: none at present.
const TWICE: &[(&str, &str)] = &[];

/// Types with the name of another type, in either crate. One name for two things confuses the
/// reader. Tests may use any names.
fn doubles(sources: &[Source]) -> Vec<String> {
    let declared =
        re(r"(?m)^\s*(?:pub(?:\([^)]*\))?\s+)?(?:unsafe\s+)?(?:struct|enum|union|trait)\s+(\w+)");
    // without an equals sign it is a trait's own
    let alias = re(r"(?m)^\s*(?:pub(?:\([^)]*\))?\s+)?type\s+(\w+)[^;=]*=");
    let listed = re(r"\bwords!\s*\{\s*(\w+)\s*\{");
    let (ids, id) = (re(r"\bids!\s*\{[\s\w]*\}"), re(r"\b([A-Z]\w*)"));
    let mut places: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for source in sources {
        let code = blank_items(&source.product, r"(?m)^\s*(unsafe\s+)?impl\b[^{;]*\{");
        let in_code = [&declared, &alias, &listed].into_iter().map(|kind| (kind, code.as_str()));
        let in_lists = ids.find_iter(&code).map(|list| (&id, list.as_str()));
        let names = in_code.chain(in_lists).flat_map(|(kind, text)| kind.captures_iter(text));
        for name in names {
            let place = format!("{}{}", source.home, source.path);
            places.entry(name[1].to_string()).or_default().push(place);
        }
    }
    places.retain(|name, places| places.len() > 1 && !TWICE.iter().any(|(may, _)| may == name));
    let complaint = |(name, places): (&String, &Vec<String>)| {
        format!("{}: a type {name} is there {} times", places.join(", "), places.len())
    };
    places.iter().map(complaint).collect()
}

fn sql_head(path: &str, text: &str) -> Vec<String> {
    if text.starts_with("-- ") {
        vec![]
    } else {
        vec![format!("sql/{path}: opens without a comment")]
    }
}

/// Every file under `directory` with this ending, as (path below it, text).
fn files(directory: &Path, below: &str, ending: &str) -> Vec<(String, String)> {
    let mut found = vec![];
    for entry in std::fs::read_dir(directory).into_iter().flatten().map(Result::unwrap) {
        let name = format!("{below}{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            found.extend(files(&entry.path(), &format!("{name}/"), ending));
        } else if name.ends_with(ending) {
            found.push((name, std::fs::read_to_string(entry.path()).unwrap()));
        }
    }
    found.sort();
    found
}

/// Runs `scripts/rooms.py` at `root`. Answers its drawing, and whether it found no fault: no arrow
/// that points up, no circle among the rooms or among the files of one room.
fn drawing(root: &Path) -> (String, bool) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/rooms.py");
    let drawn = Command::new("python3").arg(script).current_dir(root).output();
    let drawn = drawn.expect("python3 is missing: scripts/rooms.py, which finds circles, needs it");
    let text = [drawn.stdout, drawn.stderr].concat();
    (String::from_utf8_lossy(&text).into_owned(), drawn.status.success())
}

#[test]
fn no_circle_and_no_arrow_up() {
    let (drawn, is_right) = drawing(Path::new(env!("CARGO_MANIFEST_DIR")));
    assert!(is_right && drawn.contains(" 0 wrong"), "{drawn}");
    for room in FLOORS.concat() {
        assert!(drawn.contains(&format!(" {room} ")), "{room} is not drawn:\n{drawn}");
    }
}

#[test]
fn the_house_keeps_its_rules() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources = HOMES.into_iter().flat_map(|home| files(&root.join(home), home, ".rs"));
    let mut sources: Vec<Source> = sources.map(|(path, text)| Source::new(&path, &text)).collect();
    assert!(HOMES.iter().all(|home| sources.iter().any(|source| source.home == *home)));
    for source in &sources {
        let lines = source.text.lines().count();
        if lines > LONG {
            println!("warning: {}{} has {lines} lines: stop and think", source.home, source.path);
        }
    }
    forget_test_files(&mut sources);
    let mut complaints = broken(&sources);
    complaints.extend(doubles(&sources));
    complaints.extend(
        files(&root.join("sql"), "", ".sql").iter().flat_map(|(path, text)| sql_head(path, text)),
    );
    assert!(complaints.is_empty(), "{} rules broken:\n{}", complaints.len(), complaints.join("\n"));
}

#[test]
fn comments_are_plain_english() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let texts = [("core/", ".rs"), ("src/", ".rs"), ("sql/", ".sql"), ("tests/", ".rs")];
    let texts = texts.into_iter().flat_map(|(home, end)| files(&root.join(home), home, end));
    let complaints: Vec<String> = texts
        .flat_map(|(path, text)| {
            let code = path.starts_with("core/") || path.starts_with("src/");
            prose::prose(&path, &text, code)
        })
        .collect();
    assert!(complaints.is_empty(), "{} faults:\n{}", complaints.len(), complaints.join("\n"));
}
