//! A throw-away PostgreSQL server that speaks like PostgreSQL::Test::Cluster: init, conf, start,
//! stop, psql, poll_until. It listens on a unix socket only. It is stopped and removed when
//! dropped, or kept with WATCHLLM_KEEP=1.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use crate::commands::{clusters, command, give_to_runner, program, run, run_with_input, text};
use crate::template::template;

const SETTINGS: &str = "
listen_addresses = ''
fsync = on
shared_buffers = 16MB
max_connections = 60
log_line_prefix = '%m [%p] %b %a '
max_wal_senders = 4
wal_level = logical
wal_keep_size = 64MB
autovacuum_naptime = 10s
";

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Smart,
    Fast,
    Immediate,
}

/// What psql said: exit status (3 when a statement failed), stdout, and stderr with SQLSTATEs.
pub(crate) struct PsqlResult {
    pub status: i32,
    pub stdout: String,
    pub stderr: String,
}

pub(crate) struct Server {
    directory: PathBuf,
    socket: PathBuf,
    running: Cell<bool>,
}

impl Server {
    /// A fresh cluster, not started: a copy of the template, with its own socket directory.
    pub(crate) fn init() -> Server {
        let server = Server::place();
        run(command("cp").args(["-R", "--reflink=auto"]).arg(template()).arg(server.data_dir()));
        server.conf(SETTINGS);
        server.conf(&server.socket_setting());
        server
    }

    /// A started server with a vault in database postgres: preloaded, one master key, extension and
    /// tables installed.
    pub(crate) fn with_vault() -> Server {
        Server::with_vault_and("")
    }

    /// The same with more lines in postgresql.conf.
    pub(crate) fn with_vault_and(conf: &str) -> Server {
        let server = Server::init();
        server.preload_vault();
        server.conf(conf);
        server.start();
        server.psql("postgres", "CREATE EXTENSION watchllm_keys; SELECT watchllm.install();");
        server
    }

    /// Preloads the library, and writes a keyring of one random version, readable by the server
    /// alone.
    pub(crate) fn preload_vault(&self) {
        self.write_keyring(&format!("1:{}\n", random_hex()));
        self.conf(&format!(
            "shared_preload_libraries = 'watchllm_keys'\nwatchllm_keys.master_key_file = '{}'",
            self.keyring().display()
        ));
    }

    pub(crate) fn keyring(&self) -> PathBuf {
        self.directory.join("master.keys")
    }

    pub(crate) fn write_keyring(&self, lines: &str) {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.keyring());
        std::io::Write::write_all(file.as_mut().expect("opening the keyring"), lines.as_bytes())
            .expect("writing it");
        give_to_runner(&self.keyring());
    }

    /// Appends to postgresql.conf; later lines win.
    pub(crate) fn conf(&self, lines: &str) {
        let path = self.data_dir().join("postgresql.conf");
        let mut file =
            fs::OpenOptions::new().append(true).open(path).expect("opening postgresql.conf");
        std::io::Write::write_all(&mut file, format!("{lines}\n").as_bytes())
            .expect("writing postgresql.conf");
    }

    pub(crate) fn start(&self) {
        self.try_start().unwrap_or_else(|log| panic!("the server did not start:\n{log}"));
    }

    /// `Err` holds the end of the server log.
    pub(crate) fn try_start(&self) -> Result<(), String> {
        let log = self.directory.join("log");
        let output = self
            .pg_ctl()
            .arg("-l")
            .arg(&log)
            .args(["-s", "-w", "-t", "90", "start"])
            .output()
            .expect("pg_ctl");
        self.running.set(output.status.success());
        if output.status.success() { Ok(()) } else { Err(tail(&self.log(), 40)) }
    }

    pub(crate) fn stop(&self, mode: Mode) {
        run(self
            .pg_ctl()
            .args(["-s", "-w", "-t", "90", "stop", "-m"])
            .arg(format!("{mode:?}").to_lowercase()));
        self.running.set(false);
    }

    pub(crate) fn restart(&self) {
        self.stop(Mode::Fast);
        self.start();
    }

    /// Restarts a server that says what it says in this language, as far as its catalogs are there.
    pub(crate) fn restart_in(&self, language: &str) {
        self.conf("lc_messages = 'C.UTF-8'");
        self.stop(Mode::Fast);
        let mut pg_ctl = self.pg_ctl();
        pg_ctl.env("LANGUAGE", language).arg("-l").arg(self.directory.join("log"));
        run(pg_ctl.args(["-s", "-w", "-t", "90", "start"]));
        self.running.set(true);
    }

    pub(crate) fn reload(&self) {
        run(self.pg_ctl().args(["-s", "reload"]));
    }

    pub(crate) fn promote(&self) {
        run(self.pg_ctl().args(["-s", "-w", "promote"]));
    }

    /// Unaligned tuples only, without the last newline. Panics with stderr if a statement fails.
    pub(crate) fn psql(&self, database: &str, sql: &str) -> String {
        let result = self.psql_result(database, sql);
        assert!(
            result.status == 0,
            "psql exited with {} for:\n{sql}\n{}",
            result.status,
            result.stderr
        );
        result.stdout
    }

    pub(crate) fn psql_result(&self, database: &str, sql: &str) -> PsqlResult {
        self.psql_result_as(database, "postgres", sql)
    }

    /// Errors in stderr carry their SQLSTATE (`ERROR:  42501: …`). The first failing statement ends
    /// the run.
    pub(crate) fn psql_result_as(&self, database: &str, user: &str, sql: &str) -> PsqlResult {
        let mut psql = self.client("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-v",
            "VERBOSITY=verbose",
            "-d",
            database,
        ]);
        let output = run_with_input(psql.env("PGUSER", user), sql);
        let stdout = text(&output.stdout);
        PsqlResult {
            status: output.status.code().unwrap_or(-1),
            stdout: stdout.strip_suffix('\n').unwrap_or(&stdout).to_string(),
            stderr: text(&output.stderr),
        }
    }

    /// A client of the private tree, connected to this server: `client("pgbench")`,
    /// `client("pg_dump")`.
    pub(crate) fn client(&self, name: &str) -> Command {
        let mut client = program(name);
        client.env("PGHOST", &self.socket).env("PGUSER", "postgres");
        client
    }

    pub(crate) fn connect(&self, database: &str, user: &str) -> postgres::Client {
        self.try_connect(database, user)
            .unwrap_or_else(|error| panic!("connecting to {database} as {user}: {error}"))
    }

    pub(crate) fn try_connect(
        &self,
        database: &str,
        user: &str,
    ) -> Result<postgres::Client, postgres::Error> {
        let mut config = postgres::Config::new();
        config.host_path(&self.socket).dbname(database).user(user).application_name("cluster test");
        config.connect(postgres::NoTls)
    }

    /// The whole server log so far.
    pub(crate) fn log(&self) -> String {
        text(&fs::read(self.directory.join("log")).unwrap_or_default())
    }

    pub(crate) fn log_len(&self) -> usize {
        fs::metadata(self.directory.join("log")).map_or(0, |metadata| metadata.len() as usize)
    }

    pub(crate) fn log_since(&self, position: usize) -> String {
        text(
            fs::read(self.directory.join("log"))
                .unwrap_or_default()
                .get(position..)
                .unwrap_or_default(),
        )
    }

    /// Asks until the answer is `expected`. Panics with the last answer after `seconds`.
    pub(crate) fn poll_until(&self, database: &str, sql: &str, expected: &str, seconds: u64) {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let result = self.psql_result(database, sql);
            if result.status == 0 && result.stdout == expected {
                return;
            }
            let last = format!("{}{}", result.stdout, result.stderr);
            assert!(
                Instant::now() < deadline,
                "after {seconds} s, expected {expected:?}, last answer {last:?}\n{sql}"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// `signal` as kill(1) names it: "KILL", "TERM", "STOP", "CONT".
    pub(crate) fn kill_backend(&self, pid: i32, signal: &str) {
        run(command("kill").arg(format!("-{signal}")).arg(pid.to_string()));
    }

    /// The audit writer of a database. None while none runs.
    pub(crate) fn writer_pid(&self, database: &str) -> Option<i32> {
        let sql = format!(
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'watchllm_keys writer' AND datname = '{database}'"
        );
        self.psql("postgres", &sql).lines().next().map(|pid| pid.parse().expect("a pid"))
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    pub(crate) fn socket_dir(&self) -> &Path {
        &self.socket
    }

    /// A streaming standby made by pg_basebackup -R, with the same keyring; not started.
    pub(crate) fn backup_to_standby(&self) -> Server {
        let standby = Server::place();
        let mut backup = self.client("pg_basebackup");
        run(backup.args(["-R", "-X", "stream", "-c", "fast", "-D"]).arg(standby.data_dir()));
        standby.conf(&standby.socket_setting());
        if let Ok(lines) = fs::read_to_string(self.keyring()) {
            standby.write_keyring(&lines);
            standby.conf(&format!(
                "watchllm_keys.master_key_file = '{}'",
                standby.keyring().display()
            ));
        }
        standby
    }

    /// pg_dump with further arguments. The dump is in the server's directory under `name`.
    pub(crate) fn dump(&self, database: &str, name: &str, arguments: &[&str]) -> PathBuf {
        let file = self.directory.join(name);
        run(self.client("pg_dump").args(arguments).arg("-f").arg(&file).args(["-d", database]));
        file
    }

    pub(crate) fn dump_all(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let file = self.directory.join(name);
        run(self.client("pg_dumpall").args(arguments).arg("-f").arg(&file));
        file
    }

    /// pg_restore of an archive. Every error is fatal.
    pub(crate) fn restore(&self, database: &str, file: &Path, arguments: &[&str]) {
        run(self
            .client("pg_restore")
            .arg("--exit-on-error")
            .args(arguments)
            .args(["-d", database])
            .arg(file));
    }

    /// psql of a plain dump (pg_dump -Fp, pg_dumpall). Returns what psql said, so that a test can
    /// judge errors.
    pub(crate) fn restore_plain(&self, database: &str, file: &Path) -> PsqlResult {
        self.psql_result(database, &fs::read_to_string(file).expect("reading the dump"))
    }

    fn pg_ctl(&self) -> Command {
        let mut pg_ctl = program("pg_ctl");
        pg_ctl.arg("-D").arg(self.data_dir());
        pg_ctl
    }

    fn socket_setting(&self) -> String {
        format!(
            "unix_socket_directories = '{}'\nunix_socket_permissions = 0700",
            self.socket.display()
        )
    }

    /// Directories of a new server, named after this process. So a later run can remove what a
    /// killed one left.
    fn place() -> Server {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let directory = clusters().join(format!("{}-{count}", std::process::id()));
        fs::create_dir(&directory).expect("making the server's directory");
        give_to_runner(&directory);
        let socket =
            PathBuf::from(run(command("mktemp").args(["-d", "/tmp/wk.XXXXXX"])).trim_end());
        run(command("chmod").arg("755").arg(&socket));
        Server { directory, socket, running: Cell::new(false) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::env::var_os("WATCHLLM_KEEP").is_some() {
            eprintln!("kept: {} (socket {})", self.directory.display(), self.socket.display());
            return;
        }
        if self.running.get() || self.data_dir().join("postmaster.pid").exists() {
            drop(self.pg_ctl().args(["-s", "-w", "-m", "immediate", "stop"]).output());
        }
        drop(fs::remove_dir_all(&self.directory));
        drop(fs::remove_dir_all(&self.socket));
    }
}

fn random_hex() -> String {
    let bytes: [[u8; 16]; 2] = [*uuid::Uuid::new_v4().as_bytes(), *uuid::Uuid::new_v4().as_bytes()];
    bytes.concat().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
