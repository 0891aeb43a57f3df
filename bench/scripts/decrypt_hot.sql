SELECT watchllm.decrypt_provider_key(:id);
