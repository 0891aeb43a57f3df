-- A key that a thief uses: more accesses within an hour than its limit. Live counter: Theft in
-- core/src/anomaly/detector.rs.

CREATE FUNCTION watchllm.detect_potential_key_theft(since timestamptz, until timestamptz DEFAULT NULL)
RETURNS TABLE (
    detector text, severity text, project_id uuid, provider_key_id uuid, subject text, observed bigint, expected bigint,
    window_start timestamptz, window_end timestamptz)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT 'potential_key_theft', 'critical', e.project_id, e.provider_key_id, NULL::text, e.observed, e.expected,
           e.window_start, e.window_end
    FROM watchllm.key_access_episodes(since, until, 'max_accesses_per_hour', '1 minute', 60, 'access') e;
END
$$;
COMMENT ON FUNCTION watchllm.detect_potential_key_theft IS
    'Finds keys that were used more than max_accesses_per_hour within an hour; a row per episode.';
