-- A key that is used more than its application ever would: more accesses within a day than its
-- limit. Live counter: UnusuallyHigh in core/src/anomaly/detector.rs.

CREATE FUNCTION watchllm.detect_unusually_high_access(since timestamptz, until timestamptz DEFAULT NULL)
RETURNS TABLE (
    detector text, severity text, project_id uuid, provider_key_id uuid, subject text, observed bigint, expected bigint,
    window_start timestamptz, window_end timestamptz)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT 'unusually_high_access', 'medium', e.project_id, e.provider_key_id, NULL::text, e.observed, e.expected,
           e.window_start, e.window_end
    FROM watchllm.key_access_episodes(since, until, 'max_accesses_per_day', '30 minutes', 48, 'access') e;
END
$$;
COMMENT ON FUNCTION watchllm.detect_unusually_high_access IS
    'Finds keys that were used more than max_accesses_per_day within a day; a row per episode.';
