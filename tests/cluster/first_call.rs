//! Possible faults of what one process found for all others: a new connection trusts it after the
//! tables, the roles or the schema have changed, or before a change is committed. Or it is asked
//! anew by every connection, which costs each of them 15 ms.

use crate::keys::{code, decrypt, one, project, store};
use crate::server::Server;

const CONF: &str = "max_prepared_transactions = 2
shared_preload_libraries = 'pg_stat_statements, watchllm_keys'
pg_stat_statements.track = all";

const TRIGGER: &str = "CREATE TRIGGER spy BEFORE INSERT ON watchllm.provider_key_usage
    FOR EACH ROW EXECUTE FUNCTION public.spy()";
const NO_TRIGGER: &str = "DROP TRIGGER spy ON watchllm.provider_key_usage";

/// A server whose vault was found sound by an earlier connection, and a key of it.
fn found_sound() -> (Server, String) {
    let server = Server::with_vault_and(CONF);
    let c = &mut server.connect("postgres", "postgres");
    let id = {
        let p = project(c);
        store(c, &p, "openai", "sk-first-call-of-a-connection")
    };
    one(
        c,
        "CREATE FUNCTION public.spy() RETURNS trigger LANGUAGE plpgsql
         AS $$ BEGIN RETURN NEW; END $$",
    );
    assert_eq!(anew(&server, &id), "00000");
    (server, id)
}

/// How the first call of a new connection ends.
fn anew(server: &Server, id: &str) -> String {
    code(&mut server.connect("postgres", "postgres"), &decrypt(id))
}

#[test]
fn a_new_connection_sees_what_changed_after_another_found_the_vault_sound() {
    let (server, id) = found_sound();
    let c = &mut server.connect("postgres", "postgres");
    one(c, "CREATE ROLE stranger");
    let trail = "watchllm.provider_key_access_logs";
    for (change, back) in [
        (TRIGGER.to_owned(), NO_TRIGGER.to_owned()),
        (
            "CREATE RULE spy AS ON INSERT TO watchllm.provider_key_usage DO INSTEAD NOTHING".into(),
            "DROP RULE spy ON watchllm.provider_key_usage".into(),
        ),
        (
            format!("ALTER TABLE {trail} DISABLE TRIGGER refuse_change"),
            format!("ALTER TABLE {trail} ENABLE ALWAYS TRIGGER refuse_change"),
        ),
        (
            "ALTER TABLE watchllm.projects DISABLE ROW LEVEL SECURITY".into(),
            "ALTER TABLE watchllm.projects ENABLE ROW LEVEL SECURITY".into(),
        ),
        (
            "ALTER TABLE watchllm.master_keys OWNER TO postgres".into(),
            "ALTER TABLE watchllm.master_keys OWNER TO watchllm_owner".into(),
        ),
        ("GRANT watchllm_owner TO stranger".into(), "REVOKE watchllm_owner FROM stranger".into()),
        ("ALTER SCHEMA watchllm RENAME TO w".into(), "ALTER SCHEMA w RENAME TO watchllm".into()),
        (
            "ALTER ROLE watchllm_owner SUPERUSER".into(),
            "ALTER ROLE watchllm_owner NOSUPERUSER".into(),
        ),
    ] {
        one(c, &change);
        assert_ne!(anew(&server, &id), "00000", "{change}");
        one(c, &back);
        assert_eq!(anew(&server, &id), "00000", "{back}");
        assert_eq!(code(c, &decrypt(&id)), "00000", "{back}");
    }
}

/// The session that changes the tables sees its change, and others do not until it commits.
#[test]
fn a_change_counts_for_others_when_it_commits_and_for_oneself_at_once() {
    let (server, id) = found_sound();
    let c = &mut server.connect("postgres", "postgres");
    one(c, "BEGIN");
    one(c, TRIGGER);
    assert_eq!(anew(&server, &id), "00000", "the change is not committed");
    assert_eq!(code(c, &decrypt(&id)), "42501");
    one(c, "ROLLBACK");
    assert_eq!(code(c, &decrypt(&id)), "00000", "rolled back");
    one(c, "BEGIN");
    one(c, TRIGGER);
    one(c, "SAVEPOINT s");
    one(c, NO_TRIGGER);
    assert_eq!(code(c, &decrypt(&id)), "00000", "sound again, for this transaction");
    one(c, "ROLLBACK TO s");
    assert_eq!(anew(&server, &id), "00000", "still not committed");
    one(c, "COMMIT");
    assert_eq!(anew(&server, &id), "42501", "committed");
    one(c, NO_TRIGGER);
    assert_eq!(anew(&server, &id), "00000");
}

/// COMMIT PREPARED runs in a process that never saw the change.
#[test]
fn a_prepared_change_counts_when_it_commits() {
    let (server, id) = found_sound();
    let c = &mut server.connect("postgres", "postgres");
    one(c, "BEGIN");
    one(c, TRIGGER);
    one(c, "PREPARE TRANSACTION 'spy'");
    drop(server.connect("postgres", "postgres"));
    one(c, "COMMIT PREPARED 'spy'");
    assert_eq!(anew(&server, &id), "42501");
    one(c, NO_TRIGGER);
    assert_eq!(anew(&server, &id), "00000");
}

/// Roles belong to the cluster: a membership may be prepared in another database.
#[test]
fn a_membership_prepared_in_another_database_counts_when_it_commits() {
    let (server, id) = found_sound();
    one(&mut server.connect("postgres", "postgres"), "CREATE ROLE stranger");
    let c = &mut server.connect("template1", "postgres");
    one(c, "BEGIN");
    one(c, "GRANT watchllm_owner TO stranger");
    one(c, "PREPARE TRANSACTION 'member'");
    assert_eq!(anew(&server, &id), "00000", "it is not committed");
    one(c, "COMMIT PREPARED 'member'");
    assert_ne!(anew(&server, &id), "00000");
}

/// Nobody has called in this database yet, so nobody knows which tables are ours.
#[test]
fn a_change_prepared_before_the_first_call_counts_when_it_commits() {
    let server = Server::with_vault_and(CONF);
    let c = &mut server.connect("postgres", "postgres");
    let id = {
        let p = project(c);
        store(c, &p, "openai", "sk-first-call-of-a-connection")
    };
    one(
        c,
        "CREATE FUNCTION public.spy() RETURNS trigger LANGUAGE plpgsql
            AS $$ BEGIN RETURN NEW; END $$",
    );
    server.restart();
    let c = &mut server.connect("postgres", "postgres");
    one(c, "BEGIN");
    one(c, TRIGGER);
    one(c, "PREPARE TRANSACTION 'spy'");
    assert_eq!(anew(&server, &id), "00000", "it is not committed");
    one(c, "COMMIT PREPARED 'spy'");
    assert_eq!(anew(&server, &id), "42501");
}

#[test]
fn connections_do_not_ask_again_what_one_has_found() {
    let (server, id) = found_sound();
    let c = &mut server.connect("postgres", "postgres");
    one(c, "CREATE EXTENSION pg_stat_statements");
    let asked = "SELECT coalesce(sum(calls), 0) FROM pg_stat_statements
                 WHERE query LIKE '%foreign_trigger%' AND query LIKE '%holder%'";
    assert_eq!(anew(&server, &id), "00000");
    let before = one(c, asked);
    assert_ne!(before, "0", "the statement that asks is not seen");
    for number in 0..5 {
        one(c, &format!("CREATE TABLE public.another_{number} (i int)"));
        let new = &mut server.connect("postgres", "postgres");
        one(new, "CREATE TEMPORARY TABLE t (i int)");
        assert_eq!(code(new, &decrypt(&id)), "00000");
    }
    assert_eq!(one(c, asked), before);
    one(c, TRIGGER);
    one(c, NO_TRIGGER);
    assert_eq!(anew(&server, &id), "00000");
    assert_ne!(one(c, asked), before, "a change of ours is asked about again");
}
