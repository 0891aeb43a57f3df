-- Masking keys in text: redact() against a chain of regexp_replace() over the same formats in
-- plpgsql. Also against copying the text (repeat() and octet_length() of what is stored apart).
-- Milliseconds are medians of five, in turn.
SET client_min_messages = warning;
CREATE SCHEMA bench_redact;

-- Baseline: what one would write without the vault, from the same table of formats.
CREATE FUNCTION bench_redact.chain(line text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE AS $$
BEGIN
    line := regexp_replace(line, 'sk-proj-[A-Za-z0-9_-]{20,}', 'sk-proj-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-svcacct-[A-Za-z0-9_-]{20,}', 'sk-svcacct-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-admin-[A-Za-z0-9_-]{20,}', 'sk-admin-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-[A-Za-z0-9]{20}T3BlbkFJ[A-Za-z0-9]{20}', 'sk-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-[A-Za-z0-9_-]{1,100}?T3BlbkFJ[A-Za-z0-9_-]{16,}', 'sk-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-service-[A-Za-z0-9_-]{20,}', 'sk-service-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sess-[A-Za-z0-9]{40}', 'sess-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-ant-api[0-9]{2}-[A-Za-z0-9_-]{60,}', 'sk-ant-api03-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-ant-admin[0-9]{2}-[A-Za-z0-9_-]{60,}', 'sk-ant-admin01-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-ant-oat[0-9]{2}-[A-Za-z0-9_-]{40,}', 'sk-ant-oat01-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-ant-ort[0-9]{2}-[A-Za-z0-9_-]{40,}', 'sk-ant-ort01-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-ant-[a-z]{2,10}[0-9]{2}-[A-Za-z0-9_-]{40,}', 'sk-ant-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-or-v[0-9]+-[0-9A-Fa-f]{32,}', 'sk-or-v1-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-helicone-(?:[a-z]{2,8}-)?[a-z0-9]{7}(?:-[a-z0-9]{7}){3}', 'sk-helicone-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-lf-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', 'sk-lf-...[REDACTED]', 'g');
    line := regexp_replace(line, 'pk-lf-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}', 'pk-lf-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-[A-Za-z0-9_-]{22}', 'sk-...[REDACTED]', 'g');
    line := regexp_replace(line, 'vc[kpcair]_[A-Za-z0-9_-]{56}', 'vck_...[REDACTED]', 'g');
    line := regexp_replace(line, '((?:portkey).{0,64}?)(?:[A-Za-z0-9+/]{27}=|[A-Za-z0-9]{28})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, 'gsk_[A-Za-z0-9]{40,}', 'gsk_...[REDACTED]', 'g');
    line := regexp_replace(line, 'pplx-[A-Za-z0-9]{40,}', 'pplx-...[REDACTED]', 'g');
    line := regexp_replace(line, 'xai-[A-Za-z0-9_]{60,}', 'xai-...[REDACTED]', 'g');
    line := regexp_replace(line, 'xai-token-[A-Za-z0-9]{60,}', 'xai-token-...[REDACTED]', 'g');
    line := regexp_replace(line, 'hf_[A-Za-z]{34}', 'hf_...[REDACTED]', 'g');
    line := regexp_replace(line, 'api_org_[A-Za-z]{34}', 'api_org_...[REDACTED]', 'g');
    line := regexp_replace(line, 'hf_oauth_[A-Za-z0-9_.-]{40,}', 'hf_oauth_...[REDACTED]', 'g');
    line := regexp_replace(line, 'r8_[A-Za-z0-9_-]{37}', 'r8_...[REDACTED]', 'g');
    line := regexp_replace(line, 'AIza[A-Za-z0-9_-]{35}', 'AIza...[REDACTED]', 'g');
    line := regexp_replace(line, 'AQ\.Ab8R[A-Za-z0-9_-]{40,60}', 'AQ.Ab8R...[REDACTED]', 'g');
    line := regexp_replace(line, 'ya29\.[A-Za-z0-9_-]{30,}', 'ya29....[REDACTED]', 'g');
    line := regexp_replace(line, 'GOCSPX-[A-Za-z0-9_-]{28}', 'GOCSPX-...[REDACTED]', 'g');
    line := regexp_replace(line, '((?:cohere|co_api_key).{0,64}?)(?:[A-Za-z0-9]{40})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, '((?:mistral).{0,64}?)(?:[A-Za-z0-9]{32})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, 'tgp_v1_[A-Za-z0-9_-]{43}', 'tgp_v1_...[REDACTED]', 'g');
    line := regexp_replace(line, '((?:together).{0,64}?)(?:[0-9a-f]{64})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, 'fw_[A-Za-z0-9]{22,44}', 'fw_...[REDACTED]', 'g');
    line := regexp_replace(line, 'fpk_[A-Za-z0-9]{20,}', 'fpk_...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-[0-9a-f]{32}', 'sk-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-[0-9a-f]{32}', 'sk-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-[A-Za-z0-9_-]{48}', 'sk-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-[A-Za-z0-9]{48}', 'sk-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-[a-z]{48}', 'sk-...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk-api-[A-Za-z0-9_-]{100,}', 'sk-api-...[REDACTED]', 'g');
    line := regexp_replace(line, '[0-9a-f]{32}\.[A-Za-z0-9]{16}', '...[REDACTED]', 'g');
    line := regexp_replace(line, '((?:ollama).{0,64}?)(?:[0-9a-f]{32}\.[A-Za-z0-9_-]{24})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, 'csk-[a-z0-9]{48}', 'csk-...[REDACTED]', 'g');
    line := regexp_replace(line, 'nvapi-[A-Za-z0-9_-]{60,70}', 'nvapi-...[REDACTED]', 'g');
    line := regexp_replace(line, '(?:pa|al)-[A-Za-z0-9_-]{43}', 'pa-...[REDACTED]', 'g');
    line := regexp_replace(line, 'jina_[A-Za-z0-9]{60}', 'jina_...[REDACTED]', 'g');
    line := regexp_replace(line, '((?:ai21).{0,64}?)(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, '((?:sambanova).{0,64}?)(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, 'up_[A-Za-z0-9]{29}', 'up_...[REDACTED]', 'g');
    line := regexp_replace(line, 'flp_[A-Za-z0-9]{46}', 'flp_...[REDACTED]', 'g');
    line := regexp_replace(line, '((?:baseten).{0,64}?)(?:[A-Za-z0-9]{8}\.[A-Za-z0-9]{32})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, '[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}:[0-9a-f]{32}', '...[REDACTED]', 'g');
    line := regexp_replace(line, 'rpa_[A-Z0-9]{40}[A-Za-z0-9]{6}', 'rpa_...[REDACTED]', 'g');
    line := regexp_replace(line, 'esecret_[A-Za-z0-9]{20,}', 'esecret_...[REDACTED]', 'g');
    line := regexp_replace(line, '((?:openai\.azure\.com|azure[_.-]?(?:openai|cognitive|oai)|api-key|ocp-apim-subscription-key).{0,96}?)(?:[0-9a-f]{32})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, '[A-Za-z0-9]{52}JQQJ9[9DH][A-Za-z0-9][A-L][A-Za-z0-9]{16}[A-Za-z][A-Za-z0-9]{7}(?:[A-Za-z0-9]{2}==)?', '...[REDACTED]', 'g');
    line := regexp_replace(line, 'ABSK[A-Za-z0-9+/]{60,}={0,2}', 'ABSK...[REDACTED]', 'g');
    line := regexp_replace(line, 'bedrock-api-key-YmVkcm9jay5hbWF6b25hd3MuY29t[A-Za-z0-9+/=_%-]*', 'bedrock-api-key-...[REDACTED]', 'g');
    line := regexp_replace(line, '(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}', 'AKIA...[REDACTED]', 'g');
    line := regexp_replace(line, '((?:aws|secret_?access_?key).{0,64}?)(?:[A-Za-z0-9/+]{40})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, '((?:ibm|watsonx|bx_).{0,64}?)(?:[A-Za-z0-9_-]{44})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, 'dapi[0-9a-f]{32}(?:-[0-9]+)?', 'dapi...[REDACTED]', 'g');
    line := regexp_replace(line, 'sk_[0-9a-f]{48}', 'sk_...[REDACTED]', 'g');
    line := regexp_replace(line, '((?:eleven_?labs|xi-api-key|xi_api_key).{0,64}?)(?:[0-9a-f]{32})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, '((?:assembly_?ai).{0,64}?)(?:[0-9a-z]{32})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, '((?:deepgram|dg_api_key).{0,64}?)(?:[0-9a-f]{40})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, 'sk_car_[A-Za-z0-9_]{20,}', 'sk_car_...[REDACTED]', 'g');
    line := regexp_replace(line, 'lsv2_(?:pt|sk)_[0-9a-f]{32}_[0-9a-f]{10}', 'lsv2_pt_...[REDACTED]', 'g');
    line := regexp_replace(line, 'pcsk_[A-Za-z0-9]{5,6}_[A-Za-z0-9]{63}', 'pcsk_...[REDACTED]', 'g');
    line := regexp_replace(line, '((?:pinecone).{0,64}?)(?:[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, 'tvly-(?:dev-|prod-)?[A-Za-z0-9_-]{32,60}', 'tvly-...[REDACTED]', 'g');
    line := regexp_replace(line, 'fc-[0-9a-f]{32}', 'fc-...[REDACTED]', 'g');
    line := regexp_replace(line, 'llx-[A-Za-z0-9]{44,52}', 'llx-...[REDACTED]', 'g');
    line := regexp_replace(line, 'm0-[A-Za-z0-9]{24,44}', 'm0-...[REDACTED]', 'g');
    line := regexp_replace(line, '((?:wandb|weights_?and_?biases).{0,64}?)(?:[0-9a-f]{40})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, 'wandb_v1_[A-Za-z0-9_]{77}', 'wandb_v1_...[REDACTED]', 'g');
    line := regexp_replace(line, 'key_[0-9a-f]{64}', 'key_...[REDACTED]', 'g');
    line := regexp_replace(line, 'key_[0-9a-f]{128}', 'key_...[REDACTED]', 'g');
    line := regexp_replace(line, '(?:apk|apk_user)_[A-Za-z0-9+/]{80,180}={0,2}|cog_[a-z2-7]{52}', 'apk_...[REDACTED]', 'g');
    line := regexp_replace(line, 'gh[pousr]_[A-Za-z0-9]{36}', 'ghp_...[REDACTED]', 'g');
    line := regexp_replace(line, 'github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59}', 'github_pat_...[REDACTED]', 'g');
    line := regexp_replace(line, 'cf[uak]t_[A-Za-z0-9]{40}[0-9a-f]{8}', 'cfut_...[REDACTED]', 'g');
    line := regexp_replace(line, '((?:cloudflare|cf_api).{0,64}?)(?:[A-Za-z0-9_-]{40})', '\1...[REDACTED]', 'gi');
    line := regexp_replace(line, 'sk-[A-Za-z0-9_-]{20,}', 'sk-...[REDACTED]', 'g');
    line := regexp_replace(line, '[Bb][Ee][Aa][Rr][Ee][Rr](?:\s+|%20|\+)[A-Za-z0-9._~+/=-]{16,}', 'Bearer ...[REDACTED]', 'g');
    line := regexp_replace(line, 'ey[JK][A-Za-z0-9_-]{10,}\.ey[JK][A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}', 'eyJ...[REDACTED]', 'g');
    line := regexp_replace(line, '(?:x-api-key|api-key|xi-api-key|x-goog-api-key|ocp-apim-subscription-key|helicone-auth|x-portkey-api-key|authorization)\\*["'']?\s*(?::|=>|=)\s*\\*["'']?(?:(?:bearer|token|key|api-key)\s+)?([A-Za-z0-9._~+/=-]{16,})', '...[REDACTED]', 'gi');
    line := regexp_replace(line, '(?:[a-z0-9]+[_.-])*(?:api[_-]?key|apikey|secret[_-]?key|access[_-]?token|auth[_-]?token|api[_-]?token|client[_-]?secret)\\*["'']?\s*(?::|=>|=|,)\s*\\*["'']?([A-Za-z0-9._~+/=-]{16,})', '...[REDACTED]', 'gi');
    line := regexp_replace(line, '[?&;](?:key|api[_-]?key|apikey|access_token|token|auth|sig)=([^\s&"''<>\\]{16,})', '...[REDACTED]', 'gi');
    line := regexp_replace(line, '[a-zA-Z][a-zA-Z0-9+.-]*://[^\s/:@"'']{0,100}:([^\s/@"'']{3,200})@', '...[REDACTED]', 'g');
    RETURN line;
END $$;

CREATE TABLE bench_redact.texts (name text PRIMARY KEY, body text NOT NULL);
ALTER TABLE bench_redact.texts ALTER body SET STORAGE EXTERNAL;

-- Clean lines as servers and applications log them, about 1 MB and about 1 kB.
INSERT INTO bench_redact.texts
SELECT name, string_agg(CASE n % 6
    WHEN 0 THEN format('2026-01-31 12:34:%s.%s UTC [%s] app@db LOG:  duration: %s.%s ms  statement: SELECT id, name FROM projects WHERE owner_id = $1', n % 60, n % 1000, 4000 + n % 500, n % 90, n % 1000)
    WHEN 1 THEN format('10.0.%s.%s - - [31/Jan/2026:12:34:%s +0000] "GET /api/v1/projects/%s/keys?limit=50 HTTP/1.1" 200 %s "-" "Mozilla/5.0 (X11; Linux x86_64)"', n % 255, n % 251, n % 60, md5(n::text)::uuid, n)
    WHEN 2 THEN format('{"ts":"2026-01-31T12:34:%sZ","level":"info","msg":"request finished","request_id":"%s","status":200}', n % 60, md5(n::text))
    WHEN 3 THEN format('ERROR:  duplicate key value violates unique constraint "provider_keys_pkey" (%s)', n)
    WHEN 4 THEN format('checkpoint complete: wrote %s buffers (0.1%%); 0 WAL file(s) added; write=0.%s s, sync=0.002 s', n, n % 1000)
    ELSE format('  File "/usr/lib/python3.11/site-packages/openai/resources/chat/completions.py", line %s, in create', n) END, E'\n')
FROM (VALUES ('clean', 8000), ('row', 8)) AS sizes (name, lines), generate_series(1, lines) AS n GROUP BY name;
INSERT INTO bench_redact.texts SELECT 'row with a key', body || ' key=sk-proj-' || md5('a') || md5('b') || 'XY' FROM bench_redact.texts WHERE name = 'row';

-- The most expensive texts: 1 MB each.
INSERT INTO bench_redact.texts
SELECT 'hostile ' || quote_literal(piece), repeat(piece, 1048576 / octet_length(piece)) FROM unnest(ARRAY[
    'sk-', 'sk-a', 'sk-ant-', 'sk-proj-', 'eyJ', 'eyJaaaaaaaaaa.', 'Bearer ', 'AKIA', 'T3BlbkFJ', 'a', '0', '"', '\', 'ü', 'aws', 'mistral=',
    'aws mistral cohere ', 'api_key', 'api_key=', 'api_key: "', '?key=', '://', 'http://a:b@', 'pa-', 'hf_', 'ABSK', 'github_pat_a', '%2F', '&#x2F;',
    'pinecone 0a8e8f9a-3c1b-4b1f-9a52-2f5d6f7c8b9d ', '0a8e8f9a-3c1b-4b1f-9a52-2f5d6f7c8b9d ', '...[REDACTED]',
    'sk-proj-a1B2c3D4e5F6g7H8i9J0 ']) AS piece;
VACUUM ANALYZE bench_redact.texts;

-- The median of five, in milliseconds for one call, of `calls` calls of an expression over a text.
CREATE FUNCTION bench_redact.took(expression text, text_name text, calls int = 1) RETURNS float8 LANGUAGE plpgsql AS $$
DECLARE
    body text := (SELECT t.body FROM bench_redact.texts t WHERE name = text_name) || '';
    started timestamptz;
    ms float8[];
BEGIN
    FOR round IN 1..5 LOOP
        started := clock_timestamp();
        EXECUTE format('SELECT count(octet_length(%s)) FROM (SELECT $1 AS body FROM generate_series(1, $2) OFFSET 0) AS t', expression) USING body, calls;
        ms := ms || extract(epoch FROM clock_timestamp() - started) * 1000 / calls;
    END LOOP;
    RETURN (SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY x) FROM unnest(ms) AS x);
END $$;

SELECT bench_redact.took('watchllm.redact(body)', 'row', 100) IS NULL AS warm \g /dev/null

-- what | measured | required: lines for bench/report.awk
WITH took AS MATERIALIZED (
    SELECT bench_redact.took('watchllm.redact(body)', 'clean', 10) AS clean,
           bench_redact.took('bench_redact.chain(body)', 'clean') AS chain,
           bench_redact.took('body || chr(32)', 'clean', 10) AS copied,
           bench_redact.took('watchllm.redact(body)', 'row', 2000) AS line,
           bench_redact.took('watchllm.redact(body)', 'row with a key', 2000) AS line_with_key,
           bench_redact.took('bench_redact.chain(body)', 'row with a key', 20) AS line_by_chain,
           octet_length(body) / 1e6 AS megabytes FROM bench_redact.texts WHERE name = 'clean'
), hostile AS MATERIALIZED (
    SELECT name, bench_redact.took('watchllm.redact(body)', name) AS ms FROM bench_redact.texts WHERE name LIKE 'hostile%'
)
SELECT what, round(measured::numeric, 3), required FROM took, LATERAL (VALUES
    (1, 'redact, clean log text, MB a second', megabytes / clean * 1000, '>= 100'),
    (2, 'redact / plpgsql chain of regexp_replace, clean log text', chain / clean, '>= 20'),
    (3, 'redact / plpgsql chain, a row of 1 kB with a key', line_by_chain / line_with_key, '>= 20'),
    (4, 'redact / copying the text (times as long)', clean / copied, ''),
    (5, 'redact, a clean row of 1 kB, microseconds', line * 1000, '<= 20'),
    (6, 'redact, a row of 1 kB with a key, microseconds', line_with_key * 1000, '<= 20')) AS lines (n, what, measured, required)
UNION ALL
SELECT 'redact, 1 MB of ' || substr(name, 9) || ', ms', round(ms::numeric, 1), '<= 100' FROM hostile;
DROP SCHEMA bench_redact CASCADE;
