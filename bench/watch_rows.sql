-- A month of the trail: decrypts of the 1000 keys, evenly over 30 days, as an application makes
-- them. They are not in the chain: a superuser can insert rows, and only the chain tells.
SELECT watchllm.make_log_partition((now() AT TIME ZONE 'UTC')::date - d) FROM generate_series(0, 30) d;
SELECT (SELECT id FROM watchllm.projects LIMIT 1) AS project,
       (SELECT max(seq) FROM watchllm.provider_key_access_logs) AS seq,
       (SELECT identity_id FROM watchllm.provider_key_access_logs LIMIT 1) AS identity \gset
SET synchronous_commit = off;
INSERT INTO watchllm.provider_key_access_logs
SELECT :seq + i, gen_random_uuid(), now() - interval '30 days' * (1 - i::float8 / :rows) - interval '1 second', :'project', k.id, 'openai', 1,
    'decrypt', true, NULL, 1, NULL, NULL, NULL, 'app_' || i % 5, 'app_' || i % 5, 'none', NULL, false,
    ('10.0.0.' || i % 20)::inet, 4242, 'bench', NULL, 1, i, :'identity', 1, '\x00'
FROM generate_series(1, :rows) i JOIN bench_keys k ON k.n = 1 + (i * 7919::bigint) % 1000;
ANALYZE watchllm.provider_key_access_logs;
