-- Keys that were never opened against the same keys a second time, on one warm connection:
-- milliseconds, medians.
CREATE TEMP TABLE took (kind text, ms float8);
DO $$
DECLARE
    ids uuid[] := (SELECT array_agg(id ORDER BY n) FROM bench.keys WHERE n BETWEEN 1001 AND 1200);
    kind text;
    key uuid;
    started timestamptz;
BEGIN
    FOR i IN 1..200 LOOP
        PERFORM watchllm.decrypt_provider_key((SELECT id FROM bench.keys WHERE n = 1));
    END LOOP;
    FOREACH kind IN ARRAY ARRAY['cold', 'warm'] LOOP
        FOREACH key IN ARRAY ids LOOP
            started := clock_timestamp();
            PERFORM watchllm.decrypt_provider_key(key);
            INSERT INTO took VALUES (kind, extract(epoch FROM clock_timestamp() - started) * 1000);
        END LOOP;
    END LOOP;
END $$;
SELECT round((percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) FILTER (WHERE kind = 'cold'))::numeric, 4),
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) FILTER (WHERE kind = 'warm'))::numeric, 4) FROM took;
