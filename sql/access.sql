-- Who owns, reaches and may change what: ownership, row level security, append-only triggers,
-- grants and policies. Idempotent, run by every install(). It changes nothing that is right
-- already, because ALTER TABLE and CREATE TRIGGER lock out readers or writers even if they change
-- nothing. No role gets INSERT, UPDATE, DELETE or TRUNCATE (docs/architecture.md#roles).

DO $$
DECLARE
    tables CONSTANT name[] := ARRAY[
        'install_history', 'adopted_tables', 'projects', 'project_members', 'provider_key_records', 'provider_key_versions',
        'provider_key_usage', 'provider_key_access_logs', 'committed_changes', 'audit_checkpoints',
        'database_identity', 'master_keys', 'audit_keys', 'settings', 'security_incidents', 'incident_events',
        'caller_peaks', 'provider_key_callers', 'blocked_callers', 'incident_sources', 'leak_marks',
        'accepted_findings'];
    append_only CONSTANT name[] := ARRAY[
        'install_history', 'provider_key_access_logs', 'committed_changes', 'audit_checkpoints', 'audit_keys',
        'database_identity', 'security_incidents', 'incident_events', 'accepted_findings'];
    item    record;
    trigger record;
    grantee text;
BEGIN
    FOR item IN
        -- The trail comes before its partitions: its row trigger is cloned to them.
        SELECT c.oid, c.relname, c.relowner, c.relrowsecurity, c.relforcerowsecurity, c.relacl,
               i.inhrelid IS NOT NULL AS is_partition,
               i.inhrelid IS NOT NULL OR c.relname = ANY (append_only) AS is_append_only
        FROM pg_catalog.pg_class c
        LEFT JOIN pg_catalog.pg_inherits i
               ON i.inhrelid = c.oid AND i.inhparent = 'watchllm.provider_key_access_logs'::pg_catalog.regclass
        WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace
          AND (c.relname = ANY (tables) OR i.inhrelid IS NOT NULL)
          AND c.relkind IN ('r', 'p')
        ORDER BY i.inhrelid IS NOT NULL, c.relname
    LOOP
        IF item.relowner <> 'watchllm_owner'::pg_catalog.regrole THEN
            EXECUTE pg_catalog.format('ALTER TABLE watchllm.%I OWNER TO watchllm_owner', item.relname);
        END IF;
        -- A sweep of REVOKE can take an owner's own rights, and then every call fails.
        IF NOT pg_catalog.has_table_privilege('watchllm_owner', item.oid, 'SELECT')
            OR NOT pg_catalog.has_table_privilege('watchllm_owner', item.oid, 'INSERT')
            OR NOT pg_catalog.has_table_privilege('watchllm_owner', item.oid, 'UPDATE')
            OR NOT pg_catalog.has_table_privilege('watchllm_owner', item.oid, 'DELETE')
        THEN
            EXECUTE pg_catalog.format('GRANT ALL ON TABLE watchllm.%I TO watchllm_owner', item.relname);
        END IF;
        IF NOT item.relrowsecurity THEN
            EXECUTE pg_catalog.format('ALTER TABLE watchllm.%I ENABLE ROW LEVEL SECURITY', item.relname);
        END IF;
        IF NOT item.relforcerowsecurity THEN
            EXECUTE pg_catalog.format('ALTER TABLE watchllm.%I FORCE ROW LEVEL SECURITY', item.relname);
        END IF;

        -- Supabase's default privileges grant to its roles by name. A REVOKE from PUBLIC leaves
        -- those grants in place.
        FOR grantee IN
            SELECT 'PUBLIC'
            UNION ALL
            SELECT pg_catalog.quote_ident(r.rolname) FROM pg_catalog.pg_roles r
            WHERE r.rolname IN ('anon', 'authenticated', 'service_role')
        LOOP
            EXECUTE pg_catalog.format('REVOKE ALL ON TABLE watchllm.%I FROM %s', item.relname, grantee);
        END LOOP;

        FOR trigger IN
            SELECT w.name, w.event, w.level, t.tgenabled
            FROM (VALUES ('refuse_change'::name, 'UPDATE OR DELETE', 'ROW'),
                         ('refuse_truncate', 'TRUNCATE', 'STATEMENT')) AS w (name, event, level)
            LEFT JOIN pg_catalog.pg_trigger t ON t.tgrelid = item.oid AND t.tgname = w.name
            WHERE item.is_append_only
        LOOP
            IF trigger.tgenabled IS NULL THEN
                EXECUTE pg_catalog.format(
                    'CREATE TRIGGER %I BEFORE %s ON watchllm.%I FOR EACH %s EXECUTE FUNCTION watchllm.refuse_change()',
                    trigger.name, trigger.event, item.relname, trigger.level);
            END IF;
            IF trigger.tgenabled IS DISTINCT FROM 'A' THEN
                EXECUTE pg_catalog.format(
                    'ALTER TABLE watchllm.%I ENABLE ALWAYS TRIGGER %I', item.relname, trigger.name);
            END IF;
        END LOOP;
    END LOOP;
END
$$;

-- preflight.sql refuses CREATE for anybody else. USAGE that an administrator gave to others stays.
-- Monitoring calls status(), and may do nothing else.
GRANT USAGE ON SCHEMA watchllm
    TO watchllm_owner, watchllm_admin, watchllm_service, watchllm_tenant, watchllm_auditor, pg_monitor;
GRANT CREATE ON SCHEMA watchllm TO watchllm_owner;

-- Who may read which columns. The grants name each column, so that a new column is hidden until
-- somebody decides about it. Nobody reads envelopes, master keys and audit keys. The auditor and
-- the admin read everything else. The trail's columns are in trail.sql.
GRANT SELECT (id, schema_name, table_name, id_column, owner_column, name_column, adopted_by, adopted_at)
    ON watchllm.adopted_tables TO watchllm_admin, watchllm_auditor;
GRANT SELECT (id, name, owner_id, created_at, deleted_at, adopted_table_id)
    ON watchllm.projects TO watchllm_admin, watchllm_auditor, watchllm_service;
GRANT SELECT (id, project_id, subject, role_name, created_at)
    ON watchllm.project_members TO watchllm_admin, watchllm_auditor;
GRANT SELECT (id, project_id, provider, name, key_hint, priority, is_active, active_version,
        active_version_created_at, rotation_interval, rotation_required_at, compromised_at, deleted_at, created_at,
        updated_at)
    ON watchllm.provider_key_records TO watchllm_admin, watchllm_auditor, watchllm_service, watchllm_tenant;
GRANT SELECT (project_id, provider_key_id, access_count, failure_count, bucket_start, accesses, failures,
        last_used_at, access_anomaly_detected_at, last_rotation_alert_sent_at, blocked_at, used_since, busiest_on,
        busiest_minute, busiest_hour, busiest_day)
    ON watchllm.provider_key_usage TO watchllm_admin, watchllm_auditor, watchllm_service, watchllm_tenant;
GRANT SELECT (event_id, project_id) ON watchllm.committed_changes TO watchllm_admin, watchllm_auditor;
GRANT SELECT (id, type, severity, project_id, provider_key_id, details, detected_at)
    ON watchllm.security_incidents TO watchllm_admin, watchllm_auditor, watchllm_tenant;
GRANT SELECT (id, incident_id, project_id, event, note, by, at)
    ON watchllm.incident_events TO watchllm_admin, watchllm_auditor;
GRANT SELECT (id, name, value, project_id, provider_key_id, updated_at)
    ON watchllm.settings TO watchllm_admin, watchllm_auditor;
GRANT SELECT (kind, subject, day, distinct_keys) ON watchllm.caller_peaks TO watchllm_admin, watchllm_auditor;
GRANT SELECT (project_id, provider_key_id, kind, subject, first_seen_at, last_seen_at)
    ON watchllm.provider_key_callers TO watchllm_admin, watchllm_auditor;
GRANT SELECT (kind, subject, blocked_at, incident_id, note)
    ON watchllm.blocked_callers TO watchllm_admin, watchllm_auditor;
GRANT SELECT (day, kind, name, database, channel, project_id, raised, held_back, cut_off_at, last_at, incident_id,
        closed_at)
    ON watchllm.incident_sources TO watchllm_admin, watchllm_auditor;
GRANT SELECT (project_id, provider_key_id, version, marked_at)
    ON watchllm.leak_marks TO watchllm_admin, watchllm_auditor;
GRANT SELECT (id, check_name, finding, note, until, accepted_by, accepted_at)
    ON watchllm.accepted_findings TO watchllm_admin, watchllm_auditor;

-- Columns that tenants write have no statistics. EXPLAIN would tell a tenant how often a value
-- stands in everybody's rows.
DO $$
DECLARE
    told record;
BEGIN
    FOR told IN
        SELECT c.relname, a.attname
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
        JOIN (VALUES ('projects'::name, '{name,owner_id}'::name[]),
                     ('provider_key_records', '{name,key_hint}')) AS t (name, columns) ON t.name = c.relname
        WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace AND c.relkind = 'r'
          AND a.attname = ANY (t.columns) AND coalesce(a.attstattarget, -1) <> 0
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE watchllm.%I ALTER COLUMN %I SET STATISTICS 0', told.relname, told.attname);
    END LOOP;
END
$$;

-- Of incidents tenants do not read the notes of the staff. What they read of the trail is in
-- trail.sql.
GRANT SELECT (id, name, created_at) ON watchllm.projects TO watchllm_tenant;
GRANT SELECT (event_id) ON watchllm.committed_changes TO watchllm_tenant;
GRANT SELECT (id, incident_id, project_id, event, at) ON watchllm.incident_events TO watchllm_tenant;

-- One permissive policy per table, command and role. A policy of our name is left as it is, because
-- users may have narrowed it. The caller's projects are asked for once per query, and an array
-- finds their rows by index.
--
-- That alone would be an oracle. = and < of text are leakproof and cheap, so PostgreSQL compares
-- everybody's rows with a tenant's value first. It would ask for the projects only if one row fits.
-- EXPLAIN ANALYZE and the counters of scans would show that. So <@ comes first: it costs no more
-- than any operator, and among equal costs row security's own condition comes first.
DO $$
DECLARE
    own CONSTANT text := 'ARRAY[%1$I] OPERATOR(pg_catalog.<@) ARRAY(SELECT watchllm.current_project_ids()) '
        'AND %1$I = ANY (ARRAY(SELECT watchllm.current_project_ids()))';
    wanted record;
BEGIN
    FOR wanted IN
        SELECT t.name AS table_name, p.name AS policy, p.roles, p.condition
        FROM (VALUES ('adopted_tables'::name, 'id'::name, false, false),
                     ('projects', 'id', true, true),
                     ('project_members', 'project_id', false, false),
                     ('provider_key_records', 'project_id', true, true),
                     ('provider_key_usage', 'project_id', true, true),
                     ('provider_key_access_logs', 'project_id', false, true),
                     ('committed_changes', 'project_id', false, true),
                     ('security_incidents', 'project_id', false, true),
                     ('incident_events', 'project_id', false, true),
                     ('provider_key_callers', 'project_id', false, false),
                     ('settings', 'project_id', false, false),
                     ('caller_peaks', 'subject', false, false),
                     ('incident_sources', 'project_id', false, false),
                     ('blocked_callers', 'subject', false, false),
                     ('leak_marks', 'project_id', false, false),
                     ('accepted_findings', 'id', false, false)) AS t (name, project, for_services, for_tenants)
        CROSS JOIN LATERAL (
            VALUES ('auditors_read_all', 'watchllm_admin, watchllm_auditor', 'true', true),
                   ('services_read_all', 'watchllm_service', 'true', t.for_services),
                   ('tenants_read_own', 'watchllm_tenant', pg_catalog.format(own, t.project), t.for_tenants)
        ) AS p (name, roles, condition, is_wanted)
        WHERE p.is_wanted AND NOT EXISTS (
            SELECT FROM pg_catalog.pg_policy x
            WHERE x.polrelid = pg_catalog.format('watchllm.%I', t.name)::pg_catalog.regclass AND x.polname = p.name)
    LOOP
        EXECUTE pg_catalog.format('CREATE POLICY %I ON watchllm.%I AS PERMISSIVE FOR SELECT TO %s USING (%s)',
            wanted.policy, wanted.table_name, wanted.roles, wanted.condition);
    END LOOP;
END
$$;

-- DROP OWNED takes a role out of our policies. Each gets back the roles that it was made for.
DO $$
DECLARE
    lacking record;
BEGIN
    FOR lacking IN
        SELECT c.relname AS table_name, p.polname AS policy, w.roles
        FROM pg_catalog.pg_policy p
        JOIN pg_catalog.pg_class c ON c.oid = p.polrelid AND c.relnamespace = 'watchllm'::pg_catalog.regnamespace
        JOIN (VALUES ('auditors_read_all'::name, 'watchllm_admin, watchllm_auditor'),
                     ('services_read_all', 'watchllm_service'),
                     ('tenants_read_own', 'watchllm_tenant')) AS w (name, roles) ON w.name = p.polname
        WHERE EXISTS (
            SELECT FROM pg_catalog.unnest(pg_catalog.string_to_array(w.roles, ', ')) AS r (name)
            WHERE r.name::pg_catalog.regrole::oid <> ALL (p.polroles))
    LOOP
        EXECUTE pg_catalog.format(
            'ALTER POLICY %I ON watchllm.%I TO %s', lacking.policy, lacking.table_name, lacking.roles);
    END LOOP;
END
$$;

-- Our triggers on adopted tables fire also where session_replication_role is replica, as tools that
-- load data set it. Otherwise the projects would drift apart.
DO $$
DECLARE
    quiet record;
BEGIN
    FOR quiet IN
        SELECT n.nspname, c.relname, t.tgname
        FROM pg_catalog.pg_trigger t
        JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        WHERE t.tgfoid = 'watchllm.follow_projects()'::pg_catalog.regprocedure AND t.tgenabled = 'O'
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %I.%I ENABLE ALWAYS TRIGGER %I', quiet.nspname, quiet.relname, quiet.tgname);
    END LOOP;
END
$$;

-- DROP EXTENSION ... CASCADE removes our triggers from adopted tables. Only a new adoption brings
-- them back.
DO $$
DECLARE
    adopted record;
BEGIN
    FOR adopted IN
        SELECT t.schema_name, t.table_name
        FROM watchllm.adopted_tables t
        WHERE 2 > (
            SELECT pg_catalog.count(*)
            FROM pg_catalog.pg_trigger g
            JOIN pg_catalog.pg_class c ON c.oid = g.tgrelid AND c.relname = t.table_name
            JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace AND n.nspname = t.schema_name
            WHERE g.tgfoid = 'watchllm.follow_projects()'::pg_catalog.regprocedure)
    LOOP
        RAISE WARNING 'adopted projects table %.% is not followed', adopted.schema_name, adopted.table_name
            USING HINT = 'SELECT watchllm.adopt_projects(...) again, or nothing when the table is gone for good.';
    END LOOP;
END
$$;
