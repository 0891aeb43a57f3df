//! pgbouncer in transaction mode before the server. Claims, roles, keys and prepared statements
//! must not pass from one client to the next over a shared connection. The suites of `postgrest`
//! run through it, and a crowd.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};
use uuid::Uuid;

use crate::api::{AUTHENTICATOR, as_api, claims, supabase_vault};
use crate::commands::{command, run, text};
use crate::keys::{code, decrypt, new_key, one, refusal, rows, store};
use crate::postgrest::{Api, PATIENT, PostgREST};
use crate::server::Server;

/// A pgbouncer of our own, on a unix socket in a directory that only its user may enter. Ended by
/// its pid when dropped.
struct Pooler {
    child: Child,
    directory: PathBuf,
    log: PathBuf,
}

impl Pooler {
    /// Database postgres has three server connections for each user, database `single` has one.
    fn start(server: &Server) -> Pooler {
        let directory =
            PathBuf::from(run(command("mktemp").args(["-d", "/tmp/wk.XXXXXX"])).trim_end());
        let config = format!(
            "[databases]
postgres = host={server} dbname=postgres
single = host={server} dbname=postgres pool_size=1
[pgbouncer]
listen_port = 6432
unix_socket_dir = {own}
unix_socket_mode = 0700
auth_type = trust
auth_file = {own}/users
pool_mode = transaction
default_pool_size = 3
max_client_conn = 200
server_round_robin = 1
ignore_startup_parameters = extra_float_digits
log_connections = 1
",
            server = server.socket_dir().display(),
            own = directory.display()
        );
        fs::write(directory.join("users"), "\"authenticator\" \"\"\n\"app\" \"\"\n")
            .expect("writing the users");
        fs::write(directory.join("pgbouncer.ini"), config).expect("writing the pooler's settings");
        let log = server.keyring().with_file_name("pgbouncer.log");
        let child = command("pgbouncer")
            .arg(directory.join("pgbouncer.ini"))
            .stdout(Stdio::null())
            .stderr(fs::File::create(&log).expect("making the pooler's log"))
            .spawn()
            .expect("starting pgbouncer: `make setup` installs it");
        fs::write(log.with_extension("pid"), child.id().to_string())
            .expect("writing the pooler's pid");
        let mut pooler = Pooler { child, directory, log };
        pooler.wait_until_ready();
        pooler
    }

    fn wait_until_ready(&mut self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.try_connect("postgres", AUTHENTICATOR).is_err() {
            let ended = self.child.try_wait().expect("looking after pgbouncer");
            let log = text(&fs::read(&self.log).unwrap_or_default());
            assert!(ended.is_none() && Instant::now() < deadline, "pgbouncer is not ready:\n{log}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn try_connect(&self, database: &str, user: &str) -> Result<Client, postgres::Error> {
        let mut config = postgres::Config::new();
        config.host_path(&self.directory).port(6432).dbname(database).user(user).connect(NoTls)
    }

    fn connect(&self, database: &str, user: &str) -> Client {
        self.try_connect(database, user)
            .unwrap_or_else(|error| panic!("through the pooler as {user}: {error}"))
    }

    /// Its address, for PostgREST.
    fn place(&self) -> String {
        format!("host={} port=6432", self.directory.display())
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.directory));
    }
}

/// A vault behind PostgREST behind a pooler. The pooler is dropped last, because the others are
/// connected to it.
fn pooled() -> (Api, Pooler) {
    let mut pooler = None;
    let api = Api::new(PATIENT, |server| {
        let before = Pooler::start(server);
        // such a pooler cannot pass on prepared statements and LISTEN
        let settings =
            [("PGRST_DB_PREPARED_STATEMENTS", "false"), ("PGRST_DB_CHANNEL_ENABLED", "false")];
        let postgrest = PostgREST::start(server, &before.place(), &settings);
        pooler = Some(before);
        postgrest
    });
    (api, pooler.expect("a pooler"))
}

/// A vault behind a pooler alone, with a login role of tenants whose claims do not count.
fn behind_a_pooler() -> (Pooler, Server) {
    let server = supabase_vault(PATIENT);
    server.psql("postgres", "CREATE ROLE app LOGIN IN ROLE watchllm_tenant");
    (Pooler::start(&server), server)
}

/// A tenant's sub, its project, and the id of a key in it.
fn tenant(c: &mut Client) -> (String, String, String) {
    let sub = Uuid::new_v4().to_string();
    let project = one(c, &format!("SELECT watchllm.create_project('a project', '{sub}')"));
    let key = store(c, &project, "openai", &new_key());
    (sub, project, key)
}

#[test]
fn the_suites_hold_through_a_pooler() {
    let (api, pooler) = pooled();
    for suite in ["changes.mjs", "opening.mjs", "views.mjs", "context.mjs", "spoofing.mjs"] {
        api.play(suite, std::slice::from_ref(&pooler.log));
    }
}

#[test]
fn a_crowd_over_three_connections_is_not_mixed_up() {
    let (api, pooler) = pooled();
    api.play("crowd.mjs", std::slice::from_ref(&pooler.log));
    let authenticators =
        "SELECT count(*) <= 3 FROM pg_stat_activity WHERE usename = 'authenticator'";
    assert_eq!(
        api.server().psql("postgres", authenticators),
        "t",
        "the crowd did not share its connections"
    );
}

/// Any client of an authenticator session can claim any identity, so that is not tested here. State
/// left in all three connections of the pool must not reach the next request, which says itself who
/// asks.
#[test]
fn what_a_session_leaves_in_the_pool_reaches_no_request() {
    let (api, pooler) = pooled();
    let victim = Uuid::new_v4().to_string();
    api.project(Some(&victim));
    let mut left: Vec<Client> = (0..3).map(|_| pooler.connect("postgres", AUTHENTICATOR)).collect();
    for c in &mut left {
        one(c, "BEGIN"); // all three at once, so that each has a connection of its own
        for setting in ["request.jwt.claims", "request.headers"] {
            one(c, &format!("SET {setting} = '{}'", claims("service_role", &victim)));
        }
        one(c, &format!("SET request.jwt.claim.sub = '{victim}'"));
        one(c, "SET ROLE service_role");
    }
    for c in &mut left {
        one(c, "COMMIT");
    }
    let mut next = pooler.connect("postgres", AUTHENTICATOR);
    assert_eq!(
        one(&mut next, "SELECT current_user"),
        "service_role",
        "nothing was left behind: the test tests nothing"
    );
    for suite in ["opening.mjs", "views.mjs"] {
        api.play(suite, std::slice::from_ref(&pooler.log));
    }
}

#[test]
fn claims_that_a_session_left_behind_count_for_nobody_without_trust() {
    let (pooler, server) = behind_a_pooler();
    let c = &mut server.connect("postgres", "postgres");
    let (sub, project, key) = tenant(c);
    let first = &mut pooler.connect("single", "app");
    one(first, &format!("SET request.jwt.claims = '{}'", claims("authenticated", &sub)));
    one(first, &format!("SET request.jwt.claim.sub = '{sub}'"));
    let second = &mut pooler.connect("single", "app");
    assert!(
        one(second, "SHOW request.jwt.claims").contains(&sub),
        "nothing was left behind: the test tests nothing"
    );
    for s in [first, second] {
        assert_eq!(one(s, "SELECT count(*) FROM watchllm.provider_keys"), "0");
        assert_eq!(one(s, "SELECT count(*) FROM watchllm.access_logs"), "0");
        assert_eq!(one(s, "SELECT count(*) FROM watchllm.current_project_ids()"), "0");
        let storing =
            format!("SELECT watchllm.store_provider_key('{project}', 'openai', '{}')", new_key());
        for call in [storing, format!("SELECT watchllm.delete_provider_key('{key}')")] {
            assert_eq!(code(s, &call), "02000", "{call}");
        }
        assert_eq!(code(s, &decrypt(&key)), "42501");
    }
    let untrusted = "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE session_role = 'app' AND claims_trusted";
    assert_eq!(one(c, untrusted), "0");
    let of_app =
        "SELECT count(*) > 0 FROM watchllm.provider_key_access_logs WHERE session_role = 'app'";
    assert_eq!(one(c, of_app), "t");
}

#[test]
fn a_statement_that_one_client_prepared_serves_the_next_as_itself() {
    let (pooler, server) = behind_a_pooler();
    let c = &mut server.connect("postgres", "postgres");
    let (mine, yours) = (tenant(c), tenant(c));
    let asks = |s: &mut Client, role: &str, sub: &str, sql: &str| {
        as_api(s, role, &claims(role, sub), "{}", "read write", sql)
    };
    let (first, second) = (
        &mut pooler.connect("single", AUTHENTICATOR),
        &mut pooler.connect("single", AUTHENTICATOR),
    );
    let prepare = "PREPARE mine AS SELECT id FROM watchllm.provider_keys; PREPARE open (uuid) AS SELECT watchllm.decrypt_provider_key($1)";
    asks(first, "authenticated", &mine.0, prepare).unwrap();
    // often enough that the server keeps one plan for all
    for _ in 0..7 {
        assert_eq!(
            asks(first, "authenticated", &mine.0, "EXECUTE mine").unwrap(),
            [mine.2.as_str()]
        );
        assert_eq!(
            asks(second, "authenticated", &yours.0, "EXECUTE mine").unwrap(),
            [yours.2.as_str()]
        );
        assert!(asks(second, "authenticated", "", "EXECUTE mine").unwrap().is_empty());
        assert_eq!(asks(second, "anon", "", "EXECUTE mine").unwrap_err().code().code(), "42501");
        let open = format!("EXECUTE open('{}')", mine.2);
        assert_eq!(asks(first, "service_role", "", &open).unwrap().len(), 1);
        assert_eq!(
            asks(second, "authenticated", &mine.0, &open).unwrap_err().code().code(),
            "42501"
        );
        assert_eq!(asks(second, "anon", "", &open).unwrap_err().code().code(), "42501");
    }
}

#[test]
fn an_answer_is_not_kept_for_the_next_client() {
    let (pooler, server) = behind_a_pooler();
    let c = &mut server.connect("postgres", "postgres");
    let (mine, yours) = (tenant(c), tenant(c));
    let (first, second) = (
        &mut pooler.connect("single", AUTHENTICATOR),
        &mut pooler.connect("single", AUTHENTICATOR),
    );
    let ids = "SELECT watchllm.current_project_ids()";
    for _ in 0..3 {
        for (s, who) in [(&mut *first, &mine), (&mut *second, &yours)] {
            let asked = as_api(
                s,
                "authenticated",
                &claims("authenticated", &who.0),
                "{}",
                "read only",
                ids,
            )
            .unwrap();
            assert_eq!(asked, [who.1.as_str()]);
        }
        // between requests the connection belongs to the authenticator, which is nobody
        assert_eq!(refusal(second, ids).code().code(), "42501");
        assert!(
            rows(second, "SELECT nullif(current_setting('request.jwt.claims', true), '')") == ["-"]
        );
    }
}
