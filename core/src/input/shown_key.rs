//! A key that lies in a text, as it may be shown: what is public of it, and a mask for the rest.
//! Whoever shows a key that was found takes this type.

use crate::redact::{self, Finding};
use crate::trail::Shown;

/// A key without its secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownKey(String);

impl ShownKey {
    /// Masks a piece of a text that is a key. Where no rule knows which part is public, nothing of
    /// it is shown.
    pub fn of(piece: &str) -> ShownKey {
        let masked = redact::redact(piece);
        ShownKey(if masked == piece { redact::MASK.to_owned() } else { masked.into_owned() })
    }

    /// Masks what was found in a text. If an extra pattern found it, all of it is masked: nobody
    /// knows which part is public.
    pub fn found(text: &str, finding: &Finding) -> ShownKey {
        if finding.kind == redact::EXTRA_KEY {
            return ShownKey(redact::MASK.to_owned());
        }
        ShownKey::of(&text[finding.start..finding.end])
    }

    /// Hands out what may be shown.
    pub fn into_string(self) -> String {
        self.0
    }
}

impl Shown for ShownKey {
    fn shown(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::examples::expand;

    #[test]
    fn only_what_a_rule_knows_to_be_public_is_shown() {
        let key = expand("sk-proj-<60>");
        assert_eq!(ShownKey::of(&key).shown(), "sk-proj-...[REDACTED]");
        assert_eq!(ShownKey::of("not-a-key-of-any-shape").shown(), redact::MASK);
        let text = format!("key: {key}.");
        let finding = redact::all_findings(&text, None).into_iter().next().unwrap();
        assert_eq!(ShownKey::found(&text, &finding), ShownKey::of(&key));
    }
}
