-- The five roles (docs/architecture.md#roles), created if missing, so that a dump restores into a
-- fresh cluster. Runs first in CREATE EXTENSION. Roles belong to the cluster, so an existing one is
-- kept as it is. An owner that can log in or bypasses row security would undo every wall, so it is
-- refused.

-- CREATE EXTENSION accepts a schema watchllm that somebody else made, and searches it for
-- operators. A better fitting operator there, = (oid, regclass), would run with a superuser's
-- rights. So no operator is looked up in it.
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
            NULL; -- another database of this cluster has created it at this moment
        END;
    END LOOP;

    SELECT r.* INTO STRICT owner_role FROM pg_catalog.pg_roles r WHERE r.rolname = 'watchllm_owner';
    IF owner_role.rolsuper OR owner_role.rolbypassrls OR owner_role.rolcanlogin
        OR owner_role.rolcreaterole OR owner_role.rolreplication
    THEN
        RAISE EXCEPTION 'role watchllm_owner has attributes it must not have'
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'unfit_owner_role',
            HINT = 'ALTER ROLE watchllm_owner NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEROLE NOREPLICATION;';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid = owner_role.oid) THEN
        RAISE EXCEPTION 'role watchllm_owner has members'
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'unfit_owner_role',
            HINT = 'It owns the tables of every key: REVOKE watchllm_owner from all its members.';
    END IF;
    IF EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.member = owner_role.oid) THEN
        RAISE EXCEPTION 'role watchllm_owner is a member of another role'
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'unfit_owner_role',
            HINT = 'It must have no rights but those on its own tables: REVOKE the other roles from watchllm_owner.';
    END IF;
END
$$;

COMMENT ON ROLE watchllm_owner IS
    'Owns the tables of watchllm_keys: cannot log in, has no members and no other rights.';
COMMENT ON ROLE watchllm_admin IS
    'Administers watchllm_keys: projects, settings, blocks, incidents; opens and changes keys of every project.';
COMMENT ON ROLE watchllm_service IS
    'For application backends: opens and changes provider keys of every project.';
COMMENT ON ROLE watchllm_tenant IS
    'For people of a project: changes its keys and reads its trail; opens none.';
COMMENT ON ROLE watchllm_auditor IS
    'Reads the trail, the incidents and the checks of watchllm_keys; opens and changes no key.';

-- The following functions are created in the extension's schema.
SET LOCAL search_path = watchllm, pg_temp;
