//! Attacks that once worked, each named by its target: foreign code in another role's COMMIT, a
//! call that exhausts processor or memory, a right that is withdrawn while its call waits. Also a
//! stranger's words in a victim's trail, and another database's answers and keys.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::keys::{Vault, code, new_key, one, project, store};
use crate::roles::login;

#[test]
fn prepared_types_do_not_run_in_the_commit_of_another_role() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), new_key());
    let id = store(c, &p, "openai", &key);
    let (victim, attacker) = (login(c, "watchllm_service"), login(c, "watchllm_tenant"));
    let (app, loot) = (login(c, ""), format!("loot_{}", &victim[victim.len() - 8..]));
    one(
        c,
        &format!(
            "GRANT {victim}, {attacker} TO {app}; CREATE TABLE {loot} (who text); GRANT INSERT ON {loot} TO PUBLIC"
        ),
    );
    one(
        c,
        &format!(
            "GRANT TEMPORARY ON DATABASE postgres TO {attacker}; CREATE SCHEMA of_{loot} AUTHORIZATION {attacker}"
        ),
    );
    let s = &mut vault.connect(&app);
    one(s, &format!("SET ROLE {attacker}"));
    one(
        s,
        &format!(
            "CREATE FUNCTION of_{loot}.spy(v text) RETURNS boolean LANGUAGE plpgsql AS
             $$ BEGIN INSERT INTO public.{loot} VALUES (current_user); RETURN true; END $$"
        ),
    );
    one(
        s,
        &format!(
            "CREATE DOMAIN pg_temp.name AS pg_catalog.name CHECK (of_{loot}.spy(value::pg_catalog.text))"
        ),
    );
    one(s, &format!("RESET ROLE; SET ROLE {victim}"));
    one(s, &format!("BEGIN; SELECT watchllm.rotate_provider_key('{id}', '{key}x')"));
    // Our relations change meanwhile, so the session forgets what it knew of the vault.
    one(c, "ALTER TABLE watchllm.projects SET (autovacuum_enabled = true)");
    one(s, "SELECT count(*) FROM pg_catalog.pg_cast");
    one(s, "COMMIT");
    one(c, "ALTER TABLE watchllm.projects RESET (autovacuum_enabled)");
    assert_eq!(
        one(c, &format!("SELECT count(*) FROM {loot}")),
        "0",
        "foreign code ran as {victim}"
    );
    assert_eq!(one(s, &format!("SELECT watchllm.decrypt_provider_key('{id}')")), format!("{key}x"));
}

#[test]
fn a_huge_user_agent_neither_hangs_nor_crashes() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let id = store(c, &p, "openai", &new_key());
    // Reading the whole text took half a minute, and no cancel could stop it.
    one(c, "SET statement_timeout = '15s'");
    for agent in [
        "repeat('sk-', 16000000)",
        "repeat(repeat('eyJ', 70), 230000)",
        "repeat('aaaa ', 40000000)",
    ] {
        let call = format!("SELECT watchllm.decrypt_provider_key('{id}', user_agent => {agent})");
        assert_eq!(code(c, &call), "00000", "{agent}");
    }
}

#[test]
fn a_member_removed_while_its_call_waits_changes_nothing() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let id = store(c, &p, "openai", &new_key());
    let tenant = login(c, "watchllm_tenant");
    one(c, &format!("SELECT watchllm.add_project_member('{p}', role_name => '{tenant}')"));
    let calls = [
        format!("SELECT watchllm.store_provider_key('{p}', 'xai', 'some-key')"),
        format!("SELECT watchllm.rotate_provider_key('{id}', 'some-key')"),
    ];
    // The tenant waits for rows that this transaction holds. It is removed before they are
    // released.
    one(c, &format!("BEGIN; SELECT id FROM watchllm.projects WHERE id = '{p}' FOR UPDATE"));
    one(c, &format!("SELECT id FROM watchllm.provider_key_records WHERE id = '{id}' FOR UPDATE"));
    let waiting: Vec<_> = calls
        .map(|call| {
            let mut s = vault.connect(&tenant);
            std::thread::spawn(move || code(&mut s, &call))
        })
        .into_iter()
        .collect();
    let blocked = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE usename = '{tenant}' AND wait_event_type = 'Lock'"
    );
    let until = Instant::now() + Duration::from_secs(30);
    while one(c, &blocked) != "2" {
        assert!(Instant::now() < until, "the tenant's calls do not wait");
        std::thread::sleep(Duration::from_millis(20));
    }
    one(c, &format!("DELETE FROM watchllm.project_members WHERE project_id = '{p}'; COMMIT"));
    for call in waiting {
        assert_eq!(call.join().unwrap(), "02000");
    }
}

#[test]
fn a_tenant_in_an_open_transaction_does_not_hold_up_its_removal() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let tenant = login(c, "watchllm_tenant");
    one(c, &format!("SELECT watchllm.add_project_member('{p}', role_name => '{tenant}')"));
    let s = &mut vault.connect(&tenant);
    one(s, &format!("BEGIN; SELECT watchllm.store_provider_key('{p}', 'openai', 'some-key')"));
    one(c, "SET statement_timeout = '20s'");
    assert_eq!(
        code(c, &format!("SELECT watchllm.remove_project_member('{p}', role_name => '{tenant}')")),
        "00000"
    );
    one(s, "ROLLBACK");
}

#[test]
fn a_stranger_cannot_write_into_the_trail_that_members_read() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let (member, stranger) = (login(c, "watchllm_tenant"), login(c, "watchllm_tenant"));
    one(c, &format!("SELECT watchllm.add_project_member('{p}', role_name => '{member}')"));
    let s = &mut vault.connect(&stranger);
    let words = format!("words-of-{stranger}");
    for call in [
        format!("store_provider_key('{p}', 'openai', 'x', request_id => '{words}')"),
        format!("resolve_provider_key('{p}', 'openai', request_id => '{words}')"),
    ] {
        assert_ne!(code(s, &format!("SELECT * FROM watchllm.{call}")), "00000");
    }
    let read = format!(
        "SELECT count(*) FROM watchllm.failed_access_attempts() WHERE request_id = '{words}'"
    );
    assert_eq!(one(&mut vault.connect(&member), &read), "0");
    assert_eq!(one(c, &read), "2"); // staff see them
}

#[test]
fn a_parallel_query_is_refused_with_a_clear_error() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let id = store(c, &p, "openai", &new_key());
    let name = format!("safe_{}", id.replace('-', ""));
    one(
        c,
        &format!(
            "CREATE FUNCTION {name}(uuid) RETURNS text LANGUAGE plpgsql PARALLEL SAFE AS
             $$ BEGIN RETURN watchllm.decrypt_provider_key($1); END $$"
        ),
    );
    one(c, "SET force_parallel_mode = on");
    assert_eq!(code(c, &format!("SELECT {name}('{id}')")), "0A000");
}

#[test]
fn a_key_of_words_does_not_come_to_lie_in_clear_as_a_name() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, q) = (project(c), project(c));
    // A text that no rule recognises, and that no other test uses.
    let word = |what: &str| {
        format!(
            "{what}{}",
            Uuid::new_v4().simple().to_string().replace(|c: char| c.is_ascii_digit(), "z")
        )
    };
    let (first, second, foreign) = (word("horse"), word("staple"), word("battery"));
    let stored = |project: &str, provider: &str, key: &str, name: &str| {
        format!("SELECT watchllm.store_provider_key('{project}', '{provider}', '{key}', '{name}')")
    };
    for name in [first.clone(), format!("the key is {first}"), format!("{first}!")] {
        assert_eq!(code(c, &stored(&p, "openai", &first, &name)), "22023", "{name}");
    }
    assert_eq!(code(c, &stored(&p, &first, &first, "production")), "22023");
    let id = one(c, &stored(&p, "openai", &first, "production"));
    one(c, &stored(&q, "openai", &foreign, "production"));
    one(c, &format!("SELECT watchllm.rotate_provider_key('{id}', '{second}')"));
    let rename =
        |name: &str| format!("SELECT watchllm.update_provider_key('{id}', name => '{name}')");
    for name in [&first, &second, &format!("was {first}")] {
        assert_eq!(code(c, &rename(name)), "22023", "{name}"); // an earlier version too
    }
    assert_eq!(code(c, &stored(&p, "groq", &word("another"), &first)), "22023");
    one(c, &rename("a fine name for it"));
    assert_eq!(
        code(c, &format!("SELECT watchllm.rotate_provider_key('{id}', 'production{first}')")),
        "00000"
    );
    one(c, &rename("correcthorse"));
    assert_eq!(
        code(c, &format!("SELECT watchllm.rotate_provider_key('{id}', 'correcthorse')")),
        "22023"
    );
    // A name tells nobody what others have stored.
    assert_eq!(code(c, &stored(&p, "mistral", &word("another"), &foreign)), "00000");
    let clear = format!(
        "SELECT (SELECT count(*) FROM watchllm.provider_key_records r WHERE r::text ~ '{first}|{second}')
            + (SELECT count(*) FROM watchllm.provider_key_access_logs l WHERE l::text ~ '{first}|{second}')"
    );
    assert_eq!(one(c, &clear), "0");
}
