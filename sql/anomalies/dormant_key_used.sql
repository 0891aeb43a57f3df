-- A key that nobody has used for longer than stale_after is used again. Live counter: DormantKey in
-- core/src/anomaly/detector.rs.

CREATE FUNCTION watchllm.detect_dormant_key_used(since timestamptz, until timestamptz DEFAULT NULL)
RETURNS TABLE (
    detector text, severity text, project_id uuid, provider_key_id uuid, subject text, observed bigint, expected bigint,
    window_start timestamptz, window_end timestamptz)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    lowest     CONSTANT interval := watchllm.lowest_setting('stale_after');
    first_read CONSTANT timestamptz := watchllm.first_read(since, '1 microsecond', '0');
    last_read  CONSTANT timestamptz := coalesce(until, 'infinity');
BEGIN
    -- Who slept within the time shows in it. When the others were last used the index finds at
    -- once: two days before it first, as few keys need a look into all. An import is no access, but
    -- the key was not asleep where it comes from.
    RETURN QUERY
    WITH accesses AS MATERIALIZED (
        SELECT l.project_id, l.provider_key_id, l.accessed_at, l.access_type,
               pg_catalog.lag(l.accessed_at) OVER (
                   PARTITION BY l.project_id, l.provider_key_id ORDER BY l.accessed_at) AS previous_at
        FROM watchllm.provider_key_access_logs l
        WHERE l.accessed_at >= first_read AND l.accessed_at < last_read
          AND (watchllm.counts_as('access', l.access_type, l.success, l.failure_reason)
               OR l.access_type = 'import' AND l.success)
          AND l.provider_key_id IS NOT NULL
    ), woken AS (
        SELECT a.project_id, a.provider_key_id, a.accessed_at, coalesce(a.previous_at, (
                   SELECT l.accessed_at FROM watchllm.provider_key_access_logs l
                   WHERE l.project_id = a.project_id AND l.provider_key_id = a.provider_key_id
                     AND l.accessed_at >= first_read - '48 hours'::interval AND l.accessed_at < first_read
                     AND (watchllm.counts_as('access', l.access_type, l.success, l.failure_reason)
                          OR l.access_type = 'import' AND l.success)
                   ORDER BY l.accessed_at DESC LIMIT 1), (
                   SELECT l.accessed_at FROM watchllm.provider_key_access_logs l
                   WHERE l.project_id = a.project_id AND l.provider_key_id = a.provider_key_id
                     AND l.accessed_at < first_read
                     AND (watchllm.counts_as('access', l.access_type, l.success, l.failure_reason)
                          OR l.access_type = 'import' AND l.success)
                   ORDER BY l.accessed_at DESC LIMIT 1), r.created_at) AS asleep_since
        FROM accesses a
        JOIN watchllm.provider_key_records r ON r.project_id = a.project_id AND r.id = a.provider_key_id
        WHERE a.access_type <> 'import' AND r.created_at < a.accessed_at - lowest
          AND coalesce(a.previous_at, '-infinity') < a.accessed_at - lowest
    ), limits AS MATERIALIZED (
        SELECT w.*, watchllm.effective_setting('stale_after', w.project_id, w.provider_key_id)::interval AS longest
        FROM woken w WHERE w.asleep_since < w.accessed_at - lowest
    )
    SELECT 'dormant_key_used', 'medium', m.project_id, m.provider_key_id, NULL::text,
           pg_catalog.floor(EXTRACT(epoch FROM m.accessed_at - m.asleep_since) / 86400)::bigint,
           pg_catalog.floor(EXTRACT(epoch FROM m.longest) / 86400)::bigint, m.accessed_at, m.accessed_at
    FROM limits m WHERE m.asleep_since < m.accessed_at - m.longest;
END
$$;
COMMENT ON FUNCTION watchllm.detect_dormant_key_used IS
    'Finds uses of a key that nobody had used for longer than stale_after.';
