//! Checks roles and settings of the server, which anybody may read from the catalogs. Wrong is a
//! role that passes the vault's walls without being a superuser. Wrong is also a setting that
//! writes statements or parameters into the server log.

use super::{Seen, seen};
use crate::postgres::Statement;
use crate::store::oids::TEXT;
use crate::store::value;

static OWNER_ROLE: Statement = Statement::new(
    "SELECT 'watchllm_owner ' || a.what, a.wrong
     FROM pg_catalog.pg_roles r
     CROSS JOIN LATERAL (VALUES ('is a superuser', r.rolsuper), ('has BYPASSRLS', r.rolbypassrls),
         ('can log in', r.rolcanlogin), ('has CREATEROLE', r.rolcreaterole),
             ('has CREATEDB', r.rolcreatedb),
         ('has REPLICATION', r.rolreplication)) AS a (what, wrong)
     WHERE r.rolname = 'watchllm_owner'
     UNION ALL
     SELECT pg_catalog.format('%s is a member of %s', m.member::pg_catalog.regrole,
         m.roleid::pg_catalog.regrole), true
     FROM pg_catalog.pg_auth_members m JOIN pg_catalog.pg_roles r ON r.oid IN (m.roleid, m.member)
     WHERE r.rolname = 'watchllm_owner'
     UNION ALL
     SELECT pg_catalog.format('%I belongs to %I', c.relname, o.rolname),
         o.rolname <> 'watchllm_owner'
     FROM pg_catalog.pg_class c JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
     WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace
         AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')",
    &[],
);

static SUPERUSERS: Statement = Statement::new(
    "SELECT r.rolname::pg_catalog.text, false FROM pg_catalog.pg_roles r
        WHERE r.rolsuper ORDER BY 1",
    &[],
);

static BYPASSRLS: Statement = Statement::new(
    "SELECT r.rolname || CASE WHEN r.rolcanlogin THEN '' ELSE ' (no login)' END, r.rolcanlogin
     FROM pg_catalog.pg_roles r WHERE r.rolbypassrls AND NOT r.rolsuper ORDER BY 1",
    &[],
);

// A role that streams the WAL gets the ciphertext, and with a base backup every file.
static REPLICATION: Statement = Statement::new(
    "SELECT r.rolname || CASE WHEN r.rolcanlogin THEN '' ELSE ' (no login)' END, r.rolcanlogin
     FROM pg_catalog.pg_roles r WHERE r.rolreplication AND NOT r.rolsuper ORDER BY 1",
    &[],
);

// Who may open keys is who has the privileges of the two roles, or may take one of them. EXECUTE
// alone opens nothing, but says that somebody meant it to.
static OPENING: Statement = Statement::new(
    "SELECT pg_catalog.format('%s (%s%s)', r.rolname, pg_catalog.string_agg(w.rolname, ', '
             ORDER BY w.rolname), CASE WHEN pg_catalog.bool_or(
                 pg_catalog.pg_has_role(r.oid, w.oid, 'USAGE')) THEN '' ELSE ', by SET ROLE' END),
         false
     FROM pg_catalog.pg_roles r JOIN pg_catalog.pg_roles w
         ON w.rolname IN ('watchllm_service', 'watchllm_admin')
             AND pg_catalog.pg_has_role(r.oid, w.oid, 'MEMBER')
     WHERE r.rolcanlogin AND NOT r.rolsuper GROUP BY r.rolname
     UNION ALL
     SELECT pg_catalog.format('%s may execute %s', g.rolname, p.proname), true
     FROM pg_catalog.pg_proc p
     CROSS JOIN LATERAL pg_catalog.aclexplode(p.proacl) e
     JOIN pg_catalog.pg_roles g ON g.oid = e.grantee
     WHERE p.pronamespace = 'watchllm'::pg_catalog.regnamespace AND e.grantee <> p.proowner
         AND p.proname IN ('decrypt_provider_key', 'decrypt_provider_keys', 'resolve_provider_key')
         AND g.rolname NOT IN ('watchllm_admin', 'watchllm_service', 'watchllm_tenant')
     ORDER BY 1",
    &[],
);

// From version 16 on, CREATEROLE reaches only the roles that it has ADMIN OPTION for.
static CREATEROLE: Statement = Statement::new(
    "SELECT r.rolname || CASE WHEN r.rolcanlogin THEN '' ELSE ' (no login)' END,
            r.rolcanlogin AND pg_catalog.current_setting('server_version_num')::pg_catalog.int4
                < 160000
     FROM pg_catalog.pg_roles r WHERE r.rolcreaterole AND NOT r.rolsuper ORDER BY 1",
    &[],
);

static PREDEFINED: Statement = Statement::new(
    "SELECT pg_catalog.format('%s (%s)', r.rolname,
         pg_catalog.string_agg(p.rolname, ', ' ORDER BY p.rolname)),
            r.rolcanlogin
     FROM pg_catalog.pg_roles r
     JOIN pg_catalog.pg_roles p
       ON p.rolname IN ('pg_read_all_data', 'pg_write_all_data', 'pg_read_server_files',
           'pg_write_server_files',
                        'pg_execute_server_program', 'pg_maintain')
      AND pg_catalog.pg_has_role(r.oid, p.oid, 'MEMBER')
     WHERE NOT r.rolsuper AND r.rolname !~ '^pg_'
     GROUP BY r.rolname, r.rolcanlogin
     ORDER BY 1",
    &[],
);

// The default names a role that plain PostgreSQL does not have. Then nobody's claims count, which
// is no fault.
static TRUSTED_ROLES: Statement = Statement::new(
    "SELECT t.name || coalesce(' ' || w.why, ''), w.wrong
     FROM pg_catalog.string_to_table($1, ',') AS s (item)
     CROSS JOIN LATERAL (SELECT pg_catalog.btrim(s.item, E' \\t\\n\"')) AS t (name)
     LEFT JOIN pg_catalog.pg_roles r ON r.rolname = t.name
     CROSS JOIN LATERAL (
         SELECT CASE WHEN r.oid IS NULL THEN 'does not exist'
                     WHEN r.rolsuper THEN 'is a superuser'
                     WHEN EXISTS (SELECT FROM pg_catalog.pg_roles w
                                  WHERE w.rolname IN ('watchllm_service', 'watchllm_admin')
                                    AND pg_catalog.pg_has_role(r.oid, w.oid, 'USAGE'))
                         THEN 'has itself the privileges of watchllm_service or watchllm_admin' END,
                CASE WHEN r.oid IS NULL THEN pg_catalog.btrim($1, E' \\t\\n\"') <> 'authenticator'
                     ELSE r.rolsuper OR EXISTS (SELECT FROM pg_catalog.pg_roles w
                                                WHERE w.rolname IN ('watchllm_service',
                                                    'watchllm_admin')
                                                  AND pg_catalog.pg_has_role(r.oid, w.oid,
                                                      'USAGE')) END
     ) AS w (why, wrong)
     WHERE t.name <> ''
     ORDER BY 1",
    &[TEXT],
);

// install() grants only if all four of Supabase's roles exist.
static SUPABASE_ROLES: Statement = Statement::new(
    "SELECT pg_catalog.format('%s %s %s', r.rolname,
         CASE WHEN h.has THEN 'has' ELSE 'lacks' END, w.rolname),
            CASE WHEN w.rolname = x.wanted THEN NOT h.has AND a.here ELSE h.has END
     FROM (SELECT pg_catalog.count(*) = 4 AS here FROM pg_catalog.pg_roles r
           WHERE r.rolname IN ('anon', 'authenticated', 'service_role', 'authenticator')) a
     CROSS JOIN (VALUES ('authenticated', 'watchllm_tenant'), ('service_role', 'watchllm_service'),
         ('anon', ''))
         AS x (role, wanted)
     JOIN pg_catalog.pg_roles r ON r.rolname = x.role
     JOIN pg_catalog.pg_roles w
       ON w.rolname IN ('watchllm_owner', 'watchllm_admin', 'watchllm_service', 'watchllm_tenant',
           'watchllm_auditor')
     CROSS JOIN LATERAL (
         SELECT pg_catalog.pg_has_role(r.oid, w.oid, CASE
             WHEN w.rolname = x.wanted THEN 'USAGE' ELSE 'MEMBER' END)
     ) AS h (has)
     ORDER BY 1",
    &[],
);

/// Settings that write statements or parameters into the server log, and ours that keep keys out of
/// it: the values of new sessions
/// (reset_val), and those of ALTER ROLE and ALTER DATABASE. A library's setting counts even before
/// its library is loaded.
macro_rules! log_settings {
    ($values:literal) => {
        concat!(
            "WITH stated (place, name, value) AS (",
            $values,
            ") SELECT pg_catalog.format('%s = %s%s', s.name, s.value, s.place),
                CASE WHEN s.name = 'log_statement' THEN s.value <> 'none'
                     WHEN s.name IN ('log_min_duration_statement', 'log_min_duration_sample',
                                     'auto_explain.log_min_duration') THEN s.value !~ '^ *-'
                     WHEN s.name = 'log_transaction_sample_rate' THEN s.value ~ '[1-9]'
                     WHEN s.name = 'log_parameter_max_length_on_error'
                         THEN s.value !~ '^ *0+ *[a-zA-Z]*$'
                     WHEN s.name LIKE 'watchllm\\_keys.%' THEN pg_catalog.lower(s.value)
                         IN ('off', 'of', 'false', 'fals', 'fal', 'fa', 'f', 'no', 'n', '0')
                     WHEN s.name = 'pgaudit.log' THEN pg_catalog.lower(s.value) NOT IN ('', 'none')
                     ELSE pg_catalog.lower(s.value) NOT IN ('off', 'of', 'false', 'fals', 'fal',
                         'fa', 'f', 'no', 'n', '0')
                END
             FROM stated s
             WHERE s.name IN ('log_statement', 'log_min_duration_statement',
                 'log_min_duration_sample', 'log_transaction_sample_rate',
                 'log_parameter_max_length_on_error', 'auto_explain.log_min_duration',
                 'pgaudit.log', 'pgaudit.log_parameter', 'debug_print_parse',
                 'debug_print_rewritten',
                 'debug_print_plan', 'watchllm_keys.redact_server_log',
                 'watchllm_keys.hide_statements')
             ORDER BY 1"
        )
    };
}

static LOG_SETTINGS: Statement = Statement::new(
    log_settings!(
        "SELECT '', p.name, p.reset_val FROM pg_catalog.pg_settings p WHERE p.name !~ '[.]'
         UNION ALL
         SELECT '', l.name, pg_catalog.current_setting(l.name, true)
         FROM (VALUES ('auto_explain.log_min_duration'), ('pgaudit.log'),
             ('pgaudit.log_parameter'), ('watchllm_keys.redact_server_log'),
             ('watchllm_keys.hide_statements')) AS l (name)
         WHERE pg_catalog.current_setting(l.name, true) <> ''"
    ),
    &[],
);

static LOG_OVERRIDES: Statement = Statement::new(
    log_settings!(
        "SELECT coalesce(' for role ' || r.rolname, '') || coalesce(' in database ' || d.datname,
            ''),
                pg_catalog.split_part(c, '=', 1),
                    pg_catalog.substr(c, pg_catalog.strpos(c, '=') + 1)
         FROM pg_catalog.pg_db_role_setting o
         CROSS JOIN LATERAL pg_catalog.unnest(o.setconfig) c
         LEFT JOIN pg_catalog.pg_roles r ON r.oid = o.setrole
         LEFT JOIN pg_catalog.pg_database d ON d.oid = o.setdatabase
         WHERE o.setdatabase IN (0, (SELECT m.oid FROM pg_catalog.pg_database m
                                     WHERE m.datname = pg_catalog.current_database()))"
    ),
    &[],
);

/// The properties of `watchllm_owner`, its memberships, and who owns the objects of the schema.
pub(crate) fn owner_role() -> Vec<Seen> {
    seen(&OWNER_ROLE)
}

/// Superusers. Never wrong, because every server has one.
pub(crate) fn superusers() -> Vec<Seen> {
    seen(&SUPERUSERS)
}

/// Roles that bypass row-level security. Wrong: those that can log in.
pub(crate) fn bypassrls_roles() -> Vec<Seen> {
    seen(&BYPASSRLS)
}

/// Roles that may stream the WAL. Wrong: those that can log in.
pub(crate) fn replication_roles() -> Vec<Seen> {
    seen(&REPLICATION)
}

/// Roles that log in and may open keys. Wrong: others that were given EXECUTE on what opens them.
pub(crate) fn opening_roles() -> Vec<Seen> {
    seen(&OPENING)
}

/// Roles with CREATEROLE. Wrong: those that can log in, where they can grant themselves any role.
pub(crate) fn createrole_roles() -> Vec<Seen> {
    seen(&CREATEROLE)
}

/// Members of the predefined roles that reach tables or files. Wrong: those that can log in.
pub(crate) fn predefined_roles() -> Vec<Seen> {
    seen(&PREDEFINED)
}

/// The roles of `watchllm_keys.trusted_claim_roles`. Wrong: roles that are too powerful for this,
/// or do not exist.
pub(crate) fn trusted_roles(setting: &str) -> Vec<Seen> {
    TRUSTED_ROLES
        .read_as_caller(&[setting.into()], |row| Seen { what: value(row, 1), wrong: value(row, 2) })
}

/// The memberships of Supabase's roles in ours. Wrong: anything other than what `install()` grants.
pub(crate) fn supabase_roles() -> Vec<Seen> {
    seen(&SUPABASE_ROLES)
}

/// Settings of the server that write statements or parameters into its log.
pub(crate) fn log_settings() -> Vec<Seen> {
    seen(&LOG_SETTINGS)
}

/// The same settings of single roles and of this database.
pub(crate) fn log_overrides() -> Vec<Seen> {
    seen(&LOG_OVERRIDES)
}
