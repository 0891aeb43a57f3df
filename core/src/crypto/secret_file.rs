//! A file that holds one secret: WatchLLM's encryption secret, for the import. PostgreSQL's own
//! rule (pg_read_server_files) judges beforehand who may have the server read a file. So mode and
//! owner are not judged here. The open does not wait, the read is bounded, and errors hold no byte
//! of the content.

use std::fs::File;
use std::io::{Error, ErrorKind, Read};
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use zeroize::Zeroizing;

use super::secret::Secret;

/// Bytes of the longest secret.
const MAX_SECRET: usize = 4096;

/// Why a file gave no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SecretFileError {
    /// There is no such file.
    Missing,
    /// The server's user may not read it.
    Forbidden,
    /// It cannot be read, for another reason.
    Unreadable,
    /// It is a directory, a pipe or a device.
    NotAFile,
    /// It holds nothing, or a line end alone.
    Empty,
    /// It holds more than 4,096 bytes.
    TooLong,
    /// It holds bytes that are no UTF-8.
    NotUtf8,
}

impl SecretFileError {
    /// Says it to the caller, without the path or the content.
    pub fn message(self) -> &'static str {
        match self {
            Self::Missing => "there is no such secret file on the server",
            Self::Forbidden => "the server's user may not read the secret file",
            Self::Unreadable => "the secret file cannot be read",
            Self::NotAFile => "the secret file is not a regular file",
            Self::Empty => "the secret file is empty",
            Self::TooLong => "the secret file holds more than 4096 bytes",
            Self::NotUtf8 => "the secret file is not UTF-8 text",
        }
    }
}

impl From<Error> for SecretFileError {
    fn from(error: Error) -> Self {
        match error.kind() {
            ErrorKind::NotFound | ErrorKind::NotADirectory => Self::Missing,
            ErrorKind::PermissionDenied => Self::Forbidden,
            _ => Self::Unreadable,
        }
    }
}

/// Reads a secret: the whole file without a final line end, 1 to 4,096 bytes of UTF-8.
pub fn read_secret(path: &Path) -> Result<Secret, SecretFileError> {
    let mut file = open_without_waiting(path)?;
    if !file.metadata()?.is_file() {
        return Err(SecretFileError::NotAFile);
    }
    let bytes = read_bounded(&mut file, MAX_SECRET + 3)?;
    let line = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
    let secret =
        if line.len() < bytes.len() { line.strip_suffix(b"\r").unwrap_or(line) } else { line };
    if secret.is_empty() {
        Err(SecretFileError::Empty)
    } else if secret.len() > MAX_SECRET {
        Err(SecretFileError::TooLong)
    } else if std::str::from_utf8(secret).is_err() {
        Err(SecretFileError::NotUtf8)
    } else {
        Ok(Secret::new(secret.to_vec()))
    }
}

/// Opens a file for reading. Symbolic links are followed.
pub(super) fn open_without_waiting(path: &Path) -> std::io::Result<File> {
    // NONBLOCK: without it, opening a named pipe waits for a writer for ever.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    Ok(File::from(open(path, flags, Mode::empty())?))
}

/// Reads to the end or to `most` bytes. The buffer never grows, so no unwiped copy is left behind.
pub(super) fn read_bounded(file: &mut File, most: usize) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0u8; most]);
    let mut length = 0;
    while length < bytes.len() {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &[u8]) -> Result<Vec<u8>, SecretFileError> {
        let path = std::env::temp_dir().join(format!("secret_{name}_{}", std::process::id()));
        std::fs::write(&path, content).expect("written");
        let found = read_secret(&path).map(|secret| secret.expose().to_vec());
        std::fs::remove_file(&path).expect("removed");
        found
    }

    #[test]
    fn one_line_end_is_no_part_of_the_secret() {
        for (content, secret) in [
            ("geheim-ü", "geheim-ü"),
            ("a\n", "a"),
            ("a\r\n", "a"),
            ("a\n\n", "a\n"),
            (" a ", " a "),
            ("a\r", "a\r"),
        ] {
            assert_eq!(
                read("line", content.as_bytes()).as_deref(),
                Ok(secret.as_bytes()),
                "{content:?}"
            );
        }
    }

    #[test]
    fn what_is_no_secret_is_refused() {
        let longest = vec![b's'; MAX_SECRET];
        assert_eq!(read("longest", &[&longest[..], b"\r\n"].concat()), Ok(longest.clone()));
        assert_eq!(read("long", &[&longest[..], b"s"].concat()), Err(SecretFileError::TooLong));
        assert_eq!(read("huge", &vec![b's'; 1 << 20]), Err(SecretFileError::TooLong));
        assert_eq!(read("latin", b"geheim-\xfc"), Err(SecretFileError::NotUtf8));
        for empty in ["", "\n", "\r\n"] {
            assert_eq!(read("empty", empty.as_bytes()), Err(SecretFileError::Empty), "{empty:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_says_why() {
        assert_eq!(read_secret(Path::new("/nowhere/secret")).err(), Some(SecretFileError::Missing));
        assert_eq!(read_secret(Path::new("")).err(), Some(SecretFileError::Missing));
        assert_eq!(
            read_secret(Path::new("/dev/null/secret")).err(),
            Some(SecretFileError::Missing)
        );
        assert_eq!(read_secret(&std::env::temp_dir()).err(), Some(SecretFileError::NotAFile));
        assert_eq!(read_secret(Path::new("/dev/zero")).err(), Some(SecretFileError::NotAFile));
    }
}
