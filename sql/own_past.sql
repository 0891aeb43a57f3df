-- The own past of a key, looking back: its limits on past days as the trail gives them. The live
-- counters keep the same in memory (core/src/anomaly/past.rs). An access that was refused, or that
-- lies within an episode of its key, belongs to no past. Days are UTC days.

CREATE FUNCTION watchllm.key_flagged_times(of_project uuid, of_key uuid) RETURNS tstzmultirange
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN (
        SELECT pg_catalog.range_agg(pg_catalog.tstzrange(i.detected_at, GREATEST(i.detected_at, e.ended_at)))
        FROM watchllm.security_incidents i
        CROSS JOIN LATERAL (
            SELECT pg_catalog.min(x.at) AS ended_at FROM watchllm.incident_events x
            WHERE x.incident_id = i.id AND x.event = 'ended') e
        WHERE i.project_id = of_project AND i.provider_key_id = of_key
          AND i.type IN ('rapid_automated_access', 'potential_key_theft', 'unusually_high_access',
                         'repeated_failures'));
END
$$;
COMMENT ON FUNCTION watchllm.key_flagged_times IS
    'Tells when a key had an open episode, whose accesses belong to no past; for the detectors.';

CREATE FUNCTION watchllm.key_busiest(
    of_project uuid, of_key uuid, setting text, since timestamptz, until timestamptz)
RETURNS TABLE (day date, accesses bigint)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    bucket  CONSTANT interval := CASE setting WHEN 'max_accesses_per_day' THEN '30 minutes' ELSE '1 minute' END;
    span    CONSTANT interval := CASE setting WHEN 'max_accesses_per_day' THEN '1410 minutes'
                                              WHEN 'max_accesses_per_hour' THEN '59 minutes' ELSE '60 seconds' END;
    flagged CONSTANT tstzmultirange := coalesce(watchllm.key_flagged_times(of_project, of_key), '{}');
BEGIN
    IF setting = 'max_accesses_per_minute' THEN
        RETURN QUERY
        SELECT c.day, pg_catalog.max(c.held)
        FROM (
            SELECT (l.accessed_at AT TIME ZONE 'UTC')::date AS day, l.accessed_at,
                   pg_catalog.row_number() OVER (ORDER BY l.accessed_at) - pg_catalog.count(*) OVER (
                       ORDER BY l.accessed_at
                       RANGE BETWEEN UNBOUNDED PRECEDING AND '60.000001 seconds'::interval PRECEDING) AS held
            FROM watchllm.provider_key_access_logs l
            WHERE l.project_id = of_project AND l.provider_key_id = of_key
              AND l.accessed_at >= since - span AND l.accessed_at < until AND l.success
              AND watchllm.counts_as('access', l.access_type, l.success, l.failure_reason)
              AND NOT l.accessed_at <@ flagged
        ) c
        WHERE c.accessed_at >= since GROUP BY 1;
        RETURN;
    END IF;
    RETURN QUERY
    SELECT c.day, pg_catalog.max(c.held)::bigint
    FROM (
        SELECT (f.began AT TIME ZONE 'UTC')::date AS day, f.began,
               pg_catalog.sum(f.held) OVER (
                   ORDER BY f.began RANGE BETWEEN span PRECEDING AND CURRENT ROW) AS held
        FROM (
            SELECT pg_catalog.date_bin(bucket, l.accessed_at, '2000-01-01 00:00:00+00'::timestamptz) AS began,
                   pg_catalog.count(*) AS held
            FROM watchllm.provider_key_access_logs l
            WHERE l.project_id = of_project AND l.provider_key_id = of_key
              AND l.accessed_at >= since - span AND l.accessed_at < until AND l.success
              AND watchllm.counts_as('access', l.access_type, l.success, l.failure_reason)
              AND NOT l.accessed_at <@ flagged
            GROUP BY 1
        ) f
    ) c
    WHERE c.began >= since GROUP BY 1;
END
$$;
COMMENT ON FUNCTION watchllm.key_busiest IS
    'Shows a key''s busiest minute, hour or day on each UTC day of a time, without what was refused or flagged; the setting says which.';

CREATE FUNCTION watchllm.key_access_limits(
    of_project uuid, of_key uuid, setting text, first_day date, last_day date)
RETURNS TABLE (day date, allowed bigint)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    stated    CONSTANT bigint := watchllm.effective_setting(setting, of_project, of_key)::bigint;
    basis     CONSTANT text := watchllm.effective_setting('limit_basis', of_project, of_key);
    greatest_allowed CONSTANT bigint :=
        CASE setting WHEN 'max_accesses_per_minute' THEN 100000 ELSE 2147483647 END;
    flagged   tstzmultirange;
    first_use date;
BEGIN
    IF basis <> 'fixed' AND setting IN ('max_accesses_per_minute', 'max_accesses_per_hour', 'max_accesses_per_day') THEN
        flagged := coalesce(watchllm.key_flagged_times(of_project, of_key), '{}');
        SELECT (l.accessed_at AT TIME ZONE 'UTC')::date INTO first_use
        FROM watchllm.provider_key_access_logs l
        WHERE l.project_id = of_project AND l.provider_key_id = of_key AND l.success
          AND watchllm.counts_as('access', l.access_type, l.success, l.failure_reason)
          AND NOT l.accessed_at <@ flagged
        ORDER BY l.accessed_at LIMIT 1;
    END IF;
    IF first_use <= last_day - 7 THEN
        RETURN QUERY
        WITH busiest AS MATERIALIZED (
            SELECT b.day, b.accesses FROM watchllm.key_busiest(of_project, of_key, setting,
                (first_day - 7)::timestamp AT TIME ZONE 'UTC', last_day::timestamp AT TIME ZONE 'UTC') b
        )
        SELECT d.day, CASE WHEN first_use <= d.day - 7 THEN GREATEST(stated, (
                   SELECT LEAST(3 * pg_catalog.max(b.accesses), greatest_allowed) FROM busiest b
                   WHERE b.day >= d.day - 7 AND b.day < d.day)) ELSE stated END
        FROM (SELECT first_day + n AS day FROM pg_catalog.generate_series(0, last_day - first_day) n) d;
    ELSE
        RETURN QUERY SELECT first_day + n, stated FROM pg_catalog.generate_series(0, last_day - first_day) n;
    END IF;
END
$$;
COMMENT ON FUNCTION watchllm.key_access_limits IS
    'Tells the limit of a key on each UTC day of a time, by a setting: as stated, or what its own past allows.';
