-- Which keys a person should rotate, ask about or delete. A member of the extension. It runs with
-- the caller's rights, over the view with the ages (sql/views.sql).

CREATE FUNCTION watchllm.check_key_rotation_requirements()
RETURNS TABLE (
    project_id uuid, provider_key_id uuid, provider text, key_name text, days_since_created integer,
    days_since_last_used integer, rotation_required boolean, reason text)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    IF pg_catalog.to_regclass('watchllm.provider_key_security_summary') IS NULL THEN
        RAISE EXCEPTION 'watchllm_keys is not installed in this database'
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'not_installed', HINT = 'Run: SELECT watchllm.install();';
    END IF;
    RETURN QUERY
    SELECT s.project_id, s.id, s.provider, s.name, s.days_old, s.days_since_last_use, s.rotation_required,
           CASE WHEN s.is_compromised THEN 'Compromised'
                WHEN s.rotation_required AND s.rotation_due_at = r.rotation_required_at AND r.rotation_interval IS NULL
                    THEN 'Rotation required by date'
                WHEN s.rotation_required THEN 'Rotation required by age'
                WHEN s.security_status = 'Rotation Soon' THEN 'Rotation soon'
                WHEN s.never_used THEN 'Never used'
                ELSE 'Stale' END
    FROM watchllm.provider_key_security_summary s
    JOIN watchllm.provider_key_records r ON r.project_id = s.project_id AND r.id = s.id
    WHERE s.rotation_required OR s.security_status <> 'Secure' OR s.is_stale
    ORDER BY s.rotation_required DESC, s.rotation_due_at, s.id;
END
$$;
COMMENT ON FUNCTION watchllm.check_key_rotation_requirements IS
    'Lists the keys that must be rotated, should be soon, or that nobody uses, each with the reason; the most urgent first.';
