-- Takes back what default privileges gave out when migrations made tables. install() runs it after
-- them, before anybody can see the new tables. A table of watchllm_owner is not new: it keeps what
-- people granted.

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
