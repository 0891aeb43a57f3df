//! JSON must stay JSON: keys in values, names and nested JSON, keys written with escapes, repeated
//! names, and texts that are no JSON. Nothing changes where nothing is masked.

use super::*;
use crate::redact::scan::examples::expand;
use proptest::prelude::*;

fn masked(text: &str) -> String {
    redact_json(text, None, &mut |_| (), &mut || ()).expect("memory").into_owned()
}

#[test]
fn numbers_spaces_and_order_stay() {
    let key = expand("sk-proj-<60>");
    let text = |key: &str| {
        format!(
            "{{ \"z\" : 12345678901234567890123.4500,\n\"a\":1e400, \"z\":\t\"{key}\" ,\
             \"n\":[null,true,\"é\\u00e9\"]}}"
        )
    };
    assert_eq!(masked(&text(&key)), text("sk-proj-...[REDACTED]"));
    let clean = text("nothing here");
    assert!(matches!(redact_json(&clean, None, &mut |_| (), &mut || ()), Ok(Cow::Borrowed(_))));
}

#[test]
fn a_key_written_with_escapes_is_masked_whole() {
    let key = expand("sk-proj-<60>");
    for written in
        [key.replace('-', "\\u002d"), key.replace("0", "\\u0030"), format!("x\\n{key}\\n")]
    {
        let text = format!("{{\"a\": [\"{written}\"]}}");
        let masked = masked(&text);
        assert!(!masked.contains("xyz") && masked.contains("[REDACTED]"), "{masked}");
        assert!(serde_json::from_str::<serde_json::Value>(&masked).is_ok(), "{masked}");
    }
    let nested = serde_json::to_string(&format!("{{\"k\":\"{key}\"}}")).unwrap();
    let masked = masked(&nested);
    let inner: String = serde_json::from_str(&masked).unwrap();
    assert_eq!(inner, "{\"k\":\"sk-proj-...[REDACTED]\"}");
}

#[test]
fn names_are_masked_and_stay_apart() {
    let (one, two) = (expand("sk-proj-<60>"), expand("sk-proj-<61>"));
    let text = format!("{{\"{one}\": 1, \"{two}\" : 2}}");
    let masked_once = masked(&text);
    assert_eq!(masked_once, "{\"sk-proj-...[REDACTED]\": 1, \"sk-proj-...[REDACTED] (2)\" : 2}");
    assert_eq!(masked(&masked_once), masked_once);
    let mask = "sk-proj-...[REDACTED]";
    let again = format!("{{\"{mask}\": 1, \"{two}\": 2}}");
    assert_eq!(masked(&again), format!("{{\"{mask}\": 1, \"{mask} (2)\": 2}}"));
    let taken = format!(
        "[{{\"{mask} (2)\": 1, \"{one}\": {{\"{one}\": 3}}, \"{two}\": 2, \"{one}\": 4}}, \
         {{\"{one}\": 5}}]"
    );
    let apart = format!(
        "[{{\"{mask} (2)\": 1, \"{mask}\": {{\"{mask}\": 3}}, \"{mask} (3)\": 2, \
         \"{mask} (4)\": 4}}, {{\"{mask}\": 5}}]"
    );
    assert_eq!(masked(&taken), apart);
}

#[test]
fn extra_patterns_match_within_strings_and_names() {
    let patterns =
        ExtraPatterns::from_json(br#"["acme-[^ ]+", "q:...."]"#).ok().flatten().expect("accepted");
    let mut seen = vec![];
    let text = concat!(
        r#"{"k": "acme-1\"2\u00e9, x", "acme-a": [1, "q:\t\u00e9x y"], "#,
        r#""acme-b": 2, "n": "\ud83d q:12345"}"#
    );
    let masked =
        redact_json(text, Some(&patterns), &mut |text| seen.push(text.to_owned()), &mut || ())
            .expect("memory");
    // Half a surrogate pair is no text, so nothing in its string is masked.
    let mask = "...[REDACTED]";
    assert_eq!(
        masked,
        format!(
            "{{\"k\": \"{mask} x\", \"{mask}\": [1, \"{mask} y\"], \
             \"{mask} (2)\": 2, \"n\": \"\\ud83d q:12345\"}}"
        )
    );
    assert_eq!(seen, ["acme-1\"2é, x", "acme-a", "q:\téx y", "acme-b"]);
    assert!(matches!(
        redact_json("[\"x\\n\"]", Some(&patterns), &mut |_| (), &mut || ()).expect("memory"),
        Cow::Borrowed(_)
    ));
}

proptest! {
    #[test]
    fn json_stays_json_and_no_text_panics(parts in prop::collection::vec(0..12usize, 0..30)) {
        let key = expand("sk-proj-<60>");
        let words = ["\"", "\\", "\\u00", "\\ud83d", key.as_str()];
        let words = [&words[..], &["{", "}", ":", ",", "é", "1e9", "Bearer "]].concat();
        let any: String = parts.iter().map(|part| words[*part]).collect();
        let masked_once = masked(&any);
        prop_assert_eq!(&masked(&masked_once), &masked_once);
        let json = serde_json::json!({ "a": any, any.clone(): [any, 1.5] }).to_string();
        let masked_json = masked(&json);
        let parsed = serde_json::from_str::<serde_json::Value>(&masked_json);
        prop_assert!(parsed.is_ok(), "{}", masked_json);
        prop_assert_eq!(&masked(&masked_json), &masked_json);
    }
}
