//! How the harness runs programs of the private tree: in a clean environment and never as root.
//! PostgreSQL refuses to run as root. If we are root, everything runs as the user that `make test`
//! names.

use std::ffi::OsStr;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

/// The root of the private tree (`WATCHLLM_SERVER`, set by `make test`).
pub(crate) fn tree() -> &'static Path {
    static TREE: OnceLock<PathBuf> = OnceLock::new();
    TREE.get_or_init(|| {
        let tree = std::env::var_os("WATCHLLM_SERVER").map(PathBuf::from).unwrap_or_else(|| {
            panic!("WATCHLLM_SERVER is not set: cluster tests need the private server tree, run `make test`")
        });
        assert!(tree.join("bin/postgres").exists(), "no server in {}: run `make test`", tree.display());
        tree
    })
}

/// Where test clusters live: beside the private tree, in a place that the servers' user can reach.
pub(crate) fn clusters() -> &'static Path {
    static CLUSTERS: OnceLock<PathBuf> = OnceLock::new();
    CLUSTERS.get_or_init(|| {
        let clusters = tree().parent().expect("the tree has a parent").join("clusters");
        std::fs::create_dir_all(&clusters).expect("making the clusters' directory");
        clusters
    })
}

/// User and group that servers run as, when we are root.
fn runner() -> Option<(u32, u32)> {
    static RUNNER: OnceLock<Option<(u32, u32)>> = OnceLock::new();
    *RUNNER.get_or_init(|| {
        if std::fs::metadata("/proc/self").expect("reading /proc/self").uid() != 0 {
            return None;
        }
        let user = std::env::var("WATCHLLM_RUN_AS").unwrap_or_else(|_| "postgres".into());
        let passwd = std::fs::read_to_string("/etc/passwd").expect("reading /etc/passwd");
        let line = passwd.lines().find(|line| line.split(':').next() == Some(user.as_str()));
        let fields: Vec<&str> =
            line.unwrap_or_else(|| panic!("there is no user {user}")).split(':').collect();
        Some((fields[2].parse().expect("a uid"), fields[3].parse().expect("a gid")))
    })
}

/// Gives a file or directory to the user that servers run as.
pub(crate) fn give_to_runner(path: &Path) {
    if let Some((uid, gid)) = runner() {
        std::os::unix::fs::chown(path, Some(uid), Some(gid)).expect("chown to the servers' user");
    }
}

/// A command as the servers' user. RUST_BACKTRACE is removed, because it would put backtraces into
/// error details. The caller's PG* variables are removed, because they would point clients
/// elsewhere.
pub(crate) fn command(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new(program);
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("PG")
            || name.starts_with("RUST")
            || name.starts_with("LC_")
            || name.starts_with("LANG")
        {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").current_dir("/").stdin(Stdio::null());
    if let Some((uid, gid)) = runner() {
        command.uid(uid).gid(gid);
    }
    command
}

/// A program of the private tree: `program("pg_dump")`.
pub(crate) fn program(name: &str) -> Command {
    command(tree().join("bin").join(name))
}

/// Runs to the end. Panics with both streams if it fails.
pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?} failed:\n{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
    text(&output.stdout)
}

/// Runs to the end with `input` on stdin. Writing and reading happen at the same time, so that
/// neither side blocks the other.
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Output {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let mut stdin = child.stdin.take().expect("a piped stdin");
    std::thread::scope(|scope| {
        // a client that ends early (ON_ERROR_STOP) closes the pipe, which is no failure here
        scope.spawn(move || drop(stdin.write_all(input.as_bytes())));
        child.wait_with_output().expect("waiting for the client")
    })
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
