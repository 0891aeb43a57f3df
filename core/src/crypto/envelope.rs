//! Envelopes: seals a plaintext under a root key and opens it again (AES-256-GCM, RFC 5116).
//! Envelope v1 = format (1) ‖ master-key version (4, big endian) ‖ salt (16) ‖ nonce (12) ‖
//! ciphertext ‖ tag (16). Sealing key = HKDF-SHA256(root key, salt, info), RFC 5869. AAD = the row
//! it belongs to. See docs/architecture.md#crypto and #bytes.

use std::fmt;

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};
use hkdf::Hkdf;
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::id::{ProjectId, ProviderKeyId};

use super::random::{NoRandomness, random_bytes};
use super::secret::{KEY_BYTES, RootKey, Secret};

/// The longest plaintext an envelope takes, in bytes: the longest API key
/// (docs/architecture.md#lengths).
pub const MAX_PLAINTEXT: usize = 4096;

const FORMAT_1: u8 = 1;
const SEAL_INFO: &[u8] = b"watchllm_keys seal v1";
const AAD_LABEL: &[u8] = b"watchllm_keys aad v1";
const SALT_BYTES: usize = 16;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
const HEADER: usize = 1 + 4;
const NONCE_AT: usize = HEADER + SALT_BYTES;
const CIPHERTEXT_AT: usize = NONCE_AT + NONCE_BYTES;
const SHORTEST: usize = CIPHERTEXT_AT + TAG_BYTES;

/// Why something did not seal or open. Carries no key material, so it may be shown and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EnvelopeError {
    /// Fewer bytes than an empty envelope has: it was cut off.
    TooShort,
    /// Longer than an envelope, a provider's name or a plaintext may be.
    TooLong,
    /// A format byte that this release does not know.
    UnknownFormat(u8),
    /// Master-key and row versions start at 1.
    ZeroVersion,
    /// Wrong root key, moved to another row, or damaged. The cipher does not tell which; `canary`
    /// does.
    DoesNotOpen,
    /// The operating system gave no salt or nonce.
    NoRandomness,
}

impl fmt::Display for EnvelopeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("the envelope is cut off"),
            Self::TooLong => {
                write!(f, "more than {MAX_PLAINTEXT} bytes do not fit into an envelope")
            }
            Self::UnknownFormat(byte) => write!(f, "envelope format {byte} is not known"),
            Self::ZeroVersion => f.write_str("versions start at 1"),
            Self::DoesNotOpen => {
                f.write_str("the envelope does not open under this key in this place")
            }
            Self::NoRandomness => NoRandomness.fmt(f),
        }
    }
}

impl std::error::Error for EnvelopeError {}

impl From<NoRandomness> for EnvelopeError {
    fn from(_: NoRandomness) -> Self {
        Self::NoRandomness
    }
}

/// The bytes of an envelope, as stored. They are ciphertext, so they may be copied. Debug shows the
/// versions only.
#[derive(Clone)]
pub struct Sealed(Vec<u8>);

impl Sealed {
    /// Parses stored bytes: checks format, length and master-key version, not yet the tag.
    pub fn parse(bytes: Vec<u8>) -> Result<Self, EnvelopeError> {
        match bytes.first() {
            None => return Err(EnvelopeError::TooShort),
            Some(&FORMAT_1) => {}
            Some(&other) => return Err(EnvelopeError::UnknownFormat(other)),
        }
        if bytes.len() < SHORTEST {
            return Err(EnvelopeError::TooShort);
        }
        if bytes.len() > SHORTEST + MAX_PLAINTEXT {
            return Err(EnvelopeError::TooLong);
        }
        let sealed = Self(bytes);
        if sealed.master_key_version() == 0 {
            return Err(EnvelopeError::ZeroVersion);
        }
        Ok(sealed)
    }

    /// Shows the bytes to store.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Names the version of the master key that opens it.
    pub fn master_key_version(&self) -> u32 {
        u32::from_be_bytes(array(&self.0, 1))
    }
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed(format {FORMAT_1}, master key {})", self.master_key_version())
    }
}

/// The row an envelope belongs to. It opens in no other row.
#[derive(Debug, Clone, Copy)]
pub enum Binding<'a> {
    /// A row of `provider_key_versions`.
    ProviderKey {
        /// The tenant.
        project_id: ProjectId,
        /// The key's id.
        provider_key_id: ProviderKeyId,
        /// The key's version, from 1.
        version: u32,
        /// The provider's slug.
        provider: &'a str,
    },
    /// The canary of a row of `master_keys`.
    Canary {
        /// The master key's version.
        version: u32,
    },
    /// A row of `audit_keys`. `kind` is bound too, so that a fingerprint key cannot pass for a MAC
    /// key.
    AuditKey {
        /// The row's version.
        version: u32,
        /// What the key is for.
        kind: &'a str,
    },
}

impl Binding<'_> {
    /// Builds the associated data for an envelope with this header (docs/architecture.md#bytes).
    fn aad(&self, header: [u8; HEADER]) -> Result<Vec<u8>, EnvelopeError> {
        const NONE: (ProjectId, ProviderKeyId) = (ProjectId::NIL, ProviderKeyId::NIL);
        let (kind, (project, key), version, provider) = match self {
            Self::ProviderKey { project_id, provider_key_id, version, provider } => {
                (1u8, (*project_id, *provider_key_id), *version, *provider)
            }
            Self::Canary { version } => (2, NONE, *version, ""),
            Self::AuditKey { version, kind } => (3, NONE, *version, *kind),
        };
        if version == 0 {
            return Err(EnvelopeError::ZeroVersion);
        }
        let length = u16::try_from(provider.len()).map_err(|_| EnvelopeError::TooLong)?;
        let (version, length) = (version.to_be_bytes(), length.to_be_bytes());
        Ok([
            AAD_LABEL,
            &[kind],
            &header,
            project.bytes(),
            key.bytes(),
            &version,
            &length,
            provider.as_bytes(),
        ]
        .concat())
    }
}

/// Seals a plaintext for its place under version `master_key_version` (RFC 5116 §2.1).
///
/// Salt and nonce are drawn inside and never passed: a repeated nonce would disclose both
/// plaintexts. A fresh salt means a fresh AES key, so the 2^32 limit on random nonces (NIST SP
/// 800-38D §8.3) is never near.
pub fn seal(
    root: &RootKey,
    master_key_version: u32,
    binding: &Binding<'_>,
    plaintext: &Secret,
) -> Result<Sealed, EnvelopeError> {
    seal_with(root, master_key_version, binding, plaintext, random_bytes()?, random_bytes()?)
}

fn seal_with(
    root: &RootKey,
    master_key_version: u32,
    binding: &Binding<'_>,
    plaintext: &Secret,
    salt: [u8; SALT_BYTES],
    nonce: [u8; NONCE_BYTES],
) -> Result<Sealed, EnvelopeError> {
    if master_key_version == 0 {
        return Err(EnvelopeError::ZeroVersion);
    }
    if plaintext.len() > MAX_PLAINTEXT {
        return Err(EnvelopeError::TooLong);
    }
    // The buffer has its full size from the start, so it never grows and leaves no plaintext
    // behind. It is wiped if sealing fails.
    let mut bytes = Zeroizing::new(Vec::with_capacity(SHORTEST + plaintext.len()));
    bytes.push(FORMAT_1);
    bytes.extend_from_slice(&master_key_version.to_be_bytes());
    bytes.extend_from_slice(&salt);
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(plaintext.expose());
    let aad = binding.aad(array(&bytes, 0))?;
    let tag = cipher(root, &salt)?
        .encrypt_inout_detached(&Nonce::from(nonce), &aad, (&mut bytes[CIPHERTEXT_AT..]).into())
        .map_err(|_| EnvelopeError::TooLong)?;
    bytes.extend_from_slice(&tag);
    Ok(Sealed(std::mem::take(&mut *bytes)))
}

/// Opens an envelope in its place (RFC 5116 §2.2). No plaintext is given out unless the tag is
/// right.
pub fn open(
    root: &RootKey,
    binding: &Binding<'_>,
    sealed: &Sealed,
) -> Result<Secret, EnvelopeError> {
    let (front, tag) = sealed.0.split_at(sealed.0.len() - TAG_BYTES);
    let aad = binding.aad(array(front, 0))?;
    let salt: [u8; SALT_BYTES] = array(front, HEADER);
    let nonce: [u8; NONCE_BYTES] = array(front, NONCE_AT);
    let mut plaintext = Zeroizing::new(front[CIPHERTEXT_AT..].to_vec());
    cipher(root, &salt)?
        .decrypt_inout_detached(
            &Nonce::from(nonce),
            &aad,
            plaintext.as_mut_slice().into(),
            &Tag::from(array(tag, 0)),
        )
        .map_err(|_| EnvelopeError::DoesNotOpen)?;
    Ok(Secret::new(std::mem::take(&mut *plaintext)))
}

/// Derives the sealing key of one envelope: HKDF-SHA256 (RFC 5869). HKDF refuses only outputs over
/// 8160 bytes, and this one has 32. If it failed all the same, nothing may be sealed under a key of
/// zeros.
fn cipher(root: &RootKey, salt: &[u8; SALT_BYTES]) -> Result<Aes256Gcm, EnvelopeError> {
    let mut key = Zeroizing::new([0u8; KEY_BYTES]);
    Hkdf::<Sha256>::new(Some(salt), root.expose())
        .expand(SEAL_INFO, key.as_mut_slice())
        .map_err(|_| EnvelopeError::TooLong)?;
    Ok(Aes256Gcm::new((&*key).into()))
}

/// Copies `N` bytes out. `parse` checked the lengths, so there are always enough.
fn array<const N: usize>(bytes: &[u8], from: usize) -> [u8; N] {
    let mut out = [0u8; N];
    out.iter_mut().zip(bytes.iter().skip(from)).for_each(|(to, byte)| *to = *byte);
    out
}

#[cfg(test)]
#[path = "envelope_tests.rs"]
mod tests;
