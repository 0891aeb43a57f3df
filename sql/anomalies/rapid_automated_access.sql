-- A key that a program reads in a loop: more accesses within 60 seconds than its limit, or than its
-- own past allows. Live counter: RapidAccess in core/src/anomaly/detector.rs.

CREATE FUNCTION watchllm.detect_rapid_automated_access(since timestamptz, until timestamptz DEFAULT NULL)
RETURNS TABLE (
    detector text, severity text, project_id uuid, provider_key_id uuid, subject text, observed bigint, expected bigint,
    window_start timestamptz, window_end timestamptz)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    lowest     CONSTANT bigint := watchllm.lowest_setting('max_accesses_per_minute');
    first_read CONSTANT timestamptz := watchllm.first_read(since, '1 microsecond', '60 seconds');
    last_read  CONSTANT timestamptz := coalesce(until, 'infinity');
BEGIN
    RETURN QUERY
    WITH accesses AS MATERIALIZED (
        SELECT l.project_id, l.provider_key_id, l.accessed_at
        FROM watchllm.provider_key_access_logs l
        WHERE l.accessed_at >= first_read AND l.accessed_at < last_read
          AND watchllm.counts_as('access', l.access_type, l.success, l.failure_reason)
          AND l.provider_key_id IS NOT NULL
    ), limits AS MATERIALIZED (
        SELECT k.project_id, k.provider_key_id, k.held, watchllm.effective_setting(
                   'max_accesses_per_minute', k.project_id, k.provider_key_id)::bigint AS most
        FROM (
            SELECT a.project_id, a.provider_key_id, pg_catalog.count(*) AS held
            FROM accesses a GROUP BY 1, 2 HAVING pg_catalog.count(*) > lowest
        ) k
    ), counted AS MATERIALIZED (
        SELECT a.project_id, a.provider_key_id, a.accessed_at, m.most,
               (a.accessed_at AT TIME ZONE 'UTC')::date AS day,
               pg_catalog.row_number() OVER (
                   PARTITION BY a.project_id, a.provider_key_id ORDER BY a.accessed_at)
               - pg_catalog.count(*) OVER (
                   PARTITION BY a.project_id, a.provider_key_id ORDER BY a.accessed_at
                   RANGE BETWEEN UNBOUNDED PRECEDING AND '60.000001 seconds'::interval PRECEDING) AS in_minute
        FROM accesses a
        JOIN limits m ON m.project_id = a.project_id AND m.provider_key_id = a.provider_key_id AND m.held > m.most
    ), days AS MATERIALIZED (  -- only who crossed the stated limit is asked for its past
        SELECT s.project_id, s.provider_key_id, d.day, d.allowed
        FROM (
            SELECT c.project_id, c.provider_key_id, pg_catalog.min(c.day) AS first_day, pg_catalog.max(c.day) AS last_day
            FROM counted c GROUP BY 1, 2 HAVING pg_catalog.bool_or(c.in_minute > c.most AND c.accessed_at >= since)
        ) s
        CROSS JOIN LATERAL watchllm.key_access_limits(
            s.project_id, s.provider_key_id, 'max_accesses_per_minute', s.first_day, s.last_day) d
    ), numbered AS (
        SELECT c.project_id, c.provider_key_id, c.accessed_at, c.in_minute, d.allowed,
               c.in_minute > d.allowed AND c.accessed_at >= since AS crossed,
               pg_catalog.count(*) FILTER (WHERE c.in_minute - 1 <= d.allowed / 2) OVER (
                   PARTITION BY c.project_id, c.provider_key_id ORDER BY c.accessed_at, c.in_minute
                   ROWS UNBOUNDED PRECEDING) AS episode
        FROM counted c
        JOIN days d ON d.project_id = c.project_id AND d.provider_key_id = c.provider_key_id AND d.day = c.day
    )
    SELECT 'rapid_automated_access', 'high', n.project_id, n.provider_key_id, NULL::text,
           pg_catalog.max(n.in_minute) FILTER (WHERE n.crossed),
           (pg_catalog.array_agg(n.allowed ORDER BY n.accessed_at) FILTER (WHERE n.crossed))[1],
           pg_catalog.min(n.accessed_at) FILTER (WHERE n.crossed), pg_catalog.max(n.accessed_at)
    FROM numbered n
    GROUP BY n.project_id, n.provider_key_id, n.episode
    HAVING pg_catalog.bool_or(n.crossed);
END
$$;
COMMENT ON FUNCTION watchllm.detect_rapid_automated_access IS
    'Finds keys that were used more than max_accesses_per_minute within 60 seconds; a row per episode.';
