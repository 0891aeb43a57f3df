-- A key's own past, beside its counters: since when it is in use, and its busiest minute, hour and
-- day of today and the seven days before. Only the writer writes it, whole, with each count. Where
-- nobody has counted yet, the next writer counts the week from the trail.

ALTER TABLE watchllm.provider_key_usage
    ADD COLUMN used_since     date,
    ADD COLUMN busiest_on     date,
    ADD COLUMN busiest_minute integer[],
    ADD COLUMN busiest_hour   integer[],
    ADD COLUMN busiest_day    integer[];

-- The trail of a week does not tell that a key which rested was used before.
UPDATE watchllm.provider_key_usage u SET used_since = c.used_since
FROM (
    SELECT k.project_id, k.provider_key_id, pg_catalog.min((k.first_seen_at AT TIME ZONE 'UTC')::date) AS used_since
    FROM watchllm.provider_key_callers k GROUP BY 1, 2
) c
WHERE c.project_id = u.project_id AND c.provider_key_id = u.provider_key_id;
