-- The roles of a self-hosted Supabase, on a plain server and idempotent: who PostgREST connects as, who its requests act
-- as, and the default privileges that grant whatever is made later to all of them by name.

DO $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('anon',          'NOLOGIN INHERIT NOBYPASSRLS'),
            ('authenticated', 'NOLOGIN INHERIT NOBYPASSRLS'),
            ('service_role',  'NOLOGIN INHERIT BYPASSRLS'),
            -- NOINHERIT: it has none of their rights until it takes a role
            ('authenticator', 'LOGIN NOINHERIT NOBYPASSRLS')) AS roles (name, attributes)
    LOOP
        IF pg_catalog.to_regrole(wanted.name) IS NULL THEN
            EXECUTE pg_catalog.format('CREATE ROLE %I %s', wanted.name, wanted.attributes);
        END IF;
    END LOOP;
END
$$;

GRANT anon, authenticated, service_role TO authenticator;
GRANT USAGE ON SCHEMA public TO anon, authenticated, service_role;

-- Supabase says so for schema public; its guide to schemas of one's own tells people to say so for those too. Here it
-- is said for all schemas at once, so that a grant which we forget to revoke shows.
ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT ALL ON TABLES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT ALL ON ROUTINES TO anon, authenticated, service_role;
ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT ALL ON SEQUENCES TO anon, authenticated, service_role;
