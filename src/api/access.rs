//! The steps that recipes share: begin, check, find, open, seal, refuse. An `Access` is one call by
//! one caller with its event. Whoever refuses records first, so that no refusal of a caller who
//! reached a function is lost.
#![forbid(unsafe_code)]

use super::fingerprints::FingerprintKeys;
use crate::audit::{self, Recorder, Standing, commit};
use crate::caller::{Caller, Context};
use crate::crypto::envelope::{self, Binding};
use crate::crypto::{Sealed, Secret};
use crate::disclosed::Disclosed;
use crate::error::Error;
use crate::id::{KeyRef, ProjectId, ProviderKeyId};
use crate::input::{ApiKey, KeyHint, KeyName, Priority, ProviderSlug};
use crate::log_hook;
use crate::overrides::MAX_ACTIVE_KEYS;
use crate::postgres::session;
use crate::settings;
use crate::store::changes::NewVersion;
use crate::store::keys::{StoredKey, StoredVersion};
use crate::store::{self, Projects};
use crate::trail::{AccessType, Event, FailureReason};

/// One call: the vault found ready, who calls, and what will be recorded.
pub(super) struct Access {
    pub recorder: Recorder,
    pub caller: Caller,
    pub event: Event,
}

/// A version of a key, sealed for its row, and its fingerprint.
pub(super) struct SealedKey {
    number: i32,
    sealed: Sealed,
    fingerprint: [u8; 32],
    fingerprint_key_version: i32,
    key_hint: KeyHint,
}

impl Access {
    /// Begins a call. Errors that no record can be written of (not installed, no master key …) come
    /// from here.
    pub(super) fn begin(access_type: AccessType, context: Context) -> Result<Access, Error> {
        let recorder = audit::ready()?;
        let caller = Caller::new(context);
        let event = caller.event(access_type)?;
        let access = Access { recorder, caller, event };
        // A GET request: caches may keep its answer, and logs its address. In other sessions a
        // read-only transaction may read.
        if access.caller.is_request() && session::is_read_only() {
            return Err(access.refuse(FailureReason::BadInput, Error::ReadOnlyRequest));
        }
        Ok(access)
    }

    /// Begins a call that takes a key as an argument: errors of its statement hide the statement.
    pub(super) fn begin_with_key(
        access_type: AccessType,
        context: Context,
    ) -> Result<Access, Error> {
        log_hook::statement_holds_a_key();
        Access::begin(access_type, context)
    }

    /// Records the refusal; answers its error, or that of a record that could not be written.
    pub(super) fn refuse(&self, reason: FailureReason, error: Error) -> Error {
        let standing =
            if self.caller.may_open() { Standing::Authorised } else { Standing::Unauthorised };
        match self.recorder.record(self.event.refused(reason), standing) {
            Ok(_recorded) => error,
            Err(unrecorded) => unrecorded,
        }
    }

    /// A missing argument is refused and recorded.
    pub(super) fn need<T>(&self, argument: Option<T>, name: &'static str) -> Result<T, Error> {
        argument.ok_or_else(|| self.refuse(FailureReason::BadInput, Error::NullInput(name)))
    }

    /// Refuses bad input.
    pub(super) fn accept<T, E: Into<Error>>(&self, parsed: Result<T, E>) -> Result<T, Error> {
        parsed.map_err(|error| self.refuse(FailureReason::BadInput, error.into()))
    }

    /// The caller may open keys of any project. If one of the project's own people is refused, the
    /// record names the project, so that the others see who tries. A stranger's record does not,
    /// because the project's people would read what a stranger writes about them.
    pub(super) fn must_open(&mut self, project: Option<ProjectId>) -> Result<(), Error> {
        if self.caller.may_open() {
            return Ok(());
        }
        let owner = self.recorder.owner();
        if let Ok(projects) = self.caller.may_change(owner) {
            let key =
                self.event.provider_key_id.and_then(|id| store::keys::within(owner, &projects, id));
            if let Some(key) = key {
                self.about(&key);
            } else if let Projects::Own(own) = projects {
                self.event.project_id = project.filter(|project| own.contains(project));
            }
        }
        Err(self.refuse(FailureReason::NotAuthorized, Error::NotAuthorized("open provider keys")))
    }

    /// The caller may administer the vault.
    pub(super) fn must_administer(&self) -> Result<(), Error> {
        if self.caller.may_administer() {
            return Ok(());
        }
        Err(self
            .refuse(FailureReason::NotAuthorized, Error::NotAuthorized("administer watchllm_keys")))
    }

    /// The caller may look into what the vault reports about: administrators and auditors.
    pub(super) fn must_audit(&self) -> Result<(), Error> {
        if self.caller.may_audit() {
            return Ok(());
        }
        Err(self.refuse(FailureReason::NotAuthorized, Error::NotAuthorized("look for leaked keys")))
    }

    /// The caller may have the server read its files, by PostgreSQL's own rule.
    pub(super) fn must_read_files(&self) -> Result<(), Error> {
        if self.caller.may_read_files() {
            return Ok(());
        }
        Err(self
            .refuse(FailureReason::NotAuthorized, Error::NotAuthorized("read files of the server")))
    }

    /// The caller may change keys of this project. To a tenant, a foreign project looks as if it
    /// did not exist.
    pub(super) fn must_change(&mut self, project: ProjectId) -> Result<(), Error> {
        match self.changeable()? {
            Projects::Own(own) if !own.contains(&project) => {
                Err(self.refuse(FailureReason::NotFound, Error::NoSuchProject))
            }
            _ => {
                self.event.project_id = Some(project);
                Ok(())
            }
        }
    }

    /// The projects whose keys the caller may change.
    fn changeable(&self) -> Result<Projects, Error> {
        let projects = self.caller.may_change(self.recorder.owner());
        projects.map_err(|error| self.refuse(FailureReason::NotAuthorized, error))
    }

    /// Finds a key to be opened: by id, and by project where one is given.
    pub(super) fn find(
        &mut self,
        id: ProviderKeyId,
        project: Option<ProjectId>,
    ) -> Result<StoredKey, Error> {
        self.event.provider_key_id = Some(id);
        let key = store::keys::by_id(self.recorder.owner(), id)
            .filter(|key| project.is_none_or(|project| project == key.project_id))
            .ok_or_else(|| self.refuse(FailureReason::NotFound, Error::NoSuchKey))?;
        self.about(&key);
        Ok(key)
    }

    /// Finds a key to be changed and locks it. A deleted key counts as missing.
    pub(super) fn find_to_change(&mut self, id: ProviderKeyId) -> Result<StoredKey, Error> {
        let owner = self.recorder.owner();
        self.event.provider_key_id = Some(id);
        let key = self.within_reach(id)?;
        self.about(&key);
        self.patiently(|| store::changes::lock(owner, key.project_id, id));
        // Checked again, because key and right may have gone while this call waited for the lock.
        let key = self.within_reach(id)?;
        if key.is_deleted {
            return Err(self.refuse(FailureReason::Deleted, Error::NoSuchKey));
        }
        self.about(&key);
        Ok(key)
    }

    /// Waits for a row that a tenant may hold. Administrators wait for `audit_timeout` at most
    /// (55P03): whoever they act against must not keep them waiting.
    pub(super) fn patiently<T>(&self, wait: impl FnOnce() -> T) -> T {
        if self.caller.may_administer() {
            session::with_lock_timeout(settings::audit_timeout(), wait)
        } else {
            wait()
        }
    }

    /// Finds a key that is not changed itself, and does not lock it. A tenant with an open
    /// transaction would otherwise keep staff waiting. A deleted key counts as missing.
    pub(super) fn find_without_lock(&mut self, id: ProviderKeyId) -> Result<StoredKey, Error> {
        self.event.provider_key_id = Some(id);
        let key = self.within_reach(id)?;
        self.about(&key);
        if key.is_deleted {
            return Err(self.refuse(FailureReason::Deleted, Error::NoSuchKey));
        }
        Ok(key)
    }

    /// The key, if the caller may change it.
    fn within_reach(&self, id: ProviderKeyId) -> Result<StoredKey, Error> {
        let found = store::keys::within(self.recorder.owner(), &self.changeable()?, id);
        found.ok_or_else(|| self.refuse(FailureReason::NotFound, Error::NoSuchKey))
    }

    /// The event is about this key from now on.
    pub(super) fn about(&mut self, key: &StoredKey) {
        self.event = about(&self.event, key);
    }

    /// Opens the active version of a key that may be used now; refusals are recorded.
    pub(super) fn open(&self, key: &StoredKey) -> Result<Secret, Error> {
        usable(key)
            .and_then(|()| open(self.recorder, key, &key.version))
            .map_err(|(reason, error)| self.refuse(reason, error))
    }

    /// Records the success, then lets the plaintext go.
    pub(super) fn disclose(&self, secret: Secret) -> Result<Disclosed, Error> {
        let recorded = self.recorder.record(self.event, Standing::Authorised)?;
        Ok(Disclosed::new(secret, recorded))
    }

    /// Seals a version of a key for its row.
    pub(super) fn seal(
        &self,
        key: KeyRef,
        number: i32,
        provider: &ProviderSlug,
        api_key: &ApiKey,
        keys: &FingerprintKeys,
    ) -> Result<SealedKey, Error> {
        let (master_key_version, root) = self.recorder.active_root_key()?;
        let binding = Binding::ProviderKey {
            project_id: key.project,
            provider_key_id: key.key,
            version: number as u32,
            provider: provider.as_str(),
        };
        let secret = api_key.secret();
        let sealed = envelope::seal(&root, master_key_version as u32, &binding, secret)
            .map_err(|error| Error::Internal(error.to_string()))?;
        let (fingerprint_key_version, fingerprint_key) = keys.current()?;
        let fingerprint = fingerprint_key.fingerprint(secret);
        let key_hint = api_key.hint();
        Ok(SealedKey { number, sealed, fingerprint, fingerprint_key_version, key_hint })
    }

    /// What a sealed key is stored with.
    pub(super) fn new_version<'a>(&'a self, sealed: &'a SealedKey) -> NewVersion<'a> {
        NewVersion {
            number: sealed.number,
            sealed: &sealed.sealed,
            fingerprint: &sealed.fingerprint,
            fingerprint_key_version: sealed.fingerprint_key_version,
            key_hint: &sealed.key_hint,
            created_by: self.caller.changes_as(),
        }
    }

    /// Says in this transaction that the change commits, and keeps its event for that moment.
    pub(super) fn keep_change(&self) {
        store::trail::mark_committed(self.recorder.owner(), self.event.id, self.event.project_id);
        commit::keep(self.recorder, self.event, !self.caller.may_administer());
    }

    /// Active keys that a project may have per provider; 0 means no limit.
    pub(super) fn max_active_keys(&self, project: ProjectId) -> usize {
        let owner = self.recorder.owner();
        store::settings::number(owner, &MAX_ACTIVE_KEYS, Some(project), None) as usize
    }

    /// Locks the project that a key is stored into, and judges the right again. It may have been
    /// withdrawn while this call waited for the lock.
    pub(super) fn lock_project(&mut self, project: ProjectId) -> Result<(), Error> {
        if !store::projects::lock_project(self.recorder.owner(), project) {
            return Err(self.refuse(FailureReason::NotFound, Error::NoSuchProject));
        }
        self.must_change(project)
    }

    /// Refuses one active key too many; the project's row must be locked. Answers the lowest free
    /// priority.
    pub(super) fn free_place(
        &self,
        key: KeyRef,
        provider: &ProviderSlug,
    ) -> Result<Priority, Error> {
        let owner = self.recorder.owner();
        let taken = store::keys::active_priorities(owner, key.project, provider, key.key);
        let limit = self.max_active_keys(key.project);
        if limit > 0 && taken.len() >= limit {
            let message = format!(
                "the project has {} active keys of this provider; at most {limit} are allowed",
                taken.len()
            );
            let hint =
                "Deactivate or delete one first, or raise max_active_keys: watchllm.set_setting().";
            return Err(self.refuse(FailureReason::Limit, Error::OverLimit(message, hint)));
        }
        Ok(Priority::lowest_free(&taken))
    }

    /// Refuses a name that another key of this project and provider has.
    pub(super) fn name_must_be_free(
        &self,
        project: ProjectId,
        provider: &ProviderSlug,
        name: &KeyName,
    ) -> Result<(), Error> {
        if !store::keys::name_taken(self.recorder.owner(), project, provider, name) {
            return Ok(());
        }
        let taken = Error::AlreadyThere("a key of this name for this project and provider");
        Err(self.refuse(FailureReason::AlreadyExists, taken))
    }
}

/// The event of an access to this key.
pub(super) fn about(event: &Event, key: &StoredKey) -> Event {
    Event {
        project_id: Some(key.project_id),
        provider_key_id: Some(key.id),
        provider: key.provider.bounded(),
        key_version: Some(key.version.number),
        compromised: key.version.is_compromised,
        ..*event
    }
}

/// Whether a key may be used now.
pub(super) fn usable(key: &StoredKey) -> Result<(), (FailureReason, Error)> {
    if key.is_deleted {
        Err((FailureReason::Deleted, Error::NoSuchKey))
    } else if key.is_blocked {
        Err((FailureReason::Blocked, Error::Blocked))
    } else if !key.is_active {
        Err((FailureReason::Inactive, Error::Inactive))
    } else {
        Ok(())
    }
}

/// Opens one version of a key. The canary tells "wrong master key" from "damaged".
pub(super) fn open(
    recorder: Recorder,
    key: &StoredKey,
    version: &StoredVersion,
) -> Result<Secret, (FailureReason, Error)> {
    let damaged = (FailureReason::DamagedEnvelope, Error::DamagedEnvelope);
    let Some(sealed) = &version.sealed else { return Err(damaged) };
    let root =
        recorder.root_key(sealed.master_key_version() as i32).map_err(|error| match error {
            Error::WrongMasterKey(_) => (FailureReason::WrongMasterKey, error),
            // UnknownMasterKey, or the keyring is not available now; the error says which
            _ => (FailureReason::UnknownMasterKey, error),
        })?;
    let binding = Binding::ProviderKey {
        project_id: key.project_id,
        provider_key_id: key.id,
        version: version.number as u32,
        provider: key.provider.as_str(),
    };
    envelope::open(&root, &binding, sealed).map_err(|_| damaged)
}
