-- The views for people and dashboards, and the inbox for keys; access_logs is in trail.sql.
-- security_invoker: each view reads the tables under its reader's own grants and row security, so
-- it shows no more than a direct SELECT. So none needs security_barrier. Row security puts its own
-- barrier on the tables, and a reader may read what a view's WHERE leaves out.

CREATE OR REPLACE VIEW watchllm.provider_keys WITH (security_invoker = true) AS
SELECT r.id,
       r.project_id,
       r.provider,
       r.name,
       r.priority,
       r.is_active,
       r.created_at,
       r.updated_at,
       u.last_used_at,
       r.rotation_required_at,
       u.last_rotation_alert_sent_at,
       u.access_anomaly_detected_at
FROM watchllm.provider_key_records r
LEFT JOIN watchllm.provider_key_usage u ON u.project_id = r.project_id AND u.provider_key_id = r.id
WHERE r.deleted_at IS NULL;

-- Ages count from the active version. OFFSET 0 makes each setting be asked for once per key. Counts
-- are those of the writer: the present half hour and the 47 before it.
CREATE OR REPLACE VIEW watchllm.provider_key_security_summary WITH (security_invoker = true) AS
SELECT r.id,
       r.id AS provider_key_id,
       r.project_id,
       r.provider,
       r.name,
       r.is_active,
       r.created_at,
       u.last_used_at,
       pg_catalog.floor(EXTRACT(epoch FROM pg_catalog.now() - r.active_version_created_at) / 86400)::integer AS days_old,
       pg_catalog.floor(EXTRACT(epoch FROM pg_catalog.now() - u.last_used_at) / 86400)::integer AS days_since_last_use,
       coalesce((SELECT pg_catalog.sum(a.n) FROM pg_catalog.unnest(u.accesses[1:48 - h.passed]) AS a (n)), 0)::bigint
           AS accesses_24h,
       coalesce((SELECT pg_catalog.sum(f.n) FROM pg_catalog.unnest(u.failures[1:48 - h.passed]) AS f (n)), 0)::bigint
           AS failures_24h,
       coalesce(u.failure_count, 0) AS failed_accesses,
       CASE WHEN d.is_due THEN 'Rotation Required' WHEN d.warn_at <= pg_catalog.now() THEN 'Rotation Soon'
            ELSE 'Secure' END AS security_status,
       d.is_due AS rotation_required,
       u.last_used_at IS NULL AS never_used,
       coalesce(u.last_used_at, r.created_at) < pg_catalog.now() - s.stale_after AS is_stale,
       u.access_anomaly_detected_at IS NOT NULL AS has_anomaly,
       coalesce(u.access_anomaly_detected_at > pg_catalog.now() - '24 hours'::interval, false) AS has_recent_anomaly,
       u.blocked_at IS NOT NULL AS is_blocked,
       r.compromised_at IS NOT NULL AS is_compromised,
       d.due_at AS rotation_due_at
FROM watchllm.provider_key_records r
LEFT JOIN watchllm.provider_key_usage u ON u.project_id = r.project_id AND u.provider_key_id = r.id
CROSS JOIN LATERAL (
    SELECT watchllm.effective_setting('rotation_warn_after', r.project_id, r.id)::interval AS warn_after,
           watchllm.effective_setting('rotation_required_after', r.project_id, r.id)::interval AS required_after,
           watchllm.effective_setting('stale_after', r.project_id, r.id)::interval AS stale_after OFFSET 0) s
CROSS JOIN LATERAL (
    SELECT LEAST(r.rotation_required_at,
                 r.active_version_created_at + coalesce(r.rotation_interval, s.required_after)) AS due_at) t
CROSS JOIN LATERAL (
    SELECT t.due_at, r.compromised_at IS NOT NULL OR t.due_at <= pg_catalog.now() AS is_due,
           r.active_version_created_at + coalesce(r.rotation_interval * (2.0 / 3)::float8, s.warn_after) AS warn_at) d
CROSS JOIN LATERAL (
    SELECT GREATEST(0, LEAST(48, EXTRACT(epoch FROM pg_catalog.date_bin(
               '30 minutes', pg_catalog.now(), '2000-01-01 00:00:00+00') - u.bucket_start) / 1800))::integer AS passed) h
WHERE r.deleted_at IS NULL;

CREATE OR REPLACE VIEW watchllm.open_incidents WITH (security_invoker = true) AS
SELECT i.id,
       i.type,
       i.severity,
       i.project_id,
       i.provider_key_id,
       i.details,
       i.detected_at,
       (SELECT pg_catalog.min(e.at) FROM watchllm.incident_events e
        WHERE e.incident_id = i.id AND e.event = 'ended') AS ended_at
FROM watchllm.security_incidents i
WHERE NOT EXISTS (
    SELECT FROM watchllm.incident_events e WHERE e.incident_id = i.id AND e.event = 'acknowledged');

-- The count goes on here; the incident stays as it was when the source was cut off.
CREATE OR REPLACE VIEW watchllm.cut_off_sources WITH (security_invoker = true) AS
SELECT s.day,
       s.kind,
       s.name,
       s.database,
       s.channel,
       s.project_id,
       s.cut_off_at,
       s.held_back,
       s.last_at,
       s.incident_id
FROM watchllm.incident_sources s
WHERE s.held_back > 0;

CREATE OR REPLACE VIEW watchllm.key_access_rates WITH (security_invoker = true) AS
SELECT r.accessed_at, r.project_id, r.provider_key_id, r.claims_sub, r.failed, r.accesses_minute, r.accesses_hour,
       r.accesses_day, r.failures_hour
FROM watchllm.key_access_rates(pg_catalog.now() - '24 hours'::interval) r;

CREATE OR REPLACE VIEW watchllm.key_access_anomalies WITH (security_invoker = true) AS
SELECT a.detector, a.severity, a.project_id, a.provider_key_id, a.subject, a.observed, a.expected, a.window_start,
       a.window_end
FROM watchllm.key_access_anomalies(pg_catalog.now() - '24 hours'::interval) a;

-- A row for each key and limit. The past is what the writer stored, of the seven UTC days before
-- today; the first entry of its arrays is of busiest_on. OFFSET 0 makes each setting be asked for
-- once.
CREATE OR REPLACE VIEW watchllm.key_access_limits WITH (security_invoker = true) AS
SELECT r.project_id,
       r.id AS provider_key_id,
       r.name,
       l.detector,
       l.setting,
       s.stated,
       s.basis,
       u.used_since,
       p.busiest_before,
       p.busiest_today,
       CASE WHEN s.basis <> 'fixed' AND u.used_since <= d.today - 7
            THEN GREATEST(s.stated, LEAST(3 * p.busiest_before, l.greatest_allowed)) ELSE s.stated END AS allowed
FROM watchllm.provider_key_records r
LEFT JOIN watchllm.provider_key_usage u ON u.project_id = r.project_id AND u.provider_key_id = r.id
CROSS JOIN (SELECT (pg_catalog.now() AT TIME ZONE 'UTC')::date AS today OFFSET 0) d
CROSS JOIN LATERAL (
    VALUES ('rapid_automated_access', 'max_accesses_per_minute', u.busiest_minute, 100000),
           ('potential_key_theft', 'max_accesses_per_hour', u.busiest_hour, 2147483647),
           ('unusually_high_access', 'max_accesses_per_day', u.busiest_day, 2147483647)
) l (detector, setting, busiest, greatest_allowed)
CROSS JOIN LATERAL (
    SELECT watchllm.effective_setting(l.setting, r.project_id, r.id)::bigint AS stated,
           watchllm.effective_setting('limit_basis', r.project_id, r.id) AS basis OFFSET 0) s
CROSS JOIN LATERAL (
    SELECT coalesce(pg_catalog.max(b.n) FILTER (WHERE d.today - u.busiest_on + b.place - 1 BETWEEN 1 AND 7), 0)::bigint
               AS busiest_before,
           coalesce(pg_catalog.max(b.n) FILTER (WHERE d.today - u.busiest_on + b.place - 1 = 0), 0)::bigint
               AS busiest_today
    FROM pg_catalog.unnest(l.busiest) WITH ORDINALITY AS b (n, place)) p
WHERE r.deleted_at IS NULL;

-- Never holds a row: its trigger stores each inserted row as a key.
CREATE OR REPLACE VIEW watchllm.provider_key_inbox WITH (security_invoker = true) AS
SELECT NULL::uuid AS project_id, NULL::text AS provider, NULL::text AS name, NULL::text AS api_key
WHERE false;
DO $$
BEGIN
    IF NOT EXISTS (
        SELECT FROM pg_catalog.pg_trigger t
        WHERE t.tgrelid = 'watchllm.provider_key_inbox'::pg_catalog.regclass AND t.tgname = 'store_from_inbox')
    THEN
        CREATE TRIGGER store_from_inbox INSTEAD OF INSERT ON watchllm.provider_key_inbox
            FOR EACH ROW EXECUTE FUNCTION watchllm.store_from_inbox();
    END IF;
END
$$;

DO $$
DECLARE
    view_name name;
    grantee   text;
BEGIN
    FOREACH view_name IN ARRAY ARRAY['provider_keys', 'provider_key_security_summary', 'access_logs', 'open_incidents', 'cut_off_sources',
        'key_access_rates', 'key_access_anomalies', 'key_access_limits', 'provider_key_inbox']::pg_catalog.name[] LOOP
        -- A new view still belongs to the role that runs install(). Privileges that default
        -- privileges gave are revoked.
        FOR grantee IN
            SELECT 'PUBLIC'
            UNION
            SELECT pg_catalog.quote_ident(r.rolname) FROM pg_catalog.pg_roles r
            WHERE r.rolname IN ('anon', 'authenticated', 'service_role')
            UNION
            SELECT pg_catalog.quote_ident(g.rolname)
            FROM pg_catalog.pg_class c
            CROSS JOIN LATERAL pg_catalog.aclexplode(c.relacl) a
            JOIN pg_catalog.pg_roles g ON g.oid = a.grantee
            WHERE c.oid = pg_catalog.format('watchllm.%I', view_name)::pg_catalog.regclass
              AND c.relowner <> 'watchllm_owner'::pg_catalog.regrole
              AND a.grantee <> c.relowner
        LOOP
            EXECUTE pg_catalog.format('REVOKE ALL ON TABLE watchllm.%I FROM %s', view_name, grantee);
        END LOOP;
        IF EXISTS (
            SELECT FROM pg_catalog.pg_class c
            WHERE c.oid = pg_catalog.format('watchllm.%I', view_name)::pg_catalog.regclass
              AND c.relowner <> 'watchllm_owner'::pg_catalog.regrole
        ) THEN
            EXECUTE pg_catalog.format('ALTER VIEW watchllm.%I OWNER TO watchllm_owner', view_name);
        END IF;
    END LOOP;
END
$$;

GRANT SELECT ON watchllm.provider_keys TO watchllm_admin, watchllm_auditor, watchllm_service, watchllm_tenant;
-- SELECT is for RETURNING alone: the view has no rows. The key's column cannot be asked for.
GRANT INSERT ON watchllm.provider_key_inbox TO watchllm_admin, watchllm_service, watchllm_tenant;
GRANT SELECT (project_id, provider, name) ON watchllm.provider_key_inbox
    TO watchllm_admin, watchllm_service, watchllm_tenant;
GRANT SELECT ON watchllm.open_incidents TO watchllm_admin, watchllm_auditor, watchllm_tenant;
GRANT SELECT ON watchllm.cut_off_sources TO watchllm_admin, watchllm_auditor;
GRANT SELECT ON watchllm.access_logs TO watchllm_admin, watchllm_auditor, watchllm_tenant;
GRANT SELECT ON watchllm.key_access_rates TO watchllm_admin, watchllm_auditor, watchllm_tenant;
GRANT SELECT ON watchllm.key_access_anomalies TO watchllm_admin, watchllm_auditor, watchllm_tenant;
GRANT SELECT ON watchllm.key_access_limits TO watchllm_admin, watchllm_auditor, watchllm_tenant;
GRANT SELECT ON watchllm.provider_key_security_summary
    TO watchllm_admin, watchllm_auditor, watchllm_service, watchllm_tenant;
