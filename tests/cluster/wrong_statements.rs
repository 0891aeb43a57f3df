//! Statements that name us and fail, made from parts: calls, ways to write a key wrongly, and what
//! a statement may be wrapped in. `K` stands for the key. None of them succeeds, in any language.

/// How a wrong statement is sent.
pub(crate) enum Way {
    /// One text after the other; only the last one fails.
    Text(Vec<String>),
    /// By the extended protocol, each with the key as its parameter, in one piece.
    Pipeline(Vec<String>),
    /// COPY, with these rows.
    Copy(String, String),
    /// A function that is called by number, with the key as each of its arguments.
    Call(&'static str),
}

pub(crate) struct Wrong {
    pub name: String,
    pub way: Way,
}

/// What the statements need; none of it holds a key.
pub(crate) const SETUP: &str = "
CREATE SCHEMA app;
CREATE TABLE app.keys (id int, api_key text);
CREATE TABLE app.numbers (n int);
CREATE FUNCTION app.by_text(k text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN EXECUTE format('SELECT watchllm.find_keys(%L) x y', k); END $$;
CREATE FUNCTION app.early(k text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN PERFORM k::int; PERFORM watchllm.find_keys(k); END $$;
CREATE FUNCTION app.late(k text) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN PERFORM watchllm.find_keys('none'); RAISE EXCEPTION 'not %', k USING DETAIL = k, HINT = k; END $$;
CREATE FUNCTION app.warns(k text) RETURNS int LANGUAGE plpgsql AS $$
    BEGIN PERFORM watchllm.find_keys('none'); RAISE WARNING 'got %', k; RETURN 1/0; END $$;
CREATE FUNCTION app.in_sql(k text) RETURNS int LANGUAGE sql AS $$
    SELECT length(watchllm.redact(k)) + k::int $$;
CREATE FUNCTION app.atomic(k text) RETURNS int LANGUAGE sql
    BEGIN ATOMIC SELECT length(watchllm.redact(k)) + k::int; END;
CREATE PROCEDURE app.proc(k text) LANGUAGE plpgsql AS $$
    BEGIN PERFORM k::date; PERFORM watchllm.find_keys(k); END $$;
CREATE FUNCTION app.on_row() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN PERFORM NEW.api_key::int, watchllm.find_keys(NEW.api_key); RETURN NEW; END $$;
CREATE TRIGGER vault BEFORE INSERT ON app.keys FOR EACH ROW EXECUTE FUNCTION app.on_row();
CREATE VIEW app.inbox AS SELECT * FROM watchllm.provider_key_inbox;
";

const CALLS: [&str; 5] = [
    "watchllm.find_keys(#)",
    "watchllm.store_provider_key('00000000-0000-0000-0000-000000000001', 'openai', #, 'n')",
    "watchllm.rotate_provider_key('00000000-0000-0000-0000-000000000001', #)",
    "watchllm.report_leaked_key(#, 'mail')",
    "\"watchllm\" . \"redact\"(#)",
];

/// The key as people write it by mistake.
const SLIPS: [(&str, &str); 24] = [
    ("a quote is missing at the end", "'K"),
    ("a quote is missing at the start", "K'"),
    ("double quotes", "\"K\""),
    ("no quotes", "K"),
    ("a comma is missing", "'K' 'more'"),
    ("one quote too many", "'K''"),
    ("a quote within", "'it's K'"),
    ("dollars do not close", "$k$K"),
    ("a cast to int", "'K'::int"),
    ("a cast to interval", "'K'::interval"),
    ("a cast to date", "'K'::date"),
    ("a cast to regclass", "'K'::regclass"),
    ("a cast to uuid", "'K'::uuid"),
    ("a cast to json", "'K'::json"),
    ("a cast to inet", "CAST('K' AS inet)"),
    ("a cast to no type", "'x'::\"K\""),
    ("a cast in the call", "int 'K'"),
    ("a wrong escape", "E'\\xffK'"),
    ("a name of no argument", "api_kee => 'K'"),
    ("a name that is the key", "\"K\" => 'x'"),
    ("too many arguments", "'K', 'K', 'K', 'K', 'K', 'K', 'K', 'K', 'K', 'K', 'K', 'K', 'K'"),
    ("an array", "ARRAY['K', 1]"),
    ("json", "(json '{\"k\": K}')->>'k'"),
    ("arithmetic", "'K' || (1/0)"),
];

/// What a call may be wrapped in. `@` stands for the call.
const WRAPS: [(&str, &str); 14] = [
    ("DO", "DO $b$ BEGIN PERFORM @; END $b$"),
    ("DO without an end", "DO $b$ BEGIN PERFORM @ END $b$"),
    ("DO with an unknown variable", "DO $b$ BEGIN kk := @; END $b$"),
    ("DO that is quoted", "DO 'BEGIN PERFORM @; END'"),
    ("EXECUTE", "DO $b$ BEGIN EXECUTE $e$SELECT @ x y$e$; END $b$"),
    ("PREPARE", "PREPARE bad AS SELECT @, 1/0; EXECUTE bad"),
    ("a cursor", "DECLARE bad CURSOR FOR SELECT @"),
    ("EXPLAIN", "EXPLAIN (ANALYZE, VERBOSE) SELECT @, 1/0"),
    (
        "a body",
        "CREATE FUNCTION app.f() RETURNS int LANGUAGE plpgsql AS $b$ BEGIN RETURN @ END $b$",
    ),
    ("a view", "CREATE VIEW app.v AS SELECT @ x y"),
    ("several statements", "SELECT 1; SELECT @; SELECT 1/0"),
    ("CTE", "WITH k AS (SELECT @ AS k) SELECT k, 1/0 FROM k"),
    ("a comment", "SELECT /* K */ @ -- K\n, 1/0"),
    ("a column list", "SELECT @ AS \"K\", nowhere FROM pg_class"),
];

/// Each with the key in other places than a call's argument.
const OTHERS: [(&str, &str); 14] = [
    ("no such function", "SELECT watchllm.stor_provider_key('K')"),
    ("a slip in the schema", "SELECT watchlm.store_providr_key('K')"),
    ("no schema", "SELECT store_provider_key('x', 'K', 'K')"),
    ("no such schema, quoted", "SELECT \"Watchllm\".\"K\"('x')"),
    ("INSERT", "INSERT INTO watchllm.provider_key_inbox VALUES ('K', 'openai', 'n', 'x')"),
    ("INSERT of a column", "INSERT INTO watchllm.provider_key_inbox (\"K\") VALUES (1)"),
    ("INSERT of too many", "INSERT INTO watchllm.provider_key_inbox VALUES (1,2,3,4,5,6,7,'K')"),
    (
        "json_populate_recordset",
        "INSERT INTO watchllm.provider_key_inbox SELECT * FROM json_populate_recordset(
         NULL::watchllm.provider_key_inbox, '[{\"api_key\": K}]')",
    ),
    ("json in a statement", "SELECT watchllm.redact('{\"a\": K'::jsonb)"),
    ("COPY to a query", "COPY (SELECT watchllm.redact('K'), 1/0) TO STDOUT"),
    ("a setting", "SELECT watchllm.set_setting('x', 'K', 'K')"),
    ("a search path", "SET search_path = watchllm; SELECT redact('K'::int)"),
    ("SELECT INTO", "SELECT watchllm.redact('K')::int INTO app.t"),
    ("a where", "SELECT * FROM watchllm.provider_keys WHERE name = 'K' AND id = 'K'"),
];

/// Statements that name us only by what they call. PostgreSQL logs the text before it knows what
/// that is, so here nothing is logged so early.
const WRAPPED: [(&str, &str); 10] = [
    ("a wrapper's EXECUTE", "SELECT app.by_text('K')"),
    ("a wrapper's first line", "SELECT app.early('K')"),
    ("a wrapper's last line", "SELECT app.late('K')"),
    ("a wrapper's warning", "SELECT app.warns('K')"),
    ("a wrapper in SQL", "SELECT app.in_sql('K')"),
    ("a wrapper's tree", "SELECT app.atomic('K')"),
    ("a procedure", "CALL app.proc('K')"),
    ("a trigger", "INSERT INTO app.keys VALUES (1, 'K')"),
    ("nested wrappers", "DO $$ BEGIN PERFORM app.early('K'); END $$"),
    ("INSERT by a view", "INSERT INTO app.inbox VALUES (NULL, 'openai', 'n', 'K')"),
];
const NOTHING_EARLY: &str = "SET log_statement = none; SET pgaudit.log = none";

/// Every wrong statement.
pub(crate) fn all() -> Vec<Wrong> {
    let mut all = vec![];
    let mut text = |name: String, statements: Vec<String>| {
        all.push(Wrong { name, way: Way::Text(statements) });
    };
    for (i, (slip, key)) in SLIPS.iter().enumerate() {
        // every slip in two calls, so that all calls have all kinds of slips
        for call in [CALLS[i % CALLS.len()], CALLS[(i + 2) % CALLS.len()]] {
            text(format!("{slip}: {call}"), vec![format!("SELECT {}", call.replace('#', key))]);
        }
    }
    for (i, (wrap, around)) in WRAPS.iter().enumerate() {
        let (plain, cast) = (CALLS[i % CALLS.len()], CALLS[(i + 1) % CALLS.len()]);
        let of = |call: &str, key: &str| around.replace('@', &call.replace('#', key));
        text(format!("{wrap}: cast"), vec![of(cast, "'K'::int")]);
        text(format!("{wrap}: double quotes"), vec![of(plain, "\"K\"")]);
        text(format!("{wrap}: {plain}"), vec![of(plain, "'K' || (1/0)")]);
    }
    for (name, statement) in OTHERS {
        text(name.into(), vec![statement.into()]);
    }
    for (name, statement) in WRAPPED {
        text(name.into(), vec![NOTHING_EARLY.into(), statement.into()]);
    }
    text(
        "EXECUTE of a prepared one".into(),
        texts(&["PREPARE good(text) AS SELECT watchllm.redact($1)::int", "EXECUTE good('K')"]),
    );
    text(
        "EXECUTE that does not parse".into(),
        texts(&["PREPARE other(text) AS SELECT watchllm.redact($1)", "EXECUTE other('K)"]),
    );
    text(
        "EXECUTE with a slip".into(),
        texts(&["PREPARE sum(int) AS SELECT watchllm.redact($1::text)", "EXECUTE sum('K')"]),
    );
    text(
        "FETCH".into(),
        texts(&[
            "BEGIN",
            "DECLARE c CURSOR FOR SELECT watchllm.redact(n || 'K')::int FROM generate_series(1, 2) n",
            "FETCH c",
            "ROLLBACK",
        ]),
    );
    for (name, rows) in [
        ("COPY of a wrong id", "K\topenai\tn\tx\n"),
        ("COPY of too few columns", "00000000-0000-0000-0000-000000000001\tK\n"),
        ("COPY of too many", "\\N\topenai\tn\tK\t\t\t\tK\tK\tK\n"),
        ("COPY of a wrong escape", "\\N\t\\xffK\tn\tx\n"),
    ] {
        let copy = "COPY watchllm.provider_key_inbox FROM STDIN".to_owned();
        all.push(Wrong { name: name.into(), way: Way::Copy(copy, rows.into()) });
    }
    for (name, copy) in [
        ("COPY with a header", "COPY watchllm.provider_key_inbox FROM STDIN (HEADER match)"),
        ("COPY of csv", "COPY watchllm.provider_key_inbox FROM STDIN (FORMAT csv)"),
        ("COPY past a trigger", "COPY app.keys (id) FROM STDIN"),
    ] {
        all.push(Wrong { name: name.into(), way: Way::Copy(copy.into(), "\"K\n".into()) });
    }
    for (name, statements) in [
        ("a parameter", vec!["SELECT watchllm.redact($1::int::text)"]),
        ("a parameter that is cast", vec!["SELECT watchllm.redact($1::text)::int"]),
        ("a wrapper's parameter", vec!["SELECT app.early($1::text)"]),
        ("a procedure's parameter", vec!["CALL app.proc($1)"]),
        ("a row's parameter", vec!["INSERT INTO app.keys VALUES (1, $1)"]),
        ("a pipeline", vec!["SELECT watchllm.redact($1::text)", "SELECT watchllm.redact($1)::int"]),
        ("a pipeline with a literal", vec!["SELECT watchllm.redact('K')", "SELECT app.late('K')"]),
    ] {
        all.push(Wrong { name: name.into(), way: Way::Pipeline(texts(&statements)) });
    }
    for function in ["watchllm.decrypt_provider_key", "app.early", "app.late"] {
        let name = format!("a call by number: {function}");
        all.push(Wrong { name, way: Way::Call(function) });
    }
    all
}

fn texts(statements: &[&str]) -> Vec<String> {
    statements.iter().map(|text| (*text).to_owned()).collect()
}
