//! Keys that only the administrator knows to be keys (`watchllm_keys.extra_key_patterns`). They are
//! masked in the log of every format, in triggers and scans, immediately after a reload. A bad
//! setting is refused at start and at reload. Also the places where a log hook that allocates would
//! end the server.

use std::fs;

use uuid::Uuid;

use crate::commands::{command, run};
use crate::keys::{code, one, project, refusal, rows};
use crate::log_channels::{FORMATS, log_file};
use crate::log_faults::{crashed, with_faults};
use crate::roles::login;
use crate::server::{Mode, Server};

const PATTERN: &str = r#"["acme-[0-9a-f]{32}", "(?i)corp_\\d{20,}"]"#;

/// A key that no rule recognises.
fn key() -> String {
    format!("acme-{}", Uuid::new_v4().simple())
}

/// The list as postgresql.conf has it, where a backslash is doubled.
fn line(list: &str) -> String {
    format!(
        "watchllm_keys.extra_key_patterns = '{}'",
        list.replace('\\', "\\\\").replace('\'', "''")
    )
}

fn set(server: &Server, list: &str) {
    server.conf(&line(list));
    server.reload();
    server.poll_until("postgres", "SHOW watchllm_keys.extra_key_patterns", list, 20);
}

/// Everything written before this answer is in the log's files.
fn logs(server: &Server) -> Vec<String> {
    let mark = Uuid::new_v4().simple().to_string();
    one(
        &mut server.connect("postgres", "postgres"),
        &format!("DO $$ BEGIN RAISE LOG 'mark {mark}'; END $$"),
    );
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    loop {
        let logs: Vec<String> = FORMATS.iter().map(|ending| log_file(server, ending)).collect();
        if logs.iter().all(|log| log.contains(&mark)) {
            return logs;
        }
        assert!(std::time::Instant::now() < deadline, "the collector does not write");
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

#[test]
fn a_match_is_in_no_log_from_the_reload_on() {
    let server = Server::with_vault_and(
        "logging_collector = on\nlog_destination = 'stderr,csvlog,jsonlog'\nlog_directory = 'log'\nlog_rotation_size = 0",
    );
    let c = &mut server.connect("postgres", "postgres");
    project(c); // the writer runs from the first call on
    let long_digits = format!("Corp_{}", "0123456789".repeat(3));
    for (list, hidden) in [("", false), (PATTERN, true), ("[]", false)] {
        if !list.is_empty() {
            set(&server, list);
        }
        let keys: Vec<String> = (0..5).map(|_| key()).collect();
        let error = refusal(c, &format!("SELECT '{}'::int", keys[0]));
        assert_eq!(error.message().contains(&keys[0]), !hidden, "clients too: {}", error.message());
        drop(c.query("SELECT ($1::text)::int", &[&keys[1]]));
        code(c, &format!("SELEC '{}'", keys[2]));
        code(
            c,
            &format!(
                "DO $$ BEGIN RAISE LOG 'x{}x {long_digits}' USING DETAIL = '{}'; END $$",
                keys[3], keys[4]
            ),
        );
        let shown = one(
            &mut server.connect("postgres", "postgres"),
            "SELECT string_agg(query, ' ') FROM pg_stat_activity WHERE pid <> pg_backend_pid()",
        );
        assert_eq!(shown.contains(&keys[3]), !hidden, "{shown}");
        for (log, format) in logs(&server).iter().zip(FORMATS) {
            for (number, key) in keys.iter().enumerate() {
                assert_eq!(log.contains(&key[10..]), !hidden, "{number} in {format} with {list}");
            }
        }
        if hidden {
            let all = logs(&server).concat();
            assert!(
                all.contains("x*************************************x *********************"),
                "{all}"
            );
            server.poll_until(
                "postgres",
                "SELECT count(*) > 2 AND min(severity) = 'medium' FROM watchllm.security_incidents
                 WHERE details->>'kind' = 'key of an extra pattern'",
                "t",
                20,
            );
        }
    }
    let incidents = one(c, "SELECT string_agg(i::text, ' ') FROM watchllm.security_incidents i");
    assert!(!incidents.contains("acme-") && !incidents.contains("0123456789"), "{incidents}");
}

#[test]
fn a_match_is_a_key_in_triggers_and_scans_and_redact_stays_as_it_is() {
    let server = Server::with_vault_and(&line(PATTERN));
    let c = &mut server.connect("postgres", "postgres");
    let (role, key) = (login(c, ""), key());
    one(
        c,
        &format!(
            "CREATE TABLE logs (id int, message text, old json, doc jsonb); GRANT ALL ON logs TO {role};
            INSERT INTO logs SELECT n, 'see ' || k, to_json('a \" ' || k), jsonb_build_object(k, 1)
            FROM (VALUES (1, '{key}'), (2, 'acme-' || md5('2'))) v(n, k)"
        ),
    );
    let scan = "SELECT place, provider, kind, redacted, occurrences, is_new FROM watchllm.scan_table_for_leaks('logs')";
    for new in ["t", "f"] {
        let mut found = rows(c, scan);
        found.sort();
        let of = |column: &str| {
            format!("public.logs.{column}|-|key of an extra pattern|...[REDACTED]|1|{new}")
        };
        let expected: Vec<String> =
            ["doc", "message", "old"].iter().flat_map(|column| [of(column), of(column)]).collect();
        assert_eq!(found, expected);
    }
    one(c, &format!("COMMENT ON TABLE logs IS 'Corp_{}'", "7".repeat(25)));
    let found = rows(c, "SELECT place, kind FROM watchllm.scan_database_for_leaks()");
    assert_eq!(found, ["comment on table public.logs|key of an extra pattern"]);
    one(
        c,
        "DELETE FROM logs; CREATE TRIGGER redact BEFORE INSERT OR UPDATE ON logs FOR EACH ROW
         EXECUTE FUNCTION watchllm.redact_columns('message', 'old', 'doc')",
    );
    let s = &mut server.connect("postgres", &role);
    let other = format!("acme-{}", "f".repeat(32)); // jsonb sorts names
    let values = format!(
        r#"(1, 'a {key} b', '{{"k": "x\n{key}\"", "n": 1e400}}', '{{"{key}": "{key}", "{other}": 2, "n": 1.50}}')"#
    );
    one(s, &format!("INSERT INTO logs VALUES {values}"));
    let mask = "...[REDACTED]";
    assert_eq!(
        one(s, "SELECT message, old, doc FROM logs"),
        format!(
            r#"a {mask} b|{{"k": "x\n{mask}\"", "n": 1e400}}|{{"n": 1.50, "{mask}": "{mask}", "{mask} (2)": 2}}"#
        )
    );
    let raised = "SELECT details->>'column', details->>'kind' FROM watchllm.security_incidents
        WHERE details->>'source' = 'redact_columns' ORDER BY 1";
    // Two keys of the document, one of each other column.
    let expected =
        ["doc", "doc", "message", "old"].map(|column| format!("{column}|key of an extra pattern"));
    server.poll_until("postgres", raised, &expected.join("\n"), 20);
    // Values in generated columns and indexes must not change with a setting.
    assert_eq!(one(c, &format!("SELECT watchllm.redact('a {key}')")), format!("a {key}"));
}

/// Values that are refused, and the reason given.
const BAD: &[(&str, &str)] = &[
    ("acme-[0-9]+", "it is no JSON list of strings"),
    (r#"["acme-[0-9]+", "("]"#, "Pattern 2 of the list: a pattern is no regular expression"),
    (
        r#"["acme-[0-9]+", ".*"]"#,
        "Pattern 2 of the list: a pattern matches the empty string, or everything",
    ),
    (r#"[""]"#, "Pattern 1 of the list: a pattern matches the empty string, or everything"),
    (r#"["[\\s\\S]"]"#, "a pattern matches the empty string, or everything"),
    (r#"["RED.CTED"]"#, "a pattern matches what stands in place of a key"),
    (r#"["x[a-p]*[a-h][a-p]{13}"]"#, "the patterns are too large together"),
];

#[test]
fn a_bad_value_at_reload_leaves_what_was_set() {
    let server = Server::with_vault_and(&line(PATTERN));
    let c = &mut server.connect("postgres", "postgres");
    for (bad, said) in BAD {
        let before = server.log_len();
        let conf = fs::read_to_string(server.data_dir().join("postgresql.conf")).unwrap();
        server.conf(&line(bad));
        server.reload();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        while !server.log_since(before).contains(said) {
            assert!(std::time::Instant::now() < deadline, "{bad}: {}", server.log_since(before));
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let log = server.log_since(before);
        assert!(
            log.contains("invalid value for parameter \"watchllm_keys.extra_key_patterns\""),
            "{log}"
        );
        // In this session and in a new one the former patterns are in force.
        for c in [&mut *c, &mut server.connect("postgres", "postgres")] {
            assert_eq!(one(c, "SHOW watchllm_keys.extra_key_patterns"), PATTERN, "{bad}");
            let key = key();
            assert!(
                !refusal(c, &format!("SELECT '{key}'::int")).message().contains(&key[10..]),
                "{bad}"
            );
        }
        run(command("sh")
            .args(["-c", "printf %s \"$1\" > \"$0\""])
            .arg(server.data_dir().join("postgresql.conf"))
            .arg(conf));
        let error =
            refusal(c, &format!("ALTER SYSTEM SET watchllm_keys.extra_key_patterns = '{bad}'"));
        assert_eq!(error.code().code(), "22023", "{bad}");
        assert!(
            error.detail().is_some_and(|detail| detail.contains(said)),
            "{bad}: {:?}",
            error.detail()
        );
    }
    assert_eq!(code(c, "SET watchllm_keys.extra_key_patterns = '[]'"), "55P02");
    // A good ALTER SYSTEM that is not in force yet, then a second one.
    one(c, r#"ALTER SYSTEM SET watchllm_keys.extra_key_patterns = '["first-\\d{9}"]'"#);
    one(c, r#"ALTER SYSTEM SET watchllm_keys.extra_key_patterns = '["second-\\d{9}"]'"#);
    server.reload();
    server.poll_until(
        "postgres",
        "SHOW watchllm_keys.extra_key_patterns",
        r#"["second-\\d{9}"]"#,
        20,
    );
    for (text, is_shown) in [("first-123456789", true), ("second-123456789", false)] {
        assert_eq!(
            refusal(c, &format!("SELECT '{text}'::int")).message().contains(text),
            is_shown,
            "{text}"
        );
    }
}

#[test]
fn with_a_bad_value_the_server_starts_and_says_so() {
    for (bad, said) in BAD {
        let server = Server::with_vault_and(&line(bad));
        let log = server.log();
        assert!(
            log.contains("invalid value for parameter \"watchllm_keys.extra_key_patterns\""),
            "{bad}: {log}"
        );
        assert!(log.contains(said), "{bad}: {log}");
        let c = &mut server.connect("postgres", "postgres");
        assert_eq!(one(c, "SHOW watchllm_keys.extra_key_patterns"), "", "{bad}");
        set(&server, PATTERN);
        let key = key();
        assert!(
            !refusal(c, &format!("SELECT '{key}'::int")).message().contains(&key[10..]),
            "{bad}"
        );
        server.stop(Mode::Fast);
    }
}

#[test]
fn the_server_survives_where_nothing_may_be_allocated() {
    for before in [true, false] {
        let last = key();
        let conf = format!(
            "log_faults.last_words = '{last}'\nlog_min_messages = debug3\nrestart_after_crash = on"
        );
        let server = with_faults(before, &format!("{}\n{conf}", line(PATTERN)));
        let c = &mut server.connect("postgres", "postgres");
        let mut keys = vec![last];
        // In a critical section, within another hook, with invalid bytes, in FATAL.
        for call in ["critical($1)", "odd_bytes($1)", "raise_at(1, $1)"] {
            keys.push(key());
            drop(
                server
                    .connect("postgres", "postgres")
                    .query(&format!("SELECT {call}"), &[keys.last().unwrap()]),
            );
        }
        keys.push(key());
        code(c, &format!("DO $$ BEGIN RAISE LOG 'raise warning {}'; END $$", keys.last().unwrap()));
        // Without memory.
        keys.push(key());
        let pid = one(c, "SELECT pg_backend_pid()");
        run(command("prlimit").args(["--pid", &pid, "--as=300000000"]));
        for _ in 0..3 {
            let key = keys.last().unwrap();
            assert_eq!(code(c, &format!("SELECT length(repeat('{key}', 10000000))")), "53200");
            assert_eq!(code(c, &format!("SELECT '{key}'::int")), "22P02");
        }
        assert_eq!(one(c, "SELECT 1"), "1");
        assert!(!crashed(&server));
        // A PANIC stays a PANIC, and the patterns are in force afterwards.
        keys.push(key());
        drop(
            server
                .connect("postgres", "postgres")
                .query("SELECT raise_at(2, $1)", &[keys.last().unwrap()]),
        );
        server.poll_until("postgres", "SELECT 1", "1", 30);
        keys.push(key());
        code(
            &mut server.connect("postgres", "postgres"),
            &format!("SELECT '{}'::int", keys.last().unwrap()),
        );
        // Reloads while messages are written, then a postmaster without shared memory.
        for list in ["[]", PATTERN, "[\"other-[0-9]{9}\"]", PATTERN] {
            set(&server, list);
        }
        server.stop(Mode::Fast);
        let log = server.log();
        assert!(
            log.contains("last words *****") && log.contains("critical *****"),
            "the faults happen"
        );
        for key in &keys {
            assert!(!log.contains(&key[10..]), "{log}");
        }
        assert!(server.try_start().is_ok());
        server.stop(Mode::Fast);
    }
}
