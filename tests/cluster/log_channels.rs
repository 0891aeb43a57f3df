//! A key that reaches the server log: by a statement, a parameter, an error's text, a context, an
//! explained plan, another session's deadlock, a constant printed as bytes. Each channel has its
//! own two canaries. With redaction off the first is in every format of the log, so the channel is
//! real. With redaction on the second is in none (docs/log-channels.md).

use std::fs;
use std::io::Write;
use std::time::Duration;

use postgres::{Client, NoTls};
use uuid::Uuid;

use crate::keys::one;
use crate::server::Server;

const CONF: &str = "
shared_preload_libraries = 'watchllm_keys, auto_explain'
logging_collector = on
log_destination = 'stderr,csvlog,jsonlog'
log_directory = 'log'
log_rotation_size = 0
log_line_prefix = '%m [%p] %a '
deadlock_timeout = 100ms
max_parallel_workers_per_gather = 2
";

pub(crate) const FORMATS: [&str; 3] = [".log", ".csv", ".json"];

/// A key that differs from every other. Only its public prefix may be visible.
pub(crate) fn canary(channel: &str) -> String {
    format!("sk-proj-{channel}x{}", Uuid::new_v4().simple())
}

/// The part that must not be visible: the channel and a few random characters.
pub(crate) fn secret(canary: &str) -> &str {
    let start = "sk-proj-".len();
    &canary[start..canary.find('x').unwrap() + 7]
}

/// Everything in the log of one format.
pub(crate) fn log_file(server: &Server, ending: &str) -> String {
    let files =
        fs::read_dir(server.data_dir().join("log")).unwrap().map(|file| file.unwrap().path());
    let wanted = files.filter(|path| path.to_string_lossy().ends_with(ending));
    wanted.map(|path| String::from_utf8_lossy(&fs::read(path).unwrap()).into_owned()).collect()
}

/// The application's name is not the test's own, so that no line holds it by chance.
pub(crate) fn connect(server: &Server) -> Client {
    server.connect("postgres", "postgres")
}

/// Runs statements one by one. Those that must fail, fail.
fn run(server: &Server, statements: &[&str]) {
    let c = &mut connect(server);
    for statement in statements {
        drop(c.simple_query(statement));
    }
}

/// The same; the last statement has the key as its parameter.
fn run_with(server: &Server, statements: &[&str], last: &str, key: &str) {
    let c = &mut connect(server);
    for statement in statements {
        drop(c.simple_query(statement));
    }
    drop(c.query(last, &[&key]));
}

type Channel = (&'static str, fn(&Server, &str));

const CHANNELS: &[Channel] = &[
    ("L01", |s, k| run(s, &["SET log_statement = 'all'", &format!("SELECT length('{k}')")])),
    ("L02", |s, k| {
        run(s, &["SET log_min_duration_statement = 0", &format!("SELECT length('{k}')")])
    }),
    ("L03", |s, k| run(s, &[&format!("SELECT length('{k}'), 1/0")])),
    ("L05", |s, k| run_with(s, &["SET log_statement = 'all'"], "SELECT length($1::text)", k)),
    ("L06", |s, k| {
        run_with(s, &["SET log_min_duration_statement = 0"], "SELECT length($1::text)", k)
    }),
    ("L07", |s, k| {
        run_with(
            s,
            &["SET log_parameter_max_length_on_error = -1"],
            "SELECT 1 / (length($1::text) * 0)",
            k,
        )
    }),
    ("L07b", |s, k| {
        run_with(
            s,
            &["SET log_parameter_max_length_on_error = 30"],
            "SELECT 1 / (length($1::text) * 0)",
            k,
        )
    }),
    ("L08", |s, k| run(s, &[&format!("SELECT '{k}'::int")])),
    ("L08b", |s, k| run_with(s, &[], "SELECT ($1::text)::int", k)),
    ("L09", |s, k| {
        run_with(
            s,
            &["CREATE TABLE IF NOT EXISTS u (k text UNIQUE)"],
            "INSERT INTO u VALUES ($1), ($1)",
            k,
        )
    }),
    ("L10", |s, k| {
        let c = &mut connect(s);
        let mut copy = {
            c.simple_query("CREATE TABLE IF NOT EXISTS n (n int)").unwrap();
            c.copy_in("COPY n FROM STDIN").unwrap()
        };
        copy.write_all(format!("1\n{k}\n").as_bytes()).unwrap();
        drop(copy.finish());
    }),
    ("L11", |s, k| {
        run(
            s,
            &[
                "SET log_min_error_statement = panic",
                &format!("DO $$ BEGIN EXECUTE 'SELECT length(''{k}''), 1/0'; END $$"),
            ],
        )
    }),
    ("L12", |s, k| {
        run(
            s,
            &[
                "SET log_min_error_statement = panic",
                &format!("DO $$ BEGIN RAISE LOG '{k}'; END $$"),
            ],
        )
    }),
    ("L12d", |s, k| {
        run(
            s,
            &[
                "SET log_min_error_statement = panic",
                &format!("DO $$ BEGIN RAISE WARNING 'w' USING detail = '{k}'; END $$"),
            ],
        )
    }),
    ("L12h", |s, k| {
        run(
            s,
            &[
                "SET log_min_error_statement = panic",
                &format!("DO $$ BEGIN RAISE EXCEPTION 'e' USING hint = '{k}'; END $$"),
            ],
        )
    }),
    ("L13", |s, k| run(s, &[&format!("SELEC length('{k}')")])),
    ("L13b", |s, k| run(s, &[&format!("SELECT \"{k}\"")])),
    ("L13c", |s, k| run(s, &["BEGIN", "SELECT 1/0", &format!("SELECT length('{k}')")])),
    ("L14", |s, k| {
        run(
            s,
            &[
                "SET auto_explain.log_min_duration = 0; SET auto_explain.log_verbose = on",
                &format!(
                    "SELECT length('{k}'), '{k}', relname FROM pg_class WHERE relname = '{k}'"
                ),
            ],
        )
    }),
    ("L14n", |s, k| {
        run(
            s,
            &[
                "SET auto_explain.log_min_duration = 0; SET auto_explain.log_nested_statements = on; SET log_min_error_statement = panic",
                &format!("DO $$ BEGIN EXECUTE 'SELECT length(''{k}'')'; END $$"),
            ],
        )
    }),
    ("L19", lock_wait),
    ("L18", |s, k| deadlock(s, &format!("/* {k} */ "))),
    ("L21", |s, k| run(s, &["SET log_statement_stats = on", &format!("SELECT length('{k}')")])),
    ("L22", |s, k| {
        run(
            s,
            &[
                "SET log_temp_files = 0; SET work_mem = '64kB'",
                &format!(
                    "SELECT count(*) FROM (SELECT i::text || '{k}' FROM generate_series(1, 20000) i ORDER BY 1) x"
                ),
            ],
        )
    }),
    ("L26", |s, k| run(s, &[&format!("SET work_mem = '{k}'")])),
    ("L30", |s, k| {
        run(
            s,
            &[
                "SET log_statement = 'all'",
                &format!("PREPARE p AS SELECT length('{k}')"),
                "EXECUTE p",
            ],
        )
    }),
    ("L30b", |s, k| {
        run(
            s,
            &[
                "SET log_statement = 'all'",
                "PREPARE p AS SELECT length($1)",
                &format!("EXECUTE p('{k}')"),
            ],
        )
    }),
    ("L32", |s, k| {
        run(
            s,
            &[
                "CREATE TABLE IF NOT EXISTS c (k text, n int CHECK (n < 5))",
                &format!("INSERT INTO c VALUES ('{k}', 7)"),
            ],
        )
    }),
    ("L34", |s, k| {
        run(
            s,
            &[
                "CREATE TABLE IF NOT EXISTS par AS SELECT i FROM generate_series(1, 200000) i",
                "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET debug_parallel_query = on; SET force_parallel_mode = on",
                &format!("SELECT sum(length('{k}') / (i - 199999)) FROM par"),
            ],
        )
    }),
    ("L35", |s, k| {
        let dsn = format!("host={} dbname=postgres user=postgres", s.socket_dir().display());
        run(
            s,
            &[
                "CREATE EXTENSION IF NOT EXISTS dblink",
                &format!(
                    "SELECT * FROM dblink('{dsn}', $$SELECT length('{k}') / 0$$) AS t (n int)"
                ),
            ],
        )
    }),
    ("L36", |s, k| {
        let body = format!(
            "CREATE OR REPLACE FUNCTION f36() RETURNS int LANGUAGE sql AS $$ SELECT nowhere + length('{k}') $$"
        );
        run(
            s,
            &[
                "SET check_function_bodies = off; SET log_min_error_statement = panic",
                &body,
                "SELECT f36()",
            ],
        )
    }),
    ("L37", |s, k| {
        run(s, &["SET statement_timeout = '50ms'", &format!("SELECT length('{k}'), pg_sleep(10)")])
    }),
    ("L40", |s, k| {
        run(s, &["SET log_statement = 'ddl'", &format!("CREATE ROLE r40 PASSWORD '{k}'")])
    }),
    ("L44", |s, k| {
        let c = &mut connect(s);
        c.simple_query("SET log_min_messages = debug2").unwrap();
        drop(c.query(&format!("SELECT length('{k}')"), &[]));
    }),
    ("L51", |s, k| {
        // several statements in one text, before and after one that fails
        run(s, &[&format!("SELECT length('{k}'); SELECT 1/0; SELECT length('{k}')")])
    }),
];

/// A lock wait that is logged before the statement is analyzed.
fn lock_wait(s: &Server, k: &str) {
    let holder = &mut connect(s);
    holder.simple_query("CREATE TABLE IF NOT EXISTS l (i int); BEGIN; LOCK l").unwrap();
    let waiter = &mut connect(s);
    waiter.simple_query("SET log_lock_waits = on; SET statement_timeout = '1s'").unwrap();
    drop(waiter.simple_query(&format!("SELECT length('{k}') FROM l")));
}

/// Two sessions that wait for each other: the loser's message quotes the winner's statement.
fn deadlock(s: &Server, before: &str) {
    let (a, b) = (&mut connect(s), &mut connect(s));
    let rows = "CREATE TABLE IF NOT EXISTS d (i int PRIMARY KEY, v int); INSERT INTO d VALUES (1, 0), (2, 0) ON CONFLICT DO NOTHING";
    a.simple_query(rows).unwrap();
    a.simple_query("BEGIN; UPDATE d SET v = 1 WHERE i = 1").unwrap();
    b.simple_query("BEGIN; UPDATE d SET v = 1 WHERE i = 2").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| drop(a.simple_query(&format!("{before}UPDATE d SET v = 2 WHERE i = 2"))));
        std::thread::sleep(Duration::from_millis(20));
        drop(b.simple_query(&format!("{before}UPDATE d SET v = 2 WHERE i = 1")));
    });
}

pub(crate) fn switch(server: &Server, to: &str) {
    server.conf(&format!("watchllm_keys.redact_server_log = {to}"));
    server.reload();
    server.poll_until("postgres", "SHOW watchllm_keys.redact_server_log", to, 20);
}

/// The first line of the text that holds `part`.
pub(crate) fn line_with<'a>(text: &'a str, part: &str) -> Option<&'a str> {
    text.lines().find(|line| line.contains(part))
}

/// Everything written before this answer is in the files.
pub(crate) fn settle(server: &Server) {
    let mark = Uuid::new_v4().simple().to_string();
    run(server, &[&format!("DO $$ BEGIN RAISE LOG 'mark {mark}'; END $$")]);
    for ending in FORMATS {
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        while !log_file(server, ending).contains(&mark) {
            assert!(std::time::Instant::now() < deadline, "the collector does not write {ending}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

#[test]
fn no_channel_brings_a_key_into_the_log() {
    let server = Server::with_vault_and(CONF);
    let with = |state: &str| -> Vec<(&str, String)> {
        switch(&server, state);
        CHANNELS
            .iter()
            .map(|(name, provoke)| {
                let key = canary(name);
                provoke(&server, &key);
                (*name, key)
            })
            .collect()
    };
    let (bare, masked) = (with("off"), with("on"));
    settle(&server);
    let mut wrong = vec![];
    for ending in FORMATS {
        let log = log_file(&server, ending);
        for (name, key) in &bare {
            if !log.contains(secret(key)) {
                wrong.push(format!("{name}{ending}: the channel is not used"));
            }
        }
        for (name, key) in &masked {
            if let Some(line) = line_with(&log, secret(key)) {
                wrong.push(format!("{name}{ending}: {line}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn keys_that_were_cut_off_do_not_show_their_beginning() {
    let server = Server::with_vault_and(CONF);
    let mut keys = vec![];
    for state in ["off", "on"] {
        switch(&server, state);
        // each state has its own, because a key that was cut off leaves little more than this
        let own =
            |channel: &str| canary(&format!("{}{channel}", if state == "off" { "L" } else { "N" }));
        let (deadlocked, prepared, parameter) = (own("48"), own("23"), own("07"));
        run_with(
            &server,
            &["SET log_statement = 'all'; SET log_parameter_max_length = 16"],
            "SELECT $1::text, 'cut'",
            &parameter,
        );
        // the text ends within the key, which is then too short for its rule
        let padding = 1023 - "/* sk-proj-L48x012345".len();
        deadlock(&server, &format!("/*{}{deadlocked} */ ", "-".repeat(padding - 1) + " "));
        let c = &mut connect(&server);
        c.simple_query(&format!(
            "PREPARE p{} AS SELECT '{}{prepared}'",
            state,
            " ".repeat(100 - 40)
        ))
        .unwrap();
        c.simple_query("SELECT pg_log_backend_memory_contexts(pg_backend_pid())").unwrap();
        one(c, "SELECT pg_sleep(0.2)");
        keys.push([deadlocked, prepared, parameter]);
    }
    settle(&server);
    for ending in FORMATS {
        let log = log_file(&server, ending);
        for key in &keys[0] {
            assert!(log.contains(&key[..13]), "{ending}: the channel of {key} is not used");
        }
        for key in &keys[1] {
            let line = line_with(&log, &key[8..13]);
            assert!(line.is_none(), "{ending}: {}", line.unwrap());
        }
    }
}

#[test]
fn constants_printed_as_bytes_are_no_way_around() {
    let server = Server::with_vault_and(CONF);
    let in_decimal = |key: &str| key.bytes().map(|byte| byte.to_string()).collect::<String>();
    let mut keys = vec![];
    for state in ["off", "on"] {
        switch(&server, state);
        let key = canary("L20");
        for pretty in ["on", "off"] {
            run(
                &server,
                &[
                    &format!(
                        "SET debug_print_parse = on; SET debug_print_rewritten = on; SET debug_print_plan = on; SET debug_pretty_print = {pretty}"
                    ),
                    &format!("SELECT length('{key}'), '{key}' FROM pg_class LIMIT 1"),
                ],
            );
        }
        keys.push(key);
    }
    settle(&server);
    for ending in FORMATS {
        let digits: String =
            log_file(&server, ending).chars().filter(char::is_ascii_digit).collect();
        assert!(digits.contains(&in_decimal(&keys[0])), "{ending}: the channel is not used");
        assert!(!digits.contains(&in_decimal(&keys[1])), "{ending}");
    }
}

#[test]
fn a_setting_that_holds_a_key_is_masked_where_it_changes() {
    let server = Server::with_vault_and(CONF);
    let mut keys = vec![];
    for state in ["off", "on"] {
        switch(&server, state);
        let key = canary("L25");
        one(
            &mut connect(&server),
            &format!("ALTER SYSTEM SET archive_cleanup_command = 'curl -H {key}'"),
        );
        server.reload();
        server.poll_until(
            "postgres",
            &format!("SELECT current_setting('archive_cleanup_command') = 'curl -H {key}'"),
            "t",
            20,
        );
        keys.push(key);
    }
    settle(&server);
    for ending in FORMATS {
        let log = log_file(&server, ending);
        assert!(log.contains(secret(&keys[0])), "{ending}: the channel is not used");
        assert!(!log.contains(secret(&keys[1])), "{ending}");
    }
}

#[test]
fn an_application_named_like_a_key_is_masked_in_every_line() {
    let server = Server::with_vault_and(CONF);
    let named = |name: &str| {
        let mut config = postgres::Config::new();
        config
            .host_path(server.socket_dir())
            .dbname("postgres")
            .user("postgres")
            .application_name(name);
        config.connect(NoTls).unwrap()
    };
    let mut keys = vec![];
    for state in ["off", "on"] {
        switch(&server, state);
        let (at_connect, set) = (canary("L27"), canary("L27s"));
        drop(named(&at_connect).simple_query("SELECT 1/0"));
        let c = &mut connect(&server);
        c.simple_query(&format!("BEGIN; SET application_name = '{set}'; COMMIT")).unwrap();
        drop(c.simple_query("SELECT 1/0"));
        let shown = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE '%L27s%'";
        assert_eq!(one(&mut connect(&server), shown), if state == "on" { "0" } else { "1" });
        keys.push([at_connect, set]);
    }
    settle(&server);
    for ending in FORMATS {
        let log = log_file(&server, ending);
        keys[0].iter().for_each(|key| {
            assert!(log.contains(secret(key)), "{ending}: the channel is not used")
        });
        keys[1].iter().for_each(|key| {
            let line = line_with(&log, secret(key));
            assert!(line.is_none(), "{ending}: {}", line.unwrap());
        });
    }
}

#[test]
fn a_login_by_a_key_is_masked_in_the_message() {
    let server = Server::with_vault_and(CONF);
    let keys = ["off", "on"].map(|state| {
        switch(&server, state);
        let key = canary("L28");
        drop(server.try_connect("postgres", &key));
        drop(server.try_connect(&key, "postgres"));
        key
    });
    settle(&server);
    // the csv and json formats have their own columns for role and database, which no hook reaches
    for (ending, from) in FORMATS.into_iter().zip(["FATAL:", "FATAL,", "\"message\""]) {
        let log = log_file(&server, ending);
        let messages = || log.lines().filter_map(|line| line.find(from).map(|at| &line[at..]));
        assert_eq!(
            messages().filter(|line| line.contains(secret(&keys[0]))).count(),
            2,
            "{ending}: the channel is not used"
        );
        assert_eq!(
            messages().filter(|line| line.contains(secret(&keys[1]))).count(),
            0,
            "{ending}"
        );
    }
}

#[test]
fn a_client_is_not_shown_a_key_in_an_error_either() {
    let server = Server::with_vault();
    for (state, expected) in [("off", true), ("on", false)] {
        switch(&server, state);
        let (key, c) = (canary("C01"), &mut connect(&server));
        c.simple_query("SET log_parameter_max_length_on_error = -1; CREATE TABLE IF NOT EXISTS u (k text UNIQUE)")
            .unwrap();
        let said = |error: postgres::Error| {
            let error = error.as_db_error().unwrap().clone();
            format!(
                "{} {:?} {:?} {:?}",
                error.message(),
                error.detail(),
                error.hint(),
                error.where_()
            )
        };
        for error in [
            c.simple_query(&format!("SELECT '{key}'::int")).unwrap_err(),
            c.query("INSERT INTO u VALUES ($1), ($1)", &[&key]).unwrap_err(),
            c.query("SELECT 1 / (length($1::text) * 0)", &[&key]).unwrap_err(),
            c.simple_query(&format!(
                "DO $$ BEGIN RAISE EXCEPTION 'e' USING hint = '{key}'; END $$"
            ))
            .unwrap_err(),
        ] {
            let said = said(error);
            assert_eq!(said.contains(secret(&key)), expected, "{said}");
        }
        // and the statement itself did what it said
        assert_eq!(
            one(
                c,
                &format!(
                    "SELECT length('{key}'), md5('{key}') = md5(concat('{}', '{}'))",
                    &key[..9],
                    &key[9..]
                )
            ),
            format!("{}|t", key.len())
        );
    }
}
