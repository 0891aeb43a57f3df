//! Scans the server log. The server reads its files in pieces of a megabyte, whatever their format
//! and size. `server_log` finds the files. The answer distinguishes "nothing found" from "nothing
//! searched".

use super::{Place, Scan, back, begin};
use crate::api::access::Access;
use crate::error::Error;
use crate::input::PlaceName;
use crate::postgres::{process, session};
use crate::redact;
use crate::server_log;
use crate::trail::Channel;
use pgrx::datum::Interval;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Bytes read at a time.
const AT_ONCE: u64 = 1 << 16;
/// Where the logging collector notes the files it writes, in the data directory.
const NOTE: &str = "current_logfiles";

/// Scans the server's log files (plain, csv, json, packed by gzip) that were modified since a time
/// back from now. A row per key and file; each key is an incident once. If the server's log is in
/// no file that it can find, a NOTICE says so. Reads as the server's own user, so the caller needs
/// no right on files. Errors: not an administrator 42501.
#[pg_extern(volatile, parallel_unsafe)]
#[search_path(pg_catalog, pg_temp)]
fn scan_server_log(
    since: default!(Option<Interval>, "'24 hours'"),
) -> Result<
    TableIterator<
        'static,
        (
            name!(place, String),
            name!(provider, Option<String>),
            name!(kind, String),
            name!(redacted, String),
            name!(provider_key_id, Option<pgrx::Uuid>),
            name!(occurrences, i64),
            name!(is_new, bool),
        ),
    >,
    ErrorReport,
> {
    let access = begin(Access::must_administer)?;
    let since = back(&access, access.need(since, "since")?)?;
    let since = SystemTime::UNIX_EPOCH + Duration::from_micros(since.micros().unsigned_abs());
    let mut scan = Scan::new(access, Channel::ScanLog)?;
    let files = files(since);
    notice!("scan_server_log: {} files modified since then", files.len());
    for path in files {
        search_file(&mut scan, &path)?;
    }
    Ok(TableIterator::new(scan.finish()))
}

/// The log files there are. Missing ones are reported, because "nothing found" differs from
/// "nothing searched".
fn files(since: SystemTime) -> Vec<PathBuf> {
    let directory = session::setting(c"log_directory").unwrap_or_default();
    let collects = session::setting(c"logging_collector").is_some_and(|value| value == "on");
    let listed = server_log::recent_files(Path::new(&directory), "", since);
    if let (Err(error), true) = (&listed, collects) {
        notice!("scan_server_log: log_directory cannot be read: {}", error.kind());
    }
    let mut files = listed.unwrap_or_default();
    let note = std::fs::read_to_string(NOTE).unwrap_or_default();
    files.extend(
        server_log::current_files(&note)
            .into_iter()
            .filter(|path| server_log::is_recent(path, since)),
    );
    if !collects {
        files.extend(of_standard_error(since));
    }
    // A file with two names is one file.
    let whole = |path: &PathBuf| std::fs::canonicalize(path).unwrap_or_else(|_| path.clone());
    files.sort_by_key(whole);
    files.dedup_by_key(|path| whole(path));
    files
}

/// The files without a logging collector (Debian's default): the file that the server's standard
/// error goes to, and what logrotate made of it.
fn of_standard_error(since: SystemTime) -> Vec<PathBuf> {
    let file = server_log::standard_error();
    let named = file.as_ref().and_then(|path| Some((path.parent()?, path.file_name()?.to_str()?)));
    let Some((directory, name)) = named else {
        notice!(
            "scan_server_log: there is no log to scan: logging_collector is off, and the server's \
             standard error goes to no file it can find. Search the log where it is kept: load it \
             into a table for watchllm.scan_table_for_leaks(), or set logging_collector = on."
        );
        return vec![];
    };
    notice!(
        "scan_server_log: logging_collector is off: only the file that the server's standard error \
         goes to is scanned, {}, and older ones of its name",
        PlaceName::clean(&directory.join(name).to_string_lossy()).as_str()
    );
    server_log::recent_files(directory, name, since).unwrap_or_default()
}

/// Searches one file. A file that cannot be read to its end is skipped, and reported.
fn search_file(scan: &mut Scan, path: &Path) -> Result<(), Error> {
    let shown = PlaceName::clean(&path.to_string_lossy());
    let place = Place { shown: shown.clone(), identity: "server log".into() };
    let shown = shown.as_str();
    let mut file = match server_log::open_log(path) {
        Ok(Some(file)) => file,
        Ok(None) => {
            notice!("scan_server_log: {shown} is not scanned: it is packed, and not by gzip");
            return Ok(());
        }
        Err(error) => {
            notice!("scan_server_log: {shown} is not scanned: {}", error.kind());
            return Ok(());
        }
    };
    let (mut text, mut is_all) = (Vec::new(), false);
    loop {
        while !is_all && redact::piece(&text, false).is_none() {
            process::check_interrupts();
            let read = file.by_ref().take(AT_ONCE).read_to_end(&mut text);
            if let Err(error) = &read {
                notice!("scan_server_log: {shown} is scanned only in part: {}", error.kind());
            }
            is_all = !matches!(read, Ok(1..));
        }
        let Some(piece) = redact::piece(&text, is_all) else { return Ok(()) };
        scan.search_piece(&&place, &text[..piece.end], piece.next)?;
        text.drain(..piece.next);
        if text.is_empty() && is_all {
            return Ok(());
        }
    }
}
