-- redact(jsonb) works on its text, so that numbers keep every digit and a label ("api_key") stands
-- beside its value. Masking leaves JSON as JSON (core/src/redact/mask.rs). Runs after the functions
-- in Rust.

CREATE FUNCTION watchllm.redact(document jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
-- A body in quotes would look its names up when it runs, for callers without USAGE on the schema.
RETURN watchllm.redact(document::pg_catalog.text)::pg_catalog.jsonb;
