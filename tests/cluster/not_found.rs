//! "Not yours" must not differ from "not there", neither in the words of an answer nor in the work
//! behind it. The test measures no time, but what takes time: every scan and row of our tables.

use postgres::Client;
use uuid::Uuid;

use crate::api::{AUTHENTICATOR, as_api};
use crate::keys::{new_key, one, rows, store};
use crate::tenant_escape::House;

/// What a caller can do to a key or a project. P and K stand for the other's, p for the caller's
/// own project.
const CALLS: &[&str] = &[
    "watchllm.store_provider_key('P', 'openai', 'k')",
    "watchllm.store_provider_key('P', 'openai', 'k', 'taken')",
    "watchllm.store_provider_key('P', 'openai', 'k', 'taken', 1)",
    "watchllm.store_provider_key('P', 'NO SLUG', ' ', '', -1)",
    "watchllm.store_provider_key('P', 'full', 'k')",
    "watchllm.rotate_provider_key('K', 'k')",
    "watchllm.rotate_provider_key('K', 'k', 1)",
    "watchllm.rotate_provider_key('K', 'k', 99)",
    "watchllm.rotate_provider_key('K', ' ')",
    "watchllm.rollback_provider_key('K')",
    "watchllm.rollback_provider_key('K', 1)",
    "watchllm.rollback_provider_key('K', 99)",
    "watchllm.set_provider_key_active('K', true)",
    "watchllm.set_provider_key_active('K', false)",
    "watchllm.delete_provider_key('K')",
    "watchllm.decrypt_provider_key('K')",
    "watchllm.decrypt_provider_key('K', 'P')",
    "watchllm.decrypt_provider_key('K', 'p')",
    "watchllm.decrypt_provider_keys('{K}')",
    "watchllm.resolve_provider_key('P', 'openai')",
    "watchllm.validate_provider_key('K')",
    "watchllm.key_access_history('K')",
    "watchllm.key_access_history('K', 0)",
];

/// Runs a call, catches its error, and answers every word of it with the work that was done.
const ATTEMPT: &str = r#"
CREATE FUNCTION public.work() RETURNS TABLE (name text, scans bigint, rows bigint, found bigint) LANGUAGE sql VOLATILE AS $$
    SELECT c.oid::regclass::text, pg_stat_get_xact_numscans(c.oid), pg_stat_get_xact_tuples_returned(c.oid),
        pg_stat_get_xact_tuples_fetched(c.oid)
    FROM pg_catalog.pg_class c
    WHERE c.relnamespace IN (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = 'watchllm')
$$;
CREATE FUNCTION public.attempt(call text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    before jsonb; answer text; message text; detail text; hint text; name text; place text;
BEGIN
    before := (SELECT jsonb_object_agg(w.name, to_jsonb(w)) FROM public.work() w);
    BEGIN
        EXECUTE 'SELECT ' || call INTO answer;
    EXCEPTION WHEN OTHERS THEN
        GET STACKED DIAGNOSTICS answer = RETURNED_SQLSTATE, message = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL,
            hint = PG_EXCEPTION_HINT, name = CONSTRAINT_NAME, place = TABLE_NAME;
    END;
    RETURN concat_ws('|', answer, message, detail, hint, name, place, (
        SELECT string_agg(format('%s %s %s %s', w.name, w.scans - (b ->> 'scans')::bigint, w.rows - (b ->> 'rows')::bigint,
            w.found - (b ->> 'found')::bigint), ', ' ORDER BY w.name)
        FROM public.work() w, LATERAL (SELECT before -> w.name) AS x (b) WHERE to_jsonb(w) <> b));
END $$;
GRANT EXECUTE ON FUNCTION public.attempt, public.work TO PUBLIC;"#;

/// The answer and work of each call about this project and key, in words that do not name them.
fn attempts(
    ask: &mut dyn FnMut(&str) -> Vec<String>,
    project: &str,
    key: &str,
    own: &str,
) -> Vec<String> {
    let calls = CALLS.iter().map(|call| {
        let call = call.replace("'P'", &format!("'{project}'")).replace("'p'", &format!("'{own}'"));
        let call = call.replace("'K'", &format!("'{key}'")).replace("{K}", &format!("{{{key}}}"));
        let answer = ask(&format!("SELECT public.attempt($call${call}$call$)")).join("\n");
        format!("{call}: {answer}").replace(project, "P").replace(key, "K")
    });
    calls.collect()
}

#[test]
fn words_and_work_are_the_same_for_not_yours_and_not_there() {
    // if others write or analyse here, scans find other rows
    let house = House::alone("autovacuum = off");
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    one(c, ATTEMPT);
    one(c, &format!("SELECT watchllm.store_provider_key('{}', 'openai', 'k', 'taken')", b.project));
    for _ in 0..3 {
        store(c, &b.project, "full", &new_key());
    }
    one(c, &format!("SELECT watchllm.rotate_provider_key('{}', 'second')", b.key));
    let deleted = store(c, &b.project, "xai", &new_key());
    one(c, &format!("SELECT watchllm.delete_provider_key('{deleted}')"));
    let (no_project, no_key) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    let (mut by_role, mut by_claims) = (house.connect(&a.role), house.connect(AUTHENTICATOR));
    // Hints about dead tuples make later scans cheaper. So every tuple is read once before the
    // comparison.
    one(c, "VACUUM watchllm.provider_key_records, watchllm.projects, watchllm.project_members");
    for who in ["role", "claims"] {
        let mut ask = |sql: &str| match who {
            "role" => rows(&mut by_role, sql),
            _ => as_api(&mut by_claims, "authenticated", &a.claims(), "{}", "read write", sql)
                .unwrap(),
        };
        attempts(&mut ask, &no_project, &no_key, &a.project); // plans are made
        let nothing = attempts(&mut ask, &no_project, &no_key, &a.project);
        for (project, key) in [(&b.project, &b.key), (&b.project, &deleted), (&no_project, &no_key)]
        {
            let found = attempts(&mut ask, project, key, &a.project);
            for (found, nothing) in found.iter().zip(&nothing) {
                assert_eq!(found, nothing, "{who}");
            }
        }
        // The comparison can tell a difference: an own key is more work than none.
        let own = attempts(&mut ask, &no_project, &a.key, &a.project);
        assert!(
            own.iter().zip(&nothing).filter(|(own, nothing)| own != nothing).count() > 5,
            "{own:#?}\n{nothing:#?}"
        );
        assert!(
            nothing.iter().all(|answer| answer.contains(": 02000|no such")
                || answer.contains(": 42501|not authorized")
                || answer.contains("max_rows is not")),
            "{nothing:#?}"
        );
        assert!(
            nothing.iter().filter(|answer| answer.contains("project_members ")).count() > 15,
            "no work was seen: {nothing:#?}"
        );
    }
}

#[test]
fn names_ids_and_limits_of_others_are_free() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    // The same name, the same key, a full provider: each project counts for itself.
    let key = new_key();
    for _ in 0..2 {
        store(c, &b.project, "openai", &key);
    }
    let s: &mut Client = &mut house.connect(&a.role);
    let mine = format!(
        "SELECT watchllm.store_provider_key('{}', 'openai', '{key}', '{}')",
        a.project, b.name
    );
    let id = one(s, &mine);
    assert_eq!(
        rows(s, "SELECT name FROM watchllm.provider_keys ORDER BY created_at"),
        [a.name.as_str(), b.name.as_str()]
    );
    // A name the caller has taken itself is refused, with no words that the caller did not say.
    let taken = crate::keys::refusal(s, &mine);
    assert_eq!(
        (taken.code().code(), taken.detail(), taken.constraint(), taken.table()),
        ("23505", Some("already_exists"), None, None),
        "{taken}"
    );
    assert!(!taken.message().contains(&b.name));
    // A long list of guesses finds only the caller's own keys.
    let guesses = (0..5_000).map(|_| Uuid::new_v4().to_string()).chain([
        b.key.clone(),
        id.clone(),
        a.key.clone(),
    ]);
    let guesses = guesses.map(|guess| format!("'{guess}'")).collect::<Vec<_>>().join(",");
    assert_eq!(
        rows(s, &format!("SELECT id FROM watchllm.provider_keys WHERE id IN ({guesses})")).len(),
        2
    );
    assert_eq!(
        rows(
            s,
            &format!(
                "SELECT id FROM watchllm.access_logs WHERE project_id NOT IN ('{}')",
                a.project
            )
        ),
        Vec::<String>::new()
    );
}

#[test]
fn a_look_at_ones_own_failures_costs_nothing_for_those_of_others() {
    let house = House::alone("autovacuum = off");
    let c = &mut house.connect("postgres");
    let a = house.tenant(c);
    one(c, ATTEMPT);
    let s = &mut house.connect(&a.role);
    let look = |s: &mut Client| {
        // PostgreSQL runs a plan five times before it considers a generic one
        for _ in 0..8 {
            rows(s, "SELECT * FROM watchllm.failed_access_attempts('100 years')");
        }
        let read =
            "SELECT sum(w.rows + w.found) FROM public.work() w WHERE w.name LIKE '%access_logs%'";
        let sql = format!(
            "BEGIN; SELECT count(*) FROM watchllm.failed_access_attempts('100 years'); {read}; COMMIT"
        );
        rows(s, &sql)
    };
    let before = look(s);
    for _ in 0..8 {
        one(
            c,
            "SELECT count(*) FROM watchllm.decrypt_provider_keys(array_fill(NULL::uuid, ARRAY[1000]))",
        );
    }
    one(c, "ANALYZE watchllm.provider_key_access_logs");
    let after = look(s);
    assert_eq!(before[0], "1", "{before:?}");
    assert_eq!(after[0], "1", "{after:?}");
    let work = after[1].parse::<i64>().unwrap();
    assert!(work < 1_000, "{work} rows were read for one of 8,000");
}
