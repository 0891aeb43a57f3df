-- A key in use for a week is used from an address that it does not know. Live counter: NewAddress
-- in core/src/anomaly/detector.rs.

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
