//! Computes the chain of the audit trail again from the outside, by docs/architecture.md#bytes
//! alone. The MAC key is opened from the keyring file (PBKDF2, HKDF, AES-256-GCM). Then every row's
//! hash must follow from the row before it. Other tests call `verify` after restarts, failover and
//! restores; this one shows that it notices tampering.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use postgres::GenericClient;
use sha2::Sha256;

use crate::server::{Mode, Server};

/// Columns of the first version of the trail. All of them but the hash are hashed, NULL too; of
/// later ones only values, each behind its number.
const FIRST_VERSION: usize = 28;

/// Every column in table order, by its name and type.
const COLUMNS: &str = "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = 'watchllm.provider_key_access_logs'::regclass AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum";

fn columns(client: &mut impl GenericClient) -> Vec<(String, String)> {
    let rows = client.query(COLUMNS, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// A column as the bytes that are hashed.
fn bytes_of((name, kind): &(String, String)) -> String {
    match kind.as_str() {
        "bigint" => format!("int8send({name})"),
        "integer" => format!("int4send({name})"),
        "boolean" => format!("boolsend({name})"),
        "uuid" => format!("uuid_send({name})"),
        "text" => format!("convert_to({name}, 'UTF8')"),
        "inet" => format!("convert_to(host({name}), 'UTF8')"),
        "xid8" => format!("int8send({name}::text::int8)"),
        "bytea" => name.clone(),
        "timestamp with time zone" => {
            format!("int8send((extract(epoch FROM {name}) * 1000000)::int8)")
        }
        other => panic!("{name}: no rule how {other} is hashed"),
    }
}

const MAC_KEY: &str = "SELECT k.version, k.envelope, m.version, m.salt, m.iterations
    FROM watchllm.audit_keys k JOIN watchllm.master_keys m ON m.version = k.master_key_version
    WHERE k.kind = 'mac' ORDER BY k.version DESC, k.created_at DESC LIMIT 1";

/// Whether the whole trail of a database is unbroken from its first row. Answers how many rows it
/// has.
pub(crate) fn verify(server: &Server, database: &str) -> Result<usize, String> {
    let mut client = server.connect(database, "postgres");
    let key = mac_key(server, &mut client);
    follow(&mut client, &key)
}

/// Follows the trail as this client sees it. The error names the first row that does not follow.
fn follow(client: &mut impl GenericClient, key: &[u8]) -> Result<usize, String> {
    let mut previous = vec![0u8; 32];
    let columns = columns(client);
    let hash = columns.iter().position(|(name, _)| name == "hash").unwrap();
    let bytes: Vec<String> = columns.iter().map(bytes_of).collect();
    let rows =
        format!("SELECT {} FROM watchllm.provider_key_access_logs ORDER BY seq", bytes.join(", "));
    let rows = client.query(&rows, &[]).unwrap();
    for (row, expected_seq) in rows.iter().zip(1i64..) {
        let values: Vec<Option<Vec<u8>>> = (0..columns.len()).map(|at| row.get(at)).collect();
        let seq = i64::from_be_bytes(values[0].as_ref().unwrap().as_slice().try_into().unwrap());
        if seq != expected_seq {
            return Err(format!("row {expected_seq} is missing: {seq} stands in its place"));
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(&previous);
        mac.update(&[1]);
        for (at, value) in values.iter().enumerate().filter(|(at, _)| *at != hash) {
            if at >= FIRST_VERSION && value.is_some() {
                mac.update(&(at as u32 + 1).to_be_bytes());
            }
            match value {
                Some(bytes) => {
                    mac.update(&(bytes.len() as u32).to_be_bytes());
                    mac.update(bytes);
                }
                None if at >= FIRST_VERSION => (),
                None => mac.update(&[0xFF; 4]),
            }
        }
        previous = mac.finalize().into_bytes().to_vec();
        if values[hash].as_ref() != Some(&previous) {
            return Err(format!("row {seq} does not follow from the row before it"));
        }
    }
    Ok(rows.len())
}

fn mac_key(server: &Server, client: &mut postgres::Client) -> Vec<u8> {
    let row = client.query_one(MAC_KEY, &[]).unwrap();
    let (key_version, envelope, master_version): (i32, Vec<u8>, i32) =
        (row.get(0), row.get(1), row.get(2));
    let (salt, iterations): (Vec<u8>, i32) = (row.get(3), row.get(4));
    let keyring = std::fs::read_to_string(server.keyring()).unwrap();
    let of_version =
        |line: &str| line.strip_prefix(&format!("{master_version}:")).map(|s| s.trim().to_owned());
    let secret = keyring.lines().find_map(of_version).expect("the version's line in the keyring");
    let mut root = [0u8; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(secret.as_bytes(), &salt, iterations as u32, &mut root);
    open_audit_key(&root, &envelope, key_version, "mac")
}

/// Opens an envelope of `audit_keys`: header (5), salt (16), nonce (12), ciphertext and tag; AAD of
/// kind 3.
fn open_audit_key(root: &[u8], envelope: &[u8], version: i32, kind: &str) -> Vec<u8> {
    let (header, rest) = envelope.split_at(5);
    let (salt, rest) = rest.split_at(16);
    let (nonce, ciphertext) = rest.split_at(12);
    let mut key = [0u8; 32];
    Hkdf::<Sha256>::new(Some(salt), root).expand(b"watchllm_keys seal v1", &mut key).unwrap();
    let mut aad = b"watchllm_keys aad v1\x03".to_vec();
    aad.extend_from_slice(header);
    aad.extend_from_slice(&[0; 32]);
    aad.extend_from_slice(&(version as u32).to_be_bytes());
    aad.extend_from_slice(&(kind.len() as u16).to_be_bytes());
    aad.extend_from_slice(kind.as_bytes());
    let cipher = Aes256Gcm::new(&key.into());
    let nonce = Nonce::try_from(nonce).unwrap();
    cipher
        .decrypt(&nonce, Payload { msg: ciphertext, aad: &aad })
        .expect("the sealed MAC key opens")
}

/// Writes some twenty rows: successes, refusals, NULLs and text of every kind.
fn live_a_little(server: &Server, database: &str) {
    let sql = "
        DO $do$ BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'größe') THEN
                CREATE ROLE \"größe\" LOGIN; GRANT watchllm_tenant TO \"größe\";
            END IF;
        END $do$;
        SET application_name = 'test';
        SELECT watchllm.create_project('東京', 'sub') AS p \\gset
        SELECT watchllm.store_provider_key(:'p', 'openai', 'old-key-1', 'naïve', user_agent => 'Ünï/1.0 🗝',
            ip_address => '2001:db8::1', request_id => '') AS k \\gset
        BEGIN; SET LOCAL watchllm.request_id = 'réq'; SELECT watchllm.decrypt_provider_key(:'k'); ROLLBACK;
        SELECT watchllm.rotate_provider_key(:'k', 'old-key-2');
        SELECT watchllm.rollback_provider_key(:'k');
        SELECT count(*) FROM watchllm.decrypt_provider_keys(ARRAY[:'k', gen_random_uuid(), NULL]::uuid[]);
        SELECT watchllm.validate_provider_key(:'k');
        SELECT api_key FROM watchllm.resolve_provider_key(:'p', 'openai');
        SELECT watchllm.set_provider_key_active(:'k', false);
        \\set ON_ERROR_STOP 0
        SELECT watchllm.decrypt_provider_key(:'k');
        SELECT watchllm.decrypt_provider_key(NULL);
        SELECT watchllm.store_provider_key(:'p', 'openai', 'with white space');
        SELECT watchllm.resolve_provider_key(:'p', 'nobody');
        SET ROLE \"größe\";
        SELECT watchllm.decrypt_provider_key(:'k', user_agent => '');
        RESET ROLE;
        SELECT watchllm.delete_provider_key(:'k');
        SELECT watchllm.decrypt_provider_key(:'k');";
    server.psql_result(database, sql);
}

/// A loopback address of our own, so that the client's address is no NULL. On 127.0.0.1, port 5432
/// may be taken.
fn loopback() -> String {
    let id = std::process::id();
    format!("127.{}.{}.{}", 16 + id % 200, id / 200 % 250, 1 + id / 50_000 % 250)
}

#[test]
fn every_row_follows_through_restarts_and_crashes() {
    let address = loopback();
    let server = Server::with_vault_and(&format!("listen_addresses = '{address}'"));
    live_a_little(&server, "postgres");
    let mut remote = postgres::Config::new();
    remote.host(&address).user("postgres").dbname("postgres").application_name("über TCP");
    remote
        .connect(postgres::NoTls)
        .unwrap()
        .batch_execute("SELECT watchllm.create_project('far')")
        .unwrap();
    let found = "SELECT count(DISTINCT access_type) >= 8 AND count(DISTINCT failure_reason) >= 5
        AND bool_or(client_addr IS NULL) AND bool_or(client_addr = '127.0.0.1') AND bool_or(txid IS NULL)
        AND bool_or(txid IS NOT NULL) AND bool_or(provider_key_id IS NULL) AND bool_or(user_agent ~ '🗝')
        AND bool_or(request_id = '') AND bool_or(request_id = 'réq') AND bool_or(effective_role = 'größe')
        FROM watchllm.provider_key_access_logs";
    assert_eq!(
        server.psql("postgres", found),
        "t",
        "the trail is not as mixed as this test wants it"
    );
    let first = verify(&server, "postgres").unwrap();
    assert!(first >= 17, "{first}");

    server.kill_backend(server.writer_pid("postgres").unwrap(), "TERM");
    live_a_little(&server, "postgres");
    let second = verify(&server, "postgres").unwrap();
    assert!(second > first);
    server.kill_backend(server.writer_pid("postgres").unwrap(), "KILL");
    server.poll_until("postgres", "SELECT 'back'", "back", 60);
    live_a_little(&server, "postgres");
    server.stop(Mode::Immediate);
    server.start();
    live_a_little(&server, "postgres");
    assert!(verify(&server, "postgres").unwrap() >= second + 30);
    let doubles = "SELECT count(*) - count(DISTINCT id) FROM watchllm.provider_key_access_logs";
    assert_eq!(server.psql("postgres", doubles), "0");
}

#[test]
fn every_row_follows_in_a_restored_database() {
    let server = Server::with_vault();
    live_a_little(&server, "postgres");
    server.psql("postgres", "CREATE DATABASE restored TEMPLATE template0");
    let archive = server.dump("postgres", "vault.dump", &["-Fc"]);
    server.restore("restored", &archive, &[]);
    let before = verify(&server, "restored").unwrap();
    assert_eq!(Ok(before), verify(&server, "postgres"));
    live_a_little(&server, "restored");
    live_a_little(&server, "postgres");
    assert!(verify(&server, "restored").unwrap() > before);
    assert!(verify(&server, "postgres").unwrap() > before);
    let identities = "SELECT count(DISTINCT identity_id) FROM watchllm.provider_key_access_logs";
    assert_eq!(server.psql("restored", identities), "2");
    assert_eq!(server.psql("postgres", identities), "1");
}

/// Changes that a superuser makes to one row in the middle, with the triggers off.
const CHANGES: [&str; 28] = [
    "seq = seq + 1000",
    "id = gen_random_uuid()",
    "accessed_at = accessed_at + interval '1 microsecond'",
    "project_id = NULL",
    "provider_key_id = gen_random_uuid()",
    "provider = 'anthropic'",
    "key_version = 7",
    "access_type = 'export'",
    "success = false, failure_reason = 'limit'",
    "failure_reason = 'blocked', success = false",
    "attempt_count = 2",
    "ip_address = coalesce(ip_address, '') || ' '",
    "user_agent = coalesce(user_agent, '') || 'x'",
    "request_id = coalesce(request_id, '') || 'x'",
    "session_role = 'somebody'",
    "effective_role = 'somebody'",
    "role_setting = 'somebody'",
    "claims_sub = 'somebody'",
    "claims_trusted = NOT claims_trusted",
    "client_addr = '192.0.2.1'",
    "backend_pid = backend_pid + 1",
    "application_name = ''",
    "txid = '3'",
    "epoch = epoch + 1",
    "queue_seq = queue_seq + 100000",
    "identity_id = gen_random_uuid()",
    "chain_key_version = 2",
    "hash = decode(repeat('00', 32), 'hex')",
];

/// The changes above, and one of each column that came later.
fn changes(client: &mut impl GenericClient) -> Vec<String> {
    let later = columns(client).split_off(FIRST_VERSION);
    let change = |(name, kind): &(String, String)| match kind.as_str() {
        "text" => format!("{name} = coalesce({name}, '') || 'x'"),
        "uuid" => format!("{name} = gen_random_uuid()"),
        "boolean" => format!("{name} = {name} IS NOT TRUE"),
        _ => format!("{name} = coalesce({name}, 0) + 1"),
    };
    let first = CHANGES.iter().map(|change| (*change).to_owned());
    first.chain(later.iter().map(change)).collect()
}

const TRIGGERS_OFF: &str = "DO $do$ DECLARE t regclass; BEGIN
    FOR t IN SELECT relid FROM pg_partition_tree('watchllm.provider_key_access_logs') LOOP
        EXECUTE format('ALTER TABLE ONLY %s DISABLE TRIGGER ALL', t);
    END LOOP; END $do$";

#[test]
fn a_changed_missing_or_moved_row_breaks_the_chain() {
    let server = Server::with_vault();
    live_a_little(&server, "postgres");
    let mut client = server.connect("postgres", "postgres");
    let key = mac_key(&server, &mut client);
    let rows = follow(&mut client, &key).unwrap();
    let middle = "(SELECT min(seq) FROM watchllm.provider_key_access_logs WHERE access_type = 'decrypt' AND success)";
    let trail = "watchllm.provider_key_access_logs";
    let removed = format!("DELETE FROM {trail} WHERE seq = {middle}");
    let closed_up = format!("{removed}; UPDATE {trail} SET seq = seq - 1 WHERE seq > 3");
    let swapped = format!("UPDATE {trail} SET seq = 11 - seq WHERE seq IN (5, 6)");
    let swapped_whole = format!(
        "UPDATE {trail} a SET seq = b.seq, hash = b.hash FROM {trail} b WHERE a.seq + b.seq = 11 AND a.seq IN (5, 6)"
    );
    let first = format!("DELETE FROM {trail} WHERE seq = 1; UPDATE {trail} SET seq = seq - 1");
    let changes = changes(&mut client)
        .into_iter()
        .map(|change| format!("UPDATE {trail} SET {change} WHERE seq = {middle}"));
    for tampering in changes.chain([removed, closed_up, swapped, swapped_whole, first]) {
        let mut transaction = client.transaction().unwrap();
        transaction.batch_execute(TRIGGERS_OFF).unwrap();
        transaction
            .batch_execute(&tampering)
            .unwrap_or_else(|error| panic!("{tampering}: {error}"));
        assert!(follow(&mut transaction, &key).is_err(), "not noticed: {tampering}");
        transaction.rollback().unwrap();
    }
    assert_eq!(follow(&mut client, &key), Ok(rows));
}

#[test]
fn replica_mode_does_not_lift_the_append_only_triggers() {
    let server = Server::with_vault();
    live_a_little(&server, "postgres");
    let partition = server.psql(
        "postgres",
        "SELECT tableoid::regclass FROM watchllm.provider_key_access_logs LIMIT 1",
    );
    for table in ["watchllm.provider_key_access_logs", &partition] {
        for change in [
            format!("UPDATE {table} SET seq = seq"),
            format!("DELETE FROM {table}"),
            format!("TRUNCATE {table}"),
        ] {
            let result = server.psql_result(
                "postgres",
                &format!("SET session_replication_role = replica; {change}"),
            );
            assert!(
                result.status == 3 && result.stderr.contains("42501"),
                "{change}: {}",
                result.stderr
            );
        }
    }
    verify(&server, "postgres").unwrap();
}
