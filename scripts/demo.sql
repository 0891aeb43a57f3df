-- The story of one provider key, told through psql. Every key in it is plainly a fake.
\pset footer off
\pset null '-'
\pset linestyle unicode
\pset border 2
\set ECHO none
SET client_min_messages = warning;

\echo
\echo '1. The vault: functions come with the extension, tables with install()'
CREATE EXTENSION watchllm_keys;
SELECT watchllm.install();

\echo '2. A project, and a key in it. What is stored is ciphertext from the first byte on'
SELECT watchllm.create_project('Demo project') AS project \gset
SELECT watchllm.store_provider_key(:'project', 'openai', 'sk-fake-demo-key-0001-not-a-real-key-abcd', 'production') AS key \gset
SELECT provider, name, priority, is_active, created_at::timestamp(0) FROM watchllm.provider_keys;
SELECT version, left(encode(envelope, 'hex'), 40) || '…' AS envelope, length(envelope) AS bytes FROM watchllm.provider_key_versions;

\echo '3. Decrypt: the answer comes after its audit row is on disk'
SELECT watchllm.decrypt_provider_key(:'key', request_id => 'demo-1', user_agent => 'psql') AS api_key;

\echo '4. Validate: opens and compares, without showing'
SELECT watchllm.validate_provider_key(:'key') AS valid;

\echo '5. Rotate to a new vendor key, then back to the former one'
SELECT watchllm.rotate_provider_key(:'key', 'sk-fake-demo-key-0002-not-a-real-key-efgh') AS active_version;
SELECT watchllm.decrypt_provider_key(:'key') AS api_key;
SELECT watchllm.rollback_provider_key(:'key') AS active_version;

\echo '6. Somebody decrypts and rolls back, to leave no trace'
BEGIN;
SELECT watchllm.decrypt_provider_key(:'key', request_id => 'demo-covert') AS api_key;
ROLLBACK;
SELECT seq, access_type, success, request_id FROM watchllm.provider_key_access_logs WHERE request_id = 'demo-covert';
\echo '   The row is there: it was durable before the answer was.'
\echo

\echo '7. Delete: the envelopes of all versions are destroyed, metadata and audit stay'
SELECT watchllm.delete_provider_key(:'key');
SELECT version, envelope IS NULL AS destroyed, fingerprint IS NOT NULL AS recognisable FROM watchllm.provider_key_versions ORDER BY version;

\echo '8. Somebody asks for it all the same: refused, and on record. The error below is what should happen:'
\set ON_ERROR_STOP off
SELECT watchllm.decrypt_provider_key(:'key', request_id => 'demo-late');
\set ON_ERROR_STOP on
\echo
SELECT accessed_at::timestamp(3), access_type, failure_reason, request_id, session_role FROM watchllm.failed_access_attempts();

\echo '9. A tenant: a role that belongs to one of two projects. It sees and changes its own keys, and opens none'
SELECT watchllm.create_project('Another project') AS another \gset
SELECT watchllm.store_provider_key(:'another', 'groq', 'gsk-fake-demo-key-0003-not-a-real-key-ijkl', 'not yours') AS foreign \gset
CREATE ROLE demo_dashboard IN ROLE watchllm_tenant;
SELECT watchllm.add_project_member(:'project', role_name => 'demo_dashboard') \g /dev/null
SET ROLE demo_dashboard;
SELECT watchllm.store_provider_key(:'project', 'anthropic', 'sk-fake-demo-key-0004-not-a-real-key-mnop', 'staging') AS own \gset
SELECT provider, name, is_active FROM watchllm.provider_keys;
\echo '   It tries to open its own key, and to change another tenant''s. Both errors below are what should happen:'
\set ON_ERROR_STOP off
SELECT watchllm.decrypt_provider_key(:'own', request_id => 'demo-tenant');
SELECT watchllm.rotate_provider_key(:'foreign', 'sk-fake-demo-key-0005-not-a-real-key-qrst');
\set ON_ERROR_STOP on
\echo
\echo '   What it may not do is refused and on record; another tenant''s key is as if it did not exist.'
SELECT access_type, success, failure_reason, request_id FROM watchllm.access_logs WHERE provider_key_id = :'own' ORDER BY accessed_at;
RESET ROLE;

\echo '10. Theft is noticed while it happens: at most 5 accesses a minute of this key, then it is blocked'
SELECT watchllm.set_setting('max_accesses_per_minute', '5', provider_key_id => :'own') \g /dev/null
SELECT watchllm.set_setting('anomaly_action', 'block', provider_key_id => :'own') \g /dev/null
SELECT pg_sleep(0.5) \g /dev/null
SELECT count(api_key) AS opened, count(failure_reason) AS refused, max(failure_reason) AS why
FROM watchllm.decrypt_provider_keys(array_fill(:'own'::uuid, ARRAY[8]));
SELECT pg_sleep(0.5) \g /dev/null
SELECT type, severity, details->>'what' AS what, details->>'blocked' AS blocked FROM watchllm.open_incidents WHERE provider_key_id = :'own';
SELECT watchllm.unblock_provider_key(:'own', 'it was the demo') \g /dev/null
\echo

\echo '11. The first key''s history'
SELECT accessed_at::timestamp(3), access_type, key_version AS version, success, request_id, session_role, committed
FROM watchllm.key_access_history(:'key');

\echo '12. The vault at a glance'
\x on
SELECT * FROM watchllm.status();
\x off
