\set k random(1, 1000)
SELECT watchllm.decrypt_provider_key((SELECT id FROM bench.keys WHERE n = :k));
