//! Imports beside other work: two at once, an id that is taken while one waits, a last use that is
//! lost or counts as an access. Also a long run that reports nothing, tables of other shapes, and a
//! key left in a file.

use postgres::Client;
use uuid::Uuid;

use crate::at_rest::Wanted;
use crate::import::{SECRET, add, file, import, old_table, sealed_texts};
use crate::keys::{Vault, code, decrypt, one, project, rows};

fn copies(c: &mut Client, table: &str, project: &str, count: usize) {
    let pair = &sealed_texts(SECRET, &["a-key"])[0];
    add(c, table, project, "openai", pair, ("", ""));
    one(
        c,
        &format!(
            "INSERT INTO {table} (project_id, provider, encrypted_key, encryption_iv)
            SELECT project_id, provider, encrypted_key, encryption_iv FROM {table}, generate_series(2, {count})"
        ),
    );
}

#[test]
fn two_at_once_import_every_row_once() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (table, old_secret) = (old_table(c), file(&vault, SECRET.as_bytes()));
    let projects: Vec<String> = (0..3).map(|_| project(c)).collect();
    for p in &projects {
        let other = old_table(c);
        copies(c, &other, p, 12);
        one(c, &format!("INSERT INTO {table} SELECT * FROM {other}"));
    }
    let sql = import(&table, &old_secret, "provider_key_id, outcome");
    let running: Vec<_> = (0..2)
        .map(|_| {
            let (mut s, sql) = (vault.connect("postgres"), sql.clone());
            std::thread::spawn(move || rows(&mut s, &sql))
        })
        .collect();
    let answers: Vec<String> = running.into_iter().flat_map(|run| run.join().unwrap()).collect();
    let count = |outcome: &str| {
        answers.iter().filter(|answer| answer.ends_with(&format!("|{outcome}"))).count()
    };
    // Each project has three active keys of a provider, whichever run came first.
    assert_eq!(
        (count("imported"), count("imported_inactive"), count("already_there")),
        (9, 27, 36),
        "{answers:?}"
    );
    let stored = format!(
        "SELECT count(*), count(*) FILTER (WHERE is_active), count(DISTINCT priority)
        FROM watchllm.provider_key_records WHERE project_id IN ('{}')",
        projects.join("', '")
    );
    assert_eq!(one(c, &stored), "36|9|4");
}

#[test]
fn an_id_that_is_taken_while_the_import_waits_is_a_conflict_and_no_end() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (first, second, old_secret) = (old_table(c), old_table(c), file(&vault, SECRET.as_bytes()));
    let (p, q) = (project(c), project(c));
    let pair = &sealed_texts(SECRET, &["a-key"])[0];
    let id = add(c, &first, &p, "openai", pair, ("", ""));
    add(c, &second, &q, "openai", pair, (", id", &format!(", '{id}'")));
    add(c, &second, &q, "xai", pair, ("", ""));
    one(c, "BEGIN");
    assert_eq!(rows(c, &import(&first, &old_secret, "outcome")), ["imported"]);
    let (mut s, sql) =
        (vault.connect("postgres"), import(&second, &old_secret, "provider, outcome"));
    let pid = one(&mut s, "SELECT pg_backend_pid()");
    let waiting = std::thread::spawn(move || rows(&mut s, &sql));
    let blocked = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE pid = {pid} AND wait_event_type = 'Lock'"
    );
    vault.server().poll_until("postgres", &blocked, "1", 60);
    one(c, "COMMIT");
    assert_eq!(waiting.join().unwrap(), ["openai|conflict", "xai|imported"]);
    assert_eq!(one(c, &decrypt(&id)), "a-key");
}

#[test]
fn the_last_use_moves_in_without_counting_as_one() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, table) = (project(c), old_table(c));
    let pair = &sealed_texts(SECRET, &["a-key"])[0];
    let used = |c: &mut Client, vendor: &str, at: &str| {
        add(c, &table, &p, vendor, pair, (", last_used_at", &format!(", {at}")))
    };
    let past = used(c, "past", "'2024-05-06 07:08:09.123456Z'");
    let never = used(c, "never", "NULL");
    let future = used(c, "future", "now() + interval '1 year'");
    let endless = used(c, "endless", "'infinity'");
    assert_eq!(
        rows(c, &import(&table, &file(&vault, SECRET.as_bytes()), "outcome")),
        ["imported"; 4]
    );
    let shown = |id: &str| {
        format!(
            "SELECT k.last_used_at = '2024-05-06 07:08:09.123456Z', k.last_used_at <= now(), u.access_count,
                u.failure_count, u.bucket_start IS NULL
            FROM watchllm.provider_keys k LEFT JOIN watchllm.provider_key_usage u ON u.provider_key_id = k.id
            WHERE k.id = '{id}'"
        )
    };
    let server = vault.server();
    server.poll_until("postgres", &shown(&past), "t|t|0|0|t", 60);
    server.poll_until("postgres", &shown(&future), "f|t|0|0|t", 60);
    drop(server);
    assert_eq!(
        (one(c, &shown(&never)), one(c, &shown(&endless))),
        ("-|-|-|-|t".into(), "-|-|-|-|t".into())
    );
    let counted = format!(
        "SELECT access_count FROM watchllm.provider_key_usage WHERE provider_key_id = '{past}'"
    );
    one(c, &decrypt(&past));
    vault.server().poll_until("postgres", &counted, "1", 60);
    assert_eq!(one(c, &shown(&past)), "f|t|1|0|f");
    // A second run changes nothing.
    one(c, &import(&table, &file(&vault, SECRET.as_bytes()), "count(*)"));
    one(c, &decrypt(&never));
    vault.server().poll_until("postgres", &counted.replace(&past, &never), "1", 60);
    assert_eq!(one(c, &counted), "1");
}

#[test]
fn a_long_run_says_how_far_it_is() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, table) = (project(c), old_table(c));
    copies(c, &table, &p, 250);
    let sql = import(&table, &file(&vault, SECRET.as_bytes()), "count(*)");
    let result = vault.server().psql_result("postgres", &sql);
    assert_eq!(result.stdout, "250", "{}", result.stderr);
    let notices: Vec<&str> = result.stderr.lines().filter(|line| line.contains("NOTICE")).collect();
    assert_eq!(notices.len(), 2, "{}", result.stderr);
    assert!(
        notices[0].ends_with("import: 100 of 250 rows done")
            && notices[1].ends_with("200 of 250 rows done")
    );
    let rows = format!(
        "SELECT count(*) FROM watchllm.provider_key_access_logs
        WHERE project_id = '{p}' AND access_type = 'import' AND success"
    );
    assert_eq!(one(c, &rows), "250"); // more than one part of what is written at commit
}

/// Characters that need quoting in a name, or would end a literal.
const AWKWARD: &str = "\"';-- ";

#[test]
fn tables_of_other_shapes_are_read_as_sql_would() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (old_secret, pair) =
        (file(&vault, SECRET.as_bytes()), &sealed_texts(SECRET, &["a-key"])[0]);
    let needed =
        "id uuid, project_id uuid, provider text, encrypted_key text, encryption_iv varchar";
    // NAME and LEAF are quoted names, ROW holds the values of the needed columns. Then comes what
    // is stored of it.
    let shapes = [
        ("plain", "CREATE TABLE NAME (NEEDED); INSERT INTO NAME VALUES (ROW)", "t|1|-"),
        ("temporary", "CREATE TEMP TABLE NAME (NEEDED); INSERT INTO NAME VALUES (ROW)", "t|1|-"),
        (
            "widened", // its values lie in the catalog, not in the row
            "CREATE TABLE NAME (NEEDED); INSERT INTO NAME VALUES (ROW);
             ALTER TABLE NAME ADD is_active boolean DEFAULT false, ADD priority int8 DEFAULT 9",
            "f|9|-",
        ),
        (
            "narrowed",
            "CREATE TABLE NAME (gone int, NEEDED, priority smallint); ALTER TABLE NAME DROP gone;
             INSERT INTO NAME VALUES (ROW, 9)",
            "t|9|-",
        ),
        (
            "partitioned",
            "CREATE TABLE NAME (NEEDED) PARTITION BY HASH (id); CREATE TABLE LEAF
                 (encryption_iv varchar, gone int, encrypted_key text, provider text, project_id uuid, id uuid);
             ALTER TABLE LEAF DROP gone;
             ALTER TABLE NAME ATTACH PARTITION LEAF FOR VALUES WITH (MODULUS 1, REMAINDER 0);
             INSERT INTO NAME VALUES (ROW)",
            "t|1|-",
        ),
        (
            "inherited",
            "CREATE TABLE NAME (NEEDED); CREATE TABLE LEAF () INHERITS (NAME); INSERT INTO LEAF VALUES (ROW)",
            "t|1|-",
        ),
        (
            "copied",
            "CREATE TABLE LEAF (NEEDED); INSERT INTO LEAF VALUES (ROW);
             CREATE MATERIALIZED VIEW NAME AS SELECT * FROM LEAF",
            "t|1|-",
        ),
        (
            "stored apart",
            "CREATE TABLE NAME (NEEDED, name text); ALTER TABLE NAME ALTER name SET STORAGE EXTERNAL;
             INSERT INTO NAME VALUES (ROW, repeat('many words ', 100000))",
            "t|1|100",
        ),
        (
            "compressed",
            "CREATE TABLE NAME (NEEDED, name text); INSERT INTO NAME VALUES (ROW, repeat('many words ', 100000))",
            "t|1|100",
        ),
        (
            "timeless",
            "CREATE TABLE NAME (NEEDED, created_at timestamp, last_used_at timestamp);
             INSERT INTO NAME VALUES (ROW, '-infinity', 'infinity')",
            "t|1|-",
        ),
    ];
    for (shape, ddl, expected) in shapes {
        let (p, id) = (project(c), Uuid::new_v4());
        let name =
            format!("\"{}\"", format!("{shape}{AWKWARD}{}", id.simple()).replace('"', "\"\""));
        let values = format!("'{id}', '{p}', 'openai', '{}', '{}'", pair[0], pair[1]);
        let leaf = format!("\"leaf {id}\"");
        let ddl = ddl
            .replace("NEEDED", needed)
            .replace("ROW", &values)
            .replace("NAME", &name)
            .replace("LEAF", &leaf);
        one(c, &ddl);
        assert_eq!(one(c, &format!("SELECT count(*) FROM {name}")), "1");
        let answer =
            rows(c, &import(&name.replace('\'', "''"), &old_secret, "provider_key_id, outcome"));
        assert_eq!(answer, [format!("{id}|imported")], "{shape}");
        let stored = format!(
            "SELECT is_active, priority, octet_length(name), created_at BETWEEN '2000-01-01' AND now()
            FROM watchllm.provider_key_records WHERE id = '{id}' AND project_id = '{p}'"
        );
        assert_eq!(one(c, &stored), format!("{expected}|t"), "{shape}");
    }
}

#[test]
fn what_moves_in_is_in_no_file_and_no_log() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, table) = (project(c), old_table(c));
    let (key, secret) = ("x8Kq2Lm9Rz4Tb7Yc1Nh6Jf3Pg5Qs0AuWe", "hG4fD9sA2pO7iU1yT6rE3wQ8lK5jM0nB");
    let log = vault.server().log_len();
    for (vendor, pair) in
        ["openai", "xai"].iter().zip(&sealed_texts(secret, &[key, &format!("{key} ")]))
    {
        add(c, &table, &p, vendor, pair, ("", ""));
    }
    let answer =
        rows(c, &import(&table, &file(&vault, secret.as_bytes()), "i.*").replace("')", "') i"));
    assert_eq!(answer.len(), 2);
    assert!(answer[0].contains("|imported") && answer[1].contains("|bad_input"), "{answer:?}");
    let id = &answer[0][..36];
    assert_eq!(one(c, &decrypt(id)), key);
    // Errors after the secret was read, and while rows are open.
    one(c, "SET statement_timeout = 1");
    assert_eq!(code(c, &import(&table, &file(&vault, secret.as_bytes()), "1")), "57014");
    one(c, "RESET statement_timeout; CHECKPOINT");
    let wanted = Wanted::new(&[&key[..key.len() - 4], secret]);
    assert!(wanted.is_in(format!("the control: {secret}")));
    assert!(!wanted.is_in(answer.join("\n")));
    let server = vault.server();
    let log = server.log_since(log);
    assert!(!wanted.is_in(&log));
    assert!(
        !log.lines().any(|line| line.contains("WARNING:") && line.contains("leak")),
        "something was not given back: {log}"
    );
    assert_eq!(wanted.files(&server.data_dir()), Vec::<String>::new());
}
