//! Moving in from WatchLLM. Possible faults: keys that come out changed, a bad row that stops the
//! run, a second run that undoes later changes. Also an import past the limits, and a roll-back
//! that leaves something. WebCrypto makes the rows, as WatchLLM's worker does. `import_attacks` has
//! hostile tables and callers.

use std::path::PathBuf;

use postgres::Client;
use uuid::Uuid;

use crate::commands::{command, give_to_runner, run_with_input, text};
use crate::keys::{Vault, code, decrypt, new_key, one, project, rows, store};

/// A secret as people choose them, with characters beyond ASCII.
pub(crate) const SECRET: &str = "ein sehr geheimes Geheimnis: schlüssel, 鍵, 🗝";

/// A key of WatchLLM's table, in JSON: text, or bytes that are no text.
pub(crate) fn sealed(secret: &str, keys: &[serde_json::Value]) -> Vec<[String; 2]> {
    let argument = serde_json::json!({ "secret": secret, "keys": keys }).to_string();
    let mut node = command("node");
    node.args(["--input-type=module", "-"]).arg(argument);
    let output = run_with_input(&mut node, include_str!("../import/webcrypto.mjs"));
    assert!(output.status.success(), "node failed:\n{}", text(&output.stderr));
    let pair = |line: &str| line.split_once(' ').map(|(key, iv)| [key.to_owned(), iv.to_owned()]);
    text(&output.stdout).lines().filter_map(pair).collect()
}

pub(crate) fn sealed_texts(secret: &str, keys: &[&str]) -> Vec<[String; 2]> {
    sealed(secret, &keys.iter().map(|key| serde_json::json!(key)).collect::<Vec<_>>())
}

/// A file on the server, beside its keyring.
pub(crate) fn file(vault: &Vault, content: &[u8]) -> PathBuf {
    let path = vault.server().keyring().with_file_name(format!("old_{}", Uuid::new_v4().simple()));
    std::fs::write(&path, content).unwrap();
    give_to_runner(&path);
    path
}

/// WatchLLM's table, empty, under a name of its own.
pub(crate) fn old_table(c: &mut Client) -> String {
    let name = format!("public.provider_keys_{}", Uuid::new_v4().simple());
    one(
        c,
        &format!(
            "CREATE TABLE {name} (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), project_id uuid, provider varchar(50),
                encrypted_key text, encryption_iv text, name varchar(200), priority int, is_active boolean DEFAULT true,
                created_at timestamptz DEFAULT now(), last_used_at timestamptz)"
        ),
    );
    name
}

/// Adds a row. `more` holds further columns and their values as SQL. Answers its id.
pub(crate) fn add(
    c: &mut Client,
    table: &str,
    project: &str,
    provider: &str,
    [key, iv]: &[String; 2],
    more: (&str, &str),
) -> String {
    let (columns, values) = more;
    one(
        c,
        &format!(
            "INSERT INTO {table} (project_id, provider, encrypted_key, encryption_iv {columns})
            VALUES ('{project}', '{provider}', '{key}', '{iv}' {values}) RETURNING id"
        ),
    )
}

pub(crate) fn import(table: &str, file: &std::path::Path, columns: &str) -> String {
    format!("SELECT {columns} FROM watchllm.import_watchllm_keys('{table}', '{}')", file.display())
}

fn all(table: &str) -> String {
    format!("SELECT md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} t")
}

#[test]
fn rows_of_webcrypto_open_and_the_old_table_stays() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, table, long) = (project(c), old_table(c), "x".repeat(4096));
    for (number, secret) in [SECRET, "0123456789abcdef0123456789abcdef"].iter().enumerate() {
        let keys = [
            format!("key-{}", Uuid::new_v4()),
            "id:secret/with+signs==".into(),
            long.clone(),
            "k".into(),
        ];
        let made = sealed_texts(secret, &keys.each_ref().map(String::as_str));
        one(c, &format!("DELETE FROM {table}"));
        let add = |(i, sealed)| {
            let dated = (", created_at, name, priority", ", '2024-02-29 12:00Z', 'a name', 7");
            add(c, &table, &p, &format!("vendor-{number}-{i}"), sealed, dated)
        };
        let ids: Vec<String> = made.iter().enumerate().map(add).collect();
        let before = one(c, &all(&table));
        let old_secret = file(&vault, format!("{secret}\n").as_bytes());
        let imported = import(
            &table,
            &old_secret,
            "provider_key_id, project_id, provider, name, outcome, detail",
        );
        let expected = |(i, id)| format!("{id}|{p}|vendor-{number}-{i}|a name|imported|-");
        assert_eq!(rows(c, &imported), ids.iter().enumerate().map(expected).collect::<Vec<_>>());
        for (id, key) in ids.iter().zip(&keys) {
            assert_eq!(&one(c, &decrypt(id)), key);
            assert_eq!(one(c, &format!("SELECT watchllm.validate_provider_key('{id}')")), "t");
            let stored = format!(
                "SELECT r.priority, r.is_active, r.active_version, v.version, v.created_by,
                    r.created_at = '2024-02-29 12:00Z' AND v.created_at = r.created_at
                        AND r.active_version_created_at = r.created_at
                FROM watchllm.provider_key_records r JOIN watchllm.provider_key_versions v ON v.provider_key_id = r.id
                WHERE r.id = '{id}'"
            );
            assert_eq!(one(c, &stored), "7|t|1|1|postgres|t");
            let history = format!(
                "SELECT access_type, success, key_version, committed, project_id
                FROM watchllm.key_access_history('{id}') WHERE access_type = 'import'"
            );
            assert_eq!(rows(c, &history), [format!("import|t|1|t|{p}")]);
        }
        assert_eq!(one(c, &all(&table)), before);
    }
}

#[test]
fn a_bad_row_is_passed_over_and_told() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, other, table) = (project(c), project(c), old_table(c));
    let texts = ["good", " white space", "", "tab\tbed", &"x".repeat(4097)]
        .map(|key| serde_json::json!(key));
    let bytes = ["ff00fe", "610062"].map(|hex| serde_json::json!({ "hex": hex }));
    let made = sealed(SECRET, &[&texts[..], &bytes].concat());
    let foreign = &sealed_texts("another secret", &["theirs"])[0];
    let [key, iv] = &made[0];
    let nowhere = Uuid::new_v4().to_string();
    let taken = store(c, &other, "openai", &new_key());
    let there = store(c, &p, "openai", &new_key());
    let with_id = |id: &str| format!(", '{id}'");
    let cut = [key[..40].to_owned(), iv.clone()];
    let spoilt =
        [format!("{}{}", if key.starts_with('A') { 'B' } else { 'A' }, &key[1..]), iv.clone()];
    let cases: Vec<(&str, &str, &str, [String; 2], String, &str)> = vec![
        ("a", &p, "good-one", made[0].clone(), String::new(), "imported"),
        ("b", &p, "white", made[1].clone(), String::new(), "bad_input"),
        ("c", &p, "empty", made[2].clone(), String::new(), "bad_input"),
        ("d", &p, "tab", made[3].clone(), String::new(), "bad_input"),
        ("e", &p, "long", made[4].clone(), String::new(), "bad_input"),
        ("f", &p, "latin", made[5].clone(), String::new(), "bad_input"),
        ("g", &p, "nul", made[6].clone(), String::new(), "bad_input"),
        ("h", &p, "cut", cut, String::new(), "damaged"),
        ("i", &p, "no-base64", ["%%%".into(), iv.clone()], String::new(), "damaged"),
        ("j", &p, "no-iv", [key.clone(), String::new()], String::new(), "damaged"),
        ("k", &p, "huge", ["A".repeat(1 << 20), iv.clone()], String::new(), "damaged"),
        ("l", &p, "spoilt", spoilt, String::new(), "wrong_secret"),
        ("m", &p, "foreign", foreign.clone(), String::new(), "wrong_secret"),
        ("n", &p, "Not A Slug", made[0].clone(), String::new(), "bad_input"),
        ("o", &nowhere, "openai", made[0].clone(), String::new(), "unknown_project"),
        ("p", &p, "openai", made[0].clone(), with_id(&taken), "conflict"),
        ("q", &p, "openai", made[0].clone(), with_id(&there), "already_there"),
        ("r", &p, "OpenRouter", made[0].clone(), String::new(), "imported"),
    ];
    for (name, project, provider, pair, id, ..) in &cases {
        let column = if id.is_empty() { ", name" } else { ", name, id" };
        add(c, &table, project, provider, pair, (column, &format!(", '{name}' {id}")));
    }
    // Without its primary key the table accepts rows without an id.
    one(
        c,
        &format!(
            "ALTER TABLE {table} DROP CONSTRAINT {}_pkey",
            table.trim_start_matches("public.")
        ),
    );
    one(
        c,
        &format!(
            "ALTER TABLE {table} ALTER id DROP NOT NULL; INSERT INTO {table} (id, name) VALUES (NULL, 'z')"
        ),
    );
    let request = Uuid::new_v4();
    one(c, &format!("BEGIN; SET LOCAL watchllm.request_id = '{request}'"));
    let answer =
        rows(c, &import(&table, &file(&vault, SECRET.as_bytes()), "name, outcome, detail IS NULL"));
    one(c, "ROLLBACK");
    for (name, _, provider, _, _, outcome) in &cases {
        let silent = if ["imported", "already_there"].contains(outcome) { "t" } else { "f" };
        assert!(answer.contains(&format!("{name}|{outcome}|{silent}")), "{provider}: {answer:?}");
    }
    assert!(answer.contains(&"z|bad_input|f".to_owned()));
    assert_eq!(answer.len(), cases.len() + 1);
    // Refusals stay recorded even if the transaction rolls back. Rolled-back changes do not.
    let recorded = rows(
        c,
        &format!(
            "SELECT coalesce(failure_reason, 'success'), count(*) FROM watchllm.provider_key_access_logs
            WHERE request_id = '{request}' AND access_type = 'import' GROUP BY 1 ORDER BY 1"
        ),
    );
    assert_eq!(
        recorded,
        ["bad_input|9", "damaged_envelope|4", "not_found|1", "wrong_master_key|2"]
    );
    let left =
        "SELECT count(*) FROM watchllm.provider_key_records r JOIN watchllm.provider_key_versions v
        ON v.provider_key_id = r.id WHERE r.project_id =";
    assert_eq!(one(c, &format!("{left} '{p}'")), "1"); // what store_provider_key stored
    assert_eq!(
        one(
            c,
            &format!(
                "SELECT count(*) FROM watchllm.committed_changes e JOIN watchllm.provider_key_access_logs l
                ON l.id = e.event_id WHERE l.request_id = '{request}'"
            )
        ),
        "0"
    );
}

#[test]
fn a_second_run_changes_nothing_of_what_came_since() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, table, key) = (project(c), old_table(c), "an-imported-key".to_owned());
    let pair = &sealed_texts(SECRET, &[&key])[0];
    let [kept, rotated, deleted, off] =
        ["a", "b", "c", "d"].map(|vendor| add(c, &table, &p, vendor, pair, ("", "")));
    let again = import(&table, &file(&vault, SECRET.as_bytes()), "outcome, detail");
    assert_eq!(rows(c, &again), ["imported|-"; 4]);
    one(c, &format!("SELECT watchllm.rotate_provider_key('{rotated}', 'the-next-key')"));
    one(c, &format!("SELECT watchllm.delete_provider_key('{deleted}')"));
    one(c, &format!("SELECT watchllm.set_provider_key_active('{off}', false)"));
    let state = format!(
        "SELECT md5(string_agg(r::text || v::text, '' ORDER BY v::text)), (SELECT count(*)
            FROM watchllm.provider_key_access_logs l WHERE l.project_id = '{p}')
        FROM watchllm.provider_key_records r JOIN watchllm.provider_key_versions v ON v.provider_key_id = r.id
        WHERE r.project_id = '{p}'"
    );
    let before = one(c, &state);
    assert_eq!(rows(c, &again), ["already_there|-"; 4]);
    assert_eq!(one(c, &state), before);
    assert_eq!((one(c, &decrypt(&kept)), one(c, &decrypt(&rotated))), (key, "the-next-key".into()));
    assert_eq!(
        (code(c, &decrypt(&deleted)), code(c, &decrypt(&off))),
        ("02000".into(), "42000".into())
    );
}

#[test]
fn limits_and_names_hold() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, table) = (project(c), old_table(c));
    let (pair, shaped) =
        (&sealed_texts(SECRET, &["k"])[0], &sealed_texts(SECRET, &[&new_key()])[0]);
    store(c, &p, "openai", &new_key()); // takes priority 1
    let long = "ö".repeat(60); // 120 bytes
    for values in [
        ", 'two', 2, true, '2024-01-02Z'",
        ", 'one', 1, true, '2024-01-03Z'",
        ", 'none, young', NULL, true, '2024-01-05Z'",
        ", 'none, old', 0, true, '2024-01-04Z'",
        ", 'off', NULL, false, '2024-01-01Z'",
    ] {
        add(c, &table, &p, "OpenAI", pair, (", name, priority, is_active, created_at", values));
    }
    let dated = |name: &str, day: u32| format!(", {name}, '2024-01-0{day}Z'");
    for (day, name) in [
        "'same'",
        "'same'",
        "'same'",
        &format!("'{long}'"),
        &format!("'{long}'"),
        "E'a\\nb'",
        "'  '",
    ]
    .iter()
    .enumerate()
    {
        add(c, &table, &p, "xai", pair, (", name, created_at", &dated(name, day as u32 + 1)));
    }
    let leaked = new_key();
    let named = format!(", 'my {leaked}', now() + interval '1 day'");
    add(c, &table, &p, "groq", shaped, (", name, created_at", &named));
    let answer = rows(
        c,
        &import(&table, &file(&vault, SECRET.as_bytes()), "provider, name, outcome, detail"),
    );
    let full = "inactive: the project has 3 active keys of this provider";
    let cut = "ö".repeat(50);
    let numbered = format!("{} (2)", "ö".repeat(48));
    assert_eq!(
        answer,
        [
            "groq|my sk-proj-...[REDACTED]|imported|it has the shape of a key of provider openai"
                .into(),
            "openai|one|imported|-".into(),
            "openai|two|imported|-".into(),
            "openai|off|imported|inactive, as it was".into(),
            format!("openai|none, old|imported_inactive|{full}"),
            format!("openai|none, young|imported_inactive|{full}"),
            "xai|same|imported|-".into(),
            "xai|same (2)|imported|the name was taken".into(),
            "xai|same (3)|imported|the name was taken".into(),
            format!("xai|{cut}|imported_inactive|{full}"),
            format!("xai|{numbered}|imported_inactive|{full}; the name was taken"),
            format!("xai|a?b|imported_inactive|{full}"),
            format!("xai|-|imported_inactive|{full}"),
        ]
    );
    let stored = format!(
        "SELECT name, priority, is_active FROM watchllm.provider_key_records
        WHERE project_id = '{p}' AND provider = 'openai' AND name IS NOT NULL ORDER BY created_at"
    );
    assert_eq!(
        rows(c, &stored),
        ["off|3|f", "two|2|t", "one|1|t", "none, old|3|f", "none, young|3|f"]
    );
    let future = format!(
        "SELECT count(*) FROM watchllm.provider_key_records WHERE project_id = '{p}' AND created_at > now()"
    );
    assert_eq!(one(c, &future), "0");
}
