//! Rights that outlive or leave their caller. A tenant puts its own views, functions and operators
//! between a reader and our tables. Plans and cursors are made as one tenant and used as another.
//! Definer wrappers and names that hide ours are tried too.

use std::fmt::Write;

use postgres::Client;

use crate::api::{AUTHENTICATOR, as_api, claims};
use crate::keys::{code, one, rows, try_rows};
use crate::roles::login;
use crate::tenant_escape::{House, Tenant};

/// A schema of the role's own, open to all.
fn schema_of(c: &mut Client, role: &str) -> String {
    let schema = format!("of_{role}");
    one(
        c,
        &format!(
            "CREATE SCHEMA {schema} AUTHORIZATION {role}; GRANT USAGE ON SCHEMA {schema} TO PUBLIC"
        ),
    );
    schema
}

const NAMES: &str = "SELECT name FROM watchllm.provider_keys";

fn names(of: &[&Tenant]) -> Vec<String> {
    let mut names: Vec<String> = of.iter().map(|tenant| tenant.name.clone()).collect();
    names.sort();
    names
}

/// The names of these two tenants' keys in a query's answer.
fn seen(c: &mut Client, sql: &str, a: &Tenant, b: &Tenant) -> Vec<String> {
    let mut seen = rows(c, sql);
    seen.retain(|name| *name == a.name || *name == b.name);
    seen.sort();
    seen
}

#[test]
fn a_leaky_function_is_given_only_ones_own_rows() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let schema = schema_of(c, &a.role);
    let s = &mut house.connect(&a.role);
    // They cost as little as possible, so that the planner would run them first. They store what
    // they see.
    one(s, &format!("CREATE TABLE {schema}.loot (what text)"));
    let body = format!("LANGUAGE plpgsql COST 0.0001 AS
        $$ BEGIN INSERT INTO {schema}.loot VALUES (coalesce($1::text, '') || coalesce($2::text, '')); RETURN true; END $$");
    one(s, &format!("CREATE FUNCTION {schema}.leak(text, text) RETURNS boolean {body}"));
    one(s, &format!("CREATE FUNCTION {schema}.leak(uuid, uuid) RETURNS boolean {body}"));
    one(
        s,
        &format!(
            "CREATE OPERATOR {schema}.~~~~ (FUNCTION = {schema}.leak, LEFTARG = text, RIGHTARG = text)"
        ),
    );
    // They hide ours, by name and by argument types.
    one(
        s,
        &format!(
            "CREATE OPERATOR {schema}.= (FUNCTION = {schema}.leak, LEFTARG = uuid, RIGHTARG = uuid)"
        ),
    );
    one(s, &format!("CREATE VIEW {schema}.view AS {NAMES} WHERE {schema}.leak(name, '')"));
    let mut hostile = vec![format!("TABLE {schema}.view")];
    for table in [
        "provider_keys",
        "provider_key_records",
        "provider_key_access_logs",
        "access_logs",
        "projects",
    ] {
        let text = match table {
            "projects" => "name",
            "access_logs" | "provider_key_access_logs" => "user_agent",
            _ => "name",
        };
        hostile.push(format!(
            "SELECT 1 FROM watchllm.{table} t WHERE {schema}.leak({text}, '') OR true"
        ));
        hostile.push(format!(
            "SELECT 1 FROM watchllm.{table} WHERE NOT {text} OPERATOR({schema}.~~~~) ''"
        ));
        hostile.push(format!(
            "SELECT 1 FROM watchllm.{table} GROUP BY {text} HAVING {schema}.leak({text}, '')"
        ));
        hostile.push(format!("SELECT 1 FROM watchllm.{table} ORDER BY {schema}.leak({text}, '')"));
        hostile.push(format!(
            "SELECT 1 FROM watchllm.{table} x JOIN watchllm.provider_key_records y
            ON {schema}.leak(x.{text}, y.name)"
        ));
        hostile.push(format!(
            "SET LOCAL search_path = {schema}, pg_temp, pg_catalog;
            SELECT 1 FROM watchllm.{table} WHERE id = gen_random_uuid()"
        ));
    }
    let ways = hostile.len();
    for (i, sql) in hostile.iter().enumerate() {
        one(
            s,
            &format!(
                "INSERT INTO {schema}.loot VALUES ('way {i}'); SET enable_seqscan = {}",
                ["on", "off"][i % 2]
            ),
        );
        assert_eq!(code(s, &format!("BEGIN; {sql}; COMMIT")), "00000", "{sql}");
    }
    let loot = rows(s, &format!("SELECT what FROM {schema}.loot")).join("\n");
    assert!(
        !loot.contains(&b.name) && !loot.contains(&b.key) && !loot.contains(&b.project),
        "{loot}"
    );
    assert!(
        loot.matches(&a.name).count() > ways / 2,
        "the functions saw too little to be a test:\n{loot}"
    );
}

#[test]
fn a_view_shows_its_reader_what_is_the_readers() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let (plain, auditor) = (login(c, ""), login(c, "watchllm_auditor"));
    // A plain role may name what it may not read.
    one(c, &format!("GRANT USAGE ON SCHEMA watchllm TO {plain}"));
    let table = NAMES.replace("provider_keys", "provider_key_records");
    for role in [&a.role, &plain, &auditor] {
        let schema = schema_of(c, role);
        let s = &mut house.connect(role);
        for (name, option, of) in [
            ("definer", "security_barrier", NAMES),
            ("invoker", "security_invoker", NAMES),
            ("of_table", "security_barrier", table.as_str()),
        ] {
            one(s, &format!("CREATE VIEW {schema}.{name} WITH ({option}) AS {of}"));
            one(s, &format!("GRANT SELECT ON {schema}.{name} TO PUBLIC"));
        }
    }
    one(c, &format!("REVOKE USAGE ON SCHEMA watchllm FROM {plain}"));
    let mut as_b = house.connect(&b.role);
    let mut as_plain = house.connect(&plain);
    let read = |c: &mut Client, role: &str, view: &str| {
        let sql = format!("SELECT name FROM of_{role}.{view}");
        try_rows(c, &sql)
            .map(|mut names| {
                names.retain(|name| *name == a.name || *name == b.name);
                names.sort();
                names
            })
            .map_err(|error| error.code().code().to_owned())
    };
    let (own, both, refused) = (Ok(names(&[&b])), Ok(names(&[&a, &b])), Err("42501".to_owned()));
    // Another tenant's view has its owner's rights on the tables, but shows the projects of the
    // reader.
    for view in ["definer", "invoker", "of_table"] {
        assert_eq!(read(&mut as_b, &a.role, view), own, "{view}");
    }
    // A view of somebody without rights gives none. An auditor can pass on what it may read of the
    // tables.
    assert_eq!(
        ["definer", "invoker", "of_table"].map(|view| read(&mut as_b, &plain, view)),
        [&refused, &own, &refused].map(Clone::clone)
    );
    assert_eq!(
        ["definer", "invoker", "of_table"].map(|view| read(&mut as_b, &auditor, view)),
        [&own, &own, &both].map(Clone::clone)
    );
    for owner in [&a.role, &plain] {
        for view in ["definer", "invoker", "of_table"] {
            let answer = read(&mut as_plain, owner, view);
            assert!(answer == refused || answer == Ok(Vec::new()), "{owner} {view}: {answer:?}");
        }
    }
    // The same through PostgREST's session, where a signed-in user reads.
    let by_claims = &mut house.connect(AUTHENTICATOR);
    let answer = b.ask(by_claims, &format!("SELECT name FROM of_{}.definer", a.role)).unwrap();
    assert_eq!(answer, names(&[&b]));
}

#[test]
fn a_plan_made_as_one_tenant_gives_the_next_one_its_own() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let door = login(c, "");
    one(
        c,
        &format!(
            "GRANT {}, {}, watchllm_auditor TO {door}; ALTER ROLE {door} NOINHERIT",
            a.role, b.role
        ),
    );
    let s = &mut house.connect(&door);
    let schema = schema_of(c, &door);
    let ids = "SELECT count(*) FROM watchllm.current_project_ids()";
    one(
        s,
        &format!(
            "CREATE FUNCTION {schema}.names() RETURNS SETOF text LANGUAGE plpgsql AS
        $$ BEGIN RETURN QUERY {NAMES}; END $$"
        ),
    );
    one(s, "SET check_function_bodies = off");
    one(
        s,
        &format!(
            "CREATE FUNCTION {schema}.inlined() RETURNS SETOF text LANGUAGE sql STABLE AS '{NAMES}'"
        ),
    );
    for mode in ["auto", "force_generic_plan", "force_custom_plan"] {
        one(
            s,
            &format!(
                "RESET ROLE; SET plan_cache_mode = {mode}; DEALLOCATE ALL; SET ROLE watchllm_auditor"
            ),
        );
        one(
            s,
            &format!(
                "PREPARE p AS {NAMES}; PREPARE q (text) AS {NAMES} WHERE name = $1 OR $1 IS NULL"
            ),
        );
        one(s, &format!("PREPARE e AS SELECT EXISTS ({NAMES} WHERE name = '{}')", b.name));
        let everywhere = [
            format!("SELECT {schema}.names()"),
            format!("SELECT {schema}.inlined()"),
            "EXECUTE p".into(),
            "EXECUTE q (NULL)".into(),
        ];
        for _ in 0..8 {
            for (role, own) in
                [("watchllm_auditor", vec![&a, &b]), (&a.role, vec![&a]), (&b.role, vec![&b])]
            {
                one(s, &format!("SET ROLE {role}"));
                for sql in &everywhere {
                    assert_eq!(seen(s, sql, &a, &b), names(&own), "{mode}: {sql} as {role}");
                }
                let sees_b = own.iter().any(|tenant| tenant.name == b.name);
                assert_eq!(one(s, "EXECUTE e") == "t", sees_b, "{mode} as {role}");
                assert_eq!(one(s, ids), if role == "watchllm_auditor" { "0" } else { "1" });
            }
        }
        one(s, "RESET ROLE");
        for sql in &everywhere {
            assert_eq!(code(s, sql), "42501", "{mode}: {sql}");
        }
    }
}

#[test]
fn a_plan_made_for_one_users_claims_gives_the_next_one_its_own() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let s = &mut house.connect(AUTHENTICATOR);
    one(s, "SET plan_cache_mode = force_generic_plan");
    a.ask(s, &format!("PREPARE p AS {NAMES}")).unwrap();
    for _ in 0..3 {
        for tenant in [&a, &b] {
            assert_eq!(tenant.ask(s, "EXECUTE p").unwrap(), names(&[tenant]));
        }
        for (role, sub) in [("anon", &a.sub), ("authenticated", &String::new())] {
            let answer = as_api(s, role, &claims(role, sub), "{}", "read only", "EXECUTE p");
            assert!(
                answer.as_ref().map_or_else(|e| e.code().code() == "42501", Vec::is_empty),
                "{role}: {answer:?}"
            );
        }
        assert_eq!(code(s, "EXECUTE p"), "42501");
    }
    // Claims that change within a transaction count from then on.
    let swapped = format!(
        "EXECUTE p; SELECT set_config('request.jwt.claims', '{}', true) IS NULL; EXECUTE p",
        b.claims()
    );
    assert_eq!(a.ask(s, &swapped).unwrap(), [&a.name, "f", &b.name]);
}

#[test]
fn a_cursor_gives_another_tenant_nothing_new() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let door = login(c, "");
    one(c, &format!("GRANT {}, {} TO {door}; ALTER ROLE {door} NOINHERIT", a.role, b.role));
    let s = &mut house.connect(&door);
    one(
        s,
        &format!(
            "SET ROLE {}; BEGIN; DECLARE c CURSOR FOR {NAMES}; DECLARE h CURSOR WITH HOLD FOR {NAMES}",
            a.role
        ),
    );
    one(s, &format!("DECLARE r SCROLL CURSOR FOR {NAMES}"));
    assert_eq!(rows(s, "FETCH ALL FROM r"), names(&[&a]));
    one(s, &format!("SET ROLE {}", b.role));
    // A cursor that has not begun finds what its reader may see at that moment. A cursor that has
    // begun has all its rows already.
    let late = rows(s, "FETCH ALL FROM c");
    assert!(late.iter().all(|name| *name == b.name), "{late:?}");
    assert_eq!(rows(s, "MOVE ABSOLUTE 0 FROM r; FETCH ALL FROM r"), names(&[&a]));
    one(s, "COMMIT");
    let held = rows(s, "FETCH ALL FROM h");
    assert!(held.len() <= 1, "{held:?}");
    // As nobody, a cursor that was never begun finds nothing.
    one(s, &format!("SET ROLE {}; BEGIN; DECLARE c CURSOR FOR {NAMES}; RESET ROLE", a.role));
    let late = try_rows(s, "FETCH ALL FROM c").unwrap_or_default();
    assert!(late.is_empty(), "{late:?}");
    one(s, "ROLLBACK");
}

#[test]
fn a_definer_wrapper_opens_for_a_service_and_for_nobody_else() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let (service, plain) = (login(c, "watchllm_service"), login(c, ""));
    let mut outcomes = String::new();
    for (who, owner) in [("service", &service), ("tenant", &a.role), ("plain", &plain)] {
        let schema = schema_of(c, owner);
        let s = &mut house.connect(owner);
        for (name, call) in [
            ("open", "SELECT watchllm.decrypt_provider_key($1) IS NOT NULL"),
            ("rotate", "SELECT watchllm.rotate_provider_key($1, 'sk-' || gen_random_uuid()) > 0"),
            ("own", "SELECT $1 = ANY (ARRAY(SELECT k.id FROM watchllm.provider_keys k))"),
        ] {
            // plpgsql checks what it calls only when it runs
            one(
                s,
                &format!(
                    "CREATE FUNCTION {schema}.{name}(uuid) RETURNS boolean LANGUAGE plpgsql SECURITY DEFINER
                SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN ({call}); END $$"
                ),
            );
        }
        for (caller, role) in [("tenant B", &b.role), ("plain", &plain)] {
            let s = &mut house.connect(role);
            for key in [("A", &a.key), ("B", &b.key)] {
                let answer = |s: &mut Client, call: &str| {
                    let sql = format!("SELECT {schema}.{call}('{}')", key.1);
                    try_rows(s, &sql)
                        .map_or_else(|error| error.code().code().to_owned(), |rows| rows[0].clone())
                };
                let answers = ["open", "rotate", "own"].map(|call| answer(s, call)).join(" ");
                writeln!(outcomes, "of {who}, called by {caller}, key {}: {answers}", key.0)
                    .unwrap();
            }
        }
    }
    let expected = "of service, called by tenant B, key A: t t t
of service, called by tenant B, key B: t t t
of service, called by plain, key A: t t t
of service, called by plain, key B: t t t
of tenant, called by tenant B, key A: 42501 t t
of tenant, called by tenant B, key B: 42501 02000 f
of tenant, called by plain, key A: 42501 t t
of tenant, called by plain, key B: 42501 02000 f
of plain, called by tenant B, key A: 42501 42501 42501
of plain, called by tenant B, key B: 42501 42501 42501
of plain, called by plain, key A: 42501 42501 42501
of plain, called by plain, key B: 42501 42501 42501
";
    assert_eq!(outcomes, expected);
}

#[test]
fn names_in_front_of_ours_change_nothing() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let schema = schema_of(c, &a.role);
    let s = &mut house.connect(&a.role);
    let every = format!(
        "RETURNS SETOF uuid LANGUAGE sql AS $$ SELECT '{}'::uuid UNION ALL SELECT '{}'::uuid $$",
        a.project, b.project
    );
    for place in [schema.as_str(), "pg_temp"] {
        for sql in [
            format!("CREATE FUNCTION {place}.current_project_ids() {every}"),
            format!(
                "CREATE FUNCTION {place}.pg_has_role(oid, oid, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'"
            ),
            format!(
                "CREATE FUNCTION {place}.always(uuid, uuid) RETURNS boolean LANGUAGE sql AS 'SELECT true'"
            ),
            format!(
                "CREATE FUNCTION {place}.always(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT true'"
            ),
            format!(
                "CREATE FUNCTION {place}.always(name, name) RETURNS boolean LANGUAGE sql AS 'SELECT true'"
            ),
            format!(
                "CREATE OPERATOR {place}.= (FUNCTION = {place}.always, LEFTARG = uuid, RIGHTARG = uuid)"
            ),
            format!(
                "CREATE OPERATOR {place}.= (FUNCTION = {place}.always, LEFTARG = text, RIGHTARG = text)"
            ),
            format!(
                "CREATE OPERATOR {place}.= (FUNCTION = {place}.always, LEFTARG = name, RIGHTARG = name)"
            ),
        ] {
            let made = code(s, &sql);
            assert!(made == "00000" || place == "pg_temp", "{sql}: {made}");
        }
    }
    for table in
        ["projects", "project_members", "provider_key_records", "pg_roles", "provider_keys"]
    {
        one(
            s,
            &format!(
                "CREATE TEMPORARY TABLE {table} AS SELECT '{}'::uuid AS id, 'x' AS rolname",
                b.project
            ),
        );
    }
    for path in [
        format!("pg_temp, {schema}, watchllm, pg_catalog"),
        format!("{schema}, pg_catalog, pg_temp"),
    ] {
        one(s, &format!("SET search_path = {path}"));
        assert_eq!(
            rows(s, "SELECT watchllm.current_project_ids()"),
            [a.project.as_str()],
            "{path}"
        );
        assert_eq!(rows(s, NAMES), names(&[&a]), "{path}");
        assert_eq!(
            code(s, &format!("SELECT watchllm.delete_provider_key('{}')", b.key)),
            "02000",
            "{path}"
        );
        assert_eq!(code(s, &crate::keys::decrypt(&b.key)), "42501", "{path}");
        assert_eq!(code(s, &crate::keys::rotate(&a.key)), "00000", "{path}");
    }
}
