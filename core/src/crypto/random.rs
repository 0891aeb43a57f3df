//! Random bytes from the operating system, and from nowhere else: a forked server could copy the
//! state of a seeded generator. Used for salts, nonces and keys (NIST SP 800-90C; getrandom(2)).

use std::fmt;

use rand::TryRng;
use rand::rngs::SysRng;

use super::secret::{KEY_BYTES, Secret};

/// The operating system gave no random bytes: then nothing may be sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRandomness;

impl fmt::Display for NoRandomness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the operating system gave no random bytes")
    }
}

impl std::error::Error for NoRandomness {}

/// Draws `N` random bytes that are not secret: a salt, a nonce, an id.
pub fn random_bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut bytes = [0u8; N];
    SysRng.try_fill_bytes(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// Generates a 32-byte key in its final buffer.
pub fn random_key() -> Result<Secret, NoRandomness> {
    let mut bytes = vec![0u8; KEY_BYTES];
    SysRng.try_fill_bytes(&mut bytes).map_err(|_| NoRandomness)?;
    Ok(Secret::new(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_draws_differ() {
        let (first, second) = (random_key().expect("a key"), random_key().expect("a key"));
        assert_eq!(first.len(), KEY_BYTES);
        assert!(!first.equals(&second));
        assert_ne!(random_bytes::<16>(), random_bytes::<16>());
    }
}
