//! Tests of the scanner: each rule proves itself by its own examples, then come properties of any
//! text. `examples` builds the keys when the tests run, so that none stands in this repository.

use proptest::prelude::*;

use super::examples::expand;
use super::*;
use crate::redact::mask::{Ends, contains_key, findings, mask_each, prepare, redact};
use crate::redact::rules;
use std::borrow::Cow;

#[test]
fn every_rule_can_be_found() {
    assert!(prepare());
    assert!(rules::all().count() > 50);
}

#[test]
fn every_rule_matches_what_it_must() {
    for rule in rules::all() {
        assert!(
            !rule.must_match.is_empty() && !rule.must_not_match.is_empty(),
            "{} has no proof",
            rule.kind
        );
        for example in rule.must_match {
            let text = expand(example);
            let found: Vec<_> = findings(&text).collect();
            assert_eq!(found.len(), 1, "{example}");
            assert_eq!((found[0].provider, found[0].kind), (rule.provider, rule.kind), "{example}");
        }
    }
}

#[test]
fn every_rule_leaves_alone_what_it_must_not_match() {
    for rule in rules::all() {
        for example in rule.must_not_match {
            // Another rule may match: plain `sk-` takes what is too short for `sk-proj-`.
            let text = expand(example);
            let same = |found: Finding| (found.provider, found.kind) == (rule.provider, rule.kind);
            assert!(!findings(&text).any(same), "{example}");
        }
    }
}

#[test]
fn the_prefix_stays_and_the_whole_run_goes() {
    for (text, masked) in [
        ("sk-proj-<74>", "sk-proj-...[REDACTED]"),
        ("a 'sk-ant-api03-<93>AA' b", "a 'sk-ant-api03-...[REDACTED]' b"),
        ("AIza<35>zQ7xT9, gsk_<52>", "AIza...[REDACTED], gsk_...[REDACTED]"),
        ("schlüssel=sk-<hex 32>ü", "schlüssel=sk-...[REDACTED]ü"),
        (
            "Authorization: Bearer sk-proj-<74>\r\n",
            "Authorization: Bearer sk-proj-...[REDACTED]\r\n",
        ),
        ("Bearer sk-ant-api03-...[REDACTED] x", "Bearer sk-ant-api03-...[REDACTED] x"),
        ("OPENAI_API_KEY_PROD=\"<hex 32>\"", "OPENAI_API_KEY_PROD=\"...[REDACTED]\""),
        ("Incorrect API key provided: <24>. You", "Incorrect API key provided: ...[REDACTED]. You"),
        ("elevenlabs voice_id: <hex 32>", "elevenlabs voice_id: <hex 32>"),
        ("elevenlabs key: <hex 32>", "elevenlabs key: ...[REDACTED]"),
        ("postgres://app:hunter2@db/x", "postgres://app:...[REDACTED]@db/x"),
        ("?key=AIza<35>&alt=sse", "?key=AIza...[REDACTED]&alt=sse"),
        ("nothing here", "nothing here"),
    ] {
        assert_eq!(redact(&expand(text)), expand(masked));
    }
}

#[test]
fn names_and_prose_are_left_alone() {
    for text in [
        "task-force-alpha-and-risk-management-2024",
        "the desk-proj-manager asked",
        "ask-me-anything-about-postgresql-15-and-rust",
        "0a8e8f9a-3c1b-4b1f-9a52-2f5d6f7c8b9d",
        "Bearer authentication is required",
        "sk-",
        "",
    ] {
        assert!(!contains_key(text), "{text}");
        assert!(matches!(redact(text), Cow::Borrowed(_)));
    }
}

/// The most expensive texts: keys within keys, long runs, many names, many quotes. A quadratic scan
/// would take minutes.
#[test]
fn hostile_text_is_read_in_linear_time() {
    let begun = std::time::Instant::now();
    for piece in HOSTILE {
        let text = piece.repeat((1 << 16) / piece.len());
        let masked = redact(&text);
        assert_eq!(redact(&masked), masked, "{piece}");
    }
    assert!(begun.elapsed().as_secs() < 120);
}

const HOSTILE: &[&str] = &[
    "sk-",
    "sk-a",
    "sk-proj-",
    "sk-ant-",
    "eyJ",
    "eyJaaaaaaaaaa.",
    "AIza",
    "Bearer ",
    "AKIA",
    "ü",
    "sk-T3BlbkF",
    "T3BlbkFJ",
    "a",
    "aws",
    "mistral=",
    "aws mistral cohere ",
    "api_key",
    "api_key=",
    "api_key: \"",
    "\"",
    "'",
    "\\",
    "%3D",
    "://",
    "://a:",
    "http://a:b@",
    "?key=",
    "&key=a",
    "0a8e8f9a-3c1b-4b1f-9a52-2f5d6f7c8b9d ",
    "pinecone 0a8e8f9a-3c1b-4b1f-9a52-2f5d6f7c8b9d ",
    "ABSK",
    "ABSK%2F",
    "ya29.",
    "hf_",
    "pa-",
    "JQQJ9",
    "<",
    "api_key<a>",
    "&#x2F;",
    "\u{1b}[31m",
    "api key is ",
    "github_pat_a",
    "...[REDACTED]",
    "api_key=...[REDACTED]",
    "8f14e45fceea167a5a36dedd4bea2543.",
];

/// What keys begin with, and what names them.
const STARTS: &[&str] = &[
    "api_key",
    "api_key=",
    "authorization: ",
    "mistral ",
    "aws ",
    "pinecone:",
    "https://u:",
    "?key=",
    "&token=",
    "ABSK",
    "AQ.Ab8R",
    "ya29.",
    "al-",
    "sk-",
    "sk-proj-",
    "sk-ant-api03-",
    "Bearer ",
    "hf_",
    "fw_",
    "r8_",
    "AKIA",
    "eyJ",
    "gsk_",
    "xai-",
];

/// What stands around keys, between them and in their place.
const OTHERS: &[&str] = &[
    "@",
    ":",
    "://",
    "\\n",
    "\\u003d",
    "\\",
    "%3D",
    "%2F",
    "&#x2F;",
    "\"",
    "\n",
    "0a8e8f9a-3c1b-4b1f-9a52-2f5d6f7c8b9d",
    "8f14e45fceea167a5a36dedd4bea2543",
    "<",
    ">",
    "[",
    "{",
    ",",
    ".",
    "-",
    "_",
    "+",
    "/",
    "=",
    " ",
    "ü",
    "𝄞",
    "\0",
    "...",
    "[REDACTED]",
    "...[REDACTED]",
    "T3BlbkFJ",
];

/// Texts made of what keys are made of: far likelier to hit an edge than random characters.
fn fragments() -> impl Strategy<Value = String> {
    let fragment = prop_oneof![
        3 => proptest::sample::select(STARTS.to_vec()).prop_map(str::to_owned),
        2 => proptest::sample::select(OTHERS.to_vec()).prop_map(str::to_owned),
        3 => "[a-z]{1,40}",
        3 => "[A-Za-z0-9]{1,80}",
        1 => "\\PC{0,5}",
    ];
    proptest::collection::vec(fragment, 0..14).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn masking_twice_changes_nothing(text in fragments()) {
        let once = redact(&text).into_owned();
        prop_assert_eq!(redact(&once), once.as_str());
    }

    #[test]
    fn findings_lie_in_order_at_character_boundaries(text in fragments()) {
        let mut from = 0;
        for finding in findings(&text) {
            prop_assert!(from <= finding.start && finding.start <= finding.secret);
            prop_assert!(finding.secret < finding.end);
            prop_assert!(text.get(finding.start..finding.end).is_some());
            from = finding.end;
        }
    }

    #[test]
    fn a_key_does_not_survive_in_any_surroundings(
        before in "\\PC{0,20}[ '\"=:,;]",
        after in "[ '\"),;]\\PC{0,20}",
    ) {
        for rule in rules::all() {
            let key = expand(rule.must_match[0]);
            let secret = &key[findings(&key).next().expect("found").secret..];
            let text = format!("{before}{key}{after}");
            prop_assert!(!redact(&text).contains(secret), "{}", rule.kind);
        }
    }

    #[test]
    fn any_text_at_all_is_survived(text in any::<String>()) {
        let _ = (redact(&text), contains_key(&text));
        let _ = (crate::redact::key_hint(&text), crate::redact::provider_of(&text));
        prop_assert!(crate::redact::key_hint(&text).len() <= 40);
    }

    #[test]
    fn any_bytes_are_masked_in_place(
        text in fragments(),
        noise in proptest::collection::vec(any::<u8>(), 0..40),
    ) {
        let bytes = [&noise, text.as_bytes(), &noise].concat();
        for ends in [Ends::Whole, Ends::Cut] {
            let mut masked = bytes.clone();
            mask_each(&mut masked, ends, &mut |_, _| ());
            let differ = masked.iter().zip(&bytes).filter(|(after, before)| after != before);
            prop_assert_eq!(masked.len(), bytes.len());
            prop_assert!(differ.into_iter().all(|(after, _)| *after == b'*'));
        }
        let mut whole = text.clone().into_bytes();
        // There may be more: masking a key can leave an edge beside the next key.
        prop_assert!(mask_each(&mut whole, Ends::Whole, &mut |_, _| ()) >= findings(&text).count());
    }

    #[test]
    fn json_stays_json(value in document()) {
        let text = value.to_string();
        let quoted = serde_json::Value::from(text.as_str()).to_string();
        for text in [text.clone(), quoted, text.replace('/', "\\/")] {
            let masked = redact(&text).into_owned();
            let parsed = serde_json::from_str::<serde_json::Value>(&masked);
            prop_assert!(parsed.is_ok(), "{text} -> {masked}");
        }
    }
}

/// Documents whose strings, names and numbers are made of parts of keys.
fn document() -> impl Strategy<Value = serde_json::Value> {
    let number = "[1-9][0-9]{0,40}(\\.[0-9]{1,30})?(e[0-9]{1,2})?"
        .prop_map(|text| serde_json::from_str(&text).unwrap_or_default());
    let names = ["api_key", "mistral", "aws", "authorization", "id", "pinecone"]
        .map(serde_json::Value::from)
        .to_vec();
    let leaf = prop_oneof![
        fragments().prop_map(serde_json::Value::from),
        number,
        proptest::sample::select(names)
    ];
    leaf.prop_recursive(4, 24, 6, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..6).prop_map(serde_json::Value::from),
            proptest::collection::vec((fragments(), inner), 0..6)
                .prop_map(|pairs| { serde_json::Value::Object(pairs.into_iter().collect()) }),
        ]
    })
}

#[test]
fn bytes_are_masked_in_place_and_said_before() {
    let key = expand("sk-proj-<60>");
    let mut text = [b"\xff\x80 k=", key.as_bytes(), b"\xfe ", key.as_bytes()].concat();
    let length = text.len();
    let mut said = vec![];
    let count = mask_each(&mut text, Ends::Whole, &mut |finding, bytes| {
        said.push((finding.provider, bytes.to_vec()))
    });
    assert_eq!(
        said,
        [(Some("openai"), key.clone().into_bytes()), (Some("openai"), key.into_bytes())]
    );
    assert_eq!((count, text.len()), (2, length));
    assert_eq!(
        text,
        [&b"\xff\x80 k=sk-proj-"[..], &[b'*'; 60], b"\xfe sk-proj-", &[b'*'; 60]].concat()
    );
    assert_eq!(mask_each(&mut text, Ends::Whole, &mut |_, _| ()), 0);
}

#[test]
fn a_key_that_was_cut_counts_in_a_text_that_was_cut() {
    let mut text = *b"SELECT 'sk-proj-0123abCD";
    assert_eq!(mask_each(&mut text, Ends::Whole, &mut |_, _| ()), 0);
    assert_eq!(mask_each(&mut text, Ends::Cut, &mut |_, _| ()), 1);
    assert_eq!(text, *b"SELECT 'sk-proj-********");
}
