//! Labels: names that say "a key follows", whatever its shape: headers, settings, parameters of
//! addresses. From the generic rules of `core/formats/leak_formats.json`.

/// The labels, each with its words. `Label` says what may stand between them.
pub(in crate::redact) const LABELS: &[Label] = &[
    Label { words: &["api", "key"] },
    Label { words: &["secret", "key"] },
    Label { words: &["access", "token"] },
    Label { words: &["access", "key"] },
    Label { words: &["auth", "token"] },
    Label { words: &["api", "token"] },
    Label { words: &["client", "secret"] },
    Label { words: &["subscription", "key"] },
    Label { words: &["helicone", "auth"] },
    Label { words: &["authorization"] },
    Label { words: &["bearer"] },
];

/// A label: words in any case, joined by nothing, `_`, `-`, a dot or a blank.
pub(in crate::redact) struct Label {
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
