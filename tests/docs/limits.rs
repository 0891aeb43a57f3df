//! How long a page and its lines may be: a page is read in one sitting, a line without scrolling.
//! Exceptions are named here.

use crate::page::Page;
use crate::re;

const README: Limits = Limits { lines: 130, bytes: 8 * 1024, width: 120 };
const PAGE: Limits = Limits { lines: usize::MAX, bytes: 10 * 1024, width: 100 };
/// People look things up in these; they do not read them through.
const LONG: [&str; 2] = ["docs/reference.md", "docs/architecture.md"];

struct Limits {
    lines: usize,
    bytes: usize,
    width: usize,
}

pub(crate) fn broken(page: &Page) -> Vec<String> {
    let limits = match page.path.as_str() {
        "README.md" => README,
        path if LONG.contains(&path) => Limits { bytes: usize::MAX, ..PAGE },
        path if path.starts_with("docs/") || path == "CONTRIBUTING.md" => PAGE,
        _ => return vec![],
    };
    let mut complaints = Vec::new();
    let (lines, bytes) = (page.text.lines().count(), page.text.len());
    if lines > limits.lines {
        complaints.push(format!("{}: {lines} lines, at most {}", page.path, limits.lines));
    }
    if bytes > limits.bytes {
        complaints.push(format!("{}: {bytes} bytes, at most {}", page.path, limits.bytes));
    }
    let address = re(r"\]\([^)]*\)|https?://[^\s|)]+");
    for (at, line) in page.text.lines().enumerate() {
        let counted =
            if line.starts_with('|') { address.replace_all(line, "") } else { line.into() };
        let width = counted.chars().count();
        if width > limits.width {
            complaints.push(format!(
                "{}:{}: {width} characters, at most {}",
                page.path,
                at + 1,
                limits.width
            ));
        }
    }
    complaints
}
