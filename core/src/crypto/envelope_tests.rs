//! Tests of the envelope: vectors that must open for ever, every single flipped bit, and the
//! binding. The vectors are files in tests/vectors/envelopes_v1. A new format gets a new folder;
//! these files never change.

use proptest::prelude::*;

use super::*;
use crate::crypto::vectors::{Vector, read};

const P: ProjectId = ProjectId::new([1; 16]);
const K: ProviderKeyId = ProviderKeyId::new([2; 16]);
const KEY: &str = "sk-abcdefghijklmnopqrstuvwxyz";

fn root(byte: u8) -> RootKey {
    RootKey::from_bytes(&[byte; 32])
}

fn secret(text: &str) -> Secret {
    Secret::from(text.to_owned())
}

fn bound(version: u32, provider: &str) -> Binding<'_> {
    Binding::ProviderKey { project_id: P, provider_key_id: K, version, provider }
}

fn sealed() -> Sealed {
    seal(&root(1), 7, &bound(1, "openai"), &secret(KEY)).expect("sealed")
}

fn failure(opened: Result<Secret, EnvelopeError>) -> Option<EnvelopeError> {
    opened.err()
}

macro_rules! vectors {
    ($($name:literal),+ $(,)?) => {
        [$(($name, include_str!(concat!("../../tests/vectors/envelopes_v1/", $name, ".txt")))),+]
    };
}

/// Made once by tests/vectors/make_envelopes.py, another implementation in another language.
const VECTORS: &[(&str, &str)] = &vectors![
    "audit_key",
    "audit_key_as_canary",
    "audit_key_of_another_kind",
    "canary",
    "empty",
    "empty_key",
    "flipped_ciphertext",
    "flipped_master_key_version",
    "flipped_nonce",
    "flipped_salt",
    "flipped_tag",
    "format_zero",
    "header_only",
    "lengthened",
    "longest_key",
    "master_key_version_zero",
    "moved_project",
    "moved_row",
    "non_ascii_key",
    "other_provider",
    "other_provider_case",
    "other_version",
    "plain_key",
    "swapped_ids",
    "too_long",
    "truncated",
    "truncated_ciphertext",
    "unknown_format",
];

#[test]
fn envelopes_of_version_1_open_for_ever() {
    for (name, file) in VECTORS {
        let vector = &read(file)[0];
        let opened = Sealed::parse(vector.bytes("envelope")).and_then(|sealed| {
            open(&RootKey::from_bytes(&vector.array("root")), &binding_of(vector), &sealed)
        });
        match opened {
            Ok(plaintext) => {
                assert_eq!(vector.text("expect"), "opens", "{name}");
                assert_eq!(plaintext.expose(), vector.bytes("plaintext"), "{name}");
            }
            Err(error) => assert_eq!(vector.text("expect"), expectation(error), "{name}"),
        }
    }
}

fn binding_of(vector: &Vector) -> Binding<'static> {
    let (version, provider) = (vector.number("version"), vector.text("provider"));
    match vector.number("kind") {
        1 => Binding::ProviderKey {
            project_id: ProjectId::new(vector.array("project")),
            provider_key_id: ProviderKeyId::new(vector.array("provider_key")),
            version,
            provider,
        },
        2 => Binding::Canary { version },
        _ => Binding::AuditKey { version, kind: provider },
    }
}

fn expectation(error: EnvelopeError) -> String {
    match error {
        EnvelopeError::DoesNotOpen => "does not open".to_owned(),
        EnvelopeError::TooShort => "too short".to_owned(),
        EnvelopeError::TooLong => "too long".to_owned(),
        EnvelopeError::ZeroVersion => "zero version".to_owned(),
        EnvelopeError::UnknownFormat(byte) => format!("unknown format {byte}"),
        EnvelopeError::NoRandomness => "no randomness".to_owned(),
    }
}

#[test]
fn what_is_sealed_opens_in_its_place() {
    let sealed = sealed();
    assert_eq!(sealed.master_key_version(), 7);
    assert_eq!(sealed.bytes().len(), 49 + KEY.len());
    let parsed = Sealed::parse(sealed.bytes().to_vec()).expect("parsed");
    let opened = open(&root(1), &bound(1, "openai"), &parsed).expect("opened");
    assert!(opened.equals(&secret(KEY)));
}

#[test]
fn no_flipped_bit_opens() {
    let good = sealed();
    for bit in 0..good.bytes().len() * 8 {
        let mut bytes = good.bytes().to_vec();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let opened = Sealed::parse(bytes).and_then(|bad| open(&root(1), &bound(1, "openai"), &bad));
        assert!(opened.is_err(), "bit {bit}");
    }
}

#[test]
fn no_other_place_and_no_other_key_opens() {
    let sealed = sealed();
    let id = |project, key| Binding::ProviderKey {
        project_id: ProjectId::new(project),
        provider_key_id: ProviderKeyId::new(key),
        version: 1,
        provider: "openai",
    };
    for other in [
        id([9; 16], [2; 16]),
        id([1; 16], [9; 16]),
        id([2; 16], [1; 16]),
        bound(2, "openai"),
        bound(1, "openai "),
        bound(1, ""),
        Binding::Canary { version: 1 },
        Binding::AuditKey { version: 1, kind: "openai" },
    ] {
        assert_eq!(failure(open(&root(1), &other, &sealed)), Some(EnvelopeError::DoesNotOpen));
    }
    assert_eq!(
        failure(open(&root(2), &bound(1, "openai"), &sealed)),
        Some(EnvelopeError::DoesNotOpen)
    );
}

#[test]
fn the_same_plaintext_is_never_sealed_alike() {
    let (first, second) = (sealed(), sealed());
    for part in [HEADER..NONCE_AT, NONCE_AT..CIPHERTEXT_AT, CIPHERTEXT_AT..first.bytes().len()] {
        assert_ne!(first.bytes()[part.clone()], second.bytes()[part]);
    }
}

#[test]
fn bounds_are_kept() {
    let sealing = |version, binding, length| {
        seal(&root(1), version, &binding, &Secret::new(vec![b'k'; length])).err()
    };
    assert_eq!(sealing(1, bound(1, "x"), MAX_PLAINTEXT), None);
    assert_eq!(sealing(1, bound(1, "x"), MAX_PLAINTEXT + 1), Some(EnvelopeError::TooLong));
    assert_eq!(sealing(0, bound(1, "x"), 1), Some(EnvelopeError::ZeroVersion));
    assert_eq!(sealing(1, bound(0, "x"), 1), Some(EnvelopeError::ZeroVersion));
    assert_eq!(sealing(1, bound(1, &"x".repeat(65_536)), 1), Some(EnvelopeError::TooLong));
}

#[test]
fn neither_errors_nor_debug_show_bytes() {
    assert_eq!(format!("{:?}", sealed()), "Sealed(format 1, master key 7)");
    for error in
        [EnvelopeError::TooLong, EnvelopeError::UnknownFormat(9), EnvelopeError::DoesNotOpen]
    {
        assert!(!error.to_string().contains("sk-"));
    }
}

fn any_binding() -> impl Strategy<Value = (ProjectId, ProviderKeyId, u32, String)> {
    let bytes = any::<[u8; 16]>;
    (bytes().prop_map(ProjectId::new), bytes().prop_map(ProviderKeyId::new), 1u32.., "\\PC{0,20}")
}

fn binding_from(
    (project_id, provider_key_id, version, provider): &(ProjectId, ProviderKeyId, u32, String),
) -> Binding<'_> {
    Binding::ProviderKey {
        project_id: *project_id,
        provider_key_id: *provider_key_id,
        version: *version,
        provider,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_plaintext_comes_back(
        plaintext in proptest::collection::vec(any::<u8>(), 0..300),
        place in any_binding(),
        version in 1u32..,
        key in any::<[u8; 32]>(),
    ) {
        let (root, plaintext) = (RootKey::from_bytes(&key), Secret::new(plaintext));
        let sealed = seal(&root, version, &binding_from(&place), &plaintext).expect("sealed");
        let parsed = Sealed::parse(sealed.bytes().to_vec()).expect("parsed");
        prop_assert_eq!(parsed.master_key_version(), version);
        prop_assert!(
            open(&root, &binding_from(&place), &parsed).expect("opened").equals(&plaintext)
        );
    }

    #[test]
    fn only_the_same_place_opens(here in any_binding(), there in any_binding()) {
        prop_assume!(here != there);
        let sealed = seal(&root(1), 1, &binding_from(&here), &secret(KEY)).expect("sealed");
        prop_assert!(open(&root(1), &binding_from(&there), &sealed).is_err());
    }

    #[test]
    fn any_bytes_at_all_are_survived(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
        first in 0u8..3,
    ) {
        let bytes = [vec![first], bytes].concat();
        let opened =
            Sealed::parse(bytes).and_then(|sealed| open(&root(1), &bound(1, "x"), &sealed));
        prop_assert!(opened.is_err());
    }
}
