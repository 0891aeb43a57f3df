//! The writer loses something it needs: the table, disk space, its partition, worker and database
//! slots, room in the queue, friendly settings. Each time there is a clear error in bounded time,
//! nothing is disclosed, and service resumes when it is back.

use std::io::Write;
use std::path::PathBuf;
use std::process::Command;
use std::thread::scope;
use std::time::{Duration, Instant};

use postgres::Client;
use uuid::Uuid;

use crate::commands::give_to_runner;
use crate::writer::{Vault, decrypt, outcome};

/// SQLSTATE and message of a decrypt that must fail.
fn refused(client: &mut Client, key: Uuid) -> String {
    let error = client.query_one("SELECT watchllm.decrypt_provider_key($1)", &[&key]).unwrap_err();
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    format!("{} {}", error.code().code(), error.message())
}

#[test]
fn a_lock_on_the_trail_longer_than_the_audit_timeout() {
    let vault = Vault::with("watchllm_keys.audit_timeout = '2s'");
    let key = vault.key("sk-locked-out");
    for mode in ["SHARE", "ACCESS EXCLUSIVE"] {
        let (mut holder, mut clients) =
            (vault.connect(), Vec::from_iter((0..8).map(|_| vault.connect())));
        let lock = format!("BEGIN; LOCK TABLE watchllm.provider_key_access_logs IN {mode} MODE");
        holder.batch_execute(&lock).unwrap();
        let started = Instant::now();
        scope(|scope| {
            for client in &mut clients {
                scope.spawn(|| {
                    (0..3).for_each(|_| {
                        assert_eq!(decrypt(client, key, "locked"), Err("53000".into()))
                    })
                });
            }
        });
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "three waits of 2 s took {:?}",
            started.elapsed()
        );
        holder.batch_execute("ROLLBACK").unwrap();
        for client in &mut clients {
            assert_eq!(decrypt(client, key, mode).unwrap(), "sk-locked-out");
        }
        assert_eq!((vault.rows("locked"), vault.rows(mode)), (0, 8));
    }
}

/// A small file system, unmounted when dropped.
struct Mount(PathBuf);

impl Drop for Mount {
    fn drop(&mut self) {
        drop(Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

#[test]
fn a_full_disk_under_the_trail() {
    let vault = Vault::with("");
    let (key, mut client) = (vault.key("sk-full"), vault.connect());
    let place = vault.server.socket_dir().join("small");
    std::fs::create_dir(&place).unwrap();
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", "size=16m", "tmpfs"]).arg(&place).output();
    if !mounted.as_ref().is_ok_and(|output| output.status.success()) {
        eprintln!(
            "SKIPPED a_full_disk_under_the_trail: no right to mount a small file system ({mounted:?})"
        );
        return;
    }
    let _mount = Mount(place.clone());
    give_to_runner(&place);
    let today = vault.today();
    let small = format!("CREATE TABLESPACE small LOCATION '{}'", place.display());
    client.batch_execute(&small).unwrap();
    client.batch_execute(&format!("ALTER TABLE {today} SET TABLESPACE small")).unwrap();
    let born = vault.server.psql("postgres", "SELECT pg_postmaster_start_time()");
    let mut filler = std::fs::File::create(place.join("filler")).unwrap();
    for size in [1 << 16, 1 << 10] {
        while filler.write_all(&vec![1u8; size]).is_ok() {}
    }
    let ask = "SELECT watchllm.decrypt_provider_key($1, request_id => $2, user_agent => repeat('x', 250))";
    let (mut answered, mut refused) = (Vec::new(), 0);
    for n in 0..200 {
        let request = format!("full-{n}");
        match client.query_one(ask, &[&key, &request]) {
            Ok(_) => answered.push(request),
            Err(error) => {
                assert_eq!(error.code().map(|code| code.code()), Some("53000"), "{error:?}");
                refused += 1;
            }
        }
        if refused == 20 {
            break;
        }
    }
    assert_eq!(refused, 20, "the disk was not full: {} answers", answered.len());
    drop(filler);
    std::fs::remove_file(place.join("filler")).unwrap();
    assert_eq!(decrypt(&mut client, key, "space again").unwrap(), "sk-full");
    for request in answered.iter().map(String::as_str).chain(["space again"]) {
        assert_eq!(vault.rows(request), 1, "{request}");
    }
    assert_eq!(
        vault.server.psql("postgres", "SELECT pg_postmaster_start_time()"),
        born,
        "the server went down"
    );
    client.batch_execute(&format!("ALTER TABLE {today} SET TABLESPACE pg_default")).unwrap();
    client.batch_execute("DROP TABLESPACE small").unwrap();
}

#[test]
fn a_foreign_trigger_or_rule_on_what_the_writer_writes() {
    let vault = Vault::with("");
    let (key, mut client, today) = (vault.key("sk-trigger"), vault.connect(), vault.today());
    let body = "LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$";
    client.batch_execute(&format!("CREATE FUNCTION public.spy() RETURNS trigger {body}")).unwrap();
    for table in
        ["watchllm.provider_key_access_logs", today.as_str(), "watchllm.provider_key_usage"]
    {
        for (thing, create) in [
            (
                "TRIGGER",
                format!(
                    "CREATE TRIGGER spy BEFORE INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION public.spy()"
                ),
            ),
            ("RULE", format!("CREATE RULE spy AS ON INSERT TO {table} DO INSTEAD NOTHING")),
        ] {
            client.batch_execute(&create).unwrap();
            assert!(refused(&mut client, key).starts_with("42501"), "{create}");
            assert!(refused(&mut vault.connect(), key).starts_with("42501"), "{create}");
            client.batch_execute(&format!("DROP {thing} spy ON {table}")).unwrap();
            assert_eq!(decrypt(&mut client, key, &create[..40]).unwrap(), "sk-trigger");
        }
    }
}

const DROP_ALL_DAYS: &str = "DO $$ DECLARE p regclass; BEGIN
    FOR p IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'watchllm.provider_key_access_logs'::regclass
    LOOP EXECUTE 'DROP TABLE ' || p; END LOOP; END $$";

#[test]
fn a_partition_missing_at_the_start_of_the_writer_is_made() {
    let vault = Vault::with("");
    let key = vault.key("sk-day");
    vault.server.psql("postgres", DROP_ALL_DAYS);
    vault.server.restart();
    assert_eq!(decrypt(&mut vault.connect(), key, "made again"), Ok("sk-day".into()));
    assert_eq!(vault.rows("made again"), 1);
}

#[test]
fn a_partition_dropped_under_a_running_writer_is_made_again() {
    let vault = Vault::with("");
    let (key, mut client) = (vault.key("sk-day"), vault.connect());
    decrypt(&mut client, key, "the writer knows this day").unwrap();
    client.batch_execute(DROP_ALL_DAYS).unwrap();
    let answers = [(); 3].map(|()| decrypt(&mut client, key, "made again"));
    assert_eq!(vault.rows("made again"), answers.iter().flatten().count() as i64);
    assert_eq!(answers, [(); 3].map(|()| Ok("sk-day".into())));
}

#[test]
fn a_detached_day_is_neither_written_nor_replaced() {
    let vault = Vault::with("");
    let (key, mut client, today) = (vault.key("sk-day"), vault.connect(), vault.today());
    client
        .batch_execute(&format!(
            "ALTER TABLE watchllm.provider_key_access_logs DETACH PARTITION {today}"
        ))
        .unwrap();
    for _ in 0..3 {
        assert!(refused(&mut client, key).starts_with("53000"));
    }
    client.batch_execute(&format!("ALTER TABLE {today} RENAME TO an_old_day")).unwrap();
    assert_eq!(decrypt(&mut client, key, "renamed").unwrap(), "sk-day");
    assert_eq!(vault.rows("renamed"), 1);
}

#[test]
fn settings_that_would_stop_a_naive_writer() {
    let vault = Vault::with("");
    let key = vault.key("sk-settings");
    let hostile = [
        ("default_transaction_read_only", "on"),
        ("default_transaction_isolation", "serializable"),
        ("default_transaction_deferrable", "on"),
        ("synchronous_commit", "off"),
        ("row_security", "off"),
        ("session_replication_role", "replica"),
        ("search_path", "nowhere"),
        ("lock_timeout", "1"),
        ("idle_in_transaction_session_timeout", "1"),
        ("timezone", "'Asia/Tokyo'"),
        ("datestyle", "'SQL, DMY'"),
        ("bytea_output", "escape"),
        ("enable_indexscan", "off"),
    ];
    let mut for_the_database = String::from("SET default_transaction_read_only = off;");
    for (name, value) in hostile {
        vault.server.conf(&format!("{name} = {value}"));
        for_the_database += &format!("ALTER DATABASE postgres SET {name} = {value};\n");
    }
    vault.server.psql("postgres", &for_the_database);
    vault.server.restart();
    let mut client = vault.connect();
    for round in 0..3 {
        assert_eq!(decrypt(&mut client, key, &format!("round-{round}")), Ok("sk-settings".into()));
        assert_eq!(vault.rows(&format!("round-{round}")), 1);
        let writer = vault.server.writer_pid("postgres").unwrap();
        client.query_one("SELECT pg_terminate_backend($1, 30000)", &[&writer]).unwrap();
    }
    let change =
        format!("BEGIN READ WRITE; SELECT watchllm.rotate_provider_key('{key}', 'sk-new'); COMMIT");
    assert_eq!(outcome(&mut client, &change), "00000");
    assert_eq!(decrypt(&mut client, key, "rotated"), Ok("sk-new".into()));
}

#[test]
fn a_full_queue() {
    let vault =
        Vault::with("watchllm_keys.audit_queue_size = 64\nwatchllm_keys.audit_timeout = '6s'");
    let key = vault.key("sk-queued");
    let mut clients = Vec::from_iter((0..40).map(|_| vault.connect()));
    // each asks for as many events as the queue holds
    let ask = |client: &mut Client, request: &str| {
        let sql = "SELECT count(api_key) FROM watchllm.decrypt_provider_keys($1, $2)";
        client.query_one(sql, &[&vec![key; 64], &request]).map(|row| row.get::<_, i64>(0))
    };
    let mut all = |request: &str| -> Vec<Result<i64, postgres::Error>> {
        scope(|scope| {
            let threads: Vec<_> =
                clients.iter_mut().map(|client| scope.spawn(|| ask(client, request))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    };
    let mut holder = vault.lock_trail();
    let mut full = 0;
    for result in all("locked") {
        let error = result.expect_err("answered without a record");
        let error = error.as_db_error().unwrap_or_else(|| panic!("{error}")).clone();
        assert_eq!(error.code().code(), "53000", "{error}");
        full += usize::from(error.message().contains("queue is full"));
    }
    assert!(full > 0, "the queue was never full");
    holder.batch_execute("ROLLBACK").unwrap();
    let answers = all("open");
    let answered: i64 = answers.iter().map(|answer| *answer.as_ref().unwrap()).sum();
    assert_eq!((answered, vault.rows("open")), (40 * 64, 40 * 64));
}

#[test]
fn no_worker_slot_is_free() {
    let vault = Vault::with("");
    let key = vault.key("sk-no-worker");
    // the launcher of logical replication takes the only slot
    vault.server.conf("max_worker_processes = 1\nwatchllm_keys.audit_timeout = '1s'");
    vault.server.restart();
    let refusal = refused(&mut vault.connect(), key);
    assert!(refusal.starts_with("53000") && refusal.contains("max_worker_processes"), "{refusal}");
    vault.server.conf("max_worker_processes = 8\nwatchllm_keys.audit_timeout = '5s'");
    vault.server.restart();
    assert_eq!(decrypt(&mut vault.connect(), key, "worker").unwrap(), "sk-no-worker");
}

#[test]
fn more_databases_than_slots() {
    let vault = Vault::with("watchllm_keys.max_databases = 1");
    let key = vault.key("sk-slot");
    vault.server.psql("postgres", "CREATE DATABASE second");
    vault.server.psql("second", "CREATE EXTENSION watchllm_keys; SELECT watchllm.install();");
    let result = vault.server.psql_result("second", "SELECT watchllm.create_project('too many')");
    assert!(
        result.stderr.contains("53000") && result.stderr.contains("max_databases"),
        "{}",
        result.stderr
    );
    assert_eq!(decrypt(&mut vault.connect(), key, "the first").unwrap(), "sk-slot");
    // a dropped database gives its slot back
    vault.server.psql("second", "DROP DATABASE postgres");
    vault.server.psql("second", "SELECT watchllm.create_project('now there is room')");
}

#[test]
fn a_database_with_a_writer_is_dropped_and_copied() {
    let vault = Vault::with("");
    let key = vault.key("sk-copied");
    for round in 0..3 {
        vault.server.psql("postgres", "CREATE DATABASE doomed");
        vault.server.psql("doomed", "CREATE EXTENSION watchllm_keys; SELECT watchllm.install();");
        vault.server.psql("doomed", "SELECT watchllm.create_project('doomed')");
        assert!(vault.server.writer_pid("doomed").is_some(), "round {round}");
        vault.server.psql("postgres", "DROP DATABASE doomed");
    }
    decrypt(&mut vault.connect(), key, "before").unwrap();
    vault.server.psql("template1", "CREATE DATABASE copy TEMPLATE postgres");
    assert_eq!(
        decrypt(&mut vault.server.connect("copy", "postgres"), key, "copy").unwrap(),
        "sk-copied"
    );
    assert_eq!(decrypt(&mut vault.connect(), key, "original").unwrap(), "sk-copied");
    let chain = "SELECT count(*), max(seq), count(DISTINCT identity_id), count(DISTINCT epoch) > 0,
        (SELECT count(*) FROM watchllm.database_identity) FROM watchllm.provider_key_access_logs";
    assert_eq!(vault.server.psql("copy", chain), "4|4|2|t|2");
    assert_eq!(vault.server.psql("postgres", chain), "4|4|1|t|1");
    let mine =
        "SELECT identity_id = (SELECT id FROM watchllm.database_identity WHERE database_name = current_database())
        FROM watchllm.provider_key_access_logs ORDER BY seq DESC LIMIT 1";
    assert_eq!(
        (vault.server.psql("copy", mine), vault.server.psql("postgres", mine)),
        ("t".into(), "t".into())
    );
}
