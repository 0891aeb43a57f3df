-- Many decrypts in one backend: bytes of all memory contexts, and resident kilobytes without shared
-- memory, before and after. As many calls go before, because generate_series() keeps memory for its
-- rows.
SELECT id AS key, pg_backend_pid() AS pid FROM bench.keys WHERE n = 1 \gset
\setenv BACKEND :pid
SELECT count(watchllm.decrypt_provider_key(:'key')) FROM generate_series(1, :calls) \g /dev/null
SELECT sum(total_bytes) FROM pg_backend_memory_contexts;
\! sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' /proc/$BACKEND/status
SELECT count(watchllm.decrypt_provider_key(:'key')) FROM generate_series(1, :calls) \g /dev/null
SELECT sum(total_bytes) FROM pg_backend_memory_contexts;
\! sed -n 's/^RssAnon:[^0-9]*\([0-9]*\).*/\1/p' /proc/$BACKEND/status
