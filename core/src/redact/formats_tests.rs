//! Ties the list of formats to the rules in both directions. Every format in the list is masked,
//! and every rule has a format in the list. Exceptions are named here with their reasons.

use std::collections::BTreeSet;

use regex::Regex;

use super::examples::expand;
use super::formats::FORMATS;
use crate::redact::rules;
use crate::redact::rules::contexts::CONTEXTS;

/// Examples in the rules that fit no format of the list, each with its reason.
const BEYOND_THE_LIST: &[(&str, &str)] = &[
    ("rpa_<46>", "the list has capitals first; the rule asks for letters and digits only"),
    ("cog_<low 52>", "the list has base32; the rule takes every digit"),
    ("bedrock-api-key-<200>==", "the list knows how the address begins; the rule does not ask"),
];

#[test]
fn every_entry_of_the_list_is_whole_and_stands_once() {
    let mut seen = BTreeSet::new();
    for format in FORMATS.iter() {
        let name = format!("{} {}", format.provider, format.kind);
        assert!(!format.provider.is_empty() && !format.kind.is_empty(), "{name}");
        assert!(Regex::new(&format.shape).is_ok(), "{name}");
        assert!(seen.insert(name.clone()), "{name} stands twice");
    }
}

/// The other direction is `every_format_of_the_list_is_masked`, and in every carrier
/// `no_key_survives_in_any_carrier`.
#[test]
fn every_rule_is_in_the_list() {
    let shapes: Vec<_> = FORMATS
        .iter()
        .map(|format| (format.provider.as_str(), Regex::new(&format.shape).expect("a shape")))
        .collect();
    let mut strange = vec![];
    for rule in rules::all() {
        for example in rule.must_match {
            let text = expand(example);
            let mut fits = shapes.iter().filter(|(_, shape)| shape.is_match(&text));
            let listed = fits.any(|(provider, _)| rule.provider.is_none_or(|own| own == *provider));
            let beyond = BEYOND_THE_LIST.iter().any(|(known, _)| known == example);
            if listed == beyond {
                strange.push(format!("{:?} {}: {example}", rule.provider, rule.kind));
            }
        }
    }
    assert!(strange.is_empty(), "{strange:#?}");
    for context in CONTEXTS {
        let listed = FORMATS.iter().any(|format| format.provider == context.provider);
        assert!(listed, "{} is not in the list", context.provider);
    }
}
