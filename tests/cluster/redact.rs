//! redact() in SQL: on a server that preloads nothing, in a generated column that strangers write
//! to, cancelled on a hostile text, with patterns that would hide everything. Tests in
//! core/src/redact show what it finds.

use crate::server::Server;

/// Fake keys, made when the tests run.
fn key(prefix: &str, length: usize) -> String {
    let letters = b"aZ3kQ9xT7mB1vN5cR8wL2yH6pD4sG0jF";
    prefix
        .chars()
        .chain(letters.iter().cycle().take(length).map(|byte| char::from(*byte)))
        .collect()
}

/// Nothing preloaded, no keyring, no install().
fn plain_server() -> Server {
    let server = Server::init();
    server.start();
    server.psql("postgres", "CREATE EXTENSION watchllm_keys");
    server
}

#[test]
fn a_generated_column_masks_what_strangers_write() {
    let server = plain_server();
    server.psql(
        "postgres",
        "CREATE TABLE logs (raw text, line text GENERATED ALWAYS AS (watchllm.redact(raw)) STORED,
             doc jsonb, clean jsonb GENERATED ALWAYS AS (watchllm.redact(doc)) STORED);
         CREATE INDEX ON logs (watchllm.redact(raw));
         CREATE ROLE stranger; GRANT INSERT, SELECT ON logs TO stranger;",
    );
    let (project, mistral) = (key("sk-proj-", 60), key("", 32));
    let insert = format!(
        "SET ROLE stranger; INSERT INTO logs (raw, doc) VALUES ('key {project}, ok',
             '{{\"n\": 12345678901234567890.123456789012345, \"mistral\": {{\"key\": \"{mistral}\"}}, \"a\\nb\": [null, true]}}')"
    );
    server.psql("postgres", &insert);
    assert_eq!(server.psql("postgres", "SELECT line FROM logs"), "key sk-proj-...[REDACTED], ok");
    assert_eq!(
        server.psql("postgres", "SELECT clean FROM logs"),
        r#"{"n": 12345678901234567890.123456789012345, "a\nb": [null, true], "mistral": {"key": "...[REDACTED]"}}"#
    );
}

#[test]
fn null_stays_null_and_the_planner_is_told() {
    let server = plain_server();
    assert_eq!(
        server.psql(
            "postgres",
            "SELECT watchllm.redact(NULL::text) IS NULL, watchllm.redact(NULL::jsonb) IS NULL"
        ),
        "t|t"
    );
    let flags = "SELECT string_agg(DISTINCT concat(provolatile, proisstrict, proparallel), ' ') FROM pg_proc
        WHERE pronamespace = 'watchllm'::regnamespace AND proname = 'redact'";
    assert_eq!(server.psql("postgres", flags), "its");
}

#[test]
fn patterns_are_added_and_those_that_hide_everything_refused() {
    let server = plain_server();
    let with = |text: &str, patterns: &str| {
        server.psql_result(
            "postgres",
            &format!("SELECT watchllm.redact('{text}', ARRAY[{patterns}]::text[])"),
        )
    };
    let text = format!("acme-12345 and {}", key("gsk_", 52));
    assert_eq!(with(&text, "'acme-[0-9]+'").stdout.trim(), "...[REDACTED] and gsk_...[REDACTED]");
    assert_eq!(with(&text, "").stdout.trim(), "acme-12345 and gsk_...[REDACTED]");
    for (pattern, sqlstate) in [
        ("'.*'", "22023"),
        ("''", "22023"),
        ("'acme-('", "22023"),
        ("'REDACTED'", "22023"),
        ("NULL", "22004"),
    ] {
        let refused = with(&text, pattern);
        assert!(
            refused.stderr.contains(sqlstate) && refused.stderr.contains("HINT"),
            "{pattern}: {}",
            refused.stderr
        );
        let said = refused
            .stderr
            .lines()
            .filter(|line| !line.starts_with("LINE") && !line.contains("STATEMENT"));
        assert!(!said.collect::<String>().contains("acme-12345"), "{}", refused.stderr);
    }
}

#[test]
fn a_query_over_a_huge_text_can_be_cancelled() {
    let server = plain_server();
    // 200 MB of the most expensive text, and a pattern that makes it worse.
    let slow = "SET statement_timeout = '300ms'; SELECT length(watchllm.redact(repeat('sk-ant-', 30000000), ARRAY['ant-{1,200}x']))";
    let cancelled = server.psql_result("postgres", slow);
    assert!(cancelled.stderr.contains("57014"), "{}", cancelled.stderr);
    assert_eq!(server.psql("postgres", "SELECT watchllm.redact('fine')"), "fine");
}
