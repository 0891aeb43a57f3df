//! The step shared by recipes that compare keys without opening them: the fingerprint keys, each
//! opened once per call. A key is stored under the newest. Keys stored earlier are found under
//! every one.

use crate::audit::Recorder;
use crate::crypto::Sealed;
use crate::crypto::envelope::{self, Binding};
use crate::crypto::fingerprint::FingerprintKey;
use crate::error::Error;
use crate::store;

/// Fingerprint keys with their versions, the newest first.
pub(super) struct FingerprintKeys(Vec<(i32, FingerprintKey)>);

impl FingerprintKeys {
    /// Opens every version there is.
    pub(super) fn all(recorder: Recorder) -> Result<FingerprintKeys, Error> {
        let copies = copies(recorder, None);
        let versions = copies.chunk_by(|one, next| one.0 == next.0);
        let keys = versions.map(|copies| first_that_opens(recorder, copies));
        keys.collect::<Result<_, _>>().map(FingerprintKeys)
    }

    /// Opens one version, to compare a key stored under it.
    pub(super) fn of_version(recorder: Recorder, version: i32) -> Result<FingerprintKey, Error> {
        Ok(first_that_opens(recorder, &copies(recorder, Some(version)))?.1)
    }

    /// The version a key is stored under now, and its key.
    pub(super) fn current(&self) -> Result<(i32, &FingerprintKey), Error> {
        self.0.first().map(|(version, key)| (*version, key)).ok_or_else(unopened)
    }

    /// Each version with its key, the newest first.
    pub(super) fn each(&self) -> impl Iterator<Item = (i32, &FingerprintKey)> {
        self.0.iter().map(|(version, key)| (*version, key))
    }
}

/// Sealed copies of the fingerprint keys, one for each master key they were sealed under.
fn copies(recorder: Recorder, version: Option<i32>) -> Vec<(i32, Option<Sealed>)> {
    store::admin::audit_key(recorder.owner(), "fingerprint", version)
}

/// Opens the first copy whose master key is available.
fn first_that_opens(
    recorder: Recorder,
    copies: &[(i32, Option<Sealed>)],
) -> Result<(i32, FingerprintKey), Error> {
    let open = |(version, sealed): &(i32, Option<Sealed>)| {
        let sealed = sealed.as_ref()?;
        let root = recorder.root_key(sealed.master_key_version() as i32).ok()?;
        let binding = Binding::AuditKey { version: *version as u32, kind: "fingerprint" };
        let opened = envelope::open(&root, &binding, sealed).ok()?;
        Some((*version, FingerprintKey::from_secret(&opened)?))
    };
    copies.iter().find_map(open).ok_or_else(unopened)
}

/// The error if no copy opens.
fn unopened() -> Error {
    Error::Internal("the fingerprint key does not open under any loaded master key".into())
}
