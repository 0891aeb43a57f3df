//! The audit writer at work: whose rights it uses, what it creates ahead, what it counts, and that
//! nobody can change the trail. Also `Vault`, the server with keys that rollback, crash, faults and
//! durable attack.

use std::time::Duration;

use postgres::Client;
use uuid::Uuid;

use crate::crash::{assert_trail_holds, under_load};
use crate::server::Server;

pub(crate) const DECRYPT: &str = "SELECT watchllm.decrypt_provider_key($1, request_id => $2)";

/// A server whose database postgres holds a vault with one project.
pub(crate) struct Vault {
    pub server: Server,
    pub project: Uuid,
}

impl Vault {
    /// With more lines in postgresql.conf; keys are not limited in number.
    pub(crate) fn with(conf: &str) -> Vault {
        let fast = "watchllm_keys.max_active_keys = 0\nwatchllm_keys.pbkdf2_iterations = 100000\n";
        let server = Server::with_vault_and(&format!("{fast}{conf}"));
        let project =
            server.psql("postgres", "SELECT watchllm.create_project('acme')").parse().unwrap();
        Vault { server, project }
    }

    pub(crate) fn connect(&self) -> Client {
        self.server.connect("postgres", "postgres")
    }

    /// Stores a key that holds `plaintext`.
    pub(crate) fn key(&self, plaintext: &str) -> Uuid {
        let sql = "SELECT watchllm.store_provider_key($1, 'openai', $2)";
        self.connect().query_one(sql, &[&self.project, &plaintext]).unwrap().get(0)
    }

    /// Rows of the trail with this request id.
    pub(crate) fn rows(&self, request: &str) -> i64 {
        let sql = "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE request_id = $1";
        self.connect().query_one(sql, &[&request]).unwrap().get(0)
    }

    pub(crate) fn count(&self, sql: &str) -> i64 {
        self.server.psql("postgres", sql).parse().unwrap()
    }

    /// Today's partition of the trail (UTC), with its schema.
    pub(crate) fn today(&self) -> String {
        let day = "to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')";
        self.server
            .psql("postgres", &format!("SELECT 'watchllm.provider_key_access_logs_' || {day}"))
    }

    /// A session that keeps the writer out of the trail until it rolls back.
    pub(crate) fn lock_trail(&self) -> Client {
        let mut holder = self.connect();
        holder
            .batch_execute(
                "BEGIN; LOCK TABLE watchllm.provider_key_access_logs IN ACCESS EXCLUSIVE MODE",
            )
            .unwrap();
        holder
    }
}

/// The plaintext, or the SQLSTATE. "closed" means that the connection broke.
pub(crate) fn decrypt(client: &mut Client, key: Uuid, request: &str) -> Result<String, String> {
    client
        .query_one(DECRYPT, &[&key, &request])
        .map(|row| row.get(0))
        .map_err(|error| sqlstate(&error))
}

pub(crate) fn sqlstate(error: &postgres::Error) -> String {
    error.code().map_or("closed".into(), |code| code.code().into())
}

/// The SQLSTATE that ends a script. "00000" if it does not fail.
pub(crate) fn outcome(client: &mut Client, sql: &str) -> String {
    client.batch_execute(sql).map_or_else(|error| sqlstate(&error), |()| "00000".into())
}

#[test]
fn writes_as_the_owner_of_the_trail_behind_forced_row_security() {
    let vault = Vault::with("");
    let key = vault.key("sk-owner");
    // a column that nobody fills shows whose rights the INSERT had
    vault.server.psql(
        "postgres",
        "ALTER TABLE watchllm.provider_key_access_logs
            ADD COLUMN written_by text DEFAULT current_user, ADD COLUMN row_security text DEFAULT
                current_setting('row_security'), ADD COLUMN path text DEFAULT current_setting('search_path')",
    );
    assert_eq!(decrypt(&mut vault.connect(), key, "whose").unwrap(), "sk-owner");
    assert_eq!(
        vault.server.psql(
            "postgres",
            "SELECT written_by, row_security, path FROM watchllm.provider_key_access_logs WHERE request_id = 'whose'"
        ),
        "watchllm_owner|on|pg_catalog, pg_temp"
    );
    let walls = "SELECT bool_and(c.relrowsecurity AND c.relforcerowsecurity), bool_or(r.rolsuper OR r.rolbypassrls)
        FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner
        WHERE c.relname LIKE 'provider_key_access_logs%' AND c.relkind IN ('r', 'p')";
    assert_eq!(vault.server.psql("postgres", walls), "t|f");
}

#[test]
fn one_writer_a_database_is_shown_by_its_type() {
    let vault = Vault::with("");
    vault.key("sk-one");
    let writers =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'watchllm_keys writer'";
    assert_eq!(vault.count(writers), 1);
    vault.server.psql("postgres", "CREATE DATABASE second");
    vault.server.psql("second", "CREATE EXTENSION watchllm_keys; SELECT watchllm.install();");
    vault.server.psql("second", "SELECT watchllm.create_project('other')");
    assert_eq!(vault.count(writers), 2);
    assert_ne!(vault.server.writer_pid("postgres"), vault.server.writer_pid("second"));
}

#[test]
fn partitions_are_made_seven_days_ahead() {
    let vault = Vault::with("");
    let ahead = "SELECT count(*) FROM generate_series(0, 7) AS n WHERE to_regclass('watchllm.provider_key_access_logs_'
        || to_char(now() AT TIME ZONE 'UTC' + n * interval '1 day', 'YYYYMMDD')) IS NOT NULL";
    vault.server.poll_until("postgres", ahead, "8", 30);
    vault.server.stop(crate::server::Mode::Fast);
    vault.server.start();
    vault.server.psql(
        "postgres",
        "DO $$ DECLARE p regclass; BEGIN
            FOR p IN SELECT i.inhrelid FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                WHERE i.inhparent = 'watchllm.provider_key_access_logs'::regclass AND c.relname > to_char(
                    now() AT TIME ZONE 'UTC', '\"provider_key_access_logs_\"YYYYMMDD')
            LOOP EXECUTE 'DROP TABLE ' || p; END LOOP; END $$",
    );
    assert_eq!(vault.count(ahead), 1);
    vault.key("sk-wakes-the-writer");
    vault.server.poll_until("postgres", ahead, "8", 30);
}

#[test]
fn rows_lie_in_their_utc_day_whatever_the_time_zone() {
    // one of the two zones is always on another day than UTC
    for (server_zone, client_zone) in
        [("Pacific/Kiritimati", "Etc/GMT+12"), ("Etc/GMT+12", "Pacific/Kiritimati")]
    {
        let vault = Vault::with(&format!("timezone = '{server_zone}'"));
        let key = vault.key("sk-zone");
        let mut client = vault.connect();
        for zone in [client_zone, "Asia/Tokyo", "America/Los_Angeles"] {
            client.batch_execute(&format!("SET timezone = '{zone}'")).unwrap();
            assert_eq!(decrypt(&mut client, key, zone).unwrap(), "sk-zone");
        }
        let astray =
            "SELECT count(*), count(*) FILTER (WHERE tableoid::regclass::text <> to_char(accessed_at AT TIME ZONE
            'UTC', '\"watchllm.provider_key_access_logs_\"YYYYMMDD')) FROM watchllm.provider_key_access_logs";
        assert_eq!(vault.server.psql("postgres", astray), "5|0");
    }
}

#[test]
fn nobody_changes_the_trail_not_even_a_superuser() {
    let vault = Vault::with("");
    vault.key("sk-evidence");
    let before = vault.count("SELECT count(*) FROM watchllm.provider_key_access_logs");
    let mut client = vault.connect();
    for table in ["watchllm.provider_key_access_logs".to_string(), vault.today()] {
        for prelude in ["", "SET session_replication_role = replica;", "SET ROLE watchllm_owner;"] {
            for attack in [
                format!("UPDATE {table} SET success = false, failure_reason = 'limit'"),
                format!("DELETE FROM {table}"),
                format!("TRUNCATE {table}"),
            ] {
                let result = outcome(&mut client, &format!("{prelude} {attack}"));
                // the owner, behind forced row security, may also find no row to change
                let harmless = prelude.contains("ROLE") && result == "00000";
                assert!(result == "42501" || harmless, "{prelude} {attack}: {result}");
                client.batch_execute("RESET ROLE; RESET session_replication_role").unwrap();
            }
        }
    }
    assert_eq!(
        vault.count("SELECT count(*) FROM watchllm.provider_key_access_logs WHERE success"),
        before
    );
}

#[test]
fn uses_are_counted_within_seconds() {
    let vault = Vault::with("");
    let key = vault.key("sk-counted");
    let mut client = vault.connect();
    for n in 0..25 {
        decrypt(&mut client, key, &format!("use-{n}")).unwrap();
    }
    client.execute("SELECT watchllm.set_provider_key_active($1, false)", &[&key]).unwrap();
    assert_eq!(decrypt(&mut client, key, "off"), Err("42000".into()));
    let usage = format!(
        "SELECT u.access_count, u.failure_count, (SELECT sum(a) FROM unnest(u.accesses) a),
            u.last_used_at = (SELECT max(accessed_at) FROM watchllm.provider_key_access_logs
                WHERE provider_key_id = '{key}' AND access_type = 'decrypt' AND success),
            k.last_used_at = u.last_used_at
         FROM watchllm.provider_key_usage u JOIN watchllm.provider_keys k ON k.id = u.provider_key_id
         WHERE u.provider_key_id = '{key}'"
    );
    vault.server.poll_until("postgres", &usage, "25|1|25|t|t", 30);
}

#[test]
fn reading_leaves_no_dead_rows_and_takes_no_transaction_id() {
    let vault = Vault::with("");
    let key = vault.key("sk-clean");
    let mut client = vault.connect();
    let statement = client.prepare(DECRYPT).unwrap();
    let written = "SELECT n_tup_ins, n_tup_upd, n_tup_del, n_dead_tup FROM pg_stat_user_tables
        WHERE relname = 'provider_key_records'";
    vault.server.poll_until("postgres", written, "1|0|0|0", 30);
    for n in 0..2000 {
        let mut transaction = client.transaction().unwrap();
        transaction.query_one(&statement, &[&key, &format!("clean-{n}")]).unwrap();
        let xid =
            transaction.query_one("SELECT pg_current_xact_id_if_assigned() IS NULL", &[]).unwrap();
        assert!(xid.get::<_, bool>(0), "decrypt took a transaction id");
        transaction.commit().unwrap();
    }
    client.batch_execute("SELECT pg_stat_force_next_flush()").unwrap();
    drop(client);
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(vault.server.psql("postgres", written), "1|0|0|0");
    let rows = "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE request_id LIKE 'clean-%' AND success";
    assert_eq!(vault.count(rows), 2000);
}

#[test]
fn reloading_keyring_and_configuration_disturbs_nobody() {
    let vault = Vault::with("");
    let told = under_load(&vault, 8, |load| {
        let mut admin = vault.connect();
        for _ in 0..20 {
            admin.query_one("SELECT watchllm.reload_keyring()", &[]).unwrap();
            admin.query_one("SELECT pg_reload_conf()", &[]).unwrap();
        }
        load.everybody_is_answered_again();
    });
    for client in &told {
        assert_eq!(client.errors, Vec::<String>::new());
    }
    assert_trail_holds(&vault, &told);
}

#[test]
fn a_writer_that_stands_still_is_seen_and_nothing_is_disclosed() {
    let vault = Vault::with("watchllm_keys.audit_timeout = 1s");
    let key = vault.key("some-key");
    let decrypt = format!("SELECT watchllm.decrypt_provider_key('{key}', request_id => 'still')");
    let problem = "SELECT problem FROM watchllm.status()";
    assert_eq!(vault.server.psql("postgres", problem), "");
    let writer = vault.server.writer_pid("postgres").unwrap();
    vault.server.kill_backend(writer, "STOP");
    let refused = vault.server.psql_result("postgres", &decrypt);
    assert!(
        refused.stderr.contains("ERROR:  53000") && refused.stdout.is_empty(),
        "{}",
        refused.stderr
    );
    let seen = vault.server.psql("postgres", problem);
    vault.server.kill_backend(writer, "CONT");
    assert!(seen.contains("does not answer"), "{seen}");
    vault.server.poll_until("postgres", problem, "", 30);
    assert_eq!(vault.server.psql("postgres", &decrypt), "some-key");
    assert_eq!(vault.rows("still"), 2); // the event of the caller that gave up is written too
}
