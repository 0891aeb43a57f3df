-- A key that fails again and again: more failures within an hour than its limit. Live counter:
-- Failures in core/src/anomaly/detector.rs.

CREATE FUNCTION watchllm.detect_repeated_failures(since timestamptz, until timestamptz DEFAULT NULL)
RETURNS TABLE (
    detector text, severity text, project_id uuid, provider_key_id uuid, subject text, observed bigint, expected bigint,
    window_start timestamptz, window_end timestamptz)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT 'repeated_failures', 'medium', e.project_id, e.provider_key_id, NULL::text, e.observed, e.expected,
           e.window_start, e.window_end
    FROM watchllm.key_access_episodes(since, until, 'max_failures_per_hour', '1 minute', 60, 'failure') e;
END
$$;
COMMENT ON FUNCTION watchllm.detect_repeated_failures IS
    'Finds keys that failed to open more than max_failures_per_hour within an hour; a row per episode.';
