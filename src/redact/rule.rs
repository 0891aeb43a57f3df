//! What a rule is: a shape of a key, as data that carry their own proof (texts it must and must not match).
//! Nothing is matched here; `scan` does that. The habit is from gitleaks and kingfisher.

/// A shape of a key.
pub(super) struct Rule {
    /// The slug of the one provider whose keys look like this; none where several share the shape.
    pub provider: Option<&'static str>,
    /// What kind of key, for findings.
    pub kind: &'static str,
    /// The fixed text a key begins with, as a regular expression: where to look at all.
    pub start: &'static str,
    /// The whole shape, from `start` on: group 1 is the public prefix that stays, the rest is the least that
    /// makes it a key. Repetitions are bounded, so that looking at one place costs a bounded time.
    pub shape: &'static str,
    /// Which characters after the shape still belong to the key.
    pub run: Run,
    /// Whether a key may stand in the middle of a word.
    pub edge: Edge,
    /// What else must hold.
    pub proof: Proof,
    /// Texts that hold a key of this rule. `<60>` stands for 60 sequential letters and digits, `<hex 32>` and
    /// `<low 48>` for 32 hexadecimal digits and 48 lower-case ones, so that no file of ours looks like a leak.
    #[cfg_attr(not(test), expect(dead_code, reason = "a rule's own proof, read by its test"))]
    pub must_match: &'static [&'static str],
    /// Texts that look like it and hold no key.
    #[cfg_attr(not(test), expect(dead_code, reason = "a rule's own proof, read by its test"))]
    pub must_not_match: &'static [&'static str],
}

/// The characters that continue a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Run {
    /// Letters, digits, `-` and `_`: the alphabet of base64url.
    Word,
    /// That and the dots between the parts of a JSON web token (RFC 7515 §3.1). Its header is in the shape; the
    /// rest, of any length, is run: asking for it in the shape would cost a scan of the text at each place.
    Token,
    /// What RFC 6750 §2.1 allows after "Bearer", and base64.
    Bearer,
}

impl Run {
    /// Tells whether this byte continues the key. All are ASCII, so a run ends at a character boundary.
    pub fn continues(self, byte: u8) -> bool {
        let word = byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        match self {
            Self::Word => word,
            Self::Token => word || byte == b'.',
            Self::Bearer => word || matches!(byte, b'.' | b'~' | b'+' | b'/' | b'='),
        }
    }
}

/// What may stand beside a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Edge {
    /// Anything: the prefix is distinctive enough.
    Any,
    /// No word character before it: `sk-` is also the end of `task-`.
    Left,
    /// None after the shape either: it is made of letters alone, as names are.
    Both,
}

/// What a key must have beyond its shape.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nothing.
    Shape,
    /// A digit within the secret part.
    Digit,
    /// A digit within the secret part, or both cases.
    Mixed,
    /// Mixed, over 16 characters without a hyphen: not a name made of words.
    MixedRun,
}

impl Proof {
    /// Judges the secret part (or its first few hundred bytes). Only ever asks for more of something, so that
    /// what was refused once is not accepted after the text beside it has been masked.
    pub fn holds(self, secret: &str) -> bool {
        match self {
            Self::Shape => true,
            Self::Digit => secret.bytes().any(|byte| byte.is_ascii_digit()),
            Self::Mixed => classes(secret) >= 2,
            Self::MixedRun => {
                let mixed = |part: &str| part.len() >= 16 && classes(part) >= 2;
                // Siliconflow's keys are 48 lower-case letters: no name has so many without a hyphen.
                secret.split('-').any(|part| mixed(part) || part.len() >= 40)
            }
        }
    }
}

/// Counts which of lower case, upper case and digits there are.
fn classes(text: &str) -> usize {
    let has = |class: fn(&u8) -> bool| usize::from(text.bytes().any(|byte| class(&byte)));
    has(u8::is_ascii_lowercase) + has(u8::is_ascii_uppercase) + has(u8::is_ascii_digit)
}
