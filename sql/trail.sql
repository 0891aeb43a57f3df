-- What the columns of the audit trail need beside the table: who reads which, the view access_logs,
-- and what each means. Every install() runs it after access.sql. tests/trail_columns.rs compares it
-- with the one list of columns, COLUMNS in core/src/trail/event.rs.

-- The grants name each column, so that a new column is hidden until somebody decides about it.
GRANT SELECT (
    seq, id, accessed_at, project_id, provider_key_id, provider, key_version, access_type, success,
    failure_reason, attempt_count, ip_address, user_agent, request_id, session_role, effective_role,
    role_setting, claims_sub, claims_trusted, client_addr, backend_pid, application_name, txid, epoch,
    queue_seq, identity_id, chain_key_version, hash)
    ON watchllm.provider_key_access_logs TO watchllm_admin, watchllm_auditor;
-- Tenants do not read who connected, from where and as what role. They do not read places in the
-- chain or transaction ids either, which count what others do.
GRANT SELECT (
    id, accessed_at, project_id, provider_key_id, provider, key_version, access_type, success,
    failure_reason, attempt_count, ip_address, user_agent, request_id, claims_sub, claims_trusted)
    ON watchllm.provider_key_access_logs TO watchllm_tenant;

-- What tenants write has no statistics. EXPLAIN would tell a tenant how often a value stands in
-- everybody's rows. New partitions follow their parent (make_log_partition).
DO $$
DECLARE
    told record;
BEGIN
    FOR told IN
        SELECT c.relname, a.attname
        FROM pg_catalog.pg_class c
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid
        LEFT JOIN pg_catalog.pg_inherits i ON i.inhrelid = c.oid
        WHERE c.relnamespace = 'watchllm'::pg_catalog.regnamespace
          AND 'watchllm.provider_key_access_logs'::pg_catalog.regclass IN (c.oid, i.inhparent)
          AND a.attname IN ('ip_address', 'user_agent', 'request_id', 'claims_sub')
          AND coalesce(a.attstattarget, -1) <> 0
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE watchllm.%I ALTER COLUMN %I SET STATISTICS 0', told.relname, told.attname);
    END LOOP;
END
$$;

-- New columns go to the end: CREATE OR REPLACE VIEW can add columns nowhere else.
CREATE OR REPLACE VIEW watchllm.access_logs WITH (security_invoker = true) AS
SELECT l.accessed_at,
       l.id,
       l.project_id,
       l.provider_key_id,
       l.provider,
       l.key_version,
       l.access_type,
       l.success,
       l.failure_reason,
       l.attempt_count,
       l.ip_address,
       l.user_agent,
       l.request_id,
       l.claims_sub,
       l.claims_trusted,
       NOT l.success OR l.access_type IN ('decrypt', 'validate')
           OR EXISTS (SELECT FROM watchllm.committed_changes c WHERE c.event_id = l.id) AS committed
FROM watchllm.provider_key_access_logs l;

COMMENT ON TABLE watchllm.provider_key_access_logs IS
    'The audit trail: every access to a provider key and every change, hash-chained and append-only, a partition per '
    'UTC day. Written by the audit writer alone.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.seq IS 'Place in the chain: 1, 2, 3 and so on, without gaps.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.id IS
    'Identity of the event; for a change also the row in committed_changes.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.accessed_at IS 'When the event was recorded by whoever caused it.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.project_id IS 'The project concerned; NULL if none or unknown.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.provider_key_id IS
    'The provider key concerned; NULL if none or unknown.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.provider IS 'The vendor of the key.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.key_version IS 'The version of the key.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.access_type IS
    'What was done or attempted: store, decrypt, rotate and so on.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.success IS
    'Whether it was done; of a change: whether it was about to commit.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.failure_reason IS 'Why it was refused or failed; NULL on success.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.attempt_count IS
    'How many refused attempts this row stands for; 1 unless they came too fast to be stored one by one.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.ip_address IS
    'Address of the end user as the caller gave it, at most 64 bytes, redacted.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.user_agent IS
    'Program of the end user as the caller gave it, at most 256 bytes, redacted.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.request_id IS
    'The caller''s own id of the request, at most 128 bytes, redacted.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.session_role IS 'The role that logged in (session_user).';
COMMENT ON COLUMN watchllm.provider_key_access_logs.effective_role IS 'The role whose rights were judged.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.role_setting IS
    'The role set by SET ROLE; NULL or none if there was none.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.claims_sub IS
    'JWT subject of the caller; to be believed only if claims_trusted.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.claims_trusted IS 'Whether the session was one whose claims count.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.client_addr IS
    'Network address of the database connection; NULL over a socket.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.backend_pid IS 'Process id of the session''s server process.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.application_name IS
    'Name the session gave itself, at most 63 bytes, redacted.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.txid IS
    'Transaction of the caller; NULL when it had written nothing.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.epoch IS
    'Random number of the queue the event passed through, drawn when a database claims it; with queue_seq the '
    'event''s place.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.queue_seq IS 'Number of the event in that queue.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.identity_id IS
    'The row of database_identity in force when it was written.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.chain_key_version IS
    'Version of the mac key of audit_keys that made hash.';
COMMENT ON COLUMN watchllm.provider_key_access_logs.hash IS
    'HMAC-SHA256 over the hash of the row before and all other columns of this one, 32 bytes.';

COMMENT ON VIEW watchllm.access_logs IS
    'The audit trail as its reader may see it: tenants their own projects, auditors all; without the database identity of '
    'callers, which auditors find in provider_key_access_logs.';
COMMENT ON COLUMN watchllm.access_logs.accessed_at IS 'When the event was recorded by whoever caused it.';
COMMENT ON COLUMN watchllm.access_logs.id IS 'Identity of the event.';
COMMENT ON COLUMN watchllm.access_logs.project_id IS 'The project concerned; NULL if none or unknown.';
COMMENT ON COLUMN watchllm.access_logs.provider_key_id IS 'The provider key concerned; NULL if none or unknown.';
COMMENT ON COLUMN watchllm.access_logs.provider IS 'The vendor of the key.';
COMMENT ON COLUMN watchllm.access_logs.key_version IS 'The version of the key.';
COMMENT ON COLUMN watchllm.access_logs.access_type IS 'What was attempted.';
COMMENT ON COLUMN watchllm.access_logs.success IS 'Whether it succeeded.';
COMMENT ON COLUMN watchllm.access_logs.failure_reason IS 'Why it was refused or failed; NULL on success.';
COMMENT ON COLUMN watchllm.access_logs.attempt_count IS
    'How many attempts the row stands for: refusals past a rate are one row with a count.';
COMMENT ON COLUMN watchllm.access_logs.ip_address IS 'Address of the client, as the application or its proxy said.';
COMMENT ON COLUMN watchllm.access_logs.user_agent IS 'What the client called itself.';
COMMENT ON COLUMN watchllm.access_logs.request_id IS 'The request behind the call, as the application named it.';
COMMENT ON COLUMN watchllm.access_logs.claims_sub IS 'Subject of the session''s JWT claims; to be believed only where claims_trusted.';
COMMENT ON COLUMN watchllm.access_logs.claims_trusted IS
    'Whether the claims count: false for a subject that any SQL session may have made up.';
COMMENT ON COLUMN watchllm.access_logs.committed IS
    'Whether a change took effect; false when its transaction failed in its commit. True for reads and refusals.';
