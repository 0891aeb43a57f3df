//! Too many active keys: by storing, by activating, by twenty sessions at once under every
//! isolation level. Priorities: NULL takes the lowest free one, explicit ones may repeat. Too many
//! ids, answers that could spill to disk, input too long, empty or of the wrong shape
//! (docs/architecture.md#lengths).

use std::sync::Barrier;

use uuid::Uuid;

use crate::errors::{fails, tells_nothing};
use crate::keys::{Vault, code, last_event, new_key, one, project, refusal, rows, store};
use crate::server::Server;

fn active(project: &str) -> String {
    format!(
        "SELECT count(*) FROM watchllm.provider_keys WHERE project_id = '{project}' AND provider = 'openai' AND is_active"
    )
}

fn storing(project: &str) -> String {
    format!("SELECT watchllm.store_provider_key('{project}', 'openai', '{}')", new_key())
}

fn switch(id: &str, on: bool) -> String {
    format!("SELECT watchllm.set_provider_key_active('{id}', {on})")
}

#[test]
fn the_fourth_active_key_is_refused() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = &project(c);
    let ids: Vec<String> = (0..3).map(|_| store(c, p, "openai", &new_key())).collect();
    let refused = refusal(c, &storing(p));
    assert_eq!(refused.code().code(), "23514");
    assert!(refused.hint().is_some_and(|hint| hint.contains("max_active_keys")));
    let limited = "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE failure_reason = 'limit' AND project_id = ";
    assert_eq!(one(c, &format!("{limited}'{p}' AND access_type = 'store'")), "1");
    store(c, p, "anthropic", &new_key()); // another provider and another project have places of their own
    let other = project(c);
    store(c, &other, "openai", &new_key());

    one(c, &switch(&ids[0], false));
    store(c, p, "openai", &new_key());
    assert_eq!(
        (code(c, &switch(&ids[0], true)), last_event(c, &ids[0])),
        ("23514".into(), "activate|limit".into())
    );
    assert_eq!(code(c, &switch(&ids[1], true)), "00000"); // active already: takes no new place
    one(c, &format!("SELECT watchllm.delete_provider_key('{}')", ids[1]));
    assert_eq!(code(c, &switch(&ids[0], true)), "00000");
    assert_eq!(one(c, &active(p)), "3");
}

#[test]
fn without_a_limit_there_is_none() {
    let server = Server::with_vault_and("watchllm_keys.max_active_keys = 0");
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    for _ in 0..12 {
        store(c, &p, "openai", &new_key());
    }
    assert_eq!(one(c, &active(&p)), "12");
    assert_eq!(
        one(
            c,
            "SELECT string_agg(priority::text, ' ' ORDER BY created_at) FROM watchllm.provider_keys"
        ),
        "1 2 3 4 5 6 7 8 9 10 11 12"
    );
    server.conf("watchllm_keys.max_active_keys = 3");
    server.reload();
    server.poll_until("postgres", "SHOW watchllm_keys.max_active_keys", "3", 20);
    assert_eq!(code(c, &storing(&p)), "23514");
    assert_eq!(one(c, &active(&p)), "12"); // what is there stays
}

#[test]
fn priorities_fill_gaps_and_may_repeat() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let priorities = format!(
        "SELECT priority FROM watchllm.provider_keys WHERE project_id = '{p}' AND is_active ORDER BY created_at"
    );
    let ids: Vec<String> = (0..3).map(|_| store(c, &p, "openai", &new_key())).collect();
    assert_eq!(rows(c, &priorities), ["1", "2", "3"]);
    one(c, &switch(&ids[1], false));
    store(c, &p, "openai", &new_key());
    assert_eq!(rows(c, &priorities), ["1", "3", "2"]);
    let p = project(c);
    for priority in ["7", "7", "NULL"] {
        one(
            c,
            &format!(
                "SELECT watchllm.store_provider_key('{p}', 'openai', '{}', NULL, {priority})",
                new_key()
            ),
        );
    }
    let priorities = format!(
        "SELECT priority FROM watchllm.provider_keys WHERE project_id = '{p}' ORDER BY created_at"
    );
    assert_eq!(rows(c, &priorities), ["7", "7", "1"]);
}

/// Twenty sessions whose snapshots are all older than every store.
fn race(isolation: &str) {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = &project(c);
    let barrier = &Barrier::new(20);
    let outcomes: Vec<String> = std::thread::scope(|scope| {
        let racer = || {
            let mut c = vault.connect("postgres");
            scope.spawn(move || {
                let begin = format!(
                    "BEGIN ISOLATION LEVEL {isolation}; SELECT count(*) FROM watchllm.provider_keys"
                );
                one(&mut c, &begin);
                barrier.wait();
                loop {
                    let stored = code(&mut c, &storing(p));
                    let outcome = if stored == "00000" { code(&mut c, "COMMIT") } else { stored };
                    one(&mut c, "ROLLBACK");
                    if outcome != "40001" {
                        return outcome;
                    }
                    one(&mut c, &begin);
                }
            })
        };
        let racers: Vec<_> = (0..20).map(|_| racer()).collect();
        racers.into_iter().map(|racer| racer.join().unwrap()).collect()
    });
    assert_eq!(
        outcomes.iter().filter(|outcome| *outcome == "00000").count(),
        3,
        "{isolation}: {outcomes:?}"
    );
    assert!(
        outcomes.iter().all(|outcome| outcome == "00000" || outcome == "23514"),
        "{outcomes:?}"
    );
    assert_eq!(one(c, &active(p)), "3");
    let priorities = format!(
        "SELECT DISTINCT priority FROM watchllm.provider_keys WHERE project_id = '{p}' ORDER BY 1"
    );
    assert_eq!(rows(c, &priorities), ["1", "2", "3"]);
}

#[test]
fn twenty_stores_at_once_leave_three_read_committed() {
    race("READ COMMITTED");
}

#[test]
fn twenty_stores_at_once_leave_three_repeatable_read() {
    race("REPEATABLE READ");
}

#[test]
fn twenty_stores_at_once_leave_three_serializable() {
    race("SERIALIZABLE");
}

#[test]
fn an_answer_that_could_spill_is_refused() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let (id, long) = (store(c, &p, "openai", &new_key()), store(c, &p, "long", &"x".repeat(4096)));
    let request = Uuid::new_v4();
    let many = |id: &str, n: i32| {
        format!(
            "SELECT count(api_key) FROM watchllm.decrypt_provider_keys(array_fill('{id}'::uuid, ARRAY[{n}]), '{request}')"
        )
    };
    assert_eq!(one(c, &many(&id, 1000)), "1000");
    let recorded = format!(
        "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE request_id = '{request}'"
    );
    assert_eq!(one(c, &recorded), "1000");
    assert_eq!(code(c, &many(&id, 1001)), "23514");
    assert_eq!(one(c, &format!("{recorded} AND failure_reason = 'limit'")), "1");
    one(c, "SET work_mem = '64kB'; SET application_name = 'spill test'");
    for (id, fits, spills) in [(&id, 50, 100), (&long, 3, 4), (&long, 1, 1000)] {
        assert_eq!(one(c, &many(id, fits)), fits.to_string());
        assert_eq!(code(c, &many(id, spills)), "23514");
    }
    let log = vault.server().log();
    assert!(
        !log.lines().any(|line| line.contains("spill test") && line.contains("temporary file"))
    );
}

#[test]
fn bad_input_is_refused_recorded_and_not_repeated() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (&project(c), &new_key());
    let id = &store(c, p, "openai", &new_key());
    let stored = |provider: &str, api_key: &str, rest: &str| {
        format!("SELECT watchllm.store_provider_key('{p}', {provider}, {api_key}{rest})")
    };
    let mut bad = [
        "''".into(),
        "'OpenAI'".into(),
        "'a b'".into(),
        "'ünï'".into(),
        "'-a'".into(),
        "repeat('a', 64)".into(),
        format!("'{key}'"),
    ]
    .iter()
    .map(|provider: &String| stored(provider, "'k'", ""))
    .collect::<Vec<_>>();
    for api_key in ["''", "' '", "repeat('x', 4097)", "repeat('é', 2049)"]
        .into_iter()
        .map(str::to_owned)
        .chain([format!("'{key} '"), format!("E'{key}\\n'"), format!("E'{key}\\u3000'")])
    {
        bad.push(stored("'openai'", &api_key, ""));
        bad.push(format!("SELECT watchllm.rotate_provider_key('{id}', {api_key})"));
    }
    for rest in [
        "''".to_owned(),
        "'  '".into(),
        "E'a\\nb'".into(),
        "repeat('n', 101)".into(),
        format!("'{key}'"),
        "NULL, 0".into(),
        "NULL, -1".into(),
    ] {
        bad.push(stored("'openai'", "'k'", &format!(", {rest}")));
    }
    let recorded = format!(
        "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE project_id = '{p}' AND failure_reason = 'bad_input'"
    );
    for (i, call) in bad.iter().enumerate() {
        let error = refusal(c, call);
        assert_eq!(
            (error.code().code(), error.hint().is_some()),
            ("22023", true),
            "{call}: {}",
            error.message()
        );
        tells_nothing(&error, &key[..20]);
        assert_eq!(one(c, &recorded), (i + 1).to_string(), "{call}");
    }
    for call in [
        "create_project('')".to_owned(),
        format!("create_project('{key}')"),
        format!("add_project_member('{p}')"),
        format!("add_project_member('{p}', 'sub', 'postgres')"),
        format!("add_project_member('{p}', role_name => 'nobody here')"),
        format!("add_project_member('{p}', '{key}')"),
    ] {
        fails(c, &format!("SELECT watchllm.{call}"), "22023", "");
    }
    assert!(
        !one(
            c,
            &format!(
                "SELECT string_agg(l::text, ' ') FROM watchllm.provider_key_access_logs l WHERE project_id = '{p}'"
            )
        )
        .contains(&key[..20])
    );
}
