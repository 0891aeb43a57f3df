-- The watch looking back: what the live counters (core/src/anomaly) see, by windows over the
-- trail, for any time that the trail still holds. A function per detector, each in a file of its
-- own (sql/anomalies), all with the same columns. They run with the rights of whoever asks, so that
-- row security shows tenants their own. Each reads the days it needs and no other: a filter on a
-- view over windows is not pushed down. Plans are made anew each time, so that they know the days.
--
-- A minute is the 60 seconds that end with an access, both ends included. An hour is 60 minutes of
-- the clock and a day 48 half hours of it (UTC), the present one included. An episode begins with
-- the access that crosses a limit, and ends when half the limit is left.

-- What counts for a key stands here and in Counted::of (core/src/trail/event.rs), nowhere else; a
-- test compares the two. What was blocked would have been opened: it counts as an access. Callers
-- without the right harm nobody's key by failing on it. A master key that is lost or wrong is the
-- vault's own fault and counts for no key. The planner puts the body in the place of the call and
-- leaves only the branch of the word. For that reason it has no SET search_path. It needs none: it
-- was resolved when it was made.
CREATE FUNCTION watchllm.counts_as(counted text, access_type text, success boolean, failure_reason text)
RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN access_type IN ('decrypt', 'validate') AND CASE counted
    WHEN 'access' THEN success OR failure_reason IN ('blocked', 'caller_blocked')
    WHEN 'failure' THEN NOT success AND failure_reason NOT IN (
        'blocked', 'caller_blocked', 'not_found', 'not_authorized', 'unknown_master_key', 'wrong_master_key')
    END;
COMMENT ON FUNCTION watchllm.counts_as IS
    'Internal. Tells whether an event counts for its key as an access or as a failure; most events count as neither.';

CREATE FUNCTION watchllm.first_read(since timestamptz, bucket interval, span interval) RETURNS timestamptz
LANGUAGE plpgsql STABLE PARALLEL UNSAFE
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF since IS NULL THEN
        RAISE EXCEPTION 'since must not be null'
            USING ERRCODE = 'null_value_not_allowed', DETAIL = 'bad_input', HINT = 'Give a time, such as now() - interval ''1 hour''.';
    ELSIF pg_catalog.to_regclass('watchllm.provider_key_access_logs') IS NULL THEN
        RAISE EXCEPTION 'watchllm_keys is not installed in this database'
            USING ERRCODE = 'object_not_in_prerequisite_state', DETAIL = 'not_installed', HINT = 'Run: SELECT watchllm.install();';
    END IF;
    RETURN pg_catalog.date_bin(bucket, since, '2000-01-01 00:00:00+00'::timestamptz) - span;
END
$$;
COMMENT ON FUNCTION watchllm.first_read IS
    'Internal. Tells from when on a detector must read the trail to count in buckets for a time; for the detectors.';

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
    -- A row's window is the rows before it, without those before the window. So rows of one
    -- microsecond count one by one.
    RETURN QUERY
    WITH attempts AS (
        SELECT l.accessed_at, l.id, l.project_id, l.provider_key_id,
               CASE WHEN l.claims_trusted THEN l.claims_sub END AS claims_sub,
               watchllm.counts_as('failure', l.access_type, l.success, l.failure_reason) AS failed,
               pg_catalog.date_bin('1 minute', l.accessed_at, '2000-01-01 00:00:00+00'::timestamptz) AS in_minute,
               pg_catalog.date_bin('30 minutes', l.accessed_at, '2000-01-01 00:00:00+00'::timestamptz) AS in_half_hour
        FROM watchllm.provider_key_access_logs l
        WHERE l.accessed_at >= first_read AND l.accessed_at < last_read
          AND (watchllm.counts_as('access', l.access_type, l.success, l.failure_reason)
               OR watchllm.counts_as('failure', l.access_type, l.success, l.failure_reason))
          AND l.provider_key_id IS NOT NULL
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
    since timestamptz, until timestamptz, setting text, bucket interval, buckets integer, of_kind text)
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
    -- First the keys that can have crossed a limit at all: most have not. Within a bucket the count
    -- only grows, so its values at the beginning and the end are enough.
    RETURN QUERY
    WITH limits AS MATERIALIZED (
        SELECT k.project_id, k.provider_key_id, k.held,
               watchllm.effective_setting(setting, k.project_id, k.provider_key_id)::bigint AS most
        FROM (
            SELECT l.project_id, l.provider_key_id, pg_catalog.count(*) AS held
            FROM watchllm.provider_key_access_logs l
            WHERE l.accessed_at >= first_read AND l.accessed_at < last_read
              AND watchllm.counts_as(of_kind, l.access_type, l.success, l.failure_reason)
              AND l.provider_key_id IS NOT NULL
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
          AND watchllm.counts_as(of_kind, l.access_type, l.success, l.failure_reason)
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
                 AND watchllm.counts_as(of_kind, l.access_type, l.success, l.failure_reason)
               ORDER BY l.accessed_at OFFSET GREATEST(e.most - e.before, 0) LIMIT 1)),
           e.last_at
    FROM episodes e;
END
$$;
COMMENT ON FUNCTION watchllm.key_access_episodes IS
    'Internal. Finds episodes in which a key was used, or failed, more often within a number of buckets than a setting allows; for the detectors.';

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
    'Internal. Finds callers of a kind that first used a key within a time, a week or more after its first use; for the detectors and the staff.';

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
