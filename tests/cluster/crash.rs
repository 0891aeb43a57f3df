//! Processes die under load: the writer, clients' processes, the whole server. Each client counts
//! its answers. Afterwards every answer has its row, no row is doubled, the sequence has no gap,
//! and service resumes by itself.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread::sleep;
use std::time::{Duration, Instant};

use postgres::{Config, NoTls};
use uuid::Uuid;

use crate::server::{Mode, Server};
use crate::writer::{Vault, decrypt};

const CLIENTS: usize = 32;

/// A commit takes 20 ms, so that a fault falls between writing and answering, not between batches.
pub(crate) const SLOW_COMMITS: &str = "commit_delay = 20000\ncommit_siblings = 0\n";

/// What one client was told.
#[derive(Default)]
pub(crate) struct Told {
    pub key: Uuid,
    pub plaintext: String,
    /// Request ids of its answers.
    pub answered: Vec<String>,
    /// SQLSTATEs of its errors.
    pub errors: Vec<String>,
}

/// Clients at work.
pub(crate) struct Load {
    stop: AtomicBool,
    answers: Vec<AtomicU64>,
}

impl Load {
    /// Waits until every client has had three more answers. The first may have been under way
    /// already.
    pub(crate) fn everybody_is_answered_again(&self) {
        let before: Vec<u64> = self.answers.iter().map(|answers| answers.load(SeqCst)).collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let waiting = self
                .answers
                .iter()
                .zip(&before)
                .filter(|(now, before)| now.load(SeqCst) < *before + 3)
                .count();
            if waiting == 0 {
                return;
            }
            assert!(Instant::now() < deadline, "after 60 s {waiting} clients still have no answer");
            sleep(Duration::from_millis(20));
        }
    }
}

/// Ends the clients, even if the test panics.
struct Stop<'a>(&'a Load);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, SeqCst);
    }
}

/// Clients decrypt, each its own key, while `faults` runs. They reconnect as often as needed.
pub(crate) fn under_load(vault: &Vault, clients: usize, faults: impl FnOnce(&Load)) -> Vec<Told> {
    let crowd: Vec<Told> = (0..clients)
        .map(|n| format!("sk-plaintext-of-client-{n}"))
        .map(|plaintext| Told { key: vault.key(&plaintext), plaintext, ..Told::default() })
        .collect();
    let load = Load {
        stop: AtomicBool::new(false),
        answers: crowd.iter().map(|_| AtomicU64::new(0)).collect(),
    };
    let mut config = Config::new();
    config
        .host_path(vault.server.socket_dir())
        .dbname("postgres")
        .user("postgres")
        .application_name("load");
    std::thread::scope(|scope| {
        let (load, config) = (&load, &config);
        let stop = Stop(load);
        let threads: Vec<_> = crowd
            .into_iter()
            .enumerate()
            .map(|(number, told)| scope.spawn(move || work(number, told, config, load)))
            .collect();
        load.everybody_is_answered_again();
        faults(load);
        drop(stop);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

fn work(number: usize, mut told: Told, config: &Config, load: &Load) -> Told {
    let mut connection = None;
    for n in 0.. {
        if load.stop.load(SeqCst) {
            break;
        }
        let Some(client) = &mut connection else {
            connection = config.connect(NoTls).ok();
            sleep(Duration::from_millis(20));
            continue;
        };
        let request = format!("client-{number}-{n}");
        match decrypt(client, told.key, &request) {
            Ok(answer) => {
                assert_eq!(answer, told.plaintext);
                told.answered.push(request);
                load.answers[number].fetch_add(1, SeqCst);
            }
            Err(sqlstate) => {
                told.errors.push(sqlstate);
                connection = connection.filter(|client| !client.is_closed());
            }
        }
    }
    told
}

/// Every answer has its row. No event, sequence number or hash occurs twice, there is no gap, and
/// the next row continues the sequence.
pub(crate) fn assert_trail_holds(vault: &Vault, told: &[Told]) {
    let mut client = vault.connect();
    for one in told {
        let missing: i64 = client
            .query_one(
                "SELECT count(*) FROM unnest($1::text[]) AS answered WHERE answered NOT IN (
                    SELECT request_id FROM watchllm.provider_key_access_logs WHERE provider_key_id = $2
                        AND access_type = 'decrypt' AND success AND request_id IS NOT NULL)",
                &[&one.answered, &one.key],
            )
            .unwrap()
            .get(0);
        assert_eq!(missing, 0, "answers without a row, of {}", one.answered.len());
        assert!(!one.errors.iter().any(|code| code.starts_with("XX")), "{:?}", one.errors);
    }
    let whole =
        "SELECT count(*), count(DISTINCT seq), max(seq), count(DISTINCT (epoch, queue_seq)), count(DISTINCT id),
        count(DISTINCT hash) FILTER (WHERE octet_length(hash) = 32), count(DISTINCT request_id) + count(*) FILTER (
            WHERE request_id IS NULL), coalesce(min(seq), 1) FROM watchllm.provider_key_access_logs";
    let row = client.query_one(whole, &[]).unwrap();
    let counts: Vec<i64> = (0..8).map(|column| row.get(column)).collect();
    assert_eq!(
        counts,
        [vec![counts[0]; 7], vec![1]].concat(),
        "rows, seq, max seq, events, ids, hashes, requests, min"
    );
    assert_eq!(decrypt(&mut client, told[0].key, "the next"), Ok(told[0].plaintext.clone()));
    let next = "SELECT seq FROM watchllm.provider_key_access_logs WHERE request_id = 'the next'";
    assert_eq!(client.query_one(next, &[]).unwrap().get::<_, i64>(0), counts[0] + 1);
}

fn errors(told: &[Told]) -> Vec<&String> {
    told.iter().flat_map(|one| &one.errors).collect()
}

/// Waits until the server answers again after its restart.
fn await_recovery(server: &Server) {
    server.poll_until("postgres", "SELECT pg_is_in_recovery()", "f", 60);
}

#[test]
fn kill_9_of_the_writer() {
    let vault = Vault::with(SLOW_COMMITS);
    let told = under_load(&vault, CLIENTS, |load| {
        for _ in 0..3 {
            vault.server.kill_backend(vault.server.writer_pid("postgres").unwrap(), "KILL");
            await_recovery(&vault.server);
            load.everybody_is_answered_again();
        }
    });
    assert!(!errors(&told).is_empty(), "nobody noticed");
    assert_trail_holds(&vault, &told);
}

#[test]
fn sigterm_of_the_writer_again_and_again() {
    let vault = Vault::with(&format!("{SLOW_COMMITS}watchllm_keys.audit_timeout = '60s'"));
    let told = under_load(&vault, CLIENTS, |load| {
        let mut admin = vault.connect();
        let (mut ended, deadline) = (BTreeSet::new(), Instant::now() + Duration::from_secs(60));
        for pause in 0.. {
            let terminate = "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity
                WHERE backend_type = 'watchllm_keys writer'";
            ended.extend(
                admin.query(terminate, &[]).unwrap().iter().map(|row| row.get::<_, i32>(0)),
            );
            if ended.len() >= 20 {
                break;
            }
            assert!(
                Instant::now() < deadline,
                "after 60 s only {} writers were there to end",
                ended.len()
            );
            sleep(Duration::from_millis(90 + pause * 7 % 60));
        }
        load.everybody_is_answered_again();
    });
    assert_eq!(
        errors(&told),
        Vec::<&String>::new(),
        "a writer that ends is replaced, callers wait"
    );
    // some die before they serve
    let served = vault.count("SELECT writer_starts FROM watchllm.status()");
    assert!(served >= 10, "only {served} writers came to serve");
    assert_trail_holds(&vault, &told);
}

#[test]
fn stop_fast() {
    stop_and_start(Mode::Fast);
}

#[test]
fn stop_immediate() {
    stop_and_start(Mode::Immediate);
}

fn stop_and_start(mode: Mode) {
    let vault = Vault::with(SLOW_COMMITS);
    let told = under_load(&vault, CLIENTS, |load| {
        for _ in 0..3 {
            vault.server.stop(mode);
            vault.server.start();
            load.everybody_is_answered_again();
        }
    });
    assert!(errors(&told).len() >= CLIENTS, "a stop ends every session");
    assert_trail_holds(&vault, &told);
}

#[test]
fn kill_9_of_a_clients_process() {
    let vault = Vault::with(SLOW_COMMITS);
    let told = under_load(&vault, CLIENTS, |load| {
        for _ in 0..3 {
            let waiting = "SELECT min(pid) FROM pg_stat_activity WHERE application_name = 'load' AND state = 'active'";
            let pid = std::iter::repeat_with(|| vault.server.psql("postgres", waiting))
                .find(|pid| !pid.is_empty());
            vault.server.kill_backend(pid.unwrap().parse().unwrap(), "KILL");
            await_recovery(&vault.server);
            load.everybody_is_answered_again();
        }
    });
    assert_trail_holds(&vault, &told);
}

#[test]
fn clients_terminated_while_they_wait() {
    let vault = Vault::with(SLOW_COMMITS);
    let told = under_load(&vault, CLIENTS, |load| {
        let mut admin = vault.connect();
        for _ in 0..20 {
            let terminate =
                "SELECT count(pg_terminate_backend(pid)) FROM (SELECT pid FROM pg_stat_activity
                WHERE application_name = 'load' AND state = 'active' LIMIT 8) AS busy";
            admin.query_one(terminate, &[]).unwrap();
            sleep(Duration::from_millis(100));
        }
        load.everybody_is_answered_again();
    });
    assert!(
        errors(&told).iter().all(|code| *code == "57P01" || *code == "closed"),
        "{:?}",
        errors(&told)
    );
    assert_trail_holds(&vault, &told);
}
