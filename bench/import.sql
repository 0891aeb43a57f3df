-- WatchLLM's table with the wanted number of rows. A few hundred ciphertexts are repeated under new
-- ids, since opening one always costs the same. 1,000 projects, five providers, two keys of each,
-- so nobody is over the limit.
SET client_min_messages = warning;
CREATE EXTENSION watchllm_keys;
SELECT watchllm.install();
CREATE TABLE projects AS
SELECT n, watchllm.create_project('project ' || n) AS id FROM generate_series(0, 999) n;
CREATE TABLE provider_keys (
    id uuid PRIMARY KEY DEFAULT gen_random_uuid(), project_id uuid NOT NULL, provider varchar(50) NOT NULL,
    encrypted_key text NOT NULL, encryption_iv text NOT NULL, name varchar(100), priority int, is_active boolean DEFAULT true,
    created_at timestamptz DEFAULT now(), last_used_at timestamptz);
INSERT INTO provider_keys (project_id, provider, encrypted_key, encryption_iv, name, priority, last_used_at)
SELECT p.id, (ARRAY['openai', 'anthropic', 'groq', 'xai', 'mistral'])[1 + i / 1000 % 5], s.encrypted_key, s.encryption_iv,
       'key ' || i, 1 + i / 5000 % 2, now() - interval '1 day'
FROM generate_series(0, :rows - 1) i
JOIN projects p ON p.n = i % 1000
JOIN (SELECT row_number() OVER () - 1 AS n, count(*) OVER () AS count, c.* FROM sealed c) s ON s.n = i % s.count;
ANALYZE provider_keys;
