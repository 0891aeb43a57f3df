-- The subject of the bench: a vault with 1,600 keys, and beside it what an application would write
-- itself with pgcrypto. Keys 1 to 1000 are the working set, 1 is the hot key. Those above are
-- opened once, to measure a first time.
SET client_min_messages = warning;
CREATE EXTENSION watchllm_keys;
SELECT watchllm.install();
CREATE EXTENSION pgcrypto;
CREATE SCHEMA bench;

CREATE TABLE bench.keys (n int PRIMARY KEY, id uuid NOT NULL);
SELECT watchllm.create_project('bench') AS project \gset
INSERT INTO bench.keys
SELECT n, watchllm.store_provider_key(:'project', 'openai', 'sk-bench-' || md5(n::text) || md5((-n)::text), 'bench ' || n)
FROM generate_series(1, 1600) n;

-- the baselines' own vault: the same ids, the same length of key
CREATE TABLE bench.vault (id uuid PRIMARY KEY, ciphertext bytea NOT NULL, last_used_at timestamptz);
INSERT INTO bench.vault
SELECT id, pgp_sym_encrypt('sk-bench-' || md5(n::text) || md5((-n)::text), 'a passphrase of thirty-two letters')
FROM bench.keys WHERE n <= 1000;

-- the baselines' own log: the columns, indexes and daily partitions of the audit trail
CREATE TABLE bench.log (LIKE watchllm.provider_key_access_logs INCLUDING ALL) PARTITION BY RANGE (accessed_at);
SELECT format('CREATE TABLE bench.log_%s PARTITION OF bench.log FOR VALUES FROM (%L) TO (%L)',
              to_char(day, 'YYYYMMDD'), to_char(day, 'YYYY-MM-DD 00:00:00+00'), to_char(day + interval '1 day', 'YYYY-MM-DD 00:00:00+00'))
FROM generate_series(date_trunc('day', now() AT TIME ZONE 'UTC'), date_trunc('day', now() AT TIME ZONE 'UTC') + interval '1 day', interval '1 day') AS day
\gexec

-- an INSERT of the row that a decrypt writes: each column has the value of a real row, identity
-- columns are new
CREATE FUNCTION bench.insert_of_a_row(seq text, epoch text, queue_seq text) RETURNS text LANGUAGE sql AS $$
    SELECT format('INSERT INTO bench.log (%s) VALUES (%s)',
        string_agg(quote_ident(attname), ', ' ORDER BY attnum),
        string_agg(CASE attname
            WHEN 'accessed_at' THEN 'clock_timestamp()'
            WHEN 'id' THEN 'gen_random_uuid()'
            WHEN 'seq' THEN $1
            WHEN 'epoch' THEN $2
            WHEN 'queue_seq' THEN $3
            ELSE format('%L::%s', sample.line ->> attname, format_type(atttypid, atttypmod)) END, ', ' ORDER BY attnum))
    FROM pg_attribute,
        (SELECT to_jsonb(l) AS line FROM watchllm.provider_key_access_logs l
         WHERE access_type = 'decrypt' AND success LIMIT 1) AS sample
    WHERE attrelid = 'bench.log'::regclass AND attnum > 0 AND NOT attisdropped $$;

CREATE ROLE bench LOGIN;
GRANT watchllm_service, pg_read_all_stats TO bench;
GRANT USAGE ON SCHEMA bench TO bench;
GRANT SELECT ON bench.keys TO bench;
GRANT SELECT, INSERT, UPDATE ON bench.vault, bench.log TO bench;
-- the sample row
SELECT count(watchllm.decrypt_provider_key(id)) FROM bench.keys WHERE n = 1;
ANALYZE;
