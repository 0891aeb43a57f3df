//! Links between pages, and names of pages in any text of the repository. Each must lead to an
//! existing page and, if it names an anchor, to an existing heading.

use crate::page::Page;
use crate::re;

/// Links of `pages` and names of pages in `texts` that lead nowhere.
pub(crate) fn broken(pages: &[Page], texts: &[Page], exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut complaints: Vec<String> =
        pages.iter().flat_map(|page| links(page, pages, exists)).collect();
    complaints.extend(texts.iter().flat_map(|text| names(text, pages)));
    complaints.sort();
    complaints.dedup();
    complaints
}

fn links(page: &Page, pages: &[Page], exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let is_elsewhere = |target: &str| re(r"^[a-z][a-z0-9+.-]*:").is_match(target);
    let judge = |(line, target): (usize, String)| {
        if is_elsewhere(&target) {
            return None;
        }
        let (file, anchor) =
            target.split_once('#').map_or((target.as_str(), None), |(f, a)| (f, Some(a)));
        let path = if file.is_empty() { page.path.clone() } else { resolve(&page.path, file) };
        let is_there = pages.iter().any(|other| other.path == path) || exists(&path);
        let why = if is_there { missing(pages, &path, anchor)? } else { "is not there".into() };
        Some(format!("{}:{line}: {target}: {why}", page.path))
    };
    page.links().into_iter().filter_map(judge).collect()
}

/// Pages that comments, hints and scripts name, with or without an anchor.
fn names(text: &Page, pages: &[Page]) -> Vec<String> {
    let name = re(r"\bdocs/([A-Za-z0-9_/-]+\.md)(?:#([\p{L}\p{N}_-]+))?");
    let mut complaints = Vec::new();
    for (at, line) in text.text.lines().enumerate() {
        for found in name.captures_iter(line) {
            let path = format!("docs/{}", &found[1]);
            if let Some(why) = missing(pages, &path, found.get(2).map(|anchor| anchor.as_str())) {
                complaints.push(format!("{}:{}: {}: {why}", text.path, at + 1, &found[0]));
            }
        }
    }
    complaints
}

/// Why this target does not exist. None: it exists, or the file is no page and its anchors are
/// unknown.
fn missing(pages: &[Page], path: &str, anchor: Option<&str>) -> Option<String> {
    let Some(page) = pages.iter().find(|page| page.path == path) else {
        return path.ends_with(".md").then(|| "is not there".into());
    };
    let anchor = anchor?;
    let is_there = page.anchors().iter().any(|own| own == anchor);
    (!is_there).then(|| format!("{path} has no heading for it"))
}

/// A relative target as a path from the root.
fn resolve(from: &str, target: &str) -> String {
    let mut parts: Vec<&str> =
        if target.starts_with('/') { vec![] } else { from.split('/').collect() };
    parts.pop();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
