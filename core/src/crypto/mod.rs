//! The crypto room: secrets in memory, the keyring, envelopes, fingerprints, WatchLLM's import
//! format. It may touch the operating system's random generator, the keyring's file or command and
//! a secret's file, nothing else: no PostgreSQL, no unsafe. The rules come from DESIGN.md §3 and
//! §11, and from the RFCs each file names.
#![forbid(unsafe_code)]

pub mod canary;
pub mod envelope;
pub mod fingerprint;
pub mod keyring;
mod keyring_command;
mod keyring_file;
pub mod random;
pub mod secret;
pub mod secret_file;
pub mod signing;
pub mod watchllm;

pub use envelope::Sealed;
#[cfg(test)]
pub(crate) use secret::lacks;
pub use secret::{RootKey, Secret};

#[cfg(test)]
mod known_answers;
#[cfg(test)]
mod vectors;
