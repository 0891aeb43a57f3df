//! watchllm_keys: a vault for LLM provider keys inside PostgreSQL. This file lists the rooms and
//! the order of the SQL, and sets up the library when it is loaded. Floors (an import only points
//! down): api, log_hook, disclosed, trigger_guard; audit, caller; store, shared_keyring,
//! extra_patterns; postgres, error, settings; overrides; anomaly, input; crypto, trail, redact,
//! server_log, setting; id, moment.

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
mod trigger_guard;

use watchllm_core::{
    anomaly, crypto, id, input, moment, overrides, redact, server_log, setting, trail,
};

use pgrx::prelude::*;

pgrx::pg_module_magic!(name, version);

extension_sql_file!("../sql/roles.sql", name = "roles", bootstrap);
extension_sql_file!("../sql/functions.sql", name = "functions", requires = ["roles"]);
extension_sql_file!("../sql/anomalies.sql", name = "anomalies", requires = ["functions"]);
extension_sql_file!("../sql/anomalies/rapid_automated_access.sql", requires = ["anomalies"]);
extension_sql_file!(
    "../sql/anomalies/potential_key_theft.sql",
    requires = ["rapid_automated_access"]
);
extension_sql_file!(
    "../sql/anomalies/unusually_high_access.sql",
    requires = ["potential_key_theft"]
);
extension_sql_file!("../sql/anomalies/repeated_failures.sql", requires = ["unusually_high_access"]);
extension_sql_file!("../sql/anomalies/mass_key_reading.sql", requires = ["repeated_failures"]);
extension_sql_file!("../sql/anomalies/new_address.sql", requires = ["mass_key_reading"]);
extension_sql_file!("../sql/anomalies/new_role.sql", requires = ["new_address"]);
extension_sql_file!("../sql/anomalies/dormant_key_used.sql", requires = ["new_role"]);
extension_sql_file!("../sql/rotation.sql", name = "rotation", requires = ["functions"]);
extension_sql_file!("../sql/redact.sql", name = "redact", requires = [api::redact::redact_text]);
extension_sql_file!("../sql/function_grants.sql", name = "function_grants", finalize);

/// Runs when the server (preloaded) or a session loads the library.
#[pg_guard]
pub extern "C-unwind" fn _PG_init() {
    // Shared memory can be requested only while libraries are preloaded.
    let preloaded = postgres::process::is_preloading();
    settings::define(preloaded);
    extra_patterns::define();
    postgres::session::reserve_settings();
    log_hook::install_hooks(preloaded);
    postgres::owner::install_hooks();
    if preloaded {
        postgres::process::forget_backtraces();
        audit::queue::install_hooks();
        audit::commit::install_hooks();
        trigger_guard::install_hooks();
    }
}
