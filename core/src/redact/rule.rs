//! A rule is the shape of a key, as data that carry their own proof: texts it must match and texts
//! it must not match. `scan` searches by it. gitleaks and kingfisher have the same habit.

use super::bytes::{
    self, ALNUM, BASE64, BEARER, Class, DIGIT, DOT, PERCENT, UNDERSCORE, UPPER, WORD,
};
pub(super) use super::proof::Proof;

/// A shape of a key that has a public prefix.
pub(super) struct Rule {
    /// The slug of the provider, if only one has this shape.
    pub provider: Option<&'static str>,
    /// What kind of key, for findings.
    pub kind: &'static str,
    /// The fixed texts such a key begins with, at least three bytes of ASCII. They stay visible.
    pub prefixes: &'static [&'static str],
    /// A further public part of the beginning.
    pub label: Label,
    /// The characters of the secret part, and how many of them make it a key. Real keys have more,
    /// but a text may be cut, and providers change lengths.
    pub body: Body,
    pub least: usize,
    /// Which further characters belong to the key. No particular end is required.
    pub run: Run,
    /// Whether a key may stand in the middle of a word.
    pub edge: Edge,
    /// A further condition on the secret part.
    pub proof: Proof,
    /// Texts that hold a key of this rule. `<60>` stands for 60 letters and digits, `<hex 32>` and
    /// `<low 48>` for hexadecimal digits and lower-case characters. So no file of this repository
    /// looks like a leak.
    #[cfg_attr(not(test), expect(dead_code, reason = "a rule's own proof, read by its test"))]
    pub must_match: &'static [&'static str],
    /// Texts that look like it and hold no key.
    #[cfg_attr(not(test), expect(dead_code, reason = "a rule's own proof, read by its test"))]
    pub must_not_match: &'static [&'static str],
}

/// A public part between prefix and secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    None,
    /// `api03-`: one of Anthropic's kinds and two digits. An unknown kind is not shown.
    Kind,
    /// `1-`: digits.
    Numbered,
}

const KINDS: [&str; 5] = ["api", "admin", "oat", "ort", "sid"];

impl Label {
    /// The length of the label at the beginning of `text`. None if it is not there.
    pub(super) fn length(self, text: &[u8]) -> Option<usize> {
        let text = &text[..text.len().min(16)];
        let kind = if self == Self::Kind {
            KINDS.iter().find(|kind| text.starts_with(kind.as_bytes()))
        } else {
            None
        };
        let letters = kind.map_or(0, |kind| kind.len());
        let digits = bytes::run_end(text, letters, DIGIT) - letters;
        let ends = text.get(letters + digits) == Some(&b'-');
        match self {
            Self::None => Some(0),
            Self::Kind if kind.is_some() && (2..=4).contains(&digits) && ends => {
                Some(letters + digits + 1)
            }
            Self::Kind => Some(0),
            Self::Numbered => ((1..=3).contains(&digits) && ends).then_some(digits + 1),
        }
    }
}

/// The characters that the first part of a secret is made of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Body {
    Of(Class),
    Hex,
    /// RFC 4648 §6: `A-Z 2-7`.
    Base32,
}

pub(super) const LETTERS_DIGITS: Body = Body::Of(ALNUM);
pub(super) const LOWER_DIGITS: Body = Body::Of(bytes::LOWER.and(DIGIT));
pub(super) const UNDERSCORED: Body = Body::Of(ALNUM.and(UNDERSCORE));
pub(super) const BASE64URL: Body = Body::Of(WORD);
pub(super) const DOTTED: Body = Body::Of(WORD.and(DOT));
pub(super) const BASE64_BODY: Body = Body::Of(ALNUM.and(BASE64));

impl Body {
    #[inline]
    pub(super) fn has(self, byte: u8) -> bool {
        match self {
            Self::Of(class) => class.has(byte),
            Self::Hex => byte.is_ascii_hexdigit(),
            Self::Base32 => UPPER.has(byte) || (b'2'..=b'7').contains(&byte),
        }
    }
}

/// The characters that continue a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// Letters, digits, `-` and `_`: the alphabet of base64url.
    Word,
    /// `Word` and dots.
    Dotted,
    /// What RFC 6750 §2.1 allows after "Bearer", and base64. Other formats may escape it.
    Bearer,
    /// `Bearer` and percent signs: a signed address.
    Address,
}

impl Run {
    pub(super) const fn class(self) -> Class {
        match self {
            Self::Word => WORD,
            Self::Dotted => WORD.and(DOT),
            Self::Bearer => BEARER,
            Self::Address => BEARER.and(PERCENT),
        }
    }
}

/// What may stand before a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// Anything: the prefix is distinctive enough.
    Any,
    /// No letter or digit: `sk-` is also the end of `task-`. The end of an escape does not count as
    /// a letter.
    Left,
}

#[cfg(test)]
mod tests {
    use super::Label;

    #[test]
    fn a_label_is_measured() {
        for (label, text, length) in [
            (Label::None, "x", Some(0)),
            (Label::Kind, "api03-x", Some(6)),
            (Label::Kind, "admin01-", Some(8)),
            (Label::Kind, "api-x", Some(0)),
            (Label::Kind, "other01-x", Some(0)),
            (Label::Kind, "api03", Some(0)),
            (Label::Numbered, "1-x", Some(2)),
            (Label::Numbered, "x-", None),
        ] {
            assert_eq!(label.length(text.as_bytes()), length, "{text}");
        }
    }
}
