//! Headers of a request in the trail: what they may hold there (address, agent, request id, with
//! their lengths). Tokens, keys and cookies must never enter with them. Also whose headers count.

use uuid::Uuid;

use crate::api::{AUTHENTICATOR, as_api, claims};
use crate::keys::{code, decrypt, new_key, one, rows};
use crate::roles::login;
use crate::tenant_escape::House;

/// Headers as PostgREST passes them, with secrets that must not be kept.
fn headers(secret: &str, more: &str) -> String {
    format!(
        r#"{{"authorization":"Bearer {secret}","apikey":"{secret}","cookie":"session={secret}","x-api-key":"{secret}",
        "host":"{secret}","x-client-info":"{secret}","referer":"{secret}"{more}}}"#
    )
}

#[test]
fn of_a_requests_headers_three_are_kept_and_cut() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let a = house.tenant(c);
    let s = &mut house.connect(AUTHENTICATOR);
    let (secret, key) = (Uuid::new_v4().to_string(), new_key());
    for (forwarded, agent, kept_address, kept_agent) in [
        ("203.0.113.7", "curl/8", "203.0.113.7", "curl/8"),
        ("203.0.113.7, 10.0.0.1, 10.0.0.2", "a", "203.0.113.7", "a"),
        (" 2001:DB8::1 ,10.0.0.1", "a", "2001:db8::1", "a"),
        ("198.51.100.3:4711", "a", "198.51.100.3", "a"),
        ("unknown, 10.0.0.1", "a", "unknown", "a"),
        ("'; DROP TABLE x; --", "a", "'; DROP TABLE x; --", "a"),
        (&"9".repeat(300), &"u".repeat(300), &"9".repeat(64), &"u".repeat(256)),
        (
            &format!("{},1.2.3.4", "é".repeat(100)),
            &"日".repeat(100),
            &"é".repeat(32),
            &"日".repeat(85),
        ),
        (&key, &format!("agent {key}"), "sk-proj-...[REDACTED]", "agent sk-proj-...[REDACTED]"),
        ("10.0.0.1", r"a\nb\u202ec", "10.0.0.1", "a?b?c"),
    ] {
        for (role, expected) in [("service_role", "00000"), ("authenticated", "42501")] {
            let request = Uuid::new_v4().to_string();
            let more = format!(
                r#","x-forwarded-for":"{forwarded}","user-agent":"{agent}","x-request-id":"{request}""#
            );
            let answer = as_api(
                s,
                role,
                &claims(role, &a.sub),
                &headers(&secret, &more),
                "read write",
                &decrypt(&a.key),
            );
            assert_eq!(
                answer.map_or_else(|e| e.code().code().to_owned(), |_| "00000".into()),
                expected
            );
            let row = format!(
                "SELECT ip_address, user_agent FROM watchllm.provider_key_access_logs WHERE request_id = '{request}'"
            );
            // Above the rate, a tenant's refusals share a row, which then describes no single
            // request.
            let kept = rows(c, &row);
            assert!(
                role == "authenticated" && kept.is_empty()
                    || kept == [format!("{kept_address}|{kept_agent}")],
                "{forwarded} {agent}: {kept:?}"
            );
        }
    }
    // In no column of any table, and in no text of the server.
    let tables = rows(
        c,
        "SELECT oid::regclass FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p')",
    );
    for table in tables {
        for what in [secret.as_str(), &key[8..30]] {
            let found = one(
                c,
                &format!("SELECT count(*) FROM {table} t WHERE strpos(t::text, '{what}') > 0"),
            );
            assert_eq!(found, "0", "{table}");
        }
    }
}

#[test]
fn headers_that_are_no_headers_harm_nothing() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let a = house.tenant(c);
    let s = &mut house.connect(AUTHENTICATOR);
    let huge = format!(r#"{{"user-agent":"{}"}}"#, "x".repeat(1_000_000));
    for odd in [
        "",
        "x",
        "[]",
        "null",
        "{",
        r#"{"user-agent":["a"]}"#,
        r#"{"user-agent":"a","user-agent":"b"}"#,
        r#"{"x-forwarded-for":""}"#,
        r#"{"x-request-id":null}"#,
        r#"{"user-agent":"\u0000"}"#,
        &huge,
    ] {
        let answer = as_api(
            s,
            "service_role",
            &claims("service_role", ""),
            odd,
            "read write",
            &decrypt(&a.key),
        );
        assert_eq!(answer.unwrap().len(), 1, "{}", &odd[..odd.len().min(60)]);
    }
    // A proxy accepts 50 kB of headers, and escapes make them longer. The recorded ones are found
    // all the same.
    let padded = format!(
        r#"{{"a":"{}","x-forwarded-for":"192.0.2.77","user-agent":"behind"}}"#,
        r#"\""#.repeat(50_000)
    );
    as_api(s, "service_role", &claims("service_role", ""), &padded, "read write", &decrypt(&a.key))
        .unwrap();
    let behind = "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE ip_address = '192.0.2.77' AND user_agent = 'behind'";
    assert_eq!(one(c, behind), "1");
    // The arguments of a call come first, then the transaction's settings.
    let call = format!(
        "SET LOCAL watchllm.user_agent = 'set'; SELECT watchllm.decrypt_provider_key('{}', request_id => 'given')",
        a.key
    );
    let all = r#"{"user-agent":"header","x-request-id":"header","x-forwarded-for":"192.0.2.9"}"#;
    as_api(s, "service_role", &claims("service_role", ""), all, "read write", &call).unwrap();
    let newest = format!(
        "SELECT request_id, ip_address, user_agent FROM watchllm.provider_key_access_logs
        WHERE provider_key_id = '{}' ORDER BY seq DESC LIMIT 1",
        a.key
    );
    assert_eq!(one(c, &newest), "given|192.0.2.9|set");
}

#[test]
fn headers_of_an_untrusted_session_are_not_looked_at() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let a = house.tenant(c);
    let service = login(c, "watchllm_service");
    let s = &mut house.connect(&service);
    let forged = r#"{"user-agent":"forged","x-request-id":"forged","x-forwarded-for":"192.0.2.9"}"#;
    one(s, &format!("SET request.headers = '{forged}'"));
    assert_eq!(code(s, &decrypt(&a.key)), "00000");
    let newest = format!(
        "SELECT request_id, ip_address, user_agent FROM watchllm.provider_key_access_logs
        WHERE session_role = '{service}' ORDER BY seq DESC LIMIT 1"
    );
    assert_eq!(one(c, &newest), "-|-|-");
}
