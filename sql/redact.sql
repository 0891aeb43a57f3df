-- redact(jsonb), over its text: numbers keep every digit, and a label ("api_key") is seen beside its value.
-- Masking leaves JSON as JSON (src/redact/mask.rs). Runs after the functions in Rust.

CREATE FUNCTION watchllm.redact(document jsonb) RETURNS jsonb
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
SET search_path = pg_catalog, pg_temp
-- not a text in quotes: its names would be looked up when it runs, by people with no USAGE on the schema
RETURN watchllm.redact(document::pg_catalog.text)::pg_catalog.jsonb;
