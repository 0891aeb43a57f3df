-- Schema version 2: what each source of incidents has raised in a day, and what was held back. The
-- writer updates a row about once a second while its source is noisy. So it is no evidence: that is
-- the incident held_back and its event ended, which nobody can change.

CREATE TABLE watchllm.incident_sources (
    day         date        NOT NULL,
    kind        text        NOT NULL CHECK (pg_catalog.octet_length(kind) BETWEEN 1 AND 63),
    name        text        NOT NULL CHECK (pg_catalog.octet_length(name) <= 500),
    database    text        NOT NULL CHECK (pg_catalog.octet_length(database) <= 63),
    channel     text        NOT NULL CHECK (pg_catalog.octet_length(channel) <= 63),
    project_id  uuid,
    raised      integer     NOT NULL DEFAULT 0 CHECK (raised >= 0),
    held_back   bigint      NOT NULL DEFAULT 0 CHECK (held_back >= 0),
    cut_off_at  timestamptz,
    last_at     timestamptz,
    incident_id uuid,
    closed_at   timestamptz,
    PRIMARY KEY (day, kind, name, database, channel),
    CONSTRAINT incident_sources_cut_off
        CHECK ((held_back > 0) = (cut_off_at IS NOT NULL AND last_at IS NOT NULL AND incident_id IS NOT NULL))
) WITH (fillfactor = 70);
-- The days whose count is not told yet.
CREATE INDEX incident_sources_open_idx ON watchllm.incident_sources (day) WHERE held_back > 0 AND closed_at IS NULL;
