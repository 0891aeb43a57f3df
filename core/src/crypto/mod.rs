//! The crypto room: secrets in memory, the keyring, envelopes, fingerprints, WatchLLM's import
//! format. It may touch the system's random generator, the keyring's file or command, and a
//! secret's file. It touches nothing else: no PostgreSQL, no unsafe. The rules are in
//! docs/architecture.md#crypto and in the RFCs that each file names.
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
