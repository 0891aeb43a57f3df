//! watchllm_keys: a vault for LLM provider keys inside PostgreSQL. The door: rooms, the order of
//! the SQL, what happens when the library is loaded. No logic lives here. Floors (an import only
//! ever points down): api, log_hook, disclosed · audit, caller · store, shared_keyring,
//! extra_patterns · anomaly · postgres, crypto, trail, redact, server_log, error, settings · id,
//! moment.

mod api;
mod audit;
mod caller;
mod disclosed;
mod error;
mod extra_patterns;
mod log_hook;
mod postgres;
mod settings;
mod shared_keyring;
mod store;

use watchllm_core::{anomaly, crypto, id, input, moment, redact, server_log, trail};

use pgrx::prelude::*;

pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/roles.sql", name = "roles", bootstrap);
extension_sql_file!("../sql/functions.sql", name = "functions", requires = ["roles"]);
extension_sql_file!("../sql/anomalies.sql", name = "anomalies", requires = ["functions"]);
extension_sql_file!("../sql/rotation.sql", name = "rotation", requires = ["functions"]);
extension_sql_file!("../sql/redact.sql", name = "redact", requires = [api::leaks::redact_text]);
extension_sql_file!("../sql/function_grants.sql", name = "function_grants", finalize);

/// Runs when the server (preloaded) or a session loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // Only while libraries are preloaded can shared memory still be asked for.
    let preloaded = postgres::process::is_preloading();
    settings::define(preloaded);
    extra_patterns::define();
    postgres::session::reserve_settings();
    log_hook::install_hooks(preloaded);
    if preloaded {
        postgres::process::forget_backtraces();
        audit::queue::install_hooks();
        audit::commit::install_hooks();
    }
}
