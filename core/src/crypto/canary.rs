//! The canary: a known value sealed under each master-key version. If it does not open, the master
//! key is wrong. If it opens, an envelope that fails is damaged. Mozilla's logins store does the
//! same.

use super::envelope::{Binding, EnvelopeError, Sealed, open, seal};
use super::secret::{RootKey, Secret};

const KNOWN_VALUE: &[u8] = b"watchllm_keys canary v1";

/// Seals the known value under this version.
pub fn make(root: &RootKey, version: u32) -> Result<Sealed, EnvelopeError> {
    seal(root, version, &Binding::Canary { version }, &Secret::new(KNOWN_VALUE.to_vec()))
}

/// Verifies that the canary of `version` was sealed under this root key.
#[must_use]
pub fn holds(root: &RootKey, version: u32, canary: &Sealed) -> bool {
    let opened = open(root, &Binding::Canary { version }, canary);
    canary.master_key_version() == version
        && opened.is_ok_and(|value| value.equals(&Secret::new(KNOWN_VALUE.to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn root(byte: u8) -> RootKey {
        RootKey::from_bytes(&[byte; 32])
    }

    #[test]
    fn holds_under_its_own_key_and_version_only() {
        let canary = make(&root(1), 3).expect("sealed");
        assert!(holds(&root(1), 3, &canary));
        assert!(!holds(&root(2), 3, &canary));
        assert!(!holds(&root(1), 4, &canary));
    }

    #[test]
    fn another_value_or_another_header_is_no_canary() {
        let binding = Binding::Canary { version: 3 };
        let other =
            seal(&root(1), 3, &binding, &Secret::from("something".to_owned())).expect("sealed");
        assert!(!holds(&root(1), 3, &other));
        let known = Secret::new(KNOWN_VALUE.to_vec());
        let header = seal(&root(1), 4, &binding, &known).expect("sealed");
        assert!(!holds(&root(1), 3, &header));
    }

    #[test]
    fn version_zero_is_refused() {
        assert_eq!(make(&root(1), 0).err(), Some(EnvelopeError::ZeroVersion));
    }
}
