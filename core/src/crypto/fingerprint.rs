//! Fingerprints: a keyed hash of a provider key. They tell equal keys apart without opening them,
//! and recognise destroyed keys. HMAC-SHA256 (RFC 2104) is keyed, because a key could be guessed
//! from a plain hash.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::secret::{KEY_BYTES, Secret};

/// The key of all fingerprints of one version: zeroed on drop, never shown. Boxed for the reason
/// `RootKey` is.
pub struct FingerprintKey(Box<Zeroizing<[u8; KEY_BYTES]>>);

impl FingerprintKey {
    /// Takes a key as opened from `audit_keys`. Answers None if it does not have exactly 32 bytes.
    pub fn from_secret(secret: &Secret) -> Option<Self> {
        if secret.len() != KEY_BYTES {
            return None;
        }
        let mut key = Box::new(Zeroizing::new([0u8; KEY_BYTES]));
        key.copy_from_slice(secret.expose());
        Some(Self(key))
    }

    /// Computes the fingerprint of a provider key: HMAC-SHA256, 32 bytes (RFC 2104).
    pub fn fingerprint(&self, provider_key: &Secret) -> [u8; 32] {
        // HMAC pads a short key with zeros to its block of 64 bytes; this key has 32. So this is
        // `new_from_slice` without an error that cannot occur.
        let mut block = Zeroizing::new([0u8; 64]);
        block[..KEY_BYTES].copy_from_slice(self.0.as_slice());
        let mut mac = Hmac::<Sha256>::new((&*block).into());
        mac.update(provider_key.expose());
        mac.finalize().into_bytes().into()
    }
}

/// Compares two fingerprints in constant time; different lengths are different.
#[must_use]
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> FingerprintKey {
        FingerprintKey::from_secret(&Secret::new(vec![byte; 32])).expect("32 bytes")
    }

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[test]
    fn only_32_bytes_make_a_key() {
        for length in [0, 16, 31, 33, 64] {
            assert!(FingerprintKey::from_secret(&Secret::new(vec![1; length])).is_none());
        }
    }

    #[test]
    fn equal_keys_are_equal_and_others_are_not() {
        assert!(same(&key(1).fingerprint(&secret("a")), &key(1).fingerprint(&secret("a"))));
        assert!(!same(&key(1).fingerprint(&secret("a")), &key(1).fingerprint(&secret("b"))));
        assert!(!same(&key(1).fingerprint(&secret("a")), &key(2).fingerprint(&secret("a"))));
        assert!(!same(b"a", b"ab"));
    }

    /// Second source:
    /// python3 -c "import hmac; print(hmac.new(b'\x0b'*32, b'Hi There', 'sha256').hexdigest())"
    #[test]
    fn agrees_with_another_implementation() {
        let hex: String =
            key(0x0b).fingerprint(&secret("Hi There")).iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(hex, "198a607eb44bfbc69903a0f1cf2bbdc5ba0aa3f3d9ae3c1c7a3b1696a0b68cf7");
    }
}
