//! What the trail records about a call, and what callers try to write into it: keys, megabytes,
//! forged lines, other roles. Also how the trail is read. Lengths and columns are in
//! docs/architecture.md#lengths and #tables.

use uuid::Uuid;
use watchllm_core::trail::{COLUMNS, Mark};

use crate::keys::{Vault, code, decrypt, new_key, one, project, rotate, rows, store, try_rows};

/// These columns of the newest row about a key.
fn newest(id: &str, columns: &str) -> String {
    format!(
        "SELECT {columns} FROM watchllm.provider_key_access_logs WHERE provider_key_id = '{id}' ORDER BY seq DESC LIMIT 1"
    )
}

const GIVEN: &str = "request_id, ip_address, user_agent";

#[test]
fn arguments_win_over_the_transactions_settings() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let id = &store(c, &p, "openai", &new_key());
    assert_eq!(one(c, &newest(id, GIVEN)), "-|-|-");
    one(
        c,
        "BEGIN; SET LOCAL watchllm.request_id = 'r set'; SET LOCAL watchllm.ip_address = '203.0.113.9'",
    );
    one(c, "SET LOCAL watchllm.user_agent = 'a set'");
    one(c, &decrypt(id));
    assert_eq!(one(c, &newest(id, GIVEN)), "r set|203.0.113.9|a set");
    let arguments = "'r given', '2001:db8::1', 'a given'";
    for sql in [
        format!("SELECT watchllm.decrypt_provider_key('{id}', NULL, {arguments})"),
        format!("SELECT watchllm.decrypt_provider_keys(ARRAY['{id}']::uuid[], {arguments})"),
        format!("SELECT watchllm.validate_provider_key('{id}', {arguments})"),
        format!("SELECT watchllm.resolve_provider_key('{p}', 'openai', {arguments})"),
    ] {
        one(c, &sql);
        assert_eq!(one(c, &newest(id, GIVEN)), "r given|2001:db8::1|a given", "{sql}");
        one(c, &decrypt(id));
    }
    one(c, "COMMIT");
    one(c, &decrypt(id)); // the settings went with their transaction
    assert_eq!(one(c, &newest(id, GIVEN)), "-|-|-");
    for (function, arguments) in [
        ("rotate_provider_key", format!("'{}', NULL, ", new_key())),
        ("rollback_provider_key", "NULL, ".into()),
        ("set_provider_key_active", "true, ".into()),
        ("delete_provider_key", String::new()),
    ] {
        one(
            c,
            &format!(
                "SELECT watchllm.{function}('{id}', {arguments} 'r', '192.0.2.1', '{function}')"
            ),
        );
        assert_eq!(one(c, &newest(id, GIVEN)), format!("r|192.0.2.1|{function}"));
    }
}

#[test]
fn long_context_is_cut_at_a_character() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let id = &store(c, &p, "openai", &new_key());
    let with = |request: &str, address: &str, agent: &str| {
        format!("SELECT watchllm.decrypt_provider_key('{id}', NULL, {request}, {address}, {agent})")
    };
    one(c, &with("repeat('日', 60)", "'a' || repeat('é', 60)", "'abc' || repeat('🔑', 100)"));
    assert_eq!(
        one(
            c,
            &newest(
                id,
                "octet_length(request_id), octet_length(ip_address), octet_length(user_agent)"
            )
        ),
        "126|63|255"
    );
    assert_eq!(one(c, &newest(id, "request_id")), "日".repeat(42));
    one(c, &with("repeat('r', 1000)", "repeat('i', 1000)", "repeat('u', 1048576)"));
    assert_eq!(
        one(c, &newest(id, "length(request_id), length(ip_address), length(user_agent)")),
        "128|64|256"
    );
    one(c, &with("E'a\\nb\\tc'", "''", "E'x\\u202Ey'"));
    assert_eq!(one(c, &newest(id, "request_id, user_agent")), "a?b?c|x?y"); // no forged lines in what people read
}

/// What callers say of a request, but for the subject of claims, comes from settings of the same
/// names. The list of the trail's columns says which these are.
#[test]
fn every_column_that_callers_fill_is_taken_from_its_setting_masked_and_cut() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let id = &store(c, &p, "openai", &new_key());
    let said = COLUMNS.iter().filter(|column| column.is(Mark::Said)).map(|column| column.name);
    let said: Vec<&str> = said.filter(|name| *name != "claims_sub").collect();
    assert!(said.len() >= 3, "{said:?}");
    for name in said {
        for (given, kept) in [
            (format!("{name}-1"), format!("{name}-1")),
            (new_key(), "sk-proj-...[REDACTED]".to_owned()),
        ] {
            one(c, &format!("SET watchllm.{name} = '{given}'"));
            one(c, &decrypt(id));
            assert_eq!(one(c, &newest(id, name)), kept, "{name}");
        }
        one(c, &format!("SELECT set_config('watchllm.{name}', repeat('x', 100000), false)"));
        one(c, &decrypt(id));
        let cut = format!("{name} ~ '^x+$' AND length({name}) BETWEEN 40 AND 256");
        assert_eq!(one(c, &newest(id, &cut)), "t", "{name} is not cut");
        one(c, &format!("RESET watchllm.{name}"));
    }
}

#[test]
fn a_key_in_the_context_is_not_kept() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let id = &store(c, &p, "openai", &new_key());
    let canary = new_key();
    one(c, &format!("SET application_name = 'app {canary}'"));
    one(
        c,
        &format!(
            "SELECT watchllm.decrypt_provider_key('{id}', NULL, 'r {canary}', '{canary}', 'agent {canary} end')"
        ),
    );
    one(c, &format!("SET watchllm.user_agent = '{}{canary}'", "u".repeat(230))); // straddles the cut
    one(c, &decrypt(id));
    let kept = rows(
        c,
        &format!(
            "SELECT application_name, request_id, ip_address, user_agent FROM watchllm.provider_key_access_logs
        WHERE provider_key_id = '{id}' AND access_type = 'decrypt' ORDER BY seq"
        ),
    );
    assert!(
        kept[0].contains(
            "sk-proj-...[REDACTED]|sk-proj-...[REDACTED]|agent sk-proj-...[REDACTED] end"
        ),
        "{kept:?}"
    );
    // the application's name is masked where it is set, byte for byte
    assert!(
        kept.iter().all(|row| !row.contains(&canary[8..14]) && row.contains("app sk-proj-***")),
        "{kept:?}"
    );
    one(c, "RESET watchllm.user_agent; RESET application_name");
}

#[test]
fn set_role_hides_nobody() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let id = &store(c, &p, "openai", &new_key());
    let login = &format!("login_{}", Uuid::new_v4().simple());
    one(c, &format!("CREATE ROLE {login} LOGIN IN ROLE watchllm_service"));
    let s = &mut vault.connect(login);
    one(s, &decrypt(id));
    assert_eq!(
        one(c, &newest(id, "session_role, effective_role, role_setting")),
        format!("{login}|{login}|none")
    );
    one(s, &format!("SET ROLE watchllm_service; {}", decrypt(id)));
    let columns = "session_role, effective_role, role_setting, application_name, client_addr, claims_trusted, backend_pid";
    let pid = one(s, "SELECT pg_backend_pid()");
    let expected = format!("{login}|watchllm_service|watchllm_service|cluster test|-|f|{pid}");
    assert_eq!(one(c, &newest(id, columns)), expected);
    one(
        c,
        &format!("SET SESSION AUTHORIZATION {login}; {}; RESET SESSION AUTHORIZATION", decrypt(id)),
    );
    assert_eq!(one(c, &newest(id, "session_role, effective_role")), format!("{login}|{login}"));
}

#[test]
fn a_change_carries_its_transaction_and_a_read_burns_none() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    one(c, "BEGIN");
    let id = &store(c, &p, "openai", &new_key());
    let txid = one(c, "SELECT pg_current_xact_id()");
    one(c, &rotate(id));
    one(c, "COMMIT");
    let recorded = format!(
        "SELECT access_type, txid FROM watchllm.provider_key_access_logs WHERE provider_key_id = '{id}' ORDER BY seq"
    );
    assert_eq!(rows(c, &recorded), [format!("store|{txid}"), format!("rotate|{txid}")]);
    let assigned = rows(
        c,
        &format!("BEGIN; {}; SELECT pg_current_xact_id_if_assigned(); ROLLBACK", decrypt(id)),
    );
    assert_eq!(
        (assigned[1].as_str(), one(c, &newest(id, "access_type, txid")).as_str()),
        ("-", "decrypt|-")
    );
}

#[test]
fn history_is_bounded_and_newest_first() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let id = &store(c, &p, "openai", &new_key());
    for request in ["r1", "r2", "r3"] {
        one(c, &format!("SELECT watchllm.decrypt_provider_key('{id}', NULL, '{request}')"));
    }
    let columns =
        "SELECT string_agg(name, ' ' ORDER BY place) FROM pg_proc, unnest(proargnames, proargmodes)
        WITH ORDINALITY AS argument (name, mode, place) WHERE mode = 't' AND proname = ";
    let expected = "accessed_at project_id provider_key_id provider key_version access_type success failure_reason \
        attempt_count ip_address user_agent request_id session_role effective_role claims_sub client_addr \
        application_name committed";
    assert_eq!(one(c, &format!("{columns} 'key_access_history'")), expected);
    assert_eq!(one(c, &format!("{columns} 'failed_access_attempts'")), expected);
    let history = |rows: &str| {
        format!(
            "SELECT request_id, access_type, success, committed FROM watchllm.key_access_history('{id}'{rows})"
        )
    };
    assert_eq!(
        rows(c, &history("")),
        ["r3|decrypt|t|t", "r2|decrypt|t|t", "r1|decrypt|t|t", "-|store|t|t"]
    );
    assert_eq!(rows(c, &history(", 2")), ["r3|decrypt|t|t", "r2|decrypt|t|t"]);
    assert_eq!(rows(c, &history(", 10000")).len(), 4);
    for (rows, expected) in [("0", "22023"), ("-1", "22023"), ("10001", "22023"), ("NULL", "22004")]
    {
        assert_eq!(code(c, &history(&format!(", {rows}"))), expected, "{rows}");
    }
    for _ in 0..60 {
        one(c, &decrypt(id));
    }
    assert_eq!(rows(c, &history("")).len(), 50);
}

#[test]
fn failed_attempts_show_since_when_they_are_asked_for() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, unknown) = (project(c), Uuid::new_v4());
    let id = &store(c, &p, "openai", &new_key());
    one(c, &format!("SELECT watchllm.set_provider_key_active('{id}', false)"));
    code(c, &decrypt(id));
    code(c, &decrypt(&unknown.to_string()));
    let failed = |since: &str| {
        format!(
            "SELECT access_type, success, failure_reason FROM watchllm.failed_access_attempts({since})
            WHERE provider_key_id IN ('{id}', '{unknown}')"
        )
    };
    let expected = ["decrypt|f|not_found", "decrypt|f|inactive"];
    assert_eq!(rows(c, &failed("")), expected);
    assert_eq!(rows(c, &failed("'10 minutes'")), expected);
    assert_eq!(rows(c, &failed("'200 years'")), expected);
    one(c, "SELECT pg_sleep(0.01)");
    assert!(rows(c, &failed("'1 millisecond'")).is_empty());
    for (since, expected) in [("'-1 hour'", "22023"), ("NULL", "22004")] {
        assert_eq!(try_rows(c, &failed(since)).unwrap_err().code().code(), expected, "{since}");
    }
}
