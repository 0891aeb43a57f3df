\set n :n + 1
SELECT watchllm.decrypt_provider_key((SELECT id FROM bench.keys WHERE n = :n));
