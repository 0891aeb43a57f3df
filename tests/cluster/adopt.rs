//! An application's table of projects that feeds ours. Rows come, change and go, and ids clash:
//! another tenant's, a deleted project's, a second owner's. People attach the trigger elsewhere,
//! call it, or adopt what is not a plain table. Rollback, rename, truncate and restore keep both in
//! step.

use postgres::Client;
use uuid::Uuid;

use crate::import_attacks::{caught, lair};
use crate::keys::{Vault, code, decrypt, new_key, one, refusal, rows, store};
use crate::roles::login;
use crate::server::Server;

/// A table of projects as WatchLLM has it, with one row. Answers the row's id and owner.
fn table(c: &mut Client, name: &str) -> (String, String) {
    let (id, owner) = (Uuid::new_v4().to_string(), Uuid::new_v4().to_string());
    one(
        c,
        &format!(
            "CREATE TABLE {name} (id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id uuid NOT NULL, name text);
            INSERT INTO {name} VALUES ('{id}', '{owner}', 'first')"
        ),
    );
    (id, owner)
}

fn fresh(c: &mut Client) -> (String, String, String) {
    let name = format!("public.p_{}", Uuid::new_v4().simple());
    let (id, owner) = table(c, &name);
    (name, id, owner)
}

fn adopt(c: &mut Client, name: &str) -> String {
    one(c, &format!("SELECT watchllm.adopt_projects('{name}')"))
}

fn ours(c: &mut Client, id: &str) -> String {
    one(
        c,
        &format!(
            "SELECT name, owner_id, deleted_at IS NOT NULL FROM watchllm.projects WHERE id = '{id}'"
        ),
    )
}

#[test]
fn rows_that_come_change_and_go_are_followed() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (t, id, owner) = fresh(c);
    assert_eq!(adopt(c, &t), "1");
    assert_eq!(ours(c, &id), format!("first|{owner}|f"));
    let (second, other) = (Uuid::new_v4(), Uuid::new_v4());
    one(c, &format!("INSERT INTO {t} VALUES ('{second}', '{owner}', 'second')"));
    assert_eq!(ours(c, &second.to_string()), format!("second|{owner}|f"));
    one(c, &format!("UPDATE {t} SET user_id = '{other}', name = NULL WHERE id = '{second}'"));
    assert_eq!(ours(c, &second.to_string()), format!("{second}|{other}|f"));
    let key = new_key();
    let (a, b) =
        (store(c, &id, "openai", &key), store(c, &second.to_string(), "openai", &new_key()));
    one(c, &format!("DELETE FROM {t} WHERE id = '{second}'"));
    assert_eq!(ours(c, &second.to_string()), format!("{second}|{other}|t"));
    assert_eq!((code(c, &decrypt(&b)), one(c, &decrypt(&a))), ("02000".into(), key));
    let destroyed = format!(
        "SELECT envelope IS NULL FROM watchllm.provider_key_versions WHERE provider_key_id = '{b}'"
    );
    assert_eq!(one(c, &destroyed), "t");
    let trail = format!(
        "SELECT access_type, provider_key_id IS NOT NULL, success FROM watchllm.provider_key_access_logs
        WHERE project_id = '{second}' ORDER BY seq"
    );
    let expected =
        ["adopt|f|t", "adopt|f|t", "store|t|t", "delete|t|t", "project|f|t", "decrypt|t|f"];
    assert_eq!(rows(c, &trail), expected);
    assert_eq!(adopt(c, &t), "1"); // again: nothing is new, and nothing is recorded twice
    assert_eq!(rows(c, &trail), expected);
}

#[test]
fn what_is_rolled_back_there_is_rolled_back_here() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (t, id, owner) = fresh(c);
    adopt(c, &t);
    let key = store(c, &id, "openai", &new_key());
    one(c, &format!("BEGIN; DELETE FROM {t}; ROLLBACK"));
    one(c, &format!("BEGIN; SAVEPOINT s; UPDATE {t} SET name = 'other'; ROLLBACK TO s; COMMIT"));
    assert_eq!(
        (ours(c, &id), code(c, &decrypt(&key))),
        (format!("first|{owner}|f"), "00000".into())
    );
    let changes = format!(
        "SELECT count(*) FROM watchllm.provider_key_access_logs WHERE project_id = '{id}' AND access_type IN ('delete', 'project')"
    );
    assert_eq!(one(c, &changes), "0");
}

#[test]
fn an_id_that_is_another_tenants_is_refused() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (t, id, owner) = fresh(c);
    adopt(c, &t);
    let victim = one(c, "SELECT watchllm.create_project('victim', 'sub of the victim')");
    let nobodys = one(c, "SELECT watchllm.create_project('nobody''s')");
    let attacker = login(c, "");
    one(c, &format!("GRANT ALL ON {t} TO {attacker}"));
    let s = &mut vault.connect(&attacker);
    for stolen in [&victim, &nobodys] {
        let mine = format!("INSERT INTO {t} VALUES ('{stolen}', '{}', 'mine')", Uuid::new_v4());
        assert_eq!(code(s, &mine), "23505", "{stolen}");
        assert_eq!(code(s, &format!("UPDATE {t} SET id = '{stolen}' WHERE id = '{id}'")), "22023");
    }
    assert_eq!(
        (ours(c, &victim), ours(c, &nobodys)),
        ("victim|sub of the victim|f".into(), "nobody's|-|f".into())
    );
    // the id of a deleted project is nobody's any more, not even its former owner's
    one(c, &format!("DELETE FROM {t} WHERE id = '{id}'"));
    for heir in [&Uuid::new_v4().to_string(), &owner] {
        assert_eq!(code(s, &format!("INSERT INTO {t} VALUES ('{id}', '{heir}', 'heir')")), "23505");
    }
    assert_eq!(ours(c, &id), format!("first|{owner}|t"));
    // nor does another adopted table take it over
    let (other, ..) = fresh(c);
    adopt(c, &other);
    one(c, &format!("GRANT ALL ON {other} TO {attacker}"));
    assert_eq!(
        code(s, &format!("INSERT INTO {other} VALUES ('{id}', '{owner}', 'twice')")),
        "23505"
    );
}

/// No trigger brings a deleted project back: what the application writes is no decision of the
/// staff.
#[test]
fn an_update_of_its_row_brings_no_deleted_project_back() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (t, id, owner) = fresh(c);
    adopt(c, &t);
    let key = store(c, &id, "openai", &new_key());
    one(c, &format!("SELECT watchllm.delete_project('{id}')"));
    let gone = format!("first|{owner}|t");
    for change in [
        format!("UPDATE {t} SET name = 'back' WHERE id = '{id}'"),
        format!("UPDATE {t} SET user_id = '{}' WHERE id = '{id}'", Uuid::new_v4()),
        format!("UPDATE {t} SET name = 'first', user_id = '{owner}' WHERE id = '{id}'"),
        format!(
            "INSERT INTO {t} VALUES ('{id}', '{owner}', 'upsert')
             ON CONFLICT (id) DO UPDATE SET name = EXCLUDED.name"
        ),
    ] {
        assert_eq!(code(c, &change), "00000", "the application goes on: {change}");
        assert_eq!(ours(c, &id), gone, "{change}");
    }
    assert_eq!(code(c, &decrypt(&key)), "02000");
    let stored = format!("SELECT watchllm.store_provider_key('{id}', 'openai', '{}')", new_key());
    assert_eq!(code(c, &stored), "02000");
    // nor does another adoption of the table, nor the row's deletion and return
    assert_eq!(adopt(c, &t), "0");
    assert_eq!(ours(c, &id), gone);
    one(c, &format!("DELETE FROM {t} WHERE id = '{id}'"));
    let again = format!("INSERT INTO {t} VALUES ('{id}', '{owner}', 'again')");
    assert_eq!(code(c, &again), "23505");
    assert_eq!(ours(c, &id), gone);
}

#[test]
fn a_project_that_was_created_is_never_taken_over_by_a_row() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (t, ..) = fresh(c);
    adopt(c, &t);
    let owner = Uuid::new_v4().to_string();
    let create =
        |c: &mut Client| one(c, &format!("SELECT watchllm.create_project('made', '{owner}')"));
    let from = |c: &mut Client, id: &str| {
        one(
            c,
            &format!(
                "SELECT adopted_table_id IS NULL, name, deleted_at IS NULL
                 FROM watchllm.projects WHERE id = '{id}'"
            ),
        )
    };
    let id = create(c);
    let insert = format!("INSERT INTO {t} VALUES ('{id}', '{owner}', 'mine')");
    assert_eq!(code(c, &insert), "23505");
    assert_eq!(from(c, &id), "t|made|t");
    // a row that came in while no trigger fired
    one(
        c,
        &format!(
            "ALTER TABLE {t} DISABLE TRIGGER ALL; {insert}; ALTER TABLE {t} ENABLE TRIGGER ALL"
        ),
    );
    assert_eq!(code(c, &format!("UPDATE {t} SET name = 'taken' WHERE id = '{id}'")), "23505");
    assert_eq!(from(c, &id), "t|made|t");
    one(c, &format!("DELETE FROM {t} WHERE id = '{id}'"));
    assert_eq!(from(c, &id), "t|made|t");
    // a superuser who adopts a table decides about its rows
    let (other, ..) = fresh(c);
    one(c, &format!("INSERT INTO {other} VALUES ('{id}', '{owner}', 'by decision')"));
    assert_eq!(adopt(c, &other), "2");
    assert_eq!(from(c, &id), "f|by decision|t");
}

#[test]
fn nobody_executes_or_attaches_the_trigger_function() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (t, ..) = fresh(c);
    adopt(c, &t);
    let id = one(
        c,
        &format!("SELECT id FROM watchllm.adopted_tables WHERE 'public.' || table_name = '{t}'"),
    );
    let may = "SELECT rolname FROM pg_roles WHERE NOT rolsuper
        AND has_function_privilege(oid, 'watchllm.follow_projects()', 'EXECUTE')";
    assert!(rows(c, may).is_empty());
    let admin = login(c, "watchllm_admin");
    let schema = format!("of_{admin}");
    one(
        c,
        &format!(
            "CREATE SCHEMA {schema} AUTHORIZATION {admin}; GRANT USAGE ON SCHEMA {schema} TO PUBLIC"
        ),
    );
    let s = &mut vault.connect(&admin);
    table(s, &format!("{schema}.mine"));
    let attach = |argument: &str| {
        format!(
            "CREATE TRIGGER t AFTER INSERT ON {schema}.mine FOR EACH ROW EXECUTE FUNCTION watchllm.follow_projects({argument})"
        )
    };
    assert_eq!(code(s, &attach(&format!("'{id}'"))), "42501");
    for call in [format!("{schema}.mine"), t.clone()] {
        assert_eq!(code(s, &format!("SELECT watchllm.adopt_projects('{call}')")), "42501");
    }
    // if a superuser attaches it by hand, it does not bypass the adoption either
    for argument in
        [format!("'{id}'"), String::new(), "'x'".into(), format!("'{}'", Uuid::new_v4())]
    {
        one(c, &attach(&argument));
        let victim = Uuid::new_v4();
        let inserted = code(
            c,
            &format!("INSERT INTO {schema}.mine VALUES ('{victim}', gen_random_uuid(), 'x')"),
        );
        assert_eq!(
            (inserted.as_str(), ours(c, &victim.to_string()).as_str()),
            ("42501", ""),
            "{argument}"
        );
        one(c, &format!("DROP TRIGGER t ON {schema}.mine"));
    }
    assert_ne!(code(c, "SELECT watchllm.follow_projects()"), "00000");
}

#[test]
fn only_a_plain_table_with_fitting_columns_is_adopted() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let s = format!("odd_{}", Uuid::new_v4().simple());
    one(
        c,
        &format!(
            "CREATE SCHEMA {s}; SET search_path = {s};
            CREATE TABLE plain (id uuid PRIMARY KEY, user_id text, name varchar(20));
            CREATE VIEW view AS SELECT * FROM plain;
            CREATE MATERIALIZED VIEW kept AS SELECT * FROM plain;
            CREATE TABLE parted (id uuid PRIMARY KEY, user_id text, name text) PARTITION BY HASH (id);
            CREATE TABLE part PARTITION OF parted FOR VALUES WITH (MODULUS 1, REMAINDER 0);
            CREATE TABLE child (PRIMARY KEY (id)) INHERITS (plain);
            CREATE TEMP TABLE passing (id uuid PRIMARY KEY, user_id text, name text);
            CREATE TABLE twice (id uuid, user_id text, name text);
            CREATE TABLE partly (id uuid, user_id text, name text);
            CREATE UNIQUE INDEX ON partly (id) WHERE name <> '';
            CREATE TABLE texts (id text PRIMARY KEY, user_id text, name text);
            CREATE DOMAIN who AS text; CREATE TABLE domains (id uuid PRIMARY KEY, user_id who, name text);
            CREATE SEQUENCE numbers; CREATE INDEX named ON plain (name); RESET search_path"
        ),
    );
    for odd in [
        "plain", "view", "kept", "parted", "part", "child", "twice", "partly", "texts", "domains",
        "numbers", "named",
    ] {
        assert_eq!(
            code(c, &format!("SELECT watchllm.adopt_projects('{s}.{odd}')")),
            "22023",
            "{odd}"
        );
    }
    for relation in ["passing", "watchllm.projects", "pg_catalog.pg_class"] {
        assert_eq!(
            code(c, &format!("SELECT watchllm.adopt_projects('{relation}')")),
            "22023",
            "{relation}"
        );
    }
    one(c, &format!("DROP TABLE {s}.child"));
    for columns in [
        "'nothing'",
        "'name'",
        "'id', 'nothing'",
        "'id', 'user_id', 'nothing'",
        "'id', 'user_id', 'id'",
        "'ctid'",
    ] {
        assert_eq!(
            code(c, &format!("SELECT watchllm.adopt_projects('{s}.plain', {columns})")),
            "22023",
            "{columns}"
        );
    }
    for nothing in ["NULL", "'{s}.plain', NULL", "'{s}.plain', 'id', NULL"] {
        let call = nothing.replace("{s}", &s);
        assert_eq!(code(c, &format!("SELECT watchllm.adopt_projects({call})")), "22004", "{call}");
    }
    assert_eq!(
        one(c, &format!("SELECT watchllm.adopt_projects('{s}.plain', name_column => NULL)")),
        "0"
    );
}

/// Code that the owner of a table can have run when somebody reads it or puts a trigger on it.
const TRAPS: &[&str] = &[
    "CREATE TABLE S.t (COLUMNS); CREATE INDEX ON S.t ((S.spy('x') || name))",
    "CREATE TABLE S.t (COLUMNS, CHECK (S.spy('x') = 'x' OR name = 'y'))",
    "CREATE TABLE S.t (COLUMNS); CREATE STATISTICS S.s ON (S.spy('x') || name) FROM S.t",
    "CREATE TABLE S.t (COLUMNS, x text DEFAULT S.spy('x'), y text GENERATED ALWAYS AS (S.spy(name)) STORED)",
    "CREATE TABLE S.t (COLUMNS); ALTER TABLE S.t ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
     CREATE POLICY p ON S.t USING (S.spy(name) IS NOT NULL)",
    "CREATE TABLE S.t (COLUMNS); CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON S.t
     FOR EACH ROW EXECUTE FUNCTION S.spy_on_row()",
    "CREATE TABLE S.t (COLUMNS); CREATE RULE r AS ON UPDATE TO S.t DO ALSO SELECT S.spy('x')",
    "CREATE TABLE S.t (COLUMNS); CREATE FUNCTION S.same(uuid, uuid) RETURNS boolean LANGUAGE sql AS $$ SELECT S.spy('x') = 'x' $$;
     CREATE OPERATOR S.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = S.same);
     CREATE FUNCTION S.split_part(text, text, integer) RETURNS text LANGUAGE sql AS $$ SELECT S.spy('x') $$",
];

#[test]
fn nothing_of_an_adopted_tables_owner_runs_as_who_adopts_it() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let attacker = login(c, "");
    let mut sprung = 0;
    for trap in TRAPS {
        let schema = lair(c, &attacker);
        let columns = "id uuid PRIMARY KEY DEFAULT gen_random_uuid(), user_id text, name text";
        let ddl = trap.replace("COLUMNS", columns).replace("S.", &format!("{schema}."));
        one(
            c,
            &format!(
                "SET ROLE {attacker}; {ddl}; INSERT INTO {schema}.t (user_id, name) VALUES ('u', 'n'); RESET ROLE"
            ),
        );
        caught(c, &schema, &attacker);
        one(c, &format!("SET search_path = {schema}, pg_catalog"));
        assert_eq!(
            code(c, &format!("SELECT watchllm.adopt_projects('{schema}.t')")),
            "00000",
            "{trap}"
        );
        assert_eq!(caught(c, &schema, &attacker), Vec::<String>::new(), "{trap}");
        // the control: what an ordinary read or change by a superuser would run
        code(c, &format!("SELECT * FROM {schema}.t WHERE name = 'n' AND id = id"));
        code(c, &format!("UPDATE {schema}.t SET name = 'm'"));
        sprung += usize::from(!caught(c, &schema, &attacker).is_empty());
        one(c, "RESET search_path");
    }
    assert!(sprung > 4, "the traps do not work: {sprung}");
    assert_eq!(one(c, &format!("SELECT rolsuper FROM pg_roles WHERE rolname = '{attacker}'")), "f");
}

#[test]
fn what_the_application_writes_is_cleaned_and_bounded() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let s = format!("wide_{}", Uuid::new_v4().simple());
    one(
        c,
        &format!(
            "CREATE SCHEMA {s}; CREATE TABLE {s}.p (\"Id\" uuid PRIMARY KEY, \"o'\" text, \"n\"\"\" text)"
        ),
    );
    let columns = "'Id', 'o''', 'n\"'";
    assert_eq!(one(c, &format!("SELECT watchllm.adopt_projects('{s}.p', {columns})")), "0");
    let (id, key) = (Uuid::new_v4(), new_key());
    let insert =
        |owner: &str, name: &str| format!("INSERT INTO {s}.p VALUES ('{id}', {owner}, {name})");
    for owner in ["''", "repeat('o', 129)"] {
        let error = refusal(c, &insert(owner, "'n'"));
        assert_eq!((error.code().code(), error.hint().is_some()), ("22023", true));
    }
    assert_eq!(
        code(c, &insert("NULL", &format!("E'a\\nb {key} ' || repeat('日', 1000000)"))),
        "00000"
    );
    let name = one(c, &format!("SELECT name FROM watchllm.projects WHERE id = '{id}'"));
    assert!(name.starts_with("a?b sk-proj-...[REDACTED] 日") && name.len() <= 100, "{name}");
    one(c, &format!("UPDATE {s}.p SET \"n\"\"\" = '', \"o'\" = 'größe'"));
    assert_eq!(ours(c, &id.to_string()), format!("{id}|größe|f"));
}

#[test]
fn a_table_cannot_be_emptied_renamed_or_reshaped_unseen() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let (t, id, owner) = fresh(c);
    adopt(c, &t);
    assert_eq!(code(c, &format!("TRUNCATE {t}")), "22023");
    one(c, &format!("ALTER TABLE {t} RENAME TO r_{}", &t[9..]));
    let renamed = format!("public.r_{}", &t[9..]);
    let change = format!("UPDATE {renamed} SET name = 'renamed'");
    assert_eq!(code(c, &change), "42501");
    assert_eq!(adopt(c, &renamed), "1");
    one(c, &change);
    assert_eq!(ours(c, &id), format!("renamed|{owner}|f"));
    one(c, &format!("ALTER TABLE {renamed} RENAME user_id TO owner"));
    assert_eq!(code(c, &format!("UPDATE {renamed} SET name = 'reshaped'")), "22023");
    assert_eq!(
        one(c, &format!("SELECT watchllm.adopt_projects('{renamed}', owner_column => 'owner')")),
        "1"
    );
    one(c, &format!("UPDATE {renamed} SET name = 'reshaped'"));
    assert_eq!(ours(c, &id), format!("reshaped|{owner}|f"));
}

#[test]
fn an_adopted_table_survives_dump_and_restore_and_the_extensions_absence() {
    let server = Server::with_vault();
    let c = &mut server.connect("postgres", "postgres");
    let (id, owner) = table(c, "public.projects");
    assert_eq!(adopt(c, "public.projects"), "1");
    let dump = server.dump("postgres", "dump", &["-Fc"]);
    server.psql("postgres", "CREATE DATABASE copy");
    server.restore("copy", &dump, &["-j", "4"]);
    let copy = &mut server.connect("copy", "postgres");
    one(copy, "UPDATE public.projects SET name = 'restored'");
    assert_eq!(
        (ours(copy, &id), ours(c, &id)),
        (format!("restored|{owner}|f"), format!("first|{owner}|f"))
    );
    assert_eq!(rows(copy, "SELECT count(*) FROM watchllm.adopted_tables"), ["1"]);

    one(c, "DROP EXTENSION watchllm_keys CASCADE");
    one(c, "UPDATE public.projects SET name = 'alone'"); // the application goes on
    let back =
        server.psql_result("postgres", "CREATE EXTENSION watchllm_keys; SELECT watchllm.install()");
    assert!(
        back.stderr.contains("public.projects") && back.stderr.contains("adopt_projects"),
        "{}",
        back.stderr
    );
    assert_eq!(adopt(c, "public.projects"), "1");
    assert_eq!(ours(c, &id), format!("alone|{owner}|f"));
}

#[test]
fn delete_project_deletes_each_key_and_keeps_the_trail() {
    let vault = Vault::shared();
    let c = &mut vault.connect("postgres");
    let p = one(c, "SELECT watchllm.create_project('leaving', 'its owner')");
    let keys: Vec<String> =
        ["openai", "groq"].iter().map(|provider| store(c, &p, provider, &new_key())).collect();
    let gone = store(c, &p, "gone", "k");
    one(c, &format!("SELECT watchllm.delete_provider_key('{gone}')"));
    for (caller, expected) in [("watchllm_service", "42501"), ("watchllm_tenant", "42501")] {
        let s = &mut vault.connect(&login(c, caller));
        assert_eq!(code(s, &format!("SELECT watchllm.delete_project('{p}')")), expected);
    }
    one(c, &format!("BEGIN; SELECT watchllm.delete_project('{p}'); ROLLBACK"));
    assert_eq!(code(c, &decrypt(&keys[0])), "00000");
    one(c, &format!("SELECT watchllm.delete_project('{p}', 'r-1')"));
    assert!(keys.iter().all(|key| code(c, &decrypt(key)) == "02000"));
    let trail = format!(
        "SELECT access_type, count(*) FROM watchllm.provider_key_access_logs WHERE request_id = 'r-1' AND project_id = '{p}'
        GROUP BY 1 ORDER BY 1"
    );
    assert_eq!(rows(c, &trail), ["delete|2", "project|1"]);
    for call in [
        format!("store_provider_key('{p}', 'openai', 'k')"),
        format!("delete_project('{p}')"),
        format!("add_project_member('{p}', 'sub')"),
        format!("delete_project('{}')", Uuid::new_v4()),
    ] {
        assert_eq!(code(c, &format!("SELECT watchllm.{call}")), "02000", "{call}");
    }
    assert_eq!(code(c, &format!("SELECT watchllm.create_project('again', NULL, '{p}')")), "23505");
    assert_eq!(code(c, "SELECT watchllm.delete_project(NULL)"), "22004");
    assert_eq!(
        rows(c, &format!("SELECT 1 FROM watchllm.provider_key_records WHERE project_id = '{p}'"))
            .len(),
        3
    );
}
