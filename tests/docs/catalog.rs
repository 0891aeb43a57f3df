//! The objects of the server's catalog: functions with their signatures and who may execute them,
//! views, tables that an auditor may read, settings. Names and numbers only; `reference` judges
//! them.

use std::collections::{BTreeMap, BTreeSet};

use crate::server::Server;

#[derive(Default)]
pub(crate) struct Catalog {
    /// By name: the signature of each overload, and who may execute all of them.
    pub(crate) functions: BTreeMap<String, Function>,
    pub(crate) views: BTreeMap<String, Relation>,
    pub(crate) readable_tables: BTreeMap<String, Relation>,
    pub(crate) settings: BTreeMap<String, Setting>,
}

#[derive(Default)]
pub(crate) struct Function {
    pub(crate) signatures: BTreeSet<String>,
    pub(crate) callers: BTreeSet<String>,
}

/// Columns as `name type`, and which of our roles read and write it. Of a table these are the
/// columns that an auditor may read.
#[derive(Default)]
pub(crate) struct Relation {
    pub(crate) columns: BTreeSet<String>,
    pub(crate) readers: BTreeSet<String>,
    pub(crate) writers: BTreeSet<String>,
}

/// As the page writes it: default, range with unit (or none), when it applies, whether it can be
/// overridden.
pub(crate) struct Setting {
    pub(crate) default: String,
    pub(crate) range: Option<String>,
    pub(crate) applies: String,
    pub(crate) is_overridable: bool,
}

const FUNCTIONS: &str = "
    SELECT concat_ws(E'\\t', p.proname,
        p.proname || '(' || pg_get_function_arguments(p.oid) || ') RETURNS '
            || pg_get_function_result(p.oid),
        (SELECT string_agg(CASE WHEN a.grantee = 0 THEN 'everybody'
                                ELSE a.grantee::regrole::text END, ', ')
         FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
         WHERE a.grantee <> p.proowner))
    FROM pg_proc p WHERE p.pronamespace = 'watchllm'::regnamespace";

const RELATIONS: &str = "
    SELECT concat_ws(E'\\t', CASE c.relkind WHEN 'v' THEN 'view' ELSE 'table' END, c.relname,
        (SELECT string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ')
         FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
           AND (c.relkind = 'v'
                OR has_column_privilege('watchllm_auditor', c.oid, a.attnum, 'SELECT'))),
        coalesce((SELECT string_agg(r.rolname, ', ') FROM roles r
                  WHERE has_any_column_privilege(r.oid, c.oid, 'SELECT')), ''),
        coalesce((SELECT string_agg(r.rolname, ', ') FROM roles r
                  WHERE has_any_column_privilege(r.oid, c.oid, 'INSERT, UPDATE')), ''))
    FROM pg_class c
    WHERE c.relnamespace = 'watchllm'::regnamespace AND NOT c.relispartition
      AND (c.relkind = 'v'
           OR c.relkind IN ('r', 'p')
              AND has_any_column_privilege('watchllm_auditor', c.oid, 'SELECT'))";

/// The roles that people and programs get.
const ROLES: &str = "
    WITH roles AS (SELECT r.oid, r.rolname FROM pg_roles r
                   WHERE r.rolname IN ('watchllm_admin', 'watchllm_service', 'watchllm_tenant',
                                       'watchllm_auditor'))";

const SETTINGS: &str = "
    SELECT concat_ws(E'\\t', s.name,
        CASE WHEN s.source = 'default' THEN current_setting(s.name)
             ELSE coalesce(s.boot_val, '') END,
        CASE WHEN s.min_val IS NOT NULL THEN concat_ws(' ', s.min_val, 'to', s.max_val, s.unit)
             ELSE '' END,
        CASE s.context WHEN 'sighup' THEN 'on reload' WHEN 'postmaster' THEN 'after a restart'
                       ELSE s.context END)
    FROM pg_settings s WHERE s.name LIKE 'watchllm\\_keys.%'";

impl Catalog {
    pub(crate) fn read(server: &Server) -> Catalog {
        let mut catalog = Catalog::default();
        for row in rows(server, FUNCTIONS) {
            let function = catalog.functions.entry(row[0].clone()).or_default();
            function.signatures.insert(written(&row[1]));
            let callers = row.get(2).map_or("superusers", |callers| callers.as_str());
            function.callers.extend(callers.split(", ").map(String::from));
        }
        for row in rows(server, &format!("{ROLES}{RELATIONS}")) {
            let list = |text: &str| {
                text.split(", ").filter(|one| !one.is_empty()).map(String::from).collect()
            };
            let relation = Relation {
                columns: list(&written(&row[2])),
                readers: list(&row[3]),
                writers: list(&row[4]),
            };
            let is_view = row[0] == "view";
            let names = if is_view { &mut catalog.views } else { &mut catalog.readable_tables };
            names.insert(row[1].clone(), relation);
        }
        for row in rows(server, SETTINGS) {
            let short = row[0].split_once('.').unwrap().1;
            let asked = server
                .psql_result("postgres", &format!("SELECT watchllm.effective_setting('{short}')"));
            let setting = Setting {
                default: row[1].clone(),
                range: Some(row[2].clone()).filter(|range| !range.is_empty()),
                applies: row[3].clone(),
                is_overridable: asked.status == 0,
            };
            catalog.settings.insert(row[0].clone(), setting);
        }
        let is_read =
            catalog.functions.len() > 40 && catalog.views.len() > 5 && catalog.settings.len() > 15;
        assert!(is_read && catalog.readable_tables.len() > 10, "the catalog could not be read");
        catalog
    }
}

fn rows(server: &Server, sql: &str) -> Vec<Vec<String>> {
    server
        .psql("postgres", sql)
        .lines()
        .map(|line| line.split('\t').map(String::from).collect())
        .collect()
}

/// A signature as the page may write it: short names of types, no casts of defaults, single spaces.
pub(crate) fn written(signature: &str) -> String {
    let short = signature.replace("timestamp with time zone", "timestamptz");
    let uncast = crate::re(r"::[a-z_]+(?: [a-z_]+)*(?:\[\])?").replace_all(&short, "").into_owned();
    let spaced = uncast.split_whitespace().collect::<Vec<_>>().join(" ");
    spaced.replace("( ", "(").replace(" )", ")")
}
