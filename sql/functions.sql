-- The plpgsql functions of the extension: the append-only trigger, and the maker of the trail's
-- daily partitions. They are members of the extension, and only watchllm_owner may execute them
-- (function_grants.sql). Names and bounds of partitions are in docs/architecture.md#tables.
-- docs/facts.md#the-audit-table says why LIKE and ATTACH are used.

CREATE FUNCTION watchllm.refuse_change() RETURNS trigger
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- On any other table it would let its author stop other people's work in our name.
    IF NOT EXISTS (
        SELECT
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
        JOIN pg_catalog.pg_roles o ON o.oid = c.relowner
        WHERE c.oid = TG_RELID
          AND n.nspname = 'watchllm'
          AND o.rolname = 'watchllm_owner'
          AND (c.relname IN ('install_history', 'provider_key_access_logs', 'committed_changes', 'audit_checkpoints',
                             'audit_keys', 'database_identity', 'security_incidents', 'incident_events',
                             'accepted_findings')
               OR c.relname ~ '^provider_key_access_logs_[0-9]{8}$')
    ) THEN
        RAISE EXCEPTION 'watchllm.refuse_change() guards only the append-only tables of watchllm_keys'
            USING ERRCODE = 'insufficient_privilege', DETAIL = 'not_ours',
            HINT = pg_catalog.format('DROP TRIGGER %I ON %I.%I;', TG_NAME, TG_TABLE_SCHEMA, TG_TABLE_NAME);
    END IF;

    RAISE EXCEPTION '% on %.% refused: the table is append-only', TG_OP, TG_TABLE_SCHEMA, TG_TABLE_NAME
        USING ERRCODE = 'insufficient_privilege', DETAIL = 'append_only',
        HINT = 'Its rows are evidence: nothing changes or deletes them.';
END
$$;
COMMENT ON FUNCTION watchllm.refuse_change() IS
    'Internal. Refuses every UPDATE, DELETE and TRUNCATE on the append-only tables of watchllm_keys; of no use on any other.';

CREATE FUNCTION watchllm.make_log_partition(day date) RETURNS boolean
LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET datestyle = 'ISO, YMD'
AS $$
DECLARE
    trail     CONSTANT regclass := 'watchllm.provider_key_access_logs'::pg_catalog.regclass;
    partition name;
    since     text;
    until     text;
    existing  record;
    granted   record;
    unseen    record;
BEGIN
    IF day IS NULL OR day NOT BETWEEN '1970-01-01'::date AND '9999-12-30'::date THEN
        RAISE EXCEPTION 'no day between 1970-01-01 and 9999-12-30 given'
            USING ERRCODE = 'invalid_parameter_value', DETAIL = 'bad_input';
    END IF;
    partition := 'provider_key_access_logs_' || pg_catalog.to_char(day::timestamp, 'YYYYMMDD');
    since := pg_catalog.to_char(day::timestamp, 'YYYY-MM-DD') || ' 00:00:00+00';
    until := pg_catalog.to_char((day + 1)::timestamp, 'YYYY-MM-DD') || ' 00:00:00+00';

    -- The first attempt looks without a lock. If the partition is missing, the second takes the
    -- lock that ATTACH needs anyway, and looks again. So two callers at the same moment make one
    -- partition.
    FOR attempt IN 1..2 LOOP
        IF attempt = 2 THEN
            LOCK TABLE ONLY watchllm.provider_key_access_logs IN SHARE UPDATE EXCLUSIVE MODE;
        END IF;
        SELECT c.relkind, c.relispartition, c.relowner,
               pg_catalog.pg_get_expr(c.relpartbound, c.oid) AS bound,
               (SELECT i.inhparent FROM pg_catalog.pg_inherits i WHERE i.inhrelid = c.oid) AS parent
        INTO existing
        FROM pg_catalog.pg_class c
        WHERE c.relname = partition AND c.relnamespace = 'watchllm'::pg_catalog.regnamespace;
        IF FOUND THEN
            IF existing.relkind = 'r' AND existing.relispartition AND existing.parent = trail
                AND existing.relowner = 'watchllm_owner'::pg_catalog.regrole
                AND existing.bound = pg_catalog.format('FOR VALUES FROM (%L) TO (%L)', since, until)
            THEN
                RETURN false;
            END IF;
            RAISE EXCEPTION 'relation watchllm.% is not the partition of the audit trail for that day', partition
                USING ERRCODE = 'duplicate_table', DETAIL = 'not_ours',
                HINT = 'Its name belongs to the trail: rename it, or attach it again if it is a detached day.';
        END IF;
    END LOOP;

    -- It is empty when attached, so ATTACH has nothing to scan and needs no CHECK. INCLUDING ALL
    -- copies no rights.
    EXECUTE pg_catalog.format(
        'CREATE TABLE watchllm.%I (LIKE watchllm.provider_key_access_logs INCLUDING ALL)', partition);
    IF CURRENT_USER <> 'watchllm_owner' THEN
        EXECUTE pg_catalog.format('ALTER TABLE watchllm.%I OWNER TO watchllm_owner', partition);
    END IF;
    FOR granted IN -- grants of default privileges
        SELECT DISTINCT a.grantee, g.rolname
        FROM pg_catalog.pg_class c
        CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
        LEFT JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
        WHERE c.oid = pg_catalog.format('watchllm.%I', partition)::pg_catalog.regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON TABLE watchllm.%I FROM %s CASCADE', partition,
            CASE WHEN granted.grantee = 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(granted.rolname) END);
    END LOOP;
    EXECUTE pg_catalog.format(
        'ALTER TABLE watchllm.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', partition);
    -- LIKE does not copy that columns written by tenants have no statistics (trail.sql says why).
    FOR unseen IN
        SELECT a.attname FROM pg_catalog.pg_attribute a
        WHERE a.attrelid = trail AND a.attnum > 0 AND NOT a.attisdropped AND a.attstattarget = 0
    LOOP
        EXECUTE pg_catalog.format(
            'ALTER TABLE watchllm.%I ALTER COLUMN %I SET STATISTICS 0', partition, unseen.attname);
    END LOOP;
    -- ATTACH clones row triggers of the parent, but not TRUNCATE triggers.
    EXECUTE pg_catalog.format(
        'CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON watchllm.%I '
        'FOR EACH STATEMENT EXECUTE FUNCTION watchllm.refuse_change()', partition);
    EXECUTE pg_catalog.format('ALTER TABLE watchllm.%I ENABLE ALWAYS TRIGGER refuse_truncate', partition);
    EXECUTE pg_catalog.format(
        'ALTER TABLE watchllm.provider_key_access_logs ATTACH PARTITION watchllm.%I FOR VALUES FROM (%L) TO (%L)',
        partition, since, until);
    RETURN true;
END
$$;
COMMENT ON FUNCTION watchllm.make_log_partition(date) IS
    'Internal. Makes the partition of the audit trail for one UTC day and answers true, or false when it is there already.';
