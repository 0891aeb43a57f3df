//! Refusals as a weapon: to block another's key by failing on it, to flood the trail, to be
//! forgotten while the trail is locked or the server stops. Each refusal is recorded or counted,
//! against its caller alone. The chain stays unbroken.

use std::sync::Barrier;

use postgres::Client;
use uuid::Uuid;

use crate::api::{AUTHENTICATOR, as_api, claims, supabase_vault};
use crate::chain;
use crate::keys::{code, decrypt, new_key, one, rotate, rows};
use crate::roles::login;
use crate::server::Server;
use crate::tenant_escape::House;

#[test]
fn a_tenants_attempts_to_open_are_on_record_and_harm_no_key() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let (by_role, by_claims) = (&mut house.connect(&a.role), &mut house.connect(AUTHENTICATOR));
    let none = Uuid::new_v4().to_string();
    for (key, project) in [(&a.key, &a.project), (&b.key, &b.project), (&none, &none)] {
        for (call, recorded) in [
            (decrypt(key), "decrypt"),
            (format!("SELECT watchllm.decrypt_provider_key('{key}', '{project}')"), "decrypt"),
            (
                format!(
                    "SELECT * FROM watchllm.decrypt_provider_keys(ARRAY['{key}', NULL]::uuid[])"
                ),
                "decrypt",
            ),
            (
                format!("SELECT * FROM watchllm.resolve_provider_key('{project}', 'openai')"),
                "decrypt",
            ),
            (format!("SELECT watchllm.validate_provider_key('{key}')"), "validate"),
        ] {
            let newest =
                "SELECT seq, access_type, failure_reason, attempt_count, session_role, effective_role, claims_sub,
                claims_trusted FROM watchllm.provider_key_access_logs ORDER BY seq DESC LIMIT 1";
            // others use this vault too, so the row is found by its own request id
            let request = Uuid::new_v4().to_string();
            let with_id = |who: &str| {
                newest
                    .replace("ORDER", &format!("WHERE request_id = '{request}{who}' ORDER"))
                    .replace("seq, ", "")
            };
            one(by_role, &format!("SET watchllm.request_id = '{request}role'"));
            assert_eq!(code(by_role, &call), "42501", "{call}");
            assert_eq!(
                one(c, &with_id("role")),
                format!("{recorded}|not_authorized|1|{0}|{0}|-|f", a.role),
                "{call}"
            );
            let headers = format!(r#"{{"x-request-id":"{request}claims"}}"#);
            let answer =
                as_api(by_claims, "authenticated", &a.claims(), &headers, "read write", &call);
            assert_eq!(answer.unwrap_err().code().code(), "42501", "{call}");
            let expected =
                format!("{recorded}|not_authorized|1|{AUTHENTICATOR}|authenticated|{}|t", a.sub);
            assert_eq!(one(c, &with_id("claims")), expected, "{call}");
        }
    }
    // The caller's own project sees who tried. A stranger's attempt is not written into the
    // victim's trail.
    let tried = "SELECT count(*) > 0 FROM watchllm.access_logs WHERE failure_reason = 'not_authorized' AND provider_key_id = ";
    assert_eq!(one(by_role, &format!("{tried}'{}'", a.key)), "t");
    let strange = format!(
        "SELECT count(*) FROM watchllm.access_logs WHERE claims_sub = '{}' OR user_agent = '{}'",
        a.sub, a.name
    );
    assert_eq!(one(&mut house.connect(&b.role), &strange), "0");
    // Only the service's one access counts for the key.
    let service = &mut house.connect(&login(c, "watchllm_service"));
    for key in [&a.key, &b.key] {
        assert_eq!(code(service, &decrypt(key)), "00000");
        let usage = format!(
            "SELECT access_count, failure_count, (SELECT sum(f) FROM unnest(failures) f), blocked_at
            FROM watchllm.provider_key_usage WHERE provider_key_id = '{key}'"
        );
        until(c, &usage, "1|0|0|-");
    }
}

/// Asks until the answer is `expected`.
fn until(c: &mut Client, sql: &str, expected: &str) {
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut last = String::new();
    while std::time::Instant::now() < end {
        last = one(c, sql);
        if last == expected {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    panic!("expected {expected}, got {last}: {sql}");
}

/// A vault of its own with a key, a service and a tenant of the key's project.
fn vault(conf: &str) -> (Server, String) {
    let server = supabase_vault(conf);
    let c = &mut server.connect("postgres", "postgres");
    let p = one(c, "SELECT watchllm.create_project('p', 'sub-a')");
    let key = crate::keys::store(c, &p, "openai", &new_key());
    one(
        c,
        "CREATE ROLE tenant LOGIN IN ROLE watchllm_tenant; CREATE ROLE service LOGIN IN ROLE watchllm_service",
    );
    one(c, &format!("SELECT watchllm.add_project_member('{p}', role_name => 'tenant')"));
    (server, key)
}

const COUNTED: &str = "SELECT sum(attempt_count) FROM watchllm.provider_key_access_logs WHERE failure_reason = 'not_authorized'";

/// Each of so many clients tries so often, all at once. Answers the SQLSTATEs.
fn tries(server: &Server, clients: usize, each: usize, key: &str) -> Vec<String> {
    let barrier = &Barrier::new(clients);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                let by_role = client % 2 == 0;
                let mut s =
                    server.connect("postgres", if by_role { "tenant" } else { AUTHENTICATOR });
                scope.spawn(move || {
                    barrier.wait();
                    let mut one_try = |i: usize| {
                        // each call says something else about itself; the counted row keeps what
                        // all have in common
                        let call = if i.is_multiple_of(2) {
                            decrypt(key)
                        } else {
                            decrypt(&Uuid::new_v4().to_string())
                        };
                        let headers = format!(r#"{{"x-request-id":"{client}-{i}"}}"#);
                        let answer = if by_role {
                            crate::keys::try_rows(&mut s, &call)
                        } else {
                            as_api(
                                &mut s,
                                "authenticated",
                                &claims("authenticated", "sub-a"),
                                &headers,
                                "read write",
                                &call,
                            )
                        };
                        answer
                            .map_or_else(|error| error.code().code().to_owned(), |_| "00000".into())
                    };
                    (0..each).map(&mut one_try).collect::<Vec<String>>()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn past_the_rate_refusals_are_counted_and_none_is_lost() {
    let (server, key) = vault("watchllm_keys.audit_timeout = '60s'");
    let c = &mut server.connect("postgres", "postgres");
    let answers = tries(&server, 16, 150, &key);
    assert!(answers.iter().all(|code| code == "42501"));
    until(c, COUNTED, &answers.len().to_string());
    // 2,400 tries of two callers: 20 rows each a minute, and one a second.
    let shown = one(
        c,
        "SELECT count(*) < 400, bool_or(attempt_count > 20), count(DISTINCT attempt_count) > 1
        FROM watchllm.provider_key_access_logs WHERE failure_reason = 'not_authorized'",
    );
    assert_eq!(shown, "t|t|t");
    let mixed = "SELECT DISTINCT provider_key_id IS NULL, project_id IS NULL, session_role IS NULL, claims_trusted = (claims_sub = 'sub-a')
        FROM watchllm.provider_key_access_logs WHERE attempt_count > 40";
    assert!(rows(c, mixed).iter().all(|row| row.starts_with("t|t|f|")), "{:?}", rows(c, mixed));
    // Places in the queue are unique, and an auditor can follow the chain.
    let places = "SELECT count(*) = count(DISTINCT (epoch, queue_seq)), count(*) = count(DISTINCT id) FROM watchllm.provider_key_access_logs";
    assert_eq!(one(c, places), "t|t");
    assert_eq!(
        chain::verify(&server, "postgres").unwrap().to_string(),
        one(c, "SELECT count(*) FROM watchllm.provider_key_access_logs")
    );
    // None of it counts for the key, and the service is served at once.
    let service = &mut server.connect("postgres", "service");
    assert_eq!(code(service, &decrypt(&key)), "00000");
    until(
        c,
        "SELECT access_count, failure_count, blocked_at FROM watchllm.provider_key_usage",
        "1|0|-",
    );
}

#[test]
fn refusals_are_counted_while_the_trail_is_locked() {
    let (server, key) = vault("watchllm_keys.audit_timeout = '3s'");
    let c = &mut server.connect("postgres", "postgres");
    let before = tries(&server, 4, 60, &key);
    let holder = &mut server.connect("postgres", "postgres");
    let written = server.log_len();
    one(holder, "BEGIN; LOCK TABLE watchllm.provider_key_access_logs IN SHARE MODE");
    let mut answers = tries(&server, 16, 40, &key);
    let failed = std::time::Instant::now() + std::time::Duration::from_secs(30);
    while !server.log_since(written).contains("counted refusals are written later") {
        assert!(
            std::time::Instant::now() < failed,
            "the writer never failed: the test tests nothing"
        );
        answers.extend(tries(&server, 2, 5, &key));
    }
    one(holder, "ROLLBACK");
    answers.extend(before);
    // If a new minute begins meanwhile, its rows time out: they may be written or not.
    let refused = answers.iter().filter(|code| *code == "42501").count();
    assert!(answers.iter().all(|code| code == "42501" || code == "53000"));
    if refused == answers.len() {
        until(c, COUNTED, &refused.to_string());
    } else {
        until(c, &format!("SELECT ({COUNTED}) BETWEEN {refused} AND {}", answers.len()), "t");
    }
    chain::verify(&server, "postgres").unwrap();
}

/// The writer is told to end while it sleeps between two batches. During a transaction PostgreSQL
/// ends it at once, and what it counted in that second is lost. That case is not tested.
#[test]
fn a_writer_told_to_end_writes_down_what_it_counted() {
    let (server, key) = vault("watchllm_keys.audit_timeout = '60s'");
    let c = &mut server.connect("postgres", "postgres");
    let mut all = 0;
    for _ in 0..3 {
        let answers = tries(&server, 2, 100, &key);
        assert!(answers.iter().all(|code| code == "42501"), "{answers:?}");
        all += answers.len();
        let sleeping = "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity
            WHERE backend_type = 'watchllm_keys writer' AND wait_event_type = 'Extension'";
        until(c, sleeping, "t");
        assert_eq!(one(c, COUNTED), all.to_string());
    }
    chain::verify(&server, "postgres").unwrap();
}

#[test]
fn a_services_failures_have_a_row_each() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let service = login(c, "watchllm_service");
    let s = &mut house.connect(&service);
    for _ in 0..60 {
        assert_eq!(code(s, &decrypt(&Uuid::new_v4().to_string())), "02000");
    }
    let recorded = format!(
        "SELECT count(*), sum(attempt_count), count(DISTINCT provider_key_id)
        FROM watchllm.provider_key_access_logs WHERE session_role = '{service}'"
    );
    assert_eq!(one(c, &recorded), "60|60|60");
}

#[test]
fn a_tenants_failed_changes_count_against_the_tenant_alone() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let s = &mut house.connect(&a.role);
    let conflict = format!("SELECT watchllm.rotate_provider_key('{}', 'k', 77)", a.key);
    for _ in 0..40 {
        assert_eq!(code(s, &conflict), "23505");
        assert_eq!(code(s, &rotate(&b.key)), "02000");
    }
    let sum = format!(
        "SELECT sum(attempt_count), bool_or(attempt_count > 1), count(*) < 40 FROM watchllm.provider_key_access_logs
        WHERE session_role = '{}' AND access_type = 'rotate'",
        a.role
    );
    until(c, &sum, "80|t|t");
    let usage = format!(
        "SELECT count(*) FROM watchllm.provider_key_usage
        WHERE provider_key_id IN ('{}', '{}') AND (failure_count > 0 OR blocked_at IS NOT NULL)",
        a.key, b.key
    );
    assert_eq!(one(c, &usage), "0");
    // Both keys can be used and changed as before. The other tenant has a rate of its own.
    let other = &mut house.connect(&b.role);
    assert_eq!(
        (code(other, &rotate(&b.key)), code(s, &rotate(&a.key))),
        ("00000".into(), "00000".into())
    );
    assert_eq!(code(other, &rotate(&Uuid::new_v4().to_string())), "02000");
    let own_row = format!(
        "SELECT attempt_count FROM watchllm.provider_key_access_logs
        WHERE session_role = '{}' AND failure_reason = 'not_found'",
        b.role
    );
    assert_eq!(rows(c, &own_row), ["1"]);
}

#[test]
fn made_up_subjects_give_no_rows_beyond_the_rate() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let a = house.tenant(c);
    let s = &mut house.connect(&a.role);
    for i in 0..120 {
        one(
            s,
            &format!(
                "SET request.jwt.claims = '{}'",
                claims("authenticated", &format!("made-up-{i}"))
            ),
        );
        assert_eq!(code(s, &decrypt(&a.key)), "42501");
    }
    let recorded = format!(
        "SELECT sum(attempt_count), count(*) < 60 FROM watchllm.provider_key_access_logs
        WHERE session_role = '{}' AND access_type = 'decrypt'",
        a.role
    );
    until(c, &recorded, "121|t"); // one by the making of the tenant
}

#[test]
fn a_get_neither_opens_nor_changes() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let a = house.tenant(c);
    let s = &mut house.connect(AUTHENTICATOR);
    let calls = [
        (decrypt(&a.key), "decrypt"),
        (
            format!("SELECT * FROM watchllm.decrypt_provider_keys(ARRAY['{}']::uuid[])", a.key),
            "decrypt",
        ),
        (
            format!("SELECT * FROM watchllm.resolve_provider_key('{}', 'openai')", a.project),
            "decrypt",
        ),
        (format!("SELECT watchllm.validate_provider_key('{}')", a.key), "validate"),
        (format!("SELECT watchllm.store_provider_key('{}', 'openai', 'k')", a.project), "store"),
        (rotate(&a.key), "rotate"),
        (format!("SELECT watchllm.rollback_provider_key('{}')", a.key), "rollback"),
        (format!("SELECT watchllm.set_provider_key_active('{}', false)", a.key), "deactivate"),
        (format!("SELECT watchllm.delete_provider_key('{}')", a.key), "delete"),
    ];
    for (call, recorded) in &calls {
        for role in ["authenticated", "service_role"] {
            let request = Uuid::new_v4().to_string();
            let headers = format!(r#"{{"x-request-id":"{request}"}}"#);
            let answer = as_api(s, role, &claims(role, &a.sub), &headers, "read only", call);
            assert_eq!(answer.unwrap_err().code().code(), "25006", "{call} as {role}");
            let row = format!(
                "SELECT access_type, success, failure_reason FROM watchllm.provider_key_access_logs
                WHERE request_id = '{request}'"
            );
            assert_eq!(rows(c, &row), [format!("{recorded}|f|bad_input")], "{call} as {role}");
        }
    }
    // A GET may read.
    for read in [
        "SELECT id FROM watchllm.provider_keys".into(),
        format!("SELECT access_type FROM watchllm.key_access_history('{}')", a.key),
    ] {
        let answer = as_api(s, "authenticated", &a.claims(), "{}", "read only", &read);
        assert!(!answer.unwrap().is_empty(), "{read}");
    }
    // A service with its own SQL session may read in a read-only transaction, but change nothing
    // there.
    let s = &mut house.connect(&login(c, "watchllm_service"));
    for (call, recorded) in &calls {
        let opens = ["decrypt", "validate"].contains(recorded);
        assert_eq!(
            code(s, &format!("BEGIN READ ONLY; {call}")),
            if opens { "00000" } else { "25006" },
            "{call}"
        );
        one(s, "ROLLBACK");
    }
    assert_eq!(code(s, &decrypt(&a.key)), "00000");
}
