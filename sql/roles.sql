-- The five roles (DESIGN §5), made where missing so that a dump restores into a fresh cluster. Runs first in CREATE
-- EXTENSION. Roles belong to the cluster: an existing one is kept as it is, but an owner that somebody can log in as,
-- or that passes by row security, would undo every wall, so it is refused.

-- CREATE EXTENSION takes a schema watchllm that somebody else made before, and looks in it for operators that fit better
-- than PostgreSQL's own: = (oid, regclass) there would run with a superuser's rights. So none is looked for.
SET LOCAL search_path = pg_catalog, pg_temp;

DO $$
DECLARE
    wanted name;
    owner_role pg_catalog.pg_roles%ROWTYPE;
BEGIN
    FOREACH wanted IN ARRAY ARRAY[
        'watchllm_owner', 'watchllm_admin', 'watchllm_service', 'watchllm_tenant',
        'watchllm_auditor']::pg_catalog.name[]
    LOOP
        CONTINUE WHEN EXISTS (SELECT FROM pg_catalog.pg_roles r WHERE r.rolname = wanted);
        BEGIN
            EXECUTE pg_catalog.format(
                'CREATE ROLE %I NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS', wanted);
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- another database of this cluster made it in this very moment
        END;
    END LOOP;

    SELECT r.* INTO STRICT owner_role FROM pg_catalog.pg_roles r WHERE r.rolname = 'watchllm_owner';
    IF owner_role.rolsuper OR owner_role.rolbypassrls OR owner_role.rolcanlogin
        OR owner_role.rolcreaterole OR owner_role.rolreplication
    THEN
        RAISE EXCEPTION 'role watchllm_owner has attributes it must not have'
            USING ERRCODE = 'insufficient_privilege',
            HINT = 'ALTER ROLE watchllm_owner NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOREPLICATION;';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid = owner_role.oid) THEN
        RAISE EXCEPTION 'role watchllm_owner has members'
            USING ERRCODE = 'insufficient_privilege',
            HINT = 'It owns the tables of every key: REVOKE watchllm_owner from all its members.';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = owner_role.oid) THEN
        RAISE EXCEPTION 'role watchllm_owner is a member of another role'
            USING ERRCODE = 'insufficient_privilege',
            HINT = 'It must have no rights but those on its own tables: REVOKE the other roles from watchllm_owner.';
    END IF;
END
$$;

-- The functions that follow are made in the extension's schema.
SET LOCAL search_path = watchllm, pg_temp;
