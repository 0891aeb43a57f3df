//! The keyring: every version of the master key, one line `VERSION:SECRET` each. Versions are
//! added, never changed. This file holds the format; `keyring_file` and `keyring_command` are its
//! two sources (docs/architecture.md#crypto). Errors name a line by its number, never by its
//! content.

use std::collections::BTreeMap;
use std::fmt;
use std::io;

use super::secret::Secret;

/// The most versions a keyring may hold: shared memory keeps a slot for each.
pub const MAX_VERSIONS: usize = 64;
/// The fewest characters of a master secret (docs/architecture.md#crypto).
pub const MIN_SECRET_CHARACTERS: usize = 32;
/// The most bytes a keyring's source may give: 64 lines of 1 KiB.
pub const MAX_SOURCE_BYTES: usize = 64 * 1024;

/// The master secrets by version.
pub struct Keyring(BTreeMap<u32, Secret>);

impl Keyring {
    /// Parses lines `VERSION:SECRET`. It tolerates blank lines, `#` comments, CRLF, a byte order
    /// mark and white space around either part. So a secret cannot begin or end with a space.
    /// Colons inside a secret belong to it.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyringError> {
        if bytes.len() > MAX_SOURCE_BYTES {
            return Err(KeyringError::TooLong);
        }
        let bytes = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(bytes);
        let mut secrets = BTreeMap::new();
        for (number, line) in (1..).zip(bytes.split(|byte| *byte == b'\n')) {
            let line = line.trim_ascii();
            if line.is_empty() || line.starts_with(b"#") {
                continue;
            }
            let (version, secret) =
                parse_line(line).map_err(|fault| KeyringError::Line { number, fault })?;
            if secrets.insert(version, secret).is_some() {
                return Err(KeyringError::Line { number, fault: LineFault::RepeatedVersion });
            }
        }
        match secrets.len() {
            0 => Err(KeyringError::Empty),
            count if count > MAX_VERSIONS => Err(KeyringError::TooManyVersions),
            _ => Ok(Self(secrets)),
        }
    }

    /// Lists the versions, ascending.
    pub fn versions(&self) -> Vec<u32> {
        self.0.keys().copied().collect()
    }

    /// Finds the secret of a version.
    pub fn secret(&self, version: u32) -> Option<&Secret> {
        self.0.get(&version)
    }
}

fn parse_line(line: &[u8]) -> Result<(u32, Secret), LineFault> {
    let line = std::str::from_utf8(line).map_err(|_| LineFault::NotUtf8)?;
    let (version, secret) = line.split_once(':').ok_or(LineFault::NoColon)?;
    let (version, secret) = (version.trim_ascii(), secret.trim_ascii());
    // `parse` alone would let "+1" through.
    if !version.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(LineFault::BadVersion);
    }
    let version = version.parse::<i32>().ok().and_then(|version| u32::try_from(version).ok());
    let version = version.filter(|version| *version > 0).ok_or(LineFault::BadVersion)?;
    // A control character means a file in another encoding or a broken copy. An error now is better
    // than envelopes that nobody can open later.
    if secret.chars().any(char::is_control) {
        return Err(LineFault::ControlCharacter);
    }
    if secret.chars().count() < MIN_SECRET_CHARACTERS {
        return Err(LineFault::ShortSecret);
    }
    Ok((version, Secret::new(secret.as_bytes().to_vec())))
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFault {
    /// No `:` between version and secret.
    NoColon,
    /// Not a number from 1 to 2147483647 before the colon.
    BadVersion,
    /// Fewer than 32 characters after the colon.
    ShortSecret,
    /// The version stands on an earlier line already.
    RepeatedVersion,
    /// The line is not UTF-8.
    NotUtf8,
    /// A tab, NUL or other control character within the secret.
    ControlCharacter,
}

/// Why there is no keyring. Holds no content of the source or of the command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyringError {
    /// A line is wrong; lines count from 1.
    Line {
        /// The line's number.
        number: usize,
        /// What is wrong with it.
        fault: LineFault,
    },
    /// No line with a secret.
    Empty,
    /// More than 64 versions.
    TooManyVersions,
    /// More than 64 KiB.
    TooLong,
    /// The file could not be opened or read.
    Unreadable(io::ErrorKind),
    /// A directory, pipe, device or socket.
    NotAFile,
    /// The file belongs to neither the server's user nor root.
    WrongOwner,
    /// The file's mode gives others access.
    TooOpen {
        /// The permission bits, as `chmod` writes them.
        mode: u32,
    },
    /// The command could not be started or waited for.
    CommandNotRun(io::ErrorKind),
    /// The command ended with this exit status.
    CommandFailed(i32),
    /// The command was ended by a signal.
    CommandKilled,
    /// The command took longer than it may, and was ended.
    CommandTimedOut,
    /// The caller wants to leave, so the command was ended.
    CommandStopped,
}

impl fmt::Display for KeyringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Line { number, fault } => write!(f, "line {number} of the keyring {fault}"),
            Self::Empty => f.write_str("the keyring holds no master key"),
            Self::TooManyVersions => {
                write!(f, "the keyring holds more than {MAX_VERSIONS} versions")
            }
            Self::TooLong => write!(f, "the keyring is longer than {MAX_SOURCE_BYTES} bytes"),
            Self::Unreadable(kind) => match kind {
                std::io::ErrorKind::NotFound => {
                    f.write_str("the keyring file could not be read: no such file")
                }
                kind => write!(f, "the keyring file could not be read: {kind}"),
            },
            Self::NotAFile => f.write_str("the keyring file is not a regular file"),
            Self::WrongOwner => {
                f.write_str("the keyring file must be owned by the server's user or root")
            }
            Self::TooOpen { mode } => write!(
                f,
                "the keyring file has mode {mode:04o}: \
                 it must be 0600 or less if owned by the server's user, \
                 0640 or less if owned by root"
            ),
            Self::CommandNotRun(kind) => write!(f, "the keyring command could not be run: {kind}"),
            Self::CommandFailed(status) => {
                write!(f, "the keyring command ended with exit status {status}")
            }
            Self::CommandKilled => f.write_str("the keyring command was ended by a signal"),
            Self::CommandStopped => f.write_str(
                "the keyring command was ended because the server wants its process to end",
            ),
            Self::CommandTimedOut => f.write_str("the keyring command took too long and was ended"),
        }
    }
}

impl fmt::Display for LineFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoColon => "has no colon between version and secret",
            Self::BadVersion => "does not begin with a version from 1 to 2147483647",
            Self::ShortSecret => "has a secret of fewer than 32 characters",
            Self::RepeatedVersion => "repeats a version",
            Self::NotUtf8 => "is not UTF-8",
            Self::ControlCharacter => "has a control character in its secret",
        })
    }
}

impl std::error::Error for KeyringError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Result<Vec<u32>, KeyringError> {
        Keyring::parse(text.as_bytes()).map(|keyring| keyring.versions())
    }

    fn line(number: usize, fault: LineFault) -> Result<Vec<u32>, KeyringError> {
        Err(KeyringError::Line { number, fault })
    }

    #[test]
    fn versions_come_out_ascending_with_their_secrets() {
        let (one, two) = ("a".repeat(32), "b:ü#".repeat(8));
        let text = format!("\u{feff}# master keys\r\n\r\n 12 : {two} \r\n1:{one}");
        let keyring = Keyring::parse(text.as_bytes()).expect("parsed");
        assert_eq!(keyring.versions(), [1, 12]);
        assert_eq!(keyring.secret(1).expect("version 1").expose(), one.as_bytes());
        assert_eq!(keyring.secret(12).expect("version 12").expose(), two.as_bytes());
        assert!(keyring.secret(2).is_none());
    }

    #[test]
    fn every_fault_names_its_line() {
        let secret = "s".repeat(32);
        assert_eq!(parsed(&format!("1:{secret}\n\n{secret}")), line(3, LineFault::NoColon));
        for version in ["", "0", "-1", "+1", "1.0", "one", "2147483648", "99999999999999999999"] {
            assert_eq!(
                parsed(&format!("#\n{version}:{secret}")),
                line(2, LineFault::BadVersion),
                "{version}"
            );
        }
        assert_eq!(parsed(&format!("1:{}", "s".repeat(31))), line(1, LineFault::ShortSecret));
        assert_eq!(parsed("1:"), line(1, LineFault::ShortSecret));
        assert_eq!(
            parsed(&format!("1:{secret}\n01:{secret}")),
            line(2, LineFault::RepeatedVersion)
        );
        assert_eq!(parsed(&format!("1:{secret}\0{secret}")), line(1, LineFault::ControlCharacter));
        let latin = [b"1:".as_slice(), &[0xE4; 32]].concat();
        let fault = KeyringError::Line { number: 1, fault: LineFault::NotUtf8 };
        assert_eq!(Keyring::parse(&latin).err(), Some(fault));
    }

    #[test]
    fn characters_count_and_not_bytes() {
        assert_eq!(parsed(&format!("1:{}", "ü".repeat(31))), line(1, LineFault::ShortSecret));
        assert_eq!(parsed(&format!("2147483647:{}", "ü".repeat(32))), Ok(vec![2_147_483_647]));
    }

    #[test]
    fn one_to_64_versions() {
        let lines = |count: usize| {
            (1..=count).map(|v| format!("{v}:{}\n", "k".repeat(32))).collect::<String>()
        };
        assert_eq!(parsed(&lines(64)).map(|versions| versions.len()), Ok(64));
        assert_eq!(parsed(&lines(65)), Err(KeyringError::TooManyVersions));
        assert_eq!(parsed("# nothing\n\n"), Err(KeyringError::Empty));
        assert_eq!(parsed(""), Err(KeyringError::Empty));
        assert_eq!(parsed(&"#".repeat(MAX_SOURCE_BYTES + 1)), Err(KeyringError::TooLong));
    }

    #[test]
    fn errors_never_show_content() {
        let marker = "do-not-show-me";
        for text in
            [format!("1:{marker}"), format!("{marker}:{}", "x".repeat(40)), marker.to_owned()]
        {
            let error = Keyring::parse(text.as_bytes()).err().expect("refused");
            assert!(!format!("{error} {error:?}").contains(marker));
            assert!(error.to_string().starts_with("line 1 of the keyring "), "{error}");
        }
    }
}
