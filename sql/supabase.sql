-- Supabase and PostgREST. If all four of their roles exist, signed-in users become tenants and the
-- service key becomes a service. Every install() runs this, so the roles may come before or after
-- the extension. Supabase's guides to custom schemas grant USAGE and ALL ON ALL ROUTINES by name.
-- Those grants are taken back here, because they would let anybody reach our functions.

DO $$
DECLARE
    anon     CONSTANT name := 'anon';
    theirs   CONSTANT name[] := ARRAY['anon', 'authenticated', 'service_role'];
    wanted   record;
    granted  record;
BEGIN
    FOR granted IN
        SELECT DISTINCT p.oid::pg_catalog.regprocedure AS signature,
               CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(g.rolname) END AS grantee
        FROM pg_catalog.pg_proc p
        CROSS JOIN LATERAL pg_catalog.aclexplode(
            coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner))) a
        LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
        WHERE p.pronamespace = 'watchllm'::pg_catalog.regnamespace
          AND p.proname NOT IN ('redact', 'redact_columns')
          AND (a.grantee = 0 OR g.rolname = ANY (theirs))
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM %s', granted.signature, granted.grantee);
    END LOOP;

    FOR granted IN
        SELECT DISTINCT CASE WHEN a.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(g.rolname) END AS grantee
        FROM pg_catalog.pg_namespace n
        CROSS JOIN LATERAL pg_catalog.aclexplode(n.nspacl) a
        LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
        WHERE n.nspname = 'watchllm' AND (a.grantee = 0 OR g.rolname = anon)
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON SCHEMA watchllm FROM %s', granted.grantee);
    END LOOP;

    IF 4 > (SELECT pg_catalog.count(*) FROM pg_catalog.pg_roles r
            WHERE r.rolname = 'authenticator' OR r.rolname = ANY (theirs))
    THEN
        RETURN;
    END IF;
    FOR wanted IN
        SELECT w.role, w.member
        FROM (VALUES ('watchllm_tenant'::name, 'authenticated'::name), ('watchllm_service', 'service_role'))
            AS w (role, member)
        WHERE NOT EXISTS (
            SELECT FROM pg_catalog.pg_auth_members m
            WHERE m.roleid = pg_catalog.quote_ident(w.role)::pg_catalog.regrole
              AND m.member = pg_catalog.quote_ident(w.member)::pg_catalog.regrole)
    LOOP
        EXECUTE pg_catalog.format('GRANT %I TO %I', wanted.role, wanted.member);
        RAISE NOTICE 'watchllm_keys: role % granted to %', wanted.role, wanted.member;
    END LOOP;
END
$$;
