//! WatchLLM's own key format, for the import. It is only read, never written: it binds an envelope
//! to no row. `encrypted_key` = base64(salt 16 ‖ ciphertext ‖ tag 16), `encryption_iv` =
//! base64(nonce 12). Key = PBKDF2-HMAC-SHA256(UTF-8 secret, salt, 100,000); AES-256-GCM without
//! AAD. See docs/migrate-watchllm.md.

use std::fmt;

use aes_gcm::{AeadInOut, Aes256Gcm, KeyInit, Nonce, Tag};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::secret::{Secret, derive_key};

const ITERATIONS: u32 = 100_000;

/// Why an imported key did not open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchllmError {
    /// Not base64, or too short: the row itself is broken.
    Damaged,
    /// Well formed, but this secret does not open it.
    DoesNotOpen,
}

impl fmt::Display for WatchllmError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Damaged => "the imported key is not in WatchLLM's format",
            Self::DoesNotOpen => "the imported key does not open under this secret",
        })
    }
}

impl std::error::Error for WatchllmError {}

/// Opens a row of WatchLLM's `provider_keys` with its `ENCRYPTION` secret. Costs one PBKDF2, some
/// 15 ms.
pub fn open(
    secret: &Secret,
    encrypted_key: &str,
    encryption_iv: &str,
) -> Result<Secret, WatchllmError> {
    open_with(secret, encrypted_key, encryption_iv, ITERATIONS)
}

fn open_with(
    secret: &Secret,
    encrypted_key: &str,
    iv: &str,
    iterations: u32,
) -> Result<Secret, WatchllmError> {
    let bytes = decode(encrypted_key)?;
    let nonce: [u8; 12] = decode(iv)?.try_into().map_err(|_| WatchllmError::Damaged)?;
    let (salt, rest) = bytes.split_first_chunk::<16>().ok_or(WatchllmError::Damaged)?;
    let (ciphertext, tag) = rest.split_last_chunk::<16>().ok_or(WatchllmError::Damaged)?;
    let key = derive_key(secret, salt, iterations);
    let mut plaintext = Zeroizing::new(ciphertext.to_vec());
    Aes256Gcm::new((&**key).into())
        .decrypt_inout_detached(
            &Nonce::from(nonce),
            &[],
            plaintext.as_mut_slice().into(),
            &Tag::from(*tag),
        )
        .map_err(|_| WatchllmError::DoesNotOpen)?;
    Ok(Secret::new(std::mem::take(&mut *plaintext)))
}

/// Decodes standard base64 with padding, as Node's Buffer writes it. White space is ignored, also
/// within: PostgreSQL's `encode()` and MIME break lines after 76 characters.
fn decode(text: &str) -> Result<Vec<u8>, WatchllmError> {
    let solid: String = text.split_whitespace().collect();
    STANDARD.decode(solid).map_err(|_| WatchllmError::Damaged)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::vectors::read;

    fn secret() -> Secret {
        Secret::from("w".repeat(40))
    }

    /// Seals as WatchLLM does, but with one iteration: a hundred thousand take a second in an
    /// unoptimised build.
    fn sealed(plaintext: &[u8]) -> (String, String) {
        let (salt, nonce) = ([5u8; 16], [6u8; 12]);
        let mut bytes = plaintext.to_vec();
        let cipher = Aes256Gcm::new((&**derive_key(&secret(), &salt, 1)).into());
        let tag = cipher
            .encrypt_inout_detached(&Nonce::from(nonce), &[], bytes.as_mut_slice().into())
            .expect("sealed");
        (STANDARD.encode([salt.as_slice(), &bytes, &tag].concat()), STANDARD.encode(nonce))
    }

    fn failure(encrypted_key: &str, iv: &str) -> Option<WatchllmError> {
        open_with(&secret(), encrypted_key, iv, 1).err()
    }

    /// Made by make_envelopes.py in tests/vectors, which shares no code with this file.
    #[test]
    fn what_another_implementation_sealed_opens() {
        for vector in read(include_str!("../../tests/vectors/watchllm.txt")) {
            let secret = Secret::from(vector.text("secret").to_owned());
            let opened = open(&secret, vector.text("encrypted_key"), vector.text("encryption_iv"));
            assert_eq!(
                opened.expect("opened").expose(),
                vector.bytes("plaintext"),
                "{}",
                vector.text("name")
            );
        }
    }

    #[test]
    fn white_space_around_is_forgiven() {
        let (key, iv) = sealed(b"sk-aaaa");
        let opened = open_with(&secret(), &format!(" {key}\n"), &format!("{iv}\r\n"), 1);
        assert_eq!(opened.expect("opened").expose(), b"sk-aaaa");
    }

    /// As PostgreSQL's `encode(…, 'base64')` writes what is longer than 57 bytes.
    #[test]
    fn base64_in_lines_is_read() {
        let (key, iv) = sealed(&[b'k'; 120]);
        for end in ["\n", "\r\n"] {
            let lines: Vec<&str> =
                (0..key.len()).step_by(76).map(|at| &key[at..key.len().min(at + 76)]).collect();
            let opened = open_with(&secret(), &lines.join(end), &iv, 1);
            assert_eq!(opened.expect("opened").expose(), [b'k'; 120]);
        }
    }

    #[test]
    fn what_is_malformed_is_damaged() {
        let (key, iv) = sealed(b"sk-aaaa");
        let short = STANDARD.encode([0; 31]);
        for (key, iv) in [
            ("", iv.as_str()),
            ("not base64!", &iv),
            (&key[1..], &iv),
            (&short, &iv),
            (&key, ""),
            (&key, "AAAA"),
            (&key, &STANDARD.encode([0; 16])),
        ] {
            assert_eq!(failure(key, iv), Some(WatchllmError::Damaged), "{key} {iv}");
        }
    }

    #[test]
    fn what_is_changed_or_anothers_does_not_open() {
        let (key, iv) = sealed(b"sk-aaaa");
        assert_eq!(
            open_with(&Secret::from("x".repeat(40)), &key, &iv, 1).err(),
            Some(WatchllmError::DoesNotOpen)
        );
        assert_eq!(failure(&key, &STANDARD.encode([7; 12])), Some(WatchllmError::DoesNotOpen));
        let bytes = STANDARD.decode(&key).expect("base64");
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(
                failure(&STANDARD.encode(changed), &iv),
                Some(WatchllmError::DoesNotOpen),
                "byte {at}"
            );
        }
    }
}
