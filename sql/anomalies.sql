-- The watch looking back: what the live counters (src/anomaly) see, by windows over the trail, for any time that the trail
-- still holds. A function per detector, all with the same columns; members of the extension, run with the rights of whoever
-- asks, so that row security shows tenants their own. Each reads the days it needs and no other: a filter on a view over
-- windows is not pushed down (FACTS §8). Plans are made anew each time, so that they know which days those are.
--
-- Counted as accesses: what was opened, or would have been but for a block; as failures: what failed for a reason of its
-- own. Attempts of people without the right count against nobody's key. A minute is the 60 seconds that end with an access,
-- both ends included; an hour 60 minutes of the clock and a day 48 half hours of it (UTC), the present one included.
-- An episode begins with the access that crosses a limit and ends when half the limit is left.

CREATE FUNCTION watchllm.first_read(since timestamptz, bucket interval, span interval) RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF since IS NULL THEN
        RAISE EXCEPTION 'since must not be null'
            USING ERRCODE = 'null_value_not_allowed', HINT = 'Give a time, such as now() - interval ''1 hour''.';
    ELSIF pg_catalog.to_regclass('watchllm.provider_key_access_logs') IS NULL THEN
        RAISE EXCEPTION 'watchllm_keys is not installed in this database'
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Run: SELECT watchllm.install();';
    END IF;
    RETURN pg_catalog.date_bin(bucket, since, '2000-01-01 00:00:00+00'::timestamptz) - span;
END
$$;
COMMENT ON FUNCTION watchllm.first_read IS
    'Tells from when on a detector must read the trail to count in buckets for a time; for the detectors.';

CREATE FUNCTION watchllm.key_access_rates(
    since timestamptz, until timestamptz DEFAULT NULL, of_project uuid DEFAULT NULL, of_key uuid DEFAULT NULL)
RETURNS TABLE (
    accessed_at timestamptz, project_id uuid, provider_key_id uuid, claims_sub text, failed boolean,
    accesses_minute bigint, accesses_hour bigint, accesses_day bigint, failures_hour bigint)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    first_read CONSTANT timestamptz := watchllm.first_read(since, '30 minutes', '1410 minutes');
    last_read  CONSTANT timestamptz := coalesce(until, 'infinity');
BEGIN
    -- What lies before a window is taken from what lies before a row: so rows of one microsecond count one by one.
    RETURN QUERY
    WITH attempts AS (
        SELECT l.accessed_at, l.id, l.project_id, l.provider_key_id,
               CASE WHEN l.claims_trusted THEN l.claims_sub END AS claims_sub,
               NOT l.success AND l.failure_reason NOT IN ('blocked', 'caller_blocked') AS failed,
               pg_catalog.date_bin('1 minute', l.accessed_at, '2000-01-01 00:00:00+00'::timestamptz) AS in_minute,
               pg_catalog.date_bin('30 minutes', l.accessed_at, '2000-01-01 00:00:00+00'::timestamptz) AS in_half_hour
        FROM watchllm.provider_key_access_logs l
        WHERE l.accessed_at >= first_read AND l.accessed_at < last_read
          AND l.access_type IN ('decrypt', 'validate') AND l.provider_key_id IS NOT NULL
          AND (l.success OR l.failure_reason NOT IN (
                'not_authorized', 'not_found', 'unknown_master_key', 'wrong_master_key'))
          AND (of_project IS NULL OR l.project_id = of_project) AND (of_key IS NULL OR l.provider_key_id = of_key)
    ), counted AS (
        SELECT a.accessed_at, a.project_id, a.provider_key_id, a.claims_sub, a.failed,
               pg_catalog.count(*) FILTER (WHERE NOT a.failed) OVER up_to_here
                   - pg_catalog.count(*) FILTER (WHERE NOT a.failed) OVER before_the_minute,
               pg_catalog.count(*) FILTER (WHERE NOT a.failed) OVER up_to_here
                   - pg_catalog.count(*) FILTER (WHERE NOT a.failed) OVER before_the_hour,
               pg_catalog.count(*) FILTER (WHERE NOT a.failed) OVER up_to_here
                   - pg_catalog.count(*) FILTER (WHERE NOT a.failed) OVER before_the_day,
               pg_catalog.count(*) FILTER (WHERE a.failed) OVER up_to_here
                   - pg_catalog.count(*) FILTER (WHERE a.failed) OVER before_the_hour
        FROM attempts a
        WINDOW up_to_here AS (
                   PARTITION BY a.project_id, a.provider_key_id ORDER BY a.accessed_at, a.id ROWS UNBOUNDED PRECEDING),
               before_the_minute AS (
                   PARTITION BY a.project_id, a.provider_key_id ORDER BY a.accessed_at
                   RANGE BETWEEN UNBOUNDED PRECEDING AND '60.000001 seconds'::interval PRECEDING),
               before_the_hour AS (
                   PARTITION BY a.project_id, a.provider_key_id ORDER BY a.in_minute
                   RANGE BETWEEN UNBOUNDED PRECEDING AND '60 minutes'::interval PRECEDING),
               before_the_day AS (
                   PARTITION BY a.project_id, a.provider_key_id ORDER BY a.in_half_hour
                   RANGE BETWEEN UNBOUNDED PRECEDING AND '1440 minutes'::interval PRECEDING)
    )
    SELECT c.* FROM counted c WHERE c.accessed_at >= since;
END
$$;
COMMENT ON FUNCTION watchllm.key_access_rates IS
    'Shows each access and failure of a time with how many there were of its key in the minute, hour and day that end with it.';

CREATE FUNCTION watchllm.key_access_episodes(
    since timestamptz, until timestamptz, setting text, bucket interval, buckets integer, failures boolean)
RETURNS TABLE (
    project_id uuid, provider_key_id uuid, observed bigint, expected bigint, window_start timestamptz,
    window_end timestamptz)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    span       CONSTANT interval := bucket * (buckets - 1);
    lowest     CONSTANT bigint := watchllm.lowest_setting(setting);
    first_read CONSTANT timestamptz := watchllm.first_read(since, bucket, span);
    last_read  CONSTANT timestamptz := coalesce(until, 'infinity');
BEGIN
    -- First who can have crossed a limit at all: most keys have not. Within a bucket the count only grows: what it was at
    -- its beginning and what it is at its end say all.
    RETURN QUERY
    WITH limits AS MATERIALIZED (
        SELECT k.project_id, k.provider_key_id, k.held,
               watchllm.effective_setting(setting, k.project_id, k.provider_key_id)::bigint AS most
        FROM (
            SELECT l.project_id, l.provider_key_id, pg_catalog.count(*) AS held
            FROM watchllm.provider_key_access_logs l
            WHERE l.accessed_at >= first_read AND l.accessed_at < last_read
              AND l.access_type IN ('decrypt', 'validate') AND l.provider_key_id IS NOT NULL
              AND CASE WHEN failures
                  THEN NOT l.success
                       AND l.failure_reason NOT IN ('not_authorized', 'not_found', 'unknown_master_key', 'wrong_master_key', 'blocked',
                                            'caller_blocked')
                  ELSE l.success OR l.failure_reason IN ('blocked', 'caller_blocked') END
            GROUP BY 1, 2 HAVING pg_catalog.count(*) > lowest AND pg_catalog.max(l.accessed_at) >= since
        ) k
    ), filled AS MATERIALIZED (
        SELECT l.project_id, l.provider_key_id,
               pg_catalog.date_bin(bucket, l.accessed_at, '2000-01-01 00:00:00+00'::timestamptz) AS began,
               pg_catalog.count(*) AS held, pg_catalog.max(l.accessed_at) AS last_at
        FROM limits m
        JOIN watchllm.provider_key_access_logs l
          ON l.project_id = m.project_id AND l.provider_key_id = m.provider_key_id
        WHERE m.held > m.most AND l.accessed_at >= first_read AND l.accessed_at < last_read
          AND l.access_type IN ('decrypt', 'validate')
          AND CASE WHEN failures
              THEN NOT l.success
                   AND l.failure_reason NOT IN ('not_authorized', 'not_found', 'unknown_master_key', 'wrong_master_key', 'blocked',
                                            'caller_blocked')
              ELSE l.success OR l.failure_reason IN ('blocked', 'caller_blocked') END
        GROUP BY 1, 2, 3
    ), counted AS (
        SELECT f.project_id, f.provider_key_id, f.began, f.held, f.last_at, m.most,
               coalesce(pg_catalog.sum(f.held) OVER (
                   PARTITION BY f.project_id, f.provider_key_id ORDER BY f.began
                   RANGE BETWEEN span PRECEDING AND bucket PRECEDING), 0)::bigint AS before
        FROM filled f
        JOIN limits m ON m.project_id = f.project_id AND m.provider_key_id = f.provider_key_id
    ), numbered AS (
        SELECT c.*, c.before + c.held > c.most AND c.last_at >= since AS crossed,
               pg_catalog.count(*) FILTER (WHERE c.before <= c.most / 2) OVER (
                   PARTITION BY c.project_id, c.provider_key_id ORDER BY c.began ROWS UNBOUNDED PRECEDING) AS episode
        FROM counted c
    ), episodes AS (
        SELECT n.project_id, n.provider_key_id, n.most, pg_catalog.max(n.last_at) AS last_at,
               pg_catalog.max(n.before + n.held) FILTER (WHERE n.crossed) AS observed,
               (pg_catalog.array_agg(n.began ORDER BY n.began) FILTER (WHERE n.crossed))[1] AS began,
               (pg_catalog.array_agg(n.before ORDER BY n.began) FILTER (WHERE n.crossed))[1] AS before
        FROM numbered n
        GROUP BY n.project_id, n.provider_key_id, n.most, n.episode
        HAVING pg_catalog.bool_or(n.crossed)
    )
    SELECT e.project_id, e.provider_key_id, e.observed, e.most,
           GREATEST(since, (
               SELECT l.accessed_at
               FROM watchllm.provider_key_access_logs l
               WHERE l.project_id = e.project_id AND l.provider_key_id = e.provider_key_id
                 AND l.accessed_at >= e.began AND l.accessed_at < e.began + bucket
                 AND l.access_type IN ('decrypt', 'validate')
                 AND CASE WHEN failures
                     THEN NOT l.success
                          AND l.failure_reason NOT IN ('not_authorized', 'not_found', 'unknown_master_key', 'wrong_master_key', 'blocked',
                                            'caller_blocked')
                     ELSE l.success OR l.failure_reason IN ('blocked', 'caller_blocked') END
               ORDER BY l.accessed_at OFFSET GREATEST(e.most - e.before, 0) LIMIT 1)),
           e.last_at
    FROM episodes e;
END
$$;
COMMENT ON FUNCTION watchllm.key_access_episodes IS
    'Finds episodes in which a key was used, or failed, more often within a number of buckets than a setting allows; for the detectors.';

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
          AND l.access_type IN ('decrypt', 'validate') AND l.provider_key_id IS NOT NULL
          AND (l.success OR l.failure_reason IN ('blocked', 'caller_blocked'))
    ), limits AS MATERIALIZED (
        SELECT k.project_id, k.provider_key_id, k.held, watchllm.effective_setting(
                   'max_accesses_per_minute', k.project_id, k.provider_key_id)::bigint AS most
        FROM (
            SELECT a.project_id, a.provider_key_id, pg_catalog.count(*) AS held
            FROM accesses a GROUP BY 1, 2 HAVING pg_catalog.count(*) > lowest
        ) k
    ), counted AS (
        SELECT a.project_id, a.provider_key_id, a.accessed_at, m.most,
               pg_catalog.row_number() OVER (
                   PARTITION BY a.project_id, a.provider_key_id ORDER BY a.accessed_at)
               - pg_catalog.count(*) OVER (
                   PARTITION BY a.project_id, a.provider_key_id ORDER BY a.accessed_at
                   RANGE BETWEEN UNBOUNDED PRECEDING AND '60.000001 seconds'::interval PRECEDING) AS in_minute
        FROM accesses a
        JOIN limits m ON m.project_id = a.project_id AND m.provider_key_id = a.provider_key_id AND m.held > m.most
    ), numbered AS (
        SELECT c.*, c.in_minute > c.most AND c.accessed_at >= since AS crossed,
               pg_catalog.count(*) FILTER (WHERE c.in_minute - 1 <= c.most / 2) OVER (
                   PARTITION BY c.project_id, c.provider_key_id ORDER BY c.accessed_at, c.in_minute
                   ROWS UNBOUNDED PRECEDING) AS episode
        FROM counted c
    )
    SELECT 'rapid_automated_access', 'high', n.project_id, n.provider_key_id, NULL::text,
           pg_catalog.max(n.in_minute) FILTER (WHERE n.crossed), n.most,
           pg_catalog.min(n.accessed_at) FILTER (WHERE n.crossed), pg_catalog.max(n.accessed_at)
    FROM numbered n
    GROUP BY n.project_id, n.provider_key_id, n.most, n.episode
    HAVING pg_catalog.bool_or(n.crossed);
END
$$;
COMMENT ON FUNCTION watchllm.detect_rapid_automated_access IS
    'Finds keys that were used more than max_accesses_per_minute within 60 seconds; a row per episode.';

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
    FROM watchllm.key_access_episodes(since, until, 'max_accesses_per_hour', '1 minute', 60, false) e;
END
$$;
COMMENT ON FUNCTION watchllm.detect_potential_key_theft IS
    'Finds keys that were used more than max_accesses_per_hour within an hour; a row per episode.';

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
    FROM watchllm.key_access_episodes(since, until, 'max_accesses_per_day', '30 minutes', 48, false) e;
END
$$;
COMMENT ON FUNCTION watchllm.detect_unusually_high_access IS
    'Finds keys that were used more than max_accesses_per_day within a day; a row per episode.';

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
    FROM watchllm.key_access_episodes(since, until, 'max_failures_per_hour', '1 minute', 60, true) e;
END
$$;
COMMENT ON FUNCTION watchllm.detect_repeated_failures IS
    'Finds keys that failed to open more than max_failures_per_hour within an hour; a row per episode.';

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
    first_read CONSTANT timestamptz := watchllm.first_read(since, '1 microsecond', '60 seconds');
    last_read  CONSTANT timestamptz := coalesce(until, 'infinity');
BEGIN
    -- Who called as whom from where is the staff's to know.
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
          AND l.access_type IN ('decrypt', 'validate') AND l.provider_key_id IS NOT NULL
          AND (l.success OR l.failure_reason IN ('blocked', 'caller_blocked')) AND v.name <> ''
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
                   WHERE p.kind = d.kind AND p.subject = d.name AND p.day >= d.day - 7 AND p.day < d.day)) AS most
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

CREATE FUNCTION watchllm.key_newcomers(since timestamptz, until timestamptz, of_kind text)
RETURNS TABLE (project_id uuid, provider_key_id uuid, subject text, first_seen_at timestamptz)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
DECLARE
    first_read CONSTANT timestamptz := watchllm.first_read(since, '1 microsecond', '0');
    last_read  CONSTANT timestamptz := coalesce(until, 'infinity');
BEGIN
    IF NOT pg_catalog.has_column_privilege('watchllm.provider_key_callers', 'subject', 'SELECT') THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT c.project_id, c.provider_key_id, c.kind || ':' || c.subject, c.first_seen_at
    FROM watchllm.provider_key_callers c
    WHERE c.kind = of_kind AND c.first_seen_at >= first_read AND c.first_seen_at < last_read
      AND EXISTS (
        SELECT FROM watchllm.provider_key_callers k
        WHERE k.project_id = c.project_id AND k.provider_key_id = c.provider_key_id
          AND k.first_seen_at <= c.first_seen_at - '7 days'::interval);
END
$$;
COMMENT ON FUNCTION watchllm.key_newcomers IS
    'Finds callers of a kind that first used a key within a time, a week or more after its first use; for the detectors and the staff.';

CREATE FUNCTION watchllm.detect_new_address(since timestamptz, until timestamptz DEFAULT NULL)
RETURNS TABLE (
    detector text, severity text, project_id uuid, provider_key_id uuid, subject text, observed bigint, expected bigint,
    window_start timestamptz, window_end timestamptz)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT 'new_address', 'medium', n.project_id, n.provider_key_id, n.subject, 1::bigint, 0::bigint,
           n.first_seen_at, n.first_seen_at
    FROM watchllm.key_newcomers(since, until, 'address') n;
END
$$;
COMMENT ON FUNCTION watchllm.detect_new_address IS
    'Finds first uses of a key from a new address, when the key was in use for a week; for the staff.';

CREATE FUNCTION watchllm.detect_new_role(since timestamptz, until timestamptz DEFAULT NULL)
RETURNS TABLE (
    detector text, severity text, project_id uuid, provider_key_id uuid, subject text, observed bigint, expected bigint,
    window_start timestamptz, window_end timestamptz)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY
    SELECT 'new_role', 'low', n.project_id, n.provider_key_id, n.subject, 1::bigint, 0::bigint,
           n.first_seen_at, n.first_seen_at
    FROM watchllm.key_newcomers(since, until, 'role') n;
END
$$;
COMMENT ON FUNCTION watchllm.detect_new_role IS
    'Finds first uses of a key by a new database role, when the key was in use for a week; for the staff.';

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
    -- Who slept within the time shows in it; when the others were last used the index finds at once. An import is no
    -- access, but the key was not asleep where it comes from. Two days first: few keys need a look into all.
    RETURN QUERY
    WITH accesses AS MATERIALIZED (
        SELECT l.project_id, l.provider_key_id, l.accessed_at, l.access_type,
               pg_catalog.lag(l.accessed_at) OVER (
                   PARTITION BY l.project_id, l.provider_key_id ORDER BY l.accessed_at) AS previous_at
        FROM watchllm.provider_key_access_logs l
        WHERE l.accessed_at >= first_read AND l.accessed_at < last_read
          AND l.access_type IN ('decrypt', 'validate', 'import') AND l.provider_key_id IS NOT NULL
          AND (l.success OR l.failure_reason IN ('blocked', 'caller_blocked'))
    ), woken AS (
        SELECT a.project_id, a.provider_key_id, a.accessed_at, coalesce(a.previous_at, (
                   SELECT l.accessed_at FROM watchllm.provider_key_access_logs l
                   WHERE l.project_id = a.project_id AND l.provider_key_id = a.provider_key_id
                     AND l.accessed_at >= first_read - '48 hours'::interval AND l.accessed_at < first_read
                     AND l.access_type IN ('decrypt', 'validate', 'import')
                     AND (l.success OR l.failure_reason IN ('blocked', 'caller_blocked'))
                   ORDER BY l.accessed_at DESC LIMIT 1), (
                   SELECT l.accessed_at FROM watchllm.provider_key_access_logs l
                   WHERE l.project_id = a.project_id AND l.provider_key_id = a.provider_key_id
                     AND l.accessed_at < first_read AND l.access_type IN ('decrypt', 'validate', 'import')
                     AND (l.success OR l.failure_reason IN ('blocked', 'caller_blocked'))
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

CREATE FUNCTION watchllm.key_access_anomalies(since timestamptz, until timestamptz DEFAULT NULL)
RETURNS TABLE (
    detector text, severity text, project_id uuid, provider_key_id uuid, subject text, observed bigint, expected bigint,
    window_start timestamptz, window_end timestamptz)
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY SELECT d.* FROM watchllm.detect_rapid_automated_access(since, until) d;
    RETURN QUERY SELECT d.* FROM watchllm.detect_potential_key_theft(since, until) d;
    RETURN QUERY SELECT d.* FROM watchllm.detect_unusually_high_access(since, until) d;
    RETURN QUERY SELECT d.* FROM watchllm.detect_repeated_failures(since, until) d;
    RETURN QUERY SELECT d.* FROM watchllm.detect_mass_key_reading(since, until) d;
    RETURN QUERY SELECT d.* FROM watchllm.detect_new_address(since, until) d;
    RETURN QUERY SELECT d.* FROM watchllm.detect_new_role(since, until) d;
    RETURN QUERY SELECT d.* FROM watchllm.detect_dormant_key_used(since, until) d;
END
$$;
COMMENT ON FUNCTION watchllm.key_access_anomalies IS
    'Shows what all detectors find in a time: tenants of their own keys, the staff of all keys and callers.';
