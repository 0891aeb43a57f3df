-- A project knows by its value whether a key leaked. So a value is looked up within one project, by
-- an index in which no other project's rows lie between: what an index fetches is counted where
-- everybody may read it. While it is missing, as in a restore, no key is stored.

CREATE UNIQUE INDEX provider_key_versions_value_key
    ON watchllm.provider_key_versions (project_id, fingerprint, provider_key_id, version);
