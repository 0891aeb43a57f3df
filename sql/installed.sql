-- Is this database installed and usable? One row: owner oid, ready boolean, trail oid, problem
-- text. The problem is NULL when ready, else not_installed, restoring, foreign_owner or
-- foreign_trigger. The functions and the writer ask this; install() does not. It reads catalogs
-- only, without to_regclass(), which needs USAGE on the schema. So any role may ask. A restore
-- creates keys, triggers and row security last, in any order when parallel. Until all are there,
-- nobody may write (docs/facts.md#dump-and-restore).

-- Each with its number of unique indexes (the primary key is one) and of foreign keys. A table of a
-- later schema version may be missing: the recorded version says whether install() must run.
WITH ours AS MATERIALIZED (
    SELECT w.name, w.name IN ('leak_marks', 'accepted_findings') AS is_later, w.uniques, w.references_out, c.oid, c.relkind, c.relowner, c.relhasrules, c.relhastriggers,
           c.relrowsecurity AND c.relforcerowsecurity AS walled
    FROM (VALUES ('install_history'::pg_catalog.name, 1, 0), ('adopted_tables', 2, 0), ('projects', 1, 1),
                 ('project_members', 2, 1),
                 ('provider_key_records', 3, 1), ('provider_key_versions', 1, 2), ('provider_key_usage', 1, 0),
                 ('provider_key_access_logs', 2, 0), ('committed_changes', 1, 0), ('audit_checkpoints', 1, 0),
                 ('database_identity', 1, 0), ('master_keys', 2, 0), ('audit_keys', 1, 1), ('settings', 2, 2),
                 ('security_incidents', 1, 0), ('incident_events', 1, 0), ('caller_peaks', 1, 0),
                 ('provider_key_callers', 1, 0), ('blocked_callers', 1, 0), ('leak_marks', 1, 0),
                 ('accepted_findings', 1, 0)) AS w (name, uniques, references_out)
    LEFT JOIN pg_catalog.pg_class c
           ON c.relname = w.name
          AND c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = 'watchllm')
          AND c.relkind IN ('r', 'p')
), guarded AS MATERIALIZED (  -- our tables and the partitions of the trail
    SELECT o.oid, o.relowner, o.relhasrules, o.relhastriggers, o.walled FROM ours o WHERE o.oid IS NOT NULL
    UNION ALL
    SELECT c.oid, c.relowner, c.relhasrules, c.relhastriggers, c.relrowsecurity AND c.relforcerowsecurity
    FROM ours o
    JOIN pg_catalog.pg_inherits i ON i.inhparent = o.oid
    JOIN pg_catalog.pg_class c ON c.oid = i.inhrelid
    WHERE o.name = 'provider_key_access_logs'
    UNION ALL  -- not in older schemas, which must be told to be older
    SELECT c.oid, c.relowner, c.relhasrules, c.relhastriggers, c.relrowsecurity AND c.relforcerowsecurity
    FROM pg_catalog.pg_class c
    WHERE c.relname = 'incident_sources' AND c.relkind = 'r'
      AND c.relnamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = 'watchllm')
), holder AS MATERIALIZED (
    SELECT r.oid FROM pg_catalog.pg_roles r
    WHERE r.rolname = 'watchllm_owner' AND NOT r.rolsuper AND NOT r.rolbypassrls
      AND NOT EXISTS (SELECT FROM pg_catalog.pg_auth_members m WHERE m.roleid = r.oid)
), refusal AS MATERIALIZED (
    SELECT p.oid FROM pg_catalog.pg_proc p
    WHERE p.proname = 'refuse_change' AND p.pronargs = 0
      AND p.pronamespace = (SELECT n.oid FROM pg_catalog.pg_namespace n WHERE n.nspname = 'watchllm')
), judged AS (
    SELECT (SELECT h.oid FROM holder h) AS owner,
           (SELECT o.oid FROM ours o WHERE o.name = 'provider_key_access_logs' AND o.relkind = 'p') AS trail,
           CASE
               WHEN NOT EXISTS (SELECT FROM ours o WHERE o.oid IS NOT NULL) THEN 'not_installed'
               -- first, because a restore creates tables before it sets their owner
               WHEN EXISTS (
                   SELECT FROM ours o
                   WHERE CASE WHEN o.oid IS NULL THEN NOT o.is_later ELSE
                         (o.relkind = 'p') <> (o.name = 'provider_key_access_logs')
                      OR NOT EXISTS (
                          SELECT FROM pg_catalog.pg_index x
                          WHERE x.indrelid = o.oid AND x.indisprimary AND x.indisvalid)
                      OR o.uniques > (
                          SELECT pg_catalog.count(*) FROM pg_catalog.pg_index x
                          WHERE x.indrelid = o.oid AND x.indisunique AND x.indisvalid)
                      OR o.references_out > (
                          SELECT pg_catalog.count(*) FROM pg_catalog.pg_constraint f
                          WHERE f.conrelid = o.oid AND f.contype = 'f' AND f.convalidated)
                      END
               ) OR EXISTS (
                   SELECT FROM guarded g WHERE NOT g.walled
               ) THEN 'restoring'
               -- UPDATE or DELETE for each row is 1 + 2 + 8 + 16, TRUNCATE 2 + 32 (pg_trigger.h)
               WHEN 2 <> (
                   SELECT pg_catalog.count(*)
                   FROM ours o JOIN pg_catalog.pg_trigger t ON t.tgrelid = o.oid
                   WHERE o.name = 'provider_key_access_logs'
                     AND t.tgenabled = 'A'
                     AND t.tgfoid = (SELECT f.oid FROM refusal f)
                     AND (t.tgname, t.tgtype) IN (('refuse_change', 27), ('refuse_truncate', 34))
               ) THEN 'restoring'
               WHEN EXISTS (
                   SELECT FROM guarded g WHERE g.relowner IS DISTINCT FROM (SELECT h.oid FROM holder h)
               ) THEN 'foreign_owner'
               WHEN EXISTS (
                   SELECT FROM guarded g JOIN pg_catalog.pg_rewrite r ON r.ev_class = g.oid WHERE g.relhasrules
               ) OR EXISTS (
                   SELECT FROM guarded g JOIN pg_catalog.pg_trigger t ON t.tgrelid = g.oid
                   WHERE g.relhastriggers AND NOT t.tgisinternal
                     AND t.tgfoid IS DISTINCT FROM (SELECT f.oid FROM refusal f)
               ) THEN 'foreign_trigger'
           END AS problem
)
SELECT j.owner, j.problem IS NULL AS ready, j.trail, j.problem
FROM judged j
