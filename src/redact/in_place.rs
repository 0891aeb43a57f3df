//! Keys in raw bytes, for the log hook: any bytes, no allocation, nothing that can fail. The text keeps its length.
//! Thin until the rules offer it themselves: prefixes and a least length.

/// A key in bytes: where it begins, where its secret part does, where it ends, and which rule says so.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    pub start: usize,
    pub secret: usize,
    pub end: usize,
    pub rule: u16,
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

/// The next key at or after `from`. `truncated`: the text may have been cut off, and a key with it.
pub fn next_run(bytes: &[u8], from: usize, truncated: bool) -> Option<Run> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let mut at = from;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let edge = at == 0 || !word(bytes[at - 1]);
        if edge && matches!(rest[0], b's' | b'g' | b'h' | b'A' | b'x' | b'p') {
            for (rule, (start, least, _)) in STARTS.iter().enumerate() {
                if rest.starts_with(start) {
                    let length = rest.iter().take_while(|byte| word(**byte)).count();
                    let cut = truncated && (length == rest.len() || rest[length..].starts_with(b"..."));
                    if length >= *least || (cut && length >= CUT) {
                        return Some(Run { start: at, secret: at + start.len(), end: at + length, rule: rule as u16 });
                    }
                }
            }
        }
        at += 1;
    }
    None
}

/// Provider and kind of a rule's keys.
pub fn rule_names(rule: u16) -> (Option<&'static str>, &'static str) {
    STARTS.get(rule as usize).map_or((None, "key"), |(_, _, provider)| (Some(provider), "key"))
}
