-- Schema version 1: every table. install() runs each file of this directory once, in the order of
-- the numbers, and records the last in install_history. A released file never changes: what comes
-- later is a file of its own. The tables are ordinary ones, not members of the extension, so that
-- dump, restore and DROP EXTENSION lose nothing (docs/facts.md). Rights, row security and triggers
-- are in access.sql, what each column means in comments.sql and trail.sql. No foreign key touches
-- what the writer writes: it must never wait on a row that a caller can lock (docs/facts.md).

CREATE TABLE watchllm.install_history (
    schema_version    integer     NOT NULL CHECK (schema_version > 0),
    extension_version text        NOT NULL CHECK (pg_catalog.octet_length(extension_version) BETWEEN 1 AND 63),
    installed_at      timestamptz NOT NULL DEFAULT pg_catalog.now(),
    installed_by      name        NOT NULL DEFAULT SESSION_USER,
    PRIMARY KEY (schema_version, extension_version)
);

-- Tenants -----------------------------------------------------------------------------------------

-- By name, not by oid: a dump restores it anywhere. The triggers on the table carry the id.
CREATE TABLE watchllm.adopted_tables (
    id           uuid        NOT NULL,
    schema_name  name        NOT NULL,
    table_name   name        NOT NULL,
    id_column    name        NOT NULL,
    owner_column name        NOT NULL,
    name_column  name,
    adopted_by   name        NOT NULL,
    adopted_at   timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (id),
    CONSTRAINT adopted_tables_once UNIQUE (schema_name, table_name)
);

CREATE TABLE watchllm.projects (
    id               uuid        NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    name             text        NOT NULL CHECK (pg_catalog.octet_length(name) BETWEEN 1 AND 100),
    owner_id         text        CHECK (pg_catalog.octet_length(owner_id) BETWEEN 1 AND 128),
    created_at       timestamptz NOT NULL DEFAULT pg_catalog.now(),
    deleted_at       timestamptz,
    adopted_table_id uuid        REFERENCES watchllm.adopted_tables (id),
    PRIMARY KEY (id)
);
CREATE INDEX projects_owner_id_idx ON watchllm.projects (owner_id) WHERE owner_id IS NOT NULL;
CREATE INDEX projects_adopted_table_id_idx ON watchllm.projects (adopted_table_id)
    WHERE adopted_table_id IS NOT NULL;

CREATE TABLE watchllm.project_members (
    id         uuid        NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    project_id uuid        NOT NULL REFERENCES watchllm.projects (id),
    subject    text        CHECK (pg_catalog.octet_length(subject) BETWEEN 1 AND 128),
    role_name  name        CHECK (role_name <> ''),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (project_id, id),
    CONSTRAINT project_members_one_of_subject_and_role CHECK (pg_catalog.num_nonnulls(subject, role_name) = 1),
    CONSTRAINT project_members_once UNIQUE NULLS NOT DISTINCT (project_id, subject, role_name)
);
CREATE INDEX project_members_subject_idx ON watchllm.project_members (subject) WHERE subject IS NOT NULL;
CREATE INDEX project_members_role_name_idx ON watchllm.project_members (role_name) WHERE role_name IS NOT NULL;

-- Provider keys -----------------------------------------------------------------------------------

CREATE TABLE watchllm.provider_key_records (
    id                        uuid        NOT NULL,
    project_id                uuid        NOT NULL REFERENCES watchllm.projects (id),
    provider                  text        NOT NULL CHECK (pg_catalog.octet_length(provider) BETWEEN 1 AND 63),
    name                      text        CHECK (pg_catalog.octet_length(name) BETWEEN 1 AND 100),
    key_hint                  text        NOT NULL CHECK (pg_catalog.octet_length(key_hint) <= 63),
    priority                  integer     NOT NULL CHECK (priority >= 1),
    is_active                 boolean     NOT NULL DEFAULT true,
    active_version            integer     NOT NULL CHECK (active_version > 0),
    active_version_created_at timestamptz NOT NULL,
    rotation_interval         interval    CHECK (rotation_interval > '0'::interval),
    rotation_required_at      timestamptz,
    compromised_at            timestamptz,
    deleted_at                timestamptz,
    created_at                timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at                timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (project_id, id),
    CONSTRAINT provider_key_records_id_key UNIQUE (id)
);
CREATE UNIQUE INDEX provider_key_records_name_key ON watchllm.provider_key_records (project_id, provider, name)
    WHERE deleted_at IS NULL AND name IS NOT NULL;
CREATE INDEX provider_key_records_resolve_idx
    ON watchllm.provider_key_records (project_id, provider, priority, created_at, id)
    WHERE deleted_at IS NULL AND is_active;

-- An envelope begins with its format (1 byte, here 1) and master-key version (4 bytes, big endian).
-- It adds 1 + 4 + 16 + 12 + 16 bytes to a ciphertext of 1 to 4096 (docs/architecture.md). int4send
-- is the big-endian form of an integer.
CREATE TABLE watchllm.provider_key_versions (
    project_id              uuid        NOT NULL,
    provider_key_id         uuid        NOT NULL,
    version                 integer     NOT NULL CHECK (version > 0),
    envelope                bytea,
    master_key_version      integer     NOT NULL CHECK (master_key_version > 0),
    fingerprint             bytea       NOT NULL CHECK (pg_catalog.octet_length(fingerprint) = 32),
    fingerprint_key_version integer     NOT NULL CHECK (fingerprint_key_version > 0),
    created_at              timestamptz NOT NULL DEFAULT pg_catalog.now(),
    created_by              text        NOT NULL CHECK (pg_catalog.octet_length(created_by) BETWEEN 1 AND 128),
    retired_at              timestamptz,
    compromised_at          timestamptz,
    destroyed_at            timestamptz,
    PRIMARY KEY (project_id, provider_key_id, version),
    CONSTRAINT provider_key_versions_envelope_length CHECK (pg_catalog.octet_length(envelope) BETWEEN 50 AND 4145),
    CONSTRAINT provider_key_versions_envelope_header
        CHECK (pg_catalog.substring(envelope, 1, 5) = '\x01'::bytea || pg_catalog.int4send(master_key_version)),
    CONSTRAINT provider_key_versions_destroyed CHECK ((envelope IS NULL) = (destroyed_at IS NOT NULL))
);
CREATE INDEX provider_key_versions_master_key_version_idx
    ON watchllm.provider_key_versions (master_key_version, project_id, provider_key_id, version);
CREATE INDEX provider_key_versions_fingerprint_idx ON watchllm.provider_key_versions (fingerprint);

-- The writer updates a row about once a second while its key is in use. Half-empty pages keep these
-- updates in place (HOT).
CREATE TABLE watchllm.provider_key_usage (
    project_id                  uuid        NOT NULL,
    provider_key_id             uuid        NOT NULL,
    access_count                bigint      NOT NULL DEFAULT 0 CHECK (access_count >= 0),
    failure_count               bigint      NOT NULL DEFAULT 0 CHECK (failure_count >= 0),
    bucket_start                timestamptz,
    accesses                    integer[]   NOT NULL DEFAULT pg_catalog.array_fill(0, ARRAY[48]),
    failures                    integer[]   NOT NULL DEFAULT pg_catalog.array_fill(0, ARRAY[48]),
    last_used_at                timestamptz,
    access_anomaly_detected_at  timestamptz,
    last_rotation_alert_sent_at timestamptz,
    blocked_at                  timestamptz,
    PRIMARY KEY (project_id, provider_key_id),
    CONSTRAINT provider_key_usage_buckets
        CHECK (pg_catalog.array_dims(accesses) = '[1:48]' AND pg_catalog.array_dims(failures) = '[1:48]')
) WITH (fillfactor = 50);
-- When the writer starts, it reads which keys are blocked.
CREATE INDEX provider_key_usage_blocked_idx ON watchllm.provider_key_usage (project_id, provider_key_id)
    WHERE blocked_at IS NOT NULL;

-- The audit trail ---------------------------------------------------------------------------------

-- No CHECK here: PostgreSQL parses them again in every INSERT, a fifth of the writer's time. Only
-- the writer inserts, and its types hold the words and lengths (core/src/trail/terms.rs).
-- The order of the columns is hashed into every row. So new columns go to the end and may be NULL.
-- They are hashed where they have a value (core/src/trail/chain.rs): older rows still verify.
CREATE TABLE watchllm.provider_key_access_logs (
    seq               bigint      NOT NULL,
    id                uuid        NOT NULL,
    accessed_at       timestamptz NOT NULL,
    project_id        uuid,
    provider_key_id   uuid,
    provider          text,
    key_version       integer,
    access_type       text        NOT NULL,
    success           boolean     NOT NULL,
    failure_reason    text,
    attempt_count     integer     NOT NULL DEFAULT 1,
    ip_address        text,
    user_agent        text,
    request_id        text,
    session_role      text        NOT NULL,
    effective_role    text        NOT NULL,
    role_setting      text,
    claims_sub        text,
    claims_trusted    boolean     NOT NULL,
    client_addr       inet,
    backend_pid       integer     NOT NULL,
    application_name  text,
    txid              xid8,
    epoch             bigint      NOT NULL,
    queue_seq         bigint      NOT NULL,
    identity_id       uuid        NOT NULL,
    chain_key_version integer     NOT NULL,
    hash              bytea       NOT NULL,
    PRIMARY KEY (accessed_at, epoch, queue_seq),
    UNIQUE (seq, accessed_at)
) PARTITION BY RANGE (accessed_at);
CREATE INDEX provider_key_access_logs_key_idx
    ON watchllm.provider_key_access_logs (project_id, provider_key_id, accessed_at DESC);

CREATE TABLE watchllm.committed_changes (
    event_id   uuid NOT NULL,
    project_id uuid,
    PRIMARY KEY (event_id)
);

CREATE TABLE watchllm.audit_checkpoints (
    identity_id        uuid        NOT NULL,
    seq                bigint      NOT NULL CHECK (seq > 0),
    at                 timestamptz NOT NULL,
    accessed_at        timestamptz NOT NULL,
    hash               bytea       NOT NULL CHECK (pg_catalog.octet_length(hash) = 32),
    chain_key_version  integer     NOT NULL CHECK (chain_key_version > 0),
    reason             text        NOT NULL CHECK (reason IN ('time', 'digest', 'prune', 'adopt')),
    digest_key_version integer     CHECK (digest_key_version > 0),
    signature          bytea       CHECK (pg_catalog.octet_length(signature) = 64),
    PRIMARY KEY (identity_id, seq, at),
    CONSTRAINT audit_checkpoints_signed CHECK ((signature IS NULL) = (digest_key_version IS NULL))
);
CREATE INDEX audit_checkpoints_at_idx ON watchllm.audit_checkpoints (at);

CREATE TABLE watchllm.database_identity (
    id                uuid        NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    system_identifier bigint      NOT NULL,
    database_oid      oid         NOT NULL,
    database_name     name        NOT NULL,
    reason            text        NOT NULL CHECK (pg_catalog.octet_length(reason) BETWEEN 1 AND 500),
    created_at        timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (id)
);

-- Master keys and what they seal ------------------------------------------------------------------

CREATE TABLE watchllm.master_keys (
    version    integer     NOT NULL CHECK (version > 0),
    salt       bytea       NOT NULL CHECK (pg_catalog.octet_length(salt) = 16),
    iterations integer     NOT NULL CHECK (iterations >= 100000),
    canary     bytea       NOT NULL,
    is_active  boolean     NOT NULL,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    retired_at timestamptz,
    PRIMARY KEY (version),
    CONSTRAINT master_keys_canary_length CHECK (pg_catalog.octet_length(canary) BETWEEN 50 AND 4145),
    CONSTRAINT master_keys_canary_header
        CHECK (pg_catalog.substring(canary, 1, 5) = '\x01'::bytea || pg_catalog.int4send(version)),
    CONSTRAINT master_keys_active_is_not_retired CHECK (NOT is_active OR retired_at IS NULL)
);
CREATE UNIQUE INDEX master_keys_one_active ON watchllm.master_keys (is_active) WHERE is_active;

-- A reseal under another master key is a new row, and the highest version of a kind is in use. So
-- nothing is ever updated. created_at of the next version tells when one went out of use.
CREATE TABLE watchllm.audit_keys (
    kind               text        NOT NULL CHECK (kind IN ('fingerprint', 'mac', 'digest')),
    version            integer     NOT NULL CHECK (version > 0),
    master_key_version integer     NOT NULL CHECK (master_key_version > 0) REFERENCES watchllm.master_keys (version),
    envelope           bytea       NOT NULL,
    public_key         bytea       CHECK (pg_catalog.octet_length(public_key) = 32),
    created_at         timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (kind, version, master_key_version),
    CONSTRAINT audit_keys_envelope_length CHECK (pg_catalog.octet_length(envelope) BETWEEN 50 AND 4145),
    CONSTRAINT audit_keys_envelope_header
        CHECK (pg_catalog.substring(envelope, 1, 5) = '\x01'::bytea || pg_catalog.int4send(master_key_version)),
    CONSTRAINT audit_keys_public_key_of_digest CHECK ((kind = 'digest') = (public_key IS NOT NULL))
);
CREATE INDEX audit_keys_master_key_version_idx ON watchllm.audit_keys (master_key_version);

ALTER TABLE watchllm.provider_key_versions
    ADD FOREIGN KEY (project_id, provider_key_id) REFERENCES watchllm.provider_key_records (project_id, id),
    ADD FOREIGN KEY (master_key_version) REFERENCES watchllm.master_keys (version);

CREATE TABLE watchllm.settings (
    id              uuid        NOT NULL DEFAULT pg_catalog.gen_random_uuid(),
    name            text        NOT NULL CHECK (pg_catalog.octet_length(name) BETWEEN 1 AND 63),
    value           text        NOT NULL CHECK (pg_catalog.octet_length(value) <= 4096),
    project_id      uuid        REFERENCES watchllm.projects (id),
    provider_key_id uuid,
    updated_at      timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (id),
    FOREIGN KEY (project_id, provider_key_id) REFERENCES watchllm.provider_key_records (project_id, id),
    CONSTRAINT settings_key_with_project CHECK (provider_key_id IS NULL OR project_id IS NOT NULL),
    CONSTRAINT settings_once UNIQUE NULLS NOT DISTINCT (name, project_id, provider_key_id)
);
CREATE INDEX settings_project_id_idx ON watchllm.settings (project_id, provider_key_id);

-- The watch: incidents, and what is counted per caller --------------------------------------------

CREATE TABLE watchllm.security_incidents (
    id              uuid        NOT NULL,
    type            text        NOT NULL CHECK (pg_catalog.octet_length(type) BETWEEN 1 AND 63),
    severity        text        NOT NULL CHECK (severity IN ('low', 'medium', 'high', 'critical')),
    project_id      uuid,
    provider_key_id uuid,
    details         jsonb       NOT NULL DEFAULT '{}' CHECK (pg_catalog.jsonb_typeof(details) = 'object'),
    detected_at     timestamptz NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX security_incidents_detected_at_idx ON watchllm.security_incidents (detected_at);
CREATE INDEX security_incidents_key_idx
    ON watchllm.security_incidents (project_id, provider_key_id, detected_at DESC);

CREATE TABLE watchllm.incident_events (
    id          uuid        NOT NULL,
    incident_id uuid        NOT NULL,
    project_id  uuid,
    event       text        NOT NULL CHECK (event IN ('acknowledged', 'ended', 'note')),
    note        text        CHECK (pg_catalog.octet_length(note) <= 500),
    by          text        NOT NULL CHECK (pg_catalog.octet_length(by) BETWEEN 1 AND 128),
    at          timestamptz NOT NULL,
    PRIMARY KEY (id)
);
CREATE INDEX incident_events_incident_id_idx ON watchllm.incident_events (incident_id, at);

-- A caller is a JWT subject, a database role or a network address. (kind, subject) names it in all
-- three tables.
CREATE TABLE watchllm.caller_peaks (
    kind          text    NOT NULL CHECK (kind IN ('subject', 'role', 'address')),
    subject       text    NOT NULL CHECK (pg_catalog.octet_length(subject) BETWEEN 1 AND 128),
    day           date    NOT NULL,
    distinct_keys integer NOT NULL CHECK (distinct_keys > 0),
    PRIMARY KEY (kind, subject, day)
) WITH (fillfactor = 70);
CREATE INDEX caller_peaks_day_idx ON watchllm.caller_peaks (day);

CREATE TABLE watchllm.provider_key_callers (
    project_id      uuid        NOT NULL,
    provider_key_id uuid        NOT NULL,
    kind            text        NOT NULL CHECK (kind IN ('subject', 'role', 'address')),
    subject         text        NOT NULL CHECK (pg_catalog.octet_length(subject) BETWEEN 1 AND 128),
    first_seen_at   timestamptz NOT NULL,
    last_seen_at    timestamptz NOT NULL,
    PRIMARY KEY (project_id, provider_key_id, kind, subject)
) WITH (fillfactor = 70);
CREATE INDEX provider_key_callers_first_seen_at_idx ON watchllm.provider_key_callers (first_seen_at);

CREATE TABLE watchllm.blocked_callers (
    kind        text        NOT NULL CHECK (kind IN ('subject', 'role', 'address')),
    subject     text        NOT NULL CHECK (pg_catalog.octet_length(subject) BETWEEN 1 AND 128),
    blocked_at  timestamptz NOT NULL,
    incident_id uuid,
    note        text        CHECK (pg_catalog.octet_length(note) <= 500),
    PRIMARY KEY (kind, subject)
);
