//! Keys in text: a key of ours without a known shape, written as in a URL or in JSON within JSON,
//! rotated away or deleted. Also texts that only look like a key, who may ask, that each question
//! is recorded, and a text of megabytes.

use uuid::Uuid;

use crate::keys::{Vault, code, new_key, one, project, rotate, rows, store};
use crate::roles::login;

fn find(text: &str) -> String {
    format!(
        "SELECT provider, start, length, redacted, provider_key_id FROM watchllm.find_keys($t${text}$t$)"
    )
}

#[test]
fn a_key_of_ours_is_known_in_every_spelling() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), format!("odd/shape+{}=", Uuid::new_v4().simple()));
    let id = store(c, &p, "selfmade", &key);
    let escaped = key.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    let json = key.replace('/', "\\/").replace('=', "\\u003d");
    for (before, written, after) in [
        ("", &key, ""),
        ("the key is ", &key, "."),
        ("OWN_KEY=", &key, "\n"),
        ("日本「", &key, "」"),
        ("GET /v1?key=", &escaped, "&x=1"),
        ("{\"key\":\"", &json, "\"}"),
        ("{\\\"key\\\":\\\"", &json.replace('\\', "\\\\"), "\\\"}"),
        ("{\"log\":\"first\\n", &key, "\\nlast\"}"),
        ("Authorization: Bearer ", &key, "\r\nAccept: */*"),
    ] {
        let (start, length) = (before.chars().count() + 1, written.chars().count());
        let found = rows(c, &find(&format!("{before}{written}{after}")));
        assert_eq!(
            found,
            [format!("selfmade|{start}|{length}|...[REDACTED]|{id}")],
            "{before}{written}{after}"
        );
    }
}

#[test]
fn a_key_that_was_rotated_away_or_deleted_is_still_known() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, q, key) = (project(c), project(c), new_key());
    let (first, second) = (store(c, &p, "openai", &key), store(c, &q, "openai", &key));
    one(c, &rotate(&first));
    one(c, &format!("SELECT watchllm.delete_provider_key('{second}')"));
    let mut expected =
        [&first, &second].map(|id| format!("openai|3|{}|sk-proj-...[REDACTED]|{id}", key.len()));
    let mut found = rows(c, &find(&format!("a {key} b")));
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}

#[test]
fn what_is_not_ours_is_found_by_its_shape_and_plain_text_is_not_found() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let key = new_key();
    assert_eq!(
        rows(c, &find(&format!("x={key}"))),
        [format!("openai|3|{}|sk-proj-...[REDACTED]|-", key.len())]
    );
    assert!(
        rows(c, &find("a text without keys: task-force, risk-adjusted, 4711, sk-proj-")).is_empty()
    );
    assert!(rows(c, &find("")).is_empty());
    assert_eq!(code(c, "SELECT watchllm.find_keys(NULL)"), "22004");
}

#[test]
fn who_asks_is_on_record_and_tenants_may_not() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), new_key());
    store(c, &p, "openai", &key);
    for (role, expected) in
        [("watchllm_service", "00000"), ("watchllm_auditor", "00000"), ("watchllm_tenant", "42501")]
    {
        let caller = login(c, role);
        let s = &mut vault.connect(&caller);
        assert_eq!(code(s, &find(&key)), expected, "{role}");
        let asked = format!(
            "SELECT count(*) FROM watchllm.provider_key_access_logs
            WHERE session_role = '{caller}' AND access_type = 'validate' AND provider_key_id IS NULL"
        );
        assert_eq!(one(c, &asked), if expected == "00000" { "1" } else { "0" });
    }
}

#[test]
fn a_long_text_is_searched_and_can_be_cancelled() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), format!("odd-{}", Uuid::new_v4().simple()));
    let id = store(c, &p, "selfmade", &key);
    let long = format!(
        "SELECT start, provider_key_id FROM watchllm.find_keys(repeat('key=aaaaaaaa/bbbbbbbb ', 50000) || '{key}')"
    );
    assert_eq!(rows(c, &long), [format!("1100001|{id}")]);
    assert_eq!(
        code(
            c,
            "SET statement_timeout = '200ms'; SELECT watchllm.find_keys(repeat('a=bbbbbbbb:cccccccc/', 5000000))"
        ),
        "57014"
    );
    one(c, "RESET statement_timeout");
}
