//! Keys without a prefix: the shape alone says nothing, but near the provider's name it is a key.
//! The words are those of `core/formats/leak_formats.json`, the windows those of the scanners it
//! names. A text that is called a hash or an id is not masked.

/// A provider whose keys are recognised by its name before them.
pub(in crate::redact) struct NamedProvider {
    pub provider: &'static str,
    pub kind: &'static str,
    /// Lower-case names; at least three bytes, matched in any case.
    pub words: &'static [&'static str],
    /// How many bytes may lie between the name and the key.
    pub window: usize,
    pub shape: Shape,
}

/// The shape of such a key.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::redact) enum Shape {
    /// At least so many letters and digits, in both cases.
    LettersDigits(usize),
    /// At least so many lower-case letters and digits, one of them beyond `f`.
    LowerDigits(usize),
    /// Exactly so many hexadecimal digits.
    Hex(usize),
    /// At least so many characters of base64url, in both cases.
    Word(usize),
    /// Exactly so many characters of base64, with its padding, in both cases.
    Base64(usize),
    Uuid,
    /// Hexadecimal digits or letters and digits, a dot, then at least so many characters of
    /// base64url.
    Pair(usize, usize),
}

const fn context(
    provider: &'static str,
    kind: &'static str,
    words: &'static [&'static str],
    shape: Shape,
) -> NamedProvider {
    NamedProvider { provider, kind, words, window: 64, shape }
}

/// At most 32: a test holds this.
pub(in crate::redact) const CONTEXTS: &[NamedProvider] = &[
    context("portkey", "key", &["portkey"], Shape::LettersDigits(28)),
    context("portkey", "key", &["portkey"], Shape::Base64(28)),
    context("cohere", "key", &["cohere", "co_api_key"], Shape::LettersDigits(40)),
    context("mistral", "key", &["mistral"], Shape::LettersDigits(32)),
    context("together", "key", &["together"], Shape::Hex(64)),
    context("ollama", "key", &["ollama"], Shape::Pair(32, 24)),
    context("baseten", "key", &["baseten"], Shape::Pair(8, 32)),
    context("ai21", "key", &["ai21"], Shape::Uuid),
    context("sambanova", "key", &["sambanova"], Shape::Uuid),
    context("pinecone", "key", &["pinecone"], Shape::Uuid),
    NamedProvider {
        provider: "azure_openai",
        kind: "key",
        words: &[
            "openai.azure.com",
            "azureopenai",
            "azure_openai",
            "azure-openai",
            "azure.openai",
            "azurecognitive",
            "azure_cognitive",
            "azure-cognitive",
            "azureoai",
            "azure_oai",
            "azure-oai",
            "api-key",
            "ocp-apim-subscription-key",
        ],
        window: 96,
        shape: Shape::Hex(32),
    },
    context(
        "aws",
        "secret access key",
        &["aws", "secret_access_key", "secretaccesskey", "secret_accesskey"],
        Shape::Base64(40),
    ),
    context("ibm_watsonx", "key", &["ibm", "watsonx", "bx_"], Shape::Word(42)),
    context(
        "elevenlabs",
        "key",
        &["elevenlabs", "eleven_labs", "xi-api-key", "xi_api_key"],
        Shape::Hex(32),
    ),
    context("assemblyai", "key", &["assemblyai", "assembly_ai"], Shape::LowerDigits(32)),
    context("deepgram", "key", &["deepgram", "dg_api_key"], Shape::Hex(40)),
    context("wandb", "key", &["wandb", "weights_and_biases", "weightsandbiases"], Shape::Hex(40)),
    context("cloudflare", "token", &["cloudflare", "cf_api"], Shape::Word(40)),
];

/// Names of texts that only look like keys. A shape is not masked if one of these stands nearer
/// than a name of a key.
pub(in crate::redact) const NOT_KEYS: &[&str] = &[
    "sha1",
    "sha-1",
    "sha256",
    "sha-256",
    "sha512",
    "sha_",
    "sha:",
    "sha=",
    "sha ",
    "md5",
    "digest",
    "checksum",
    "hash",
    "commit",
    "etag",
    "revision",
    "uuid",
    "guid",
    "_id",
    "-id",
    "id=",
    "id:",
    "id\"",
    "id'",
    "id ",
    "request",
    "trace",
    "span",
    "session",
    "blob",
    "tree",
    "fingerprint",
    "integrity",
    "version",
    "build",
    "nonce",
    "index",
    "branch",
    "checkpoint",
    "object",
    "image",
];
pub(in crate::redact) const KEYS: &[&str] =
    &["key", "token", "secret", "credential", "auth", "password", "bearer"];
