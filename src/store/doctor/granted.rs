//! The rights that `install()` gives, read from its own scripts, so that they stand in one place
//! only. `security_check()` names those that somebody has taken away since: a sweep of REVOKE or a
//! DROP OWNED stops applications as surely as a missing table.

use super::Seen;
use crate::postgres::Statement;
use crate::store::oids::TEXTS;
use crate::store::value;
use std::sync::LazyLock;

/// Who may execute what.
const FUNCTIONS: &str = include_str!("../../../sql/function_grants.sql");
/// Who may read which columns, and use the schema.
const TABLES: [&str; 3] = [
    include_str!("../../../sql/access.sql"),
    include_str!("../../../sql/trail.sql"),
    include_str!("../../../sql/views.sql"),
];

/// A right of a role. `column` is empty for a whole object; the schema is the object `watchllm`.
#[derive(Debug, PartialEq, Eq)]
struct Right {
    role: String,
    privilege: String,
    object: String,
    column: String,
}

static RIGHTS: LazyLock<Vec<Right>> = LazyLock::new(|| {
    let tables = TABLES.iter().flat_map(|script| table_rights(script));
    function_rights(FUNCTIONS).into_iter().chain(tables).collect()
});

/// The lines `('name', who),` and the lists `who CONSTANT text[] := '{role,…}'` of the script.
fn function_rights(script: &str) -> Vec<Right> {
    let list = |who: &str| -> Vec<String> {
        let begins = |line: &&str| {
            line.split_whitespace().next() == Some(who) && line.contains("CONSTANT text[]")
        };
        let line = script.lines().map(str::trim).find(begins).unwrap_or_default();
        let roles = line.split(['{', '}']).nth(1).unwrap_or_default();
        roles.split(',').filter(|role| !role.is_empty()).map(str::to_owned).collect()
    };
    let entry = |line: &str| -> Option<(String, Vec<String>)> {
        let (name, who) = line.trim().strip_prefix("('")?.split_once("',")?;
        Some((name.to_owned(), list(who.trim_matches([' ', ')', ','].as_slice()))))
    };
    let right = |name: &str, role: String| Right {
        role,
        privilege: "EXECUTE".into(),
        object: name.to_owned(),
        column: String::new(),
    };
    let entries = script.lines().filter_map(entry);
    entries
        .flat_map(|(name, roles)| roles.into_iter().map(move |role| right(&name, role)))
        .collect()
}

/// The statements `GRANT privilege [(columns)] ON [SCHEMA] watchllm[.object] TO role, …;`.
fn table_rights(script: &str) -> Vec<Right> {
    let flat: Vec<&str> =
        script.lines().map(|line| line.split("--").next().unwrap_or("")).collect();
    let flat = flat.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    let statements = flat.split(';').filter_map(|statement| {
        let grant = statement.rsplit_once("GRANT ")?.1;
        let (what, rest) = grant.split_once(" ON ")?;
        let (object, roles) = rest.split_once(" TO ")?;
        let object = object.trim_start_matches("SCHEMA ").trim_start_matches("watchllm.");
        let is_name = |text: &str| text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
        is_name(object).then_some((what, object, roles))
    });
    statements.flat_map(|(what, object, roles)| rights_of(what, object, roles)).collect()
}

fn rights_of(what: &str, object: &str, roles: &str) -> Vec<Right> {
    let mut rights = Vec::new();
    for role in roles.split(',').map(str::trim) {
        for (privilege, columns) in privileges(what) {
            for column in columns.split(',').map(str::trim) {
                rights.push(Right {
                    role: role.to_owned(),
                    privilege: privilege.to_owned(),
                    object: object.to_owned(),
                    column: column.to_owned(),
                });
            }
        }
    }
    rights
}

/// Each privilege of `INSERT, SELECT (a, b)` with its columns, which may be none.
fn privileges(what: &str) -> Vec<(&str, &str)> {
    let (mut found, mut rest) = (Vec::new(), what);
    while !rest.trim().is_empty() {
        let end = rest.find([',', '(']).unwrap_or(rest.len());
        let privilege = rest[..end].trim();
        let columns = rest[end..].strip_prefix('(').and_then(|columns| columns.split_once(')'));
        let (columns, after) = columns.unwrap_or(("", &rest[end..]));
        found.push((privilege, columns));
        rest = after.trim_start().trim_start_matches(',');
    }
    found
}

// A detector is known by its name and its columns, as in the script. Names of later versions may
// stand there early: what is not there lacks no right.
static LACKING: Statement = Statement::new(
    "WITH wanted AS (
         SELECT w.role, w.privilege, w.object, w.col
         FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3),
             pg_catalog.unnest($4)) AS w (role, privilege, object, col)
     ), functions AS (
         SELECT p.oid, p.proname, CASE WHEN p.proname LIKE 'detect\\_%'
                 AND p.prorettype = 'record'::pg_catalog.regtype
                 AND p.proargnames[3:5] = '{detector,severity,project_id}'
             THEN 'a detector' ELSE p.proname END AS name
         FROM pg_catalog.pg_extension x
         JOIN pg_catalog.pg_depend d ON d.refclassid = x.tableoid AND d.refobjid = x.oid
             AND d.deptype = 'e' AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
         JOIN pg_catalog.pg_proc p ON p.oid = d.objid
         WHERE x.extname = 'watchllm_keys'
     ), relations AS (
         SELECT c.oid, c.relname, c.relkind, c.relowner FROM pg_catalog.pg_class c
         WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace
             AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
     ), found AS (
         SELECT w.role, w.privilege, f.proname || '()' AS object,
             coalesce(NOT pg_catalog.has_function_privilege(
                 CASE WHEN w.role = 'public' THEN 'public' ELSE r.rolname END, f.oid,
                 'EXECUTE'), true) AS lacks
         FROM wanted w JOIN functions f ON f.name = w.object
         LEFT JOIN pg_catalog.pg_roles r ON r.rolname = w.role
         WHERE w.privilege = 'EXECUTE'
         UNION ALL
         SELECT w.role, w.privilege, c.relname,
             coalesce(NOT CASE WHEN w.col = ''
                 THEN pg_catalog.has_table_privilege(r.rolname, c.oid, w.privilege)
                 ELSE pg_catalog.has_column_privilege(r.rolname, c.oid, a.attnum, w.privilege) END,
                 true)
         FROM wanted w JOIN relations c ON c.relname = w.object
         LEFT JOIN pg_catalog.pg_roles r ON r.rolname = w.role
         LEFT JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attname = w.col
         WHERE w.privilege <> 'EXECUTE'
         UNION ALL
         SELECT w.role, w.privilege, 'schema watchllm',
             coalesce(NOT pg_catalog.has_schema_privilege(r.rolname, 'watchllm', w.privilege), true)
         FROM wanted w LEFT JOIN pg_catalog.pg_roles r ON r.rolname = w.role
         WHERE w.object = 'watchllm' AND EXISTS (SELECT FROM relations)
         UNION ALL
         SELECT 'watchllm_owner', p.name, c.relname,
             NOT pg_catalog.has_table_privilege(r.oid, c.oid, p.name)
         FROM relations c
         CROSS JOIN (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS p (name)
         JOIN pg_catalog.pg_roles r ON r.oid = c.relowner AND r.rolname = 'watchllm_owner'
         WHERE c.relkind <> 'v'
     )
     SELECT pg_catalog.format('%s lacks %s on %s', CASE WHEN f.role = 'public' THEN 'PUBLIC'
             ELSE f.role END, f.privilege, f.object), pg_catalog.bool_or(f.lacks)
     FROM found f GROUP BY f.role, f.privilege, f.object ORDER BY f.object, f.role, f.privilege",
    &[TEXTS, TEXTS, TEXTS, TEXTS],
);

// The roles that each of our policies is for. Whether one narrowed its condition is its owner's
// decision.
static POLICIES: Statement = Statement::new(
    "SELECT pg_catalog.format('%I has no policy for %s', w.name, w.role),
         NOT EXISTS (
             SELECT FROM pg_catalog.pg_policy p JOIN pg_catalog.pg_roles r
                 ON r.oid = ANY (p.polroles)
             WHERE p.polrelid = c.oid AND p.polpermissive AND p.polcmd IN ('r', '*')
                 AND r.rolname = w.role)
     FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS w (name, role)
     JOIN pg_catalog.pg_class c ON c.relname = w.name
         AND c.relnamespace = 'watchllm'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p')
     ORDER BY w.name, w.role",
    &[TEXTS, TEXTS],
);

/// The rights that `install()` gives. Wrong: those that are missing.
pub(crate) fn missing_rights() -> Vec<Seen> {
    let column = |get: fn(&Right) -> &String| RIGHTS.iter().map(get).cloned().collect::<Vec<_>>();
    let arguments = [
        column(|right| &right.role).into(),
        column(|right| &right.privilege).into(),
        column(|right| &right.object).into(),
        column(|right| &right.column).into(),
    ];
    LACKING.read_as_caller(&arguments, |row| Seen { what: value(row, 1), wrong: value(row, 2) })
}

/// The tables that a role reads, each with a policy for it. Wrong: where it is missing.
pub(crate) fn missing_policies() -> Vec<Seen> {
    let reads = |right: &&Right| {
        right.privilege == "SELECT" && !right.column.is_empty() && right.role != "pg_monitor"
    };
    let mut pairs: Vec<(&str, &str)> =
        RIGHTS.iter().filter(reads).map(|right| (&*right.object, &*right.role)).collect();
    pairs.sort_unstable();
    pairs.dedup();
    let names: Vec<String> = pairs.iter().map(|(name, _)| (*name).to_owned()).collect();
    let roles: Vec<String> = pairs.iter().map(|(_, role)| (*role).to_owned()).collect();
    POLICIES.read_as_caller(&[names.into(), roles.into()], |row| Seen {
        what: value(row, 1),
        wrong: value(row, 2),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(role: &str, privilege: &str, object: &str, column: &str) -> Right {
        Right {
            role: role.into(),
            privilege: privilege.into(),
            object: object.into(),
            column: column.into(),
        }
    }

    #[test]
    fn privileges_are_told_apart() {
        let read = |what| privileges(what);
        assert_eq!(read("SELECT"), [("SELECT", "")]);
        assert_eq!(read("SELECT (a, b)"), [("SELECT", "a, b")]);
        assert_eq!(
            read("INSERT, SELECT (a, b), UPDATE"),
            [("INSERT", ""), ("SELECT", "a, b"), ("UPDATE", "")]
        );
    }

    #[test]
    fn the_scripts_are_read_as_they_are_written() {
        let functions = function_rights(FUNCTIONS);
        for (role, function) in [
            ("watchllm_tenant", "decrypt_provider_key"),
            ("watchllm_owner", "make_log_partition"),
            ("pg_monitor", "status"),
            ("public", "redact"),
        ] {
            assert!(functions.contains(&right(role, "EXECUTE", function, "")), "{function}");
        }
        assert!(!functions.iter().any(|right| right.object == "install"));
        assert!(functions.len() > 100, "{}", functions.len());
        for (script, wanted) in [
            (0, right("watchllm_tenant", "SELECT", "projects", "name")),
            (0, right("pg_monitor", "USAGE", "watchllm", "")),
            (0, right("watchllm_owner", "CREATE", "watchllm", "")),
            (1, right("watchllm_auditor", "SELECT", "provider_key_access_logs", "hash")),
            (2, right("watchllm_tenant", "INSERT", "provider_key_inbox", "")),
            (2, right("watchllm_tenant", "SELECT", "provider_key_inbox", "name")),
            (2, right("watchllm_service", "SELECT", "provider_keys", "")),
        ] {
            assert!(table_rights(TABLES[script]).contains(&wanted), "{wanted:?}");
        }
    }
}
