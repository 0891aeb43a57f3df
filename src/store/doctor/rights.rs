//! Checks grants, policies and functions, which anybody may read from the catalogs. The expected
//! state is that of docs/architecture.md#roles. PUBLIC and anon have nothing, nobody may write,
//! nobody may read envelopes, and search paths are fixed.

use super::{Seen, seen};
use crate::postgres::Statement;

// Another owner's function with a name of ours may fit a call better than ours ('…'::text against
// uuid). Then it gets the key. The same holds for an operator.
static SCHEMA: Statement = Statement::new(
    "WITH functions AS (
         SELECT p.oid, p.proname, p.proowner, EXISTS (
             SELECT FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
             WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid
                 AND d.deptype = 'e'
               AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
                   AND x.extname = 'watchllm_keys') AS ours
         FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'watchllm'::pg_catalog.regnamespace
     )
     SELECT pg_catalog.format('the schema belongs to %I', o.rolname), NOT o.rolsuper
     FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles o ON o.oid = n.nspowner
         WHERE n.nspname = 'watchllm'
     UNION ALL
     SELECT pg_catalog.format('%s may create in it',
         CASE WHEN e.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(e.grantee) END), true
     FROM pg_catalog.pg_namespace n CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) e
     WHERE n.nspname = 'watchllm' AND e.privilege_type = 'CREATE' AND e.grantee <> n.nspowner
       AND pg_catalog.pg_get_userbyid(e.grantee) <> 'watchllm_owner'
     UNION ALL
     SELECT pg_catalog.format('%s of %I is not the extension''s', f.oid::pg_catalog.regprocedure,
         o.rolname),
            NOT f.ours AND (NOT o.rolsuper OR EXISTS (
                SELECT FROM functions g WHERE g.ours AND g.proname = f.proname))
     FROM functions f JOIN pg_catalog.pg_roles o ON o.oid = f.proowner
     UNION ALL
     SELECT pg_catalog.format('operator %s of %I', p.oid::pg_catalog.regoperator, o.rolname),
         NOT o.rolsuper
     FROM pg_catalog.pg_operator p JOIN pg_catalog.pg_roles o ON o.oid = p.oprowner
     WHERE p.oprnamespace = 'watchllm'::pg_catalog.regnamespace
     ORDER BY 1",
    &[],
);

// redact() and redact_columns() hold no secret, so PUBLIC may call them.
static PUBLIC_GRANTS: Statement = Statement::new(
    "WITH strangers AS (
         SELECT 0::pg_catalog.oid AS oid, 'PUBLIC'::pg_catalog.name AS name
         UNION ALL
         SELECT r.oid, r.rolname FROM pg_catalog.pg_roles r WHERE r.rolname = 'anon'
     ), lists AS (
         SELECT 'schema watchllm' AS what,
             coalesce(n.nspacl, pg_catalog.acldefault('n', n.nspowner)) AS acl
         FROM pg_catalog.pg_namespace n WHERE n.nspname = 'watchllm'
         UNION ALL
         SELECT c.relname, coalesce(c.relacl,
             pg_catalog.acldefault(CASE c.relkind
                 WHEN 'S' THEN 's' ELSE 'r' END::pg_catalog.\"char\", c.relowner))
         FROM pg_catalog.pg_class c
         WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace
             AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S')
         UNION ALL
         SELECT pg_catalog.format('%I.%I', c.relname, a.attname), a.attacl
         FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
         WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace AND a.attacl IS NOT NULL
             AND NOT a.attisdropped
         UNION ALL
         SELECT p.proname || '()', coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))
         FROM pg_catalog.pg_proc p
         WHERE p.pronamespace = 'watchllm'::pg_catalog.regnamespace
             AND p.proname NOT IN ('redact', 'redact_columns')
     )
     SELECT coalesce(found.said, l.what), found.said IS NOT NULL
     FROM lists l
     LEFT JOIN LATERAL (
         SELECT pg_catalog.string_agg(pg_catalog.format('%s has %s on %s', s.name, e.privilege_type,
             l.what), ', ')
             AS said
         FROM pg_catalog.aclexplode(l.acl) e JOIN strangers s ON s.oid = e.grantee
     ) found ON true
     UNION ALL
     SELECT pg_catalog.format('policy %I on %I is for %s', p.polname, c.relname, s.name),
         s.name IS NOT NULL
     FROM pg_catalog.pg_policy p
     JOIN pg_catalog.pg_class c ON c.oid = p.polrelid
     LEFT JOIN strangers s ON s.oid = ANY (p.polroles)
     WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace
     ORDER BY 1",
    &[],
);

// USAGE and SELECT only read. Every other privilege changes, locks or attaches something.
static WRITE_GRANTS: Statement = Statement::new(
    "SELECT coalesce(found.said, l.what), found.said IS NOT NULL
     FROM (SELECT c.relname AS what, c.relacl AS acl, c.relowner AS owner
           FROM pg_catalog.pg_class c
           WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p')
           UNION ALL
           SELECT pg_catalog.format('%I.%I', c.relname, a.attname), a.attacl, c.relowner
           FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_class c ON c.oid = a.attrelid
           WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p')
             AND a.attacl IS NOT NULL AND NOT a.attisdropped) l
     LEFT JOIN LATERAL (
         SELECT pg_catalog.string_agg(pg_catalog.format('%s has %s on %s',
             CASE WHEN e.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(e.grantee) END,
             e.privilege_type, l.what), ', ') AS said
         FROM pg_catalog.aclexplode(l.acl) e
         WHERE e.grantee <> l.owner AND e.privilege_type <> 'SELECT'
     ) found ON true
     ORDER BY 1",
    &[],
);

// A reader needs a grant or pg_read_all_data, and also a policy or BYPASSRLS, to see a row.
static ENVELOPES: Statement = Statement::new(
    "WITH secret AS (
         SELECT c.oid, c.relname, c.relowner, c.relacl FROM pg_catalog.pg_class c
         WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p')
           AND c.relname IN ('provider_key_versions', 'master_keys', 'audit_keys')
     ), acls AS (
         SELECT s.relname::pg_catalog.text AS what, s.relacl AS acl, s.relowner FROM secret s
         UNION ALL
         SELECT pg_catalog.format('%I.%I', s.relname, a.attname), a.attacl, s.relowner
         FROM secret s JOIN pg_catalog.pg_attribute a ON a.attrelid = s.oid AND a.attacl IS NOT NULL
     )
     SELECT s.relname::pg_catalog.text, false FROM secret s
     UNION ALL
     SELECT pg_catalog.format('%s has %s on %s',
         CASE WHEN e.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.pg_get_userbyid(e.grantee) END,
         e.privilege_type, a.what), true
     FROM acls a CROSS JOIN LATERAL pg_catalog.aclexplode(a.acl) e
     WHERE e.grantee <> a.relowner AND e.privilege_type = 'SELECT'
     UNION ALL
     SELECT pg_catalog.format('policy %I on %I', p.polname, s.relname), true
     FROM pg_catalog.pg_policy p JOIN secret s ON s.oid = p.polrelid
     UNION ALL
     SELECT pg_catalog.format('%I passes by row security and reads %I', r.rolname, s.relname), true
     FROM pg_catalog.pg_roles r CROSS JOIN secret s
     WHERE r.rolbypassrls AND NOT r.rolsuper
         AND pg_catalog.has_any_column_privilege(r.oid, s.oid, 'SELECT')
     ORDER BY 1",
    &[],
);

// A procedure with SET cannot COMMIT, so ours write every name in full instead. A body that was
// resolved when its function was made looks nothing up.
static EXTENSION_FUNCTIONS: Statement = Statement::new(
    "SELECT pg_catalog.format('%s %s', p.oid::pg_catalog.regprocedure,
            CASE WHEN p.prosecdef THEN 'is SECURITY DEFINER' ELSE 'has no fixed search_path' END),
            p.prosecdef OR (p.prokind <> 'p' AND p.prosqlbody IS NULL AND NOT EXISTS (
                SELECT FROM pg_catalog.unnest(p.proconfig) c
                WHERE c ~ '^search_path=\"?pg_catalog\"?, *\"?pg_temp\"?$'))
     FROM pg_catalog.pg_extension x
     JOIN pg_catalog.pg_depend d
       ON d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = x.oid
           AND d.deptype = 'e'
      AND d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass
     JOIN pg_catalog.pg_proc p ON p.oid = d.objid
     WHERE x.extname = 'watchllm_keys'
     ORDER BY 1",
    &[],
);

// Superusers have the privileges of every role, so their functions are included.
static DEFINER_FUNCTIONS: Statement = Statement::new(
    "SELECT pg_catalog.format('%s of %I', p.oid::pg_catalog.regprocedure, o.rolname),
            NOT EXISTS (SELECT FROM pg_catalog.unnest(p.proconfig) c WHERE c ~ '^search_path=')
            AND EXISTS (
                SELECT FROM pg_catalog.aclexplode(coalesce(p.proacl,
                    pg_catalog.acldefault('f', p.proowner))) e
                WHERE e.grantee <> p.proowner AND e.privilege_type = 'EXECUTE')
     FROM pg_catalog.pg_proc p
     JOIN pg_catalog.pg_roles o ON o.oid = p.proowner
     JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
     WHERE p.prosecdef AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'watchllm')
       AND EXISTS (
           SELECT FROM pg_catalog.pg_roles w
           WHERE w.rolname IN ('watchllm_service', 'watchllm_admin')
               AND pg_catalog.pg_has_role(o.oid, w.oid, 'USAGE'))
     ORDER BY 1",
    &[],
);

/// The schema, its functions and operators. Wrong: objects that another role created, or could
/// create.
pub(crate) fn schema() -> Vec<Seen> {
    seen(&SCHEMA)
}

/// Everything in schema watchllm that can be granted, and its policies. Wrong: what PUBLIC or anon
/// has.
pub(crate) fn public_grants() -> Vec<Seen> {
    seen(&PUBLIC_GRANTS)
}

/// Tables and granted columns. Wrong: privileges beyond reading for anybody but the owner.
pub(crate) fn write_grants() -> Vec<Seen> {
    seen(&WRITE_GRANTS)
}

/// The tables that hold ciphertext. Wrong: any role that can read one, and any policy on one.
pub(crate) fn envelopes() -> Vec<Seen> {
    seen(&ENVELOPES)
}

/// Functions of the extension. Wrong: SECURITY DEFINER, or a search_path that the caller chooses.
pub(crate) fn extension_functions() -> Vec<Seen> {
    seen(&EXTENSION_FUNCTIONS)
}

/// SECURITY DEFINER functions of the database whose owners may open keys. Wrong: functions that
/// others may call and whose search_path those others choose.
pub(crate) fn definer_functions() -> Vec<Seen> {
    seen(&DEFINER_FUNCTIONS)
}
