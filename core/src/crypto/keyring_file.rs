//! Reads the keyring from `watchllm_keys.master_key_file`. Only root and the server's user may have
//! access to the file, as PostgreSQL demands for `ssl_key_file`. The file is opened once and judged
//! through the open handle, so that nobody can swap it in between.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::keyring::{Keyring, KeyringError, MAX_SOURCE_BYTES};
use super::secret_file::{open_without_waiting, read_bounded};

impl Keyring {
    /// Reads a keyring file. `server_uid` is the user the server runs as. Symbolic links are
    /// followed, because Kubernetes mounts secrets as links. Owner, mode and kind are those of the
    /// file they lead to.
    pub fn read_file(path: &Path, server_uid: u32) -> Result<Keyring, KeyringError> {
        let unreadable = |error: std::io::Error| KeyringError::Unreadable(error.kind());
        let mut file = open_without_waiting(path).map_err(unreadable)?;
        judge(&file.metadata().map_err(unreadable)?, server_uid)?;
        // One byte past the bound: `parse` then refuses it.
        Keyring::parse(&read_bounded(&mut file, MAX_SOURCE_BYTES + 1).map_err(unreadable)?)
    }

    /// Looks up owner and mode of a keyring file without opening it, and judges them by the same
    /// rule. Answers both.
    pub fn look_at_file(path: &Path, server_uid: u32) -> Result<(u32, u32), KeyringError> {
        let file =
            std::fs::metadata(path).map_err(|error| KeyringError::Unreadable(error.kind()))?;
        judge(&file, server_uid)?;
        Ok((file.uid(), file.mode() & 0o7777))
    }
}

/// Judges kind, owner and mode. The owner's own bits do not matter: the owner may do anything to
/// its file.
fn judge(file: &Metadata, server_uid: u32) -> Result<(), KeyringError> {
    if !file.is_file() {
        return Err(KeyringError::NotAFile);
    }
    // A group may read a file of root's: that is how a server that is not root reads it. No group
    // may write it.
    let forbidden = match file.uid() {
        owner if owner == server_uid => 0o077,
        0 => 0o037,
        _ => return Err(KeyringError::WrongOwner),
    };
    let mode = file.mode() & 0o7777;
    if mode & forbidden == 0 { Ok(()) } else { Err(KeyringError::TooOpen { mode }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    use std::path::PathBuf;

    /// A directory of its own for each test, removed when the test ends.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("keyring_{name}_{}", std::process::id()));
            fs::create_dir_all(&path).expect("a directory");
            Self(path)
        }

        fn file(&self, mode: u32, content: &[u8]) -> PathBuf {
            let path = self.0.join("keyring");
            fs::write(&path, content).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("mode set");
            path
        }

        fn uid(&self) -> u32 {
            fs::metadata(&self.0).expect("metadata").uid()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn good() -> Vec<u8> {
        format!("1:{}\n", "k".repeat(32)).into_bytes()
    }

    #[test]
    fn the_servers_own_file_must_be_its_alone() {
        let place = Place::new("own");
        let uid = place.uid();
        for mode in [0o600, 0o400, 0o700] {
            assert!(Keyring::read_file(&place.file(mode, &good()), uid).is_ok(), "{mode:o}");
        }
        for mode in [0o640, 0o604, 0o602, 0o601, 0o620, 0o610, 0o644, 0o666, 0o777] {
            let refused = Keyring::read_file(&place.file(mode, &good()), uid).err();
            assert_eq!(refused, Some(KeyringError::TooOpen { mode }), "{mode:o}");
        }
    }

    #[test]
    fn roots_file_may_be_read_by_a_group_but_not_written() {
        let place = Place::new("root");
        if place.uid() != 0 {
            return; // only root can make root's file
        }
        for mode in [0o600, 0o640, 0o440] {
            assert!(Keyring::read_file(&place.file(mode, &good()), 4711).is_ok(), "{mode:o}");
        }
        for mode in [0o660, 0o644, 0o650, 0o641] {
            let refused = Keyring::read_file(&place.file(mode, &good()), 4711).err();
            assert_eq!(refused, Some(KeyringError::TooOpen { mode }), "{mode:o}");
        }
    }

    #[test]
    fn a_strangers_file_is_refused() {
        let place = Place::new("stranger");
        let path = place.file(0o600, &good());
        let server = if place.uid() == 0 {
            chown(&path, Some(4712), None).expect("given away");
            4711
        } else {
            place.uid() + 1
        };
        assert_eq!(Keyring::read_file(&path, server).err(), Some(KeyringError::WrongOwner));
    }

    #[test]
    fn a_link_is_judged_by_what_it_leads_to() {
        let place = Place::new("link");
        let link = place.0.join("link");
        symlink(place.file(0o600, &good()), &link).expect("linked");
        assert_eq!(
            Keyring::read_file(&link, place.uid()).map(|keyring| keyring.versions()),
            Ok(vec![1])
        );
        place.file(0o644, &good());
        assert_eq!(
            Keyring::read_file(&link, place.uid()).err(),
            Some(KeyringError::TooOpen { mode: 0o644 })
        );
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting() {
        let place = Place::new("kind");
        assert_eq!(Keyring::read_file(&place.0, place.uid()).err(), Some(KeyringError::NotAFile));
        let pipe = place.0.join("pipe");
        let made = std::process::Command::new("mkfifo").arg("-m").arg("600").arg(&pipe).status();
        if made.is_ok_and(|status| status.success()) {
            assert_eq!(Keyring::read_file(&pipe, place.uid()).err(), Some(KeyringError::NotAFile));
        }
        let missing = Keyring::read_file(&place.0.join("missing"), place.uid()).err();
        assert_eq!(missing, Some(KeyringError::Unreadable(std::io::ErrorKind::NotFound)));
    }

    #[test]
    fn a_huge_file_is_refused() {
        let place = Place::new("huge");
        let comment = vec![b'#'; MAX_SOURCE_BYTES + 1];
        assert_eq!(
            Keyring::read_file(&place.file(0o600, &comment), place.uid()).err(),
            Some(KeyringError::TooLong)
        );
    }
}
