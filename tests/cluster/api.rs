//! A request of PostgREST as the server sees it, without PostgREST. It is one transaction of the
//! authenticator, which takes a role and sets claims and headers. The tests try what such a request
//! may do; `postgrest` tests the same through a real PostgREST.

use postgres::{Client, error::DbError};

use crate::keys::{code, new_key, one, project, refusal, rows, store, try_rows};
use crate::server::Server;

/// The role that PostgREST logs in as. It has no rights until it takes the role that a token names.
pub(crate) const AUTHENTICATOR: &str = "authenticator";

/// Creates Supabase's roles and default privileges in a database. If the vault is there, runs
/// `install()`, which knows the roles by name.
pub(crate) fn supabase(server: &Server, database: &str) {
    server.psql(database, include_str!("../postgrest/supabase.sql"));
    if server.psql(database, "SELECT count(*) FROM pg_extension WHERE extname = 'watchllm_keys'")
        == "1"
    {
        server.psql(database, "SELECT watchllm.install()");
    }
}

/// A started server with Supabase's roles and a vault, created in the order of a real set-up: roles
/// first.
pub(crate) fn supabase_vault(conf: &str) -> Server {
    let server = Server::init();
    server.preload_vault();
    server.conf(conf);
    server.start();
    supabase(&server, "postgres");
    server.psql("postgres", "CREATE EXTENSION watchllm_keys; SELECT watchllm.install();");
    server
}

/// The claims of a token, as PostgREST passes them: JSON with a role and, for people, a sub.
pub(crate) fn claims(role: &str, sub: &str) -> String {
    if sub.is_empty() {
        format!(r#"{{"role":"{role}"}}"#)
    } else {
        format!(r#"{{"role":"{role}","sub":"{sub}"}}"#)
    }
}

/// Runs `sql` as PostgREST 12 does for a request of `role` with these claims and headers (both
/// JSON). The steps are: begin, the mode, the transaction's settings, the call, commit. The mode is
/// "read write" for a POST of a volatile function, "read only" for a GET. `client` is a session of
/// the authenticator, or of another role that must be refused. An error ends the transaction and is
/// returned, also an error of the commit. Rows are as `keys::rows` gives them.
pub(crate) fn as_api(
    client: &mut Client,
    role: &str,
    claims: &str,
    headers: &str,
    mode: &str,
    sql: &str,
) -> Result<Vec<String>, Box<DbError>> {
    one(
        client,
        &format!("BEGIN ISOLATION LEVEL READ COMMITTED; SET TRANSACTION {}", mode.to_uppercase()),
    );
    let answer = settings(client, role, claims, headers)
        .and_then(|()| try_rows(client, sql))
        .and_then(|rows| try_rows(client, "COMMIT").map(|_| rows));
    // a failed COMMIT has already ended it: then this is a warning
    one(client, "ROLLBACK");
    answer
}

/// Sets each for this transaction only. They are literals, while PostgREST binds parameters; so
/// they pass a pooler too.
fn settings(
    client: &mut Client,
    role: &str,
    claims: &str,
    headers: &str,
) -> Result<(), Box<DbError>> {
    let wanted = [
        ("search_path", r#""watchllm", "public""#),
        ("role", role),
        ("request.jwt.claims", claims),
        ("request.method", "POST"),
        ("request.path", "/rpc/call"),
        ("request.headers", headers),
        ("request.cookies", "{}"),
    ];
    let call = |(name, value): (&str, &str)| {
        format!("set_config('{name}', '{}', true)", value.replace('\'', "''"))
    };
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
    let asked = as_api(
        s,
        "authenticated",
        &claims("authenticated", "it's me"),
        r#"{"x-request-id":"r"}"#,
        "read only",
        seen,
    );
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

/// What requests can reach of this key: the tenant's list of keys and its decrypt, the backend's
/// decrypt, nobody's list. Each is a number of rows or a SQLSTATE.
fn reach(server: &Server, sub: &str, key: &str) -> [String; 4] {
    let s = &mut server.connect("postgres", AUTHENTICATOR);
    let mut asked = |role: &str, sub: &str, sql: &str| {
        let answer = as_api(s, role, &claims(role, sub), "{}", "read write", sql);
        answer.map_or_else(|error| error.code().code().to_owned(), |rows| rows.len().to_string())
    };
    let (list, open) = (
        "SELECT id FROM watchllm.provider_keys",
        &format!("SELECT watchllm.decrypt_provider_key('{key}')"),
    );
    [
        asked("authenticated", sub, list),
        asked("authenticated", sub, open),
        asked("service_role", "", open),
        asked("anon", "", list),
    ]
}

#[test]
fn roles_that_come_after_the_vault_are_recognised_by_the_next_install() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let project = one(c, "SELECT watchllm.create_project('a project', 'a-sub')");
    let key = store(c, &project, "openai", &new_key());
    server.psql("postgres", include_str!("../postgrest/supabase.sql"));
    assert_eq!(reach(&server, "a-sub", &key), ["42501"; 4], "nobody is anything before install()");
    server.psql("postgres", "SELECT watchllm.install()");
    assert_eq!(reach(&server, "a-sub", &key), ["1", "42501", "1", "42501"]);
}

/// Supabase's guide to one's own schemas grants too much for a vault. The next install() takes it
/// back.
#[test]
fn what_the_guide_to_custom_schemas_grants_is_taken_back() {
    const GUIDE: &str = "
        GRANT USAGE ON SCHEMA watchllm TO anon, authenticated, service_role;
        GRANT ALL ON ALL TABLES IN SCHEMA watchllm TO anon, authenticated, service_role;
        GRANT ALL ON ALL ROUTINES IN SCHEMA watchllm TO anon, authenticated, service_role;
        GRANT ALL ON ALL SEQUENCES IN SCHEMA watchllm TO anon, authenticated, service_role;
        ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA watchllm
            GRANT ALL ON TABLES TO anon, authenticated, service_role;
        ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA watchllm
            GRANT ALL ON ROUTINES TO anon, authenticated, service_role;";
    const REACHED: &str = "
        SELECT relname || ' ' || role FROM pg_class, unnest(ARRAY['anon', 'authenticated', 'service_role']) role
        WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p', 'v')
          AND (has_table_privilege(role, pg_class.oid, 'UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
            OR has_table_privilege(role, pg_class.oid, 'INSERT') AND (relname <> 'provider_key_inbox' OR role = 'anon')
            OR role = 'anon' AND has_any_column_privilege(role, pg_class.oid, 'SELECT')
            OR relname IN ('provider_key_versions', 'master_keys', 'audit_keys')
                AND has_any_column_privilege(role, pg_class.oid, 'SELECT'))
        UNION ALL
        SELECT oid::regprocedure::text FROM pg_proc
        WHERE pronamespace = 'watchllm'::regnamespace AND proname !~ '^redact' AND has_function_privilege('anon', oid, 'EXECUTE')
        UNION ALL SELECT 'the schema' WHERE has_schema_privilege('anon', 'watchllm', 'USAGE')";
    let server = supabase_vault("");
    let c = &mut server.connect("postgres", "postgres");
    let key = {
        let project = project(c);
        store(c, &project, "openai", &new_key())
    };
    assert!(rows(c, REACHED).is_empty());
    one(c, GUIDE);
    assert!(rows(c, REACHED).len() > 20, "the guide grants nothing: the test tests nothing");
    assert_eq!(code(c, "SELECT watchllm.install()"), "00000");
    assert_eq!(rows(c, REACHED), Vec::<String>::new());
    assert_eq!(reach(&server, "a-sub", &key), ["0", "42501", "1", "42501"]);
}
