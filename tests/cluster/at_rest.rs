//! Only ciphertext at rest: a canary key goes through every operation. Afterwards it is in no file
//! of the data directory, no WAL, no logical stream, no dump, no statistics and no log. A control
//! text in an ordinary table is found in each of these places, so the search works.

use std::fs;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use regex::bytes::{Regex, RegexBuilder};
use uuid::Uuid;

use crate::commands::text;
use crate::server::{Mode, Server};

/// A text to search for, in every form in which a file may hold it.
pub(crate) struct Wanted(Regex);

impl Wanted {
    /// The whole text and its halves: plain, in hex and in base64, at each of the three offsets of
    /// a group of four letters.
    pub(crate) fn new(secrets: &[&str]) -> Wanted {
        let mut shapes = Vec::new();
        for secret in secrets {
            let bytes = secret.as_bytes();
            let (left, right) = bytes.split_at(bytes.len() / 2);
            for part in [bytes, left, right] {
                shapes.push(text(part));
                shapes.push(part.iter().map(|byte| format!("{byte:02x}")).collect());
                for skipped in 0..3 {
                    let part = &part[skipped..part.len() - (part.len() - skipped) % 3];
                    shapes.push(STANDARD_NO_PAD.encode(part));
                }
            }
        }
        let pattern = shapes.iter().map(|shape| regex::escape(shape)).collect::<Vec<_>>().join("|");
        Wanted(RegexBuilder::new(&pattern).case_insensitive(true).unicode(false).build().unwrap())
    }

    pub(crate) fn is_in(&self, bytes: impl AsRef<[u8]>) -> bool {
        self.0.is_match(bytes.as_ref())
    }

    /// The files below a directory that hold it. The server may be running, so a file may vanish
    /// meanwhile.
    pub(crate) fn files(&self, directory: &Path) -> Vec<String> {
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                found.extend(self.files(&path));
            } else if fs::read(&path).is_ok_and(|bytes| self.is_in(bytes)) {
                found.push(path.display().to_string());
            }
        }
        found
    }
}

/// The canary keys: the stored one and the one it is rotated to. Their last four characters are
/// shown on purpose.
const STORED: &str = "sk-proj-q7Vd2LmXw9RzT4KbY8NcH3JfP6GsQ1AeU5oWxyzt";
const ROTATED: &str = "sk-proj-M3nB8vC1xZ6lK9jH4gF7dS2aP5oI0uYtReWqwvut";
const CONTROL: &str = "control-h2Gk7Wq9Zr4Tn8Vb3Xc6Lm1Pf5Jd0Sy";

fn secret_part(key: &str) -> &str {
    &key["sk-proj-".len()..key.len() - 4]
}

/// Store, rotate, decrypt in every way, validate, roll back: keys go in and out by the protocol
/// alone.
fn use_every_operation(client: &mut postgres::Client) {
    let project: Uuid =
        client.query_one("SELECT watchllm.create_project('rest')", &[]).unwrap().get(0);
    let store = "SELECT watchllm.store_provider_key($1, 'openai', $2, 'canary')";
    let key: Uuid = client.query_one(store, &[&project, &STORED]).unwrap().get(0);
    let mut opens_to = |expected: &str| {
        let decrypt = "SELECT watchllm.decrypt_provider_key($1)";
        assert_eq!(client.query_one(decrypt, &[&key]).unwrap().get::<_, String>(0), expected);
        let many = client
            .query("SELECT api_key FROM watchllm.decrypt_provider_keys($1)", &[&vec![key; 20]])
            .unwrap();
        assert!(many.len() == 20 && many.iter().all(|row| row.get::<_, String>(0) == expected));
        let resolve = "SELECT api_key FROM watchllm.resolve_provider_key($1, 'openai')";
        assert_eq!(client.query_one(resolve, &[&project]).unwrap().get::<_, String>(0), expected);
        assert!(
            client
                .query_one("SELECT watchllm.validate_provider_key($1)", &[&key])
                .unwrap()
                .get::<_, bool>(0)
        );
    };
    opens_to(STORED);
    client.query_one("SELECT watchllm.rotate_provider_key($1, $2)", &[&key, &ROTATED]).unwrap();
    client.query_one("SELECT watchllm.rollback_provider_key($1)", &[&key]).unwrap();
    client.query_one("SELECT watchllm.rotate_provider_key($1, $2)", &[&key, &ROTATED]).unwrap();
    // a key whose transaction was rolled back is secret too
    let mut undone = client.transaction().unwrap();
    undone.query_one("SELECT watchllm.rotate_provider_key($1, $2)", &[&key, &STORED]).unwrap();
    undone.rollback().unwrap();
    client.query_one("SELECT watchllm.decrypt_provider_key($1)", &[&key]).unwrap();
}

fn leave_the_control(client: &mut postgres::Client) {
    client.batch_execute("CREATE TABLE ordinary (secret text)").unwrap();
    client.execute("INSERT INTO ordinary VALUES ($1)", &[&CONTROL]).unwrap();
    client.query_one(&format!("SELECT 1 /* {CONTROL} */"), &[]).unwrap();
    client.batch_execute(&format!("DO $$ BEGIN RAISE LOG '{CONTROL}'; END $$")).unwrap();
}

#[test]
fn a_key_is_in_no_file_stream_dump_statistics_or_log() {
    let server = Server::init();
    server.preload_vault();
    server.conf("shared_preload_libraries = 'pg_stat_statements, watchllm_keys'\npg_stat_statements.track = all");
    server.start();
    server.psql(
        "postgres",
        "CREATE EXTENSION watchllm_keys; SELECT watchllm.install(); CREATE EXTENSION pg_stat_statements",
    );
    server.psql("postgres", "SELECT pg_create_logical_replication_slot('watch', 'test_decoding')");
    let mut client = server.connect("postgres", "postgres");
    use_every_operation(&mut client);
    server.poll_until(
        "postgres",
        "SELECT bool_or(access_count > 0) FROM watchllm.provider_key_usage",
        "t",
        30,
    );
    let spilled = "SELECT temp_files FROM pg_stat_database WHERE datname = 'postgres'";
    assert_eq!(server.psql("postgres", spilled), "0", "a temporary file was written");
    leave_the_control(&mut client);
    drop(client);
    server.psql("postgres", "CHECKPOINT");

    let (canary, control) =
        (Wanted::new(&[secret_part(STORED), secret_part(ROTATED)]), Wanted::new(&[CONTROL]));
    let running = canary.files(&server.data_dir());
    let statements = server.psql("postgres", "SELECT query FROM pg_stat_statements");
    let stream = server
        .psql("postgres", "SELECT data FROM pg_logical_slot_get_changes('watch', NULL, NULL)");
    assert!(
        stream.contains("provider_key_versions: INSERT")
            && stream.contains("provider_key_access_logs")
    );
    let plain = fs::read(server.dump("postgres", "plain.sql", &[])).unwrap();
    let archive = fs::read(server.dump("postgres", "archive", &["-Fc", "-Z0"])).unwrap();
    let inserts = fs::read(server.dump("postgres", "inserts.sql", &["--inserts"])).unwrap();
    let all = fs::read(server.dump_all("all.sql", &[])).unwrap();
    server.stop(Mode::Fast);
    let log = server.log();
    for (name, place) in [
        ("pg_stat_statements", statements.into_bytes()),
        ("logical decoding", stream.into_bytes()),
        ("pg_dump", plain),
        ("pg_dump -Fc", archive),
        ("pg_dump --inserts", inserts),
        ("pg_dumpall", all),
        ("server log", log.into_bytes()),
    ] {
        assert!(control.is_in(&place), "the control is not found in {name}");
        assert!(!canary.is_in(&place), "a key is found in {name}");
    }
    assert_eq!(running, Vec::<String>::new());
    assert_eq!(canary.files(&server.data_dir()), Vec::<String>::new());
    let control_files = control.files(&server.data_dir());
    let heap_and_wal =
        ["/base/", "/pg_wal/"].map(|part| control_files.iter().any(|file| file.contains(part)));
    assert_eq!(heap_and_wal, [true, true], "{control_files:?}");
}

#[test]
fn the_search_finds_every_shape() {
    let wanted = Wanted::new(&[secret_part(STORED)]);
    let secret = secret_part(STORED);
    let hex: String = secret.bytes().map(|byte| format!("{byte:02X}")).collect();
    for before in ["", "a", "ab", "abc", "\u{0}"] {
        assert!(wanted.is_in(format!("{before}{secret}")));
        assert!(wanted.is_in(format!("{before}{hex}")));
        assert!(
            wanted.is_in(STANDARD_NO_PAD.encode(format!("{before}{secret}zz"))),
            "base64 after {before:?}"
        );
    }
    assert!(wanted.is_in(&secret[secret.len() / 2..]) && wanted.is_in(&secret[..secret.len() / 2]));
    assert!(!wanted.is_in(&secret[1..secret.len() / 2]) && !wanted.is_in(""));
}

#[test]
fn the_hint_shows_four_characters_and_no_more() {
    let server = Server::with_vault();
    let mut client = server.connect("postgres", "postgres");
    use_every_operation(&mut client);
    let hint = server.psql("postgres", "SELECT key_hint FROM watchllm.provider_key_records");
    assert_eq!(hint, format!("sk-proj-…{}", &ROTATED[ROTATED.len() - 4..]));
}

#[test]
fn the_master_secret_is_in_no_file_dump_setting_or_log() {
    let server = Server::with_vault();
    use_every_operation(&mut server.connect("postgres", "postgres"));
    assert_eq!(server.psql("postgres", "SELECT watchllm.reload_keyring()"), "1");
    let lines = fs::read_to_string(server.keyring()).unwrap();
    let secret = Wanted::new(&[lines.trim().strip_prefix("1:").unwrap()]);
    assert!(secret.is_in(&lines));
    let settings = server.psql("postgres", "SELECT string_agg(s::text, E'\\n') FROM pg_settings s");
    let activity =
        server.psql("postgres", "SELECT string_agg(s::text, E'\\n') FROM pg_stat_activity s");
    let dump = text(&fs::read(server.dump_all("all.sql", &[])).unwrap());
    server.stop(Mode::Fast);
    for place in [settings, activity, dump, server.log()] {
        assert!(!secret.is_in(place));
    }
    assert_eq!(secret.files(&server.data_dir()), Vec::<String>::new());
}

#[test]
fn no_session_changes_a_setting_and_ordinary_roles_do_not_see_the_source() {
    let server = Server::with_vault_and("watchllm_keys.master_key_command = 'cat /nowhere'");
    server.psql("postgres", "CREATE ROLE app LOGIN; GRANT watchllm_admin, watchllm_service TO app");
    let names =
        server.psql("postgres", "SELECT name FROM pg_settings WHERE name LIKE 'watchllm\\_keys.%'");
    assert!(names.lines().count() >= 9, "{names}");
    for name in names.lines() {
        for change in [
            format!("SET {name} TO DEFAULT"),
            format!("SELECT set_config('{name}', '1000', false)"),
            format!("ALTER ROLE app SET {name} = '1000'"),
            format!("ALTER DATABASE postgres SET {name} = '1000'"),
        ] {
            let result = server.psql_result("postgres", &change);
            assert!(result.stderr.contains("ERROR:  55P02"), "{change}: {}", result.stderr);
        }
        let mut config = postgres::Config::new();
        config
            .host_path(server.socket_dir())
            .user("postgres")
            .dbname("postgres")
            .options(&format!("-c {name}=1000"));
        assert!(
            config.connect(postgres::NoTls).is_err(),
            "{name} was set from the connection's options"
        );
    }
    for name in ["master_key_file", "master_key_command"] {
        for look in [
            format!("SHOW watchllm_keys.{name}"),
            format!("SELECT current_setting('watchllm_keys.{name}', true)"),
        ] {
            let result = server.psql_result_as("postgres", "app", &look);
            assert!(
                result.stderr.contains("42501") && result.stdout.is_empty(),
                "{look}: {}",
                result.stdout
            );
        }
        let listed =
            format!("SELECT count(*) FROM pg_settings WHERE name = 'watchllm_keys.{name}'");
        assert_eq!(server.psql_result_as("postgres", "app", &listed).stdout, "0");
    }
}
