SELECT 1;
SELECT watchllm.decrypt_provider_key(:id) AS first;
SELECT watchllm.decrypt_provider_key(:id) AS later;
