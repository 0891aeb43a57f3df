//! A request of PostgREST as the server sees it, without PostgREST: one transaction of the authenticator that takes a
//! role and carries claims and headers in its settings. For tests of what such a request may do; the same through a
//! real PostgREST is in `postgrest`.

use postgres::{Client, error::DbError};

use crate::keys::{one, refusal, try_rows};
use crate::server::Server;

/// Who PostgREST logs in as: nobody, until it takes the role that a token names.
pub const AUTHENTICATOR: &str = "authenticator";

/// Supabase's roles and default privileges in a database; then `install()`, which knows them by name, when there is one.
pub fn supabase(server: &Server, database: &str) {
    server.psql(database, include_str!("../postgrest/supabase.sql"));
    if server.psql(database, "SELECT count(*) FROM pg_extension WHERE extname = 'watchllm_keys'") == "1" {
        server.psql(database, "SELECT watchllm.install()");
    }
}

/// A started server with Supabase's roles and a vault, in the order of a real set-up: the roles are there first.
pub fn supabase_vault(conf: &str) -> Server {
    let server = Server::init();
    server.preload_vault();
    server.conf(conf);
    server.start();
    supabase(&server, "postgres");
    server.psql("postgres", "CREATE EXTENSION watchllm_keys; SELECT watchllm.install();");
    server
}

/// The claims of a token, as PostgREST hands them on: JSON with a role and, for people, a sub.
pub fn claims(role: &str, sub: &str) -> String {
    if sub.is_empty() { format!(r#"{{"role":"{role}"}}"#) } else { format!(r#"{{"role":"{role}","sub":"{sub}"}}"#) }
}

/// Runs `sql` as PostgREST 12 would for a request of `role` with these claims and headers (both JSON): begin, the mode
/// ("read write" for a POST of a volatile function, "read only" for a GET), the transaction's settings, the call,
/// commit. `client` is a session of the authenticator, or of whom a test wants to see refused. An error, also one of
/// the commit, ends the transaction and comes back; rows are as `keys::rows` gives them.
pub fn as_api(
    client: &mut Client,
    role: &str,
    claims: &str,
    headers: &str,
    mode: &str,
    sql: &str,
) -> Result<Vec<String>, Box<DbError>> {
    one(client, &format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET TRANSACTION {}", mode.to_uppercase()));
    let answer = settings(client, role, claims, headers)
        .and_then(|()| try_rows(client, sql))
        .and_then(|rows| try_rows(client, "COMMIT").map(|_| rows));
    // a failed COMMIT has ended it already: then this is a warning
    one(client, "ROLLBACK");
    answer
}

/// Each for this transaction only. As literals, where PostgREST binds parameters: so they pass a pooler too.
fn settings(client: &mut Client, role: &str, claims: &str, headers: &str) -> Result<(), Box<DbError>> {
    let wanted = [
        ("search_path", r#""watchllm", "public""#),
        ("role", role),
        ("request.jwt.claims", claims),
        ("request.method", "POST"),
        ("request.path", "/rpc/call"),
        ("request.headers", headers),
        ("request.cookies", "{}"),
    ];
    let call = |(name, value): (&str, &str)| format!("set_config('{name}', '{}', true)", value.replace('\'', "''"));
    try_rows(client, &format!("SELECT {}", wanted.map(call).join(", "))).map(drop)
}

#[test]
fn a_request_leaves_nothing_behind_in_its_session() {
    let server = Server::init();
    server.start();
    supabase(&server, "postgres");
    let s = &mut server.connect("postgres", AUTHENTICATOR);
    let seen = "SELECT current_user, session_user, current_setting('request.jwt.claims', true),
        current_setting('request.headers', true), current_setting('transaction_read_only')";
    let asked =
        as_api(s, "authenticated", &claims("authenticated", "it's me"), r#"{"x-request-id":"r"}"#, "read only", seen);
    let expected = r#"authenticated|authenticator|{"role":"authenticated","sub":"it's me"}|{"x-request-id":"r"}|on"#;
    assert_eq!(asked.unwrap(), [expected]);
    assert_eq!(one(s, seen), "authenticator|authenticator|||off");
    let failed = as_api(s, "anon", &claims("anon", ""), "{}", "read write", "SELECT 1 / 0");
    assert_eq!(failed.unwrap_err().code().code(), "22012");
    assert_eq!(one(s, seen), "authenticator|authenticator|||off");
    // a role that the authenticator was not granted
    let refused = as_api(s, "postgres", &claims("postgres", ""), "{}", "read write", "SELECT 1");
    assert_eq!(refused.unwrap_err().code().code(), "42501");
    assert_eq!(refusal(s, "SET ROLE postgres").code().code(), "42501");
}
