-- Nothing that a tenant can store may fail when somebody else reads it. So the parts of a rotation
-- interval and all times have bounds. Staff waits for no tenant. So marks of leaks wait in a table
-- that no tenant can lock. Findings of the doctor can be accepted.

-- PostgreSQL adds months, days and time one after the other. Opposite parts may cancel out and
-- still leave the range of dates on the way, in some time zones only. Such an interval becomes its
-- length.
UPDATE watchllm.provider_key_records
SET rotation_interval = pg_catalog.make_interval(secs => LEAST(GREATEST(
    EXTRACT(epoch FROM rotation_interval), 1), 3110400000)::float8)
WHERE EXTRACT(year FROM rotation_interval) * 12 + EXTRACT(month FROM rotation_interval) NOT BETWEEN 0 AND 1200
   OR EXTRACT(day FROM rotation_interval) NOT BETWEEN 0 AND 36000
   OR EXTRACT(hour FROM rotation_interval) NOT BETWEEN 0 AND 864000
   OR EXTRACT(minute FROM rotation_interval) < 0 OR EXTRACT(second FROM rotation_interval) < 0;

-- Times of imported keys came from an application's table.
UPDATE watchllm.provider_key_records
SET created_at = LEAST(GREATEST(created_at, '1970-01-01 00:00:00+00'), pg_catalog.now()),
    active_version_created_at =
        LEAST(GREATEST(active_version_created_at, '1970-01-01 00:00:00+00'), pg_catalog.now())
WHERE created_at NOT BETWEEN '1970-01-01 00:00:00+00' AND '3000-01-01 00:00:00+00'
   OR active_version_created_at NOT BETWEEN '1970-01-01 00:00:00+00' AND '3000-01-01 00:00:00+00';
UPDATE watchllm.provider_key_records SET rotation_required_at = NULL
WHERE rotation_required_at NOT BETWEEN '1970-01-01 00:00:00+00' AND '3000-01-01 00:00:00+00';
UPDATE watchllm.provider_key_versions
SET created_at = LEAST(GREATEST(created_at, '1970-01-01 00:00:00+00'), pg_catalog.now())
WHERE created_at NOT BETWEEN '1970-01-01 00:00:00+00' AND '3000-01-01 00:00:00+00';

-- Plain comparisons instead of BETWEEN: a dump writes brackets around those, and reads them back as
-- another text.
ALTER TABLE watchllm.provider_key_records
    ADD CONSTRAINT provider_key_records_rotation_interval_parts CHECK (
        EXTRACT(year FROM rotation_interval) * 12 + EXTRACT(month FROM rotation_interval) >= 0
        AND EXTRACT(year FROM rotation_interval) * 12 + EXTRACT(month FROM rotation_interval) <= 1200
        AND EXTRACT(day FROM rotation_interval) >= 0
        AND EXTRACT(day FROM rotation_interval) <= 36000
        AND EXTRACT(hour FROM rotation_interval) >= 0
        AND EXTRACT(hour FROM rotation_interval) <= 864000
        AND EXTRACT(minute FROM rotation_interval) >= 0
        AND EXTRACT(second FROM rotation_interval) >= 0),
    ADD CONSTRAINT provider_key_records_times CHECK (
        created_at >= '1970-01-01 00:00:00+00' AND created_at <= '3000-01-01 00:00:00+00'
        AND active_version_created_at >= '1970-01-01 00:00:00+00'
        AND active_version_created_at <= '3000-01-01 00:00:00+00'
        AND coalesce(rotation_required_at, created_at) >= '1970-01-01 00:00:00+00'
        AND coalesce(rotation_required_at, created_at) <= '3000-01-01 00:00:00+00');
ALTER TABLE watchllm.provider_key_versions
    ADD CONSTRAINT provider_key_versions_times CHECK (
        created_at BETWEEN '1970-01-01 00:00:00+00' AND '3000-01-01 00:00:00+00');

-- Versions reported as leaked while a tenant held their key's row. The writer marks them once the
-- row is free, and waits for nobody.
CREATE TABLE watchllm.leak_marks (
    project_id      uuid        NOT NULL,
    provider_key_id uuid        NOT NULL,
    version         integer     NOT NULL CHECK (version > 0),
    marked_at       timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (project_id, provider_key_id, version)
);

-- A finding that is accepted is one with this very text. Rows are only added: the last one counts.
CREATE TABLE watchllm.accepted_findings (
    id          uuid        NOT NULL,
    check_name  text        NOT NULL CHECK (pg_catalog.octet_length(check_name) BETWEEN 1 AND 63),
    finding     text        NOT NULL,
    note        text        NOT NULL CHECK (pg_catalog.octet_length(note) BETWEEN 1 AND 500),
    until       timestamptz NOT NULL,
    accepted_by text        NOT NULL CHECK (pg_catalog.octet_length(accepted_by) BETWEEN 1 AND 128),
    accepted_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (id),
    CONSTRAINT accepted_findings_until CHECK (
        until BETWEEN '1970-01-01 00:00:00+00' AND '3000-01-01 00:00:00+00')
);
CREATE INDEX accepted_findings_check_name_idx ON watchllm.accepted_findings (check_name, accepted_at);
