-- 1,000 keys: one array call against row by row, milliseconds (medians of five, in turn).
SET work_mem = '64MB';
CREATE TEMP TABLE took (kind text, ms float8);
DO $$
DECLARE
    ids uuid[] := (SELECT array_agg(id ORDER BY n) FROM bench.keys WHERE n <= 1000);
    opened int;
    started timestamptz;
BEGIN
    FOR round IN 1..5 LOOP
        started := clock_timestamp();
        SELECT count(watchllm.decrypt_provider_key(id)) INTO opened FROM unnest(ids) AS id;
        INSERT INTO took VALUES ('rows', extract(epoch FROM clock_timestamp() - started) * 1000);
        ASSERT opened = 1000;
        started := clock_timestamp();
        SELECT count(api_key) INTO opened FROM watchllm.decrypt_provider_keys(ids);
        INSERT INTO took VALUES ('array', extract(epoch FROM clock_timestamp() - started) * 1000);
        ASSERT opened = 1000;
    END LOOP;
END $$;
SELECT round((percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) FILTER (WHERE kind = 'rows'))::numeric, 3),
       round((percentile_cont(0.5) WITHIN GROUP (ORDER BY ms) FILTER (WHERE kind = 'array'))::numeric, 3) FROM took;
