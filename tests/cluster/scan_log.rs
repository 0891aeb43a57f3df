//! Keys in the server log: in each format, packed, rotated, in the file of a server without a
//! collector. Also files that hang, lead elsewhere, break off or are no log; a server that keeps no
//! log; a log of a hundred megabytes.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use postgres::Client;

use crate::commands::{command, run};
use crate::keys::{code, new_key, one, rows};
use crate::roles::login;
use crate::scans::{odd_key, peak_memory};
use crate::server::Server;

fn scan(since: &str) -> String {
    format!(
        "SELECT place, redacted, provider_key_id, occurrences, is_new FROM watchllm.scan_server_log('{since}')"
    )
}

/// A file of the server's user.
fn put(directory: &Path, name: &str, bytes: &[u8]) {
    let mut child = command("sh")
        .args(["-c", "cat > \"$0\""])
        .arg(directory.join(name))
        .stdin(Stdio::piped())
        .spawn()
        .expect("a shell");
    child.stdin.take().unwrap().write_all(bytes).expect("writing");
    assert!(child.wait().expect("cat").success());
}

/// A server whose collector writes all three formats into its directory `log`. What it would mask
/// stays in clear.
fn collecting(more: &str) -> Server {
    let conf = "logging_collector = on\nlog_destination = 'stderr,csvlog,jsonlog'\nlog_directory = 'log'\nlog_statement = all\nwatchllm_keys.redact_server_log = off";
    Server::with_vault_and(&format!("{conf}\n{more}"))
}

fn sorted(mut rows: Vec<String>) -> Vec<String> {
    rows.sort();
    rows
}

#[test]
fn a_key_of_ours_is_found_in_every_format_and_is_new_once() {
    let server = collecting("log_filename = 'server.log'");
    let c = &mut server.connect("postgres", "postgres");
    one(c, "SET log_statement = 'none'");
    let (key, id) = odd_key(c);
    one(c, "SET log_statement = 'all'");
    one(c, &format!("SELECT $t$\"quoted\" {key}$t$"));
    one(c, &format!("SELECT '{{\"k\":\"{}\"}}'", key.replace('/', "\\/")));
    let of =
        |name: &str, count: i32, new: &str| format!("log/{name}|...[REDACTED]|{id}|{count}|{new}");
    for new in ["t", "f"] {
        let found = sorted(rows(c, &scan("1 hour")));
        assert_eq!(
            found,
            [of("server.csv", 2, new), of("server.json", 2, new), of("server.log", 2, new)]
        );
    }
    // Rotated and packed, it is the same log, so nothing is new.
    let directory = server.data_dir().join("log");
    run(command("sh")
        .args(["-c", "cd \"$0\" && gzip -c server.csv > old.csv.gz && cp server.log server.log.1"])
        .arg(&directory));
    let found = sorted(rows(c, &scan("1 hour")));
    assert_eq!(found.len(), 5, "{found:?}");
    assert!(
        found.contains(&of("old.csv.gz", 2, "f")) && found.iter().all(|row| row.ends_with("|f")),
        "{found:?}"
    );
    let incidents = "SELECT severity, provider_key_id FROM watchllm.security_incidents";
    assert_eq!(rows(c, incidents), [format!("high|{id}")]);
    // Only files modified since then.
    run(command("touch").args(["-d", "2 days ago"]).arg(directory.join("server.log.1")));
    assert_eq!(rows(c, &scan("1 hour")).len(), 4);
    assert_eq!(rows(c, &scan("3 days")).len(), 5);
    let all = one(c, "SELECT string_agg(i::text, ' ') FROM watchllm.security_incidents i");
    assert!(!all.contains(&key[10..30]));
}

#[test]
fn files_that_hang_lead_elsewhere_or_break_off_do_not_stop_a_scan() {
    let server = collecting("log_filename = 'server.log'\nlog_statement = none");
    let c = &mut server.connect("postgres", "postgres");
    let (key, id) = odd_key(c);
    let (directory, foreign) = (server.data_dir().join("log"), new_key());
    run(command("mkfifo").arg(directory.join("a_pipe.log")));
    run(command("mkdir").arg(directory.join("b_directory.log")));
    let outside = server.data_dir().join("outside.txt");
    put(&server.data_dir(), "outside.txt", format!("{foreign}\n").as_bytes());
    run(command("ln").arg("-s").arg(&outside).arg(directory.join("c_link.log")));
    run(command("ln").args(["-s", "/dev/zero"]).arg(directory.join("d_zero.log")));
    put(&directory, "e_closed.log", key.as_bytes());
    run(command("chmod").arg("000").arg(directory.join("e_closed.log")));
    put(&directory, "f_empty.log", b"");
    put(&directory, "g_packed.zst", b"\x28\xb5\x2f\xfd and more");
    put(&directory, "h_bytes.log", &[b"\xff\xfe\0 ", key.as_bytes(), b" \xc3(\n"].concat());
    let noise: String = (0..20_000).map(|i| format!("{i} {:x}\n", i * 2_654_435_761_u64)).collect();
    put(&directory, "plain", format!("{key}\n{noise}").as_bytes());
    run(command("sh")
        .args(["-c", "cd \"$0\" && gzip -c plain | head -c 90000 > i_cut.gz && rm plain"])
        .arg(&directory));
    one(c, "SET statement_timeout = '60s'");
    let found = server
        .psql_result("postgres", &format!("SET statement_timeout = '60s'; {}", scan("1 hour")));
    let expected =
        ["h_bytes.log", "i_cut.gz"].map(|name| format!("log/{name}|...[REDACTED]|{id}|1|t"));
    assert_eq!(found.stdout.lines().collect::<Vec<_>>(), expected, "{}", found.stderr);
    for said in [
        "e_closed.log is not scanned",
        "g_packed.zst is not scanned",
        "i_cut.gz is scanned only in part",
    ] {
        assert!(found.stderr.contains(said), "{said}: {}", found.stderr);
    }
    assert!(!found.stderr.contains(&key[10..30]));
}

#[test]
fn a_server_without_a_collector_says_what_it_scans() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let (key, id) = odd_key(c);
    one(c, "SET log_statement = 'all'");
    one(c, &format!("SELECT '{key}'"));
    let found = server.psql_result("postgres", &scan("1 hour"));
    assert!(
        found.stdout.ends_with(&format!("log|...[REDACTED]|{id}|1|t")),
        "{}\n{}",
        found.stdout,
        found.stderr
    );
    assert!(found.stderr.contains("logging_collector is off"), "{}", found.stderr);
    // Standard error goes to something that cannot be read.
    server.stop(crate::server::Mode::Fast);
    let start = "exec \"$0\" -D \"$1\" 2>&1 | cat > /dev/null";
    let mut child = server.client("postgres");
    let executable = child.get_program().to_owned();
    drop(std::mem::replace(&mut child, command("sh")));
    child.args(["-c", start]).arg(executable).arg(server.data_dir());
    let mut running = child.stdin(Stdio::null()).spawn().expect("postgres");
    server.poll_until("postgres", "SELECT 1", "1", 60);
    let found = server.psql_result("postgres", &scan("1 hour"));
    assert_eq!(found.stdout, "");
    assert!(
        found.stderr.contains("there is no log to scan")
            && found.stderr.contains("scan_table_for_leaks"),
        "{}",
        found.stderr
    );
    run(server
        .client("pg_ctl")
        .args(["-s", "-w", "stop", "-m", "fast", "-D"])
        .arg(server.data_dir()));
    running.wait().expect("the shell");
}

#[test]
fn a_large_log_is_scanned_in_little_memory() {
    let server = collecting("log_filename = 'server.log'\nlog_statement = none");
    let c = &mut server.connect("postgres", "postgres");
    let (key, id) = odd_key(c);
    let directory = server.data_dir().join("log");
    let line = |i: u32| {
        format!(
            "2026-01-01 00:00:00.{i} UTC [{}] LOG:  duration: 0.{i} ms  statement: SELECT * FROM items WHERE id = {i} AND path = '/v1/items/{i}'\n",
            i % 977
        )
    };
    let part: String = (0..80_000).map(line).collect();
    let file = directory.join("large.log");
    put(&directory, "large.log", part.as_bytes());
    run(command("sh").args(["-c", "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13; do cat \"$0\"; done > \"$0.all\" && rm \"$0\" && mv \"$0.all\" \"$0\""]).arg(&file));
    run(command("sh").args(["-c", "printf 'LOG: %s\\n' \"$1\" >> \"$0\""]).arg(&file).arg(&key));
    // One line without an end, as long as a table.
    run(command("sh")
        .args([
            "-c",
            "head -c 30000000 /dev/zero | tr '\\0' x > \"$0\"; printf '%s' \",$1\" >> \"$0\"",
        ])
        .arg(directory.join("line.log"))
        .arg(&key));
    let size = fs::metadata(&file).map_or(0, |found| found.len()) >> 20;
    assert!(size > 120, "{size}");
    rows(c, &scan("0 seconds"));
    let before = peak_memory(c);
    let found = rows(c, &scan("1 hour"));
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found.iter().all(|row| row.contains(&id) && row.ends_with("|1|t")), "{found:?}");
    let after = peak_memory(c);
    assert!(after < before + 30, "{before} MB before, {after} after {size} MB of log");
    assert_eq!(code(c, &format!("SET statement_timeout = '100ms'; {}", scan("1 hour"))), "57014");
}

#[test]
fn only_an_administrator_scans_the_log_and_reads_none_of_it() {
    let server = collecting("log_filename = 'server.log'");
    let c = &mut server.connect("postgres", "postgres");
    let (key, admin) = (new_key(), login(c, "watchllm_admin"));
    one(c, &format!("SELECT '{key}'"));
    let s: &mut Client = &mut server.connect("postgres", &admin);
    let found = rows(s, &scan("1 hour"));
    assert!(
        found.len() == 3 && found.iter().all(|row| row.contains("|sk-proj-...[REDACTED]|-|1|t")),
        "{found:?}"
    );
    for role in ["watchllm_auditor", "watchllm_service", "watchllm_tenant", "pg_read_server_files"]
    {
        let caller = login(c, role);
        assert_eq!(
            code(&mut server.connect("postgres", &caller), &scan("1 hour")),
            "42501",
            "{role}"
        );
    }
    for (bad, expected) in [("-1 day", "22023"), ("infinity", "22007")] {
        assert_eq!(code(s, &scan(bad)), expected, "{bad}");
    }
    assert_eq!(code(s, "SELECT watchllm.scan_server_log(NULL)"), "22004");
}
