//! A page of Markdown as GitHub reads it: headings, their anchors, fenced blocks, links, rows of
//! tables. It knows nothing about the subjects of the pages.

use std::collections::HashMap;

use crate::re;

pub(crate) struct Page {
    /// From the root of the repository, such as `docs/app.md`.
    pub(crate) path: String,
    pub(crate) text: String,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Heading {
    pub(crate) level: usize,
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// A fenced block; `line` is that of its opening fence, from 1.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) info: String,
    pub(crate) lines: Vec<String>,
    pub(crate) line: usize,
    pub(crate) is_closed: bool,
}

impl Page {
    /// The blocks, and the lines of the page with those inside blocks left empty.
    fn split(&self) -> (Vec<Block>, Vec<&str>) {
        let (mut blocks, mut outside): (Vec<Block>, Vec<&str>) = (vec![], vec![]);
        let mut fence: Option<(usize, String)> = None; // the fence's indent, and what closes it
        for (at, line) in self.text.lines().enumerate() {
            let trimmed = line.trim_start();
            match &fence {
                Some((_, closing)) if trimmed.trim_end() == *closing => {
                    blocks.last_mut().unwrap().is_closed = true;
                    fence = None;
                }
                Some((indent, _)) => {
                    let own = line.len().min(line.len() - trimmed.len()).min(*indent);
                    blocks.last_mut().unwrap().lines.push(line[own..].into());
                }
                None if trimmed.starts_with("```") => {
                    let ticks: String = trimmed.chars().take_while(|c| *c == '`').collect();
                    let info = trimmed[ticks.len()..].trim().to_string();
                    blocks.push(Block { info, lines: vec![], line: at + 1, is_closed: false });
                    fence = Some((line.len() - trimmed.len(), ticks));
                }
                None => {
                    outside.push(line);
                    continue;
                }
            }
            outside.push("");
        }
        (blocks, outside)
    }

    pub(crate) fn blocks(&self) -> Vec<Block> {
        self.split().0
    }

    /// Lines outside of fenced blocks with their numbers, from 1.
    pub(crate) fn prose(&self) -> Vec<(usize, &str)> {
        self.split().1.into_iter().enumerate().map(|(at, line)| (at + 1, line)).collect()
    }

    pub(crate) fn headings(&self) -> Vec<Heading> {
        let heading = re(r"^(#{1,6})\s+(.*?)\s*#*$");
        let of = |(line, text): (usize, &str)| {
            let found = heading.captures(text)?;
            Some(Heading { level: found[1].len(), text: plain(&found[2]), line })
        };
        self.prose().into_iter().filter_map(of).collect()
    }

    /// The targets of links into the page: GitHub's anchors of the headings, and those written as
    /// HTML.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let mut seen: HashMap<String, usize> = HashMap::new();
        let mut anchors: Vec<String> = Vec::new();
        for heading in self.headings() {
            let anchor = anchor(&heading.text);
            let before = *seen.entry(anchor.clone()).and_modify(|count| *count += 1).or_insert(0);
            anchors.push(if before == 0 { anchor } else { format!("{anchor}-{before}") });
        }
        let written = re(r#"<a (?:id|name)="([^"]+)""#);
        let prose = self.prose();
        let by_hand = prose
            .iter()
            .flat_map(|(_, line)| written.captures_iter(line).map(|found| found[1].to_string()));
        anchors.extend(by_hand);
        anchors
    }

    /// The text below a heading, up to the next of its level or a higher one. The heading itself is
    /// left out.
    pub(crate) fn below(&self, heading: &Heading) -> Page {
        let next = self
            .headings()
            .into_iter()
            .find(|next| next.line > heading.line && next.level <= heading.level);
        let end = next.map_or(usize::MAX, |next| next.line - 1);
        let lines =
            self.text.lines().enumerate().filter(|(at, _)| (heading.line..end).contains(at));
        let text = lines.map(|(_, line)| format!("{line}\n")).collect();
        Page { path: self.path.clone(), text }
    }

    /// The headings of the next level below one.
    pub(crate) fn children(&self, heading: &Heading) -> Vec<Heading> {
        let own = self.headings().into_iter().skip_while(|other| other.line <= heading.line);
        own.take_while(|other| other.level > heading.level)
            .filter(|other| other.level == heading.level + 1)
            .collect()
    }

    /// Rows of tables, cell by cell, without heads and rulers.
    pub(crate) fn rows(&self) -> Vec<Vec<String>> {
        let is_ruler =
            |line: &str| line.starts_with('|') && line.chars().all(|c| "|-: ".contains(c));
        let prose = self.prose();
        let is_head = |at: usize| prose.get(at + 1).is_some_and(|(_, next)| is_ruler(next));
        let rows = prose
            .iter()
            .enumerate()
            .filter(|(at, (_, line))| line.starts_with('|') && !is_ruler(line) && !is_head(*at));
        rows.map(|(_, (_, line))| cells(line)).collect()
    }

    /// Targets of links and images with their lines.
    pub(crate) fn links(&self) -> Vec<(usize, String)> {
        let (code, inline, named) =
            (re(r"`[^`]*`"), re(r"\]\(\s*<?([^)\s>]+)"), re(r"^\[[^\]]+\]:\s+(\S+)"));
        let mut found = Vec::new();
        for (at, line) in self.prose() {
            let line = code.replace_all(line, "``");
            let targets = inline.captures_iter(&line).chain(named.captures_iter(&line));
            found.extend(targets.map(|target| (at, target[1].to_string())));
        }
        found
    }
}

/// The cells of a table's row; `\|` is a bar within one.
fn cells(line: &str) -> Vec<String> {
    let line = line.replace("\\|", "\u{1}");
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(|cell| cell.trim().replace('\u{1}', "|")).collect()
}

/// A heading's text without its marks: code, emphasis, links.
fn plain(text: &str) -> String {
    let text = re(r"\[([^\]]*)\]\([^)]*\)").replace_all(text, "$1").into_owned();
    text.replace(['`', '*'], "")
}

/// GitHub's rule: small letters. Only letters, digits, `_`, `-` and spaces stay, and spaces become
/// `-`.
pub(crate) fn anchor(text: &str) -> String {
    let kept = text.to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || "_- ".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
