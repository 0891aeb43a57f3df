//! Plain English: a sentence of a comment has at most 25 words, a line at most 100 characters. Only
//! a word in a string that cannot be broken may reach further.

use super::re;

const WORDS: usize = 25;
const COLUMNS: usize = 100;
/// Openings that make a reader begin again.
const RIDDLES: [&str; 3] = [r"^Of what\b", r"^As \w+ that\b", r"^What is\b.*\bis\b"];

/// Lines of one comment, joined, and the number of the first.
struct Comment {
    line: usize,
    text: String,
}

/// The faults of a file's comments. With `code`, long lines of code are faults too.
pub(super) fn prose(path: &str, text: &str, code: bool) -> Vec<String> {
    let comments = comments(path, text);
    let mut complaints: Vec<String> = comments.iter().flat_map(sentences).collect();
    for (at, line) in text.lines().enumerate() {
        let is_comment = line.trim_start().starts_with(mark(path));
        if line.chars().count() > COLUMNS && (is_comment || code && breaks(line)) {
            complaints.push(format!("line {}: over {COLUMNS} characters", at + 1));
        }
    }
    complaints.into_iter().map(|complaint| format!("{path}: {complaint}")).collect()
}

fn mark(path: &str) -> &'static str {
    if path.ends_with(".sql") { "--" } else { "//" }
}

/// Comments on lines of their own, and those behind code. An empty comment line ends a comment.
fn comments(path: &str, text: &str) -> Vec<Comment> {
    let own = re(&format!(r"^\s*{}[/!]?\s?(.*)$", mark(path)));
    let behind = re(&format!(r#"^[^"']*[;,{{}})\]]\s+{}\s(.*)$"#, mark(path)));
    let (mut found, mut open, mut fenced) = (Vec::<Comment>::new(), false, false);
    for (at, line) in text.lines().enumerate() {
        let own = own.captures(line).map(|parts| parts[1].trim().to_owned());
        fenced ^= own.as_deref().is_some_and(|text| text.starts_with("```"));
        match own {
            Some(text) if text.is_empty() || fenced || text.starts_with("```") => open = false,
            Some(text) if open && !text.starts_with("- ") => {
                if let Some(last) = found.last_mut() {
                    last.text = format!("{} {text}", last.text);
                }
            }
            Some(text) => {
                open = true;
                found.push(Comment { line: at + 1, text });
            }
            None => {
                open = false;
                let behind = behind.captures(line).map(|parts| parts[1].to_owned());
                found.extend(behind.map(|text| Comment { line: at + 1, text }));
            }
        }
    }
    found
}

/// A sentence ends at `.`, `?`, `!`, `:` or `;` before a blank.
fn sentences(comment: &Comment) -> Vec<String> {
    let text = re(r"([.?!:;])\s").replace_all(&comment.text, "$1\n");
    let mut complaints = vec![];
    for sentence in text.lines() {
        let words = sentence.split_whitespace().count();
        if words > WORDS {
            complaints.push(format!("line {}: {words} words: {sentence}", comment.line));
        }
        if RIDDLES.iter().any(|riddle| re(riddle).is_match(sentence)) {
            complaints.push(format!("line {}: say who does what: {sentence}", comment.line));
        }
    }
    complaints
}

/// Whether a long line can be broken: it holds no word, or raw string, that is too long by itself.
fn breaks(line: &str) -> bool {
    let indent = line.len() - line.trim_start().len();
    let longest = line.split_whitespace().map(|word| word.chars().count()).max().unwrap_or(0);
    !re(r##"\br#*""##).is_match(line) && indent + longest < COLUMNS
}
