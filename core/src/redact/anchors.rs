//! Anchors: the fixed texts that keys, labels and providers' names begin with. One pass over a
//! table of their first three bytes finds the places where one may begin.

use std::sync::LazyLock;

use super::rule::Rule;
use super::rules::contexts::CONTEXTS;
use super::rules::labels::{KeyLabel, LABELS, PARAMETERS};
use super::rules::{self};

/// What a fixed text stands for.
#[derive(Clone, Copy)]
pub(super) enum Anchor {
    /// The public prefix of a key, and its length.
    Prefix(&'static Rule, usize),
    /// The header of a JSON web token (RFC 7515 §3.1): base64url of `{"` or `{ `.
    WebToken,
    Label(&'static KeyLabel),
    /// A parameter of an address, and its length.
    Parameter(usize),
    /// The `://` before `user:password@`.
    Address(usize),
    /// The name of a provider whose keys have no prefix: its number in `CONTEXTS`, and the length
    /// of the name.
    Context(usize, usize),
}

struct AnchorText {
    text: &'static [u8],
    /// The fourth byte in lower case, if there is one. It is compared before the rest, because most
    /// texts begin with `sk-` and the first three bytes do not tell them apart.
    fourth: Option<u8>,
    any_case: bool,
    anchor: Anchor,
}

/// Large enough that two different texts of three bytes seldom share a slot. Small enough that the
/// table stays in the processor's first cache.
const SLOTS: usize = 1 << 13;

pub(super) struct Anchors {
    /// For each hash of three bytes, the number of its list. 0 means that there is none.
    slots: Box<[u8; SLOTS]>,
    lists: Vec<Vec<AnchorText>>,
}

pub(super) static ANCHORS: LazyLock<Anchors> = LazyLock::new(Anchors::new);

/// Upper and lower case share a slot. Whether the case matters is checked later.
#[inline]
fn slot(three: u32) -> usize {
    let folded = three & 0x00ff_ffff | 0x0020_2020;
    (folded.wrapping_mul(0x9e37_79b1) >> (32 - SLOTS.trailing_zeros())) as usize
}

#[inline]
fn first_three(text: &[u8]) -> Option<u32> {
    text.first_chunk::<3>().map(|[a, b, c]| u32::from_le_bytes([*a, *b, *c, 0]))
}

impl Anchors {
    fn new() -> Anchors {
        let mut anchors = Anchors { slots: Box::new([0; SLOTS]), lists: vec![vec![]] };
        for (index, context) in CONTEXTS.iter().enumerate() {
            for word in context.words {
                anchors.add(word, true, Anchor::Context(index, word.len()));
            }
        }
        for rule in rules::all() {
            for prefix in rule.prefixes {
                anchors.add(prefix, false, Anchor::Prefix(rule, prefix.len()));
            }
        }
        anchors.add("eyJ", false, Anchor::WebToken);
        anchors.add("eyK", false, Anchor::WebToken);
        for parameter in PARAMETERS {
            anchors.add(parameter, true, Anchor::Parameter(parameter.len()));
        }
        for label in LABELS {
            anchors.add(label.words[0], true, Anchor::Label(label));
        }
        for opening in ["://", ":\\/\\/", "%3a%2f%2f", ":&#x2f;&#x2f;"] {
            anchors.add(opening, true, Anchor::Address(opening.len()));
        }
        anchors
    }

    fn add(&mut self, text: &'static str, any_case: bool, anchor: Anchor) {
        let text = text.as_bytes();
        let slot = &mut self.slots[slot(first_three(text).unwrap_or(0))];
        if *slot == 0 {
            *slot = u8::try_from(self.lists.len()).unwrap_or(u8::MAX);
            self.lists.push(vec![]);
        }
        self.lists[usize::from(*slot)].push(AnchorText {
            text,
            fourth: text.get(3).map(|byte| byte | 0x20),
            any_case,
            anchor,
        });
    }

    /// The first place within `from..to` where one of the texts may begin.
    pub(super) fn next(&self, text: &[u8], from: usize, to: usize) -> Option<usize> {
        let list = |three: u32| self.slots[slot(three)];
        let (mut at, to) = (from, to.min(text.len()));
        // Tests six places with one load of eight bytes and one branch.
        while at < to
            && let Some(eight) = text[at..].first_chunk::<8>()
        {
            let eight = u64::from_le_bytes(*eight);
            if [0, 8, 16, 24, 32, 40]
                .map(|bits| list((eight >> bits) as u32))
                .into_iter()
                .fold(0, |all, list| all | list)
                != 0
            {
                let found =
                    (at..at + 6).find(|place| first_three(&text[*place..]).map_or(0, list) != 0);
                return found.filter(|place| *place < to);
            }
            at += 6;
        }
        (at..to).find(|place| first_three(&text[*place..]).map_or(0, list) != 0)
    }

    /// What begins at a place that `next` found: contexts, then prefixes in the order of their
    /// rules, then labels.
    pub(super) fn at<'t>(
        &self,
        text: &'t [u8],
        place: usize,
    ) -> impl Iterator<Item = Anchor> + use<'_, 't> {
        let rest = &text[place..];
        let list = first_three(rest).map_or(0, |three| usize::from(self.slots[slot(three)]));
        let fourth = rest.get(3).map(|byte| byte | 0x20);
        let may_begin = move |entry: &&AnchorText| entry.fourth.is_none() || entry.fourth == fourth;
        let begins = move |entry: &&AnchorText| match rest.get(..entry.text.len()) {
            Some(text) if entry.any_case => text.eq_ignore_ascii_case(entry.text),
            Some(text) => text == entry.text,
            None => false,
        };
        self.lists[list].iter().filter(may_begin).filter(begins).map(|entry| entry.anchor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_anchor_has_three_bytes_and_a_list_of_its_own() {
        let texts = ANCHORS.lists.iter().flatten();
        assert!(texts.clone().all(|entry| entry.text.len() >= 3 && entry.text.is_ascii()));
        assert!(ANCHORS.lists.len() < usize::from(u8::MAX) && CONTEXTS.len() <= 32);
        for entry in texts {
            let text = [b"\x01\x01", entry.text, b"\x01"].concat();
            assert_eq!(ANCHORS.next(&text, 2, text.len()), Some(2));
            assert!(ANCHORS.at(&text, 2).next().is_some());
        }
    }
}
