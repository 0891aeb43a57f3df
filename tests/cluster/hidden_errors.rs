//! Errors that show the key: an opaque one, of no known shape, in a statement that names us and
//! fails. It must be in no log, in no message to the client, in no view of statements. Each channel
//! has its control: with hiding off, the key is there. In four languages, because PostgreSQL
//! translates what it says.

use uuid::Uuid;

use crate::commands::{command, tree};
use crate::keys::{one, project, refusal, rows};
use crate::log_channels::{FORMATS, canary, connect, log_file, secret, settle};
use crate::server::Server;
use crate::wire::{Said, Wire};
use crate::wrong_statements::{SETUP, Way, Wrong, all};

const CONF: &str = "
logging_collector = on
log_destination = 'stderr,csvlog,jsonlog'
log_directory = 'log'
log_rotation_size = 0
log_line_prefix = '%m [%p] %a '
log_error_verbosity = verbose
log_statement = all
log_min_duration_statement = 0
log_parameter_max_length = -1
log_parameter_max_length_on_error = -1
log_lock_waits = on
log_min_messages = debug1
client_min_messages = debug1
auto_explain.log_min_duration = 0
auto_explain.log_analyze = on
auto_explain.log_verbose = on
auto_explain.log_triggers = on
auto_explain.log_settings = on
auto_explain.log_nested_statements = on
pg_stat_statements.track = all
pg_stat_statements.track_utility = on
pgaudit.log = 'all'
pgaudit.log_parameter = on
pgaudit.log_relation = on
";

/// Its first character is in no word and no blank, and it looks like nobody's key.
fn opaque() -> String {
    let random = Uuid::new_v4().simple().to_string().replace(['1', 'a'], "w");
    format!("q{}", &random[..14])
}

fn server() -> Server {
    let mut libraries = "watchllm_keys, auto_explain, pg_stat_statements".to_owned();
    if audits() {
        libraries += ", pgaudit";
    }
    let server = Server::init();
    server.preload_vault();
    server.conf(&format!("{CONF}\nshared_preload_libraries = '{libraries}'"));
    server.start();
    server.psql("postgres", "CREATE EXTENSION watchllm_keys; SELECT watchllm.install()");
    server.psql("postgres", SETUP);
    server.psql("postgres", "CREATE EXTENSION pg_stat_statements");
    server
}

/// Whether pgaudit is there: `make setup-tests` installs it where a package has it.
fn audits() -> bool {
    let found = command("find").arg(tree()).args(["-name", "pgaudit.so"]).output().unwrap();
    !found.stdout.is_empty()
}

fn hide(server: &Server, to: &str) {
    server.conf(&format!("watchllm_keys.hide_statements = {to}"));
    server.reload();
    server.poll_until("postgres", "SHOW watchllm_keys.hide_statements", to, 20);
}

fn send(server: &Server, wrong: &Wrong, key: &str) -> Said {
    let wire = &mut Wire::connect(server, "wire");
    let mut said = Said::default();
    match &wrong.way {
        Way::Text(statements) => {
            for statement in statements {
                let more = wire.query(&spelled(statement, key));
                said.failed |= more.failed;
                said.messages.extend(more.messages);
            }
        }
        Way::Pipeline(statements) => {
            let sent: Vec<_> =
                statements.iter().map(|text| (spelled(text, key), key.to_owned())).collect();
            said = wire.pipeline(&sent);
        }
        Way::Copy(statement, rows) => {
            said = wire.copy(&spelled(statement, key), &rows.replace('K', key));
        }
        Way::Call(function) => {
            let sql =
                format!("SELECT oid, pronargs FROM pg_proc WHERE oid = '{function}'::regproc");
            let row = server.psql("postgres", &sql);
            let (number, count) = row.split_once('|').unwrap();
            let arguments = vec![key; count.parse().unwrap()];
            said = wire.call(number.parse().unwrap(), &arguments);
        }
    }
    assert!(said.failed, "{} succeeds", wrong.name);
    // while the session is idle, its last statement is there to be read
    said.rows = activity(server).into_bytes();
    said
}

/// The statement with the key in place of each `K` that is no part of a word.
fn spelled(statement: &str, key: &str) -> String {
    let is_word = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphabetic() || c == '_');
    let mut spelled = String::new();
    for (at, c) in statement.char_indices() {
        let (before, after) = (&statement[..at], &statement[at + 1..]);
        let alone = c == 'K'
            && (before.ends_with("\\xff") || !is_word(before.chars().next_back()))
            && !is_word(after.chars().next());
        if alone { spelled += key } else { spelled.push(c) }
    }
    spelled
}

/// What everybody may read of the sessions.
fn activity(server: &Server) -> String {
    let sql = "SELECT concat_ws(' ', application_name, query) FROM pg_stat_activity";
    rows(&mut connect(server), sql).join("\n")
}

fn statistics(server: &Server) -> String {
    rows(&mut connect(server), "SELECT query FROM pg_stat_statements").join("\n")
}

/// Where keys were seen: the statement's name and the channel.
fn seen(server: &Server, wrongs: &[Wrong]) -> Vec<(String, String)> {
    let mut seen = vec![];
    let mut sent = vec![];
    for wrong in wrongs {
        let key = opaque();
        let said = send(server, wrong, &key);
        if said.holds(&key[..9]) {
            seen.push((
                wrong.name.clone(),
                format!("client: {}", String::from_utf8_lossy(&said.messages)),
            ));
        }
        if String::from_utf8_lossy(&said.rows).contains(&key[..9]) {
            seen.push((wrong.name.clone(), "activity".into()));
        }
        sent.push((wrong.name.clone(), key));
    }
    settle(server);
    let kept = statistics(server);
    let logs = FORMATS.map(|ending| log_file(server, ending));
    for (name, key) in &sent {
        if kept.contains(&key[..9]) {
            seen.push((name.clone(), "statistics".into()));
        }
        for (ending, log) in FORMATS.iter().zip(&logs) {
            for line in log.lines().filter(|line| line.contains(&key[..9])) {
                seen.push((name.clone(), format!("{ending}: {line}")));
            }
        }
    }
    seen
}

#[test]
fn no_wrong_statement_shows_an_opaque_key_in_any_language() {
    let wrongs = all();
    assert!(wrongs.len() >= 60, "{}", wrongs.len());
    let server = server();
    let mut failures = vec![];
    for (language, word) in [("en", "zero"), ("de", "Null"), ("ko", "나눌"), ("ja", "除算")] {
        server.restart_in(language);
        let speaks = server.psql_result("postgres", "SELECT 1/0").stderr;
        assert!(speaks.contains(word), "{language}: {speaks}");
        for (name, channel) in seen(&server, &wrongs) {
            failures.push(format!("{language}: {name}: {channel}"));
        }
    }
    assert!(failures.is_empty(), "{} hits:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn with_hiding_off_each_channel_shows_the_key() {
    let wrongs = all();
    let server = server();
    hide(&server, "off");
    let seen = seen(&server, &wrongs);
    for wrong in &wrongs {
        let found = |channel: &str| {
            seen.iter().any(|(name, place)| *name == wrong.name && place.starts_with(channel))
        };
        for channel in [".log", ".csv", ".json"] {
            assert!(found(channel), "{}: not even {channel}", wrong.name);
        }
    }
    let count = |channel: &str| seen.iter().filter(|(_, place)| place.contains(channel)).count();
    for (channel, least) in
        [("client", 60), ("activity", 60), ("statistics", 1), ("AUDIT", 10), ("plan:", 3)]
    {
        if channel != "AUDIT" || audits() {
            assert!(count(channel) >= least, "{channel}: {}", count(channel));
        }
    }
}

#[test]
fn every_name_of_ours_is_known() {
    let server = Server::with_vault();
    let sql = "SELECT proname FROM pg_proc WHERE pronamespace = 'watchllm'::regnamespace
        UNION SELECT relname FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace
            AND relkind IN ('r', 'p', 'v') AND NOT relispartition";
    let names = rows(&mut connect(&server), sql);
    assert!(names.len() > 60);
    let unknown: Vec<_> =
        names.iter().filter(|name| !watchllm_core::blanks::is_known(name.as_bytes())).collect();
    assert!(unknown.is_empty(), "not in core/src/blanks/names.rs: {unknown:?}");
}

#[test]
fn blanks_change_nothing_that_another_module_reads() {
    let server = server();
    let c = &mut connect(&server);
    let p = project(c);
    for (sql, answer) in [
        (format!("SELECT watchllm.store_provider_key('{p}', 'openai', 'opaque4711', 'n', priority => 6/2) IS NOT NULL"), "t"),
        ("SELECT watchllm.redact(E'a\\'b\\x41\\101') || 1e2 || 0.5e-1".into(), "a'bAA1000.05"),
        ("SELECT watchllm.redact($ab$ one $cd$ two $ef$ 'three $ab$)".into(), " one $cd$ two $ef$ 'three "),
        ("SELECT watchllm.redact(U&'d\\0061t') AS \"A \"\"b\"\" 7\" /* one /* two */ ' */ -- '\n".into(), "dat"),
        ("SELECT watchllm.redact('a' 'b') WHERE 1 = 1".replace("' '", "'\n '"), "ab"),
        ("SELECT watchllm.redact(b'101'::text || x'1F'::text || n'z')".into(), "10100011111z"),
        ("SELECT watchllm.redact(date'2026-01-02'::text)".into(), "2026-01-02"),
        ("SELECT watchllm.redact('한국어 日本語') AS 이름".into(), "한국어 日本語"),
    ] {
        assert_eq!(one(c, &sql), answer, "{sql}");
        one(c, "SET standard_conforming_strings = off; SET escape_string_warning = off");
        assert_eq!(one(c, "SELECT watchllm.redact('it\\'s /* 6/2 */')"), "it's /* 6/2 */");
        one(c, "RESET standard_conforming_strings");
    }
    let kept = statistics(&server);
    assert!(kept.contains("watchllm.redact($1)") && !kept.contains("opaque"), "{kept}");
    // and in the session's own statement nothing in double quotes is left
    let idle = &mut connect(&server);
    one(idle, "SELECT watchllm.redact('x') AS \"opaque4711\"");
    assert!(!activity(&server).contains("opaque"), "{}", activity(&server));
}

#[test]
fn our_own_errors_and_texts_without_a_value_pass() {
    let server = server();
    let c = &mut connect(&server);
    one(c, "CREATE ROLE nobody; GRANT USAGE ON SCHEMA watchllm TO nobody");
    for (sql, state, message) in [
        (
            "SELECT watchllm.decrypt_provider_key(gen_random_uuid())",
            "02000",
            "no such provider key",
        ),
        ("SELECT watchllm.redact('x'), 1/0", "22012", "division by zero"),
        (
            "SET ROLE nobody; SELECT watchllm.install()",
            "42501",
            "permission denied for function install",
        ),
        (
            "SET statement_timeout = 50; SELECT watchllm.redact('x'), pg_sleep(9)",
            "57014",
            "canceling statement due to statement timeout",
        ),
        ("DELETE FROM watchllm.provider_key_access_logs", "42501", "the table is append-only"),
        ("SELECT watchllm.redact('x' + 1)", "22P02", "error 22P02: a value is not written"),
        ("SELECT watchllm.no_such('x')", "42883", "error 42883: no function of that name"),
    ] {
        let error = refusal(c, sql);
        assert_eq!(error.code().code(), state, "{sql}: {error:?}");
        assert!(error.message().contains(message), "{sql}: {}", error.message());
        one(c, "RESET ROLE; RESET statement_timeout");
    }
    let error = refusal(c, "SELECT watchllm.no_such('x')");
    assert!(error.hint().unwrap().contains("docs/troubleshooting.md#hidden-errors"));
    assert!(format!("{:?}", error.position()).contains("Original(8)"), "{error:?}");
}

#[test]
fn an_applications_name_is_masked_while_it_is_set() {
    let server = Server::with_vault();
    let key = canary("NAME");
    let secret = secret(&key).to_owned();
    let shown = |name: &str| {
        let seen = activity(&server);
        assert!(seen.contains(name) && !seen.contains(&secret), "{seen}");
    };
    let at_connect = Wire::connect(&server, &format!("at-connect {key}"));
    shown("at-connect sk-proj-");
    server.psql("postgres", &format!("ALTER ROLE postgres SET application_name = 'of-role {key}'"));
    let of_role = Wire::connect(&server, "");
    let c = &mut connect(&server);
    for set in [
        "SELECT set_config('application_name', 'by-call KEY', false), pg_sleep(1)",
        "SET application_name = 'by-set KEY'; SELECT pg_sleep(1)",
        "BEGIN; SET LOCAL application_name = 'local KEY'; SELECT pg_sleep(1); COMMIT",
        "DO $$ BEGIN PERFORM set_config('application_name', 'in-do KEY', true), pg_sleep(1); END $$",
    ] {
        let name = set.split(" KEY").next().unwrap().rsplit('\'').next().unwrap().to_owned();
        std::thread::scope(|scope| {
            let setter = scope.spawn(|| one(c, &set.replace("KEY", &key)));
            std::thread::sleep(std::time::Duration::from_millis(500));
            shown(&format!("{name} sk-proj-"));
            setter.join().unwrap();
        });
    }
    drop((at_connect, of_role));
    server.psql("postgres", "ALTER ROLE postgres RESET application_name");
}

/// PostgreSQL frees the texts of what ends a process one by one. Others in their place ended the
/// whole server, by a setting that any role may change, or by a timeout of a parallel query.
#[test]
fn what_ends_a_process_that_names_us_ends_no_other() {
    let server = crate::server::Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    crate::keys::one(
        c,
        "CREATE ROLE nobody_special LOGIN; CREATE TABLE big AS
         SELECT i AS id, md5(i::text) AS k FROM generate_series(1, 200000) i;
         ALTER TABLE big SET (parallel_workers = 2); ANALYZE big",
    );
    let up = crate::keys::one(c, "SELECT pg_postmaster_start_time()");
    let fatal = "SET exit_on_error = on; SELECT 'watchllm'::int";
    assert_ne!(server.psql_result_as("postgres", "nobody_special", fatal).status, 0);
    let parallel = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
        SET min_parallel_table_scan_size = 0; SET statement_timeout = '300ms'";
    crate::keys::one(c, parallel);
    for _ in 0..3 {
        let ended = "SELECT count(*) FROM big a, big b WHERE watchllm.redact(a.k || b.k) <> a.k";
        assert_eq!(crate::keys::code(c, ended), "57014");
    }
    let failing = "SELECT count(*) FROM big WHERE k <> 'watchllm' AND 1 / (id - 190000) > -5";
    assert_eq!(crate::keys::code(c, failing), "22012");
    // The connection is the same one: nobody restarted the server.
    crate::keys::one(c, "RESET statement_timeout");
    assert_eq!(crate::keys::one(c, "SELECT pg_postmaster_start_time()"), up);
    assert!(!server.log().contains("was terminated by signal"), "{}", server.log());
}
