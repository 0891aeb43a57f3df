//! The digest signing key of `audit_keys` (Ed25519, RFC 8032). It signs digests of the audit trail,
//! and an auditor needs the public half only. This file makes the pair; signing comes with the
//! digests.

use ed25519_dalek::SigningKey;
use zeroize::Zeroizing;

use super::random::{NoRandomness, random_key};
use super::secret::{KEY_BYTES, Secret};

/// Generates a key pair: the 32-byte seed (RFC 8032 §5.1.5) to be sealed, and the public key to be
/// published.
pub fn generate() -> Result<(Secret, [u8; 32]), NoRandomness> {
    let seed = random_key()?;
    let public = public_of(&seed);
    Ok((seed, public))
}

fn public_of(seed: &Secret) -> [u8; 32] {
    let mut bytes = Zeroizing::new([0u8; KEY_BYTES]);
    bytes.iter_mut().zip(seed.expose()).for_each(|(to, byte)| *to = *byte);
    SigningKey::from_bytes(&bytes).verifying_key().to_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::vectors::read;

    #[test]
    fn every_pair_is_new() {
        let (seed, public) = generate().expect("a pair");
        let (other_seed, other_public) = generate().expect("a pair");
        assert_eq!(seed.len(), 32);
        assert!(!seed.equals(&other_seed));
        assert_ne!(public, other_public);
        assert_eq!(public, public_of(&seed));
    }

    /// RFC 8032 §7.1.
    #[test]
    fn the_public_half_is_the_published_one() {
        for vector in read(include_str!("../../tests/vectors/ed25519.txt")) {
            assert_eq!(public_of(&Secret::new(vector.bytes("seed"))), vector.array::<32>("public"));
        }
    }
}
