//! The keyring: none, unreadable, badly kept, malformed, wrong, of several versions, from a command
//! that fails or hangs. The server always stays up. Every fault has its own message, without any
//! content, and the loaded keyring stays in use. `at_rest` shows that the secret lies nowhere else.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::at_rest::Wanted;
use crate::commands::{command, give_to_runner, run};
use crate::server::{Mode, Server};

const SECRET: &str = "oNe-5f1c9e7a3b2d4c6e8f0a1b3c5d7e9f1a";
const OTHER: &str = "tWo-0a9b8c7d6e5f4a3b2c1d0e9f8a7b6c5d";
const THIRD: &str = "tHr-1122334455667788990011223344556677";

/// A vault that has never seen a keyring.
fn without_keyring(conf: &str) -> Server {
    let server = Server::init();
    server.conf("shared_preload_libraries = 'watchllm_keys'");
    server.conf(conf);
    server.start();
    server.psql("postgres", "CREATE EXTENSION watchllm_keys; SELECT watchllm.install();");
    server
}

fn file_setting(server: &Server) -> String {
    format!("watchllm_keys.master_key_file = '{}'", server.keyring().display())
}

fn vault_with(lines: &str) -> Server {
    let server = Server::init();
    server.preload_vault();
    server.write_keyring(lines);
    server.start();
    server.psql("postgres", "CREATE EXTENSION watchllm_keys; SELECT watchllm.install();");
    server
}

const STORE: &str = "SELECT watchllm.create_project('p') AS p \\gset
    SELECT watchllm.store_provider_key(:'p', 'openai', 'the-key', 'k')";
const OPEN: &str =
    "SELECT watchllm.decrypt_provider_key(id) FROM watchllm.provider_key_records WHERE name = 'k'";
const RELOAD: &str = "SELECT watchllm.reload_keyring()";
const VERSIONS: &str =
    "SELECT active_master_key_version, master_key_versions FROM watchllm.status()";

fn fails(server: &Server, sql: &str, sqlstate: &str, message: &str) {
    let result = server.psql_result("postgres", sql);
    let error = &result.stderr;
    assert!(
        result.status == 3 && result.stdout.is_empty(),
        "not refused: {sql}: {}",
        result.stdout
    );
    assert!(
        error.contains(&format!("ERROR:  {sqlstate}")) && error.contains(message),
        "{sql} ({message}): {error}"
    );
    assert!(error.contains("HINT: "), "no hint: {error}");
}

#[test]
fn the_server_starts_without_a_keyring_and_says_what_is_missing() {
    let server = without_keyring("");
    for call in [
        "SELECT watchllm.create_project('p')",
        "SELECT watchllm.decrypt_provider_key(gen_random_uuid())",
        "SELECT watchllm.store_provider_key(gen_random_uuid(), 'openai', 'the-key')",
        "SELECT * FROM watchllm.decrypt_provider_keys(ARRAY[gen_random_uuid()])",
        "SELECT watchllm.validate_provider_key(gen_random_uuid())",
        RELOAD,
    ] {
        fails(
            &server,
            call,
            "55000",
            "neither watchllm_keys.master_key_file nor watchllm_keys.master_key_command",
        );
    }
    let problem = "SELECT problem, active_master_key_version IS NULL FROM watchllm.status()";
    assert!(server.psql("postgres", problem).contains("neither"));
    assert_eq!(server.psql("postgres", "SELECT count(*) FROM watchllm.master_keys"), "0");
    assert!(server.log().contains("a call was refused without a record"));
}

#[test]
fn a_badly_kept_or_malformed_file_is_refused_until_it_is_mended() {
    let server = without_keyring("");
    server.conf(&file_setting(&server));
    server.restart();
    let file = server.keyring();
    let good = format!("1:{SECRET}\n");
    let refused = |message: &str| {
        fails(&server, RELOAD, "55000", message);
        fails(&server, "SELECT watchllm.create_project('p')", "55000", message);
    };
    refused("could not be read");
    server.write_keyring(&good);
    for mode in [0o644, 0o640, 0o666] {
        fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
        refused(&format!("mode {mode:04o}"));
    }
    if chown(&file, Some(65534), None).is_ok() {
        refused("owned by the server's user or root"); // ours no longer, and readable
        chown(&file, Some(0), None).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        refused("mode 0644");
    }
    fs::remove_file(&file).unwrap();
    run(command("mkfifo").args(["-m", "600"]).arg(&file));
    refused("not a regular file");
    fs::remove_file(&file).unwrap();
    run(command("mkdir").args(["-m", "700"]).arg(&file));
    refused("not a regular file");
    fs::remove_dir(&file).unwrap();
    for (lines, message) in [
        (String::new(), "holds no master key"),
        ("# nothing\n".into(), "holds no master key"),
        (
            format!("1:{}", &SECRET[..31]),
            "line 1 of the keyring has a secret of fewer than 32 characters",
        ),
        (format!("{good}1:{OTHER}"), "line 2 of the keyring repeats a version"),
        (format!("{good}{OTHER}"), "line 2 of the keyring has no colon"),
        (format!("{good}zwei:{OTHER}"), "line 2 of the keyring does not begin with a version"),
        (format!("0:{OTHER}"), "line 1 of the keyring does not begin with a version"),
        ((1..=65).map(|v| format!("{v}:{OTHER}\n")).collect(), "more than 64 versions"),
    ] {
        server.write_keyring(&lines);
        refused(message);
    }
    assert_eq!(server.psql("postgres", "SELECT count(*) FROM watchllm.master_keys"), "0");
    // an ordinary reload of the configuration notices the repair
    server.write_keyring(&good);
    server.psql("postgres", "SELECT pg_reload_conf()");
    server.poll_until("postgres", "SELECT problem IS NULL FROM watchllm.status()", "t", 30);
    server.psql("postgres", STORE);
    assert_eq!(server.psql("postgres", OPEN), "the-key");
    assert!(!Wanted::new(&[SECRET, OTHER]).is_in(server.log()), "a secret is in the log");
}

#[test]
fn a_bad_reload_leaves_what_is_loaded_in_use() {
    let server = vault_with(&format!("1:{SECRET}\n"));
    server.psql("postgres", STORE);
    for (lines, sqlstate, message) in [
        (format!("1:{OTHER}\n"), "28000", "the secret of version 1 does not open its canary"),
        (format!("2:{SECRET}\n"), "55000", "version 1, the active one, is not in the keyring"),
        ("garbage".into(), "55000", "line 1 of the keyring has no colon"),
    ] {
        server.write_keyring(&lines);
        fails(&server, RELOAD, sqlstate, message);
        assert_eq!(server.psql("postgres", OPEN), "the-key");
        assert!(
            server
                .psql("postgres", "SELECT keyring_problem FROM watchllm.status()")
                .contains(message)
        );
    }
    fs::remove_file(server.keyring()).unwrap();
    fails(&server, RELOAD, "55000", "could not be read");
    server.psql("postgres", "SELECT pg_reload_conf()");
    assert_eq!(server.psql("postgres", OPEN), "the-key");
    server.write_keyring(&format!("1:{SECRET}\n"));
    assert_eq!(server.psql("postgres", RELOAD), "1");
    assert_eq!(server.psql("postgres", "SELECT problem IS NULL FROM watchllm.status()"), "t");
    assert_eq!(server.psql("postgres", OPEN), "the-key");
}

#[test]
fn a_wrong_secret_at_start_is_told_from_a_damaged_row() {
    let server = vault_with(&format!("1:{SECRET}\n"));
    server.psql("postgres", STORE);
    let rows = server.psql("postgres", "SELECT count(*) FROM watchllm.provider_key_access_logs");
    server.stop(Mode::Fast);
    server.write_keyring(&format!("1:{OTHER}\n"));
    server.start();
    for call in [OPEN, "SELECT watchllm.create_project('q')", RELOAD] {
        fails(&server, call, "28000", "wrong master key");
    }
    assert_eq!(
        server.psql("postgres", "SELECT count(*) FROM watchllm.provider_key_access_logs"),
        rows
    );
    server.write_keyring(&format!("1:{SECRET}\n"));
    assert_eq!(server.psql("postgres", RELOAD), "1");
    assert_eq!(server.psql("postgres", OPEN), "the-key");
}

#[test]
fn the_highest_version_of_the_first_keyring_is_active_and_later_lines_wait() {
    let server = vault_with(&format!("1:{SECRET}\n3:{OTHER}\n2:{THIRD}\n"));
    server.psql("postgres", STORE);
    assert_eq!(server.psql("postgres", VERSIONS), "3|{3}");
    let rows = "SELECT version, is_active, iterations, length(salt) FROM watchllm.master_keys";
    assert_eq!(server.psql("postgres", rows), "3|t|600000|16");
    server.write_keyring(&format!("7:{SECRET}\n3:{OTHER}\n"));
    assert_eq!(server.psql("postgres", RELOAD), "1");
    server.restart();
    assert_eq!(server.psql("postgres", OPEN), "the-key");
    assert_eq!(server.psql("postgres", VERSIONS), "3|{3}");
    assert_eq!(server.psql("postgres", rows), "3|t|600000|16");
    let sealed_under = "SELECT DISTINCT master_key_version FROM watchllm.provider_key_versions";
    server.psql("postgres", &STORE.replace("'p'", "'q'").replace(":'q'", ":'p'"));
    assert_eq!(server.psql("postgres", sealed_under), "3");
    server.write_keyring(&format!("7:{SECRET}\n"));
    server.restart();
    fails(&server, OPEN, "55000", "version 3, the active one, is not in the keyring");
}

/// A script beside the keyring, for `master_key_command`.
fn script(server: &Server, lines: &str) -> PathBuf {
    let path = server.keyring().with_file_name("command.sh");
    fs::write(&path, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    give_to_runner(&path);
    path
}

#[test]
fn a_command_that_fails_floods_or_hangs_is_bounded_and_its_words_stay_out_of_the_log() {
    let server = without_keyring("watchllm_keys.master_key_command_timeout = '1s'");
    let place = server.keyring().parent().unwrap().to_path_buf();
    server.write_keyring(&format!("1:{SECRET}\n"));
    let cat = format!("cat {}", server.keyring().display());
    let path = script(&server, &format!("{cat}; echo stderr-marker >&2; exit 7"));
    server.conf(&format!("watchllm_keys.master_key_command = 'exec {}'", path.display()));
    server.restart(); // the command is in the configuration from now on, only the script changes
    let refused = |message: &str| {
        fails(&server, RELOAD, "55000", message);
        fails(&server, "SELECT watchllm.create_project('p')", "55000", message);
    };
    refused("ended with exit status 7");
    script(&server, &format!("{cat}; echo stderr-marker >&2; kill -9 $$"));
    refused("ended by a signal");
    script(&server, "echo stderr-marker >&2; yes 1:yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy");
    refused("longer than 65536 bytes");
    script(&server, "echo stdout-marker");
    refused("line 1 of the keyring has no colon");
    script(
        &server,
        &format!(
            "echo $$ > {0}/shell; trap '' TERM HUP INT; sleep 876 & echo $! > {0}/child; wait",
            place.display()
        ),
    );
    refused("took too long");
    for name in ["shell", "child"] {
        let pid = fs::read_to_string(place.join(name)).unwrap();
        let process = PathBuf::from(format!("/proc/{}/cmdline", pid.trim()));
        let deadline = Instant::now() + Duration::from_secs(20);
        while fs::read_to_string(&process)
            .is_ok_and(|line| line.contains("sleep") || line.contains("command.sh"))
        {
            assert!(Instant::now() < deadline, "the {name} of the command is still there");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    script(&server, &format!("echo stderr-marker >&2; {cat}"));
    assert_eq!(server.psql("postgres", RELOAD), "1");
    server.psql("postgres", STORE);
    server.restart();
    assert_eq!(server.psql("postgres", OPEN), "the-key");
    let log = server.log();
    assert!(
        !log.contains("stderr-marker") && !log.contains("stdout-marker"),
        "the command's words are in the log"
    );
    assert!(!Wanted::new(&[SECRET]).is_in(&log));
}

/// `reload_keyring()` answers for the keyring at the time of the call, not for a load that began
/// before.
#[test]
fn a_reload_does_not_answer_for_an_earlier_one() {
    let server = without_keyring("watchllm_keys.master_key_command_timeout = '20s'");
    server.write_keyring("garbage\n");
    let read = server.keyring().with_file_name("read");
    let lines = format!("cat {}; touch {}; sleep 3", server.keyring().display(), read.display());
    server.conf(&format!(
        "watchllm_keys.master_key_command = '{}'",
        script(&server, &lines).display()
    ));
    server.restart();
    fails(&server, RELOAD, "55000", "no colon");
    fs::remove_file(&read).unwrap();
    server.psql("postgres", "SELECT pg_reload_conf()");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !read.exists() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    server.write_keyring(&format!("1:{SECRET}\n"));
    assert_eq!(server.psql("postgres", RELOAD), "1");
}

#[test]
fn root_keys_outlive_the_writer_and_the_file() {
    let server = vault_with(&format!("1:{SECRET}\n"));
    server.psql("postgres", STORE);
    let mut client = server.connect("postgres", "postgres");
    let open = client.prepare(OPEN).unwrap();
    for _ in 0..2000 {
        assert_eq!(client.query_one(&open, &[]).unwrap().get::<_, String>(0), "the-key");
    }
    let starts = "SELECT writer_starts FROM watchllm.status()";
    assert_eq!(server.psql("postgres", starts), "1");
    fs::remove_file(server.keyring()).unwrap();
    server.kill_backend(server.writer_pid("postgres").unwrap(), "TERM");
    assert_eq!(server.psql("postgres", OPEN), "the-key");
    assert_eq!(client.query_one(&open, &[]).unwrap().get::<_, String>(0), "the-key");
    server.poll_until("postgres", starts, "2", 30);
    fails(&server, RELOAD, "55000", "could not be read");
    assert_eq!(server.psql("postgres", OPEN), "the-key");
    drop(client);
    server.restart();
    fails(&server, OPEN, "55000", "could not be read");
}
