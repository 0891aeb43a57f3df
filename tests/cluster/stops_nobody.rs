//! One row, one object, one transaction that stops everybody. A poison interval, a view nested too
//! deeply, a thief in an open transaction, replica mode. Days that cannot be made, a text larger
//! than memory, a vault that is gone. Each time the others go on, and what is wrong is named.

use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;

use crate::commands::command;
use crate::keys::{code, decrypt, new_key, one, project, refusal, rows, store};
use crate::roles::login;
use crate::server::Server;

/// Raises the error unless a migration says otherwise, as applications guard their schema.
const GUARD: &str = "CREATE FUNCTION public.guard() RETURNS event_trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'DDL only by migration'; END $$;
    CREATE EVENT TRIGGER guard ON ddl_command_start EXECUTE FUNCTION public.guard()";

fn report(key: &str) -> String {
    format!(
        "SELECT count(*), bool_and(blocked) FROM watchllm.report_leaked_key('{key}', 'test', true)"
    )
}

/// A tenant's login role that is a member of the project.
fn tenant(c: &mut Client, server: &Server, p: &str, role: &str) -> Client {
    one(c, &format!("CREATE ROLE {role} LOGIN IN ROLE watchllm_tenant"));
    one(c, &format!("SELECT watchllm.add_project_member('{p}', role_name => '{role}')"));
    server.connect("postgres", role)
}

/// Runs a statement that must end within these seconds, whatever it answers.
fn soon(server: &Server, seconds: u64, sql: &str) -> (String, String) {
    let began = Instant::now();
    let said = server.psql_result("postgres", sql);
    assert!(began.elapsed() < Duration::from_secs(seconds), "{:?}: {sql}", began.elapsed());
    (said.stdout, said.stderr)
}

#[test]
fn an_interval_that_overflows_in_some_time_zone_is_refused() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    let k = store(c, &p, "openai", &new_key());
    for poison in [
        "293000 years -105479960 days",
        "-1 month 31 days",
        "1 month -29 days",
        "100 years 1 microsecond",
        "1 day -23 hours",
        "36001 days",
        "2147483647 months -2147483647 days",
    ] {
        let update =
            format!("SELECT watchllm.update_provider_key('{k}', rotation_interval => '{poison}')");
        assert_eq!(code(c, &update), "22023", "{poison}");
        // nor can it come past the function
        let row = format!(
            "UPDATE watchllm.provider_key_records SET rotation_interval = '{poison}' WHERE id = '{k}'"
        );
        let refused = code(c, &row);
        assert!(refused == "23514" || poison.starts_with("100 years"), "{poison}: {refused}");
    }
    for row in ["created_at", "active_version_created_at", "rotation_required_at"] {
        for poison in ["infinity", "-infinity", "294000-01-01", "0044-03-15 BC"] {
            let row = format!(
                "UPDATE watchllm.provider_key_records SET {row} = '{poison}' WHERE id = '{k}'"
            );
            assert_eq!(code(c, &row), "23514", "{row}");
        }
    }
    // what is allowed can be read in every time zone
    one(
        c,
        &format!("SELECT watchllm.update_provider_key('{k}', rotation_interval => '100 years')"),
    );
    for zone in ["UTC", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati"] {
        one(c, &format!("SET timezone = '{zone}'"));
        assert_eq!(one(c, "SELECT count(*) FROM watchllm.provider_key_security_summary"), "1");
        one(c, "SELECT count(*) FROM watchllm.check_key_rotation_requirements()");
    }
}

#[test]
fn a_row_that_fails_is_named_and_the_walk_goes_on() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    let keys: Vec<String> = (0..3).map(|_| store(c, &p, "openai", &new_key())).collect();
    let mut sorted = keys.clone();
    sorted.sort();
    let bad = &sorted[1];
    // only a superuser who drops our CHECK can make such a row
    one(
        c,
        &format!(
            "ALTER TABLE watchllm.provider_key_records DROP CONSTRAINT provider_key_records_times,
                DROP CONSTRAINT provider_key_records_rotation_interval_parts;
             UPDATE watchllm.provider_key_records SET active_version_created_at = now() - interval '200 days';
             UPDATE watchllm.provider_key_records SET rotation_interval = '293000 years -105479960 days'
             WHERE id = '{bad}'"
        ),
    );
    let alerts = "SELECT count(DISTINCT provider_key_id) FROM watchllm.security_incidents WHERE type = 'rotation_due'";
    server.poll_until("postgres", alerts, "2", 100);
    let named = format!("rotation of provider key {bad} cannot be judged");
    assert!(server.log().contains(&named), "{}", server.log());
}

#[test]
fn a_view_nested_too_deeply_is_named_and_the_rest_is_scanned() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let key = new_key();
    one(
        c,
        &format!(
            "CREATE VIEW public.told AS SELECT 'sk-proj-{key}'::text AS x;
             CREATE TABLE public.base (a int);
             CREATE VIEW public.locked AS SELECT a FROM public.base"
        ),
    );
    // an expression that can be stored, and not be written out with so small a stack
    one(
        c,
        "DO $$ BEGIN EXECUTE 'CREATE VIEW public.deep AS SELECT ' || repeat('(1 + ', 2500) || '1' || repeat(')', 2500)
            || ' AS x'; END $$",
    );
    let holder = &mut server.connect("postgres", "postgres");
    one(holder, "BEGIN; LOCK TABLE public.locked IN ACCESS EXCLUSIVE MODE");
    let scan = "SET max_stack_depth = '100kB'; SELECT place FROM watchllm.scan_database_for_leaks() WHERE place ~ 'told'";
    let (found, said) = soon(&server, 60, scan);
    one(holder, "ROLLBACK");
    assert!(found.contains("told"), "{found} {said}");
    assert!(said.contains("not scanned: view public.deep"), "{said}");
    assert!(said.contains("54001"), "{said}");
    assert!(said.contains("view public.locked") && said.contains("55P03"), "{said}");
}

#[test]
fn a_partition_that_somebody_has_locked_is_passed_over_by_name() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let key = new_key();
    one(
        c,
        &format!(
            "CREATE TABLE public.t (n int, x text) PARTITION BY LIST (n);
             CREATE TABLE public.t1 PARTITION OF public.t FOR VALUES IN (1);
             CREATE TABLE public.t2 PARTITION OF public.t FOR VALUES IN (2);
             INSERT INTO public.t VALUES (1, 'sk-proj-{key}'), (2, 'sk-proj-{key}')"
        ),
    );
    let holder = &mut server.connect("postgres", "postgres");
    one(holder, "BEGIN; LOCK TABLE ONLY public.t2 IN ACCESS EXCLUSIVE MODE");
    let (found, said) =
        soon(&server, 30, "SELECT place FROM watchllm.scan_table_for_leaks('public.t')");
    assert_eq!(found, "public.t1.x", "{said}");
    assert!(said.contains("not scanned: public.t2") && said.contains("55P03"), "{said}");
}

#[test]
fn a_thief_in_an_open_transaction_keeps_no_victims_key_open() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let (victim, thief) = (project(c), project(c));
    let stolen = new_key();
    let key = store(c, &victim, "openai", &stolen);
    let theirs = store(c, &thief, "openai", &stolen);
    let idle = &mut tenant(c, &server, &thief, "thief");
    one(idle, &format!("BEGIN; SELECT watchllm.set_provider_key_active('{theirs}', true)"));
    let (said, error) = soon(&server, 5, &report(&stolen));
    assert_eq!(said, "2|t", "{error}");
    for key in [&key, &theirs] {
        let opens = format!("SELECT watchllm.decrypt_provider_key('{key}')");
        assert_eq!(code(c, &opens), "42000", "{key}");
    }
    // staff can block, unblock and set limits of the key that the thief holds
    for staff in [
        format!("SELECT watchllm.block_provider_key('{theirs}', 'stolen')"),
        format!("SELECT watchllm.unblock_provider_key('{theirs}', 'again')"),
        format!("SELECT watchllm.block_provider_key('{theirs}', 'stolen')"),
        format!("SELECT watchllm.set_setting('max_accesses_per_minute', '5', NULL, '{theirs}')"),
        format!("SELECT watchllm.set_setting('max_active_keys', '2', '{thief}')"),
        format!("SELECT watchllm.add_project_member('{thief}', 'somebody')"),
    ] {
        let (_, error) = soon(&server, 5, &staff);
        assert_eq!(error, "", "{staff}");
    }
    // what must change the row itself does not wait for ever
    let (_, error) = soon(&server, 20, &format!("SELECT watchllm.delete_project('{thief}')"));
    assert!(error.contains("55P03"), "{error}");
    // the mark waits, and comes when the row is free
    let marked = format!(
        "SELECT count(*) FROM watchllm.provider_key_records WHERE id IN ('{key}', '{theirs}') AND compromised_at IS NOT NULL"
    );
    assert_eq!(server.psql("postgres", &marked), "1");
    one(idle, "COMMIT");
    server.poll_until("postgres", &marked, "2", 30);
    server.poll_until("postgres", "SELECT count(*) FROM watchllm.leak_marks", "0", 30);
}

#[test]
fn in_replica_mode_our_triggers_fire_or_the_statement_fails() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    let replica = "SET session_replication_role = replica;";
    let row = format!("{p}\topenai\tby copy\t{}\n", new_key());
    let copy = format!(
        "{replica} COPY watchllm.provider_key_inbox (project_id, provider, name, api_key) FROM STDIN;\n{row}\\.\n"
    );
    let said = server.psql_result("postgres", &copy);
    assert!(
        said.stderr.contains("55000") && said.stderr.contains("store_from_inbox"),
        "{}",
        said.stderr
    );
    let insert = format!(
        "{replica} INSERT INTO watchllm.provider_key_inbox VALUES ('{p}', 'openai', 'i', '{}')",
        new_key()
    );
    assert_eq!(refusal(c, &insert).code().code(), "55000");
    // a statement that was prepared before
    one(c, "RESET session_replication_role");
    one(
        c,
        &format!(
            "PREPARE put AS INSERT INTO watchllm.provider_key_inbox VALUES ('{p}', 'openai', 'prepared', '{}')",
            new_key()
        ),
    );
    one(c, "SET session_replication_role = replica");
    assert_eq!(code(c, "EXECUTE put"), "55000");
    one(c, "RESET session_replication_role");
    one(c, "EXECUTE put");
    assert_eq!(one(c, "SELECT string_agg(name, ',') FROM watchllm.provider_keys"), "prepared");
    // an adopted table is followed
    one(
        c,
        "CREATE TABLE public.apps (id uuid PRIMARY KEY, user_id text, name text);
         SELECT watchllm.adopt_projects('public.apps')",
    );
    let id = uuid::Uuid::new_v4();
    let load = format!("{replica} INSERT INTO public.apps VALUES ('{id}', 'u', 'loaded')");
    server.psql("postgres", &load);
    assert_eq!(one(c, &format!("SELECT name FROM watchllm.projects WHERE id = '{id}'")), "loaded");
    // keys in a table of the application are masked, or not stored
    one(
        c,
        "CREATE TABLE public.notes (x text);
         CREATE TRIGGER mask BEFORE INSERT OR UPDATE ON public.notes FOR EACH ROW
         EXECUTE FUNCTION watchllm.redact_columns('x')",
    );
    let note = format!("{replica} INSERT INTO public.notes VALUES ('sk-proj-{}')", new_key());
    assert!(server.psql_result("postgres", &note).stderr.contains("55000"));
    one(c, "ALTER TABLE public.notes ENABLE ALWAYS TRIGGER mask");
    server.psql("postgres", &note);
    assert_eq!(one(c, "SELECT x FROM public.notes"), "sk-proj-...[REDACTED]");
    // other tables are none of our business
    server.psql(
        "postgres",
        &format!(
            "CREATE TABLE public.other (x text); {replica} INSERT INTO public.other VALUES ('a')"
        ),
    );
}

#[test]
fn an_event_trigger_of_an_application_does_not_end_the_days() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    let k = store(c, &p, "openai", &new_key());
    one(c, GUARD);
    // the writer makes them all anew: it was started again and finds none ahead
    let drop_ahead = "DO $$ DECLARE d regclass; BEGIN
        FOR d IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'watchllm.provider_key_access_logs'::regclass
            AND inhrelid::regclass::text > 'watchllm.provider_key_access_logs_' || to_char(now() AT TIME ZONE 'UTC', 'YYYYMMDD')
        LOOP EXECUTE 'DROP TABLE ' || d; END LOOP; END $$";
    one(c, "ALTER EVENT TRIGGER guard DISABLE");
    one(c, drop_ahead);
    one(c, "ALTER EVENT TRIGGER guard ENABLE");
    let days = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'watchllm.provider_key_access_logs'::regclass";
    assert_eq!(server.psql("postgres", days), "1");
    let wrong = "SELECT coalesce(string_agg(check_name, ' '), '') FROM watchllm.security_check() WHERE ok IS FALSE";
    assert_eq!(server.psql("postgres", wrong), "days_ahead");
    let writer = server.writer_pid("postgres").unwrap();
    server.kill_backend(writer, "TERM");
    server.poll_until(
        "postgres",
        &format!("SELECT length(watchllm.decrypt_provider_key('{k}')) > 0"),
        "t",
        30,
    );
    server.poll_until("postgres", days, "8", 30);
    assert_eq!(server.psql("postgres", "SELECT problem, health FROM watchllm.status()"), "|ok");

    // one that fires always cannot be kept out: it is told days before
    one(c, "ALTER EVENT TRIGGER guard DISABLE");
    one(c, drop_ahead);
    one(c, "ALTER EVENT TRIGGER guard ENABLE ALWAYS");
    server.kill_backend(server.writer_pid("postgres").unwrap(), "TERM");
    server.poll_until(
        "postgres",
        &format!("SELECT length(watchllm.decrypt_provider_key('{k}')) > 0"),
        "t",
        30,
    );
    let told = "SELECT health, problem ~ 'cannot be made' AND problem ~ 'DDL only by migration' FROM watchllm.status()";
    server.poll_until("postgres", told, "problem|t", 30);
    assert_eq!(server.psql("postgres", wrong), "days_ahead");
    assert!(server.log().contains("the day") && server.log().contains("cannot be made"));
    one(c, "ALTER EVENT TRIGGER guard DISABLE");
    server.poll_until("postgres", told, "ok|", 60);
    server.poll_until("postgres", days, "8", 30);
}

/// Memory of one server process, as `ulimit -v` limits it.
fn limit(pid: &str, megabytes: u64) {
    let bytes = (megabytes << 20).to_string();
    let done = command("prlimit")
        .args(["--pid", pid, &format!("--as={bytes}:{bytes}")])
        .output()
        .expect("prlimit");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

#[test]
fn under_a_memory_limit_redact_is_an_error_and_the_server_stays_up() {
    let server = Server::with_vault();
    let born = server.psql("postgres", "SELECT pg_postmaster_start_time()");
    server.psql(
        "postgres",
        "CREATE TABLE public.masked (x text, j jsonb, k json);
         CREATE TRIGGER mask BEFORE INSERT ON public.masked FOR EACH ROW
         EXECUTE FUNCTION watchllm.redact_columns('x', 'j', 'k')",
    );
    let keys = "repeat('sk-proj-' || repeat('a1B2', 6) || ' ', 10000000)";
    for call in [
        format!("SELECT length(watchllm.redact({keys}))"),
        format!("SELECT length(watchllm.redact({keys}, ARRAY['acme-[0-9]+']))"),
        format!("SELECT length(watchllm.redact({keys}, ARRAY['a1B2 sk', 'a1B2a1']))"),
        format!("SELECT length(watchllm.redact(to_jsonb({keys}))::text)"),
        format!("INSERT INTO public.masked (x) VALUES ({keys})"),
        format!("INSERT INTO public.masked (j) VALUES (to_jsonb(left({keys}, 250000000)))"),
        format!("INSERT INTO public.masked (k) VALUES (to_json({keys}))"),
        "SELECT count(*) FROM watchllm.decrypt_provider_keys(array_fill(gen_random_uuid(), ARRAY[40000000]))".into(),
        format!("SELECT count(*) FROM watchllm.find_keys({keys})"),
    ] {
        for megabytes in [900, 1_100, 1_400, 1_800] {
            let c = &mut server.connect("postgres", "postgres");
            one(c, "SELECT watchllm.redact('warm')");
            limit(&one(c, "SELECT pg_backend_pid()"), megabytes);
            // an ERROR, or an answer where it fits; never a lost connection
            if let Err(error) = c.simple_query(&call) {
                let error = error.as_db_error().unwrap_or_else(|| panic!("{megabytes} MB: {error}\n{call}"));
                let code = error.code().code();
                assert!(["53200", "54000", "23514"].contains(&code), "{megabytes} MB: {error:?}\n{call}");
            }
            assert_eq!(one(c, "SELECT 1"), "1");
        }
    }
    assert_eq!(
        server.psql("postgres", "SELECT pg_postmaster_start_time()"),
        born,
        "the server went down"
    );
}

#[test]
fn a_caller_without_the_right_is_refused_before_its_arguments_are_unpacked() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    let t = &mut tenant(c, &server, &p, "small");
    let ids = "array_fill(gen_random_uuid(), ARRAY[1000000])";
    assert_eq!(code(t, &format!("SELECT * FROM watchllm.decrypt_provider_keys({ids})")), "42501");
    assert_eq!(code(c, &format!("SELECT * FROM watchllm.decrypt_provider_keys({ids})")), "23514");
    assert_eq!(
        code(c, "SELECT watchllm.redact('x', array_fill('a'::text, ARRAY[1000000]))"),
        "22023"
    );
}

#[test]
fn a_writer_whose_vault_is_gone_ends_and_says_so_once() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let p = project(c);
    store(c, &p, "openai", &new_key());
    let began = server.log_len();
    one(c, "DROP EXTENSION watchllm_keys CASCADE; DROP SCHEMA watchllm CASCADE");
    let writers =
        "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'watchllm_keys writer'";
    server.poll_until("postgres", writers, "0", 60);
    let said = server.log_since(began);
    let lines = said.lines().filter(|line| line.contains("watchllm_keys writer")).count();
    assert!((1..=4).contains(&lines), "{lines} lines:\n{said}");
}

#[test]
fn a_vault_that_was_installed_again_has_no_keys_of_the_former() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    for round in 0..3 {
        let p = project(c);
        let key = new_key();
        let id = store(c, &p, "openai", &key);
        assert_eq!(one(c, &decrypt(&id)), key, "round {round}");
        let chain = "SELECT min(seq), count(DISTINCT identity_id), bool_and(identity_id = (SELECT id FROM watchllm.database_identity))
            FROM watchllm.provider_key_access_logs";
        assert_eq!(one(c, chain), "1|1|t", "round {round}");
        assert_eq!(one(c, "SELECT count(*) FROM watchllm.security_check() WHERE ok IS FALSE"), "0");
        one(
            c,
            "DROP EXTENSION watchllm_keys CASCADE; DROP SCHEMA watchllm CASCADE;
             CREATE EXTENSION watchllm_keys; SELECT watchllm.install()",
        );
    }
    // the extension alone: the same vault, the same keys
    let p = project(c);
    let key = new_key();
    let id = store(c, &p, "openai", &key);
    one(
        c,
        "DROP EXTENSION watchllm_keys CASCADE; CREATE EXTENSION watchllm_keys; SELECT watchllm.install()",
    );
    assert_eq!(one(c, &decrypt(&id)), key);
}

/// The second tenant as it goes through the day: it opens its key, and a block of it holds.
struct Other<'a> {
    server: &'a Server,
    key: String,
    plain: String,
}

impl Other<'_> {
    /// Its calls, its alerts and its blocks work.
    fn works(&self, when: &str) {
        let c = &mut self.server.connect("postgres", "postgres");
        let began = Instant::now();
        assert_eq!(one(c, &decrypt(&self.key)), self.plain, "{when}");
        one(c, &format!("SELECT watchllm.block_provider_key('{}', '{when}')", self.key));
        let opens = format!("SELECT watchllm.decrypt_provider_key('{}')", self.key);
        assert_eq!(code(c, &opens), "42000", "{when}");
        one(c, &format!("SELECT watchllm.unblock_provider_key('{}')", self.key));
        self.server.poll_until(
            "postgres",
            &format!("SELECT length(watchllm.decrypt_provider_key('{}')) > 0", self.key),
            "t",
            10,
        );
        assert!(began.elapsed() < Duration::from_secs(12), "{when}: {:?}", began.elapsed());
        // a key of its own that grew old is told
        let provider = format!("p-{}", when.replace(' ', "-"));
        let p = one(
            c,
            &format!(
                "SELECT project_id FROM watchllm.provider_key_records WHERE id = '{}'",
                self.key
            ),
        );
        let old = store(c, &p, &provider, &new_key());
        one(
            c,
            &format!(
                "UPDATE watchllm.provider_key_records SET active_version_created_at = now() - interval '200 days' WHERE id = '{old}'"
            ),
        );
        one(c, "SELECT watchllm.set_setting('stale_after', '30d')"); // the next walk begins at once
        let told = format!(
            "SELECT count(*) FROM watchllm.security_incidents WHERE type = 'rotation_due' AND provider_key_id = '{old}'"
        );
        self.server.poll_until("postgres", &told, "1", 30);
    }
}

#[test]
fn a_day_of_every_attack_leaves_the_second_tenant_in_service() {
    let server = Server::with_vault_and("watchllm_keys.max_active_keys = 0");
    let c = &mut server.connect("postgres", "postgres");
    let (mine, theirs) = (project(c), project(c));
    let (plain, shared) = (new_key(), new_key());
    let other = Other { server: &server, key: store(c, &theirs, "openai", &plain), plain };
    let bad = store(c, &mine, "openai", &shared);
    let attacker = &mut tenant(c, &server, &mine, "attacker");
    other.works("before");

    let poison = format!(
        "SELECT watchllm.update_provider_key('{bad}', rotation_interval => '293000 years -105479960 days')"
    );
    assert_eq!(code(attacker, &poison), "22023");
    other.works("poison interval");

    one(c, "GRANT CREATE ON SCHEMA public TO attacker");
    one(
        attacker,
        "DO $$ BEGIN EXECUTE 'CREATE VIEW public.deep AS SELECT ' || repeat('(1 + ', 2500) || '1' || repeat(')', 2500) || ' AS x'; END $$",
    );
    soon(
        &server,
        60,
        "SET max_stack_depth = '100kB'; SELECT count(*) FROM watchllm.scan_database_for_leaks()",
    );
    other.works("deep view");

    one(attacker, &format!("BEGIN; SELECT watchllm.set_provider_key_active('{bad}', true)"));
    let (said, error) = soon(&server, 5, &report(&shared));
    assert_eq!(said, "1|t", "{error}");
    assert_eq!(code(c, &format!("SELECT watchllm.decrypt_provider_key('{bad}')")), "42000");
    other.works("open transaction");
    one(attacker, "ROLLBACK");

    let row = format!("{theirs}\topenai\t\\N\t{}\n", new_key());
    let copy = format!(
        "SET session_replication_role = replica;\nCOPY watchllm.provider_key_inbox FROM STDIN;\n{row}\\.\n"
    );
    assert!(server.psql_result("postgres", &copy).stderr.contains("55000"));
    other.works("replica mode");

    one(c, GUARD);
    one(c, "ALTER EVENT TRIGGER guard ENABLE");
    server.kill_backend(server.writer_pid("postgres").unwrap(), "TERM");
    other.works("event trigger");
    assert_eq!(server.psql("postgres", "SELECT problem FROM watchllm.status()"), "");
    one(c, "DROP EVENT TRIGGER guard");

    let small = &mut server.connect("postgres", "attacker");
    one(small, "SELECT watchllm.redact('warm')");
    let pid = one(small, "SELECT pg_backend_pid()");
    limit(&pid, 900);
    let large =
        "SELECT length(watchllm.redact(repeat('sk-proj-' || repeat('a1B2', 6) || ' ', 10000000)))";
    if let Err(error) = small.simple_query(large) {
        assert!(error.as_db_error().is_some(), "{error}");
    }
    assert_eq!(one(small, "SELECT 1"), "1");
    other.works("memory");

    // another database's vault is removed on the same server
    one(c, "CREATE DATABASE gone");
    server.psql("gone", "CREATE EXTENSION watchllm_keys; SELECT watchllm.install(); SELECT watchllm.create_project('p')");
    server.psql("gone", "DROP EXTENSION watchllm_keys CASCADE; DROP SCHEMA watchllm CASCADE");
    thread::sleep(Duration::from_secs(2));
    other.works("vault gone");
}

#[test]
fn monitoring_asks_for_the_health_and_reads_nothing_else() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let watcher = login(c, "pg_monitor");
    let w = &mut server.connect("postgres", &watcher);
    let health = "SELECT health, problem FROM watchllm.status()";
    assert_eq!(one(w, health), "not called yet|-");
    project(c);
    assert_eq!(one(w, health), "ok|-");
    server.restart();
    let w = &mut server.connect("postgres", &watcher);
    assert_eq!(one(w, health), "not called yet|-");
    assert_eq!(code(w, "SELECT * FROM watchllm.provider_keys"), "42501");
    assert_eq!(code(w, "SELECT watchllm.create_project('p')"), "42501");
    assert!(rows(w, "SELECT 1 FROM pg_proc").len() > 1);
}
