//! Upgrades: a vault of every released schema version becomes, by `install()`, the same as one
//! installed fresh, and loses nothing. What goes wrong on the way leaves the database as it was.

use std::path::Path;

use crate::chain::verify;
use crate::dump_restore::{frame, same};
use crate::server::Server;

const INSTALL: &str = "SELECT watchllm.install()";
const BEGIN: &str = "CREATE EXTENSION watchllm_keys; SELECT watchllm.install()";
/// A day that no vault comes to by itself.
const ONE_DAY: &str = "SELECT watchllm.make_log_partition('2031-05-05')";

/// Preloaded and with this keyring; the extension is not created.
fn server(keyring: &str) -> Server {
    let server = Server::init();
    server.preload_vault();
    server.write_keyring(keyring);
    server.start();
    server
}

fn fails(server: &Server, database: &str, sql: &str, words: &[&str]) {
    let result = server.psql_result(database, sql);
    let missing: Vec<&&str> = words.iter().filter(|word| !result.stderr.contains(**word)).collect();
    assert!(result.status == 3 && missing.is_empty(), "{sql}: {missing:?}\n{}", result.stderr);
}

/// The catalog, of the trail's partitions only that of `ONE_DAY`: which others there are depends on
/// when a vault was used.
fn catalog(server: &Server, database: &str) -> String {
    let all = frame(server, database);
    let of_another_day = |line: &&str| {
        line.split("provider_key_access_logs_")
            .skip(1)
            .any(|rest| rest.starts_with(|c: char| c.is_ascii_digit()) && !rest.starts_with("2031"))
    };
    all.lines().filter(|line| !of_another_day(line)).collect::<Vec<_>>().join("\n")
}

fn version(server: &Server, database: &str) -> i32 {
    server.psql(database, "SELECT schema_version FROM watchllm.status()").parse().unwrap()
}

#[test]
fn every_released_schema_becomes_the_same_as_a_fresh_one() {
    let server = server("1:an-old-master-key-that-is-no-secret\n");
    server.psql("postgres", &format!("{BEGIN}; {ONE_DAY}"));
    let (fresh, newest) = (catalog(&server, "postgres"), version(&server, "postgres"));
    let frozen = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cluster/schemas");
    for old in 1..=newest {
        let file = frozen.join(format!("{old}.sql"));
        if !file.exists() {
            continue; // a version between two releases
        }
        let database = format!("old_{old}");
        server.psql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0"));
        let restored = server.restore_plain(&database, &file);
        assert_eq!((restored.status, restored.stderr.as_str()), (0, ""), "{database}");
        assert_eq!(version(&server, &database), old);
        if old < newest {
            let words = [&format!("schema version {old}"), "55000", INSTALL];
            fails(&server, &database, "SELECT watchllm.create_project('early')", &words);
        }
        upgrade(&server, &database, old, newest);
        same(&catalog(&server, &database), &fresh, &database);
        let unlike = "SELECT o.attname FROM pg_attribute o LEFT JOIN pg_attribute n
            ON n.attrelid = 'watchllm.provider_key_access_logs_20310505'::regclass AND n.attname = o.attname
                AND (n.atttypid, n.attnotnull, n.attstattarget) IS NOT DISTINCT FROM (o.atttypid, o.attnotnull, o.attstattarget)
            WHERE o.attrelid = 'watchllm.provider_key_access_logs_20261128'::regclass AND n.attname IS NULL";
        assert_eq!(server.psql(&database, unlike), "", "a day of before is as those to come");
    }
}

/// Upgrades a frozen vault: what it held is there, opens, and its chain goes on.
fn upgrade(server: &Server, database: &str, old: i32, newest: i32) {
    let rows =
        "SELECT count(*), count(DISTINCT id), max(seq) FROM watchllm.provider_key_access_logs";
    let before = server.psql(database, rows);
    let said = server.psql(database, &format!("{INSTALL}; {INSTALL}; {ONE_DAY}"));
    let first = if old == newest {
        "up to date".into()
    } else {
        format!("brought up from schema version {old}")
    };
    let said: Vec<&str> = said.lines().collect();
    assert!(said[0].contains(&first) && said[1].contains("up to date"), "{said:?}");
    assert_eq!(version(server, database), newest);
    assert_eq!(server.psql(database, rows), before, "rows of the trail");
    let kept = verify(server, database).unwrap();
    let open = "SELECT name, watchllm.decrypt_provider_key(id) FROM watchllm.provider_key_records ORDER BY 1";
    assert_eq!(server.psql(database, open), "first|not-a-key-3\nzweiter|not-a-key-2");
    assert_eq!(verify(server, database), Ok(kept + 2));
}

#[test]
fn a_schema_of_a_newer_library_is_left_alone() {
    let server = server("1:a-master-key-that-is-no-secret-either\n");
    server.psql("postgres", BEGIN);
    let known = version(&server, "postgres");
    server.psql("postgres", "INSERT INTO watchllm.install_history VALUES (1000000, '9.9.9')");
    let before = frame(&server, "postgres");
    let words = ["55000", "schema version 1000000", &format!("knows only {known}"), "newer one"];
    for call in [INSTALL, "SELECT watchllm.create_project('p')"] {
        fails(&server, "postgres", call, &words);
    }
    same(&frame(&server, "postgres"), &before, "after install()");
    let said = server.psql("postgres", "SELECT schema_version, problem FROM watchllm.status()");
    assert!(said.starts_with("1000000|") && said.contains("knows only"), "{said}");
}

/// What a superuser does to bring an installed vault into another state.
const FORGET: &str = "ALTER TABLE watchllm.install_history DISABLE TRIGGER ALL";
const REMEMBER: &str = "ALTER TABLE watchllm.install_history ENABLE ALWAYS TRIGGER refuse_change,
    ENABLE ALWAYS TRIGGER refuse_truncate";

#[test]
fn a_step_that_fails_leaves_the_database_as_it_was() {
    let server = server("1:a-master-key-that-is-no-secret-either\n");
    // the index of a table in the middle of the first step cannot be made
    server.psql("postgres", "CREATE EXTENSION watchllm_keys");
    server.psql("postgres", "CREATE TABLE watchllm.provider_key_versions_fingerprint_idx (a int)");
    fails(&server, "postgres", INSTALL, &["42P07", "provider_key_versions_fingerprint_idx"]);
    let relations = "SELECT string_agg(relname, ' ') FROM pg_class
        WHERE relnamespace = 'watchllm'::regnamespace AND relkind <> 'i'";
    assert_eq!(server.psql("postgres", relations), "provider_key_versions_fingerprint_idx");
    server.psql("postgres", "DROP TABLE watchllm.provider_key_versions_fingerprint_idx");
    assert!(server.psql("postgres", INSTALL).contains(": installed"));
    server.psql("postgres", "SELECT watchllm.create_project('p')");

    // an older version on record than the tables are of: its steps fail, because their work is done
    let older =
        "ALTER TABLE watchllm.install_history DROP CONSTRAINT install_history_schema_version_check;
        UPDATE watchllm.install_history SET schema_version = 0";
    server.psql("postgres", &format!("{FORGET}; {older}; {REMEMBER}"));
    let before = frame(&server, "postgres");
    let words = [
        "55000",
        "schema version 0",
        "HINT:  An administrator must run: SELECT watchllm.install()",
    ];
    fails(&server, "postgres", "SELECT watchllm.create_project('q')", &words);
    fails(&server, "postgres", INSTALL, &["42P07", "install_history"]);
    same(&frame(&server, "postgres"), &before, "after install()");
    assert_eq!(server.psql("postgres", "SELECT schema_version FROM watchllm.install_history"), "0");

    // tables without any record: pg_dump --schema-only leaves it out
    server.psql("postgres", &format!("{FORGET}; DELETE FROM watchllm.install_history; {REMEMBER}"));
    fails(
        &server,
        "postgres",
        INSTALL,
        &["55000", "HINT:  Restore the rows of watchllm.install_history"],
    );
    server.psql("postgres", "SELECT watchllm.create_project('r')");
}

/// Runs two installs, the second while the first holds its transaction open, which then ends so;
/// answers what the second says.
fn second_of_two(server: &Server, database: &str, end: &str) -> String {
    server.psql(database, "CREATE EXTENSION watchllm_keys");
    let mut first = server.connect(database, "postgres");
    first.batch_execute(&format!("BEGIN; {INSTALL}")).unwrap();
    let mut second = server.connect(database, "postgres");
    let second = std::thread::spawn(move || second.query_one(INSTALL, &[]).unwrap().get(0));
    let waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND NOT granted
        AND classid = 'pg_extension'::regclass";
    server.poll_until(database, waiting, "1", 30);
    first.batch_execute(end).unwrap();
    second.join().unwrap()
}

#[test]
fn two_installs_at_once_follow_each_other() {
    let server = server("1:a-master-key-that-is-no-secret-either\n");
    server.psql("postgres", "CREATE DATABASE other TEMPLATE template0");
    let said = second_of_two(&server, "postgres", "COMMIT");
    assert!(said.contains("up to date"), "{said}");
    let said = second_of_two(&server, "other", "ROLLBACK");
    assert!(said.contains(": installed"), "{said}");
    for database in ["postgres", "other"] {
        let recorded = "SELECT count(*) FROM watchllm.install_history";
        assert_eq!(server.psql(database, recorded), "1");
        server.psql(database, "SELECT watchllm.create_project('p')");
    }
}
