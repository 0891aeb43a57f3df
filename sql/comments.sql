-- One sentence for every table, column, trigger, policy and view: what it is, its unit, who writes
-- it. Every install() runs this, after the objects exist. Functions are commented where they are
-- created. psql shows the comments with \d+.

COMMENT ON TABLE watchllm.install_history IS
    'What install() has brought here, a row per schema version and extension version; insert-only, written by '
    'install().';
COMMENT ON COLUMN watchllm.install_history.schema_version IS 'Version of the tables, 1 for the first release.';
COMMENT ON COLUMN watchllm.install_history.extension_version IS 'Version of the extension that brought them.';
COMMENT ON COLUMN watchllm.install_history.installed_at IS 'When install() ran.';
COMMENT ON COLUMN watchllm.install_history.installed_by IS 'The role whose session ran install().';

COMMENT ON TABLE watchllm.projects IS
    'The tenants; a deleted one keeps its row. Written by create_project(), delete_project() and adopt_projects().';
COMMENT ON COLUMN watchllm.projects.id IS 'Identity of the project.';
COMMENT ON COLUMN watchllm.projects.name IS 'Name people know it by, at most 100 bytes, not unique.';
COMMENT ON COLUMN watchllm.projects.owner_id IS 'JWT subject of its owner; NULL when only members reach it.';
COMMENT ON COLUMN watchllm.projects.created_at IS 'When it was made.';
COMMENT ON COLUMN watchllm.projects.deleted_at IS 'When it was deleted; NULL while it lives.';

COMMENT ON COLUMN watchllm.projects.adopted_table_id IS
    'The application''s table it comes from, of adopted_tables; NULL for one made by create_project().';

COMMENT ON TABLE watchllm.adopted_tables IS
    'Projects tables of applications that feed projects, kept in step by triggers on them. Written by adopt_projects().';
COMMENT ON COLUMN watchllm.adopted_tables.id IS 'Identity of the adoption; the triggers on the table carry it.';
COMMENT ON COLUMN watchllm.adopted_tables.schema_name IS 'Schema of the table.';
COMMENT ON COLUMN watchllm.adopted_tables.table_name IS 'Name of the table.';
COMMENT ON COLUMN watchllm.adopted_tables.id_column IS 'Its column that is the project''s id.';
COMMENT ON COLUMN watchllm.adopted_tables.owner_column IS 'Its column that is the owner''s JWT subject.';
COMMENT ON COLUMN watchllm.adopted_tables.name_column IS 'Its column that is the project''s name; NULL for none.';
COMMENT ON COLUMN watchllm.adopted_tables.adopted_by IS 'The role whose session adopted it.';
COMMENT ON COLUMN watchllm.adopted_tables.adopted_at IS 'When it was adopted, the last time.';

COMMENT ON TABLE watchllm.project_members IS
    'Who belongs to a project besides its owner: a JWT subject or a database role. Written by add_project_member() '
    'and remove_project_member().';
COMMENT ON COLUMN watchllm.project_members.id IS 'Identity of the membership.';
COMMENT ON COLUMN watchllm.project_members.project_id IS 'The project.';
COMMENT ON COLUMN watchllm.project_members.subject IS 'JWT subject of the member; NULL when the member is a role.';
COMMENT ON COLUMN watchllm.project_members.role_name IS
    'Database role that is the member, by name; NULL when the member is a subject.';
COMMENT ON COLUMN watchllm.project_members.created_at IS 'When the member was added.';

COMMENT ON TABLE watchllm.provider_key_records IS
    'What is known of each provider key, without any ciphertext. Written by the functions that store and change keys.';
COMMENT ON COLUMN watchllm.provider_key_records.id IS 'Identity of the provider key.';
COMMENT ON COLUMN watchllm.provider_key_records.project_id IS 'The project it belongs to.';
COMMENT ON COLUMN watchllm.provider_key_records.provider IS 'The vendor, such as openai; at most 63 bytes.';
COMMENT ON COLUMN watchllm.provider_key_records.name IS
    'Name people know it by, at most 100 bytes, unique per project and provider while not deleted; NULL for none.';
COMMENT ON COLUMN watchllm.provider_key_records.key_hint IS
    'Public prefix of the key, and its last four characters where the secret part has at least 32.';
COMMENT ON COLUMN watchllm.provider_key_records.priority IS
    'Order in which keys of one provider are tried, 1 first; not unique.';
COMMENT ON COLUMN watchllm.provider_key_records.is_active IS 'Whether it may be decrypted.';
COMMENT ON COLUMN watchllm.provider_key_records.active_version IS 'The version in use, of provider_key_versions.';
COMMENT ON COLUMN watchllm.provider_key_records.active_version_created_at IS
    'When the version in use was made; age and rotation count from it.';
COMMENT ON COLUMN watchllm.provider_key_records.rotation_interval IS
    'After how long it must be rotated; NULL for the setting rotation_required_after.';
COMMENT ON COLUMN watchllm.provider_key_records.rotation_required_at IS 'When it must be rotated.';
COMMENT ON COLUMN watchllm.provider_key_records.compromised_at IS
    'When the version in use was reported as leaked; NULL if it was not.';
COMMENT ON COLUMN watchllm.provider_key_records.deleted_at IS
    'When it was deleted and its envelopes destroyed; NULL while it lives.';
COMMENT ON COLUMN watchllm.provider_key_records.created_at IS 'When it was first stored.';
COMMENT ON COLUMN watchllm.provider_key_records.updated_at IS 'When a person or program last changed it.';

COMMENT ON TABLE watchllm.provider_key_versions IS
    'The envelopes: every version of every provider key, sealed. Written by the functions that store, rotate, rewrap '
    'and delete keys; nobody may read it.';
COMMENT ON COLUMN watchllm.provider_key_versions.project_id IS 'The project of the key.';
COMMENT ON COLUMN watchllm.provider_key_versions.provider_key_id IS 'The provider key.';
COMMENT ON COLUMN watchllm.provider_key_versions.version IS 'Version of the key, 1 first.';
COMMENT ON COLUMN watchllm.provider_key_versions.envelope IS 'The sealed key; NULL once destroyed.';
COMMENT ON COLUMN watchllm.provider_key_versions.master_key_version IS
    'The master key the envelope is, or was when destroyed, sealed under.';
COMMENT ON COLUMN watchllm.provider_key_versions.fingerprint IS
    'HMAC-SHA256 of the key, 32 bytes: equal for equal keys; stays when the envelope is destroyed.';
COMMENT ON COLUMN watchllm.provider_key_versions.fingerprint_key_version IS
    'Version of the fingerprint key of audit_keys it was made with.';
COMMENT ON COLUMN watchllm.provider_key_versions.created_at IS 'When the version was made.';
COMMENT ON COLUMN watchllm.provider_key_versions.created_by IS 'Who made it: JWT subject or role.';
COMMENT ON COLUMN watchllm.provider_key_versions.retired_at IS
    'When another version took its place; NULL while in use.';
COMMENT ON COLUMN watchllm.provider_key_versions.compromised_at IS
    'When it was reported as leaked; there is no way back to such a version.';
COMMENT ON COLUMN watchllm.provider_key_versions.destroyed_at IS
    'When the envelope was destroyed; NULL while it is there.';

COMMENT ON TABLE watchllm.provider_key_usage IS
    'How each provider key is used: counters and what the watch concluded. Written by the audit writer alone, some '
    'seconds late at most.';
COMMENT ON COLUMN watchllm.provider_key_usage.project_id IS 'The project of the key.';
COMMENT ON COLUMN watchllm.provider_key_usage.provider_key_id IS 'The provider key.';
COMMENT ON COLUMN watchllm.provider_key_usage.access_count IS
    'All accesses ever, and those that a block refused; counted as the watch counts.';
COMMENT ON COLUMN watchllm.provider_key_usage.failure_count IS
    'All failures ever; not those of callers without the right, nor for want of a master key.';
COMMENT ON COLUMN watchllm.provider_key_usage.bucket_start IS
    'Start of the half hour that element 1 of accesses and failures counts (UTC); NULL before the first access.';
COMMENT ON COLUMN watchllm.provider_key_usage.accesses IS
    'Accesses in 48 half hours, newest first: element n counts the half hour that begins (n - 1) * 30 minutes before '
    'bucket_start.';
COMMENT ON COLUMN watchllm.provider_key_usage.failures IS 'Failures, in the same half hours as accesses.';
COMMENT ON COLUMN watchllm.provider_key_usage.last_used_at IS
    'When the key was last decrypted with success, to about a second; before the first time, what it was imported with.';
COMMENT ON COLUMN watchllm.provider_key_usage.access_anomaly_detected_at IS
    'When unusual access was last noticed; NULL if never.';
COMMENT ON COLUMN watchllm.provider_key_usage.last_rotation_alert_sent_at IS
    'When the last alert went out that it must be rotated.';
COMMENT ON COLUMN watchllm.provider_key_usage.blocked_at IS 'When it was blocked; NULL while it is not.';

COMMENT ON TABLE watchllm.committed_changes IS
    'The changes that did commit: an event of the trail without a row here was undone by its transaction. Insert-'
    'only, written by the changing transaction.';
COMMENT ON COLUMN watchllm.committed_changes.event_id IS 'The id of the event in provider_key_access_logs.';
COMMENT ON COLUMN watchllm.committed_changes.project_id IS 'The project concerned; NULL if none.';

COMMENT ON TABLE watchllm.audit_checkpoints IS
    'Points of the chain that were written down apart from it, so that a cut-off end shows. Insert-only, written by '
    'the audit writer.';
COMMENT ON COLUMN watchllm.audit_checkpoints.identity_id IS 'The row of database_identity in force.';
COMMENT ON COLUMN watchllm.audit_checkpoints.seq IS 'Place in the chain of the last row it covers.';
COMMENT ON COLUMN watchllm.audit_checkpoints.at IS 'When the checkpoint was made.';
COMMENT ON COLUMN watchllm.audit_checkpoints.accessed_at IS 'accessed_at of the row at seq, which tells its partition.';
COMMENT ON COLUMN watchllm.audit_checkpoints.hash IS 'hash of the row at seq, 32 bytes.';
COMMENT ON COLUMN watchllm.audit_checkpoints.chain_key_version IS 'Version of the mac key that made it.';
COMMENT ON COLUMN watchllm.audit_checkpoints.reason IS
    'Why it was made: time, digest (audit_digest()), prune (the rows up to seq were removed) or adopt '
    '(adopt_database()).';
COMMENT ON COLUMN watchllm.audit_checkpoints.digest_key_version IS
    'Version of the digest key that signed it; NULL when unsigned.';
COMMENT ON COLUMN watchllm.audit_checkpoints.signature IS
    'Ed25519 signature of the digest key, 64 bytes; NULL when unsigned.';

COMMENT ON TABLE watchllm.database_identity IS
    'Which database this is, a row for each time it became another (install, restore, clone); the latest is in force. '
    'Insert-only, written by install() and adopt_database().';
COMMENT ON COLUMN watchllm.database_identity.id IS 'Identity of the database, a new one with every row.';
COMMENT ON COLUMN watchllm.database_identity.system_identifier IS
    'The cluster''s own identifier (pg_control_system()).';
COMMENT ON COLUMN watchllm.database_identity.database_oid IS 'The database''s oid in that cluster.';
COMMENT ON COLUMN watchllm.database_identity.database_name IS 'The database''s name then.';
COMMENT ON COLUMN watchllm.database_identity.reason IS 'Why the row was made, at most 500 bytes, redacted.';
COMMENT ON COLUMN watchllm.database_identity.created_at IS 'When the row was made.';

COMMENT ON TABLE watchllm.master_keys IS
    'The versions of the master key that this database has seen, never the secrets. Written when a keyring is loaded '
    'and by rotate_master_key() and retire_master_key().';
COMMENT ON COLUMN watchllm.master_keys.version IS 'Version, as in the keyring source.';
COMMENT ON COLUMN watchllm.master_keys.salt IS 'Random salt of PBKDF2, 16 bytes.';
COMMENT ON COLUMN watchllm.master_keys.iterations IS 'Iterations of PBKDF2-HMAC-SHA256, at least 100000.';
COMMENT ON COLUMN watchllm.master_keys.canary IS
    'A known value sealed under this version: tells a wrong master key from a damaged row.';
COMMENT ON COLUMN watchllm.master_keys.is_active IS
    'Whether new envelopes are sealed under it; true for one row at most.';
COMMENT ON COLUMN watchllm.master_keys.created_at IS 'When this database first saw it.';
COMMENT ON COLUMN watchllm.master_keys.retired_at IS
    'When it was retired, no envelope being left under it; NULL while it is in use.';

COMMENT ON TABLE watchllm.audit_keys IS
    'The fingerprint, mac and digest keys, sealed under master keys; the key in use of a kind is its highest version. '
    'Insert-only: sealing one again under another master key adds a row.';
COMMENT ON COLUMN watchllm.audit_keys.kind IS
    'fingerprint (equality of provider keys), mac (the chain) or digest (signatures).';
COMMENT ON COLUMN watchllm.audit_keys.version IS 'Version of the key within its kind.';
COMMENT ON COLUMN watchllm.audit_keys.master_key_version IS 'The master key the envelope is sealed under.';
COMMENT ON COLUMN watchllm.audit_keys.envelope IS 'The sealed key.';
COMMENT ON COLUMN watchllm.audit_keys.public_key IS
    'Public half of a digest key (Ed25519, 32 bytes); NULL for the other kinds.';
COMMENT ON COLUMN watchllm.audit_keys.created_at IS 'When the row was made.';

COMMENT ON TABLE watchllm.settings IS
    'Settings watchllm_keys.* of this database, of a project or of a key, over those of the server. Written by '
    'set_setting().';
COMMENT ON COLUMN watchllm.settings.id IS 'Identity of the row.';
COMMENT ON COLUMN watchllm.settings.name IS 'Name of the setting, without the prefix watchllm_keys and its dot.';
COMMENT ON COLUMN watchllm.settings.value IS 'Its value, as one would write it in postgresql.conf.';
COMMENT ON COLUMN watchllm.settings.project_id IS 'The project it holds for; NULL for the whole database.';
COMMENT ON COLUMN watchllm.settings.provider_key_id IS 'The provider key it holds for; NULL for the whole project.';
COMMENT ON COLUMN watchllm.settings.updated_at IS 'When it was last set.';

COMMENT ON TABLE watchllm.security_incidents IS
    'What a person must look at. Insert-only, written by the audit writer.';
COMMENT ON COLUMN watchllm.security_incidents.id IS 'Identity of the incident.';
COMMENT ON COLUMN watchllm.security_incidents.type IS 'The detector that found it, or leaked_key, rotation_due or key_blocked.';
COMMENT ON COLUMN watchllm.security_incidents.severity IS 'low, medium, high or critical.';
COMMENT ON COLUMN watchllm.security_incidents.project_id IS 'The project concerned; NULL if none.';
COMMENT ON COLUMN watchllm.security_incidents.provider_key_id IS 'The provider key concerned; NULL if none.';
COMMENT ON COLUMN watchllm.security_incidents.details IS 'What was counted or found, an object; never a key.';
COMMENT ON COLUMN watchllm.security_incidents.detected_at IS 'When it was noticed.';

COMMENT ON TABLE watchllm.incident_events IS
    'What became of an incident. Insert-only, written by the audit writer.';
COMMENT ON COLUMN watchllm.incident_events.id IS 'Identity of the event.';
COMMENT ON COLUMN watchllm.incident_events.incident_id IS 'The incident.';
COMMENT ON COLUMN watchllm.incident_events.project_id IS 'The project of the incident; NULL if none.';
COMMENT ON COLUMN watchllm.incident_events.event IS 'acknowledged, ended or note.';
COMMENT ON COLUMN watchllm.incident_events.note IS 'What was said, at most 500 bytes, redacted.';
COMMENT ON COLUMN watchllm.incident_events.by IS 'Who: JWT subject or role; the detector when it ended by itself.';
COMMENT ON COLUMN watchllm.incident_events.at IS 'When.';

COMMENT ON TABLE watchllm.caller_peaks IS
    'The busiest minute of each caller on each UTC day: what its limit of different keys is measured by.';
COMMENT ON COLUMN watchllm.caller_peaks.kind IS
    'What the caller is named by: subject (JWT sub), role (database role) or address (client network address).';
COMMENT ON COLUMN watchllm.caller_peaks.subject IS 'The caller''s name within its kind, at most 128 bytes.';
COMMENT ON COLUMN watchllm.caller_peaks.day IS 'The UTC day.';
COMMENT ON COLUMN watchllm.caller_peaks.distinct_keys IS 'The most different keys it opened within a minute on that day.';

COMMENT ON TABLE watchllm.provider_key_callers IS
    'Which callers have used which provider key, so that a new one is noticed. Written by the audit writer alone.';
COMMENT ON COLUMN watchllm.provider_key_callers.project_id IS 'The project of the key.';
COMMENT ON COLUMN watchllm.provider_key_callers.provider_key_id IS 'The provider key.';
COMMENT ON COLUMN watchllm.provider_key_callers.kind IS
    'What names the caller: subject (JWT), role (database) or address (network).';
COMMENT ON COLUMN watchllm.provider_key_callers.subject IS 'The caller''s name within its kind, at most 128 bytes.';
COMMENT ON COLUMN watchllm.provider_key_callers.first_seen_at IS 'When it first used the key.';
COMMENT ON COLUMN watchllm.provider_key_callers.last_seen_at IS 'When it last did, to about a day.';

COMMENT ON TABLE watchllm.blocked_callers IS
    'Callers that are refused until unblock_caller(). Written by the audit writer alone.';
COMMENT ON COLUMN watchllm.blocked_callers.kind IS
    'What names the caller: subject (JWT), role (database) or address (network).';
COMMENT ON COLUMN watchllm.blocked_callers.subject IS 'The caller''s name within its kind, at most 128 bytes.';
COMMENT ON COLUMN watchllm.blocked_callers.blocked_at IS 'When it was blocked.';
COMMENT ON COLUMN watchllm.blocked_callers.incident_id IS 'The incident that blocked it; NULL if a person did.';
COMMENT ON COLUMN watchllm.blocked_callers.note IS 'Why, at most 500 bytes, redacted.';

COMMENT ON TABLE watchllm.leak_marks IS
    'Versions reported as leaked while another transaction held their key''s row; the writer marks them and removes the row.';
COMMENT ON COLUMN watchllm.leak_marks.project_id IS 'The project of the key.';
COMMENT ON COLUMN watchllm.leak_marks.provider_key_id IS 'The key.';
COMMENT ON COLUMN watchllm.leak_marks.version IS 'The version that leaked.';
COMMENT ON COLUMN watchllm.leak_marks.marked_at IS 'When it was reported.';

COMMENT ON TABLE watchllm.accepted_findings IS
    'Findings of security_check() that somebody accepted until a date; insert-only, the last row of a check counts. '
    'Written by accept_finding().';
COMMENT ON COLUMN watchllm.accepted_findings.id IS 'Identity of the acceptance, and of its event in the trail.';
COMMENT ON COLUMN watchllm.accepted_findings.check_name IS 'The check, as security_check() names it.';
COMMENT ON COLUMN watchllm.accepted_findings.finding IS
    'What it said then; a finding that says anything else is not accepted.';
COMMENT ON COLUMN watchllm.accepted_findings.note IS 'Why, at most 500 bytes, redacted.';
COMMENT ON COLUMN watchllm.accepted_findings.until IS 'Until when it is accepted.';
COMMENT ON COLUMN watchllm.accepted_findings.accepted_by IS 'Who accepted it.';
COMMENT ON COLUMN watchllm.accepted_findings.accepted_at IS 'When it was accepted.';

COMMENT ON VIEW watchllm.provider_keys IS
    'The live provider keys with how they are used, as far as the reader may see them; no key and no ciphertext.';
COMMENT ON COLUMN watchllm.provider_keys.id IS 'Identity of the provider key.';
COMMENT ON COLUMN watchllm.provider_keys.project_id IS 'The project it belongs to.';
COMMENT ON COLUMN watchllm.provider_keys.provider IS 'The vendor.';
COMMENT ON COLUMN watchllm.provider_keys.name IS 'Name people know it by.';
COMMENT ON COLUMN watchllm.provider_keys.priority IS 'Order in which keys of one provider are tried, 1 first.';
COMMENT ON COLUMN watchllm.provider_keys.is_active IS 'Whether it may be decrypted.';
COMMENT ON COLUMN watchllm.provider_keys.created_at IS 'When it was first stored.';
COMMENT ON COLUMN watchllm.provider_keys.updated_at IS 'When a person or program last changed it.';
COMMENT ON COLUMN watchllm.provider_keys.last_used_at IS
    'When it was last decrypted with success, to about a second; NULL if never.';
COMMENT ON COLUMN watchllm.provider_keys.rotation_required_at IS 'When it must be rotated.';
COMMENT ON COLUMN watchllm.provider_keys.last_rotation_alert_sent_at IS
    'When the last alert went out that it must be rotated.';
COMMENT ON COLUMN watchllm.provider_keys.access_anomaly_detected_at IS
    'When unusual access was last noticed; NULL if never.';

COMMENT ON VIEW watchllm.provider_key_security_summary IS
    'How each live provider key stands: its age, its use, whether it must be rotated, what was noticed.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.id IS 'Identity of the provider key.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.provider_key_id IS 'The same.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.project_id IS 'The project it belongs to.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.provider IS 'The vendor.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.name IS 'Name people know it by.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.is_active IS 'Whether it may be decrypted.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.created_at IS 'When it was first stored.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.last_used_at IS
    'When it was last decrypted with success, to about a second; NULL if never.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.days_old IS 'Whole days since its active version was made.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.days_since_last_use IS 'Whole days; NULL if never used.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.accesses_24h IS
    'Accesses, also those that a block refused, in the present half hour of the clock (UTC) and the 47 before.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.failures_24h IS 'Failures in the same time.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.failed_accesses IS 'All failures ever.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.security_status IS
    'Secure, Rotation Soon or Rotation Required.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.rotation_required IS
    'Whether its age or date has come, or it is compromised.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.never_used IS 'Whether nobody has used it.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.is_stale IS 'Whether nobody has used it for stale_after.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.has_anomaly IS 'Whether its use was ever found unusual.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.has_recent_anomaly IS 'Whether it was in the last 24 hours.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.is_blocked IS 'Whether it is blocked.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.is_compromised IS
    'Whether its active version is marked compromised.';
COMMENT ON COLUMN watchllm.provider_key_security_summary.rotation_due_at IS
    'When it must be rotated: by its age, or by rotation_required_at if that comes first.';

COMMENT ON VIEW watchllm.provider_key_inbox IS
    'Takes keys as rows, so that none stands in a statement: INSERT and COPY FROM STDIN store them; it never holds a row.';
COMMENT ON COLUMN watchllm.provider_key_inbox.project_id IS 'The project the key belongs to.';
COMMENT ON COLUMN watchllm.provider_key_inbox.provider IS 'The vendor, such as openai.';
COMMENT ON COLUMN watchllm.provider_key_inbox.name IS 'Name people know it by; NULL for none.';
COMMENT ON COLUMN watchllm.provider_key_inbox.api_key IS 'The key itself, which is sealed at once.';
COMMENT ON TRIGGER store_from_inbox ON watchllm.provider_key_inbox IS 'Stores the key of each row that is inserted.';

COMMENT ON VIEW watchllm.open_incidents IS
    'Incidents that nobody has acknowledged: tenants see their own projects'', auditors and administrators all.';
COMMENT ON COLUMN watchllm.open_incidents.id IS 'Identity of the incident.';
COMMENT ON COLUMN watchllm.open_incidents.type IS 'The detector that found it, or leaked_key, rotation_due or key_blocked.';
COMMENT ON COLUMN watchllm.open_incidents.severity IS 'low, medium, high or critical.';
COMMENT ON COLUMN watchllm.open_incidents.project_id IS 'The project concerned; NULL if none or unknown.';
COMMENT ON COLUMN watchllm.open_incidents.provider_key_id IS 'The provider key concerned; NULL if none or unknown.';
COMMENT ON COLUMN watchllm.open_incidents.details IS 'The evidence; never a key.';
COMMENT ON COLUMN watchllm.open_incidents.detected_at IS 'When it was noticed.';
COMMENT ON COLUMN watchllm.open_incidents.ended_at IS 'When it was over; NULL while it is not, or where it has no end.';

COMMENT ON VIEW watchllm.key_access_rates IS
    'Each access and failure of the last 24 hours with the counts of its key; key_access_rates(since, until) for any time.';
COMMENT ON COLUMN watchllm.key_access_rates.accessed_at IS 'When it was.';
COMMENT ON COLUMN watchllm.key_access_rates.project_id IS 'The project of the key.';
COMMENT ON COLUMN watchllm.key_access_rates.provider_key_id IS 'The provider key.';
COMMENT ON COLUMN watchllm.key_access_rates.claims_sub IS 'Subject of the caller''s trusted claims; NULL without.';
COMMENT ON COLUMN watchllm.key_access_rates.failed IS
    'Whether it failed for a reason of its own; what a block stopped counts as an access.';
COMMENT ON COLUMN watchllm.key_access_rates.accesses_minute IS
    'Accesses of the key in the 60 seconds that end with this one.';
COMMENT ON COLUMN watchllm.key_access_rates.accesses_hour IS
    'Accesses up to this one in its minute of the clock and the 59 before.';
COMMENT ON COLUMN watchllm.key_access_rates.accesses_day IS
    'Accesses up to this one in its half hour of the clock (UTC) and the 47 before.';
COMMENT ON COLUMN watchllm.key_access_rates.failures_hour IS
    'Failures up to this one in its minute of the clock and the 59 before.';

COMMENT ON VIEW watchllm.key_access_anomalies IS
    'What the detectors find in the last 24 hours; key_access_anomalies(since, until) for any time.';
COMMENT ON COLUMN watchllm.key_access_anomalies.detector IS 'The detector, as in the type of its incident.';
COMMENT ON COLUMN watchllm.key_access_anomalies.severity IS 'low, medium, high or critical.';
COMMENT ON COLUMN watchllm.key_access_anomalies.project_id IS 'The project of the key; NULL when it is about a caller.';
COMMENT ON COLUMN watchllm.key_access_anomalies.provider_key_id IS 'The provider key; NULL when it is about a caller.';
COMMENT ON COLUMN watchllm.key_access_anomalies.subject IS
    'The caller, as role:name, subject:sub or address:address; NULL when it is about a key alone.';
COMMENT ON COLUMN watchllm.key_access_anomalies.observed IS
    'The highest count; of a dormant key the days it slept.';
COMMENT ON COLUMN watchllm.key_access_anomalies.expected IS 'The limit that was crossed; of a dormant key its days.';
COMMENT ON COLUMN watchllm.key_access_anomalies.window_start IS 'The access that crossed the limit.';
COMMENT ON COLUMN watchllm.key_access_anomalies.window_end IS 'The last access before half the limit was left.';

COMMENT ON TRIGGER refuse_change ON watchllm.install_history IS
    'Refuses to change or delete rows; fires always.';
COMMENT ON TRIGGER refuse_truncate ON watchllm.install_history IS
    'Refuses to empty the table; fires always.';
COMMENT ON TRIGGER refuse_change ON watchllm.provider_key_access_logs IS
    'Refuses to change or delete rows; fires always.';
COMMENT ON TRIGGER refuse_truncate ON watchllm.provider_key_access_logs IS
    'Refuses to empty the table; fires always.';
COMMENT ON TRIGGER refuse_change ON watchllm.committed_changes IS
    'Refuses to change or delete rows; fires always.';
COMMENT ON TRIGGER refuse_truncate ON watchllm.committed_changes IS
    'Refuses to empty the table; fires always.';
COMMENT ON TRIGGER refuse_change ON watchllm.audit_checkpoints IS
    'Refuses to change or delete rows; fires always.';
COMMENT ON TRIGGER refuse_truncate ON watchllm.audit_checkpoints IS
    'Refuses to empty the table; fires always.';
COMMENT ON TRIGGER refuse_change ON watchllm.audit_keys IS
    'Refuses to change or delete rows; fires always.';
COMMENT ON TRIGGER refuse_truncate ON watchllm.audit_keys IS
    'Refuses to empty the table; fires always.';
COMMENT ON TRIGGER refuse_change ON watchllm.database_identity IS
    'Refuses to change or delete rows; fires always.';
COMMENT ON TRIGGER refuse_truncate ON watchllm.database_identity IS
    'Refuses to empty the table; fires always.';
COMMENT ON TRIGGER refuse_change ON watchllm.security_incidents IS
    'Refuses to change or delete rows; fires always.';
COMMENT ON TRIGGER refuse_truncate ON watchllm.security_incidents IS
    'Refuses to empty the table; fires always.';
COMMENT ON TRIGGER refuse_change ON watchllm.incident_events IS
    'Refuses to change or delete rows; fires always.';
COMMENT ON TRIGGER refuse_truncate ON watchllm.incident_events IS
    'Refuses to empty the table; fires always.';
COMMENT ON TRIGGER refuse_change ON watchllm.accepted_findings IS
    'Refuses to change or delete rows; fires always.';
COMMENT ON TRIGGER refuse_truncate ON watchllm.accepted_findings IS
    'Refuses to empty the table; fires always.';

DO $$
DECLARE
    policy record;
BEGIN
    FOR policy IN
        SELECT p.polname AS name, c.relname AS table_name, w.what
        FROM pg_catalog.pg_policy p
        JOIN pg_catalog.pg_class c ON c.oid = p.polrelid AND c.relnamespace = 'watchllm'::pg_catalog.regnamespace
        JOIN (VALUES ('auditors_read_all'::name, 'Admins and auditors read the rows of every project.'),
                     ('services_read_all', 'The backend reads the rows of every project.'),
                     ('tenants_read_own', 'Tenants read the rows of their own projects.')) AS w (name, what)
          ON w.name = p.polname
    LOOP
        EXECUTE pg_catalog.format('COMMENT ON POLICY %I ON watchllm.%I IS %L', policy.name, policy.table_name, policy.what);
    END LOOP;
END
$$;
