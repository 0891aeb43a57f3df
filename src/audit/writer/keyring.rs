//! The keyring as the writer loads it: read from its file or command, compared with the table, and
//! published for every process. Root keys are derived here and nowhere else (100 ms a version), the
//! active one first. The very first keyring also makes the audit keys
//! (docs/architecture.md#crypto).

use super::transaction::{Failure, as_owner};
use crate::crypto::envelope::{Binding, seal};
use crate::crypto::keyring::Keyring;
use crate::crypto::{RootKey, Secret, canary, random, signing};
use crate::error::Error;
use crate::postgres::{Owner, process};
use crate::settings::{self, KeyringSource};
use crate::shared_keyring::{self, VersionState};
use crate::store;
use crate::store::admin::MasterKey;
use pgrx::{log, warning};
use std::path::Path;

/// The keyring as this writer read it, and the versions still to derive.
#[derive(Default)]
pub(super) struct Loaded {
    keyring: Option<Keyring>,
    rows: Vec<(i32, [u8; 16], u32)>,
    pending: Vec<MasterKey>,
}

impl Loaded {
    /// Derives one waiting version. Answers whether there was one.
    pub(super) fn derive_one_version(&mut self, slot_number: usize) -> bool {
        let Some(row) = self.pending.pop() else { return false };
        let secret = self.keyring.as_ref().and_then(|keyring| keyring.secret(row.version as u32));
        let Some(secret) = secret else { return true };
        match derive(secret, &row) {
            Ok(root) => shared_keyring::publish_version(
                slot_number,
                row.version,
                VersionState::Ready,
                Some(&root),
            ),
            Err(error) => {
                warning!("watchllm_keys writer: {}", error.message());
                shared_keyring::publish_version(
                    slot_number,
                    row.version,
                    VersionState::Wrong,
                    None,
                );
            }
        }
        true
    }

    /// Whether a reload found what is already derived.
    fn is_same(&self, keyring: &Keyring, rows: &[MasterKey]) -> bool {
        let Some(old) = &self.keyring else { return false };
        let same_secret = |version: &u32| match (old.secret(*version), keyring.secret(*version)) {
            (Some(old), Some(new)) => old.equals(new),
            _ => false,
        };
        let rows = rows.iter().map(|row| (row.version, row.salt, row.iterations));
        rows.eq(self.rows.iter().copied())
            && old.versions() == keyring.versions()
            && keyring.versions().iter().all(same_secret)
    }
}

/// Reads the keyring and publishes it. A fault of the keyring is published too and is no failure:
/// the writer stays and waits for a reload. `meanwhile` is called while a command runs; false ends
/// the command.
pub(super) fn load(
    slot_number: usize,
    loaded: &mut Loaded,
    meanwhile: &mut dyn FnMut() -> bool,
) -> Result<(), Failure> {
    let refuse = |problem: &Error| {
        log!("watchllm_keys writer: {}", problem.message());
        shared_keyring::publish_problem(slot_number, problem);
    };
    let keyring = match read_keyring(meanwhile) {
        Ok(keyring) => keyring,
        Err(problem) => {
            refuse(&problem);
            return Ok(());
        }
    };
    let mut rows = as_owner(|owner| Ok(store::admin::master_keys(owner)))?;
    if rows.is_empty() {
        rows = as_owner(|owner| make_first(owner, &keyring))?;
    }
    if shared_keyring::is_ready(slot_number) && loaded.is_same(&keyring, &rows) {
        shared_keyring::publish_same(slot_number);
        return Ok(());
    }
    if let Err(problem) = publish(slot_number, &keyring, &rows) {
        refuse(&problem);
        return Ok(());
    }
    loaded.rows = rows.iter().map(|row| (row.version, row.salt, row.iterations)).collect();
    let wanted = |row: &MasterKey| !row.is_active && keyring.secret(row.version as u32).is_some();
    loaded.pending = rows.into_iter().filter(wanted).collect();
    loaded.keyring = Some(keyring);
    Ok(())
}

fn read_keyring(meanwhile: &mut dyn FnMut() -> bool) -> Result<Keyring, Error> {
    let read = match settings::keyring_source() {
        KeyringSource::File(path) => {
            let uid = process::server_uid()
                .ok_or_else(|| Error::NoMasterKey("the server's user is unknown".into()))?;
            Keyring::read_file(Path::new(&path), uid)
        }
        KeyringSource::Command { command, timeout } => {
            Keyring::run_command(&command, timeout, meanwhile)
        }
        KeyringSource::Nothing => {
            let neither =
                "neither watchllm_keys.master_key_file nor watchllm_keys.master_key_command is set";
            return Err(Error::NoMasterKey(neither.into()));
        }
    };
    read.map_err(|error| Error::NoMasterKey(error.to_string()))
}

fn publish(number: usize, keyring: &Keyring, rows: &[MasterKey]) -> Result<(), Error> {
    let active = rows.iter().find(|row| row.is_active).ok_or_else(|| {
        Error::NoMasterKey("no row of watchllm.master_keys is marked active".into())
    })?;
    let secret = keyring.secret(active.version as u32).ok_or_else(|| {
        Error::NoMasterKey(format!(
            "version {}, the active one, is not in the keyring",
            active.version
        ))
    })?;
    let root = derive(secret, active)?;
    let mut versions = vec![(active.version, VersionState::Ready, Some(&root))];
    let others =
        rows.iter().filter(|row| !row.is_active && keyring.secret(row.version as u32).is_some());
    versions.extend(others.map(|row| (row.version, VersionState::Coming, None)));
    shared_keyring::publish(number, active.version, &versions);
    Ok(())
}

fn derive(secret: &Secret, row: &MasterKey) -> Result<RootKey, Error> {
    let root = RootKey::derive(secret, &row.salt, row.iterations);
    match &row.canary {
        Some(sealed) if canary::holds(&root, row.version as u32, sealed) => Ok(root),
        _ => Err(Error::WrongMasterKey(row.version)),
    }
}

/// The first keyring ever loaded makes its highest version the active master key, and creates the
/// three audit keys.
fn make_first(owner: Owner, keyring: &Keyring) -> Result<Vec<MasterKey>, Error> {
    let version = keyring.versions().last().copied().unwrap_or_default();
    let secret =
        keyring.secret(version).ok_or_else(|| Error::NoMasterKey("the keyring is empty".into()))?;
    let salt = random::random_bytes::<16>().map_err(internal)?;
    let iterations = settings::pbkdf2_iterations();
    let root = RootKey::derive(secret, &salt, iterations);
    let canary = canary::make(&root, version).map_err(internal)?;
    store::admin::insert_first_master_key(owner, version as i32, &salt, iterations, &canary);
    make_audit_keys(owner, &root, version)?;
    Ok(store::admin::master_keys(owner))
}

fn make_audit_keys(owner: Owner, root: &RootKey, master_key_version: u32) -> Result<(), Error> {
    let (seed, public_key) = signing::generate().map_err(internal)?;
    let keys = [
        ("fingerprint", random::random_key().map_err(internal)?, None),
        ("mac", random::random_key().map_err(internal)?, None),
        ("digest", seed, Some(&public_key)),
    ];
    for (kind, key, public_key) in keys {
        let sealed = seal(root, master_key_version, &Binding::AuditKey { version: 1, kind }, &key)
            .map_err(internal)?;
        store::admin::insert_audit_key(owner, kind, 1, &sealed, public_key);
    }
    Ok(())
}

fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}
