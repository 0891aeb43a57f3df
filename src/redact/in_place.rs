//! Keys in raw bytes, for the log hook: any bytes, no allocation, nothing that can fail. The text keeps its length.
//! Thin until the rules offer it themselves: prefixes and a least length.

use super::scan::Finding;

/// Whether the end of a text may have cut a key in two.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    Whole,
    Cut,
}

const STARTS: &[(&[u8], usize, &str)] = &[
    (b"sk-ant-", 20, "anthropic"),
    (b"sk-proj-", 20, "openai"),
    (b"sk-", 20, "openai"),
    (b"gsk_", 20, "groq"),
    (b"hf_", 20, "huggingface"),
    (b"AIza", 30, "google"),
    (b"xai-", 20, "xai"),
    (b"pplx-", 20, "perplexity"),
];
/// A key that was cut off counts from so many bytes.
const CUT: usize = 8;

fn next(bytes: &[u8], from: usize, ends: Ends) -> Option<Finding> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    for at in from..bytes.len() {
        let rest = &bytes[at..];
        if at > 0 && word(bytes[at - 1]) || !matches!(rest[0], b's' | b'g' | b'h' | b'A' | b'x' | b'p') {
            continue;
        }
        let Some((start, least, provider)) = STARTS.iter().find(|(start, ..)| rest.starts_with(start)) else {
            continue;
        };
        let length = rest.iter().take_while(|byte| word(**byte)).count();
        if length >= *least || (ends == Ends::Cut && length == rest.len() && length >= CUT) {
            let (secret, end) = (at + start.len(), at + length);
            return Some(Finding { provider: Some(provider), kind: "key", start: at, secret, end });
        }
    }
    None
}

/// Lists the keys in any bytes, in order, without overlap.
pub fn findings_in(bytes: &[u8], ends: Ends) -> impl Iterator<Item = Finding> + '_ {
    let mut from = 0;
    std::iter::from_fn(move || {
        let finding = next(bytes, from, ends)?;
        from = finding.end;
        Some(finding)
    })
}

/// Masks keys by as many `*`, in any bytes; says of each what it is before it is masked, and answers how many there were.
pub fn mask_each(text: &mut [u8], ends: Ends, found: &mut dyn FnMut(&Finding, &[u8])) -> usize {
    let (mut from, mut count) = (0, 0);
    while let Some(finding) = next(text, from, ends) {
        found(&finding, &text[finding.start..finding.end]);
        text[finding.secret..finding.end].fill(b'*');
        (from, count) = (finding.end, count + 1);
    }
    count
}
