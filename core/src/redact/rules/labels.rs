//! Labels: names that say "a key follows", whatever its shape: headers, settings, parameters of
//! addresses. From the generic rules of `core/formats/leak_formats.json`.

/// The labels, each with its words. `Label` says what may stand between them.
pub(in crate::redact) const LABELS: &[KeyLabel] = &[
    KeyLabel { words: &["api", "key"] },
    KeyLabel { words: &["secret", "key"] },
    KeyLabel { words: &["access", "token"] },
    KeyLabel { words: &["access", "key"] },
    KeyLabel { words: &["auth", "token"] },
    KeyLabel { words: &["api", "token"] },
    KeyLabel { words: &["client", "secret"] },
    KeyLabel { words: &["subscription", "key"] },
    KeyLabel { words: &["helicone", "auth"] },
    KeyLabel { words: &["authorization"] },
    KeyLabel { words: &["bearer"] },
];

/// A label: words in any case, joined by nothing, `_`, `-`, a dot or a blank.
pub(in crate::redact) struct KeyLabel {
    pub words: &'static [&'static str],
}

/// What may follow a label's name while it still names the key itself: `OPENAI_API_KEY_PROD`.
pub(in crate::redact) const SUFFIXES: &[&str] = &[
    "s",
    "_prod",
    "_production",
    "_dev",
    "_development",
    "_test",
    "_staging",
    "_live",
    "_value",
    "_primary",
    "_secondary",
    "_main",
    "_backup",
    "_old",
    "_new",
    "_current",
    "-header",
    "_header",
];

/// Schemes that may stand between a header's name and the credential (RFC 9110 §11.4).
pub(in crate::redact) const SCHEMES: &[&str] =
    &["bearer", "token", "basic", "api-key", "apikey", "key", "digest"];

/// Parameters of an address that hold a key; longer names first.
pub(in crate::redact) const PARAMETERS: &[&str] =
    &["access_token", "api_key", "api-key", "apikey", "token", "auth", "key", "sig"];
