-- A caller who empties the vault: more different keys within 60 seconds than the limit, and more
-- than three times the caller's own busiest minute of the week before. Live counter: MassReading in
-- core/src/anomaly/detector.rs.

CREATE FUNCTION watchllm.detect_mass_key_reading(since timestamptz, until timestamptz DEFAULT NULL)
RETURNS TABLE (
    detector text, severity text, project_id uuid, provider_key_id uuid, subject text, observed bigint, expected bigint,
    window_start timestamptz, window_end timestamptz)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    most       CONSTANT bigint := watchllm.effective_setting('max_distinct_keys_per_minute');
    basis      CONSTANT text := watchllm.effective_setting('limit_basis');
    first_read CONSTANT timestamptz := watchllm.first_read(since, '1 microsecond', '60 seconds');
    last_read  CONSTANT timestamptz := coalesce(until, 'infinity');
BEGIN
    -- Only the staff may know who called as whom from where.
    IF NOT pg_catalog.has_column_privilege('watchllm.provider_key_access_logs', 'session_role', 'SELECT') THEN
        RETURN;
    END IF;
    RETURN QUERY
    WITH accesses AS MATERIALIZED (
        SELECT v.kind, v.name, l.project_id, l.provider_key_id, l.accessed_at
        FROM watchllm.provider_key_access_logs l
        CROSS JOIN LATERAL (VALUES ('role', l.session_role),
                                   ('subject', CASE WHEN l.claims_trusted THEN l.claims_sub END),
                                   ('address', pg_catalog.host(l.client_addr))) AS v (kind, name)
        WHERE l.accessed_at >= first_read AND l.accessed_at < last_read
          AND watchllm.counts_as('access', l.access_type, l.success, l.failure_reason)
          AND l.provider_key_id IS NOT NULL AND v.name <> ''
    ), callers AS MATERIALIZED (
        SELECT k.kind, k.name, pg_catalog.row_number() OVER () AS caller
        FROM (SELECT DISTINCT a.kind, a.name, a.provider_key_id FROM accesses a) k
        GROUP BY 1, 2 HAVING pg_catalog.count(*) > most
    ), neighbours AS (
        SELECT c.caller, a.accessed_at,
               pg_catalog.lag(a.accessed_at) OVER same_key AS previous_at,
               pg_catalog.lead(a.accessed_at) OVER same_key AS next_at
        FROM accesses a JOIN callers c ON c.kind = a.kind AND c.name = a.name
        WINDOW same_key AS (PARTITION BY c.caller, a.provider_key_id ORDER BY a.accessed_at)
    ), steps AS (  -- a key counts from an access until 60 seconds after the last of those that follow closely
        SELECT n.caller, n.accessed_at AS at, 1 AS step
        FROM neighbours n WHERE n.accessed_at - n.previous_at <= '60 seconds'::interval IS NOT TRUE
        UNION ALL
        SELECT n.caller, n.accessed_at + '60 seconds'::interval, -1
        FROM neighbours n WHERE n.next_at - n.accessed_at <= '60 seconds'::interval IS NOT TRUE
    ), counted AS MATERIALIZED (
        SELECT t.caller, t.at, t.step,
               pg_catalog.sum(t.step) OVER w AS keys,
               coalesce(pg_catalog.lead(t.at) OVER w, 'infinity') AS next_at
        FROM steps t
        WINDOW w AS (PARTITION BY t.caller ORDER BY t.at, t.step DESC ROWS UNBOUNDED PRECEDING)
    ), suspects AS MATERIALIZED (
        SELECT s.kind, s.name, s.caller
        FROM callers s JOIN counted c ON c.caller = s.caller GROUP BY 1, 2, 3 HAVING pg_catalog.max(c.keys) > most
    ), days AS MATERIALIZED (
        SELECT d.kind, d.name, d.caller, d.day, GREATEST(most, 3 * (
                   SELECT pg_catalog.max(p.distinct_keys) FROM watchllm.caller_peaks p
                   WHERE p.kind = d.kind AND p.subject = d.name AND p.day >= d.day - 7 AND p.day < d.day
                     AND basis <> 'fixed')) AS most
        FROM (
            SELECT DISTINCT s.kind, s.name, s.caller, (c.at AT TIME ZONE 'UTC')::date AS day
            FROM suspects s JOIN counted c ON c.caller = s.caller
        ) d
    ), judged AS (
        SELECT c.*, d.kind, d.name, d.most, c.keys > d.most AND c.next_at > since AS crossed,
               pg_catalog.count(*) FILTER (WHERE c.step = -1 AND c.keys <= d.most / 2) OVER (
                   PARTITION BY c.caller ORDER BY c.at, c.step DESC ROWS UNBOUNDED PRECEDING) AS episode
        FROM counted c
        JOIN days d ON d.caller = c.caller AND d.day = (c.at AT TIME ZONE 'UTC')::date
    ), episodes AS (
        SELECT j.kind, j.name, pg_catalog.max(j.keys) FILTER (WHERE j.crossed) AS observed,
               (pg_catalog.array_agg(j.most ORDER BY j.at) FILTER (WHERE j.crossed))[1] AS most,
               GREATEST(since, pg_catalog.min(j.at) FILTER (WHERE j.crossed)) AS began,
               pg_catalog.max(j.next_at) AS over_at
        FROM judged j GROUP BY j.kind, j.name, j.episode HAVING pg_catalog.bool_or(j.crossed)
    ), ended AS (
        SELECT e.*, (
                   SELECT pg_catalog.max(a.accessed_at) FROM accesses a
                   WHERE a.kind = e.kind AND a.name = e.name AND a.accessed_at >= e.began
                     AND a.accessed_at <= e.over_at) AS last_at
        FROM episodes e
    )
    SELECT 'mass_key_reading', 'critical', NULL::uuid, NULL::uuid, e.kind || ':' || e.name, e.observed, e.most,
           e.began, e.last_at
    FROM ended e WHERE e.last_at IS NOT NULL;
END
$$;
COMMENT ON FUNCTION watchllm.detect_mass_key_reading IS
    'Finds callers that opened more than max_distinct_keys_per_minute different keys within 60 seconds; for the staff.';
