//! What may be shown of a key, so that people recognise it: its provider and a hint. The hint is
//! stored and displayed in clear. So it shows four characters of a long secret and none of a short
//! one (docs/architecture.md#crypto).

use super::finding::Finding;
use super::mask::findings;
use super::visible::visible;

/// The fewest characters of a secret part whose last four are shown. 28 stay unknown, which is over
/// 100 bits.
const LONG_ENOUGH: usize = 32;
const SHOWN: usize = 4;
/// The most bytes a hint takes. Four characters of four bytes leave 21 for the prefix.
const MAX_HINT: usize = 40;

/// Names the provider if the whole string has a shape that belongs to exactly one. Several share
/// plain `sk-`.
pub fn provider_of(key: &str) -> Option<&'static str> {
    whole(key)?.provider
}

/// Builds the hint: the public prefix and the last four characters (`sk-proj-…wxyz`). The last four
/// appear only if the secret part has at least 32. An unknown shape shows no prefix. Never more
/// than 40 bytes.
pub fn key_hint(key: &str) -> String {
    let (prefix, secret) = key.split_at(whole(key).map_or(0, |finding| finding.secret));
    let count = secret.chars().count();
    let shown = if count >= LONG_ENOUGH { SHOWN } else { 0 };
    let last = secret.chars().skip(count - shown).map(visible);
    // Prefixes have at most 20 bytes. A longer one in a later rule is left out, not cut.
    let prefix = if prefix.len() + "…".len() + SHOWN * 4 > MAX_HINT { "" } else { prefix };
    prefix.chars().map(visible).chain(['…']).chain(last).collect()
}

fn whole(key: &str) -> Option<Finding> {
    findings(key).next().filter(|finding| finding.start == 0 && finding.end == key.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::scan::examples::expand;

    #[test]
    fn a_long_key_shows_prefix_and_last_four() {
        for (key, hint) in [
            ("sk-proj-<74>wxyz", "sk-proj-…wxyz"),
            ("sk-ant-api03-<89>wxyzAA", "sk-ant-api03-…yzAA"),
            ("AIza<31>wxyz", "AIza…wxyz"),
            ("sk-<hex 28>beef", "sk-…beef"),
            ("<28>wxyz", "…wxyz"),
            ("<28>wx\n\0", "…wx??"),
        ] {
            assert_eq!(key_hint(&expand(key)), hint);
        }
    }

    #[test]
    fn a_short_key_shows_its_prefix_alone() {
        assert_eq!(key_hint(&expand("sk-proj-<31>")), "sk-proj-…");
        assert_eq!(key_hint("AKIAAAAABBBBCCCC2222"), "AKIA…");
        assert_eq!(key_hint(&expand("<31>")), "…");
        assert_eq!(key_hint("sk-proj-short"), "…");
        assert_eq!(key_hint(""), "…");
    }

    #[test]
    fn characters_count_and_not_bytes() {
        assert_eq!(key_hint(&"ü".repeat(31)), "…");
        assert_eq!(key_hint(&"𝄞".repeat(32)), "…𝄞𝄞𝄞𝄞");
        assert!(key_hint(&"𝄞".repeat(32)).len() <= MAX_HINT);
    }

    #[test]
    fn a_provider_is_named_only_for_a_shape_of_its_own() {
        for (key, provider) in [
            ("sk-proj-<74>", Some("openai")),
            ("sk-<20>T3BlbkFJ<20>", Some("openai")),
            ("sk-ant-api03-<93>AA", Some("anthropic")),
            ("sk-or-v1-<hex 64>", Some("openrouter")),
            ("xai-token-<80>", Some("xai")),
            ("fw_<low 40>", Some("fireworks")),
            ("sk-<48>", None),
            ("eyJ<20>.eyJ<40>.<43>", None),
            (" sk-proj-<74>", None),
            ("sk-proj-<74>\n", None),
            ("sk-proj-<74> AIza<35>", None),
            ("", None),
        ] {
            assert_eq!(provider_of(&expand(key)), provider, "{key}");
        }
    }
}
