//! Tests the documentation against the product: the reference against the catalog and the sources,
//! SQL blocks on real servers, every link and anchor, the sizes of pages. `proofs` shows that a
//! page can break every check.

// A failed expectation here is a failed test.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

// The harness of the cluster tests offers more than this file uses.
#[allow(dead_code)]
#[path = "cluster/commands.rs"]
mod commands;
#[allow(dead_code)]
#[path = "cluster/server.rs"]
mod server;
#[path = "cluster/template.rs"]
mod template;

#[path = "docs/anchors.rs"]
mod anchors;
#[path = "docs/blocks.rs"]
mod blocks;
#[path = "docs/catalog.rs"]
mod catalog;
#[path = "docs/limits.rs"]
mod limits;
#[path = "docs/page.rs"]
mod page;
#[path = "docs/proofs.rs"]
mod proofs;
#[path = "docs/reference.rs"]
mod reference;
#[path = "docs/reference_proofs.rs"]
mod reference_proofs;
#[path = "docs/sources.rs"]
mod sources;

use page::Page;
use regex::Regex;
use std::path::Path;
use walk::{files, read};

/// Pages that must be there. The SQL blocks of all pages run on a server.
const WANTED: [&str; 9] = [
    "README.md",
    "CONTRIBUTING.md",
    "docs/install.md",
    "docs/app.md",
    "docs/watch.md",
    "docs/operations.md",
    "docs/security.md",
    "docs/reference.md",
    "docs/architecture.md",
];

pub(crate) fn re(pattern: &str) -> Regex {
    Regex::new(pattern).unwrap()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README, CONTRIBUTING and so on, and every page below docs/.
fn pages() -> Vec<Page> {
    let is_page =
        |path: &String| path.ends_with(".md") && (!path.contains('/') || path.starts_with("docs/"));
    let found: Vec<Page> =
        files(root()).into_iter().filter(is_page).map(|path| read(root(), &path)).collect();
    for wanted in WANTED {
        assert!(found.iter().any(|page| page.path == wanted), "{wanted} is not there");
    }
    found
}

#[track_caller]
fn none(complaints: Vec<String>) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn pages_stay_within_their_limits() {
    none(pages().iter().flat_map(limits::broken).collect());
}

#[test]
fn every_link_and_anchor_is_there() {
    let (pages, texts) = (pages(), walk::texts(root()));
    let exists = |path: &str| root().join(path).exists();
    assert!(texts.len() > 100, "only {} files were read", texts.len());
    none(anchors::broken(&pages, &texts, &exists));
}

#[test]
fn the_reference_names_what_is_there_and_nothing_else() {
    let server = server::Server::with_vault();
    let page = read(root(), "docs/reference.md");
    let mut complaints = reference::against_catalog(&page, &catalog::Catalog::read(&server));
    complaints.extend(reference::against_sources(&page, &sources::Sources::read(root())));
    none(complaints);
}

#[test]
fn sql_blocks_run_as_they_are_written() {
    let pages = pages();
    none(std::thread::scope(|scope| {
        let runs: Vec<_> = pages.iter().map(|page| scope.spawn(|| blocks::run(page))).collect();
        runs.into_iter().flat_map(|run| run.join().unwrap()).collect()
    }));
}

/// Which files there are, and what is in them.
mod walk {
    use super::Page;
    use std::fs;
    use std::path::Path;

    const ROOMS: [&str; 9] =
        ["src", "core", "sql", "tests", "scripts", "docs", "examples", "bench", ".ci"];

    /// Files at the root and in our rooms, by their path from the root; nothing that was built.
    pub(crate) fn files(root: &Path) -> Vec<String> {
        let mut found = Vec::new();
        let mut open = vec![String::new()];
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(root.join(&directory)).unwrap().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let path =
                    if directory.is_empty() { name.clone() } else { format!("{directory}/{name}") };
                match entry.file_type().unwrap() {
                    kind if kind.is_file() => found.push(path),
                    kind if kind.is_dir() && is_ours(&directory, &name) => open.push(path),
                    _ => {}
                }
            }
        }
        found.sort();
        found
    }

    fn is_ours(directory: &str, name: &str) -> bool {
        if directory.is_empty() {
            ROOMS.contains(&name)
        } else {
            !["target", "node_modules"].contains(&name)
        }
    }

    pub(crate) fn read(root: &Path, path: &str) -> Page {
        let bytes = fs::read(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        Page { path: path.into(), text: String::from_utf8_lossy(&bytes).into_owned() }
    }

    /// Every text that may name a page of the documentation; these tests name pages as they are
    /// judged.
    pub(crate) fn texts(root: &Path) -> Vec<Page> {
        let is_read = |path: &&String| !path.ends_with(".lock") && !path.starts_with("tests/docs");
        files(root).iter().filter(is_read).map(|path| read(root, path)).collect()
    }
}
