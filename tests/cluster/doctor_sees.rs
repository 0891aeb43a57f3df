//! What the doctor must see although everything looks whole: master keys of another backup, a trail
//! that lost its beginning, rights that a sweep took. Also findings that somebody accepts until a
//! date, and what `install()` says and gives back.

use crate::keys::{code, decrypt, new_key, one, project, refusal, store};
use crate::server::Server;

const WRONG: &str =
    "SELECT coalesce(string_agg(check_name, ' ' ORDER BY check_name), '') FROM watchllm.security_check()
    WHERE ok IS FALSE";

fn detail(server: &Server, check: &str) -> String {
    let detail =
        format!("SELECT detail FROM watchllm.security_check() WHERE check_name = '{check}'");
    server.psql("postgres", &detail)
}

#[test]
fn envelopes_that_do_not_open_under_the_master_key_that_is_there_are_named() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    let keys = [store(c, &p, "openai", &new_key()), store(c, &p, "groq", &new_key())];
    assert_eq!(server.psql("postgres", WRONG), "");
    assert!(detail(&server, "open_envelopes").contains("newest 2"));
    // the same keyring makes another vault; its keys come here, as from another backup
    one(c, "CREATE DATABASE other");
    server.psql(
        "other",
        "CREATE EXTENSION watchllm_keys; SELECT watchllm.install(); SELECT watchllm.create_project('p')",
    );
    let row = "SELECT format('salt = %L, canary = %L', salt, canary) FROM watchllm.master_keys";
    let row = server.psql("other", row);
    one(c, &format!("UPDATE watchllm.master_keys SET {row}"));
    one(
        c,
        "ALTER TABLE watchllm.audit_keys DISABLE TRIGGER refuse_change; DELETE FROM watchllm.audit_keys;
         ALTER TABLE watchllm.audit_keys ENABLE ALWAYS TRIGGER refuse_change",
    );
    let dump = server.dump("other", "keys.sql", &["--data-only", "-t", "watchllm.audit_keys"]);
    assert_eq!(server.restore_plain("postgres", &dump).status, 0);
    server.restart();
    let c = &mut server.connect("postgres", "postgres");
    assert_eq!(code(c, &decrypt(&keys[0])), "XX001");
    assert_eq!(server.psql("postgres", WRONG), "open_envelopes");
    let said = detail(&server, "open_envelopes");
    assert!(said.contains("2 of 2") && said.contains(&keys[0]), "{said}");
}

#[test]
fn one_damaged_envelope_is_named() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    let (good, bad) = (store(c, &p, "openai", &new_key()), store(c, &p, "groq", &new_key()));
    crate::keys::damage(c, &bad);
    assert_eq!(server.psql("postgres", WRONG), "open_envelopes");
    let said = detail(&server, "open_envelopes");
    assert!(said.contains("1 of 2") && said.contains(&bad) && !said.contains(&good), "{said}");
}

#[test]
fn a_trail_that_begins_again_is_named() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    (0..5).for_each(|n| drop(store(c, &p, &format!("openai-{n}"), &new_key())));
    assert_eq!(server.psql("postgres", WRONG), "");
    // somebody drops every day; the next call begins at 1
    one(
        c,
        "DO $$ DECLARE d regclass; BEGIN
            FOR d IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'watchllm.provider_key_access_logs'::regclass
            LOOP EXECUTE 'DROP TABLE ' || d; END LOOP; END $$; SELECT watchllm.install()",
    );
    one(c, "SELECT watchllm.create_project('after')");
    assert_eq!(server.psql("postgres", WRONG), "trail");
    let said = detail(&server, "trail");
    assert!(said.contains("changes were committed"), "{said}");
}

#[test]
fn what_a_sweep_of_revoke_took_install_gives_back() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    let k = store(c, &p, "openai", &new_key());
    for sweep in [
        "REVOKE ALL ON ALL TABLES IN SCHEMA watchllm FROM watchllm_owner, watchllm_admin, watchllm_service,
            watchllm_tenant, watchllm_auditor",
        "REVOKE ALL ON ALL FUNCTIONS IN SCHEMA watchllm FROM PUBLIC, watchllm_owner, watchllm_admin,
            watchllm_service, watchllm_tenant, watchllm_auditor, pg_monitor",
        "REVOKE ALL ON SCHEMA watchllm FROM watchllm_owner, watchllm_admin, watchllm_service, watchllm_tenant,
            watchllm_auditor, pg_monitor",
        "DROP OWNED BY watchllm_admin, watchllm_service, watchllm_tenant, watchllm_auditor",
    ] {
        one(c, sweep);
        let said = server.psql("postgres", WRONG);
        assert!(said.contains("missing_rights"), "{sweep}: {said}");
        one(c, "SELECT watchllm.install()");
        server.poll_until("postgres", WRONG, "", 30);
        assert_eq!(code(c, &decrypt(&k)), "00000", "{sweep}");
    }
}

#[test]
fn after_reassign_owned_install_names_the_page() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    one(c, "CREATE ROLE somebody; REASSIGN OWNED BY watchllm_owner TO somebody");
    let refused = refusal(c, "SELECT watchllm.install()");
    assert_eq!(refused.code().code(), "42501");
    let hint = refused.hint().unwrap_or_default();
    assert!(hint.contains("docs/backup.md#without-owners"), "{hint}");
}

#[test]
fn a_finding_is_accepted_until_a_date_and_as_long_as_it_says_the_same() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    one(
        c,
        "CREATE ROLE cloud LOGIN BYPASSRLS; CREATE ROLE admin LOGIN IN ROLE watchllm_admin;
         CREATE ROLE auditor LOGIN IN ROLE watchllm_auditor",
    );
    assert_eq!(server.psql("postgres", WRONG), "bypassrls_roles");
    let accept = |check: &str, until: &str| {
        format!("SELECT watchllm.accept_finding('{check}', 'the cloud brings it', {until})")
    };
    let a = &mut server.connect("postgres", "admin");
    let u = &mut server.connect("postgres", "auditor");
    assert_eq!(code(u, &accept("bypassrls_roles", "now() + '1 day'")), "42501");
    for (check, until) in [
        ("bypassrls_roles", "now() - interval '1 day'"),
        ("bypassrls_roles", "now() + interval '3 years'"),
        ("bypassrls_roles", "'infinity'"),
        ("bypassrls_roles", "'-infinity'"),
        ("no_such_check", "now() + interval '1 day'"),
        ("public_grants", "now() + interval '1 day'"),
    ] {
        assert_eq!(code(a, &accept(check, until)), "22023", "{check} {until}");
    }
    assert_eq!(
        code(a, "SELECT watchllm.accept_finding('bypassrls_roles', '', now() + interval '1 day')"),
        "22023"
    );
    assert_eq!(code(a, "SELECT watchllm.accept_finding('bypassrls_roles', NULL, NULL)"), "22004");
    one(a, &accept("bypassrls_roles", "now() + interval '4 seconds'"));
    assert_eq!(server.psql("postgres", WRONG), "");
    let said = detail(&server, "bypassrls_roles");
    assert!(
        said.starts_with("accepted until 20")
            && said.contains("by admin (the cloud brings it): cloud"),
        "{said}"
    );
    // on record, and nobody changes it
    let row = "SELECT count(*) FROM watchllm.provider_key_access_logs l JOIN watchllm.accepted_findings f ON f.id = l.id
        WHERE l.access_type = 'setting' AND l.success AND l.effective_role = 'admin'";
    assert_eq!(one(u, row), "1");
    assert_eq!(code(c, "DELETE FROM watchllm.accepted_findings"), "42501");
    // another role of the kind is another finding
    one(c, "CREATE ROLE second LOGIN BYPASSRLS");
    assert_eq!(server.psql("postgres", WRONG), "bypassrls_roles");
    one(c, "DROP ROLE second");
    // and the date comes
    server.poll_until("postgres", WRONG, "bypassrls_roles", 30);
    one(a, &accept("bypassrls_roles", "now() + interval '700 days'"));
    assert_eq!(server.psql("postgres", WRONG), "");
}
