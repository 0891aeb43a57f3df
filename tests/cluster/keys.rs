//! Possible faults: keys that come back changed, equal keys with equal ciphertext, hints that tell
//! too much. Rollbacks to a forbidden version, one bad row that breaks a whole list. Above the
//! tests are the shared server and the short forms that these files use. Answers are rows of
//! `|`-joined columns; NULL is `-`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use postgres::SimpleQueryMessage::Row;
use postgres::{Client, error::DbError};
use uuid::Uuid;

use crate::server::Server;

/// A server with a vault. Tests share it while one of them runs, each with its own projects and
/// roles.
pub(crate) struct Vault(Arc<Mutex<Server>>);

impl Vault {
    pub(crate) fn shared() -> Vault {
        static SHARED: Mutex<Weak<Mutex<Server>>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let server = shared.upgrade().unwrap_or_else(|| {
            // a starved machine is no fault of the vault
            let conf =
                "max_connections = 150\nlog_temp_files = 0\nwatchllm_keys.audit_timeout = '60s'
watchllm_keys.incident_budget = 1000"; // many tests share its roles
            Arc::new(Mutex::new(Server::with_vault_and(conf)))
        });
        *shared = Arc::downgrade(&server);
        Vault(server)
    }

    pub(crate) fn server(&self) -> MutexGuard<'_, Server> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn connect(&self, user: &str) -> Client {
        self.server().connect("postgres", user)
    }
}

pub(crate) fn try_rows(c: &mut Client, sql: &str) -> Result<Vec<String>, Box<DbError>> {
    let messages = c.simple_query(sql).map_err(|error| {
        Box::new(
            error
                .as_db_error()
                .unwrap_or_else(|| panic!("the connection broke: {error}\n{sql}"))
                .clone(),
        )
    })?;
    let columns = |row: &postgres::SimpleQueryRow| {
        (0..row.len()).map(|i| row.get(i).unwrap_or("-").to_owned()).collect::<Vec<_>>().join("|")
    };
    Ok(messages
        .iter()
        .filter_map(|message| if let Row(row) = message { Some(columns(row)) } else { None })
        .collect())
}

pub(crate) fn rows(c: &mut Client, sql: &str) -> Vec<String> {
    try_rows(c, sql)
        .unwrap_or_else(|error| panic!("{}: {}\n{sql}", error.code().code(), error.message()))
}

/// The first row of the answer, or an empty text.
pub(crate) fn one(c: &mut Client, sql: &str) -> String {
    rows(c, sql).into_iter().next().unwrap_or_default()
}

pub(crate) fn refusal(c: &mut Client, sql: &str) -> Box<DbError> {
    try_rows(c, sql).expect_err(sql)
}

/// The SQLSTATE. 00000 is a success.
pub(crate) fn code(c: &mut Client, sql: &str) -> String {
    try_rows(c, sql).map_or_else(|error| error.code().code().to_owned(), |_| "00000".to_owned())
}

pub(crate) fn new_key() -> String {
    format!("sk-proj-{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

pub(crate) fn project(c: &mut Client) -> String {
    one(c, "SELECT watchllm.create_project('a project')")
}

pub(crate) fn store(c: &mut Client, project: &str, provider: &str, key: &str) -> String {
    one(c, &format!("SELECT watchllm.store_provider_key('{project}', '{provider}', '{key}')"))
}

pub(crate) fn decrypt(id: &str) -> String {
    format!("SELECT watchllm.decrypt_provider_key('{id}')")
}

pub(crate) fn rotate(id: &str) -> String {
    format!("SELECT watchllm.rotate_provider_key('{id}', '{}')", new_key())
}

/// Flips a bit of the last envelope's ciphertext.
pub(crate) fn damage(c: &mut Client, id: &str) {
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_versions SET envelope = set_byte(envelope, 35, get_byte(envelope, 35) # 1)
        WHERE provider_key_id = '{id}' AND envelope IS NOT NULL"
        ),
    );
}

pub(crate) fn block(c: &mut Client, id: &str) {
    one(
        c,
        &format!(
            "INSERT INTO watchllm.provider_key_usage (project_id, provider_key_id, blocked_at)
        SELECT project_id, id, now() FROM watchllm.provider_key_records WHERE id = '{id}'
        ON CONFLICT (project_id, provider_key_id) DO UPDATE SET blocked_at = now()"
        ),
    );
}

/// Access type and failure reason of the newest row about a key.
pub(crate) fn last_event(c: &mut Client, id: &str) -> String {
    one(
        c,
        &format!(
            "SELECT access_type, failure_reason FROM watchllm.provider_key_access_logs
        WHERE provider_key_id = '{id}' ORDER BY seq DESC LIMIT 1"
        ),
    )
}

#[test]
fn every_byte_of_a_key_comes_back() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let signs: String = ('!'..='~').filter(|c| !"\"',;*".contains(*c)).collect();
    for (i, key) in ["k", &new_key(), &signs, &"x".repeat(4096), "id:secret=="].iter().enumerate() {
        let id = store(c, &p, &format!("vendor-{i}"), key);
        assert_eq!(&one(c, &decrypt(&id)), key);
        assert_eq!(one(c, &format!("SELECT watchllm.validate_provider_key('{id}')")), "t");
    }
}

#[test]
fn equal_keys_share_nothing_but_the_fingerprint() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), new_key());
    store(c, &p, "openai", &key);
    store(c, &p, "openai", &key);
    let counts = "SELECT count(DISTINCT substring(envelope, 6, 16)), count(DISTINCT substring(envelope, 22, 12)),
        count(DISTINCT substring(envelope, 34)), count(DISTINCT fingerprint), min(octet_length(envelope)),
        max(octet_length(envelope)), bool_or(position(convert_to($$KEY$$, 'UTF8') IN envelope) > 0)
        FROM watchllm.provider_key_versions WHERE project_id = ";
    let counts = format!("{}'{p}'", counts.replace("KEY", &key[8..]));
    assert_eq!(one(c, &counts), format!("2|2|2|1|{0}|{0}|f", key.len() + 49));
    let other = project(c);
    store(c, &other, "openai", &key);
    let equal = format!(
        "SELECT count(DISTINCT fingerprint) FROM watchllm.provider_key_versions WHERE project_id IN ('{p}', '{other}')"
    );
    assert_eq!(one(c, &equal), "1");
    store(c, &other, "openai", &new_key());
    assert_eq!(one(c, &equal), "2");
}

#[test]
fn a_hint_shows_no_more_than_prefix_and_four() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), new_key());
    let hint = |c: &mut Client, id: &str| {
        one(c, &format!("SELECT key_hint FROM watchllm.provider_key_records WHERE id = '{id}'"))
    };
    let long = format!("sk-proj-…{}", &key[key.len() - 4..]);
    let id = store(c, &p, "openai", &key);
    assert_eq!(hint(c, &id), long);
    let short = format!("sk-proj-{}", "Ab3".repeat(10));
    for (i, (key, expected)) in [
        (short.as_str(), "sk-proj-…"),
        (&"q".repeat(31), "…"),
        (&"q".repeat(32), "…qqqq"),
        ("k", "…"),
    ]
    .iter()
    .enumerate()
    {
        let id = store(c, &p, &format!("vendor-{i}"), key);
        assert_eq!(&hint(c, &id), expected);
    }
    one(c, &format!("SELECT watchllm.rotate_provider_key('{id}', 'short')"));
    assert_eq!(hint(c, &id), "…");
    one(c, &format!("SELECT watchllm.rollback_provider_key('{id}')"));
    assert_eq!(hint(c, &id), long);
}

#[test]
fn a_rollback_returns_only_what_may_return() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, first) = (project(c), new_key());
    let id = &store(c, &p, "openai", &first);
    let back = |to: &str| format!("SELECT watchllm.rollback_provider_key('{id}', {to})");
    let mark = |number: i32, set: &str| {
        format!(
            "UPDATE watchllm.provider_key_versions SET {set} WHERE provider_key_id = '{id}' AND version = {number}"
        )
    };
    assert_eq!(code(c, &back("NULL")), "02000");
    assert_eq!((one(c, &rotate(id)), one(c, &rotate(id))), ("2".into(), "3".into()));
    assert_eq!((one(c, &back("NULL")), one(c, &back("NULL"))), ("2".into(), "1".into()));
    assert_eq!(one(c, &decrypt(id)), first);
    assert_eq!(one(c, &rotate(id)), "4"); // the highest ever plus one, not the active plus one
    assert_eq!((one(c, &back("3")), one(c, &rotate(id))), ("3".into(), "5".into()));
    one(c, &mark(4, "compromised_at = now()"));
    assert_eq!(
        (code(c, &back("4")), last_event(c, id)),
        ("42000".into(), "rollback|compromised".into())
    );
    one(c, &mark(3, "envelope = set_byte(envelope, 40, get_byte(envelope, 40) # 1)"));
    assert_eq!(
        (code(c, &back("3")), last_event(c, id)),
        ("XX001".into(), "rollback|damaged_envelope".into())
    );
    assert_eq!(
        (code(c, &back("99")), last_event(c, id)),
        ("02000".into(), "rollback|not_found".into())
    );
    assert_eq!(one(c, &back("NULL")), "2"); // past the compromised and the damaged one
}

#[test]
fn a_destroyed_version_cannot_return() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let id = &store(c, &p, "openai", &new_key());
    one(c, &rotate(id));
    one(
        c,
        &format!(
            "UPDATE watchllm.provider_key_versions SET envelope = NULL, destroyed_at = now()
        WHERE provider_key_id = '{id}' AND version = 1"
        ),
    );
    for to in ["NULL", "1"] {
        assert_eq!(
            code(c, &format!("SELECT watchllm.rollback_provider_key('{id}', {to})")),
            "02000",
            "{to}"
        );
        assert_eq!(last_event(c, id), "rollback|not_found");
    }
}

#[test]
fn a_deleted_key_leaves_no_envelope_but_its_history() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = project(c);
    let named = format!(
        "SELECT watchllm.store_provider_key('{p}', 'openai', '{}', 'production')",
        new_key()
    );
    let id = &one(c, &named);
    assert_eq!(code(c, &named), "23505");
    one(c, &rotate(id));
    one(c, &format!("SELECT watchllm.delete_provider_key('{id}')"));
    assert_eq!(
        one(
            c,
            &format!(
                "SELECT count(*), count(envelope), count(destroyed_at), count(fingerprint)
            FROM watchllm.provider_key_versions WHERE provider_key_id = '{id}'"
            )
        ),
        "2|0|2|2"
    );
    assert_eq!(
        (code(c, &decrypt(id)), last_event(c, id)),
        ("02000".into(), "decrypt|deleted".into())
    );
    let history = format!("SELECT access_type FROM watchllm.key_access_history('{id}')");
    assert_eq!(rows(c, &history), ["decrypt", "delete", "rotate", "store"]);
    assert_ne!(&one(c, &named), id);
    assert_eq!(
        one(c, &format!("SELECT count(*) FROM watchllm.provider_keys WHERE project_id = '{p}'")),
        "1"
    );
}

#[test]
fn one_bad_key_does_not_break_a_list() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (p, key) = (project(c), new_key());
    let ids: Vec<String> = (0..5).map(|i| store(c, &p, &format!("vendor-{i}"), &key)).collect();
    let [good, inactive, deleted, damaged, blocked] = ids.try_into().unwrap();
    one(c, &format!("SELECT watchllm.set_provider_key_active('{inactive}', false)"));
    one(c, &format!("SELECT watchllm.delete_provider_key('{deleted}')"));
    damage(c, &damaged);
    block(c, &blocked);
    let (unknown, request) = (Uuid::new_v4(), Uuid::new_v4());
    let list = format!(
        "'{good}', NULL, '{unknown}', '{inactive}', '{good}', '{deleted}', '{damaged}', '{blocked}'"
    );
    assert_eq!(
        rows(
            c,
            &format!(
                "SELECT * FROM watchllm.decrypt_provider_keys(ARRAY[{list}]::uuid[], '{request}')"
            )
        ),
        [
            format!("{good}|{key}|-"),
            "-|-|bad_input".into(),
            format!("{unknown}|-|not_found"),
            format!("{inactive}|-|inactive"),
            format!("{good}|{key}|-"),
            format!("{deleted}|-|deleted"),
            format!("{damaged}|-|damaged_envelope"),
            format!("{blocked}|-|blocked"),
        ]
    );
    assert_eq!(
        rows(
            c,
            &format!(
                "SELECT provider_key_id, failure_reason FROM watchllm.provider_key_access_logs
            WHERE request_id = '{request}' AND access_type = 'decrypt' ORDER BY seq"
            )
        ),
        [
            format!("{good}|-"),
            "-|bad_input".into(),
            format!("{unknown}|not_found"),
            format!("{inactive}|inactive"),
            format!("{good}|-"),
            format!("{deleted}|deleted"),
            format!("{damaged}|damaged_envelope"),
            format!("{blocked}|blocked"),
        ]
    );
    assert!(rows(c, "SELECT * FROM watchllm.decrypt_provider_keys('{}')").is_empty());
}
