//! Claims that nobody vouches for: set by hand in every way a session has, in sessions similar to
//! the trusted one, of odd shapes. Also on a server that never preloaded the library. They name the
//! caller in the trail and open nothing.

use postgres::Client;

use crate::api::{AUTHENTICATOR, as_api, claims, supabase};
use crate::keys::{code, decrypt, one, rows};
use crate::roles::login;
use crate::server::Server;
use crate::tenant_escape::{House, Tenant};

const OWN: &str = "SELECT watchllm.current_project_ids()";

/// Whatever this session claims about itself, the victim stays out of its reach.
fn out_of_reach(s: &mut Client, victim: &Tenant, how: &str) {
    for read in [
        OWN,
        "SELECT project_id FROM watchllm.provider_keys",
        "SELECT project_id FROM watchllm.access_logs",
        "SELECT project_id FROM watchllm.failed_access_attempts()",
        "SELECT id FROM watchllm.projects",
    ] {
        let seen = rows(s, read);
        assert!(!seen.contains(&victim.project), "{how}: {read}");
    }
    for call in ["key_access_history", "delete_provider_key", "rollback_provider_key"] {
        assert_eq!(
            code(s, &format!("SELECT watchllm.{call}('{}')", victim.key)),
            "02000",
            "{how}: {call}"
        );
    }
    let store = format!("SELECT watchllm.store_provider_key('{}', 'openai', 'k')", victim.project);
    assert_eq!(code(s, &store), "02000", "{how}");
    assert_eq!(code(s, &decrypt(&victim.key)), "42501", "{how}");
}

#[test]
fn claims_set_by_hand_count_for_nothing() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    let spoofed = b.claims();
    let s = &mut house.connect(&a.role);
    for how in [
        format!("SET request.jwt.claims = '{spoofed}'"),
        format!(
            "SET SESSION request.jwt.claims TO '{spoofed}'; SET request.jwt.claim.sub = '{}'",
            b.sub
        ),
        format!("SELECT set_config('request.jwt.claims', '{spoofed}', false)"),
        format!("BEGIN; SET LOCAL request.jwt.claims = '{spoofed}'; SET LOCAL role = '{}'", a.role),
        format!(
            "SELECT set_config('request.jwt.claim.sub', '{}', false), set_config('REQUEST.JWT.CLAIMS', '{spoofed}', false)",
            b.sub
        ),
    ] {
        one(s, &how);
        out_of_reach_in_savepoints(s, &b, &how);
        one(s, "ROLLBACK");
        one(s, "DISCARD ALL");
    }
    // Only a superuser may put them into a function, and they do not count there either.
    let spoof = format!("public.spoof_{}()", a.role);
    one(
        c,
        &format!(
            "CREATE FUNCTION {spoof} RETURNS SETOF uuid LANGUAGE sql SET request.jwt.claims = '{spoofed}' AS '{OWN}'"
        ),
    );
    assert_eq!(rows(s, &format!("SELECT {spoof}")), [a.project.as_str()]);
    let options = format!("-c request.jwt.claims={}", spoofed.replace(' ', "\\ "));
    let shown =
        house.psql_with_options(&a.role, &options, &format!("SHOW request.jwt.claims; {OWN}"));
    assert_eq!(shown, format!("{spoofed}\n{}", a.project));
    one(c, &format!("ALTER ROLE {} SET request.jwt.claims = '{spoofed}'", a.role));
    let s = &mut house.connect(&a.role);
    assert_eq!(one(s, "SHOW request.jwt.claims"), spoofed);
    out_of_reach(s, &b, "ALTER ROLE SET");
    // The trail keeps the claim, and that it did not count.
    let newest = format!(
        "SELECT claims_sub, claims_trusted, session_role FROM watchllm.provider_key_access_logs
        WHERE session_role = '{}' ORDER BY seq DESC LIMIT 1",
        a.role
    );
    assert_eq!(one(c, &newest), format!("{}|f|{}", b.sub, a.role));
}

/// The same inside a transaction block, where each refusal would end it.
fn out_of_reach_in_savepoints(s: &mut Client, victim: &Tenant, how: &str) {
    if how.starts_with("BEGIN") {
        assert!(!rows(s, OWN).contains(&victim.project), "{how}");
        assert!(
            !rows(s, "SELECT project_id FROM watchllm.provider_keys").contains(&victim.project),
            "{how}"
        );
        assert_eq!(
            code(s, &format!("SAVEPOINT x; SELECT watchllm.key_access_history('{}')", victim.key)),
            "02000"
        );
        assert_eq!(code(s, &format!("ROLLBACK TO x; {}", decrypt(&victim.key))), "42501", "{how}");
        return;
    }
    out_of_reach(s, victim, how);
}

#[test]
fn near_the_trusted_session_is_not_in_it() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let (a, b) = (house.tenant(c), house.tenant(c));
    // A member of the authenticator, who may take its role and the roles it may take. Also
    // look-alikes.
    let member = login(c, AUTHENTICATOR);
    one(c, &format!("GRANT watchllm_tenant TO {member}"));
    let look_alikes = [
        format!("{AUTHENTICATOR} {member}"),
        format!("Authenticator{member}"),
        format!(" {AUTHENTICATOR},{member}"),
    ];
    for look_alike in &look_alikes {
        one(c, &format!("CREATE ROLE \"{look_alike}\" LOGIN IN ROLE watchllm_tenant"));
    }
    for user in look_alikes.iter().chain([&member]) {
        let s = &mut house.connect(user);
        one(s, &format!("SET request.jwt.claims = '{}'", b.claims()));
        out_of_reach(s, &b, user);
    }
    let s = &mut house.connect(&member);
    for role in ["authenticated", AUTHENTICATOR] {
        one(s, &format!("SET ROLE {role}; SET request.jwt.claims = '{}'", b.claims()));
        let seen = crate::keys::try_rows(s, OWN).unwrap_or_default();
        assert!(seen.is_empty(), "SET ROLE {role}: {seen:?}");
    }
    let answer = as_api(s, "authenticated", &b.claims(), "{}", "read only", OWN);
    assert_eq!(answer.unwrap(), Vec::<String>::new());
    one(s, "RESET ROLE");
    assert_eq!(code(s, "SET SESSION AUTHORIZATION authenticator"), "42501");
    // A definer function is no trusted session either: it lends its owner's rights, not its
    // session.
    one(c, &format!("CREATE SCHEMA of_{member}; GRANT USAGE ON SCHEMA of_{member} TO PUBLIC"));
    one(
        c,
        &format!(
            "CREATE FUNCTION of_{member}.own() RETURNS SETOF uuid LANGUAGE sql SECURITY DEFINER AS '{OWN}'"
        ),
    );
    one(c, &format!("ALTER FUNCTION of_{member}.own() OWNER TO {}", a.role));
    one(s, &format!("SET request.jwt.claims = '{}'", b.claims()));
    assert_eq!(rows(s, &format!("SELECT of_{member}.own()")), [a.project.as_str()]);
}

#[test]
fn odd_claims_name_nobody_even_in_the_trusted_session() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let b = house.tenant(c);
    let s = &mut house.connect(AUTHENTICATOR);
    let sub = &b.sub;
    assert_eq!(b.ask(s, OWN).unwrap(), [b.project.as_str()]);
    let wide = " ".repeat(1_100_000);
    for odd in [
        String::new(),
        sub.clone(),
        format!("\"{sub}\""),
        "null".into(),
        "[]".into(),
        "{}".into(),
        "{".into(),
        format!(r#"["{sub}"]"#),
        format!(r#"[{{"sub":"{sub}"}}]"#),
        format!(r#"{{"sub":["{sub}"]}}"#),
        format!(r#"{{"sub":{{"sub":"{sub}"}}}}"#),
        format!(r#"{{"Sub":"{sub}"}}"#),
        format!(r#"{{"user_id":"{sub}"}}"#),
        format!(r#"{{"sub":"{sub}","sub":"{sub}"}}"#),
        format!(r#"{{"sub":"x","\u0073ub":"{sub}"}}"#),
        format!(r#"{{"sub":"{sub}"}} x"#),
        format!(r#"{{"sub":"{sub}""#),
        format!(r#"{{"sub":" {sub}"}}"#),
        format!(r#"{{"sub":"{sub}\u0000"}}"#),
        format!(r#"{{"sub":"{}"}}"#, sub.to_uppercase()),
        r#"{"sub":"%"}"#.into(),
        r#"{"sub":""}"#.into(),
        r#"{"sub":null}"#.into(),
        r#"{"sub":"\ud800"}"#.into(),
        r#"{"sub":"' OR true --"}"#.into(),
        format!(r#"{{"x":"{wide}","sub":"{sub}"}}"#),
        format!(r#"{{"sub":"{sub}","x":"{wide}"}}"#),
        format!(r#"{{"sub":"{sub}{}"}}"#, "x".repeat(200)),
        format!("\u{feff}{{\"sub\":\"{sub}\"}}"),
    ] {
        let answer = as_api(s, "authenticated", &odd, "{}", "read write", OWN);
        assert_eq!(answer.unwrap(), Vec::<String>::new(), "{}", &odd[..odd.len().min(200)]);
    }
    // The longest possible subject, and one byte more.
    let longest = format!("{sub}{}", "y".repeat(128 - sub.len()));
    let project = one(c, &format!("SELECT watchllm.create_project('long', '{longest}')"));
    for (claimed, expected) in [(longest.clone(), vec![project]), (format!("{longest}y"), vec![])] {
        assert_eq!(
            as_api(s, "authenticated", &claims("", &claimed), "{}", "read write", OWN).unwrap(),
            expected
        );
    }
    // A NUL in a subject once reached the text column of a version's author.
    let nul = r#"{"role":"service_role","sub":"a\u0000b"}"#;
    let rotated = as_api(s, "service_role", nul, "{}", "read write", &crate::keys::rotate(&b.key));
    assert_eq!(rotated.unwrap(), ["2"]);
    let created_by = format!(
        "SELECT created_by, convert_to(created_by, 'UTF8') FROM watchllm.provider_key_versions
        WHERE provider_key_id = '{}' AND version = 2",
        b.key
    );
    assert_eq!(one(c, &created_by), r"service_role|\x736572766963655f726f6c65");
}

#[test]
fn no_session_names_itself_trusted() {
    let house = House::shared();
    let c = &mut house.connect("postgres");
    let b = house.tenant(c);
    let callers = ["watchllm_tenant", "watchllm_service", "watchllm_admin", "watchllm_auditor", ""]
        .map(|role| login(c, role));
    for role in &callers {
        let s = &mut house.connect(role);
        for sql in [
            format!("SET watchllm_keys.trusted_claim_roles = '{role}'"),
            format!("SELECT set_config('watchllm_keys.trusted_claim_roles', '{role}', true)"),
            format!("ALTER ROLE {role} SET watchllm_keys.trusted_claim_roles = '{role}'"),
            format!("ALTER DATABASE postgres SET watchllm_keys.trusted_claim_roles = '{role}'"),
            format!("ALTER SYSTEM SET watchllm_keys.trusted_claim_roles = '{role}'"),
            "SET watchllm_keys.claims_trusted = on".into(),
            "SELECT set_config('watchllm_keys.session_role', 'authenticator', false)".into(),
            "UPDATE pg_settings SET setting = 'x' WHERE name = 'watchllm_keys.trusted_claim_roles'"
                .into(),
        ] {
            assert!(
                ["42501", "55P02", "42602"].contains(&code(s, &sql).as_str()),
                "{sql}: {}",
                code(s, &sql)
            );
        }
        let options = format!("-c watchllm_keys.trusted_claim_roles={role}");
        assert_eq!(house.psql_with_options(role, &options, "SELECT 'connected'"), "");
    }
    let s = &mut house.connect(&callers[0]);
    one(
        s,
        &format!(
            "SET watchllm.trusted_claim_roles = '{0}'; SET watchllm.claims_sub = '{1}'; SET watchllm.sub = '{1}'",
            callers[0], b.sub
        ),
    );
    one(s, &format!("SET request.jwt.claims = '{}'", b.claims()));
    out_of_reach(s, &b, "settings of other names");
}

/// The server stops preloading the library: claims count nowhere, and members by role still read.
#[test]
fn without_the_preloaded_library_claims_count_for_nothing() {
    let server = crate::api::supabase_vault("");
    server.psql(
        "postgres",
        "
        SELECT watchllm.create_project('p', 'sub-a') AS p \\gset
        SELECT watchllm.store_provider_key(:'p', 'openai', 'k');
        CREATE ROLE tenant LOGIN IN ROLE watchllm_tenant;
        CREATE ROLE other LOGIN IN ROLE watchllm_tenant;
        SELECT watchllm.add_project_member(:'p', role_name => 'tenant');",
    );
    server.conf("shared_preload_libraries = ''");
    server.restart();
    let keys = "SELECT count(*) FROM watchllm.provider_keys";
    let request = |s: &mut Client| {
        as_api(s, "authenticated", &claims("authenticated", "sub-a"), "{}", "read only", keys)
            .unwrap()
    };
    assert_eq!(request(&mut server.connect("postgres", AUTHENTICATOR)), ["0"]);
    assert_eq!(one(&mut server.connect("postgres", "tenant"), keys), "1");
    // Before the library loads, anybody may give its settings any value.
    for user in [AUTHENTICATOR, "other"] {
        let s = &mut server.connect("postgres", user);
        one(s, &format!("SET watchllm_keys.trusted_claim_roles = 'other, authenticator, {user}'"));
        one(
            s,
            "SET request.jwt.claims = '{\"sub\":\"sub-a\"}'; SET watchllm_keys.audit_timeout = '1h'",
        );
        assert_eq!(code(s, "LOAD 'watchllm_keys'"), "42501");
        let seen = if user == "other" { vec![one(s, keys)] } else { request(s) };
        assert_eq!(seen, ["0"], "{user}");
        one(s, "SET request.jwt.claims = '{\"sub\":\"sub-a\"}'");
        assert_eq!(code(s, &format!("SET watchllm_keys.trusted_claim_roles = '{user}'")), "55P02");
    }
    // Loading it in each session is not preloading it.
    server.psql(
        "postgres",
        "ALTER DATABASE postgres SET session_preload_libraries = 'watchllm_keys'",
    );
    assert_eq!(request(&mut server.connect("postgres", AUTHENTICATOR)), ["0"]);
    assert_eq!(
        code(
            &mut server.connect("postgres", "tenant"),
            "SELECT watchllm.decrypt_provider_key(gen_random_uuid())"
        ),
        "55000"
    );
    server.conf("shared_preload_libraries = 'watchllm_keys'");
    server.restart();
    assert_eq!(request(&mut server.connect("postgres", AUTHENTICATOR)), ["1"]);
}

#[test]
fn whom_to_trust_is_read_from_the_configuration_alone() {
    let server = Server::with_vault();
    supabase(&server, "postgres");
    server.psql(
        "postgres",
        "CREATE ROLE gate LOGIN NOINHERIT; GRANT authenticated TO gate;
        SELECT watchllm.create_project('p', 'sub-a');",
    );
    let (mut gate, mut authenticator) =
        (server.connect("postgres", "gate"), server.connect("postgres", AUTHENTICATOR));
    let mut seen = || {
        [&mut gate, &mut authenticator].map(|s| {
            as_api(s, "authenticated", &claims("", "sub-a"), "{}", "read only", OWN).unwrap().len()
        })
    };
    assert_eq!(seen(), [0, 1]);
    for (roles, expected) in [
        ("", [0, 0]),
        (" gate , x", [1, 0]),
        ("gate,authenticator", [1, 1]),
        ("GATE", [0, 0]),
        ("*", [0, 0]),
    ] {
        server.conf(&format!("watchllm_keys.trusted_claim_roles = '{roles}'"));
        server.reload();
        server.poll_until("postgres", "SHOW watchllm_keys.trusted_claim_roles", roles, 30);
        // sessions notice it between two statements
        let until = std::time::Instant::now() + std::time::Duration::from_secs(30);
        while seen() != expected {
            assert!(std::time::Instant::now() < until, "{roles:?}: {:?}", seen());
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
    }
}
