//! A hot standby cannot write the record, so it discloses nothing: every call is refused with
//! 25006. After its promotion it serves, also in sessions that were open before, and the chain
//! continues without a break. A physical backup started elsewhere is the same vault.

use crate::chain::verify;
use crate::server::{Mode, Server};

const STORE: &str = "SELECT watchllm.create_project('p') AS p \\gset
    SELECT watchllm.store_provider_key(:'p', 'openai', 'the-key', 'k');";
const OPEN: &str =
    "SELECT watchllm.decrypt_provider_key(id) FROM watchllm.provider_key_records WHERE name = 'k'";
const ROWS: &str = "SELECT count(*) FROM watchllm.provider_key_access_logs";

#[test]
fn a_standby_discloses_nothing_and_serves_once_promoted() {
    let primary = Server::with_vault();
    primary.psql("postgres", STORE);
    assert_eq!(primary.psql("postgres", OPEN), "the-key");
    let standby = primary.backup_to_standby();
    standby.start();
    primary.psql("postgres", OPEN);
    let rows = primary.psql("postgres", ROWS);
    standby.poll_until("postgres", ROWS, &rows, 60);

    let mut open_before = standby.connect("postgres", "postgres");
    assert!(open_before.query(OPEN, &[]).is_err());
    for call in [
        OPEN,
        "SELECT * FROM watchllm.decrypt_provider_keys(ARRAY(SELECT id FROM watchllm.provider_key_records))",
        "SELECT * FROM watchllm.resolve_provider_key((SELECT id FROM watchllm.projects), 'openai')",
        "SELECT watchllm.validate_provider_key(id) FROM watchllm.provider_key_records",
        "SELECT watchllm.rotate_provider_key(id, 'new-key') FROM watchllm.provider_key_records",
        "SELECT watchllm.delete_provider_key(id) FROM watchllm.provider_key_records",
        "SELECT watchllm.store_provider_key(id, 'openai', 'other-key') FROM watchllm.projects",
        "SELECT watchllm.create_project('q')",
        "SELECT watchllm.reload_keyring()",
    ] {
        let result = standby.psql_result("postgres", call);
        assert!(
            result.stderr.contains("ERROR:  25006") && result.stdout.is_empty(),
            "{call}: {}",
            result.stderr
        );
        assert!(
            result.stderr.contains("HINT:  Connect to the primary"),
            "{call}: {}",
            result.stderr
        );
    }
    let state = "SELECT standby, installed, writer_state, problem FROM watchllm.status()";
    assert_eq!(
        standby.psql("postgres", state),
        "t|t|absent|a hot standby cannot write the audit record"
    );
    let history = "SELECT count(*) > 1 FROM watchllm.provider_key_records r, watchllm.key_access_history(r.id)";
    assert_eq!(standby.psql("postgres", history), "t", "the history can be read on a standby");
    assert_eq!(standby.psql("postgres", ROWS), rows);
    assert_eq!(standby.writer_pid("postgres"), None);

    primary.stop(Mode::Immediate);
    standby.promote();
    standby.poll_until("postgres", "SELECT pg_is_in_recovery()", "f", 60);
    assert_eq!(open_before.query_one(OPEN, &[]).unwrap().get::<_, String>(0), "the-key");
    assert_eq!(standby.psql("postgres", OPEN), "the-key");
    standby.psql(
        "postgres",
        "SELECT watchllm.rotate_provider_key(id, 'new-key') FROM watchllm.provider_key_records",
    );
    assert_eq!(standby.psql("postgres", OPEN), "new-key");
    let total = verify(&standby, "postgres").unwrap();
    assert_eq!(total, rows.parse::<usize>().unwrap() + 4);
    assert_eq!(standby.psql("postgres", "SELECT count(*) FROM watchllm.database_identity"), "1");
}

#[test]
fn a_synchronous_standby_has_the_record_before_the_answer() {
    let primary = Server::with_vault();
    primary.psql("postgres", STORE);
    let standby = primary.backup_to_standby();
    standby.start();
    let streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'";
    primary.poll_until("postgres", streams, "1", 60);
    primary.conf("synchronous_standby_names = '*'\nsynchronous_commit = remote_apply");
    primary.restart();
    primary.poll_until(
        "postgres",
        "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'",
        "1",
        60,
    );
    for _ in 0..20 {
        // the caller's own setting does not count
        let open = format!("SET synchronous_commit = off; {OPEN}");
        assert_eq!(primary.psql("postgres", &open), "the-key");
        assert_eq!(standby.psql("postgres", ROWS), primary.psql("postgres", ROWS));
    }
}

#[test]
fn a_physical_backup_opens_elsewhere() {
    let original = Server::with_vault();
    original.psql("postgres", STORE);
    original.psql("postgres", OPEN);
    let copy = original.backup_to_standby();
    std::fs::remove_file(copy.data_dir().join("standby.signal")).unwrap();
    original.psql("postgres", OPEN); // not in the backup
    copy.start();
    assert_eq!(copy.psql("postgres", "SELECT pg_is_in_recovery()"), "f");
    assert_eq!(copy.psql("postgres", OPEN), "the-key");
    copy.psql(
        "postgres",
        "SELECT watchllm.store_provider_key(id, 'openai', 'other-key') FROM watchllm.projects",
    );
    verify(&copy, "postgres").unwrap();
    verify(&original, "postgres").unwrap();
}
