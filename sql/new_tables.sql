-- Run by install() after migrations, before anybody can see the tables that they made: what default privileges handed
-- out at their creation is taken back. A table that belongs to watchllm_owner is not new, and keeps what people granted.

DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT DISTINCT c.relname, a.grantee, g.rolname
        FROM pg_catalog.pg_class c
        CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
        LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
        WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace
          AND c.relkind IN ('r', 'p')
          AND c.relowner <> 'watchllm_owner'::pg_catalog.regrole
          AND a.grantee <> c.relowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON TABLE watchllm.%I FROM %s CASCADE', granted.relname,
            CASE WHEN granted.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(granted.rolname) END);
    END LOOP;
END
$$;
