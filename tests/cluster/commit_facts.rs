//! Facts, not intent: what opens more than before acts when its transaction has committed. The
//! COMMIT of an unblocking fails (write skew under SERIALIZABLE), is rolled back, or its writer
//! dies before it; a block comes between; and none of them lets anybody in.

use std::time::Duration;

use postgres::Client;

use crate::keys::{code, decrypt, new_key, one, project, store};
use crate::server::Server;

/// Runs `sql` in a transaction whose COMMIT fails: two transactions read what the other writes, and
/// the other commits first. Answers the SQLSTATE of the COMMIT.
fn commit_fails(server: &Server, sql: &str) -> String {
    let (a, b) =
        (&mut server.connect("postgres", "postgres"), &mut server.connect("postgres", "postgres"));
    one(a, "CREATE TABLE IF NOT EXISTS skew (x int, v int)");
    for (c, reads, writes) in [(&mut *a, 1, 2), (&mut *b, 2, 1)] {
        one(
            c,
            &format!(
                "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT sum(v) FROM skew WHERE x = {reads};
                 INSERT INTO skew VALUES ({writes}, 1)"
            ),
        );
    }
    one(a, sql);
    one(b, "COMMIT");
    code(a, "COMMIT")
}

fn blocked(c: &mut Client, id: &str) -> String {
    one(
        c,
        &format!(
            "SELECT blocked_at IS NOT NULL FROM watchllm.provider_key_usage
             WHERE provider_key_id = '{id}'"
        ),
    )
}

/// A blocked key, and that this is written.
fn blocked_key(server: &Server, c: &mut Client) -> String {
    let p = project(c);
    let id = store(c, &p, "openai", &new_key());
    one(c, &format!("SELECT watchllm.block_provider_key('{id}')"));
    let written = format!(
        "SELECT count(blocked_at) FROM watchllm.provider_key_usage WHERE provider_key_id = '{id}'"
    );
    server.poll_until("postgres", &written, "1", 10);
    id
}

/// The writer writes blocks within 100 ms; this is ten times as long.
fn a_moment() {
    std::thread::sleep(Duration::from_millis(1500));
}

#[test]
fn an_unblock_whose_commit_fails_opens_nothing() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let id = blocked_key(&server, c);
    let unblock = format!("SELECT watchllm.unblock_provider_key('{id}', 'a mistake')");
    assert_eq!(commit_fails(&server, &unblock), "40001");
    for _ in 0..3 {
        assert_eq!(code(c, &decrypt(&id)), "42000");
        a_moment();
        assert_eq!(blocked(c, &id), "t");
    }
    // nor is it open for the writer alone: the table says unblocked, and it still refuses
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_usage SET blocked_at = NULL WHERE provider_key_id = '{id}'"
        ),
    );
    assert_eq!(code(c, &decrypt(&id)), "42000");
    let history = format!(
        "SELECT committed FROM watchllm.access_logs WHERE provider_key_id = '{id}' AND access_type = 'unblock'"
    );
    assert_eq!(one(c, &history), "f");
    // the control: one that commits
    one(c, &unblock);
    a_moment();
    assert_eq!((code(c, &decrypt(&id)), blocked(c, &id)), ("00000".into(), "f".into()));
}

#[test]
fn a_caller_is_let_in_after_the_commit_only() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    one(
        c,
        "INSERT INTO watchllm.blocked_callers (kind, subject, blocked_at) VALUES ('role', 'thief', now())",
    );
    let unblock = "SELECT watchllm.unblock_caller('role', 'thief')";
    let there = "SELECT count(*) FROM watchllm.blocked_callers";
    assert_eq!(commit_fails(&server, unblock), "40001");
    a_moment();
    assert_eq!(one(c, there), "1");
    one(c, &format!("BEGIN; {unblock}; ROLLBACK"));
    a_moment();
    assert_eq!(one(c, there), "1");
    one(c, unblock);
    server.poll_until("postgres", there, "0", 10);
}

#[test]
fn a_block_that_comes_while_an_unblock_waits_stays() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let id = blocked_key(&server, c);
    one(c, &format!("BEGIN; SELECT watchllm.unblock_provider_key('{id}'); ROLLBACK"));
    a_moment();
    assert_eq!(code(c, &decrypt(&id)), "42000");
    // a writer that dies between the record and the commit, or after a commit that failed
    assert_eq!(
        commit_fails(&server, &format!("SELECT watchllm.unblock_provider_key('{id}')")),
        "40001"
    );
    server.kill_backend(server.writer_pid("postgres").unwrap(), "TERM");
    a_moment();
    assert_eq!((code(c, &decrypt(&id)), blocked(c, &id)), ("42000".into(), "t".into()));
    one(
        c,
        &format!(
            "SELECT watchllm.unblock_provider_key('{id}'); SELECT watchllm.block_provider_key('{id}')"
        ),
    );
    a_moment();
    assert_eq!((code(c, &decrypt(&id)), blocked(c, &id)), ("42000".into(), "t".into()));
}

#[test]
fn nothing_else_opens_before_its_commit() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let (p, key) = (project(c), new_key());
    let id = store(c, &p, "openai", &key);
    one(c, &format!("SELECT watchllm.set_provider_key_active('{id}', false)"));
    let on = format!("SELECT watchllm.set_provider_key_active('{id}', true)");
    assert_eq!(commit_fails(&server, &on), "40001");
    assert_eq!(code(c, &decrypt(&id)), "42000");
    one(c, &on);
    // a member, a higher limit, a key that is no longer marked
    one(c, "CREATE ROLE later LOGIN IN ROLE watchllm_tenant");
    let member = format!("SELECT watchllm.add_project_member('{p}', role_name => 'later')");
    assert_eq!(commit_fails(&server, &member), "40001");
    let s = &mut server.connect("postgres", "later");
    assert_eq!(one(s, "SELECT count(*) FROM watchllm.provider_keys"), "0");
    let limit = "SELECT watchllm.set_setting('accesses_per_minute', '7')";
    if code(c, "SELECT watchllm.effective_setting('accesses_per_minute')") == "00000" {
        assert_eq!(commit_fails(&server, limit), "40001");
        assert_ne!(one(c, "SELECT watchllm.effective_setting('accesses_per_minute')"), "7");
    }
    one(c, &format!("SELECT watchllm.report_leaked_key('{key}', 'a scanner')"));
    let rotate = format!("SELECT watchllm.rotate_provider_key('{id}', '{}')", new_key());
    assert_eq!(commit_fails(&server, &rotate), "40001");
    let marked = format!(
        "SELECT compromised_at IS NOT NULL FROM watchllm.provider_key_records WHERE id = '{id}'"
    );
    assert_eq!((one(c, &marked), one(c, &decrypt(&id))), ("t".into(), key));
}
