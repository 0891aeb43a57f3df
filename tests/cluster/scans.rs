//! Keys in tables of odd shapes: ours and others', in every spelling, in json, in values of up to
//! hundreds of megabytes. In partitions, children and materialised views, old rows and rows without
//! a date. Each is found once, named, and never shown. Also an attacker's tables, full of keys.

use postgres::Client;
use uuid::Uuid;

use crate::keys::{Vault, code, new_key, one, project, refusal, rows, store};
use crate::roles::login;
use crate::server::Server;

pub(crate) fn scan(table: &str, more: &str) -> String {
    format!(
        "SELECT place, provider, redacted, provider_key_id, occurrences, is_new
        FROM watchllm.scan_table_for_leaks('{table}'{more})"
    )
}

/// A key of ours without a known shape, and its id.
pub(crate) fn odd_key(c: &mut Client) -> (String, String) {
    let (p, key) = (project(c), format!("odd/shape+{}=", Uuid::new_v4().simple()));
    let id = store(c, &p, "selfmade", &key);
    (key, id)
}

pub(crate) fn name(of: &str) -> String {
    format!("{of}_{}", Uuid::new_v4().simple())
}

/// Peak memory of the process behind a session, in megabytes.
pub(crate) fn peak_memory(c: &mut Client) -> usize {
    let pid = one(c, "SELECT pg_backend_pid()");
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a running process");
    let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("VmHWM");
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() >> 10
}

const MASKED: &str = "sk-proj-...[REDACTED]";

#[test]
fn a_key_is_found_in_every_type_and_spelling_and_is_new_once() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let ((ours, id), foreign, table) = (odd_key(c), new_key(), name("odd"));
    let escaped = ours.replace('/', "%2F").replace('+', "%2B").replace('=', "%3D");
    let json = ours.replace('/', "\\/").replace('=', "\\u003d");
    one(
        c,
        &format!(
            "CREATE TABLE {table} (id int, \"Message, \"\"x\" text, short varchar(99), gone text, old json, doc jsonb, n int, other text[]);
            ALTER TABLE {table} DROP gone;
            INSERT INTO {table} VALUES
                (1, 'GET /?key={escaped}&x=1', '{ours}', '{{\"{json}\": [1e400, \"x\"]}}', '{{\"a\": {{\"b\": [\"{ours}\"]}}}}'),
                (2, 'a {foreign}, b {foreign} c', NULL, '\"{foreign}\"', 'null'),
                (3, NULL, NULL, NULL, NULL), (4, '', '', '\"\"', '\"\"')"
        ),
    );
    let public = format!("public.{table}");
    let quoted = format!("{public}.Message, \"x");
    let expected = |new: &str| {
        let mut all = vec![
            format!("{quoted}|selfmade|...[REDACTED]|{id}|1|{new}"),
            format!("{public}.doc|selfmade|...[REDACTED]|{id}|1|{new}"),
            format!("{public}.old|selfmade|...[REDACTED]|{id}|1|{new}"),
            format!("{public}.short|selfmade|...[REDACTED]|{id}|1|{new}"),
            format!("{quoted}|openai|{MASKED}|-|2|{new}"),
            format!("{public}.old|openai|{MASKED}|-|1|{new}"),
        ];
        all.sort();
        all
    };
    for new in ["t", "f"] {
        let mut found = rows(c, &scan(&table, ""));
        found.sort();
        assert_eq!(found, expected(new));
    }
    let raised = format!(
        "SELECT severity, details->>'place', provider_key_id FROM watchllm.security_incidents
        WHERE details->>'place' LIKE '{public}.%' ORDER BY 1, 2"
    );
    let raised = rows(c, &raised);
    assert_eq!(raised.len(), 6);
    assert_eq!(raised[0], format!("high|{quoted}|{id}"));
    assert!(raised[5].starts_with("medium|") && raised[5].ends_with("|-"), "{raised:?}");
    let all = one(c, "SELECT string_agg(i::text, ' ') FROM watchllm.security_incidents i");
    assert!(!all.contains(&ours[10..30]) && !all.contains(&foreign[8..30]));
    // Only the named columns, each once. One more key in one place is new in that place only.
    let found = rows(c, &scan(&table, ", '{short,short}'"));
    assert_eq!(found, [format!("{public}.short|selfmade|...[REDACTED]|{id}|1|f")]);
    one(c, &format!("UPDATE {table} SET short = '{foreign}' WHERE id = 3"));
    let found = rows(c, &scan(&table, ""));
    assert_eq!(found.iter().filter(|row| row.ends_with("|t")).count(), 1, "{found:?}");
}

#[test]
fn keys_in_partitions_children_and_materialised_views_are_found_where_they_lie() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let ((ours, id), table) = (odd_key(c), name("split"));
    one(
        c,
        &format!(
            "CREATE TABLE {table} (day date, gone int, message text) PARTITION BY RANGE (day);
            CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES FROM ('2026-01-01') TO ('2026-02-01');
            CREATE TABLE {table}_2 (message text, note text, gone int, day date); ALTER TABLE {table}_2 DROP note;
            ALTER TABLE {table} ATTACH PARTITION {table}_2 FOR VALUES FROM ('2026-02-01') TO ('2026-03-01');
            INSERT INTO {table} VALUES ('2026-01-02', 1, '{ours}'), ('2026-02-02', 2, 'x {ours}'), ('2026-02-03', 2, '{ours} y');
            CREATE TABLE {table}_p (message text); CREATE TABLE {table}_c (more text) INHERITS ({table}_p);
            INSERT INTO {table}_c VALUES ('{ours}', '{ours}');
            CREATE MATERIALIZED VIEW {table}_m AS SELECT * FROM {table}"
        ),
    );
    let of = |part: &str, count: i32| {
        format!("public.{table}{part}.message|selfmade|...[REDACTED]|{id}|{count}|t")
    };
    assert_eq!(rows(c, &scan(&table, "")), [of("_1", 1), of("_2", 2)]);
    assert_eq!(rows(c, &scan(&format!("{table}_p"), "")), [of("_c", 1)]);
    assert_eq!(rows(c, &scan(&format!("{table}_m"), "")), [of("_m", 3)]);
    // The same leaf, when named itself, is the same place.
    assert_eq!(rows(c, &scan(&format!("{table}_2"), "")), [of("_2", 2).replace("|t", "|f")]);
}

#[test]
fn only_rows_of_the_time_asked_for_are_searched_and_none_is_missed() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    one(c, "SET timezone = 'Pacific/Kiritimati'");
    let table = name("timed");
    one(
        c,
        &format!(
            "CREATE TABLE {table} (z timestamptz, p timestamp, d date, t text);
            INSERT INTO {table} SELECT now() - a, now() - a, now() - a, 'sk-proj-' || md5(a::text) || md5(a::text)
            FROM unnest('{{-1 day,1 hour,20 hours,10 days}}'::interval[]) a;
            INSERT INTO {table} VALUES (NULL, NULL, NULL, 'sk-proj-' || md5('n') || md5('n')),
                ('-infinity', '-infinity', '-infinity', 'sk-proj-' || md5('o') || md5('o')),
                ('infinity', 'infinity', 'infinity', 'sk-proj-' || md5('i') || md5('i'))"
        ),
    );
    let count = |c: &mut Client, more: &str| rows(c, &scan(&table, more)).len();
    assert_eq!(count(c, ""), 7);
    assert_eq!(count(c, ", time_column => 'z', since => '2 hours'"), 4);
    for column in ["p", "d"] {
        let found = count(c, &format!(", NULL, '{column}', '24 hours'"));
        assert_eq!(found, 5, "{column}"); // without a zone a day more
    }
    for (bad, expected) in [
        (", NULL, 'z'", "22023"),
        (", NULL, NULL, '1 day'", "22023"),
        (", NULL, 't', '1 day'", "22023"),
        (", NULL, 'nowhere', '1 day'", "42703"),
        (", NULL, 'z', '-1 day'", "22023"),
        (", '{nowhere}'", "42703"),
        (", '{z}'", "22023"),
        (", '{NULL}'", "22004"),
        (", '{}'", "22023"),
    ] {
        let error = refusal(c, &scan(&table, bad));
        assert_eq!(error.code().code(), expected, "{bad}: {}", error.message());
    }
    assert_eq!(code(c, "SELECT watchllm.scan_table_for_leaks(NULL)"), "22004");
    assert_eq!(code(c, &format!("BEGIN READ ONLY; {}; COMMIT", scan(&table, ""))), "22023");
    one(c, "ROLLBACK");
}

#[test]
fn a_value_of_megabytes_is_searched_to_its_end() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let ((ours, id), foreign, table) = (odd_key(c), new_key(), name("long"));
    let lines = "repeat('a line of words that are no key'||chr(10), 90000)";
    let solid = "repeat('ab-', 1100000)";
    one(
        c,
        &format!(
            "CREATE TABLE {table} (t text, d jsonb); ALTER TABLE {table} ALTER t SET STORAGE EXTERNAL;
            INSERT INTO {table} VALUES ({lines} || '{ours} ' || {lines}), ({lines} || 'x {foreign}'),
                ({solid} || '\"{foreign}\",' || {solid} || '=\"{ours}\"'), (NULL), ('');
            INSERT INTO {table} (d) SELECT to_jsonb(t) FROM {table}"
        ),
    );
    // Where a piece may end: keys every few bytes around a megabyte, in text without a blank.
    one(
        c,
        &format!(
            "INSERT INTO {table} SELECT repeat('a,', 524288 - 8192 - i * 20) || '{ours}' || repeat(',a', 20000) FROM generate_series(-10, 10) i"
        ),
    );
    let expected = [
        format!("public.{table}.d|selfmade|...[REDACTED]|{id}|2|t"),
        format!("public.{table}.t|selfmade|...[REDACTED]|{id}|23|t"),
        format!("public.{table}.d|openai|{MASKED}|-|2|t"),
        format!("public.{table}.t|openai|{MASKED}|-|2|t"),
    ];
    assert_eq!(rows(c, &scan(&table, "")), expected);
}

#[test]
fn a_table_made_of_keys_does_not_flood_and_a_key_of_ours_is_not_lost_in_it() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let ((ours, id), table) = (odd_key(c), name("flood"));
    one(
        c,
        &format!(
            "CREATE TABLE {table} (t text);
            INSERT INTO {table} SELECT 'sk-proj-' || md5(i::text) || md5(i::text) FROM generate_series(1, 12000) i;
            INSERT INTO {table} VALUES ('{ours}')"
        ),
    );
    for new in ["t", "f"] {
        let found = rows(c, &scan(&table, ""));
        assert_eq!(found.len(), 10_002);
        // 100 of the others are incidents: five times the budget. The rest is new again.
        assert_eq!(found.iter().filter(|row| row.ends_with("|f")).count() >= 100, new == "f");
        assert_eq!(found[0], format!("public.{table}.t|selfmade|...[REDACTED]|{id}|1|{new}"));
        assert_eq!(found[10_001], format!("elsewhere|-|...[REDACTED]|-|2000|{new}"));
    }
    server.poll_until("postgres", "SELECT held_back > 0 FROM watchllm.cut_off_sources", "t", 20);
    let counts = "SELECT type, count(*), count(provider_key_id) FROM watchllm.security_incidents GROUP BY 1 ORDER BY 1";
    assert_eq!(rows(c, counts), ["held_back|1|0", "leaked_key|102|1"]);
}

#[test]
fn a_long_scan_tells_how_far_it_is_can_be_cancelled_and_needs_little_memory() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let ((ours, id), table) = (odd_key(c), name("large"));
    one(
        c,
        &format!(
            "CREATE UNLOGGED TABLE {table} (t text); INSERT INTO {table}
            SELECT repeat('2026-01-01 request ' || i || ' from 10.1.2.3 took 15 ms, status=200 path=/v1/items ', 12) FROM generate_series(1, 80000) i;
            INSERT INTO {table} VALUES ('{ours}')"
        ),
    );
    let noticed = server.psql_result("postgres", &scan(&table, ""));
    assert_eq!(noticed.stdout, format!("public.{table}.t|selfmade|...[REDACTED]|{id}|1|t"));
    assert!(noticed.stderr.contains("64 MB searched"), "{}", noticed.stderr);
    assert_eq!(code(c, &format!("SET statement_timeout = '300ms'; {}", scan(&table, ""))), "57014");
    let s = &mut server.connect("postgres", "postgres");
    let small = format!("SELECT count(*) FROM watchllm.scan_table_for_leaks('{table}_small')");
    one(s, &format!("CREATE TABLE {table}_small (t text); {small}"));
    let before = peak_memory(s);
    one(s, &scan(&table, ""));
    let after = peak_memory(s);
    // The pages that this process has read lie in shared memory, which counts too.
    let shared = one(s, "SELECT pg_size_bytes(current_setting('shared_buffers')) >> 20")
        .parse::<usize>()
        .unwrap();
    assert!(after < before + shared + 30, "{before} MB before, {after} after");
}

#[test]
fn a_key_of_ours_in_row_900000_is_found_and_named() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let ((ours, id), table) = (odd_key(c), name("rows"));
    one(
        c,
        &format!(
            "CREATE UNLOGGED TABLE {table} AS SELECT i AS id, CASE i WHEN 900000 THEN 'x-key: {ours}' ELSE 'request ' || i END AS message
            FROM generate_series(1, 1000000) i"
        ),
    );
    let expected = format!("public.{table}.message|selfmade|...[REDACTED]|{id}|1|t");
    assert_eq!(rows(c, &scan(&table, "")), [expected]);
    let raised = format!(
        "SELECT severity, provider_key_id, details->>'place' FROM watchllm.open_incidents WHERE provider_key_id = '{id}'"
    );
    assert_eq!(rows(c, &raised), [format!("high|{id}|public.{table}.message")]);
    one(c, &format!("DROP TABLE {table}"));
}

#[test]
fn who_may_not_is_refused_and_recorded_and_each_scan_is_on_record() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let table = name("rights");
    one(
        c,
        &format!(
            "CREATE TABLE {table} (id int, t text); INSERT INTO {table} VALUES (1, '{}')",
            new_key()
        ),
    );
    let (auditor, some, service) =
        (login(c, "watchllm_auditor"), login(c, "watchllm_auditor"), login(c, "watchllm_service"));
    one(
        c,
        &format!("GRANT SELECT (id) ON {table} TO {some}; GRANT SELECT ON {table} TO {service}"),
    );
    for (caller, expected, refused) in
        [(&auditor, "42501", "1"), (&some, "42501", "1"), (&service, "42501", "0")]
    {
        assert_eq!(code(&mut vault.connect(caller), &scan(&table, "")), expected);
        let recorded = format!(
            "SELECT count(*) FROM watchllm.provider_key_access_logs
            WHERE session_role = '{caller}' AND failure_reason = 'not_authorized'"
        );
        assert_eq!(one(c, &recorded), refused);
    }
    one(c, &format!("GRANT SELECT ON {table} TO {auditor}"));
    assert_eq!(rows(&mut vault.connect(&auditor), &scan(&table, "")).len(), 1);
    let recorded = format!(
        "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE session_role = '{auditor}' AND access_type = 'validate' AND success"
    );
    assert_eq!(one(c, &recorded), "1");
    one(c, &format!("ALTER TABLE {table} ENABLE ROW LEVEL SECURITY"));
    assert_eq!(code(&mut vault.connect(&auditor), &scan(&table, "")), "22023");
}
