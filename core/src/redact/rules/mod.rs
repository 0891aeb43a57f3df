//! All rules. A new shape is a new entry in the file of its family, with texts it must and must not
//! match. A provider whose keys have no prefix is a line in `contexts`. A name that says "here is a
//! key" is a line in `labels`.

pub(super) mod contexts;
pub(super) mod labels;

mod clouds;

mod openai;
mod providers;
mod tools;

use crate::redact::rule::{BASE64URL, Edge, Label, Proof, Rule, Run};

/// The rules with a prefix, most specific first: the first one that holds at a place wins.
pub(super) fn all() -> impl Iterator<Item = &'static Rule> {
    [openai::RULES, providers::RULES, tools::RULES, clouds::RULES, SHARED].into_iter().flatten()
}

/// Shapes that several providers share: DeepSeek, DashScope, Moonshot, Stability, SiliconFlow,
/// LiteLLM and others.
const SHARED: &[Rule] = &[Rule {
    provider: None,
    kind: "key",
    prefixes: &["sk-"],
    label: Label::None,
    body: BASE64URL,
    least: 20,
    run: Run::Word,
    edge: Edge::Left,
    proof: Proof::Mixed,
    must_match: &["sk-<hex 32>", "sk-<48>", "sk-<low 48>", "sk-aB3-dE5_gH7-jK9_mN1-pQ"],
    must_not_match: &[
        "sk-<low 19>",
        "risk-<48>",
        "sk-very-long-name-of-a-css-class-42",
        "sk-worker-7d9f8b6c5d-x2k9p",
        "sk-aaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    ],
}];
