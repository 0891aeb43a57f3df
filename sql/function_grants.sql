-- Who may execute what, in one table, and what each Rust function is for. Runs last in CREATE
-- EXTENSION, in every upgrade script and in every install(), which so gives back what a REVOKE
-- took. security_check() reads the same table (src/store/doctor/granted.rs). It changes nothing
-- that is right already. A function of the extension without a line here stops the script. So no
-- function keeps the EXECUTE that PostgreSQL gives to PUBLIC, or that default privileges give to
-- others. Names of later versions may stand here early. Comments are the first sentence of the
-- documentation in src/api.

-- No operator is looked up in the schema (roles.sql says why).
SET LOCAL search_path = pg_catalog, pg_temp;

DO $$
DECLARE
    nobody   CONSTANT text[] := '{}'; -- the superuser who owns it
    owner    CONSTANT text[] := '{watchllm_owner}';
    admin    CONSTANT text[] := '{watchllm_admin}';
    backend  CONSTANT text[] := '{watchllm_admin,watchllm_service}';
    -- Tenants may call what they may not do (decrypt), so that their attempts are refused and
    -- recorded.
    callers  CONSTANT text[] := '{watchllm_admin,watchllm_service,watchllm_tenant}';
    auditors CONSTANT text[] := '{watchllm_admin,watchllm_auditor}';
    staff    CONSTANT text[] := '{watchllm_admin,watchllm_service,watchllm_auditor}';
    -- Monitoring asks how the vault is, and reads nothing else.
    monitors CONSTANT text[] := '{watchllm_admin,watchllm_service,watchllm_auditor,pg_monitor}';
    readers  CONSTANT text[] := '{watchllm_admin,watchllm_service,watchllm_tenant,watchllm_auditor}';
    -- Who may read the trail, with the rights of the caller. The owner is one, because functions
    -- ask in its name.
    watchers CONSTANT text[] := '{watchllm_admin,watchllm_tenant,watchllm_auditor,watchllm_owner}';
    anybody  CONSTANT text[] := '{public}';
    item    record;
    role    text;
    strange text;
BEGIN
    FOR item IN
        WITH grants (name, roles) AS (VALUES
            -- installation
            ('install',                          nobody),
            ('status',                           monitors),
            ('security_check',                   auditors),
            ('accept_finding',                   admin),
            ('reload_keyring',                   admin),
            ('refuse_change',                    owner),
            ('make_log_partition',               owner),
            -- projects
            ('create_project',                   admin),
            ('add_project_member',               admin),
            ('remove_project_member',            admin),
            ('delete_project',                   admin),
            ('adopt_projects',                   admin),
            ('follow_projects',                  nobody),
            ('store_from_inbox',                 nobody),
            ('current_project_ids',              readers),
            -- provider keys
            ('store_provider_key',               callers),
            ('decrypt_provider_key',             callers),
            ('decrypt_provider_key_text',        callers),
            ('decrypt_provider_key_by_name',     callers),
            ('decrypt_provider_keys',            callers),
            ('resolve_provider_key',             callers),
            ('validate_provider_key',            callers),
            ('rotate_provider_key',              callers),
            ('rollback_provider_key',            callers),
            ('set_provider_key_active',          callers),
            ('update_provider_key',              callers),
            ('delete_provider_key',              callers),
            ('import_watchllm_keys',             admin),
            -- master keys
            ('rotate_master_key',                admin),
            ('rewrap_provider_keys',             admin),
            ('retire_master_key',                admin),
            -- the audit trail
            ('key_access_history',               readers),
            ('failed_access_attempts',           readers),
            ('verify_audit_chain',               auditors),
            ('audit_digest',                     auditors),
            ('export_access_logs',               admin),
            ('prune_access_logs',                admin),
            ('adopt_database',                   admin),
            ('who_can_decrypt',                  auditors),
            ('compliance_report',                auditors),
            -- the watch
            ('detect_unusual_key_access',        readers),
            ('check_key_rotation_requirements',  readers),
            ('first_read',                       watchers),
            ('lowest_setting',                   watchers),
            ('counts_as',                        watchers),
            ('key_access_rates',                 watchers),
            ('key_access_episodes',              watchers),
            ('key_newcomers',                    watchers),
            ('a detector',                       watchers),
            ('key_access_anomalies',             watchers),
            ('acknowledge_incident',             admin),
            ('block_provider_key',               admin),
            ('unblock_provider_key',             admin),
            ('unblock_caller',                   admin),
            ('set_setting',                      admin),
            ('effective_setting',                readers),
            -- keys in text; the first two hold no secret and work in anybody's generated column or
            -- trigger
            ('redact',                           anybody),
            ('redact_columns',                   anybody),
            ('find_keys',                        staff),
            ('scan_table_for_leaks',             auditors),
            ('scan_server_log',                  admin),
            ('scan_database_for_leaks',          auditors),
            ('report_leaked_key',                backend)
        -- Of the extension; without one (plain SQL in a laboratory), everything in the schema.
        -- A detector is known by its name and its columns.
        ), members AS (
            SELECT p.oid, p.proowner, p.pronamespace,
                   coalesce(p.proacl, pg_catalog.acldefault('f', p.proowner)) AS acl,
                   CASE WHEN p.proname LIKE 'detect\_%' AND p.prorettype = 'record'::pg_catalog.regtype
                             AND p.proargnames[3:5] = '{detector,severity,project_id}'
                        THEN 'a detector' ELSE p.proname END AS name,
                   pg_catalog.format('%I.%I(%s)', n.nspname, p.proname,
                       pg_catalog.pg_get_function_identity_arguments(p.oid)) AS signature
            FROM pg_catalog.pg_proc p
            JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
            LEFT JOIN pg_catalog.pg_extension x ON x.extname = 'watchllm_keys'
            WHERE CASE WHEN x.oid IS NULL THEN n.nspname = 'watchllm' ELSE EXISTS (
                SELECT FROM pg_catalog.pg_depend d
                WHERE d.classid = 'pg_catalog.pg_proc'::pg_catalog.regclass AND d.objid = p.oid AND d.objsubid = 0
                  AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.refobjid = x.oid
                  AND d.deptype = 'e') END
        )
        SELECT m.*, g.roles FROM members m LEFT JOIN grants g ON g.name = m.name
        ORDER BY m.signature
    LOOP
        IF item.roles IS NULL THEN
            strange := pg_catalog.concat_ws(', ', strange, item.signature);
            CONTINUE;
        END IF;

        FOR role IN
            SELECT coalesce(pg_catalog.quote_ident(r.rolname), 'PUBLIC')
            FROM pg_catalog.aclexplode(item.acl) e
            LEFT JOIN pg_catalog.pg_roles r ON r.oid = e.grantee
            WHERE e.grantee <> item.proowner
              AND (coalesce(r.rolname, 'public') <> ALL (item.roles) OR e.is_grantable)
              AND (e.grantee = 0
                   OR r.rolname IN ('anon', 'authenticated', 'service_role', 'watchllm_owner', 'watchllm_admin',
                                    'watchllm_service', 'watchllm_tenant', 'watchllm_auditor')
                   OR EXISTS ( -- the creator's default privileges gave it
                       SELECT FROM pg_catalog.pg_default_acl a
                       CROSS JOIN LATERAL pg_catalog.aclexplode(a.defaclacl) d
                       WHERE a.defaclrole = item.proowner AND a.defaclobjtype = 'f'
                         AND a.defaclnamespace IN (0::pg_catalog.oid, item.pronamespace)
                         AND d.grantee = e.grantee))
        LOOP
            EXECUTE pg_catalog.format('REVOKE ALL ON ROUTINE %s FROM %s', item.signature, role);
        END LOOP;
        FOR role IN
            SELECT w.role FROM pg_catalog.unnest(item.roles) AS w (role)
            WHERE NOT EXISTS (
                SELECT FROM pg_catalog.aclexplode(item.acl) e
                LEFT JOIN pg_catalog.pg_roles r ON r.oid = e.grantee
                WHERE e.privilege_type = 'EXECUTE' AND NOT e.is_grantable
                  AND (CASE WHEN e.grantee = 0 THEN 'public' ELSE r.rolname END) = w.role)
        LOOP
            EXECUTE pg_catalog.format('GRANT EXECUTE ON ROUTINE %s TO %s', item.signature,
                CASE WHEN role = 'public' THEN 'PUBLIC' ELSE pg_catalog.quote_ident(role) END);
        END LOOP;
    END LOOP;

    IF strange IS NOT NULL THEN
        RAISE EXCEPTION 'functions of watchllm_keys without a line in function_grants.sql: %', strange
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'internal',
            HINT = 'Give each of them a line: its name, and the roles that may execute it.';
    END IF;
END
$$;

COMMENT ON FUNCTION watchllm.install IS
    'Creates or migrates the tables, policies, views and grants of watchllm_keys; can be run again. Superuser only.';
COMMENT ON FUNCTION watchllm.status IS
    'Shows the state of the vault in this database: one row, also when something is missing.';
COMMENT ON FUNCTION watchllm.security_check IS
    'Checks everything that the vault''s promises rest on: a row per check, with a hint for what is wrong.';
COMMENT ON FUNCTION watchllm.accept_finding IS
    'Accepts what a check of security_check() finds now, until a date; a finding that says anything else is not accepted.';
COMMENT ON FUNCTION watchllm.reload_keyring IS
    'Loads the keyring anew and answers how many versions of the master key can be used.';
COMMENT ON FUNCTION watchllm.current_project_ids IS
    'Lists the projects that are the caller''s own, by the subject of trusted JWT claims or by role; for policies.';
COMMENT ON FUNCTION watchllm.create_project IS
    'Creates a project (tenant) and answers its id; owner_id is the JWT sub of its owner.';
COMMENT ON FUNCTION watchllm.delete_project IS
    'Deletes a project: deletes each of its keys, keeps the project''s row and its audit trail.';
COMMENT ON FUNCTION watchllm.adopt_projects IS
    'Adopts an application''s projects table: feeds projects from it and keeps them in step by triggers on it. Superuser only.';
COMMENT ON FUNCTION watchllm.follow_projects IS
    'Internal. Keeps projects in step with an adopted table; trigger function, of no use on any other table.';
COMMENT ON FUNCTION watchllm.set_setting IS
    'Sets a setting of a database, a project or a key in place of the server''s; NULL takes it back.';
COMMENT ON FUNCTION watchllm.lowest_setting IS
    'Internal. Tells the lowest limit or age that holds for any key the caller may see; for the detectors.';
COMMENT ON FUNCTION watchllm.effective_setting IS
    'Tells the setting that holds for a key, a project or the database: its own, the next wider one''s, or the server''s.';
COMMENT ON FUNCTION watchllm.block_provider_key IS
    'Blocks a provider key: nobody opens it until it is unblocked; the note is kept with its last incident.';
COMMENT ON FUNCTION watchllm.unblock_caller IS
    'Unblocks a caller that the watch blocked: a role, the subject of trusted claims or an address.';
COMMENT ON FUNCTION watchllm.unblock_provider_key IS
    'Unblocks a provider key: within a second it opens again; the note is kept with its last incident.';
COMMENT ON FUNCTION watchllm.find_keys IS
    'Finds the keys in a text, by known shapes and by the fingerprints of those that are stored here; never answers one.';
COMMENT ON FUNCTION watchllm.redact_columns IS
    'Masks keys in the columns that the trigger names before a row is stored, and raises an incident; trigger function, for any table.';
COMMENT ON FUNCTION watchllm.scan_table_for_leaks IS
    'Scans a table for keys in its columns of type text, varchar, json and jsonb; a row per key and column, read as the caller.';
COMMENT ON FUNCTION watchllm.scan_server_log IS
    'Scans the server''s log files that were modified since a time back from now for keys; a row per key and file.';
COMMENT ON FUNCTION watchllm.scan_database_for_leaks IS
    'Scans the database''s definitions that the caller may read for keys; a row per key and place.';
COMMENT ON FUNCTION watchllm.store_from_inbox IS
    'Internal. Stores the key of a row that is inserted into provider_key_inbox; trigger function, of no use on anything else.';
COMMENT ON FUNCTION watchllm.acknowledge_incident IS
    'Acknowledges an incident: somebody has looked at it, and says so in a note; it leaves open_incidents.';
COMMENT ON FUNCTION watchllm.report_leaked_key IS
    'Reports that a key has leaked: marks every version it is as compromised, raises an incident, blocks the key if asked to.';
COMMENT ON FUNCTION watchllm.add_project_member IS
    'Adds a member to a project: a JWT sub or a database role, exactly one of them.';
COMMENT ON FUNCTION watchllm.remove_project_member IS
    'Removes a member from a project; a member that is not there is refused.';
COMMENT ON FUNCTION watchllm.store_provider_key IS
    'Stores a provider key: seals it and answers its id. The change is recorded before it commits.';
COMMENT ON FUNCTION watchllm.decrypt_provider_key IS
    'Opens a provider key: answers its plaintext once the access is durably recorded.';
COMMENT ON FUNCTION watchllm.decrypt_provider_key_text IS
    'As decrypt_provider_key, for drivers that bind an id as text.';
COMMENT ON FUNCTION watchllm.decrypt_provider_key_by_name IS
    'Opens a provider key by its name, which is unique among the keys of a project and provider.';
COMMENT ON FUNCTION watchllm.decrypt_provider_keys IS
    'Opens many provider keys with one durable wait: a row per id, in input order; a key that does not open has its reason.';
COMMENT ON FUNCTION watchllm.resolve_provider_key IS
    'Opens the first key of a provider that opens, by priority; blocked and damaged ones are passed over and recorded.';
COMMENT ON FUNCTION watchllm.validate_provider_key IS
    'Verifies that a provider key opens and is the one that was stored; false when its envelope is damaged.';
COMMENT ON FUNCTION watchllm.rotate_provider_key IS
    'Rotates a provider key: seals the new vendor key as the next version and answers its number.';
COMMENT ON FUNCTION watchllm.rollback_provider_key IS
    'Rolls a provider key back to an earlier version that opens and is not compromised, and answers its number.';
COMMENT ON FUNCTION watchllm.set_provider_key_active IS
    'Switches a provider key on or off; one that is off is not opened.';
COMMENT ON FUNCTION watchllm.update_provider_key IS
    'Changes name, priority and rotation interval of a provider key; what is NULL stays.';
COMMENT ON FUNCTION watchllm.delete_provider_key IS
    'Deletes a provider key: destroys the envelopes of all its versions, keeps its metadata and audit trail.';
COMMENT ON FUNCTION watchllm.import_watchllm_keys IS
    'Imports the rows of WatchLLM''s provider_keys under their ids, each opened with the old secret and sealed anew.';
COMMENT ON FUNCTION watchllm.key_access_history IS
    'Shows the last accesses of a provider key, the newest first.';
COMMENT ON FUNCTION watchllm.failed_access_attempts IS
    'Shows refused and failed accesses since a time back from now, the newest first, at most 10,000.';
COMMENT ON FUNCTION watchllm.detect_unusual_key_access IS
    'Judges how a provider key was used in the last hours: whether a limit was crossed, and in words which.';
COMMENT ON FUNCTION watchllm.redact(text) IS
    'Masks provider keys in a text: their public prefix stays, the rest becomes ...[REDACTED].';
COMMENT ON FUNCTION watchllm.redact(text, text[]) IS
    'Masks provider keys in a text, and whatever matches one of the patterns.';
COMMENT ON FUNCTION watchllm.redact(jsonb) IS
    'Masks provider keys in a JSON document, in names and strings.';
