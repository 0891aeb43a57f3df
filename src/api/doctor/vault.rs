//! The doctor's checks of this server's part of the vault: the library, the installation, the
//! keyring and its place, the audit writer and the worker slots it needs.

use super::check::{Check, check, listed, not_looked_at, problem};
use crate::audit::{self, Recorder, State};
use crate::crypto::envelope::{self, Binding};
use crate::crypto::keyring::{Keyring, KeyringError};
use crate::error::Error;
use crate::postgres::{Owner, process, session};
use crate::settings::{self, KeyringSource};
use crate::store::{doctor, installed};
use std::io::ErrorKind;
use std::path::Path;

/// The most envelopes that are opened: some milliseconds.
const MOST_ENVELOPES: i32 = 1_000;

/// All of them. `ready` is the result of `audit::check_ready`.
pub(super) fn checks(
    owner: &Result<Owner, Error>,
    ready: &Result<(), Error>,
    state: &State,
) -> Vec<Check> {
    vec![
        preloaded(state),
        installed_here(owner),
        encoding(),
        master_key(state, ready),
        keyring_file(),
        open_envelopes(owner, ready),
        audit_writer(state, ready),
        worker_slots(),
    ]
}

/// Whether everything that opens or stores a key can work at all.
fn preloaded(state: &State) -> Check {
    let problem = (!state.preloaded).then(|| problem(&Error::NotPreloaded));
    check("preloaded", problem, || "the library is preloaded".into())
}

/// Whether the tables are there, complete, and nobody else's.
fn installed_here(owner: &Result<Owner, Error>) -> Check {
    check("installed", owner.as_ref().err().map(problem), || {
        format!(
            "version {}, schema version {}",
            env!("CARGO_PKG_VERSION"),
            installed::SCHEMA_VERSION
        )
    })
}

/// Text is hashed and cut as UTF-8.
fn encoding() -> Check {
    let problem = (!session::is_utf8_database()).then(|| problem(&Error::NotUtf8));
    check("encoding", problem, || "the database is UTF-8".into())
}

/// What the keyring in use opens, and what was wrong with the last load.
fn master_key(state: &State, ready: &Result<(), Error>) -> Check {
    const NAME: &str = "master_key";
    if let Err(
        error @ (Error::NoMasterKey(_) | Error::WrongMasterKey(_) | Error::UnknownMasterKey(_)),
    ) = ready
    {
        return check(NAME, Some(problem(error)), String::new);
    }
    if let Some(refused) = &state.keyring_problem {
        let hint = "Mend the file or command that the setting names, then: SELECT \
             watchllm.reload_keyring();";
        return check(NAME, Some((refused.clone(), hint)), String::new);
    }
    match (state.active_version, ready) {
        (Some(active), _) => check(NAME, None, || {
            format!(
                "version {active} is active; the keyring opens versions {}",
                listed(&state.versions)
            )
        }),
        (None, Err(error)) => not_looked_at(NAME, error.message()),
        (None, Ok(())) => not_looked_at(NAME, "the audit writer loads it"),
    }
}

/// Owner and mode of the file are looked up again. The load at the last start says nothing about
/// today.
fn keyring_file() -> Check {
    const NAME: &str = "keyring_file";
    let path = match settings::keyring_source() {
        KeyringSource::File(path) => path,
        KeyringSource::Command { .. } => {
            let note = "the keyring comes from a command, which nothing is known of: it should \
                 read a secret store, and its text is no place for a secret";
            return check(NAME, None, || note.into());
        }
        KeyringSource::Nothing => {
            let nothing = Error::NoMasterKey(
                "neither watchllm_keys.master_key_file nor watchllm_keys.master_key_command is set"
                    .into(),
            );
            return check(NAME, Some(problem(&nothing)), String::new);
        }
    };
    let Some(server) = process::server_uid() else {
        return not_looked_at(NAME, "the server's user is not known");
    };
    match Keyring::look_at_file(Path::new(&path), server) {
        Ok((owner, mode)) => {
            check(NAME, None, || format!("owned by user {owner}, mode {mode:04o}"))
        }
        Err(error) => {
            check(NAME, Some((error.to_string(), keyring_file_hint(&error))), String::new)
        }
    }
}

/// What to do about it.
fn keyring_file_hint(error: &KeyringError) -> &'static str {
    match error {
        KeyringError::Unreadable(ErrorKind::NotFound) => {
            "Put the keyring back there, or let watchllm_keys.master_key_file name its place. \
             See docs/backup.md#the-keyring."
        }
        KeyringError::Unreadable(_) => {
            "Let the server's user enter its directories and read it. \
             See docs/install.md#2-the-master-key."
        }
        KeyringError::NotAFile => "Let watchllm_keys.master_key_file name a plain file.",
        _ => {
            "chown it to the server's user and chmod 600; whoever could read it may have copied it."
        }
    }
}

/// Whether the master key that is there opens what is stored. A row of `master_keys` from another
/// backup has a canary that opens, while every envelope is "damaged".
fn open_envelopes(owner: &Result<Owner, Error>, ready: &Result<(), Error>) -> Check {
    const NAME: &str = "open_envelopes";
    let recorder = match (owner, ready) {
        (Err(error), _) | (_, Err(error)) => return not_looked_at(NAME, error.message()),
        (Ok(_), Ok(())) => match audit::ready_now() {
            Some(recorder) => recorder,
            None => return not_looked_at(NAME, "the vault is not ready"),
        },
    };
    let stored = doctor::newest_envelopes(recorder.owner(), MOST_ENVELOPES);
    let shut: Vec<String> = stored
        .iter()
        .filter(|stored| !opens(recorder, stored))
        .map(|stored| stored.key.key.to_string())
        .collect();
    let hint = "These envelopes and the rows of master_keys are not of one backup: restore \
         master_keys, audit_keys and provider_key_versions together. A few alone are damaged: \
         rotate those keys.";
    let wrong = (!shut.is_empty())
        .then(|| (format!("{} of {}: {}", shut.len(), stored.len(), listed(&shut)), hint));
    check(NAME, wrong, || format!("the newest {} envelopes open", stored.len()))
}

/// Whether an envelope opens where it lies. What was inside is wiped at once. One whose master key
/// is not loaded is no finding here: `master_key` says that.
fn opens(recorder: Recorder, stored: &doctor::Stored) -> bool {
    let Some(sealed) = &stored.sealed else { return false };
    let Ok(root) = recorder.root_key(sealed.master_key_version() as i32) else { return true };
    let binding = Binding::ProviderKey {
        project_id: stored.key.project,
        provider_key_id: stored.key.key,
        version: stored.version as u32,
        provider: &stored.provider,
    };
    envelope::open(&root, &binding, sealed).is_ok()
}

/// Whether the writer serves, and its last problem.
fn audit_writer(state: &State, ready: &Result<(), Error>) -> Check {
    const NAME: &str = "audit_writer";
    if !state.preloaded || process::is_standby() {
        return not_looked_at(
            NAME,
            if state.preloaded { "a hot standby has none" } else { "not preloaded" },
        );
    }
    let hint =
        "See the server log, and max_worker_processes. Until it runs, every call fails closed.";
    let stuck = match (state.writer_state.as_str(), ready, &state.problem) {
        ("running", _, None) => None,
        ("running", _, Some(problem)) => Some(problem.clone()),
        (
            _,
            Err(
                error @ (Error::NotInstalled
                | Error::Restoring
                | Error::Refused(..)
                | Error::Parallel),
            ),
            _,
        ) => {
            return not_looked_at(NAME, error.message());
        }
        (_, Err(error), _) => Some(error.message()),
        (other, Ok(()), _) => Some(format!("the audit writer is {other}")),
    };
    check(NAME, stuck.map(|stuck| (stuck, hint)), || {
        let last = state.writer_problem.as_deref().unwrap_or("none");
        format!("running, {} events waiting; the last problem: {last}", state.waiting)
    })
}

/// A writer that ends is replaced at once, if a slot is free.
fn worker_slots() -> Check {
    let (running, room) = process::worker_slots();
    let full = (running >= room).then(|| {
        let hint = "Raise max_worker_processes and restart, so that a slot stays free for each \
             database with a vault.";
        (
            format!(
                "all {room} background worker slots are taken: a writer that ends cannot be \
             replaced"
            ),
            hint,
        )
    });
    check("worker_slots", full, || {
        format!(
            "{} of {room} background worker slots are free (parallel queries use them too)",
            room - running
        )
    })
}
