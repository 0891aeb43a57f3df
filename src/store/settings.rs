//! Settings that a database, a project or a key overrides. The nearest override wins; without one
//! the server's setting holds. The table is small, so the writer reads all overrides at once.

use super::oids::*;
use super::{id, uuid, value};
use crate::id::{ProjectId, ProviderKeyId};
use crate::postgres::{Owner, Statement, session};
use crate::setting::Setting;

static ALL: Statement =
    Statement::new("SELECT name, value, project_id, provider_key_id FROM watchllm.settings", &[]);

static NEAREST: Statement = Statement::new(
    "SELECT s.value FROM watchllm.settings s
     WHERE s.name = $1 AND (s.project_id IS NULL OR s.project_id = $2)
       AND (s.provider_key_id IS NULL OR s.provider_key_id = $3)
     ORDER BY s.provider_key_id NULLS LAST, s.project_id NULLS LAST LIMIT 1",
    &[TEXT, UUID, UUID],
);

static EXISTS: Statement =
    Statement::new("SELECT true FROM watchllm.settings WHERE name = $1 LIMIT 1", &[TEXT]);

static SET: Statement = Statement::new(
    "INSERT INTO watchllm.settings AS s (name, value, project_id, provider_key_id)
        VALUES ($1, $2, $3, $4)
     ON CONFLICT (name, project_id, provider_key_id)
        DO UPDATE SET value = EXCLUDED.value, updated_at = pg_catalog.now()",
    &[TEXT, TEXT, UUID, UUID],
);

static REMOVE: Statement = Statement::new(
    "DELETE FROM watchllm.settings WHERE name = $1 AND project_id IS NOT DISTINCT FROM $2
        AND provider_key_id IS NOT DISTINCT FROM $3",
    &[TEXT, UUID, UUID],
);

/// An override of a database (neither project nor key), a project or a key.
pub(crate) struct StoredOverride {
    pub name: String,
    pub value: String,
    pub project: Option<ProjectId>,
    pub key: Option<ProviderKeyId>,
}

pub(crate) fn all(owner: Owner) -> Vec<StoredOverride> {
    ALL.read(owner, &[], |row| StoredOverride {
        name: value(row, 1),
        value: value(row, 2),
        project: id(row, 3),
        key: id(row, 4),
    })
}

/// Whether anything overrides this setting.
pub(crate) fn exists(owner: Owner, name: &str) -> bool {
    !EXISTS.read(owner, &[name.into()], |_| ()).is_empty()
}

/// The override for a key, a project or the database, if there is one.
fn nearest(
    owner: Owner,
    name: &str,
    project: Option<ProjectId>,
    key: Option<ProviderKeyId>,
) -> Option<String> {
    let arguments = [name.into(), project.map(uuid).into(), key.map(uuid).into()];
    NEAREST.read(owner, &arguments, |row| value(row, 1)).pop()
}

/// The server's value.
pub(crate) fn of_server(setting: &Setting) -> Option<String> {
    session::shown_setting(setting.guc)
}

/// The value that holds for a key, a project or the database: the nearest override's, or the
/// server's.
pub(crate) fn effective(
    owner: Owner,
    setting: &Setting,
    project: Option<ProjectId>,
    key: Option<ProviderKeyId>,
) -> Option<String> {
    nearest(owner, setting.name(), project, key).or_else(|| of_server(setting))
}

/// The number that holds, as `effective`. A value that cannot be read counts as never set.
pub(crate) fn number(
    owner: Owner,
    setting: &Setting,
    project: Option<ProjectId>,
    key: Option<ProviderKeyId>,
) -> u32 {
    let own = nearest(owner, setting.name(), project, key);
    own.and_then(|own| setting.number(&own)).unwrap_or_else(|| number_of_server(setting))
}

/// The server's number.
pub(crate) fn number_of_server(setting: &Setting) -> u32 {
    let value = of_server(setting).and_then(|value| setting.number(&value));
    value.unwrap_or_else(|| setting.default_number())
}

/// Sets an override or, without a value, removes it.
pub(crate) fn set(
    owner: Owner,
    name: &str,
    value: Option<&str>,
    project: Option<ProjectId>,
    key: Option<ProviderKeyId>,
) {
    let (project, key) = (project.map(uuid), key.map(uuid));
    match value {
        Some(value) => {
            SET.change(owner, &[name.into(), value.into(), project.into(), key.into()], |_| ())
        }
        None => REMOVE.change(owner, &[name.into(), project.into(), key.into()], |_| ()),
    };
}
