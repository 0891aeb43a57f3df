//! Keys that arrive in bulk and must appear in no statement, log, statistics view or error: COPY
//! and INSERT into the inbox. A bad row is named by its line, never by its key. Columns in the
//! wrong order, a tenant's rows for another's project, all or nothing.

use std::io::Write;

use postgres::Client;
use postgres::error::DbError;
use uuid::Uuid;

use crate::keys::{Vault, code, decrypt, new_key, one, project, refusal, rows};
use crate::roles::login;
use crate::server::Server;

const COPY: &str =
    "COPY watchllm.provider_key_inbox (project_id, provider, name, api_key) FROM STDIN";

/// How many rows were stored.
fn copy(c: &mut Client, lines: &str) -> Result<u64, Box<DbError>> {
    let mut writer = c.copy_in(COPY).expect("beginning COPY");
    let sent = writer.write_all(lines.as_bytes()).map_err(|error| error.to_string());
    sent.expect("sending rows");
    writer
        .finish()
        .map_err(|error| Box::new(error.as_db_error().expect("a database error").clone()))
}

fn ids(c: &mut Client, project: &str) -> Vec<String> {
    rows(
        c,
        &format!(
            "SELECT id FROM watchllm.provider_keys WHERE project_id = '{project}' ORDER BY name"
        ),
    )
}

/// All fields of an error.
fn all_of(error: &DbError) -> String {
    let parts =
        [Some(error.message()), error.detail(), error.hint(), error.where_(), error.column()];
    parts.into_iter().flatten().collect::<Vec<_>>().join("\n")
}

#[test]
fn keys_come_in_bulk_and_open_again() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, keys) = (project(c), [new_key(), new_key()]);
    let lines = format!("{p}\topenai\ta\t{}\n{p}\tanthropic\t\\N\t{}\n", keys[0], keys[1]);
    assert_eq!(copy(c, &lines).unwrap(), 2);
    let stored = ids(c, &p);
    assert_eq!(stored.iter().map(|id| one(c, &decrypt(id))).collect::<Vec<_>>(), keys);
    let sealed = format!(
        "INSERT INTO watchllm.provider_key_inbox VALUES ('{p}', 'groq', 'b', 'gsk') RETURNING name, api_key"
    );
    assert_eq!(one(c, &sealed), "b|-");
    assert_eq!(one(c, "SELECT count(*) FROM watchllm.provider_key_inbox"), "0");
    assert_eq!(
        one(
            c,
            &format!(
                "SELECT count(*) FROM watchllm.access_logs WHERE project_id = '{p}' AND access_type = 'store'"
            )
        ),
        "3"
    );
}

#[test]
fn a_bad_row_is_named_by_its_line_and_nothing_of_the_batch_stays() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key, odd) = (project(c), new_key(), "unknown-shape-4711-of-a-key");
    let good = format!("{p}\topenai\tgood\t{key}\n");
    let bad = [
        (format!("{p}\tOpenAI\tx\t{odd}\n"), "22023"),
        (format!("{p}\topenai\t{key}\t{odd}\n"), "22023"),
        (format!("{p}\topenai\tgood\t{odd}\n"), "23505"),
        (format!("{}\topenai\tx\t{odd}\n", Uuid::new_v4()), "02000"),
        (format!("\\N\topenai\tx\t{odd}\n"), "22004"),
        (format!("{p}\topenai\tx\t\\N\n"), "22004"),
        (format!("{odd}\topenai\tx\t{p}\n"), "22P02"), // columns in the wrong order
        (format!("{key}\topenai\tx\t{p}\n"), "22P02"),
        (format!("{p}\topenai\t{odd}\n"), "22P04"), // a column too few
        (format!("{p}\topenai\tx\t{odd}\tmore\n"), "22P04"),
    ];
    for (line, expected) in bad {
        let error = copy(c, &format!("{good}{line}")).unwrap_err();
        let said = all_of(&error);
        assert_eq!(error.code().code(), expected, "{said}");
        assert!(said.contains("line 2"), "{said}");
        assert!(!said.contains(odd) && !said.contains(&key[8..20]), "{said}");
    }
    assert!(ids(c, &p).is_empty());
    let log = vault.server().log();
    assert!(!log.contains(odd) && !log.contains(&key[8..20]));
}

#[test]
fn a_tenant_fills_its_own_projects_alone() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (own, foreign, tenant) = (project(c), project(c), login(c, "watchllm_tenant"));
    one(c, &format!("SELECT watchllm.add_project_member('{own}', role_name => '{tenant}')"));
    let s = &mut vault.connect(&tenant);
    assert_eq!(copy(s, &format!("{own}\topenai\tmine\t{}\n", new_key())).unwrap(), 1);
    let (there, nowhere) = (
        copy(s, &format!("{foreign}\topenai\tx\tk\n")),
        copy(s, &format!("{}\topenai\tx\tk\n", Uuid::new_v4())),
    );
    assert_eq!(all_of(&there.unwrap_err()), all_of(&nowhere.unwrap_err()));
    for (role, expected) in [("watchllm_auditor", "42501"), ("", "42501")] {
        let s = &mut vault.connect(&login(c, role));
        assert_eq!(
            code(
                s,
                &format!(
                    "INSERT INTO watchllm.provider_key_inbox VALUES ('{own}', 'groq', 'b', 'gsk')"
                )
            ),
            expected
        );
    }
    for (statement, expected) in
        [("UPDATE {} SET name = 'x'", "55000"), ("DELETE FROM {}", "55000"), ("TABLE {}", "42501")]
    {
        assert_eq!(
            code(s, &statement.replace("{}", "watchllm.provider_key_inbox")),
            expected,
            "{statement}"
        );
    }
    let attach = "CREATE VIEW public.trap AS SELECT NULL::uuid AS project_id, ''::text AS provider, ''::text AS name, ''::text AS api_key;
        CREATE TRIGGER t INSTEAD OF INSERT ON public.trap FOR EACH ROW EXECUTE FUNCTION watchllm.store_from_inbox();
        INSERT INTO public.trap VALUES (NULL, 'p', 'n', 'k')";
    assert_eq!(refusal(c, attach).code().code(), "42501");
    assert_eq!(code(s, "SELECT watchllm.store_from_inbox()"), "42501");
}

#[test]
fn a_bulk_of_keys_leaves_no_trace_of_any() {
    let server = Server::with_vault_and(
        "shared_preload_libraries = 'watchllm_keys, pg_stat_statements, auto_explain'\nlog_statement = all
log_min_duration_statement = 0\nauto_explain.log_min_duration = 0\nauto_explain.log_nested_statements = on
auto_explain.log_verbose = on\nauto_explain.log_analyze = on\nlog_min_messages = debug1\nwatchllm_keys.max_active_keys = 0",
    );
    let c = &mut server.connect("postgres", "postgres");
    one(c, "CREATE EXTENSION pg_stat_statements");
    let (p, canary) = (project(c), format!("sk-proj-{}", Uuid::new_v4().simple()));
    let lines: String = (0..100).map(|i| format!("{p}\topenai\tkey {i}\t{canary}{i}\n")).collect();
    assert_eq!(copy(c, &lines).unwrap(), 100);
    assert!(copy(c, &format!("{p}\topenai\tkey 1\t{canary}\n")).is_err());
    let part = &canary[8..24];
    let seen = format!(
        "SELECT (SELECT count(*) FROM pg_stat_statements WHERE query LIKE '%{part}%'),
        (SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%{part}%' AND pid <> pg_backend_pid()),
        (SELECT count(*) FROM watchllm.provider_keys WHERE project_id = '{p}')"
    );
    assert_eq!(one(&mut server.connect("postgres", "postgres"), &seen), "0|0|100");
    let log = server.log();
    assert!(log.contains("COPY watchllm.provider_key_inbox"), "the control: statements are logged");
    assert!(
        !log.contains(&canary[8..]),
        "{}",
        log.lines().find(|line| line.contains(&canary[8..])).unwrap_or_default()
    );
}

/// Libraries add RETURNING to their inserts. It answers what was given, and never the key.
#[test]
fn an_insert_with_returning_works_and_shows_no_key() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, service) = (project(c), login(c, "watchllm_service"));
    let s = &mut vault.connect(&service);
    let insert = format!(
        "INSERT INTO watchllm.provider_key_inbox (project_id, provider, name, api_key)
         VALUES ('{p}', 'openai', 'returned', '{}') RETURNING",
        new_key()
    );
    assert_eq!(one(s, &format!("{insert} project_id, name")), format!("{p}|returned"));
    assert_eq!(code(s, &format!("{insert} api_key")), "42501");
    assert_eq!(code(s, "SELECT api_key FROM watchllm.provider_key_inbox"), "42501");
}
