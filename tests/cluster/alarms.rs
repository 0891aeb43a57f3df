//! Alarms under attack by floods of masked keys. No other source loses an alarm, nobody is named
//! who did not log in, no more rows are written than the budget. What was held back is counted.
//! WATCHLLM_FLOOD_SECONDS makes the flood longer than it is in every run.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread;
use std::time::Duration;

use crate::keys::{code, decrypt, new_key, one, project, rows, store};
use crate::server::{Mode, Server};

/// The default of watchllm_keys.incident_budget.
const BUDGET: u64 = 20;

/// A statement that raises warnings with random keys, as many as `count`.
fn warnings(count: u32) -> String {
    format!(
        "DO $$ BEGIN FOR i IN 1..{count} LOOP
            RAISE WARNING '%', 'sk-proj-' || md5(random()::text) || md5(random()::text);
        END LOOP; END $$"
    )
}

/// A server whose writer runs.
fn awake(conf: &str) -> Server {
    let server = Server::with_vault_and(conf);
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    store(c, &p, "openai", &new_key());
    server
}

fn number(server: &Server, sql: &str) -> u64 {
    server.psql("postgres", sql).parse().unwrap_or_else(|_| panic!("{sql}"))
}

/// Connects from any thread.
fn connect(socket: &Path, database: &str, user: &str) -> Result<postgres::Client, postgres::Error> {
    postgres::Config::new().host_path(socket).dbname(database).user(user).connect(postgres::NoTls)
}

/// Leaks a key for each of these roles, as an error does, all through the time.
fn leak_for_each(server: &Server, roles: &[String], time: Duration) {
    for role in roles {
        let c = &mut server.connect("postgres", role);
        assert_eq!(code(c, &format!("SELECT '{}'::int", new_key())), "22P02");
        thread::sleep(time / roles.len() as u32);
    }
}

/// Waits until each of these roles has its incident, and only that.
fn each_was_found(server: &Server, roles: &[String]) {
    let found = format!(
        "SELECT count(DISTINCT details->>'role'), count(*) FROM watchllm.security_incidents
        WHERE type = 'leaked_key' AND details->>'channel' = 'message' AND details->>'role' IN ('{}')",
        roles.join("', '")
    );
    server.poll_until("postgres", &found, &format!("{0}|{0}", roles.len()), 20);
}

fn make_roles(server: &Server, prefix: &str, count: usize) -> Vec<String> {
    let names: Vec<String> = (0..count).map(|i| format!("{prefix}_{i}")).collect();
    let create: String = names.iter().map(|name| format!("CREATE ROLE {name} LOGIN;")).collect();
    server.psql("postgres", &create);
    names
}

/// Runs `work` again and again until told to end; answers how often.
fn until(end: &AtomicBool, count: &AtomicU64, mut work: impl FnMut()) {
    while !end.load(Relaxed) {
        work();
        count.fetch_add(1, Relaxed);
    }
}

#[test]
fn a_flood_costs_the_others_no_alarm_and_writes_no_more_rows_than_the_budget() {
    let seconds = std::env::var("WATCHLLM_FLOOD_SECONDS").ok().and_then(|s| s.parse().ok());
    let time = Duration::from_secs(seconds.unwrap_or(5));
    let server = awake("");
    let victims = make_roles(&server, "victim", 15);
    server.psql("postgres", "CREATE ROLE stranger LOGIN; CREATE SCHEMA s AUTHORIZATION stranger");
    let (end, logins, comments, warned) =
        (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let socket = server.socket_dir();
    thread::scope(|scope| {
        scope.spawn(|| {
            until(&end, &logins, || {
                assert!(connect(socket, "postgres", &new_key()).is_err());
            })
        });
        scope.spawn(|| {
            let c = &mut connect(socket, "postgres", "stranger").unwrap();
            until(&end, &warned, || assert_eq!(code(c, &warnings(100)), "00000"))
        });
        scope.spawn(|| {
            let c = &mut connect(socket, "postgres", "stranger").unwrap();
            one(c, "CREATE TABLE s.t (i int)");
            until(&end, &comments, || {
                one(c, &format!("COMMENT ON TABLE s.t IS '{}'", new_key()));
            })
        });
        leak_for_each(&server, &victims, time);
        end.store(true, Relaxed);
    });
    let [logins, warned, comments] = [logins, warned, comments].map(|count| count.load(Relaxed));
    println!("{logins} failed logins, {} warnings, {comments} comments", 100 * warned);
    each_was_found(&server, &victims);

    // every finding is either a row or counted
    let rows_of = |what: &str| {
        let sql = "SELECT count(*) FROM watchllm.security_incidents WHERE type = 'leaked_key' AND ";
        number(&server, &format!("{sql}{what}"))
    };
    for (which, held_of, all) in [
        ("details->>'address' = 'local'", "kind = 'address'", logins),
        (
            "details->>'role' = 'stranger' AND details->>'channel' = 'message'",
            "name = 'stranger' AND channel = 'message'",
            100 * warned,
        ),
        (
            "details->>'role' = 'stranger' AND details->>'channel' = 'catalog'",
            "name = 'stranger' AND channel = 'catalog'",
            comments,
        ),
    ] {
        let found = rows_of(which);
        assert!(found <= BUDGET && found > 0, "{which}: {found}");
        let held = format!("SELECT held_back FROM watchllm.cut_off_sources WHERE {held_of}");
        server.poll_until("postgres", &held, &(all - found).to_string(), 20);
    }
    // the right names in all, and one row for each source that says more
    assert_eq!(
        rows_of("details->>'role' NOT LIKE 'victim_%' AND details->>'role' <> 'stranger'"),
        0
    );
    assert_eq!(rows_of("(details->>'role' IS NULL) <> (details->>'address' = 'local')"), 0);
    let told = "SELECT count(*), count(DISTINCT details->>'source' || (details->>'channel'))
        FROM watchllm.open_incidents WHERE type = 'held_back'";
    assert_eq!(server.psql("postgres", told), "3|3");
    println!(
        "{}",
        server.psql(
            "postgres",
            "SELECT type, severity, details->>'role', details->>'channel', count(*)
        FROM watchllm.security_incidents GROUP BY 1, 2, 3, 4 ORDER BY 1, 3, 4"
        )
    );
    println!(
        "{}",
        server.psql(
            "postgres",
            "SELECT kind, name, channel, cut_off_at, held_back FROM watchllm.cut_off_sources"
        )
    );
}

#[test]
fn before_the_authentication_nobody_is_named() {
    let [.., high, low] = std::process::id().to_be_bytes();
    let host = format!("127.83.{high}.{low}"); // no other server of this machine has it
    let server = awake(&format!("listen_addresses = '{host}'"));
    // somebody used the slots of these processes before
    for _ in 0..5 {
        drop(server.connect("postgres", "postgres"));
        assert!(server.try_connect("postgres", &new_key()).is_err());
    }
    // a name that is one and a key, and a database that is a key
    server.psql("postgres", "CREATE ROLE somebody LOGIN");
    assert!(server.try_connect(&new_key(), "somebody").is_err());
    let found = "SELECT details->>'role', details->>'address', details->>'database', count(*)
        FROM watchllm.security_incidents GROUP BY 1, 2, 3 ORDER BY 1";
    server.poll_until("postgres", found, "somebody|||1\n|local||5", 20);
    let tcp = &mut postgres::Config::new();
    tcp.host(&host).user(&new_key()).dbname("postgres");
    assert!(tcp.connect(postgres::NoTls).is_err());
    let by_address = "SELECT count(*) FROM watchllm.security_incidents
        WHERE details->>'address' LIKE '127.%' AND details->>'role' IS NULL";
    server.poll_until("postgres", by_address, "1", 20);
}

#[test]
fn a_process_that_acts_for_nobody_is_named_by_its_kind_and_a_worker_by_its_role() {
    let server = awake("autovacuum_naptime = 1s\nautovacuum_analyze_threshold = 1");
    server.psql(
        "postgres",
        "CREATE TABLE t (i int);
        CREATE FUNCTION warned(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$ BEGIN
            RAISE WARNING '%', 'sk-proj-' || md5(i::text) || md5(i::text); RETURN i; END $$;
        CREATE INDEX ON t (warned(i)); INSERT INTO t SELECT 1 FROM generate_series(1, 300)",
    );
    let by = "SELECT count(*) > 0 FROM watchllm.security_incidents
        WHERE details->>'role' IS NULL AND details->>'address' IS NULL AND details->>'process' = 'autovacuum worker'";
    server.poll_until("postgres", by, "t", 60);
    server.psql("postgres", "CREATE ROLE analyst LOGIN; GRANT SELECT ON t TO analyst");
    let c = &mut server.connect("postgres", "analyst");
    one(c, "SET force_parallel_mode = on; SELECT warned(7) FROM t LIMIT 1");
    let by =
        "SELECT count(*) > 0 FROM watchllm.security_incidents WHERE details->>'role' = 'analyst'";
    server.poll_until("postgres", by, "t", 20);
}

#[test]
fn many_roles_databases_and_set_roles_take_no_others_room() {
    let server = awake("max_connections = 150");
    let (many, victims) = (make_roles(&server, "noisy", 60), make_roles(&server, "victim", 15));
    let databases: Vec<String> = (0..5).map(|i| format!("d{i}")).collect();
    for database in &databases {
        server.psql("postgres", &format!("CREATE DATABASE {database}"));
    }
    let set: String = many.iter().map(|role| format!("GRANT {role} TO everyone;")).collect();
    server.psql("postgres", &format!("CREATE ROLE everyone LOGIN; {set}"));
    let socket = server.socket_dir();
    thread::scope(|scope| {
        scope.spawn(|| {
            for role in &many {
                assert_eq!(
                    code(&mut connect(socket, "postgres", role).unwrap(), &warnings(50)),
                    "00000"
                );
            }
        });
        scope.spawn(|| {
            let sql: String =
                many.iter().map(|role| format!("SET ROLE {role}; {};", warnings(50))).collect();
            for database in databases.iter().map(String::as_str).chain(["postgres"]) {
                assert_eq!(
                    code(&mut connect(socket, database, "everyone").unwrap(), &sql),
                    "00000"
                );
            }
        });
        leak_for_each(&server, &victims, Duration::from_secs(2));
    });
    each_was_found(&server, &victims);
    let of = |role: &str| {
        format!(
            "SELECT count(*) FROM watchllm.security_incidents WHERE type = 'leaked_key' AND details->>'role' = '{role}'"
        )
    };
    for role in &many {
        server.poll_until("postgres", &of(role), &BUDGET.to_string(), 30);
    }
    // the role of many databases and many SET ROLEs is one party: four times the budget
    server.poll_until("postgres", &of("everyone"), &(4 * BUDGET).to_string(), 40);
    let whole = "SELECT held_back > 10000, channel = '' FROM watchllm.cut_off_sources WHERE name = 'everyone'";
    server.poll_until("postgres", whole, "t|t", 20);
    let names = "SELECT count(*) > 1 FROM watchllm.security_incidents
        WHERE details->>'role' = 'everyone' AND details->>'set_role' LIKE 'noisy_%'";
    assert_eq!(server.psql("postgres", names), "t");
}

#[test]
fn whoever_is_set_to_another_role_does_not_silence_it() {
    let server = awake("");
    server.psql(
        "postgres",
        "CREATE ROLE gate LOGIN NOINHERIT; CREATE ROLE anonymous; CREATE ROLE member; GRANT anonymous, member TO gate",
    );
    let c = &mut server.connect("postgres", "gate");
    assert_eq!(code(c, &format!("SET ROLE anonymous; {}", warnings(1_000))), "00000");
    for _ in 0..15 {
        assert_eq!(code(c, &format!("SET ROLE member; {}", warnings(1))), "00000");
    }
    let of = |role: &str| {
        format!(
            "SELECT count(*) FROM watchllm.security_incidents WHERE details->>'role' = 'gate' AND details->>'set_role' = '{role}'"
        )
    };
    server.poll_until("postgres", &of("member"), "15", 20);
    assert_eq!(server.psql("postgres", &of("anonymous")), BUDGET.to_string());
}

#[test]
fn a_restart_gives_no_new_budget_and_a_reload_a_larger_one() {
    let server = awake("");
    server.psql("postgres", "CREATE ROLE stranger LOGIN");
    let flood = |count| {
        let c = &mut server.connect("postgres", "stranger");
        assert_eq!(code(c, &warnings(count)), "00000");
    };
    let counts = "SELECT (SELECT count(*) FROM watchllm.security_incidents WHERE details->>'role' = 'stranger'),
        (SELECT held_back FROM watchllm.cut_off_sources WHERE name = 'stranger')";
    flood(50);
    server.poll_until("postgres", counts, "20|30", 20);
    server.stop(Mode::Fast);
    server.start();
    flood(50);
    let p = &server.psql("postgres", "SELECT id FROM watchllm.projects LIMIT 1");
    store(&mut server.connect("postgres", "postgres"), p, "openai", &new_key()); // wakes the writer
    server.poll_until("postgres", counts, "20|80", 20);
    server.psql("postgres", "ALTER SYSTEM SET watchllm_keys.incident_budget = 25");
    server.psql("postgres", "SELECT pg_reload_conf(), pg_sleep(1)");
    flood(50);
    server.poll_until("postgres", counts, "25|125", 20);
}

#[test]
fn a_day_that_is_over_tells_its_count_and_the_next_begins_anew() {
    let server = awake("");
    server.psql("postgres", "CREATE ROLE stranger LOGIN");
    let c = &mut server.connect("postgres", "stranger");
    assert_eq!(code(c, &warnings(50)), "00000");
    let held = "SELECT held_back FROM watchllm.cut_off_sources WHERE name = 'stranger'";
    server.poll_until("postgres", held, "30", 20);
    let ended = "SELECT e.event, e.note LIKE '30 held back in all, the last at %', e.by
        FROM watchllm.incident_events e JOIN watchllm.security_incidents i ON i.id = e.incident_id
        WHERE i.type = 'held_back'";
    assert_eq!(server.psql("postgres", ended), "");
    // as if it had been yesterday
    server.psql("postgres", "UPDATE watchllm.incident_sources SET day = day - 1");
    server.kill_backend(server.writer_pid("postgres").unwrap(), "TERM");
    let p = &server.psql("postgres", "SELECT id FROM watchllm.projects LIMIT 1");
    store(&mut server.connect("postgres", "postgres"), p, "openai", &new_key());
    server.poll_until("postgres", ended, "ended|t|watchllm_keys", 20);
    server.psql("postgres", "UPDATE watchllm.incident_sources SET day = day - 90");
    server.kill_backend(server.writer_pid("postgres").unwrap(), "TERM");
    store(&mut server.connect("postgres", "postgres"), p, "openai", &new_key());
    server.poll_until("postgres", "SELECT count(*) FROM watchllm.cut_off_sources", "0", 20);
    assert_eq!(server.psql("postgres", ended), "ended|t|watchllm_keys", "evidence stays");
}

#[test]
fn three_hundred_keys_that_are_always_due_are_twenty_incidents_and_one_that_says_more() {
    let server = awake("watchllm_keys.max_active_keys = 0");
    let c = &mut server.connect("postgres", "postgres");
    let (p, other) = (project(c), project(c));
    let keys = |p: &str, count: u32| {
        format!(
            "SELECT count(watchllm.update_provider_key(k, rotation_interval => '1 microsecond'))
            FROM (SELECT watchllm.store_provider_key('{p}', 'openai', 'plainly-fake-{p}-' || n) k
                FROM generate_series(1, {count}) n) x"
        )
    };
    one(c, &keys(&p, 300));
    one(c, &keys(&other, 3));
    let found = |p: &str| {
        format!(
            "SELECT count(*) FILTER (WHERE type = 'rotation_due'),
            string_agg(details->>'held_back', ',') FROM watchllm.security_incidents WHERE project_id = '{p}'"
        )
    };
    for _ in 0..3 {
        // a change of settings makes the walk begin again
        one(c, "SELECT watchllm.set_setting('max_accesses_per_day', '100000')");
        server.poll_until("postgres", &found(&p), "20|280", 30);
        server.poll_until("postgres", &found(&other), "3|", 30);
        thread::sleep(Duration::from_secs(3));
    }
    let cut = format!(
        "SELECT kind, channel, held_back FROM watchllm.cut_off_sources WHERE project_id = '{p}'"
    );
    assert_eq!(server.psql("postgres", &cut), "project|rotation_due|280");
}

#[test]
fn findings_of_the_watch_have_a_budget_and_mark_the_key_all_the_same() {
    let server =
        awake("watchllm_keys.max_accesses_per_minute = 1\nwatchllm_keys.max_active_keys = 0");
    let c = &mut server.connect("postgres", "postgres");
    let (noisy, quiet) = (project(c), project(c));
    let sql = format!(
        "SELECT watchllm.store_provider_key('{noisy}', 'openai', 'plainly-fake-' || n) FROM generate_series(1, 40) n"
    );
    for id in rows(c, &sql) {
        (0..2).for_each(|_| drop(one(c, &decrypt(&id))));
    }
    let id = store(c, &quiet, "openai", &new_key());
    (0..2).for_each(|_| drop(one(c, &decrypt(&id))));
    let found = |p: &str| {
        format!(
            "SELECT count(*) FILTER (WHERE type = 'rapid_automated_access'),
            count(*) FILTER (WHERE type = 'held_back') FROM watchllm.security_incidents WHERE project_id = '{p}'"
        )
    };
    server.poll_until("postgres", &found(&quiet), "1|0", 20);
    server.poll_until("postgres", &found(&noisy), "20|1", 20);
    let marked = format!(
        "SELECT count(*) FROM watchllm.provider_keys WHERE project_id = '{noisy}' AND access_anomaly_detected_at IS NOT NULL"
    );
    server.poll_until("postgres", &marked, "40", 20);
    let held = "SELECT channel, held_back FROM watchllm.cut_off_sources";
    server.poll_until("postgres", held, "rapid_automated_access|20", 20);
}

#[test]
fn many_incidents_are_acknowledged_at_once_and_no_other() {
    let server = awake("");
    server.psql("postgres", "CREATE ROLE stranger LOGIN; CREATE ROLE victim LOGIN");
    for (role, count) in [("stranger", 50), ("victim", 3)] {
        assert_eq!(code(&mut server.connect("postgres", role), &warnings(count)), "00000");
    }
    let open = "SELECT count(*) FROM watchllm.open_incidents";
    server.poll_until("postgres", open, "24", 20); // 20 and 3, and one that says more
    let c = &mut server.connect("postgres", "postgres");
    let mut close =
        |filter: &str| one(c, &format!("SELECT watchllm.acknowledge_incidents({filter})"));
    assert_eq!(close("source => 'stranger', severity_at_most => 'low'"), "0");
    assert_eq!(close("source => 'stranger', until => now() - interval '1 hour'"), "0");
    assert_eq!(close("source => 'stranger', project_id => gen_random_uuid()"), "0");
    assert_eq!(
        close(
            "'leaked_key', 'high', 'stranger', since => now() - interval '1 hour', note => 'a flood'"
        ),
        "20"
    );
    assert_eq!(
        close("incident_type => 'held_back', note => 'sk-proj-0123456789abcdef0123456789'"),
        "1"
    );
    assert_eq!(close("source => 'stranger'"), "0");
    assert_eq!(server.psql("postgres", open), "3");
    let notes = "SELECT DISTINCT note, by FROM watchllm.incident_events WHERE event = 'acknowledged' ORDER BY 1";
    assert_eq!(server.psql("postgres", notes), "a flood|postgres\nsk-proj-...[REDACTED]|postgres");
    let recorded = "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE access_type = 'report' AND success";
    assert_eq!(server.psql("postgres", recorded), "6");
    for (bad, expected) in [
        ("", "22023"),
        ("note => 'all?'", "22023"),
        ("'no_such_type'", "22023"),
        ("severity_at_most => 'HIGH'", "22023"),
    ] {
        assert_eq!(
            code(c, &format!("SELECT watchllm.acknowledge_incidents({bad})")),
            expected,
            "{bad}"
        );
    }
    let c = &mut server.connect("postgres", "victim");
    assert_eq!(
        code(c, "SELECT watchllm.acknowledge_incidents(severity_at_most => 'critical')"),
        "42501"
    );
    let c = &mut server.connect("postgres", "postgres");
    assert_eq!(
        one(c, "SELECT watchllm.acknowledge_incidents(severity_at_most => 'critical')"),
        "3"
    );
}
