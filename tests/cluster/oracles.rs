//! Is this somebody's key? Whoever asks it by a row that is masked, or by a name, must not be told:
//! by no counter of scans, rows or locks, in the transaction or after it. What is asked leaves a
//! trace that a rollback does not take back. Each key of ours is compared with one of nobody.

use std::time::Duration;

use postgres::Client;
use uuid::Uuid;

use crate::keys::{code, new_key, one, project, rows, store};
use crate::roles::login;
use crate::server::Server;

/// What this session's transaction did to each table and index of the vault, and its locks there.
const DONE: &str = "SELECT string_agg(d, E'\\n' ORDER BY d) FROM (
    SELECT c.relname || ' ' || concat_ws(',', pg_stat_get_xact_numscans(c.oid),
        pg_stat_get_xact_tuples_returned(c.oid), pg_stat_get_xact_tuples_fetched(c.oid),
        pg_stat_get_xact_tuples_inserted(c.oid), pg_stat_get_xact_tuples_updated(c.oid),
        pg_stat_get_xact_blocks_fetched(c.oid) > 0) AS d
    FROM pg_class c WHERE c.relnamespace = 'watchllm'::regnamespace AND c.relkind IN ('r', 'i', 'p')
    UNION ALL
    SELECT 'lock ' || l.locktype || ' ' || coalesce(l.relation::regclass::text, '') || ' ' || l.mode
    FROM pg_locks l WHERE l.pid = pg_backend_pid() AND l.locktype <> 'virtualxid') AS done (d)";

/// Runs `ask` in a transaction that is rolled back, and tells what it did.
fn done_by(s: &mut Client, ask: &str) -> String {
    // What earlier transactions did is counted elsewhere from here on.
    one(s, "SELECT pg_stat_force_next_flush()");
    one(s, "BEGIN");
    let outcome = code(s, &format!("SAVEPOINT a; {ask}"));
    if outcome != "00000" {
        one(s, "ROLLBACK TO a");
    }
    let done = one(s, DONE);
    one(s, "ROLLBACK");
    format!("{outcome}\n{done}")
}

/// The first answers fill caches and settle plans.
fn settled(s: &mut Client, ask: &str) -> String {
    (0..8).for_each(|_| drop(done_by(s, ask)));
    done_by(s, ask)
}

/// A role that may do no more than have a table with the trigger on it.
fn masked_table(c: &mut Client, s: &str) -> String {
    let table = format!("{s}.logs");
    one(
        c,
        &format!(
            "CREATE SCHEMA {s} AUTHORIZATION {s}; CREATE TABLE {table} (message text);
             ALTER TABLE {table} OWNER TO {s};
             CREATE TRIGGER redact BEFORE INSERT ON {table} FOR EACH ROW
                 EXECUTE FUNCTION watchllm.redact_columns('message')"
        ),
    );
    table
}

#[test]
fn a_masked_row_tells_nobody_whose_key_it_was() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let (p, key) = (project(c), new_key());
    store(c, &p, "openai", &key);
    // A key that was masked once raises no second incident.
    let stored: Vec<String> = (0..3).map(|_| new_key()).collect();
    stored.iter().enumerate().for_each(|(i, key)| {
        store(c, &p, &format!("vendor-{i}"), key);
    });
    let role = login(c, "");
    let table = masked_table(c, &role);
    let s = &mut server.connect("postgres", &role);
    let ask = |key: &str| format!("INSERT INTO {table} VALUES ('x {key} y')");
    settled(s, &ask(&new_key()));
    let (ours, nobodys) = (done_by(s, &ask(&key)), done_by(s, &ask(&new_key())));
    assert_eq!(ours, nobodys);
    assert!(ours.starts_with("00000") && !ours.contains("security_incidents 1"), "{ours}");
    // asked and rolled back: the trace is there
    let told = "SELECT count(*) FROM watchllm.security_incidents WHERE severity = 'high'
        AND details ->> 'source' = 'redact_columns' AND provider_key_id IS NOT NULL";
    server.poll_until("postgres", told, "1", 10);
    // what the writer did is counted where everybody reads it: as much for each
    let counted =
        "SELECT string_agg(relname || ' ' || concat_ws(',', n_tup_ins, n_tup_upd, n_dead_tup,
            seq_tup_read, idx_tup_fetch), E'\\n' ORDER BY relname)
        FROM pg_stat_all_tables
        WHERE relname IN ('security_incidents', 'provider_key_versions', 'provider_key_records')";
    let numbers = |text: &str| -> Vec<i64> {
        text.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect()
    };
    let mut work = |c: &mut Client, key: &str| -> Vec<i64> {
        std::thread::sleep(Duration::from_secs(3));
        let before = numbers(&one(c, counted));
        one(s, &format!("BEGIN; {}; ROLLBACK", ask(key)));
        std::thread::sleep(Duration::from_secs(3));
        let after = numbers(&one(c, counted));
        after.iter().zip(&before).map(|(a, b)| a - b).collect()
    };
    work(c, &new_key()); // what was counted before
    for key in &stored {
        let (ours, nobodys) = (work(c, key), work(c, &new_key()));
        assert_eq!(ours, nobodys);
        assert!(ours[10] > 0, "the control: an incident is counted: {ours:?}");
    }
}

#[test]
fn a_name_tells_nobody_whose_key_it_is() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let (own, foreign, key) = (project(c), project(c), format!("corp-{}", Uuid::new_v4().simple()));
    store(c, &foreign, "openai", &key);
    let mine = store(c, &own, "openai", &new_key());
    (0..20).for_each(|i| drop(store(c, &foreign, &format!("vendor-{i}"), &new_key())));
    one(c, "ANALYZE");
    let tenant = login(c, "watchllm_tenant");
    one(c, &format!("SELECT watchllm.add_project_member('{own}', role_name => '{tenant}')"));
    let s = &mut server.connect("postgres", &tenant);
    let asks: &[&dyn Fn(&str) -> String] = &[
        &|key| {
            format!(
                "SELECT watchllm.store_provider_key('{own}', 'xai', '{}', 'n {key}')",
                new_key()
            )
        },
        &|key| format!("SELECT watchllm.update_provider_key('{mine}', 'n {key}')"),
        &|key| format!("SELECT watchllm.update_provider_key('{mine}', 'n', request_id => '{key}')"),
        &|key| format!("SELECT watchllm.store_provider_key('{own}', 'xai', '{key}')"),
        &|key| format!("SELECT watchllm.rotate_provider_key('{mine}', '{key}')"),
    ];
    for ask in asks {
        // As often asked: a text that was clean is remembered for a while, whosever it is.
        let nobodys = format!("corp-{}", Uuid::new_v4().simple());
        for asked in [&key, &nobodys] {
            settled(s, &ask(asked));
        }
        // Rows that were rolled back lengthen each scan a little, so questions are asked in pairs:
        // an answer that told something would differ in each of them.
        let mut differences = Vec::new();
        for _ in 0..6 {
            let (ours, made_up) = (done_by(s, &ask(&key)), done_by(s, &ask(&nobodys)));
            assert!(ours.starts_with("00000"), "{ours}");
            let differ = |(a, b): &(&str, &str)| a != b;
            let lines = ours.lines().zip(made_up.lines()).filter(differ);
            differences.push(lines.map(|(a, b)| format!("{a} / {b}")).collect::<Vec<_>>());
        }
        assert!(differences.iter().any(Vec::is_empty), "{}: {differences:#?}", ask("KEY"));
    }
    // the control: a key of the own project is refused
    let own_key = format!("corp-{}", Uuid::new_v4().simple());
    store(c, &own, "openai", &own_key);
    assert!(done_by(s, &asks[0](&own_key)).starts_with("22023"));
}

#[test]
fn who_reports_a_key_and_rolls_back_is_on_record() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let (p, key) = (project(c), new_key());
    store(c, &p, "openai", &key);
    let service = login(c, "watchllm_service");
    let s = &mut server.connect("postgres", &service);
    let ask = format!("SELECT watchllm.report_leaked_key('{key}', 'x')");
    one(s, &format!("BEGIN; {ask}; ROLLBACK"));
    let asked = format!(
        "SELECT access_type, success FROM watchllm.provider_key_access_logs
         WHERE session_role = '{service}'"
    );
    assert_eq!(rows(c, &asked), ["validate|t"]);
}
