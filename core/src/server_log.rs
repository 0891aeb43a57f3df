//! The files of the server log: which there are, and their unpacked text. Only regular files are
//! opened, and without waiting. A pipe has no end, and a link in the directory may point anywhere.
//! Whether a text holds a key is not judged here.

use std::fs::{File, symlink_metadata};
use std::io::{BufReader, Error, Read, Result};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use flate2::read::MultiGzDecoder;
use rustix::fs::{Mode, OFlags, open};

/// The first bytes of a gzip file (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The first bytes of files packed by xz, zstd or bzip2, which this reader cannot unpack.
const OTHERWISE_PACKED: [&[u8]; 3] = [b"\xfd7zXZ", b"\x28\xb5\x2f\xfd", b"BZh"];

/// Lists the regular files of a directory, by name. Their names begin with `prefix`, and they were
/// modified at or after `since`.
pub fn recent_files(directory: &Path, prefix: &str, since: SystemTime) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let begins =
            path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        if begins && is_recent(&path, since) {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Whether this is a regular file, not a link to one, modified at or after `since`.
pub fn is_recent(path: &Path, since: SystemTime) -> bool {
    symlink_metadata(path).is_ok_and(|found| {
        found.is_file() && found.modified().is_ok_and(|modified| modified >= since)
    })
}

/// The files that the logging collector writes now. It notes them in the data directory, one
/// "FORMAT PATH" a line.
pub fn current_files(note: &str) -> Vec<PathBuf> {
    note.lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(_, path)| PathBuf::from(path))
        .collect()
}

/// The file that standard error goes to. None if it goes to a pipe or the journal.
pub fn standard_error() -> Option<PathBuf> {
    let path = std::fs::read_link("/proc/self/fd/2").ok()?;
    symlink_metadata(&path).is_ok_and(|found| found.is_file()).then_some(path)
}

/// Opens a log file, and unpacks it if gzip packed it. Reads no further than its present end,
/// because a busy log could grow faster than it is read. None: it is packed in another way.
pub fn open_log(path: &Path) -> Result<Option<Box<dyn Read>>> {
    let flags =
        OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = File::from(open(path, flags, Mode::empty())?);
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(Error::other("not a regular file"));
    }
    let mut start = Vec::new();
    let mut file = file.take(found.len());
    file.by_ref().take(5).read_to_end(&mut start)?;
    if OTHERWISE_PACKED.iter().any(|packed| start.starts_with(packed)) {
        return Ok(None);
    }
    let is_gzip = start.starts_with(&GZIP);
    let whole = std::io::Cursor::new(start).chain(file);
    Ok(Some(if is_gzip {
        Box::new(MultiGzDecoder::new(BufReader::new(whole)))
    } else {
        Box::new(whole)
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use std::io::Write;
    use std::time::Duration;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Directory {
            let path =
                std::env::temp_dir().join(format!("server_log_{}_{name}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Directory(path)
        }

        fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
            let path = self.0.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            std::fs::remove_dir_all(&self.0).unwrap();
        }
    }

    fn read(path: &Path) -> Vec<u8> {
        let mut text = Vec::new();
        open_log(path).unwrap().unwrap().read_to_end(&mut text).unwrap();
        text
    }

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn links_pipes_and_old_files_are_no_log_files() {
        let directory = Directory::new("listed");
        let log = directory.put("a.log", b"a");
        directory.put("b.csv", b"b");
        std::fs::create_dir(directory.0.join("directory")).unwrap();
        std::os::unix::fs::symlink(&log, directory.0.join("link.log")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            directory.0.join("pipe.log"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR,
            0,
        )
        .unwrap();
        let long_ago = SystemTime::now() - Duration::from_secs(3600);
        let names = |since| -> Vec<String> {
            let files = recent_files(&directory.0, "", since).unwrap();
            files
                .iter()
                .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
                .collect()
        };
        assert_eq!(names(long_ago), ["a.log", "b.csv"]);
        assert!(names(SystemTime::now() + Duration::from_secs(3600)).is_empty());
        assert_eq!(recent_files(&directory.0, "b", long_ago).unwrap().len(), 1);
        for name in ["pipe.log", "link.log", "directory", "nowhere"] {
            assert!(open_log(&directory.0.join(name)).is_err(), "{name}");
        }
    }

    #[test]
    fn files_are_read_as_they_are_whatever_their_name() {
        let directory = Directory::new("read");
        let members = [packed(b"one\n"), packed(b"two\n")].concat();
        for (name, bytes, text) in [
            ("plain.log", b"text\n".to_vec(), b"text\n".to_vec()),
            ("empty.log", vec![], vec![]),
            ("x", vec![0x1f], vec![0x1f]),
            ("a.gz", packed(b"text\n"), b"text\n".to_vec()),
            ("a.log.1", members, b"one\ntwo\n".to_vec()),
        ] {
            assert_eq!(read(&directory.put(name, &bytes)), text, "{name}");
        }
        assert!(open_log(&directory.put("a.zst", b"\x28\xb5\x2f\xfd....")).unwrap().is_none());
        let cut = packed(&vec![b'x'; 100_000]);
        let mut text = vec![];
        let broken = directory.put("cut.gz", &cut[..cut.len() / 2]);
        assert!(open_log(&broken).unwrap().unwrap().read_to_end(&mut text).is_err());
    }

    #[test]
    fn the_collectors_note_names_files() {
        let note = "stderr log/postgresql a.log\ncsvlog log/postgresql.csv\nnonsense\n";
        assert_eq!(
            current_files(note),
            ["log/postgresql a.log", "log/postgresql.csv"].map(PathBuf::from)
        );
    }
}
