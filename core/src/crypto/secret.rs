//! Secrets in memory: a provider key or master secret (`Secret`) and a derived root key
//! (`RootKey`). Both are zeroed on drop and have no Debug, Display, Clone or PartialEq. So no log
//! line, panic message or forgotten copy can carry them. PBKDF2 is that of RFC 8018, the number of
//! iterations OWASP's.

use pbkdf2::pbkdf2_hmac;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

/// The fewest PBKDF2 iterations a root key is ever derived with (docs/architecture.md#crypto).
pub const MIN_ITERATIONS: u32 = 100_000;
/// The iterations a new master key gets: OWASP's figure for PBKDF2-HMAC-SHA256.
pub const DEFAULT_ITERATIONS: u32 = 600_000;
/// The bytes of every symmetric key in this room.
pub const KEY_BYTES: usize = 32;

/// Bytes that must not be seen: readable through `expose` alone, zeroed on drop.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over a buffer without copying it, and wipes it (its spare capacity too) on drop.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// Shows the bytes. This is the only way to them: whoever audits disclosure greps for this
    /// word.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// Counts the bytes.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Tells whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in constant time for equal lengths; the length itself is not hidden.
    pub fn equals(&self, other: &Secret) -> bool {
        self.0.as_slice().ct_eq(other.0.as_slice()).into()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self::new(text.into_bytes())
    }
}

/// The key derived from one version of the master key. Boxed, because moving an array copies it and
/// leaves an unwiped copy on the stack.
pub struct RootKey(Box<Zeroizing<[u8; KEY_BYTES]>>);

impl RootKey {
    /// Derives the root key with PBKDF2-HMAC-SHA256 (RFC 8018 §5.2).
    ///
    /// A number below `MIN_ITERATIONS` is raised to it. A tampered row may ask for a cheap
    /// derivation: then its canary does not open, and no weak root key comes into use.
    pub fn derive(secret: &Secret, salt: &[u8; 16], iterations: u32) -> Self {
        Self(derive_key(secret, salt, iterations.max(MIN_ITERATIONS)))
    }

    /// Copies a root key that was derived earlier and kept in shared memory.
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        let mut key = Box::new(Zeroizing::new([0u8; KEY_BYTES]));
        key.copy_from_slice(bytes);
        Self(key)
    }

    /// Shows the bytes: for sealing, opening, and keeping them in shared memory.
    pub fn expose(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

/// Derives 32 bytes with PBKDF2-HMAC-SHA256, with no lower bound: WatchLLM's format and the vectors
/// need fewer iterations.
pub(super) fn derive_key(
    secret: &Secret,
    salt: &[u8],
    iterations: u32,
) -> Box<Zeroizing<[u8; KEY_BYTES]>> {
    let mut key = Box::new(Zeroizing::new([0u8; KEY_BYTES]));
    pbkdf2_hmac::<Sha256>(secret.expose(), salt, iterations, key.as_mut_slice());
    key
}

/// Compiles only while none of the types has the trait: with the trait, `shows` would be ambiguous.
#[cfg(test)]
macro_rules! lacks {
    ($type:ty, $($trait:path),+) => { $({
        trait Lacks<A> { fn shows() {} }
        impl<T: ?Sized> Lacks<()> for T {}
        struct Has;
        impl<T: ?Sized + $trait> Lacks<Has> for T {}
        let _ = <$type as Lacks<_>>::shows;
    })+ };
}
#[cfg(test)]
pub(crate) use lacks;

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret {
        Secret::from(text.to_owned())
    }

    #[test]
    fn equals_compares_content_and_length() {
        assert!(secret("abc").equals(&secret("abc")));
        assert!(!secret("abc").equals(&secret("abd")));
        assert!(!secret("abc").equals(&secret("abcd")));
        assert!(secret("").equals(&Secret::new(Vec::new())));
    }

    #[test]
    fn a_secret_keeps_its_bytes() {
        let kept = secret("schlüssel");
        assert_eq!(kept.expose(), "schlüssel".as_bytes());
        assert_eq!(kept.len(), 10);
        assert!(!kept.is_empty());
        assert!(Secret::new(Vec::new()).is_empty());
    }

    #[test]
    fn too_few_iterations_are_raised_to_the_minimum() {
        let (master, salt) = (secret(&"m".repeat(32)), [7u8; 16]);
        let raised = RootKey::derive(&master, &salt, 1);
        let least = RootKey::derive(&master, &salt, MIN_ITERATIONS);
        assert_eq!(raised.expose(), least.expose());
        assert_ne!(raised.expose(), &**derive_key(&master, &salt, 1));
    }

    #[test]
    fn a_root_key_comes_back_from_its_bytes() {
        assert_eq!(RootKey::from_bytes(&[9; 32]).expose(), &[9; 32]);
    }

    #[test]
    fn secrets_cannot_be_printed_copied_or_compared_by_accident() {
        lacks!(Secret, std::fmt::Debug, std::fmt::Display, Clone, PartialEq);
        lacks!(RootKey, std::fmt::Debug, std::fmt::Display, Clone, PartialEq);
    }
}
