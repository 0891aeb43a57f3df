-- A project with 1000 keys, numbered.
CREATE EXTENSION watchllm_keys;
SELECT watchllm.install();
SELECT watchllm.create_project('bench') AS project \gset
CREATE TABLE bench_keys AS
SELECT n, watchllm.store_provider_key(:'project', 'openai', 'sk-plainly-fake-' || n) AS id FROM generate_series(1, 1000) n;
CREATE UNIQUE INDEX ON bench_keys (n);
ANALYZE;
