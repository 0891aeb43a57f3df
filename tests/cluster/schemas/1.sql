-- A vault of schema version 1 with its rows, frozen: tests/cluster/migrations.rs brings it to today's version.
-- Made by pg_dump --no-comments of PostgreSQL 15, without empty partitions, comments, empty lines and \restrict, under
-- the keyring "1:an-old-master-key-that-is-no-secret". A released version gets such a file, which never changes.

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;
CREATE SCHEMA watchllm;
ALTER SCHEMA watchllm OWNER TO postgres;
CREATE EXTENSION IF NOT EXISTS watchllm_keys WITH SCHEMA watchllm;
SET default_tablespace = '';
SET default_table_access_method = heap;
CREATE TABLE watchllm.committed_changes (
    event_id uuid NOT NULL,
    project_id uuid
);
ALTER TABLE ONLY watchllm.committed_changes FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.committed_changes OWNER TO watchllm_owner;
CREATE TABLE watchllm.provider_key_access_logs (
    seq bigint NOT NULL,
    id uuid NOT NULL,
    accessed_at timestamp with time zone NOT NULL,
    project_id uuid,
    provider_key_id uuid,
    provider text,
    key_version integer,
    access_type text NOT NULL,
    success boolean NOT NULL,
    failure_reason text,
    attempt_count integer DEFAULT 1 NOT NULL,
    ip_address text,
    user_agent text,
    request_id text,
    session_role text NOT NULL,
    effective_role text NOT NULL,
    role_setting text,
    claims_sub text,
    claims_trusted boolean NOT NULL,
    client_addr inet,
    backend_pid integer NOT NULL,
    application_name text,
    txid xid8,
    epoch bigint NOT NULL,
    queue_seq bigint NOT NULL,
    identity_id uuid NOT NULL,
    chain_key_version integer NOT NULL,
    hash bytea NOT NULL
)
PARTITION BY RANGE (accessed_at);
ALTER TABLE ONLY watchllm.provider_key_access_logs ALTER COLUMN ip_address SET STATISTICS 0;
ALTER TABLE ONLY watchllm.provider_key_access_logs ALTER COLUMN user_agent SET STATISTICS 0;
ALTER TABLE ONLY watchllm.provider_key_access_logs ALTER COLUMN request_id SET STATISTICS 0;
ALTER TABLE ONLY watchllm.provider_key_access_logs ALTER COLUMN claims_sub SET STATISTICS 0;
ALTER TABLE ONLY watchllm.provider_key_access_logs FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.provider_key_access_logs OWNER TO watchllm_owner;
CREATE VIEW watchllm.access_logs WITH (security_invoker='true') AS
 SELECT l.accessed_at,
    l.id,
    l.project_id,
    l.provider_key_id,
    l.provider,
    l.key_version,
    l.access_type,
    l.success,
    l.failure_reason,
    l.attempt_count,
    l.ip_address,
    l.user_agent,
    l.request_id,
    l.claims_sub,
    l.claims_trusted,
    ((NOT l.success) OR (l.access_type = ANY (ARRAY['decrypt'::text, 'validate'::text])) OR (EXISTS ( SELECT
           FROM watchllm.committed_changes c
          WHERE (c.event_id = l.id)))) AS committed
   FROM watchllm.provider_key_access_logs l;
ALTER TABLE watchllm.access_logs OWNER TO watchllm_owner;
CREATE TABLE watchllm.adopted_tables (
    id uuid NOT NULL,
    schema_name name NOT NULL,
    table_name name NOT NULL,
    id_column name NOT NULL,
    owner_column name NOT NULL,
    name_column name,
    adopted_by name NOT NULL,
    adopted_at timestamp with time zone DEFAULT now() NOT NULL
);
ALTER TABLE ONLY watchllm.adopted_tables FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.adopted_tables OWNER TO watchllm_owner;
CREATE TABLE watchllm.audit_checkpoints (
    identity_id uuid NOT NULL,
    seq bigint NOT NULL,
    at timestamp with time zone NOT NULL,
    accessed_at timestamp with time zone NOT NULL,
    hash bytea NOT NULL,
    chain_key_version integer NOT NULL,
    reason text NOT NULL,
    digest_key_version integer,
    signature bytea,
    CONSTRAINT audit_checkpoints_chain_key_version_check CHECK ((chain_key_version > 0)),
    CONSTRAINT audit_checkpoints_digest_key_version_check CHECK ((digest_key_version > 0)),
    CONSTRAINT audit_checkpoints_hash_check CHECK ((octet_length(hash) = 32)),
    CONSTRAINT audit_checkpoints_reason_check CHECK ((reason = ANY (ARRAY['time'::text, 'digest'::text, 'prune'::text, 'adopt'::text]))),
    CONSTRAINT audit_checkpoints_seq_check CHECK ((seq > 0)),
    CONSTRAINT audit_checkpoints_signature_check CHECK ((octet_length(signature) = 64)),
    CONSTRAINT audit_checkpoints_signed CHECK (((signature IS NULL) = (digest_key_version IS NULL)))
);
ALTER TABLE ONLY watchllm.audit_checkpoints FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.audit_checkpoints OWNER TO watchllm_owner;
CREATE TABLE watchllm.audit_keys (
    kind text NOT NULL,
    version integer NOT NULL,
    master_key_version integer NOT NULL,
    envelope bytea NOT NULL,
    public_key bytea,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT audit_keys_envelope_header CHECK (("substring"(envelope, 1, 5) = ('\x01'::bytea || int4send(master_key_version)))),
    CONSTRAINT audit_keys_envelope_length CHECK (((octet_length(envelope) >= 50) AND (octet_length(envelope) <= 4145))),
    CONSTRAINT audit_keys_kind_check CHECK ((kind = ANY (ARRAY['fingerprint'::text, 'mac'::text, 'digest'::text]))),
    CONSTRAINT audit_keys_master_key_version_check CHECK ((master_key_version > 0)),
    CONSTRAINT audit_keys_public_key_check CHECK ((octet_length(public_key) = 32)),
    CONSTRAINT audit_keys_public_key_of_digest CHECK (((kind = 'digest'::text) = (public_key IS NOT NULL))),
    CONSTRAINT audit_keys_version_check CHECK ((version > 0))
);
ALTER TABLE ONLY watchllm.audit_keys FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.audit_keys OWNER TO watchllm_owner;
CREATE TABLE watchllm.blocked_callers (
    kind text NOT NULL,
    subject text NOT NULL,
    blocked_at timestamp with time zone NOT NULL,
    incident_id uuid,
    note text,
    CONSTRAINT blocked_callers_kind_check CHECK ((kind = ANY (ARRAY['subject'::text, 'role'::text, 'address'::text]))),
    CONSTRAINT blocked_callers_note_check CHECK ((octet_length(note) <= 500)),
    CONSTRAINT blocked_callers_subject_check CHECK (((octet_length(subject) >= 1) AND (octet_length(subject) <= 128)))
);
ALTER TABLE ONLY watchllm.blocked_callers FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.blocked_callers OWNER TO watchllm_owner;
CREATE TABLE watchllm.caller_peaks (
    kind text NOT NULL,
    subject text NOT NULL,
    day date NOT NULL,
    distinct_keys integer NOT NULL,
    CONSTRAINT caller_peaks_distinct_keys_check CHECK ((distinct_keys > 0)),
    CONSTRAINT caller_peaks_kind_check CHECK ((kind = ANY (ARRAY['subject'::text, 'role'::text, 'address'::text]))),
    CONSTRAINT caller_peaks_subject_check CHECK (((octet_length(subject) >= 1) AND (octet_length(subject) <= 128)))
)
WITH (fillfactor='70');
ALTER TABLE ONLY watchllm.caller_peaks FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.caller_peaks OWNER TO watchllm_owner;
CREATE TABLE watchllm.database_identity (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    system_identifier bigint NOT NULL,
    database_oid oid NOT NULL,
    database_name name NOT NULL,
    reason text NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT database_identity_reason_check CHECK (((octet_length(reason) >= 1) AND (octet_length(reason) <= 500)))
);
ALTER TABLE ONLY watchllm.database_identity FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.database_identity OWNER TO watchllm_owner;
CREATE TABLE watchllm.incident_events (
    id uuid NOT NULL,
    incident_id uuid NOT NULL,
    project_id uuid,
    event text NOT NULL,
    note text,
    by text NOT NULL,
    at timestamp with time zone NOT NULL,
    CONSTRAINT incident_events_by_check CHECK (((octet_length(by) >= 1) AND (octet_length(by) <= 128))),
    CONSTRAINT incident_events_event_check CHECK ((event = ANY (ARRAY['acknowledged'::text, 'ended'::text, 'note'::text]))),
    CONSTRAINT incident_events_note_check CHECK ((octet_length(note) <= 500))
);
ALTER TABLE ONLY watchllm.incident_events FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.incident_events OWNER TO watchllm_owner;
CREATE TABLE watchllm.install_history (
    schema_version integer NOT NULL,
    extension_version text NOT NULL,
    installed_at timestamp with time zone DEFAULT now() NOT NULL,
    installed_by name DEFAULT SESSION_USER NOT NULL,
    CONSTRAINT install_history_extension_version_check CHECK (((octet_length(extension_version) >= 1) AND (octet_length(extension_version) <= 63))),
    CONSTRAINT install_history_schema_version_check CHECK ((schema_version > 0))
);
ALTER TABLE ONLY watchllm.install_history FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.install_history OWNER TO watchllm_owner;
CREATE VIEW watchllm.key_access_anomalies WITH (security_invoker='true') AS
 SELECT a.detector,
    a.severity,
    a.project_id,
    a.provider_key_id,
    a.subject,
    a.observed,
    a.expected,
    a.window_start,
    a.window_end
   FROM watchllm.key_access_anomalies((now() - '24:00:00'::interval)) a(detector, severity, project_id, provider_key_id, subject, observed, expected, window_start, window_end);
ALTER TABLE watchllm.key_access_anomalies OWNER TO watchllm_owner;
CREATE VIEW watchllm.key_access_rates WITH (security_invoker='true') AS
 SELECT r.accessed_at,
    r.project_id,
    r.provider_key_id,
    r.claims_sub,
    r.failed,
    r.accesses_minute,
    r.accesses_hour,
    r.accesses_day,
    r.failures_hour
   FROM watchllm.key_access_rates((now() - '24:00:00'::interval)) r(accessed_at, project_id, provider_key_id, claims_sub, failed, accesses_minute, accesses_hour, accesses_day, failures_hour);
ALTER TABLE watchllm.key_access_rates OWNER TO watchllm_owner;
CREATE TABLE watchllm.master_keys (
    version integer NOT NULL,
    salt bytea NOT NULL,
    iterations integer NOT NULL,
    canary bytea NOT NULL,
    is_active boolean NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    retired_at timestamp with time zone,
    CONSTRAINT master_keys_active_is_not_retired CHECK (((NOT is_active) OR (retired_at IS NULL))),
    CONSTRAINT master_keys_canary_header CHECK (("substring"(canary, 1, 5) = ('\x01'::bytea || int4send(version)))),
    CONSTRAINT master_keys_canary_length CHECK (((octet_length(canary) >= 50) AND (octet_length(canary) <= 4145))),
    CONSTRAINT master_keys_iterations_check CHECK ((iterations >= 100000)),
    CONSTRAINT master_keys_salt_check CHECK ((octet_length(salt) = 16)),
    CONSTRAINT master_keys_version_check CHECK ((version > 0))
);
ALTER TABLE ONLY watchllm.master_keys FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.master_keys OWNER TO watchllm_owner;
CREATE TABLE watchllm.security_incidents (
    id uuid NOT NULL,
    type text NOT NULL,
    severity text NOT NULL,
    project_id uuid,
    provider_key_id uuid,
    details jsonb DEFAULT '{}'::jsonb NOT NULL,
    detected_at timestamp with time zone NOT NULL,
    CONSTRAINT security_incidents_details_check CHECK ((jsonb_typeof(details) = 'object'::text)),
    CONSTRAINT security_incidents_severity_check CHECK ((severity = ANY (ARRAY['low'::text, 'medium'::text, 'high'::text, 'critical'::text]))),
    CONSTRAINT security_incidents_type_check CHECK (((octet_length(type) >= 1) AND (octet_length(type) <= 63)))
);
ALTER TABLE ONLY watchllm.security_incidents FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.security_incidents OWNER TO watchllm_owner;
CREATE VIEW watchllm.open_incidents WITH (security_invoker='true') AS
 SELECT i.id,
    i.type,
    i.severity,
    i.project_id,
    i.provider_key_id,
    i.details,
    i.detected_at,
    ( SELECT min(e.at) AS min
           FROM watchllm.incident_events e
          WHERE ((e.incident_id = i.id) AND (e.event = 'ended'::text))) AS ended_at
   FROM watchllm.security_incidents i
  WHERE (NOT (EXISTS ( SELECT
           FROM watchllm.incident_events e
          WHERE ((e.incident_id = i.id) AND (e.event = 'acknowledged'::text)))));
ALTER TABLE watchllm.open_incidents OWNER TO watchllm_owner;
CREATE TABLE watchllm.project_members (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    project_id uuid NOT NULL,
    subject text,
    role_name name,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT project_members_one_of_subject_and_role CHECK ((num_nonnulls(subject, role_name) = 1)),
    CONSTRAINT project_members_role_name_check CHECK ((role_name <> ''::name)),
    CONSTRAINT project_members_subject_check CHECK (((octet_length(subject) >= 1) AND (octet_length(subject) <= 128)))
);
ALTER TABLE ONLY watchllm.project_members FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.project_members OWNER TO watchllm_owner;
CREATE TABLE watchllm.projects (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    owner_id text,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    deleted_at timestamp with time zone,
    adopted_table_id uuid,
    CONSTRAINT projects_name_check CHECK (((octet_length(name) >= 1) AND (octet_length(name) <= 100))),
    CONSTRAINT projects_owner_id_check CHECK (((octet_length(owner_id) >= 1) AND (octet_length(owner_id) <= 128)))
);
ALTER TABLE ONLY watchllm.projects ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE ONLY watchllm.projects ALTER COLUMN owner_id SET STATISTICS 0;
ALTER TABLE ONLY watchllm.projects FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.projects OWNER TO watchllm_owner;
CREATE TABLE watchllm.provider_key_access_logs_20261128 (
    seq bigint NOT NULL,
    id uuid NOT NULL,
    accessed_at timestamp with time zone NOT NULL,
    project_id uuid,
    provider_key_id uuid,
    provider text,
    key_version integer,
    access_type text NOT NULL,
    success boolean NOT NULL,
    failure_reason text,
    attempt_count integer DEFAULT 1 NOT NULL,
    ip_address text,
    user_agent text,
    request_id text,
    session_role text NOT NULL,
    effective_role text NOT NULL,
    role_setting text,
    claims_sub text,
    claims_trusted boolean NOT NULL,
    client_addr inet,
    backend_pid integer NOT NULL,
    application_name text,
    txid xid8,
    epoch bigint NOT NULL,
    queue_seq bigint NOT NULL,
    identity_id uuid NOT NULL,
    chain_key_version integer NOT NULL,
    hash bytea NOT NULL
);
ALTER TABLE ONLY watchllm.provider_key_access_logs_20261128 ALTER COLUMN ip_address SET STATISTICS 0;
ALTER TABLE ONLY watchllm.provider_key_access_logs_20261128 ALTER COLUMN user_agent SET STATISTICS 0;
ALTER TABLE ONLY watchllm.provider_key_access_logs_20261128 ALTER COLUMN request_id SET STATISTICS 0;
ALTER TABLE ONLY watchllm.provider_key_access_logs_20261128 ALTER COLUMN claims_sub SET STATISTICS 0;
ALTER TABLE ONLY watchllm.provider_key_access_logs_20261128 FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.provider_key_access_logs_20261128 OWNER TO watchllm_owner;
CREATE TABLE watchllm.provider_key_callers (
    project_id uuid NOT NULL,
    provider_key_id uuid NOT NULL,
    kind text NOT NULL,
    subject text NOT NULL,
    first_seen_at timestamp with time zone NOT NULL,
    last_seen_at timestamp with time zone NOT NULL,
    CONSTRAINT provider_key_callers_kind_check CHECK ((kind = ANY (ARRAY['subject'::text, 'role'::text, 'address'::text]))),
    CONSTRAINT provider_key_callers_subject_check CHECK (((octet_length(subject) >= 1) AND (octet_length(subject) <= 128)))
)
WITH (fillfactor='70');
ALTER TABLE ONLY watchllm.provider_key_callers FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.provider_key_callers OWNER TO watchllm_owner;
CREATE VIEW watchllm.provider_key_inbox WITH (security_invoker='true') AS
 SELECT NULL::uuid AS project_id,
    NULL::text AS provider,
    NULL::text AS name,
    NULL::text AS api_key
  WHERE false;
ALTER TABLE watchllm.provider_key_inbox OWNER TO watchllm_owner;
CREATE TABLE watchllm.provider_key_records (
    id uuid NOT NULL,
    project_id uuid NOT NULL,
    provider text NOT NULL,
    name text,
    key_hint text NOT NULL,
    priority integer NOT NULL,
    is_active boolean DEFAULT true NOT NULL,
    active_version integer NOT NULL,
    active_version_created_at timestamp with time zone NOT NULL,
    rotation_interval interval,
    rotation_required_at timestamp with time zone,
    compromised_at timestamp with time zone,
    deleted_at timestamp with time zone,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT provider_key_records_active_version_check CHECK ((active_version > 0)),
    CONSTRAINT provider_key_records_key_hint_check CHECK ((octet_length(key_hint) <= 63)),
    CONSTRAINT provider_key_records_name_check CHECK (((octet_length(name) >= 1) AND (octet_length(name) <= 100))),
    CONSTRAINT provider_key_records_priority_check CHECK ((priority >= 1)),
    CONSTRAINT provider_key_records_provider_check CHECK (((octet_length(provider) >= 1) AND (octet_length(provider) <= 63))),
    CONSTRAINT provider_key_records_rotation_interval_check CHECK ((rotation_interval > '00:00:00'::interval))
);
ALTER TABLE ONLY watchllm.provider_key_records ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE ONLY watchllm.provider_key_records ALTER COLUMN key_hint SET STATISTICS 0;
ALTER TABLE ONLY watchllm.provider_key_records FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.provider_key_records OWNER TO watchllm_owner;
CREATE TABLE watchllm.provider_key_usage (
    project_id uuid NOT NULL,
    provider_key_id uuid NOT NULL,
    access_count bigint DEFAULT 0 NOT NULL,
    failure_count bigint DEFAULT 0 NOT NULL,
    bucket_start timestamp with time zone,
    accesses integer[] DEFAULT array_fill(0, ARRAY[48]) NOT NULL,
    failures integer[] DEFAULT array_fill(0, ARRAY[48]) NOT NULL,
    last_used_at timestamp with time zone,
    access_anomaly_detected_at timestamp with time zone,
    last_rotation_alert_sent_at timestamp with time zone,
    blocked_at timestamp with time zone,
    CONSTRAINT provider_key_usage_access_count_check CHECK ((access_count >= 0)),
    CONSTRAINT provider_key_usage_buckets CHECK (((array_dims(accesses) = '[1:48]'::text) AND (array_dims(failures) = '[1:48]'::text))),
    CONSTRAINT provider_key_usage_failure_count_check CHECK ((failure_count >= 0))
)
WITH (fillfactor='50');
ALTER TABLE ONLY watchllm.provider_key_usage FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.provider_key_usage OWNER TO watchllm_owner;
CREATE VIEW watchllm.provider_key_security_summary WITH (security_invoker='true') AS
 SELECT r.id,
    r.id AS provider_key_id,
    r.project_id,
    r.provider,
    r.name,
    r.is_active,
    r.created_at,
    u.last_used_at,
    (floor((EXTRACT(epoch FROM (now() - r.active_version_created_at)) / (86400)::numeric)))::integer AS days_old,
    (floor((EXTRACT(epoch FROM (now() - u.last_used_at)) / (86400)::numeric)))::integer AS days_since_last_use,
    COALESCE(( SELECT sum(a.n) AS sum
           FROM unnest(u.accesses[1:(48 - h.passed)]) a(n)), (0)::bigint) AS accesses_24h,
    COALESCE(( SELECT sum(f.n) AS sum
           FROM unnest(u.failures[1:(48 - h.passed)]) f(n)), (0)::bigint) AS failures_24h,
    COALESCE(u.failure_count, (0)::bigint) AS failed_accesses,
        CASE
            WHEN d.is_due THEN 'Rotation Required'::text
            WHEN (d.warn_at <= now()) THEN 'Rotation Soon'::text
            ELSE 'Secure'::text
        END AS security_status,
    d.is_due AS rotation_required,
    (u.last_used_at IS NULL) AS never_used,
    (COALESCE(u.last_used_at, r.created_at) < (now() - s.stale_after)) AS is_stale,
    (u.access_anomaly_detected_at IS NOT NULL) AS has_anomaly,
    COALESCE((u.access_anomaly_detected_at > (now() - '24:00:00'::interval)), false) AS has_recent_anomaly,
    (u.blocked_at IS NOT NULL) AS is_blocked,
    (r.compromised_at IS NOT NULL) AS is_compromised,
    d.due_at AS rotation_due_at
   FROM (((((watchllm.provider_key_records r
     LEFT JOIN watchllm.provider_key_usage u ON (((u.project_id = r.project_id) AND (u.provider_key_id = r.id))))
     CROSS JOIN LATERAL ( SELECT (watchllm.effective_setting('rotation_warn_after'::text, r.project_id, r.id))::interval AS warn_after,
            (watchllm.effective_setting('rotation_required_after'::text, r.project_id, r.id))::interval AS required_after,
            (watchllm.effective_setting('stale_after'::text, r.project_id, r.id))::interval AS stale_after
         OFFSET 0) s)
     CROSS JOIN LATERAL ( SELECT LEAST(r.rotation_required_at, (r.active_version_created_at + COALESCE(r.rotation_interval, s.required_after))) AS due_at) t)
     CROSS JOIN LATERAL ( SELECT t.due_at,
            ((r.compromised_at IS NOT NULL) OR (t.due_at <= now())) AS is_due,
            (r.active_version_created_at + COALESCE((r.rotation_interval * ((2.0 / (3)::numeric))::double precision), s.warn_after)) AS warn_at) d)
     CROSS JOIN LATERAL ( SELECT (GREATEST((0)::numeric, LEAST((48)::numeric, (EXTRACT(epoch FROM (date_bin('00:30:00'::interval, now(), '2000-01-01 00:00:00+00'::timestamp with time zone) - u.bucket_start)) / (1800)::numeric))))::integer AS passed) h)
  WHERE (r.deleted_at IS NULL);
ALTER TABLE watchllm.provider_key_security_summary OWNER TO watchllm_owner;
CREATE TABLE watchllm.provider_key_versions (
    project_id uuid NOT NULL,
    provider_key_id uuid NOT NULL,
    version integer NOT NULL,
    envelope bytea,
    master_key_version integer NOT NULL,
    fingerprint bytea NOT NULL,
    fingerprint_key_version integer NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    created_by text NOT NULL,
    retired_at timestamp with time zone,
    compromised_at timestamp with time zone,
    destroyed_at timestamp with time zone,
    CONSTRAINT provider_key_versions_created_by_check CHECK (((octet_length(created_by) >= 1) AND (octet_length(created_by) <= 128))),
    CONSTRAINT provider_key_versions_destroyed CHECK (((envelope IS NULL) = (destroyed_at IS NOT NULL))),
    CONSTRAINT provider_key_versions_envelope_header CHECK (("substring"(envelope, 1, 5) = ('\x01'::bytea || int4send(master_key_version)))),
    CONSTRAINT provider_key_versions_envelope_length CHECK (((octet_length(envelope) >= 50) AND (octet_length(envelope) <= 4145))),
    CONSTRAINT provider_key_versions_fingerprint_check CHECK ((octet_length(fingerprint) = 32)),
    CONSTRAINT provider_key_versions_fingerprint_key_version_check CHECK ((fingerprint_key_version > 0)),
    CONSTRAINT provider_key_versions_master_key_version_check CHECK ((master_key_version > 0)),
    CONSTRAINT provider_key_versions_version_check CHECK ((version > 0))
);
ALTER TABLE ONLY watchllm.provider_key_versions FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.provider_key_versions OWNER TO watchllm_owner;
CREATE VIEW watchllm.provider_keys WITH (security_invoker='true') AS
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
   FROM (watchllm.provider_key_records r
     LEFT JOIN watchllm.provider_key_usage u ON (((u.project_id = r.project_id) AND (u.provider_key_id = r.id))))
  WHERE (r.deleted_at IS NULL);
ALTER TABLE watchllm.provider_keys OWNER TO watchllm_owner;
CREATE TABLE watchllm.settings (
    id uuid DEFAULT gen_random_uuid() NOT NULL,
    name text NOT NULL,
    value text NOT NULL,
    project_id uuid,
    provider_key_id uuid,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT settings_key_with_project CHECK (((provider_key_id IS NULL) OR (project_id IS NOT NULL))),
    CONSTRAINT settings_name_check CHECK (((octet_length(name) >= 1) AND (octet_length(name) <= 63))),
    CONSTRAINT settings_value_check CHECK ((octet_length(value) <= 4096))
);
ALTER TABLE ONLY watchllm.settings FORCE ROW LEVEL SECURITY;
ALTER TABLE watchllm.settings OWNER TO watchllm_owner;
ALTER TABLE ONLY watchllm.provider_key_access_logs ATTACH PARTITION watchllm.provider_key_access_logs_20261128 FOR VALUES FROM ('2026-11-28 00:00:00+00') TO ('2026-11-29 00:00:00+00');
COPY watchllm.adopted_tables (id, schema_name, table_name, id_column, owner_column, name_column, adopted_by, adopted_at) FROM stdin;
\.
COPY watchllm.audit_checkpoints (identity_id, seq, at, accessed_at, hash, chain_key_version, reason, digest_key_version, signature) FROM stdin;
\.
COPY watchllm.audit_keys (kind, version, master_key_version, envelope, public_key, created_at) FROM stdin;
fingerprint	1	1	\\x0100000001ab51ec093fa0970840fe0e5e707b7f1a94c0093e88af777ab7d33a13b3c060717f9c8caac1c830ef832cf27c1eb4a66ef35ea89ee2988b85ed4c7661be8088a8ba9e8b514b9075b7de5703b2	\N	2026-11-28 13:02:19.783021+00
mac	1	1	\\x01000000015db6d7626d8d87a033dbf632cad99cb89b9f80b98cb30ef87c490690991e5dd0d8c6fe1e7f9151eb44586b06f30827818a621c4ee560316d35842129c6e3a2ab476db7fa3a46478e94922d03	\N	2026-11-28 13:02:19.783021+00
digest	1	1	\\x01000000012a8294ccf7b0042590a477f2a10359ce64655aa65291a1f3d3f2f0b389d5c7fffbf0fa501074cb2181e37202bcdb8e40c0c8cd0409cffbc4df1104e9a3fdc7373a7461278e8fb289aa8cd64c	\\xad9498b470319ed1b81730b1319eaba4908170b5f4dca6b63c5bd3ff41979e7b	2026-11-28 13:02:19.783021+00
\.
COPY watchllm.blocked_callers (kind, subject, blocked_at, incident_id, note) FROM stdin;
\.
COPY watchllm.caller_peaks (kind, subject, day, distinct_keys) FROM stdin;
role	postgres	2026-11-28	1
\.
COPY watchllm.committed_changes (event_id, project_id) FROM stdin;
c6f32581-72fb-4b5e-a35c-32b505caf39e	b1bca045-24c4-4c06-8625-9ce977c0c094
4f5e8ab4-c6f6-4170-aab9-1ade816455fe	b1bca045-24c4-4c06-8625-9ce977c0c094
b92f062b-542c-4f7a-85eb-a9261b4700b9	b1bca045-24c4-4c06-8625-9ce977c0c094
c512c9d1-d7e7-479c-b5cd-6d5b6d23e9e5	b1bca045-24c4-4c06-8625-9ce977c0c094
7040854c-a5c9-4262-8a83-ac812ea5989c	b1bca045-24c4-4c06-8625-9ce977c0c094
59170ee6-f3dd-413e-8b8a-c36f339a09d3	b1bca045-24c4-4c06-8625-9ce977c0c094
f2974752-39dd-4868-934c-815beb6c8949	b1bca045-24c4-4c06-8625-9ce977c0c094
\.
COPY watchllm.database_identity (id, system_identifier, database_oid, database_name, reason, created_at) FROM stdin;
0fc5aef0-ae22-4ded-a467-54d642896b34	7713206948562916846	5	postgres	found by the audit writer: new, restored or copied	2026-11-28 13:02:19.957964+00
\.
COPY watchllm.incident_events (id, incident_id, project_id, event, note, by, at) FROM stdin;
\.
COPY watchllm.install_history (schema_version, extension_version, installed_at, installed_by) FROM stdin;
1	0.1.0	2026-11-28 13:02:19.244782+00	postgres
\.
COPY watchllm.master_keys (version, salt, iterations, canary, is_active, created_at, retired_at) FROM stdin;
1	\\x614d8cc7d9b1ae3e2d0e4f1caca82b17	600000	\\x0100000001d2d47838eb0bff3fcc0822ec071834be35145d9264489d4b0b9088926d650ff95e75d0387eef4fdf60fa8c9bd1635c9d1ed30679dbd0c193148a69cf305beda035e8ca	t	2026-11-28 13:02:19.783021+00	\N
\.
COPY watchllm.project_members (id, project_id, subject, role_name, created_at) FROM stdin;
9c08b44e-df71-437c-a45b-f6c19f9a92ab	b1bca045-24c4-4c06-8625-9ce977c0c094	sub-2	\N	2026-11-28 13:02:19.983515+00
\.
COPY watchllm.projects (id, name, owner_id, created_at, deleted_at, adopted_table_id) FROM stdin;
b1bca045-24c4-4c06-8625-9ce977c0c094	old	sub-1	2026-11-28 13:02:19.76111+00	\N	\N
\.
COPY watchllm.provider_key_access_logs_20261128 (seq, id, accessed_at, project_id, provider_key_id, provider, key_version, access_type, success, failure_reason, attempt_count, ip_address, user_agent, request_id, session_role, effective_role, role_setting, claims_sub, claims_trusted, client_addr, backend_pid, application_name, txid, epoch, queue_seq, identity_id, chain_key_version, hash) FROM stdin;
1	c6f32581-72fb-4b5e-a35c-32b505caf39e	2026-11-28 13:02:19.960262+00	b1bca045-24c4-4c06-8625-9ce977c0c094	\N	\N	\N	project	t	\N	1	\N	\N	r-1	postgres	postgres	none	\N	f	\N	13854	an old application	732	3143791867980902320	0	0fc5aef0-ae22-4ded-a467-54d642896b34	1	\\xdb03fe61bc0a38ba22c10ce89e282f84228eb4ce08564b778b342900edd31a22
2	4f5e8ab4-c6f6-4170-aab9-1ade816455fe	2026-11-28 13:02:19.984681+00	b1bca045-24c4-4c06-8625-9ce977c0c094	\N	\N	\N	member	t	\N	1	\N	\N	r-1	postgres	postgres	none	\N	f	\N	13854	an old application	735	3143791867980902320	1	0fc5aef0-ae22-4ded-a467-54d642896b34	1	\\x880609063b7642eb5d272a737a6e8213853866f9f414f85fa46d5604d27d1fc4
3	b92f062b-542c-4f7a-85eb-a9261b4700b9	2026-11-28 13:02:19.99471+00	b1bca045-24c4-4c06-8625-9ce977c0c094	8f6bc300-a5ab-4ff5-ab4b-af444e220d55	openai	1	store	t	\N	1	\N	\N	r-1	postgres	postgres	none	\N	f	\N	13854	an old application	737	3143791867980902320	2	0fc5aef0-ae22-4ded-a467-54d642896b34	1	\\x7b76a10e285acc269c54731d1c451f39004362b683fe37eb36b4d973e476ce87
4	c512c9d1-d7e7-479c-b5cd-6d5b6d23e9e5	2026-11-28 13:02:20.004872+00	b1bca045-24c4-4c06-8625-9ce977c0c094	ee597c6b-4ec8-4b19-8a50-429502e0cc71	anthropic	1	store	t	\N	1	\N	\N	r-1	postgres	postgres	none	\N	f	\N	13854	an old application	739	3143791867980902320	3	0fc5aef0-ae22-4ded-a467-54d642896b34	1	\\x8298410116de7b38e5f0fde0879ce31f48c241a1cd18288730dfe03554172174
5	a4212870-5f70-47f3-8846-632a83df629a	2026-11-28 13:02:20.009088+00	b1bca045-24c4-4c06-8625-9ce977c0c094	8f6bc300-a5ab-4ff5-ab4b-af444e220d55	openai	1	decrypt	t	\N	1	203.0.113.7	Ünï/1.0	r-1	postgres	postgres	none	\N	f	\N	13854	an old application	\N	3143791867980902320	4	0fc5aef0-ae22-4ded-a467-54d642896b34	1	\\x4349fdd84b9e42dad8813397d0f60a928636379ec1f7046f793ecca3c53339ed
6	7040854c-a5c9-4262-8a83-ac812ea5989c	2026-11-28 13:02:20.013269+00	b1bca045-24c4-4c06-8625-9ce977c0c094	8f6bc300-a5ab-4ff5-ab4b-af444e220d55	openai	2	rotate	t	\N	1	\N	\N	r-1	postgres	postgres	none	\N	f	\N	13854	an old application	742	3143791867980902320	5	0fc5aef0-ae22-4ded-a467-54d642896b34	1	\\xf94369e41ebcb5434e775258b0ea4e1f6712ac9aed3931e87441e3d54e0e348d
7	185b20e3-5630-4816-83d7-7c99fd9a51d6	2026-11-28 13:02:20.020315+00	b1bca045-24c4-4c06-8625-9ce977c0c094	8f6bc300-a5ab-4ff5-ab4b-af444e220d55	openai	2	decrypt	t	\N	1	\N	\N	r-1	postgres	postgres	none	\N	f	\N	13854	an old application	\N	3143791867980902320	6	0fc5aef0-ae22-4ded-a467-54d642896b34	1	\\xcf6bb6bc2c88be7a867aaf67e8f0972e7c6af69d17d7e953caccaf1d3f51786a
8	59170ee6-f3dd-413e-8b8a-c36f339a09d3	2026-11-28 13:02:20.028311+00	b1bca045-24c4-4c06-8625-9ce977c0c094	ee597c6b-4ec8-4b19-8a50-429502e0cc71	anthropic	1	report	t	\N	1	\N	\N	r-1	postgres	postgres	none	\N	f	\N	13854	an old application	745	3143791867980902320	7	0fc5aef0-ae22-4ded-a467-54d642896b34	1	\\x458938a9c84f63861d66da65d085d2a0116bd817bf3ff8f4d23c6750bd48e212
9	f2974752-39dd-4868-934c-815beb6c8949	2026-11-28 13:02:20.032818+00	b1bca045-24c4-4c06-8625-9ce977c0c094	\N	\N	\N	setting	t	\N	1	\N	\N	r-1	postgres	postgres	none	\N	f	\N	13854	an old application	747	3143791867980902320	8	0fc5aef0-ae22-4ded-a467-54d642896b34	1	\\xf000cd73632645ee7ca1a0aa948c37aef14cc387dea5c5769c5d8c48a062fb80
10	e6c9bdb8-7587-49ed-b6d0-3d73bdfa7394	2026-11-28 13:02:20.052395+00	\N	\N	\N	\N	decrypt	f	bad_input	1	\N	\N	r-1	postgres	postgres	none	\N	f	\N	13854	an old application	\N	3143791867980902320	9	0fc5aef0-ae22-4ded-a467-54d642896b34	1	\\xe23f32ae5a9d9ad9223b96dc32e0059ee709d31ac36535a4d719a9d9bbe41e27
11	8a9eb6f1-4489-4bd1-993f-582b8f314e85	2026-11-28 13:02:20.053183+00	\N	00000000-0000-4000-8000-000000000000	\N	\N	decrypt	f	not_found	1	\N	\N	r-1	postgres	postgres	none	\N	f	\N	13854	an old application	\N	3143791867980902320	10	0fc5aef0-ae22-4ded-a467-54d642896b34	1	\\xf7d88aad1910832ae659d1046033c033eede7ff2b6d334fa4872bafed82e65bb
\.
COPY watchllm.provider_key_callers (project_id, provider_key_id, kind, subject, first_seen_at, last_seen_at) FROM stdin;
b1bca045-24c4-4c06-8625-9ce977c0c094	8f6bc300-a5ab-4ff5-ab4b-af444e220d55	role	postgres	2026-11-28 13:02:20.009088+00	2026-11-28 13:02:20.009088+00
\.
COPY watchllm.provider_key_records (id, project_id, provider, name, key_hint, priority, is_active, active_version, active_version_created_at, rotation_interval, rotation_required_at, compromised_at, deleted_at, created_at, updated_at) FROM stdin;
8f6bc300-a5ab-4ff5-ab4b-af444e220d55	b1bca045-24c4-4c06-8625-9ce977c0c094	openai	first	…	1	t	2	2026-11-28 13:02:20.012321+00	\N	\N	\N	\N	2026-11-28 13:02:19.992308+00	2026-11-28 13:02:20.012321+00
ee597c6b-4ec8-4b19-8a50-429502e0cc71	b1bca045-24c4-4c06-8625-9ce977c0c094	anthropic	zweiter	…	1	t	1	2026-11-28 13:02:20.004238+00	\N	\N	2026-11-28 13:02:20.024313+00	\N	2026-11-28 13:02:20.004238+00	2026-11-28 13:02:20.024313+00
\.
COPY watchllm.provider_key_usage (project_id, provider_key_id, access_count, failure_count, bucket_start, accesses, failures, last_used_at, access_anomaly_detected_at, last_rotation_alert_sent_at, blocked_at) FROM stdin;
b1bca045-24c4-4c06-8625-9ce977c0c094	8f6bc300-a5ab-4ff5-ab4b-af444e220d55	2	0	2026-11-28 13:00:00+00	{2,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}	{0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0,0}	2026-11-28 13:02:20.020315+00	\N	\N	\N
\.
COPY watchllm.provider_key_versions (project_id, provider_key_id, version, envelope, master_key_version, fingerprint, fingerprint_key_version, created_at, created_by, retired_at, compromised_at, destroyed_at) FROM stdin;
b1bca045-24c4-4c06-8625-9ce977c0c094	8f6bc300-a5ab-4ff5-ab4b-af444e220d55	2	\\x0100000001d37aed506acb5f6c34e35ab1a746161cb2829de097d9c3e55a6eaf45b43bcdb222b316642fa76a1f6bef3dc79de1d56b9c3a1f399a08c0	1	\\x6c49a705181a240a8a45cd34833d9143b1469597f88acd1248ff0f1da8065dc2	1	2026-11-28 13:02:20.012321+00	postgres	\N	\N	\N
b1bca045-24c4-4c06-8625-9ce977c0c094	8f6bc300-a5ab-4ff5-ab4b-af444e220d55	1	\\x01000000016239c5cfd4e633ecc07f28182856a87ec38ef3c7d9c762573956f4a3db4f6b40ce35715d23aef45d20720fac45c651c7568d1ee39c6f71	1	\\x5ea8d6a308456fa53890a0a3f8bc6edfbfe0d2351b07bcf48910757e01f01dcb	1	2026-11-28 13:02:19.992308+00	postgres	2026-11-28 13:02:20.012321+00	\N	\N
b1bca045-24c4-4c06-8625-9ce977c0c094	ee597c6b-4ec8-4b19-8a50-429502e0cc71	1	\\x01000000018b8aafd94bb9d096457b9a1e9265bbbb9caaeac3edfd2305ec820a9297d7a30bf4a60574af4f1f8aca08514e042536aca5609b5f50164f	1	\\xae72b5bb1ac7ef738068e6cbf886d0c919c8bdcd069f0e821b431b1737cb874d	1	2026-11-28 13:02:20.004238+00	postgres	\N	2026-11-28 13:02:20.024313+00	\N
\.
COPY watchllm.security_incidents (id, type, severity, project_id, provider_key_id, details, detected_at) FROM stdin;
e393b929-098c-8bf7-b99c-7c4d9eea2525	leaked_key	critical	b1bca045-24c4-4c06-8625-9ce977c0c094	ee597c6b-4ec8-4b19-8a50-429502e0cc71	{"what": "a provider key was reported as leaked", "in_use": true, "source": "a scanner", "key_version": 1}	2026-11-28 13:02:20.025204+00
\.
COPY watchllm.settings (id, name, value, project_id, provider_key_id, updated_at) FROM stdin;
8312b3cb-c608-4cd3-80a4-14a0bdbf50f6	max_active_keys	7	b1bca045-24c4-4c06-8625-9ce977c0c094	\N	2026-11-28 13:02:20.032268+00
\.
ALTER TABLE ONLY watchllm.adopted_tables
    ADD CONSTRAINT adopted_tables_once UNIQUE (schema_name, table_name);
ALTER TABLE ONLY watchllm.adopted_tables
    ADD CONSTRAINT adopted_tables_pkey PRIMARY KEY (id);
ALTER TABLE ONLY watchllm.audit_checkpoints
    ADD CONSTRAINT audit_checkpoints_pkey PRIMARY KEY (identity_id, seq, at);
ALTER TABLE ONLY watchllm.audit_keys
    ADD CONSTRAINT audit_keys_pkey PRIMARY KEY (kind, version, master_key_version);
ALTER TABLE ONLY watchllm.blocked_callers
    ADD CONSTRAINT blocked_callers_pkey PRIMARY KEY (kind, subject);
ALTER TABLE ONLY watchllm.caller_peaks
    ADD CONSTRAINT caller_peaks_pkey PRIMARY KEY (kind, subject, day);
ALTER TABLE ONLY watchllm.committed_changes
    ADD CONSTRAINT committed_changes_pkey PRIMARY KEY (event_id);
ALTER TABLE ONLY watchllm.database_identity
    ADD CONSTRAINT database_identity_pkey PRIMARY KEY (id);
ALTER TABLE ONLY watchllm.incident_events
    ADD CONSTRAINT incident_events_pkey PRIMARY KEY (id);
ALTER TABLE ONLY watchllm.install_history
    ADD CONSTRAINT install_history_pkey PRIMARY KEY (schema_version, extension_version);
ALTER TABLE ONLY watchllm.master_keys
    ADD CONSTRAINT master_keys_pkey PRIMARY KEY (version);
ALTER TABLE ONLY watchllm.project_members
    ADD CONSTRAINT project_members_once UNIQUE NULLS NOT DISTINCT (project_id, subject, role_name);
ALTER TABLE ONLY watchllm.project_members
    ADD CONSTRAINT project_members_pkey PRIMARY KEY (project_id, id);
ALTER TABLE ONLY watchllm.projects
    ADD CONSTRAINT projects_pkey PRIMARY KEY (id);
ALTER TABLE ONLY watchllm.provider_key_access_logs
    ADD CONSTRAINT provider_key_access_logs_pkey PRIMARY KEY (accessed_at, epoch, queue_seq);
ALTER TABLE ONLY watchllm.provider_key_access_logs_20261128
    ADD CONSTRAINT provider_key_access_logs_20261128_pkey PRIMARY KEY (accessed_at, epoch, queue_seq);
ALTER TABLE ONLY watchllm.provider_key_access_logs
    ADD CONSTRAINT provider_key_access_logs_seq_accessed_at_key UNIQUE (seq, accessed_at);
ALTER TABLE ONLY watchllm.provider_key_access_logs_20261128
    ADD CONSTRAINT provider_key_access_logs_20261128_seq_accessed_at_key UNIQUE (seq, accessed_at);
ALTER TABLE ONLY watchllm.provider_key_callers
    ADD CONSTRAINT provider_key_callers_pkey PRIMARY KEY (project_id, provider_key_id, kind, subject);
ALTER TABLE ONLY watchllm.provider_key_records
    ADD CONSTRAINT provider_key_records_id_key UNIQUE (id);
ALTER TABLE ONLY watchllm.provider_key_records
    ADD CONSTRAINT provider_key_records_pkey PRIMARY KEY (project_id, id);
ALTER TABLE ONLY watchllm.provider_key_usage
    ADD CONSTRAINT provider_key_usage_pkey PRIMARY KEY (project_id, provider_key_id);
ALTER TABLE ONLY watchllm.provider_key_versions
    ADD CONSTRAINT provider_key_versions_pkey PRIMARY KEY (project_id, provider_key_id, version);
ALTER TABLE ONLY watchllm.security_incidents
    ADD CONSTRAINT security_incidents_pkey PRIMARY KEY (id);
ALTER TABLE ONLY watchllm.settings
    ADD CONSTRAINT settings_once UNIQUE NULLS NOT DISTINCT (name, project_id, provider_key_id);
ALTER TABLE ONLY watchllm.settings
    ADD CONSTRAINT settings_pkey PRIMARY KEY (id);
CREATE INDEX audit_checkpoints_at_idx ON watchllm.audit_checkpoints USING btree (at);
CREATE INDEX audit_keys_master_key_version_idx ON watchllm.audit_keys USING btree (master_key_version);
CREATE INDEX caller_peaks_day_idx ON watchllm.caller_peaks USING btree (day);
CREATE INDEX incident_events_incident_id_idx ON watchllm.incident_events USING btree (incident_id, at);
CREATE UNIQUE INDEX master_keys_one_active ON watchllm.master_keys USING btree (is_active) WHERE is_active;
CREATE INDEX project_members_role_name_idx ON watchllm.project_members USING btree (role_name) WHERE (role_name IS NOT NULL);
CREATE INDEX project_members_subject_idx ON watchllm.project_members USING btree (subject) WHERE (subject IS NOT NULL);
CREATE INDEX projects_adopted_table_id_idx ON watchllm.projects USING btree (adopted_table_id) WHERE (adopted_table_id IS NOT NULL);
CREATE INDEX projects_owner_id_idx ON watchllm.projects USING btree (owner_id) WHERE (owner_id IS NOT NULL);
CREATE INDEX provider_key_access_logs_key_idx ON ONLY watchllm.provider_key_access_logs USING btree (project_id, provider_key_id, accessed_at DESC);
CREATE INDEX provider_key_access_logs_2026_project_id_provider_key_id_ac_idx ON watchllm.provider_key_access_logs_20261128 USING btree (project_id, provider_key_id, accessed_at DESC);
CREATE INDEX provider_key_callers_first_seen_at_idx ON watchllm.provider_key_callers USING btree (first_seen_at);
CREATE UNIQUE INDEX provider_key_records_name_key ON watchllm.provider_key_records USING btree (project_id, provider, name) WHERE ((deleted_at IS NULL) AND (name IS NOT NULL));
CREATE INDEX provider_key_records_resolve_idx ON watchllm.provider_key_records USING btree (project_id, provider, priority, created_at, id) WHERE ((deleted_at IS NULL) AND is_active);
CREATE INDEX provider_key_usage_blocked_idx ON watchllm.provider_key_usage USING btree (project_id, provider_key_id) WHERE (blocked_at IS NOT NULL);
CREATE INDEX provider_key_versions_fingerprint_idx ON watchllm.provider_key_versions USING btree (fingerprint);
CREATE INDEX provider_key_versions_master_key_version_idx ON watchllm.provider_key_versions USING btree (master_key_version, project_id, provider_key_id, version);
CREATE INDEX security_incidents_detected_at_idx ON watchllm.security_incidents USING btree (detected_at);
CREATE INDEX security_incidents_key_idx ON watchllm.security_incidents USING btree (project_id, provider_key_id, detected_at DESC);
CREATE INDEX settings_project_id_idx ON watchllm.settings USING btree (project_id, provider_key_id);
ALTER INDEX watchllm.provider_key_access_logs_pkey ATTACH PARTITION watchllm.provider_key_access_logs_20261128_pkey;
ALTER INDEX watchllm.provider_key_access_logs_seq_accessed_at_key ATTACH PARTITION watchllm.provider_key_access_logs_20261128_seq_accessed_at_key;
ALTER INDEX watchllm.provider_key_access_logs_key_idx ATTACH PARTITION watchllm.provider_key_access_logs_2026_project_id_provider_key_id_ac_idx;
CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON watchllm.audit_checkpoints FOR EACH ROW EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.audit_checkpoints ENABLE ALWAYS TRIGGER refuse_change;
CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON watchllm.audit_keys FOR EACH ROW EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.audit_keys ENABLE ALWAYS TRIGGER refuse_change;
CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON watchllm.committed_changes FOR EACH ROW EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.committed_changes ENABLE ALWAYS TRIGGER refuse_change;
CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON watchllm.database_identity FOR EACH ROW EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.database_identity ENABLE ALWAYS TRIGGER refuse_change;
CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON watchllm.incident_events FOR EACH ROW EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.incident_events ENABLE ALWAYS TRIGGER refuse_change;
CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON watchllm.install_history FOR EACH ROW EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.install_history ENABLE ALWAYS TRIGGER refuse_change;
CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON watchllm.provider_key_access_logs FOR EACH ROW EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.provider_key_access_logs ENABLE ALWAYS TRIGGER refuse_change;
CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON watchllm.security_incidents FOR EACH ROW EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.security_incidents ENABLE ALWAYS TRIGGER refuse_change;
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON watchllm.audit_checkpoints FOR EACH STATEMENT EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.audit_checkpoints ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON watchllm.audit_keys FOR EACH STATEMENT EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.audit_keys ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON watchllm.committed_changes FOR EACH STATEMENT EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.committed_changes ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON watchllm.database_identity FOR EACH STATEMENT EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.database_identity ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON watchllm.incident_events FOR EACH STATEMENT EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.incident_events ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON watchllm.install_history FOR EACH STATEMENT EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.install_history ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON watchllm.provider_key_access_logs FOR EACH STATEMENT EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.provider_key_access_logs ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON watchllm.provider_key_access_logs_20261128 FOR EACH STATEMENT EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.provider_key_access_logs_20261128 ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON watchllm.security_incidents FOR EACH STATEMENT EXECUTE FUNCTION watchllm.refuse_change();
ALTER TABLE watchllm.security_incidents ENABLE ALWAYS TRIGGER refuse_truncate;
CREATE TRIGGER store_from_inbox INSTEAD OF INSERT ON watchllm.provider_key_inbox FOR EACH ROW EXECUTE FUNCTION watchllm.store_from_inbox();
ALTER TABLE ONLY watchllm.audit_keys
    ADD CONSTRAINT audit_keys_master_key_version_fkey FOREIGN KEY (master_key_version) REFERENCES watchllm.master_keys(version);
ALTER TABLE ONLY watchllm.project_members
    ADD CONSTRAINT project_members_project_id_fkey FOREIGN KEY (project_id) REFERENCES watchllm.projects(id);
ALTER TABLE ONLY watchllm.projects
    ADD CONSTRAINT projects_adopted_table_id_fkey FOREIGN KEY (adopted_table_id) REFERENCES watchllm.adopted_tables(id);
ALTER TABLE ONLY watchllm.provider_key_records
    ADD CONSTRAINT provider_key_records_project_id_fkey FOREIGN KEY (project_id) REFERENCES watchllm.projects(id);
ALTER TABLE ONLY watchllm.provider_key_versions
    ADD CONSTRAINT provider_key_versions_master_key_version_fkey FOREIGN KEY (master_key_version) REFERENCES watchllm.master_keys(version);
ALTER TABLE ONLY watchllm.provider_key_versions
    ADD CONSTRAINT provider_key_versions_project_id_provider_key_id_fkey FOREIGN KEY (project_id, provider_key_id) REFERENCES watchllm.provider_key_records(project_id, id);
ALTER TABLE ONLY watchllm.settings
    ADD CONSTRAINT settings_project_id_fkey FOREIGN KEY (project_id) REFERENCES watchllm.projects(id);
ALTER TABLE ONLY watchllm.settings
    ADD CONSTRAINT settings_project_id_provider_key_id_fkey FOREIGN KEY (project_id, provider_key_id) REFERENCES watchllm.provider_key_records(project_id, id);
ALTER TABLE watchllm.adopted_tables ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.audit_checkpoints ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.audit_keys ENABLE ROW LEVEL SECURITY;
CREATE POLICY auditors_read_all ON watchllm.adopted_tables FOR SELECT TO watchllm_admin, watchllm_auditor USING (true);
CREATE POLICY auditors_read_all ON watchllm.blocked_callers FOR SELECT TO watchllm_admin, watchllm_auditor USING (true);
CREATE POLICY auditors_read_all ON watchllm.caller_peaks FOR SELECT TO watchllm_admin, watchllm_auditor USING (true);
CREATE POLICY auditors_read_all ON watchllm.committed_changes FOR SELECT TO watchllm_admin, watchllm_auditor USING (true);
CREATE POLICY auditors_read_all ON watchllm.incident_events FOR SELECT TO watchllm_admin, watchllm_auditor USING (true);
CREATE POLICY auditors_read_all ON watchllm.project_members FOR SELECT TO watchllm_admin, watchllm_auditor USING (true);
CREATE POLICY auditors_read_all ON watchllm.projects FOR SELECT TO watchllm_admin, watchllm_auditor USING (true);
CREATE POLICY auditors_read_all ON watchllm.provider_key_access_logs FOR SELECT TO watchllm_admin, watchllm_auditor USING (true);
CREATE POLICY auditors_read_all ON watchllm.provider_key_callers FOR SELECT TO watchllm_admin, watchllm_auditor USING (true);
CREATE POLICY auditors_read_all ON watchllm.provider_key_records FOR SELECT TO watchllm_admin, watchllm_auditor USING (true);
CREATE POLICY auditors_read_all ON watchllm.provider_key_usage FOR SELECT TO watchllm_admin, watchllm_auditor USING (true);
CREATE POLICY auditors_read_all ON watchllm.security_incidents FOR SELECT TO watchllm_admin, watchllm_auditor USING (true);
CREATE POLICY auditors_read_all ON watchllm.settings FOR SELECT TO watchllm_admin, watchllm_auditor USING (true);
ALTER TABLE watchllm.blocked_callers ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.caller_peaks ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.committed_changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.database_identity ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.incident_events ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.install_history ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.master_keys ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.project_members ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.projects ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.provider_key_access_logs ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.provider_key_access_logs_20261128 ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.provider_key_callers ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.provider_key_records ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.provider_key_usage ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.provider_key_versions ENABLE ROW LEVEL SECURITY;
ALTER TABLE watchllm.security_incidents ENABLE ROW LEVEL SECURITY;
CREATE POLICY services_read_all ON watchllm.projects FOR SELECT TO watchllm_service USING (true);
CREATE POLICY services_read_all ON watchllm.provider_key_records FOR SELECT TO watchllm_service USING (true);
CREATE POLICY services_read_all ON watchllm.provider_key_usage FOR SELECT TO watchllm_service USING (true);
ALTER TABLE watchllm.settings ENABLE ROW LEVEL SECURITY;
CREATE POLICY tenants_read_own ON watchllm.committed_changes FOR SELECT TO watchllm_tenant USING (((ARRAY[project_id] <@ ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)) AND (project_id = ANY (ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)))));
CREATE POLICY tenants_read_own ON watchllm.incident_events FOR SELECT TO watchllm_tenant USING (((ARRAY[project_id] <@ ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)) AND (project_id = ANY (ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)))));
CREATE POLICY tenants_read_own ON watchllm.projects FOR SELECT TO watchllm_tenant USING (((ARRAY[id] <@ ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)) AND (id = ANY (ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)))));
CREATE POLICY tenants_read_own ON watchllm.provider_key_access_logs FOR SELECT TO watchllm_tenant USING (((ARRAY[project_id] <@ ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)) AND (project_id = ANY (ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)))));
CREATE POLICY tenants_read_own ON watchllm.provider_key_records FOR SELECT TO watchllm_tenant USING (((ARRAY[project_id] <@ ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)) AND (project_id = ANY (ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)))));
CREATE POLICY tenants_read_own ON watchllm.provider_key_usage FOR SELECT TO watchllm_tenant USING (((ARRAY[project_id] <@ ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)) AND (project_id = ANY (ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)))));
CREATE POLICY tenants_read_own ON watchllm.security_incidents FOR SELECT TO watchllm_tenant USING (((ARRAY[project_id] <@ ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)) AND (project_id = ANY (ARRAY( SELECT watchllm.current_project_ids() AS current_project_ids)))));
GRANT ALL ON SCHEMA watchllm TO watchllm_owner;
GRANT USAGE ON SCHEMA watchllm TO watchllm_admin;
GRANT USAGE ON SCHEMA watchllm TO watchllm_service;
GRANT USAGE ON SCHEMA watchllm TO watchllm_tenant;
GRANT USAGE ON SCHEMA watchllm TO watchllm_auditor;
GRANT SELECT(event_id) ON TABLE watchllm.committed_changes TO watchllm_admin;
GRANT SELECT(event_id) ON TABLE watchllm.committed_changes TO watchllm_auditor;
GRANT SELECT(event_id) ON TABLE watchllm.committed_changes TO watchllm_tenant;
GRANT SELECT(project_id) ON TABLE watchllm.committed_changes TO watchllm_admin;
GRANT SELECT(project_id) ON TABLE watchllm.committed_changes TO watchllm_auditor;
GRANT SELECT(seq) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(seq) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(id) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(id) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(id) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(accessed_at) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(accessed_at) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(accessed_at) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(project_id) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(project_id) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(project_id) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(provider_key_id) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(provider_key_id) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(provider_key_id) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(provider) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(provider) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(provider) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(key_version) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(key_version) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(key_version) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(access_type) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(access_type) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(access_type) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(success) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(success) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(success) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(failure_reason) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(failure_reason) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(failure_reason) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(attempt_count) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(attempt_count) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(attempt_count) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(ip_address) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(ip_address) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(ip_address) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(user_agent) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(user_agent) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(user_agent) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(request_id) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(request_id) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(request_id) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(session_role) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(session_role) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(effective_role) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(effective_role) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(role_setting) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(role_setting) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(claims_sub) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(claims_sub) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(claims_sub) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(claims_trusted) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(claims_trusted) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(claims_trusted) ON TABLE watchllm.provider_key_access_logs TO watchllm_tenant;
GRANT SELECT(client_addr) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(client_addr) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(backend_pid) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(backend_pid) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(application_name) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(application_name) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(txid) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(txid) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(epoch) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(epoch) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(queue_seq) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(queue_seq) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(identity_id) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(identity_id) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(chain_key_version) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(chain_key_version) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT(hash) ON TABLE watchllm.provider_key_access_logs TO watchllm_admin;
GRANT SELECT(hash) ON TABLE watchllm.provider_key_access_logs TO watchllm_auditor;
GRANT SELECT ON TABLE watchllm.access_logs TO watchllm_admin;
GRANT SELECT ON TABLE watchllm.access_logs TO watchllm_auditor;
GRANT SELECT ON TABLE watchllm.access_logs TO watchllm_tenant;
GRANT SELECT(id) ON TABLE watchllm.adopted_tables TO watchllm_admin;
GRANT SELECT(id) ON TABLE watchllm.adopted_tables TO watchllm_auditor;
GRANT SELECT(schema_name) ON TABLE watchllm.adopted_tables TO watchllm_admin;
GRANT SELECT(schema_name) ON TABLE watchllm.adopted_tables TO watchllm_auditor;
GRANT SELECT(table_name) ON TABLE watchllm.adopted_tables TO watchllm_admin;
GRANT SELECT(table_name) ON TABLE watchllm.adopted_tables TO watchllm_auditor;
GRANT SELECT(id_column) ON TABLE watchllm.adopted_tables TO watchllm_admin;
GRANT SELECT(id_column) ON TABLE watchllm.adopted_tables TO watchllm_auditor;
GRANT SELECT(owner_column) ON TABLE watchllm.adopted_tables TO watchllm_admin;
GRANT SELECT(owner_column) ON TABLE watchllm.adopted_tables TO watchllm_auditor;
GRANT SELECT(name_column) ON TABLE watchllm.adopted_tables TO watchllm_admin;
GRANT SELECT(name_column) ON TABLE watchllm.adopted_tables TO watchllm_auditor;
GRANT SELECT(adopted_by) ON TABLE watchllm.adopted_tables TO watchllm_admin;
GRANT SELECT(adopted_by) ON TABLE watchllm.adopted_tables TO watchllm_auditor;
GRANT SELECT(adopted_at) ON TABLE watchllm.adopted_tables TO watchllm_admin;
GRANT SELECT(adopted_at) ON TABLE watchllm.adopted_tables TO watchllm_auditor;
GRANT SELECT(kind) ON TABLE watchllm.blocked_callers TO watchllm_admin;
GRANT SELECT(kind) ON TABLE watchllm.blocked_callers TO watchllm_auditor;
GRANT SELECT(subject) ON TABLE watchllm.blocked_callers TO watchllm_admin;
GRANT SELECT(subject) ON TABLE watchllm.blocked_callers TO watchllm_auditor;
GRANT SELECT(blocked_at) ON TABLE watchllm.blocked_callers TO watchllm_admin;
GRANT SELECT(blocked_at) ON TABLE watchllm.blocked_callers TO watchllm_auditor;
GRANT SELECT(incident_id) ON TABLE watchllm.blocked_callers TO watchllm_admin;
GRANT SELECT(incident_id) ON TABLE watchllm.blocked_callers TO watchllm_auditor;
GRANT SELECT(note) ON TABLE watchllm.blocked_callers TO watchllm_admin;
GRANT SELECT(note) ON TABLE watchllm.blocked_callers TO watchllm_auditor;
GRANT SELECT(kind) ON TABLE watchllm.caller_peaks TO watchllm_admin;
GRANT SELECT(kind) ON TABLE watchllm.caller_peaks TO watchllm_auditor;
GRANT SELECT(subject) ON TABLE watchllm.caller_peaks TO watchllm_admin;
GRANT SELECT(subject) ON TABLE watchllm.caller_peaks TO watchllm_auditor;
GRANT SELECT(day) ON TABLE watchllm.caller_peaks TO watchllm_admin;
GRANT SELECT(day) ON TABLE watchllm.caller_peaks TO watchllm_auditor;
GRANT SELECT(distinct_keys) ON TABLE watchllm.caller_peaks TO watchllm_admin;
GRANT SELECT(distinct_keys) ON TABLE watchllm.caller_peaks TO watchllm_auditor;
GRANT SELECT(id) ON TABLE watchllm.incident_events TO watchllm_admin;
GRANT SELECT(id) ON TABLE watchllm.incident_events TO watchllm_auditor;
GRANT SELECT(id) ON TABLE watchllm.incident_events TO watchllm_tenant;
GRANT SELECT(incident_id) ON TABLE watchllm.incident_events TO watchllm_admin;
GRANT SELECT(incident_id) ON TABLE watchllm.incident_events TO watchllm_auditor;
GRANT SELECT(incident_id) ON TABLE watchllm.incident_events TO watchllm_tenant;
GRANT SELECT(project_id) ON TABLE watchllm.incident_events TO watchllm_admin;
GRANT SELECT(project_id) ON TABLE watchllm.incident_events TO watchllm_auditor;
GRANT SELECT(project_id) ON TABLE watchllm.incident_events TO watchllm_tenant;
GRANT SELECT(event) ON TABLE watchllm.incident_events TO watchllm_admin;
GRANT SELECT(event) ON TABLE watchllm.incident_events TO watchllm_auditor;
GRANT SELECT(event) ON TABLE watchllm.incident_events TO watchllm_tenant;
GRANT SELECT(note) ON TABLE watchllm.incident_events TO watchllm_admin;
GRANT SELECT(note) ON TABLE watchllm.incident_events TO watchllm_auditor;
GRANT SELECT(by) ON TABLE watchllm.incident_events TO watchllm_admin;
GRANT SELECT(by) ON TABLE watchllm.incident_events TO watchllm_auditor;
GRANT SELECT(at) ON TABLE watchllm.incident_events TO watchllm_admin;
GRANT SELECT(at) ON TABLE watchllm.incident_events TO watchllm_auditor;
GRANT SELECT(at) ON TABLE watchllm.incident_events TO watchllm_tenant;
GRANT SELECT ON TABLE watchllm.key_access_anomalies TO watchllm_admin;
GRANT SELECT ON TABLE watchllm.key_access_anomalies TO watchllm_auditor;
GRANT SELECT ON TABLE watchllm.key_access_anomalies TO watchllm_tenant;
GRANT SELECT ON TABLE watchllm.key_access_rates TO watchllm_admin;
GRANT SELECT ON TABLE watchllm.key_access_rates TO watchllm_auditor;
GRANT SELECT ON TABLE watchllm.key_access_rates TO watchllm_tenant;
GRANT SELECT(id) ON TABLE watchllm.security_incidents TO watchllm_admin;
GRANT SELECT(id) ON TABLE watchllm.security_incidents TO watchllm_auditor;
GRANT SELECT(id) ON TABLE watchllm.security_incidents TO watchllm_tenant;
GRANT SELECT(type) ON TABLE watchllm.security_incidents TO watchllm_admin;
GRANT SELECT(type) ON TABLE watchllm.security_incidents TO watchllm_auditor;
GRANT SELECT(type) ON TABLE watchllm.security_incidents TO watchllm_tenant;
GRANT SELECT(severity) ON TABLE watchllm.security_incidents TO watchllm_admin;
GRANT SELECT(severity) ON TABLE watchllm.security_incidents TO watchllm_auditor;
GRANT SELECT(severity) ON TABLE watchllm.security_incidents TO watchllm_tenant;
GRANT SELECT(project_id) ON TABLE watchllm.security_incidents TO watchllm_admin;
GRANT SELECT(project_id) ON TABLE watchllm.security_incidents TO watchllm_auditor;
GRANT SELECT(project_id) ON TABLE watchllm.security_incidents TO watchllm_tenant;
GRANT SELECT(provider_key_id) ON TABLE watchllm.security_incidents TO watchllm_admin;
GRANT SELECT(provider_key_id) ON TABLE watchllm.security_incidents TO watchllm_auditor;
GRANT SELECT(provider_key_id) ON TABLE watchllm.security_incidents TO watchllm_tenant;
GRANT SELECT(details) ON TABLE watchllm.security_incidents TO watchllm_admin;
GRANT SELECT(details) ON TABLE watchllm.security_incidents TO watchllm_auditor;
GRANT SELECT(details) ON TABLE watchllm.security_incidents TO watchllm_tenant;
GRANT SELECT(detected_at) ON TABLE watchllm.security_incidents TO watchllm_admin;
GRANT SELECT(detected_at) ON TABLE watchllm.security_incidents TO watchllm_auditor;
GRANT SELECT(detected_at) ON TABLE watchllm.security_incidents TO watchllm_tenant;
GRANT SELECT ON TABLE watchllm.open_incidents TO watchllm_admin;
GRANT SELECT ON TABLE watchllm.open_incidents TO watchllm_auditor;
GRANT SELECT ON TABLE watchllm.open_incidents TO watchllm_tenant;
GRANT SELECT(id) ON TABLE watchllm.project_members TO watchllm_admin;
GRANT SELECT(id) ON TABLE watchllm.project_members TO watchllm_auditor;
GRANT SELECT(project_id) ON TABLE watchllm.project_members TO watchllm_admin;
GRANT SELECT(project_id) ON TABLE watchllm.project_members TO watchllm_auditor;
GRANT SELECT(subject) ON TABLE watchllm.project_members TO watchllm_admin;
GRANT SELECT(subject) ON TABLE watchllm.project_members TO watchllm_auditor;
GRANT SELECT(role_name) ON TABLE watchllm.project_members TO watchllm_admin;
GRANT SELECT(role_name) ON TABLE watchllm.project_members TO watchllm_auditor;
GRANT SELECT(created_at) ON TABLE watchllm.project_members TO watchllm_admin;
GRANT SELECT(created_at) ON TABLE watchllm.project_members TO watchllm_auditor;
GRANT SELECT(id) ON TABLE watchllm.projects TO watchllm_admin;
GRANT SELECT(id) ON TABLE watchllm.projects TO watchllm_auditor;
GRANT SELECT(id) ON TABLE watchllm.projects TO watchllm_service;
GRANT SELECT(id) ON TABLE watchllm.projects TO watchllm_tenant;
GRANT SELECT(name) ON TABLE watchllm.projects TO watchllm_admin;
GRANT SELECT(name) ON TABLE watchllm.projects TO watchllm_auditor;
GRANT SELECT(name) ON TABLE watchllm.projects TO watchllm_service;
GRANT SELECT(name) ON TABLE watchllm.projects TO watchllm_tenant;
GRANT SELECT(owner_id) ON TABLE watchllm.projects TO watchllm_admin;
GRANT SELECT(owner_id) ON TABLE watchllm.projects TO watchllm_auditor;
GRANT SELECT(owner_id) ON TABLE watchllm.projects TO watchllm_service;
GRANT SELECT(created_at) ON TABLE watchllm.projects TO watchllm_admin;
GRANT SELECT(created_at) ON TABLE watchllm.projects TO watchllm_auditor;
GRANT SELECT(created_at) ON TABLE watchllm.projects TO watchllm_service;
GRANT SELECT(created_at) ON TABLE watchllm.projects TO watchllm_tenant;
GRANT SELECT(deleted_at) ON TABLE watchllm.projects TO watchllm_admin;
GRANT SELECT(deleted_at) ON TABLE watchllm.projects TO watchllm_auditor;
GRANT SELECT(deleted_at) ON TABLE watchllm.projects TO watchllm_service;
GRANT SELECT(adopted_table_id) ON TABLE watchllm.projects TO watchllm_admin;
GRANT SELECT(adopted_table_id) ON TABLE watchllm.projects TO watchllm_auditor;
GRANT SELECT(adopted_table_id) ON TABLE watchllm.projects TO watchllm_service;
GRANT SELECT(project_id) ON TABLE watchllm.provider_key_callers TO watchllm_admin;
GRANT SELECT(project_id) ON TABLE watchllm.provider_key_callers TO watchllm_auditor;
GRANT SELECT(provider_key_id) ON TABLE watchllm.provider_key_callers TO watchllm_admin;
GRANT SELECT(provider_key_id) ON TABLE watchllm.provider_key_callers TO watchllm_auditor;
GRANT SELECT(kind) ON TABLE watchllm.provider_key_callers TO watchllm_admin;
GRANT SELECT(kind) ON TABLE watchllm.provider_key_callers TO watchllm_auditor;
GRANT SELECT(subject) ON TABLE watchllm.provider_key_callers TO watchllm_admin;
GRANT SELECT(subject) ON TABLE watchllm.provider_key_callers TO watchllm_auditor;
GRANT SELECT(first_seen_at) ON TABLE watchllm.provider_key_callers TO watchllm_admin;
GRANT SELECT(first_seen_at) ON TABLE watchllm.provider_key_callers TO watchllm_auditor;
GRANT SELECT(last_seen_at) ON TABLE watchllm.provider_key_callers TO watchllm_admin;
GRANT SELECT(last_seen_at) ON TABLE watchllm.provider_key_callers TO watchllm_auditor;
GRANT INSERT ON TABLE watchllm.provider_key_inbox TO watchllm_admin;
GRANT INSERT ON TABLE watchllm.provider_key_inbox TO watchllm_service;
GRANT INSERT ON TABLE watchllm.provider_key_inbox TO watchllm_tenant;
GRANT SELECT(id) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(id) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(id) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(id) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(project_id) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(project_id) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(project_id) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(project_id) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(provider) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(provider) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(provider) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(provider) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(name) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(name) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(name) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(name) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(key_hint) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(key_hint) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(key_hint) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(key_hint) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(priority) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(priority) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(priority) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(priority) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(is_active) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(is_active) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(is_active) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(is_active) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(active_version) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(active_version) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(active_version) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(active_version) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(active_version_created_at) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(active_version_created_at) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(active_version_created_at) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(active_version_created_at) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(rotation_interval) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(rotation_interval) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(rotation_interval) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(rotation_interval) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(rotation_required_at) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(rotation_required_at) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(rotation_required_at) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(rotation_required_at) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(compromised_at) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(compromised_at) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(compromised_at) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(compromised_at) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(deleted_at) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(deleted_at) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(deleted_at) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(deleted_at) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(created_at) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(created_at) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(created_at) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(created_at) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(updated_at) ON TABLE watchllm.provider_key_records TO watchllm_admin;
GRANT SELECT(updated_at) ON TABLE watchllm.provider_key_records TO watchllm_auditor;
GRANT SELECT(updated_at) ON TABLE watchllm.provider_key_records TO watchllm_service;
GRANT SELECT(updated_at) ON TABLE watchllm.provider_key_records TO watchllm_tenant;
GRANT SELECT(project_id) ON TABLE watchllm.provider_key_usage TO watchllm_admin;
GRANT SELECT(project_id) ON TABLE watchllm.provider_key_usage TO watchllm_auditor;
GRANT SELECT(project_id) ON TABLE watchllm.provider_key_usage TO watchllm_service;
GRANT SELECT(project_id) ON TABLE watchllm.provider_key_usage TO watchllm_tenant;
GRANT SELECT(provider_key_id) ON TABLE watchllm.provider_key_usage TO watchllm_admin;
GRANT SELECT(provider_key_id) ON TABLE watchllm.provider_key_usage TO watchllm_auditor;
GRANT SELECT(provider_key_id) ON TABLE watchllm.provider_key_usage TO watchllm_service;
GRANT SELECT(provider_key_id) ON TABLE watchllm.provider_key_usage TO watchllm_tenant;
GRANT SELECT(access_count) ON TABLE watchllm.provider_key_usage TO watchllm_admin;
GRANT SELECT(access_count) ON TABLE watchllm.provider_key_usage TO watchllm_auditor;
GRANT SELECT(access_count) ON TABLE watchllm.provider_key_usage TO watchllm_service;
GRANT SELECT(access_count) ON TABLE watchllm.provider_key_usage TO watchllm_tenant;
GRANT SELECT(failure_count) ON TABLE watchllm.provider_key_usage TO watchllm_admin;
GRANT SELECT(failure_count) ON TABLE watchllm.provider_key_usage TO watchllm_auditor;
GRANT SELECT(failure_count) ON TABLE watchllm.provider_key_usage TO watchllm_service;
GRANT SELECT(failure_count) ON TABLE watchllm.provider_key_usage TO watchllm_tenant;
GRANT SELECT(bucket_start) ON TABLE watchllm.provider_key_usage TO watchllm_admin;
GRANT SELECT(bucket_start) ON TABLE watchllm.provider_key_usage TO watchllm_auditor;
GRANT SELECT(bucket_start) ON TABLE watchllm.provider_key_usage TO watchllm_service;
GRANT SELECT(bucket_start) ON TABLE watchllm.provider_key_usage TO watchllm_tenant;
GRANT SELECT(accesses) ON TABLE watchllm.provider_key_usage TO watchllm_admin;
GRANT SELECT(accesses) ON TABLE watchllm.provider_key_usage TO watchllm_auditor;
GRANT SELECT(accesses) ON TABLE watchllm.provider_key_usage TO watchllm_service;
GRANT SELECT(accesses) ON TABLE watchllm.provider_key_usage TO watchllm_tenant;
GRANT SELECT(failures) ON TABLE watchllm.provider_key_usage TO watchllm_admin;
GRANT SELECT(failures) ON TABLE watchllm.provider_key_usage TO watchllm_auditor;
GRANT SELECT(failures) ON TABLE watchllm.provider_key_usage TO watchllm_service;
GRANT SELECT(failures) ON TABLE watchllm.provider_key_usage TO watchllm_tenant;
GRANT SELECT(last_used_at) ON TABLE watchllm.provider_key_usage TO watchllm_admin;
GRANT SELECT(last_used_at) ON TABLE watchllm.provider_key_usage TO watchllm_auditor;
GRANT SELECT(last_used_at) ON TABLE watchllm.provider_key_usage TO watchllm_service;
GRANT SELECT(last_used_at) ON TABLE watchllm.provider_key_usage TO watchllm_tenant;
GRANT SELECT(access_anomaly_detected_at) ON TABLE watchllm.provider_key_usage TO watchllm_admin;
GRANT SELECT(access_anomaly_detected_at) ON TABLE watchllm.provider_key_usage TO watchllm_auditor;
GRANT SELECT(access_anomaly_detected_at) ON TABLE watchllm.provider_key_usage TO watchllm_service;
GRANT SELECT(access_anomaly_detected_at) ON TABLE watchllm.provider_key_usage TO watchllm_tenant;
GRANT SELECT(last_rotation_alert_sent_at) ON TABLE watchllm.provider_key_usage TO watchllm_admin;
GRANT SELECT(last_rotation_alert_sent_at) ON TABLE watchllm.provider_key_usage TO watchllm_auditor;
GRANT SELECT(last_rotation_alert_sent_at) ON TABLE watchllm.provider_key_usage TO watchllm_service;
GRANT SELECT(last_rotation_alert_sent_at) ON TABLE watchllm.provider_key_usage TO watchllm_tenant;
GRANT SELECT(blocked_at) ON TABLE watchllm.provider_key_usage TO watchllm_admin;
GRANT SELECT(blocked_at) ON TABLE watchllm.provider_key_usage TO watchllm_auditor;
GRANT SELECT(blocked_at) ON TABLE watchllm.provider_key_usage TO watchllm_service;
GRANT SELECT(blocked_at) ON TABLE watchllm.provider_key_usage TO watchllm_tenant;
GRANT SELECT ON TABLE watchllm.provider_key_security_summary TO watchllm_admin;
GRANT SELECT ON TABLE watchllm.provider_key_security_summary TO watchllm_auditor;
GRANT SELECT ON TABLE watchllm.provider_key_security_summary TO watchllm_service;
GRANT SELECT ON TABLE watchllm.provider_key_security_summary TO watchllm_tenant;
GRANT SELECT ON TABLE watchllm.provider_keys TO watchllm_admin;
GRANT SELECT ON TABLE watchllm.provider_keys TO watchllm_auditor;
GRANT SELECT ON TABLE watchllm.provider_keys TO watchllm_service;
GRANT SELECT ON TABLE watchllm.provider_keys TO watchllm_tenant;
GRANT SELECT(id) ON TABLE watchllm.settings TO watchllm_admin;
GRANT SELECT(id) ON TABLE watchllm.settings TO watchllm_auditor;
GRANT SELECT(name) ON TABLE watchllm.settings TO watchllm_admin;
GRANT SELECT(name) ON TABLE watchllm.settings TO watchllm_auditor;
GRANT SELECT(value) ON TABLE watchllm.settings TO watchllm_admin;
GRANT SELECT(value) ON TABLE watchllm.settings TO watchllm_auditor;
GRANT SELECT(project_id) ON TABLE watchllm.settings TO watchllm_admin;
GRANT SELECT(project_id) ON TABLE watchllm.settings TO watchllm_auditor;
GRANT SELECT(provider_key_id) ON TABLE watchllm.settings TO watchllm_admin;
GRANT SELECT(provider_key_id) ON TABLE watchllm.settings TO watchllm_auditor;
GRANT SELECT(updated_at) ON TABLE watchllm.settings TO watchllm_admin;
GRANT SELECT(updated_at) ON TABLE watchllm.settings TO watchllm_auditor;
