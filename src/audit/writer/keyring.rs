//! What a writer takes up before it serves: the database's identity, the keyring, the chain's key
//! and head. Root keys are derived here and nowhere else (100 ms a version), the active one first.
//! DESIGN §3, §8.

use super::batch::{self, Chain};
use super::warm_up;
use super::{Failure, Writer, transaction};
use crate::anomaly::Watch;
use crate::crypto::envelope::{Binding, open, seal};
use crate::crypto::keyring::Keyring;
use crate::crypto::{RootKey, Secret, canary, random, signing};
use crate::error::Error;
use crate::id::IdentityId;
use crate::postgres::{Owner, process, session};
use crate::settings::{self, KeyringSource};
use crate::shared_keyring::{self, Entry};
use crate::store;
use crate::store::admin::MasterKey;
use crate::trail::MacKey;
use pgrx::{log, warning};
use std::collections::BTreeSet;
use std::path::Path;

/// The keyring as this writer read it, and the versions it has still to derive.
#[derive(Default)]
pub(super) struct Loaded {
    keyring: Option<Keyring>,
    rows: Vec<(i32, [u8; 16], u32)>,
    pending: Vec<MasterKey>,
}

/// Looks whether this database can be served, and answers what an earlier writer committed but did
/// not live to answer.
pub(super) fn look_around(writer: &mut Writer) -> Result<(), Failure> {
    transaction(|| if session::is_utf8_database() { Ok(()) } else { Err(Error::NotUtf8) })?;
    let last = transaction(|| Ok(store::trail::last(store::installed::owner()?)))?;
    if let Some(last) = last {
        batch::answer_committed(writer, &last)?;
    }
    Ok(())
}

/// Loads the keyring unless an earlier writer has, and opens the chain. A missing or wrong master
/// key is no failure: the writer stays and waits for a reload.
pub(super) fn take_up(writer: &mut Writer) {
    let loaded = if shared_keyring::is_complete(writer.number) { Ok(()) } else { load(writer) };
    if let Err(failure) = loaded.and_then(|()| open_chain(writer)) {
        log!("watchllm_keys writer: {}", failure.message);
        writer.slot.set_problem(&failure.message);
        shared_keyring::publish_problem(writer.number, &Error::NoMasterKey(failure.message));
    }
}

/// Reads the keyring again; what cannot be loaded leaves what is in use as it is.
pub(super) fn reload(writer: &mut Writer) {
    let outcome = load(writer).and_then(|()| open_chain(writer));
    if let Err(failure) = outcome {
        warning!("watchllm_keys writer: the keyring was not reloaded: {}", failure.message);
        shared_keyring::publish_problem(writer.number, &Error::NoMasterKey(failure.message));
    }
}

/// Derives one version that waits for it; whether there was one.
pub(super) fn derive_one(writer: &mut Writer) -> bool {
    let Some(row) = writer.keyring.pending.pop() else { return false };
    let secret =
        writer.keyring.keyring.as_ref().and_then(|keyring| keyring.secret(row.version as u32));
    let Some(secret) = secret else { return true };
    match derive(secret, &row) {
        Ok(root) => {
            shared_keyring::publish_version(writer.number, row.version, Entry::Ready, Some(&root))
        }
        Err(error) => {
            warning!("watchllm_keys writer: {}", error.message());
            shared_keyring::publish_version(writer.number, row.version, Entry::Wrong, None);
        }
    }
    true
}

fn load(writer: &mut Writer) -> Result<(), Failure> {
    let keyring = match read_keyring(writer) {
        Ok(keyring) => keyring,
        Err(problem) => {
            log!("watchllm_keys writer: {}", problem.message());
            shared_keyring::publish_problem(writer.number, &problem);
            return Ok(());
        }
    };
    let mut rows = transaction(|| Ok(store::admin::master_keys(store::installed::owner()?)))?;
    if rows.is_empty() {
        rows = transaction(|| make_first(store::installed::owner()?, &keyring))?;
    }
    if unchanged(writer, &keyring, &rows) {
        shared_keyring::publish_same(writer.number);
        return Ok(());
    }
    if let Err(problem) = publish(writer.number, &keyring, &rows) {
        log!("watchllm_keys writer: {}", problem.message());
        shared_keyring::publish_problem(writer.number, &problem);
        return Ok(());
    }
    writer.keyring.rows = rows.iter().map(|row| (row.version, row.salt, row.iterations)).collect();
    let wanted = |row: &MasterKey| !row.is_active && keyring.secret(row.version as u32).is_some();
    writer.keyring.pending = rows.into_iter().filter(wanted).collect();
    writer.keyring.keyring = Some(keyring);
    Ok(())
}

/// Reads the keyring from its source. While a command runs, callers are served under what is
/// already loaded, and a server that wants to stop is not kept waiting.
fn read_keyring(writer: &mut Writer) -> Result<Keyring, Error> {
    let read = match settings::keyring_source() {
        KeyringSource::File(path) => {
            let uid = process::server_uid()
                .ok_or_else(|| Error::NoMasterKey("the server's user is unknown".into()))?;
            Keyring::read_file(Path::new(&path), uid)
        }
        KeyringSource::Command { command, timeout } => {
            let mut meanwhile = || {
                if writer.chain.is_some() && !writer.slot.is_empty() {
                    batch::serve(writer);
                }
                !process::must_end()
            };
            Keyring::run_command(&command, timeout, &mut meanwhile)
        }
        KeyringSource::Nothing => {
            let neither =
                "neither watchllm_keys.master_key_file nor watchllm_keys.master_key_command is set";
            return Err(Error::NoMasterKey(neither.into()));
        }
    };
    read.map_err(|error| Error::NoMasterKey(error.to_string()))
}

/// Whether the reload found what is already derived.
fn unchanged(writer: &Writer, keyring: &Keyring, rows: &[MasterKey]) -> bool {
    let Some(old) = &writer.keyring.keyring else { return false };
    let same_secret = |version: &u32| match (old.secret(*version), keyring.secret(*version)) {
        (Some(old), Some(new)) => old.equals(new),
        _ => false,
    };
    let same_rows = rows.iter().map(|row| (row.version, row.salt, row.iterations)).eq(writer
        .keyring
        .rows
        .iter()
        .copied());
    shared_keyring::is_ready(writer.number)
        && same_rows
        && old.versions() == keyring.versions()
        && keyring.versions().iter().all(same_secret)
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
    let mut versions = vec![(active.version, Entry::Ready, Some(&root))];
    let others =
        rows.iter().filter(|row| !row.is_active && keyring.secret(row.version as u32).is_some());
    versions.extend(others.map(|row| (row.version, Entry::Coming, None)));
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

/// The first keyring ever loaded makes its highest version the active master key, and the three
/// audit keys.
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

/// Opens the chain, and fills the watch once it is open. Without the watch it stays closed, which
/// serves nobody: who is blocked would be let in, and every limit be the default.
fn open_chain(writer: &mut Writer) -> Result<(), Failure> {
    open_its_key(writer)?;
    if writer.chain.is_none() {
        return Ok(());
    }
    let started = warm_up::start(writer);
    if started.is_err() {
        (writer.chain, writer.watch) = (None, Watch::default()); // it is filled anew, not twice
    }
    started
}

/// Tries again to open a chain that stayed closed although the keyring is there: a lock may have
/// been in the way.
pub(super) fn open_late(writer: &mut Writer) {
    if writer.chain.is_some() || !shared_keyring::is_ready(writer.number) {
        return;
    }
    match open_chain(writer) {
        Ok(()) => shared_keyring::publish_same(writer.number),
        Err(failure) => writer.slot.set_problem(&failure.message),
    }
}

/// Opens the chain's key and finds or makes the identity this database writes under.
fn open_its_key(writer: &mut Writer) -> Result<(), Failure> {
    if !shared_keyring::is_ready(writer.number) {
        return Ok(());
    }
    let number = writer.number;
    writer.chain = Some(transaction(|| {
        let owner = store::installed::owner()?;
        let (key_version, key) = mac_key(owner, number)?;
        let identity_id = identity(owner)?;
        Ok(Chain {
            key,
            key_version,
            identity_id,
            head: Some(batch::read_head(owner)),
            days: BTreeSet::new(),
        })
    })?);
    Ok(())
}

fn mac_key(owner: Owner, number: usize) -> Result<(i32, MacKey), Error> {
    for (version, sealed) in store::admin::audit_key(owner, "mac", None) {
        let Some(sealed) = sealed else { continue };
        let Ok(Some(root)) = shared_keyring::root_key(
            number,
            session::database().to_u32(),
            sealed.master_key_version() as i32,
        ) else {
            continue;
        };
        let binding = Binding::AuditKey { version: version as u32, kind: "mac" };
        if let Some(key) =
            open(&root, &binding, &sealed).ok().and_then(|secret| MacKey::new(secret.expose()))
        {
            return Ok((version, key));
        }
    }
    Err(Error::Internal("the audit MAC key does not open under any loaded master key".into()))
}

/// A restored or copied database gets an identity of its own, so that two chains never pass for
/// one.
fn identity(owner: Owner) -> Result<IdentityId, Error> {
    let (system, database) = (process::system_identifier(), session::database());
    if let Some(known) = store::admin::identity(owner, system, database) {
        return Ok(known);
    }
    let mut new = random::random_bytes::<16>().map_err(internal)?;
    (new[6], new[8]) = (new[6] & 0x0f | 0x40, new[8] & 0x3f | 0x80);
    let new = IdentityId::new(new);
    store::admin::insert_identity(
        owner,
        new,
        system,
        database,
        "found by the audit writer: new, restored or copied",
    );
    Ok(new)
}

fn internal(error: impl std::fmt::Display) -> Error {
    Error::Internal(error.to_string())
}
