//! Many sessions on the same keys: lost rotations, decrypts that see half a change, deadlocks. Some
//! deadlocks PostgreSQL cannot see: a caller holds a row and waits for the writer. Every wait here
//! ends by statement_timeout.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Barrier, Mutex};

use crate::keys::{Vault, code, decrypt, new_key, one, project, store};
use postgres::Client;

fn connect(vault: &Vault) -> Client {
    let mut c = vault.connect("postgres");
    one(&mut c, "SET statement_timeout = '90s'");
    c
}

#[test]
fn fifty_rotations_at_once_lose_none_and_disturb_no_reader() {
    const ROUNDS: i32 = 4;
    let vault = Vault::shared();
    let c = &mut connect(&vault);
    let (p, first) = (project(c), new_key());
    let id = &store(c, &p, "openai", &first);
    let (barrier, done) = (&Barrier::new(50), &AtomicBool::new(false));
    let (winners, read) = (&Mutex::new(vec![first]), &Mutex::new(HashSet::new()));
    std::thread::scope(|scope| {
        let rotating = |mut c: Client| {
            scope.spawn(move || {
                for expected in 1..=ROUNDS {
                    let key = new_key();
                    barrier.wait();
                    let call =
                        format!("SELECT watchllm.rotate_provider_key('{id}', '{key}', {expected})");
                    match code(&mut c, &call).as_str() {
                        "00000" => winners.lock().unwrap().push(key),
                        other => assert_eq!(other, "23505"),
                    }
                    barrier.wait();
                }
            })
        };
        let reading = |mut c: Client| {
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    let key = one(&mut c, &decrypt(id));
                    read.lock().unwrap().insert(key);
                }
            })
        };
        let readers: Vec<_> = (0..3).map(|_| reading(connect(&vault))).collect();
        let rotators: Vec<_> = (0..50).map(|_| rotating(connect(&vault))).collect();
        let rotated: Vec<_> = rotators.into_iter().map(|rotator| rotator.join()).collect();
        done.store(true, Ordering::Relaxed);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        rotated.into_iter().for_each(|rotator| rotator.unwrap());
    });
    let winners = winners.lock().unwrap();
    assert_eq!(winners.len(), 1 + ROUNDS as usize);
    let strangers: Vec<_> =
        read.lock().unwrap().iter().filter(|key| !winners.contains(*key)).cloned().collect();
    assert!(strangers.is_empty(), "read, but never stored: {strangers:?}");
    assert_eq!(&one(c, &decrypt(id)), winners.last().unwrap());
    let recorded = |reason: &str| {
        format!(
            "SELECT count(*) FROM watchllm.provider_key_access_logs
        WHERE provider_key_id = '{id}' AND access_type = 'rotate' AND failure_reason {reason}"
        )
    };
    assert_eq!(one(c, &recorded("IS NULL")), ROUNDS.to_string());
    assert_eq!(one(c, &recorded("= 'version_conflict'")), (ROUNDS * 49).to_string());
    assert_eq!(
        one(
            c,
            &format!(
                "SELECT count(*), max(version) FROM watchllm.provider_key_versions WHERE provider_key_id = '{id}'"
            )
        ),
        "5|5"
    );
}

/// Runs each program in its own session, all at once, `rounds` times. Answers every SQLSTATE seen.
fn at_once(vault: &Vault, rounds: usize, programs: &[Vec<String>]) -> HashSet<String> {
    let (barrier, seen) = (&Barrier::new(programs.len()), &Mutex::new(HashSet::new()));
    std::thread::scope(|scope| {
        for program in programs {
            let mut c = connect(vault);
            scope.spawn(move || {
                for _ in 0..rounds {
                    barrier.wait();
                    for statement in program {
                        let code = code(&mut c, statement);
                        seen.lock().unwrap().insert(code);
                    }
                    one(&mut c, "ROLLBACK");
                }
            });
        }
    });
    seen.lock().unwrap().clone()
}

fn only(seen: &HashSet<String>, allowed: &[&str]) {
    assert!(seen.iter().all(|code| allowed.contains(&code.as_str())), "{seen:?}");
    assert!(seen.contains("00000"), "{seen:?}");
}

fn switch(id: &str, on: bool) -> String {
    format!("SELECT watchllm.set_provider_key_active('{id}', {on})")
}

/// Rotates to another key each time it runs: the active key itself is refused.
fn rotate(id: &str) -> String {
    format!("SELECT watchllm.rotate_provider_key('{id}', 'sk-' || gen_random_uuid())")
}

#[test]
fn delete_decrypt_and_rotate_never_deadlock() {
    let vault = Vault::shared();
    let c = &mut connect(&vault);
    let p = project(c);
    let ids: Vec<String> =
        (0..25).map(|i| store(c, &p, &format!("vendor-{i}"), &new_key())).collect();
    let each = |call: &dyn Fn(&str) -> String| ids.iter().map(|id| call(id)).collect::<Vec<_>>();
    let all = format!("SELECT * FROM watchllm.decrypt_provider_keys('{{{}}}')", ids.join(","));
    let programs = [
        each(&decrypt),
        each(&decrypt),
        each(&rotate),
        each(&rotate),
        each(&|id| format!("SELECT watchllm.validate_provider_key('{id}')")),
        each(&|id| format!("SELECT watchllm.rollback_provider_key('{id}')")),
        each(&|id| format!("SELECT pg_sleep(0.01); SELECT watchllm.delete_provider_key('{id}')")),
        each(&|id| format!("SELECT watchllm.delete_provider_key('{id}')"))
            .into_iter()
            .rev()
            .collect(),
        vec![all; 10],
    ];
    only(&at_once(&vault, 1, &programs), &["00000", "02000"]);
    let left = format!(
        "SELECT count(*) FILTER (WHERE deleted_at IS NULL), count(v.envelope) FROM watchllm.provider_key_records r
        JOIN watchllm.provider_key_versions v ON v.provider_key_id = r.id WHERE r.project_id = '{p}'"
    );
    assert_eq!(one(c, &left), "0|0");
}

#[test]
fn crosswise_storing_and_activating_does_not_deadlock() {
    let vault = Vault::shared();
    let c = &mut connect(&vault);
    let p = project(c);
    let (a, b) = (store(c, &p, "openai", &new_key()), store(c, &p, "openai", &new_key()));
    let storing = format!("SELECT watchllm.store_provider_key('{p}', 'openai', '{}')", new_key());
    let resolve = format!("SELECT watchllm.resolve_provider_key('{p}', 'openai')");
    let programs = [
        vec![switch(&a, true), switch(&b, false), rotate(&a)],
        vec![switch(&b, true), switch(&a, false), rotate(&b)],
        vec![storing, resolve.clone()],
        vec![rotate(&b), switch(&a, true)],
        vec![rotate(&a), switch(&b, true)],
        vec![resolve],
    ];
    only(&at_once(&vault, 15, &programs), &["00000", "02000", "23514", "42000"]);
}

#[test]
fn crosswise_transactions_end_by_the_deadlock_detector() {
    let vault = Vault::shared();
    let c = &mut connect(&vault);
    let p = project(c);
    let (a, b) = (store(c, &p, "openai", &new_key()), store(c, &p, "openai", &new_key()));
    let change = |first: &str, then: &str| {
        vec![
            "BEGIN".to_owned(),
            rotate(first),
            decrypt(then),
            switch(then, false),
            switch(then, true),
            "COMMIT".into(),
        ]
    };
    let seen = at_once(&vault, 4, &[change(&a, &b), change(&b, &a)]);
    only(&seen, &["00000", "40P01", "25P02"]); // each of these circles is in the caller's own order of locks
    for id in [&a, &b] {
        assert_eq!(code(c, &decrypt(id)), "00000");
    }
}

#[test]
fn a_caller_that_locked_every_row_does_not_wait_for_itself() {
    let vault = Vault::shared();
    let c = &mut connect(&vault);
    let p = project(c);
    let id = &store(c, &p, "openai", &new_key());
    one(c, &decrypt(id));
    one(c, "BEGIN");
    for table in [
        "projects WHERE id",
        "provider_key_records WHERE project_id",
        "provider_key_versions WHERE project_id",
        "provider_key_usage WHERE project_id",
    ] {
        one(c, &format!("SELECT 1 FROM watchllm.{table} = '{p}' FOR UPDATE"));
    }
    assert_eq!(code(c, &decrypt(id)), "00000");
    assert_eq!(code(c, &rotate(id)), "00000");
    assert_eq!(code(c, "COMMIT"), "00000");
}
