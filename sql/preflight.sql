-- What install() refuses before it touches anything: a database it cannot serve, and a schema or
-- names in it that somebody else holds. Another role's table, trigger or rule would run with the
-- rights of our writes.

DO $$
DECLARE
    ours CONSTANT jsonb := '{
        "install_history": "r", "adopted_tables": "r", "projects": "r", "project_members": "r", "provider_key_records": "r",
        "provider_key_versions": "r", "provider_key_usage": "r", "provider_key_access_logs": "p",
        "committed_changes": "r", "audit_checkpoints": "r", "database_identity": "r", "master_keys": "r",
        "audit_keys": "r", "settings": "r", "security_incidents": "r", "incident_events": "r", "caller_peaks": "r",
        "provider_key_callers": "r", "blocked_callers": "r", "leak_marks": "r", "accepted_findings": "r",
        "provider_keys": "v", "access_logs": "v", "open_incidents": "v",
        "key_access_rates": "v", "key_access_anomalies": "v", "provider_key_security_summary": "v",
        "provider_key_inbox": "v"}';
    ours_or_partition CONSTANT text := '^provider_key_access_logs_[0-9]{8}$';
    owner_role pg_catalog.pg_roles%ROWTYPE;
    other record;
BEGIN
    IF pg_catalog.getdatabaseencoding() <> 'UTF8' THEN
        RAISE EXCEPTION 'database encoding is %, watchllm_keys needs UTF8', pg_catalog.getdatabaseencoding()
            USING ERRCODE = 'feature_not_supported', DETAIL = 'not_utf8',
            HINT = 'Create the database with ENCODING ''UTF8'' TEMPLATE template0.';
    END IF;

    SELECT r.* INTO owner_role FROM pg_catalog.pg_roles r WHERE r.rolname = 'watchllm_owner';
    IF NOT FOUND THEN
        RAISE EXCEPTION 'role watchllm_owner does not exist'
            USING ERRCODE = 'undefined_object', DETAIL = 'unfit_owner_role',
            HINT = 'CREATE ROLE watchllm_owner NOLOGIN; it was made by CREATE EXTENSION and dropped since.';
    END IF;
    IF owner_role.rolsuper OR owner_role.rolbypassrls OR owner_role.rolcanlogin
        OR owner_role.rolcreaterole OR owner_role.rolreplication
    THEN
        RAISE EXCEPTION 'role watchllm_owner has attributes it must not have'
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'unfit_owner_role',
            HINT = 'ALTER ROLE watchllm_owner NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOREPLICATION;';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE owner_role.oid IN (m.roleid, m.member)) THEN
        RAISE EXCEPTION 'role watchllm_owner has members or is a member of another role'
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'unfit_owner_role',
            HINT = 'It owns the tables of every key and nothing else: revoke these memberships.';
    END IF;

    SELECT o.rolname, o.rolsuper INTO STRICT other
    FROM pg_catalog.pg_namespace n JOIN pg_catalog.pg_roles o ON o.oid = n.nspowner
    WHERE n.nspname = 'watchllm';
    IF NOT other.rolsuper THEN
        RAISE EXCEPTION 'schema watchllm belongs to %, who is no superuser', other.rolname
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'unfit_schema',
            HINT = 'ALTER SCHEMA watchllm OWNER TO a superuser, after looking at what is in it.';
    END IF;
    SELECT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE g.rolname END AS grantee INTO other
    FROM pg_catalog.pg_namespace n
    CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) a
    LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
    WHERE n.nspname = 'watchllm' AND a.privilege_type = 'CREATE' AND a.grantee NOT IN (n.nspowner, owner_role.oid)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'others can create objects in schema watchllm: %', other.grantee
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'unfit_schema',
            HINT = pg_catalog.format('REVOKE CREATE ON SCHEMA watchllm FROM %s; then look at what is in it.',
                CASE WHEN other.grantee = 'PUBLIC' THEN 'PUBLIC' ELSE pg_catalog.quote_ident(other.grantee) END);
    END IF;

    -- A role that could create here before may have left an operator, or a function that fits a
    -- call better than ours.
    SELECT x.signature, o.rolname INTO other
    FROM (
        SELECT p.oid::pg_catalog.regprocedure::text AS signature, p.proowner AS owner
        FROM pg_catalog.pg_proc p WHERE p.pronamespace = 'watchllm'::pg_catalog.regnamespace
        UNION ALL
        SELECT 'operator ' || p.oid::pg_catalog.regoperator::text, p.oprowner
        FROM pg_catalog.pg_operator p WHERE p.oprnamespace = 'watchllm'::pg_catalog.regnamespace
    ) x
    JOIN pg_catalog.pg_roles o ON o.oid = x.owner
    WHERE NOT o.rolsuper AND o.rolname <> 'watchllm_owner'
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% is not ours: % owns it', other.signature, other.rolname
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'not_ours',
            HINT = 'It would be called instead of a function of watchllm_keys: look at it, then drop it.';
    END IF;

    SELECT x.name, o.rolname, x.expected INTO other
    FROM (
        SELECT c.relname AS name, c.relowner AS owner,
               c.relkind = coalesce(ours ->> c.relname, 'r') AS expected
        FROM pg_catalog.pg_class c
        WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace
        UNION ALL
        SELECT t.typname, t.typowner, t.typrelid <> 0
        FROM pg_catalog.pg_type t
        WHERE t.typnamespace = 'watchllm'::pg_catalog.regnamespace
    ) x
    JOIN pg_catalog.pg_roles o ON o.oid = x.owner
    WHERE (ours ? x.name OR x.name ~ ours_or_partition)
      AND (o.rolname NOT IN ('watchllm_owner', CURRENT_USER) OR NOT x.expected)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'watchllm.% is not ours: % owns it%', other.name, other.rolname,
            CASE WHEN other.expected THEN '' ELSE ', and it is of another kind' END
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'not_ours',
            HINT = 'install() takes over nothing that somebody else made: look at it, then drop or rename it. '
                'After REASSIGN OWNED, or a restore without owners, give it back to watchllm_owner: '
                'see docs/backup.md#without-owners.';
    END IF;

    SELECT c.relname, x.kind, x.name INTO other
    FROM pg_catalog.pg_class c
    CROSS JOIN LATERAL (
        SELECT 'trigger' AS kind, t.tgname AS name
        FROM pg_catalog.pg_trigger t
        JOIN pg_catalog.pg_proc p ON p.oid = t.tgfoid
        WHERE t.tgrelid = c.oid AND NOT t.tgisinternal
          AND (p.proname <> 'refuse_change' OR p.pronamespace <> c.relnamespace)
        UNION ALL
        SELECT 'rule', r.rulename FROM pg_catalog.pg_rewrite r WHERE r.ev_class = c.oid
    ) x
    WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace
      AND c.relkind IN ('r', 'p')
      AND (ours ? c.relname OR c.relname ~ ours_or_partition)
    LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '% % on watchllm.% is not ours', other.kind, other.name, other.relname
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'not_ours',
            HINT = pg_catalog.format(
                'Whatever it does would run with the rights of our writes: DROP %s %I ON watchllm.%I;',
                pg_catalog.upper(other.kind), other.name, other.relname);
    END IF;
END
$$;
