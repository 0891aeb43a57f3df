//! What is no key although it stands where one should: placeholders of real configurations, masks
//! of logs and consoles, and keys with something around them. A vault that stores one does not
//! know the real key when it leaks. Each fault is found before the next, and says what to mend.

use super::Invalid;
use crate::redact::MASK;

/// What is wrong with a text as a key. None: it may be one.
pub(super) fn what_is_wrong(text: &str) -> Option<Invalid> {
    let inner = text.trim_matches(|c: char| c.is_whitespace() || !shows(c));
    if text.contains('\0') {
        Some(Invalid::KeyHasNul)
    } else if is_mask(inner) {
        Some(Invalid::KeyIsMasked)
    } else if is_template(inner) || is_words(inner) {
        Some(Invalid::KeyIsPlaceholder)
    } else if has_scheme(inner) {
        Some(Invalid::KeyHasScheme)
    } else if has_name(inner) {
        Some(Invalid::KeyHasName)
    } else if is_quoted(inner) {
        Some(Invalid::KeyIsQuoted)
    } else if text.contains(char::is_whitespace) {
        Some(Invalid::KeyHasWhiteSpace)
    } else if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Some(Invalid::KeyNotAscii)
    } else {
        None
    }
}

/// Whether a character of a key shows.
fn shows(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
}

/// Characters that consoles put in place of what they hide.
const BULLETS: [char; 19] = [
    '•', '●', '∙', '·', '⋅', '◦', '○', '⬤', '⚫', '■', '▪', '█', '▓', '▒', '░', '＊', '∗', '…', '⋯',
];
/// Words that stand in place of what was hidden, in brackets or behind a prefix.
const HIDING: [&str; 9] = [
    "redacted",
    "[filtered]",
    "[masked]",
    "[hidden]",
    "[secret]",
    "[scrubbed]",
    "[removed]",
    "<hidden>",
    "<masked>",
];

/// The longest text that is taken for a placeholder.
const LONGEST: usize = 256;

/// Whether parts of the text are masked. Runs are long enough to stand in no random key.
fn is_mask(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    text.contains(BULLETS)
        || text.contains(MASK)
        || ["**", "...", "###", "???"].iter().any(|run| text.contains(run))
        || text.len() > 1 && (text.starts_with('*') || text.ends_with('*'))
        || text.len() <= LONGEST && lower.contains("xxxxxx")
        || HIDING.iter().any(|word| lower.contains(word))
}

/// Names of functions and places that configurations read a key from.
const SOURCES: [&str; 24] = [
    "os.environ",
    "environ[",
    "environ.get",
    "getenv(",
    "process.env",
    "import.meta.env",
    "deno.env",
    "env[",
    "env(",
    "!env",
    "!ref",
    "!sub",
    "!secret",
    "secrets.",
    "@microsoft.keyvault",
    "arn:aws:",
    "/run/secrets/",
    "vault:v",
    "enc[",
    "[object",
    "$ansible_vault",
    "fn::",
    "{{",
    "://",
];
/// Beginnings of references to a key that lies elsewhere.
const REFERENCES: [&str; 14] = [
    "env:",
    "env/",
    "env.",
    "file:",
    "secret:",
    "secret/",
    "vault:",
    "ssm:",
    "op:",
    "ref:",
    "kms:",
    "sops:",
    "keyvault:",
    "projects/",
];

/// Whether the text is a place for a value: `${VAR}`, `<key>`, `os.environ/VAR`, `%VAR%`.
fn is_template(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let within =
        |open: char, close: char| text.len() > 2 && text.starts_with(open) && text.ends_with(close);
    let is_variable = text.strip_prefix('$').is_some_and(|name| {
        let name = name.strip_prefix("env:").unwrap_or(name);
        name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && is_name(name)
    });
    is_variable
        || within('<', '>')
        || within('%', '%')
        || within('[', ']')
        || within('{', '}') && !text.contains('"')
        || within('_', '_') && text.starts_with("__")
        || text.contains("${")
        || text.contains("$(")
        || SOURCES.iter().any(|source| lower.contains(source))
        || REFERENCES.iter().any(|reference| lower.starts_with(reference))
}

/// Words that tell a placeholder. A text of nothing but these and `BESIDE` is one: `your-api-key`,
/// `REPLACE_WITH_YOUR_KEY`, `yourApiKeyHere`, `OPENAI_API_KEY`, `sk-ant-your-key`.
const WORDS: &str = "
    undefined null none nil nan empty unset missing false true default string value todo fixme
    tbd placeholder dummy example sample change changeme changeit replace insert enter paste
    provide your yours my our here apikey api token secret secrets password passwd pwd
    credential credentials bearer needed required unused hidden masked filtered removed ollama
    lmstudio litellm";
/// Words that stand beside them, and prefixes and vendors. Alone they may be a key.
const BESIDE: &str = "
    key keys put add fill set update with this me in goes own actual valid access auth not no
    used openai anthropic claude groq gemini google azure aws bedrock mistral cohere deepseek
    openrouter huggingface hf replicate together perplexity fireworks xai llm provider vendor sk
    pk proj ant api03 gsk pplx org project service account svcacct admin prod live";
/// Values that are written where a server asks for no key, and of examples that many copy.
const WHOLE: [&str; 7] = ["n/a", "na", "-", "--", "sk-1234", "abc123", "?"];
/// Whether the text is nothing but words of placeholders, joined or with signs between them.
fn is_words(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    if WHOLE.contains(&lower.as_str()) {
        return true;
    }
    let signs = ['-', '_', '.', ' ', '/', ':', '+', '!', '"', '\'', '`'];
    let is_joined = lower.len() <= LONGEST
        && lower.bytes().all(|byte| byte.is_ascii_alphanumeric() || signs.contains(&byte.into()));
    let joined: String = lower.chars().filter(|c| !signs.contains(c)).collect();
    is_joined && !joined.is_empty() && (is_filling(&joined) || is_made_of_words(joined.as_bytes()))
}

/// Whether a text is one character that fills a place, again and again.
fn is_filling(text: &str) -> bool {
    text.len() > 2 && ["x", "0", "1"].iter().any(|one| text.replace(one, "").is_empty())
}

/// Whether the text can be cut into words without a rest, and one of them tells. A run of three `x`
/// or more is such a word.
fn is_made_of_words(text: &[u8]) -> bool {
    // Whether a place is reached by words, and whether one of them told.
    let mut reached = vec![(false, false); text.len() + 1];
    reached[0].0 = true;
    for at in 0..text.len() {
        let (by_words, has_told) = reached[at];
        if !by_words {
            continue;
        }
        let rest = &text[at..];
        let mut reach = |length: usize, tells: bool| {
            let place = &mut reached[at + length];
            *place = (true, place.1 || has_told || tells);
        };
        for (words, tells) in [(WORDS, true), (BESIDE, false)] {
            let words = words.split_ascii_whitespace();
            let begun = words.filter(|word| rest.starts_with(word.as_bytes()));
            begun.for_each(|word| reach(word.len(), tells));
        }
        let run = rest.iter().take_while(|byte| **byte == b'x').count();
        (3..=run).for_each(|length| reach(length, true));
    }
    reached[text.len()].1
}

/// Schemes and headers that stand before a key.
const SCHEMES: [&str; 8] = [
    "bearer ",
    "bearer:",
    "bearer\t",
    "basic ",
    "token ",
    "authorization:",
    "authorization=",
    "api-key:",
];

/// Whether the scheme of a header stands before the key.
fn has_scheme(text: &str) -> bool {
    let lower = text.trim_start_matches(QUOTES).to_ascii_lowercase();
    SCHEMES.iter().any(|scheme| lower.starts_with(scheme))
}

/// Ends of names that hold a key, where a colon stands behind them.
const KEEPERS: [&str; 5] = ["key", "token", "secret", "password", "passwd"];

/// Whether the key's own name stands before it, as in a file of variables. A key may hold `=`:
/// base64 ends with it.
fn has_name(text: &str) -> bool {
    let text = text.trim_start_matches(QUOTES);
    let declared = ["export ", "set ", "setx ", "env ", "let ", "const ", "var ", "declare "];
    if declared.iter().any(|word| text.starts_with(word)) {
        return true;
    }
    let assigned = text.split_once('=').is_some_and(|(name, value)| {
        let name = name.trim_end_matches([' ', '\t', ':']);
        let name = name.rsplit(':').next().unwrap_or(name);
        let value = value.trim_start_matches([' ', '\t']);
        let begins = |c: char| c.is_ascii_alphanumeric() || QUOTES.contains(&c) || c == '$';
        is_name(name.trim_start_matches(['-', '$'])) && value.starts_with(begins)
    });
    assigned
        || text.split_once(':').is_some_and(|(name, value)| {
            let name = name.trim_end_matches(QUOTES).to_ascii_lowercase();
            let keeps = KEEPERS.iter().any(|end| name.ends_with(end));
            keeps && is_name(&name) && !value.is_empty()
        })
}

/// Whether the text can be the name of a variable, a header or a setting.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte))
}

/// Quotes of files and of word processors.
const QUOTES: [char; 11] = ['"', '\'', '`', '“', '”', '„', '‘', '’', '‚', '«', '»'];

/// Whether quotes or the punctuation of a list stand around the key.
fn is_quoted(text: &str) -> bool {
    text.starts_with(QUOTES)
        || text.ends_with(QUOTES)
        || text.ends_with([',', ';'])
        || text.contains("\":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redact::examples::expand;
    use crate::redact::{key_hint, redact};

    const PLACEHOLDERS: &str = r#"
        undefined ~ null ~ NULL ~ None ~ nil ~ NaN ~ EMPTY ~ changeme ~ change-me ~ CHANGE_ME ~
        changeit ~ your-api-key ~ your_api_key_here ~ YOUR_OPENAI_API_KEY ~ yourApiKeyHere ~
        sk-your-key-here ~ sk-ant-your-api-key ~ sk-xxxx ~ REPLACE_WITH_YOUR_KEY ~ <your-key> ~
        <API_KEY> ~ ${OPENAI_API_KEY} ~ $API_KEY ~ ${{ secrets.OPENAI_API_KEY }} ~
        {{ api_key }} ~ {api_key} ~ %OPENAI_API_KEY% ~ os.environ/OPENAI_API_KEY ~
        os.environ['K'] ~ process.env.OPENAI_API_KEY ~ env(OPENAI_API_KEY) ~
        env:OPENAI_API_KEY ~ ENV["K"] ~ $env:OPENAI_API_KEY ~ $(cat key) ~ op://vault/item/key ~
        vault:secret/data/openai#key ~ n/a ~ TODO ~
        arn:aws:secretsmanager:eu-west-1:1:secret:k ~ /run/secrets/openai ~ placeholder ~
        [object Object] ~ @Microsoft.KeyVault(SecretUri=x) ~ no-key-required ~ string ~
        not-needed ~ OPENAI_API_KEY ~ ollama ~ lm-studio ~ dummy-key ~ insert key here ~
        __API_KEY__ ~ 0000000000000000 ~ !ENV K ~ undefined ~ https://example.com ~
        secret ~ password ~ [your key] ~ sk-1234 ~"#;

    fn all_are(texts: &[&str], why: Invalid) {
        for text in texts {
            assert_eq!(what_is_wrong(text), Some(why), "{text:?}");
        }
    }

    #[test]
    fn placeholders_of_real_configurations_are_no_keys() {
        let texts: Vec<&str> = PLACEHOLDERS.split('~').map(str::trim).collect();
        let texts: Vec<&str> = texts.into_iter().filter(|text| !text.is_empty()).collect();
        assert!(texts.len() > 50);
        all_are(&texts, Invalid::KeyIsPlaceholder);
        all_are(&[" undefined\n"], Invalid::KeyIsPlaceholder);
    }

    #[test]
    fn masks_and_hints_are_no_keys() {
        let key = expand("sk-proj-<74>wxyz");
        let (mask, hint) = (redact(&key).into_owned(), key_hint(&key));
        all_are(
            &[
                &mask,
                &hint,
                MASK,
                "sk-proj-****d45f",
                "sk-proj-...d45f",
                "••••••••d45f",
                "●●●●",
                "sk-…d45f",
                "sk-ant-xxxxxxxxxxxxd45f",
                "[REDACTED]",
                "<redacted>",
                "[FILTERED]",
                "****************ABCD",
                "sk-*",
                "sk-proj-???",
                "gsk_####",
                "[masked]",
                "REDACTED",
                "sk-proj-********************************wxyz",
                "xxxxxxxx",
            ],
            Invalid::KeyIsMasked,
        );
    }

    #[test]
    fn what_stands_around_a_key_is_said() {
        all_are(
            &[
                "OPENAI_API_KEY=sk-abc",
                "export OPENAI_API_KEY=sk-abc",
                "api_key = sk-abc",
                "apiKey: sk-abc",
                "x-api-key:sk-abc",
                "API_KEY=\"sk-abc\"",
                "--api-key=sk-abc",
                "$env:OPENAI_API_KEY=\"sk-abc\"",
                "set K=sk-abc",
                "\"api_key\": \"sk-abc\"",
                "OPENAI_API_KEY:=sk-abc",
                "export K=sk-abc\n",
            ],
            Invalid::KeyHasName,
        );
        all_are(
            &["\"sk-abc\"", "'sk-abc'", "`sk-abc`", "sk-abc\"", "“sk-abc”", "sk-abc,", "sk-abc;\n"],
            Invalid::KeyIsQuoted,
        );
        all_are(
            &["Bearer sk-abc", "bearer  sk-abc", "Authorization: Bearer sk-abc", "Token abc-1"],
            Invalid::KeyHasScheme,
        );
    }

    #[test]
    fn keys_of_every_vendor_are_keys() {
        for shape in [
            "k",
            "key-1",
            "sk-proj-<74>",
            "sk-ant-api03-<93>AA",
            "AIza<35>",
            "gsk_<52>",
            "<hex 32>",
            "<32>==",
            "<28>/<8>+<3>=",
            "<hex 8>-<hex 4>-<hex 4>-<hex 4>-<hex 12>",
            "sk-lm-<8>:<20>",
            "bce-v3/ALTAK-<21>/<hex 40>",
            "eyJ<20>.eyJ<40>.<43>",
            "eyJ<20>..<16>.<43>.<22>",
            "nvapi-<64>",
            "AKIAAAAABBBBCCCC2222",
            "<hex 32>.<16>",
            "id:<32>",
            "v1.<200>",
            "ABSK<109>=",
            "correct-horse-battery",
        ] {
            let key = expand(shape);
            assert_eq!(what_is_wrong(&key), None, "{key}");
        }
    }
}
