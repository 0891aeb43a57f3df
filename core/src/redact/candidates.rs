//! Candidates: every part of a text that may be a whole key of any shape. They are the runs between
//! delimiters, and their parts behind the separators of headers, URLs and assignments. Each comes
//! as written, and without the escapes of URLs and JSON. The caller compares fingerprints, which
//! proves a match, so too many candidates do no harm.

/// Bytes of the shortest key that is looked for. Any text has too many shorter parts.
const SHORTEST: usize = 8;
/// Bytes of the longest key, and of the longest text that escaping may make of it.
const LONGEST: usize = 4096;
const LONGEST_WRITTEN: usize = 3 * LONGEST;
/// The most separators that are followed in one run. A URL or header has fewer.
const MOST_PARTS: usize = 64;

/// A text that may be a key, and its place in the text as written; offsets in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The key as it would be without escapes, 8 to 4,096 bytes.
    pub key: String,
    /// Where it begins in the text.
    pub start: usize,
    /// Where it ends there.
    pub end: usize,
}

/// Lists the candidates in the order of the runs. A piece with several spellings comes several
/// times.
pub fn candidates(text: &str) -> impl Iterator<Item = Candidate> + '_ {
    runs(text)
        .flat_map(|(start, run)| {
            parts(run).into_iter().map(move |(from, part)| (start + from, part))
        })
        .flat_map(|(start, part)| {
            let end = start + part.len();
            spellings(part).into_iter().map(move |key| Candidate { key, start, end })
        })
}

/// The runs between delimiters, each with its offset.
fn runs(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let delimits = |c: char| {
        c.is_whitespace()
            || c.is_control()
            || matches!(
                c,
                '"' | '\'' | '`' | '<' | '>' | '(' | ')' | '{' | '}' | '[' | ']' | ',' | ';' | '|'
            )
            || matches!(
                c,
                '“' | '”'
                    | '‘'
                    | '’'
                    | '„'
                    | '«'
                    | '»'
                    | '「'
                    | '」'
                    | '，'
                    | '。'
                    | '：'
                    | '；'
            )
    };
    text.split(delimits)
        .map(|run| (run.as_ptr() as usize - text.as_ptr() as usize, run))
        .filter(|(_, run)| (SHORTEST..=LONGEST_WRITTEN).contains(&run.len()))
}

/// The parts of a run: the run itself, the run without punctuation at its ends, and what stands
/// between or behind its separators.
fn parts(run: &str) -> Vec<(usize, &str)> {
    let mut parts = vec![(0, run), placed(run, bare(run))];
    add_separated(run, &mut parts);
    add_after_line_ends(run, &mut parts);
    parts.retain(|(_, part)| (SHORTEST..=LONGEST_WRITTEN).contains(&part.len()));
    parts.sort_unstable();
    parts.dedup();
    parts
}

/// The parts before, behind and between the separators of a run.
fn add_separated<'r>(run: &'r str, parts: &mut Vec<(usize, &'r str)>) {
    let mut add = |part| parts.push(placed(run, part));
    // `$` ends a text that SQL quotes with dollars. Two digits after `%` are an escaped separator.
    for (at, separator) in
        run.match_indices(['=', ':', '?', '&', '/', '@', '#', '%', '$']).take(MOST_PARTS)
    {
        let rest = &run[at + separator.len()..];
        let written = rest
            .as_bytes()
            .first_chunk::<2>()
            .is_some_and(|code| code.iter().all(u8::is_ascii_hexdigit));
        if separator == "%" && written {
            add(&rest[2..]);
            add(bare(&rest[2..]));
        }
        add(rest);
        add(bare(rest));
        let until = |ends: &[char]| &rest[..rest.find(ends).unwrap_or(rest.len())];
        add(until(&['&', '/', '@', '#', '?', ':', '=', '$']));
        add(until(&['&']));
        add(until(&['$']));
        add(&run[..at]);
    }
}

/// The parts behind a line end or tab that JSON or C escaped as `\n`, `\r` or `\t`. The key begins
/// after that letter.
fn add_after_line_ends<'r>(run: &'r str, parts: &mut Vec<(usize, &'r str)>) {
    let escaped = run.match_indices(['n', 'r', 't']).filter(|(at, _)| run[..*at].ends_with('\\'));
    for (at, _) in escaped.take(MOST_PARTS) {
        let rest = &run[at + 1..];
        parts.push(placed(run, rest));
        parts.push(placed(run, &rest[..rest.find('\\').unwrap_or(rest.len())]));
    }
}

/// The text without the punctuation at its ends.
fn bare(text: &str) -> &str {
    text.trim_matches(['.', ':', '!', '?', '\\', '*', '_'])
}

/// A part of `run`, with its offset there.
fn placed<'r>(run: &str, part: &'r str) -> (usize, &'r str) {
    (part.as_ptr() as usize - run.as_ptr() as usize, part)
}

/// The text as it stands, and without its escapes if it has any: those of URLs, of JSON, and of
/// JSON within JSON.
fn spellings(part: &str) -> Vec<String> {
    let mut spellings = vec![part.to_owned()];
    if part.contains('%') {
        spellings.extend(without_percent(part));
    }
    let mut json = part.to_owned();
    for _ in 0..2 {
        if !json.contains('\\') {
            break;
        }
        match serde_json::from_str::<String>(&format!("\"{json}\"")) {
            Ok(plain) => json = plain,
            Err(_) => break,
        }
        spellings.push(json.clone());
    }
    spellings.retain(|key| (SHORTEST..=LONGEST).contains(&key.len()));
    spellings
}

/// The text with its percent-encoding undone (RFC 3986 §2.1). None if there is none.
fn without_percent(part: &str) -> Option<String> {
    let bytes = part.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let code = part.get(at + 1..at + 3).filter(|_| bytes[at] == b'%');
        let byte = code.and_then(|code| u8::from_str_radix(code, 16).ok());
        plain.push(byte.unwrap_or(bytes[at]));
        at += if byte.is_some() { 3 } else { 1 };
    }
    String::from_utf8(plain).ok().filter(|plain| plain != part)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(text: &str, key: &str) -> bool {
        candidates(text).any(|candidate| {
            candidate.key == key && text.get(candidate.start..candidate.end).is_some()
        })
    }

    #[test]
    fn a_key_of_any_shape_is_among_the_candidates() {
        for key in [
            "plain-key-without-a-prefix",
            "with/slashes+plus==",
            "a1b2c3d4e5f6",
            "dots.and_more-1",
            "schlüssel-鍵-1",
        ] {
            for text in [
                key.to_owned(),
                format!("before {key} after"),
                format!("API_KEY={key}"),
                format!("api-key: {key}\r\n"),
                format!(r#"{{"key":"{key}"}}"#),
                format!("'{key}',"),
                format!("the key is {key}."),
                format!("Authorization: Bearer {key}"),
                format!("https://example.com/v1?key={key}&alt=json"),
                format!("curl -u user:{key} x"),
                format!("鍵は「{key}」です"),
                format!("`{key}`!"),
                format!("x-api-key:{key};q=1"),
                format!("SELECT $${key}$$"),
                format!("SELECT f($a1${key}$a1$)"),
                format!(r#"{{"log":"a line\n{key}\nanother\tword"}}"#),
                format!(r#"{{\"log\":\"a line\\n{key}\\r\\nanother\"}}"#),
            ] {
                assert!(finds(&text, key), "{text}");
            }
        }
    }

    #[test]
    fn escapes_of_urls_and_json_are_undone() {
        let key = "abc/def+ghi=12345";
        assert!(finds("?key=abc%2Fdef%2Bghi%3D12345&x=1", key));
        assert!(finds(r#"{"k":"abc\/def+ghi\u003d12345"}"#, key));
        assert!(finds("?next=%2Fcall%3Fkey%3Dabc%252Fdef", "abc%2Fdef"));
        assert!(finds("x%20abc%2Fdef%2Bghi%3D12345", key));
        assert!(finds(r#"{\"k\":\"abc\\/def\\u002bghi=12345\"}"#, key));
    }

    #[test]
    fn positions_are_those_of_the_text() {
        let text = "ü key=aaaaaaaa1 ";
        let found = candidates(text).find(|candidate| candidate.key == "aaaaaaaa1").unwrap();
        assert_eq!(&text[found.start..found.end], "aaaaaaaa1");
    }

    #[test]
    fn hostile_text_makes_a_bounded_number_of_candidates() {
        for text in [
            "=".repeat(1 << 20),
            "a=".repeat(1 << 19),
            "%41".repeat(1 << 18),
            "\\u0041".repeat(1 << 16),
        ] {
            let bytes: usize = candidates(&text).map(|candidate| candidate.key.len()).sum();
            assert!(bytes <= 64 * text.len(), "{bytes}");
        }
        let lines = "key=aaaaaaaa:bbbbbbbb/cccccccc\n".repeat(1000);
        assert!(candidates(&lines).count() < 20_000);
    }
}
