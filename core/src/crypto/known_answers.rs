//! Known answers: published vectors for the primitives that this room uses. Python's `cryptography`
//! and `hashlib` gave the same answers when the files were made. Do not take a release of a
//! dependency that disagrees with one of them.

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use sha2::Sha256;

use super::secret::{RootKey, Secret, derive_key};
use super::vectors::read;

/// McGrew & Viega, "The Galois/Counter Mode of Operation", test cases 13-16; NIST CAVP
/// gcmEncryptExtIV256.
#[test]
fn aes_256_gcm() {
    for vector in read(include_str!("../../tests/vectors/aes_256_gcm.txt")) {
        let cipher = Aes256Gcm::new(&vector.array::<32>("key").into());
        let nonce = Nonce::from(vector.array::<12>("nonce"));
        let (aad, plaintext) = (vector.bytes("aad"), vector.bytes("plaintext"));
        let mut buffer = plaintext.clone();
        let tag = cipher
            .encrypt_inout_detached(&nonce, &aad, buffer.as_mut_slice().into())
            .expect("sealed");
        let name = vector.text("name");
        assert_eq!(
            (buffer.clone(), tag.to_vec()),
            (vector.bytes("ciphertext"), vector.bytes("tag")),
            "{name}"
        );
        let tag = Tag::from(vector.array::<16>("tag"));
        cipher
            .decrypt_inout_detached(&nonce, &aad, buffer.as_mut_slice().into(), &tag)
            .expect("opened");
        assert_eq!(buffer, plaintext, "{name}");
    }
}

/// RFC 7914 §11, and the inputs of RFC 6070 with SHA-256. The one of 80,000 iterations takes a
/// second or two in an unoptimised build.
#[test]
fn pbkdf2_hmac_sha256() {
    for vector in read(include_str!("../../tests/vectors/pbkdf2_hmac_sha256.txt")) {
        let secret = Secret::new(vector.bytes("secret"));
        let key = derive_key(&secret, &vector.bytes("salt"), vector.number("iterations"));
        assert_eq!(key.to_vec(), vector.bytes("key"), "{}", vector.text("name"));
    }
}

/// Made by make_envelopes.py: a root key as docs/architecture.md#crypto derives it.
#[test]
fn root_key() {
    for vector in read(include_str!("../../tests/vectors/root_key.txt")) {
        let secret = Secret::from(vector.text("secret").to_owned());
        let root = RootKey::derive(&secret, &vector.array("salt"), vector.number("iterations"));
        assert_eq!(root.expose(), &vector.array::<32>("root"));
    }
}

/// RFC 5869 appendix A.1 to A.3.
#[test]
fn hkdf_sha256() {
    for vector in read(include_str!("../../tests/vectors/hkdf_sha256.txt")) {
        let expected = vector.bytes("output");
        let mut output = vec![0; expected.len()];
        let hkdf = Hkdf::<Sha256>::new(Some(&vector.bytes("salt")), &vector.bytes("key"));
        hkdf.expand(&vector.bytes("info"), &mut output).expect("expanded");
        assert_eq!(output, expected, "{}", vector.text("name"));
    }
}

/// RFC 4231 §4.2 to §4.5, §4.7 and §4.8.
#[test]
fn hmac_sha256() {
    for vector in read(include_str!("../../tests/vectors/hmac_sha256.txt")) {
        let mut mac = Hmac::<Sha256>::new_from_slice(&vector.bytes("key")).expect("any length");
        mac.update(&vector.bytes("data"));
        assert_eq!(
            mac.finalize().into_bytes().to_vec(),
            vector.bytes("mac"),
            "{}",
            vector.text("name")
        );
    }
}
