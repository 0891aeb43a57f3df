//! Nothing is lost: dumps of every kind restore into a fresh cluster with every key and every row.
//! Tried while clients keep calling, section by section, with the wrong keyring, and after DROP
//! EXTENSION CASCADE.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::chain::verify;
use crate::server::{Mode, Server};

/// Keys of every state, refusals, a user's own policy and index.
fn source() -> Server {
    let server = Server::with_vault();
    server.psql(
        "postgres",
        "SELECT watchllm.create_project('one', 'sub') AS a, watchllm.create_project('zwei') AS b \\gset
         SELECT watchllm.store_provider_key(:'a', 'openai', 'old-key-' || n, 'k' || n),
                watchllm.store_provider_key(:'b', 'openai', 'other-' || n, 'o' || n) FROM generate_series(1, 3) n;
         SELECT watchllm.store_provider_key(:'a', 'anthropic', 'rotated-1', 'rotated') AS r \\gset
         SELECT watchllm.rotate_provider_key(:'r', 'rotated-2');
         SELECT watchllm.store_provider_key(:'a', 'anthropic', 'gone-1', 'gone') AS g \\gset
         SELECT watchllm.delete_provider_key(:'g');
         SELECT watchllm.add_project_member(:'a', subject => 'somebody');
         SELECT count(watchllm.decrypt_provider_key(id)) FROM watchllm.provider_key_records WHERE deleted_at IS NULL;
         CREATE POLICY my_own ON watchllm.provider_key_records FOR SELECT TO watchllm_tenant USING (priority = 1);
         CREATE INDEX my_own_idx ON watchllm.provider_key_records (created_at);
         \\set ON_ERROR_STOP 0
         SELECT watchllm.decrypt_provider_key(:'g');",
    );
    // the writer writes the counters later; only then the source no longer changes
    let counted = "SELECT count(*) FROM watchllm.provider_key_usage WHERE access_count > 0";
    server.poll_until("postgres", counted, "7", 30);
    server
}

/// A fresh cluster, preloaded, with this keyring and empty databases.
fn target(keyring: &str, databases: &[&str]) -> Server {
    let server = Server::init();
    server.preload_vault();
    server.write_keyring(keyring);
    server.start();
    for database in databases {
        server.psql("postgres", &format!("CREATE DATABASE {database} TEMPLATE template0"));
    }
    server
}

fn keyring_of(server: &Server) -> String {
    std::fs::read_to_string(server.keyring()).unwrap()
}

const TABLES: &str =
    "SELECT c.relname FROM pg_class c WHERE c.relnamespace = 'watchllm'::regnamespace
    AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1";

/// Each of our tables with its number of rows and a checksum over them.
fn content(server: &Server, database: &str) -> String {
    let sums: Vec<String> = server
        .psql(database, TABLES)
        .lines()
        .map(|table| {
            format!(
                "SELECT '{table}', count(*), md5(coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), ''))
                 FROM watchllm.{table} t"
            )
        })
        .collect();
    server.psql(database, &sums.join(";\n"))
}

const KEYS: &str =
    "SELECT name, watchllm.decrypt_provider_key(id) FROM watchllm.provider_key_records
    WHERE deleted_at IS NULL ORDER BY name";

/// Everything around the rows: columns, keys, indexes, triggers, policies, views, grants, comments.
const FRAME: &str = "
    SELECT conrelid::regclass, conname, pg_get_constraintdef(oid) FROM pg_constraint
        WHERE connamespace = 'watchllm'::regnamespace;
    SELECT indexrelid::regclass, pg_get_indexdef(indexrelid) FROM pg_index
        WHERE indrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace);
    SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger t JOIN pg_class c ON c.oid = tgrelid
        WHERE relnamespace = 'watchllm'::regnamespace AND NOT tgisinternal;
    SELECT tablename, policyname, roles, cmd, qual FROM pg_policies WHERE schemaname = 'watchllm';
    SELECT oid::regclass, relowner::regrole, relrowsecurity, relforcerowsecurity, reloptions,
        (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(coalesce(relacl, acldefault('r', relowner))) a),
        obj_description(oid) FROM pg_class
        WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p', 'v');
    SELECT attrelid::regclass, attnum, attname, format_type(atttypid, atttypmod), attnotnull, attstattarget,
        attstorage, attcompression, attidentity, attgenerated, pg_get_expr(adbin, adrelid),
        (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(attacl) a), col_description(attrelid, attnum)
        FROM pg_attribute a JOIN pg_class c ON c.oid = attrelid
        LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
        WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p', 'v') AND attnum > 0;
    SELECT oid::regclass, pg_get_viewdef(oid) FROM pg_class
        WHERE relnamespace = 'watchllm'::regnamespace AND relkind = 'v';
    SELECT oid::regprocedure, (SELECT array_agg(a::text ORDER BY a::text) FROM unnest(proacl) a) FROM pg_proc
        WHERE pronamespace = 'watchllm'::regnamespace";

pub(crate) fn frame(server: &Server, database: &str) -> String {
    let all = server.psql(database, FRAME);
    let mut lines: Vec<&str> = all.lines().collect();
    lines.sort_unstable();
    lines.join("\n")
}

/// Compares line by line, and shows only the differences.
pub(crate) fn same(found: &str, expected: &str, what: &str) {
    let missing: Vec<&str> =
        expected.lines().filter(|line| !found.lines().any(|other| other == *line)).collect();
    let new: Vec<&str> =
        found.lines().filter(|line| !expected.lines().any(|other| other == *line)).collect();
    assert!(missing.is_empty() && new.is_empty(), "{what}\nmissing: {missing:#?}\nnew: {new:#?}");
}

/// The restored database holds what the source held, opens every key, and continues the chain under
/// its own identity.
fn all_is_there(source: &Server, server: &Server, database: &str, held: &str) {
    same(&content(server, database), held, database);
    let whole = frame(source, "postgres");
    same(&frame(server, database), &whole, database);
    let last = verify(server, database).unwrap();
    let keys = server.psql(database, KEYS);
    let expected = "k1|old-key-1\nk2|old-key-2\nk3|old-key-3\no1|other-1\no2|other-2\no3|other-3\nrotated|rotated-2";
    assert_eq!(keys, expected, "{database}");
    let validated =
        "SELECT bool_and(watchllm.validate_provider_key(id)) FROM watchllm.provider_key_records
        WHERE deleted_at IS NULL";
    assert_eq!(server.psql(database, validated), "t");
    assert_eq!(verify(server, database), Ok(last + 14), "{database}");
    let identity = "SELECT count(*), count(*) FILTER (WHERE database_name = current_database()
        AND system_identifier = (SELECT system_identifier FROM pg_control_system())) FROM watchllm.database_identity";
    // test clusters are copies of one initdb, so database postgres has the same oid and server id
    // in all of them
    let identities = if database == "postgres" { "1|1" } else { "2|1" };
    assert_eq!(server.psql(database, identity), identities, "{database}");
    let again = server.psql(database, "SELECT watchllm.install()");
    assert!(again.contains("up to date"), "{again}");
    same(&frame(server, database), &whole, "after install()");
    assert_eq!(server.psql(database, KEYS), expected);
}

#[test]
fn every_kind_of_dump_restores_into_a_fresh_cluster() {
    let source = source();
    let held = content(&source, "postgres");
    let archive = source.dump("postgres", "vault.dump", &["-Fc"]);
    let server = target(&keyring_of(&source), &["serial", "parallel", "sections", "plain", "bare"]);
    assert_eq!(
        server.psql("postgres", "SELECT count(*) FROM pg_roles WHERE rolname ~ '^watchllm'"),
        "0"
    );
    server.restore("serial", &archive, &[]);
    all_is_there(&source, &server, "serial", &held);
    server.restore("parallel", &archive, &["-j4"]);
    all_is_there(&source, &server, "parallel", &held);
    for section in ["pre-data", "data", "post-data"] {
        let call = "SELECT watchllm.create_project('too early')";
        if section != "pre-data" {
            let result = server.psql_result("sections", call);
            assert!(result.stderr.contains("ERROR:  55000"), "before {section}: {}", result.stderr);
            let installed = "SELECT installed, problem IS NOT NULL FROM watchllm.status()";
            assert_eq!(server.psql("sections", installed), "f|t", "before {section}");
        }
        server.restore("sections", &archive, &["--section", section]);
    }
    all_is_there(&source, &server, "sections", &held);
    let plain = source.dump("postgres", "vault.sql", &[]);
    let result = server.restore_plain("plain", &plain);
    assert_eq!((result.status, result.stderr.as_str()), (0, ""));
    all_is_there(&source, &server, "plain", &held);
    // without owners and grants, nothing is served until a superuser says who owns it
    server.restore("bare", &archive, &["--no-owner", "--no-acl"]);
    refused(&server, "bare", KEYS, "42501");
    server.psql("bare", "SELECT watchllm.install()");
    all_is_there(&source, &server, "bare", &held);
}

#[test]
fn a_dump_of_the_whole_cluster_restores_with_roles_and_members() {
    let source = source();
    source.psql("postgres", "CREATE ROLE app LOGIN; GRANT watchllm_service TO app");
    let held = content(&source, "postgres");
    let all = std::fs::read_to_string(source.dump_all("all.sql", &[])).unwrap();
    let all = all.replace("CREATE ROLE postgres;\n", "");
    let server = target(&keyring_of(&source), &[]);
    let result = server.psql_result("postgres", &all);
    assert_eq!((result.status, result.stderr.as_str()), (0, ""));
    all_is_there(&source, &server, "postgres", &held);
    let opened = server.psql_result_as(
        "postgres",
        "app",
        "SELECT api_key FROM watchllm.resolve_provider_key(
        (SELECT NULL::uuid), 'openai')",
    );
    assert!(opened.stderr.contains("22004"), "a service reaches the functions: {}", opened.stderr);
}

/// Calls until told to stop. Answers how many calls were refused because the tables were not
/// complete.
fn keep_calling(mut client: postgres::Client, stop: &AtomicBool) -> usize {
    let mut early = 0;
    while !stop.load(Ordering::Relaxed) {
        drop(client.query("SELECT * FROM watchllm.status()", &[]));
        if let Err(error) =
            client.query("SELECT watchllm.decrypt_provider_key(gen_random_uuid())", &[])
        {
            let error = error.as_db_error().expect("an error of the server, not a lost connection");
            early += usize::from(error.code().code() == "55000");
            // only these: no function or schema yet, not complete, no such key
            let known =
                ["42883", "3F000", "42P01", "55000", "02000"].contains(&error.code().code());
            assert!(known, "{error}");
        }
    }
    early
}

#[test]
fn calls_during_a_restore_write_nothing_and_cost_no_primary_key() {
    let source = source();
    let held = content(&source, "postgres");
    let archive = source.dump("postgres", "vault.dump", &["-Fc"]);
    let server = target(&keyring_of(&source), &["busy", "busy4"]);
    for (database, jobs) in [("busy", "-j1"), ("busy4", "-j4")] {
        let stop = AtomicBool::new(false);
        let early = std::thread::scope(|scope| {
            let callers: Vec<_> = (0..2)
                .map(|_| server.connect(database, "postgres"))
                .map(|client| scope.spawn(|| keep_calling(client, &stop)))
                .collect();
            for section in ["pre-data", "data", "post-data"] {
                server.restore(database, &archive, &[jobs, "--section", section]);
                std::thread::sleep(std::time::Duration::from_millis(300));
            }
            stop.store(true, Ordering::Relaxed);
            callers.into_iter().map(|caller| caller.join().unwrap()).sum::<usize>()
        });
        assert!(early > 0, "no call fell into the restore");
        same(&frame(&server, database), &frame(&source, "postgres"), database);
        let written_since = |line: &&str| {
            ["provider_key_access_logs|", "database_identity|"]
                .iter()
                .any(|table| line.starts_with(table))
        };
        let settled = |all: &str| {
            all.lines().filter(|line| !written_since(line)).collect::<Vec<_>>().join("\n")
        };
        same(&settled(&content(&server, database)), &settled(&held), database);
        let rows = verify(&server, database).unwrap();
        assert!(rows > verify(&source, "postgres").unwrap());
        let foreign = "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE identity_id <> (
            SELECT id FROM watchllm.database_identity ORDER BY created_at LIMIT 1) AND failure_reason <> 'not_found'";
        assert_eq!(server.psql(database, foreign), "0");
    }
}

fn refused(server: &Server, database: &str, sql: &str, sqlstate: &str) {
    let result = server.psql_result(database, sql);
    let hit = result.status == 3 && result.stderr.contains(&format!("ERROR:  {sqlstate}"));
    assert!(hit, "{sql}: {}{}", result.stdout, result.stderr);
}

#[test]
fn the_wrong_keyring_is_named_and_the_right_one_mends_it() {
    let source = source();
    let archive = source.dump("postgres", "vault.dump", &["-Fc"]);
    let server = target(&format!("1:{}\n", "w".repeat(64)), &["vault"]);
    server.restore("vault", &archive, &[]);
    let held = content(&server, "vault");
    refused(&server, "vault", KEYS, "28000");
    refused(&server, "vault", "SELECT watchllm.create_project('p')", "28000");
    same(&content(&server, "vault"), &held, "rows");
    server.write_keyring(&keyring_of(&source));
    assert_eq!(server.psql("vault", "SELECT watchllm.reload_keyring()"), "1");
    assert_eq!(server.psql("vault", KEYS), source.psql("postgres", KEYS));
    verify(&server, "vault").unwrap();
}

#[test]
fn dropping_the_extension_loses_no_row_and_opens_no_door() {
    let server = source();
    let whole = frame(&server, "postgres");
    let (held, keys) =
        (content(&server, "postgres"), "SELECT count(*) FROM watchllm.provider_key_versions");
    refused(&server, "postgres", "DROP EXTENSION watchllm_keys", "2BP01");
    server
        .psql("postgres", "SET client_min_messages = error; DROP EXTENSION watchllm_keys CASCADE");
    same(&content(&server, "postgres"), &held, "rows");
    refused(&server, "postgres", KEYS, "42883");
    let walls = "SELECT bool_and(relrowsecurity AND relforcerowsecurity) FROM pg_class
        WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p')";
    assert_eq!(server.psql("postgres", walls), "t");
    for role in ["watchllm_admin", "watchllm_service", "watchllm_auditor", "watchllm_tenant"] {
        refused(&server, "postgres", &format!("SET ROLE {role}; {keys}"), "42501");
    }
    server.psql("postgres", "CREATE EXTENSION watchllm_keys");
    refused(&server, "postgres", "SELECT watchllm.create_project('early')", "55000");
    server.psql("postgres", "SELECT watchllm.install()");
    same(&content(&server, "postgres"), &held, "rows");
    same(&frame(&server, "postgres"), &whole, "after install()");
    assert_eq!(server.psql("postgres", KEYS).lines().count(), 7);
    server.stop(Mode::Fast);
    server.start();
    assert_eq!(server.psql("postgres", KEYS).lines().count(), 7);
    verify(&server, "postgres").unwrap();
    assert!(Path::new(&server.keyring()).exists());
}
