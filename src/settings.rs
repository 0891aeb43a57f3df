//! Every setting (GUC) that only the server has, typed, with units. `overridable` has those that
//! can be overridden. All are SIGHUP or POSTMASTER, so that no session can change one. Postmaster
//! settings exist only if the library is preloaded.

mod overridable;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::{CStr, CString};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

static MASTER_KEY_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static MASTER_KEY_COMMAND: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(None);
static MASTER_KEY_COMMAND_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static PBKDF2_ITERATIONS: GucSetting<i32> = GucSetting::<i32>::new(600_000);
static AUDIT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static AUDIT_QUEUE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(2_048);
static MAX_DATABASES: GucSetting<i32> = GucSetting::<i32>::new(8);
static SPIN: GucSetting<i32> = GucSetting::<i32>::new(200);
static INCIDENT_BUDGET: GucSetting<i32> = GucSetting::<i32>::new(20);
static REDACT_SERVER_LOG: GucSetting<bool> = GucSetting::<bool>::new(true);
static HIDE_STATEMENTS: GucSetting<bool> = GucSetting::<bool>::new(true);
static TRUSTED_CLAIM_ROLES: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c"authenticator"));

/// Whether the server itself loaded the library. If a session loaded it, any role may have set its
/// settings before.
static PRELOADED: AtomicBool = AtomicBool::new(false);

/// Where the keyring comes from.
pub(crate) enum KeyringSource {
    File(String),
    Command { command: String, timeout: Duration },
    Nothing,
}

/// If both are set, the file is used.
pub(crate) fn keyring_source() -> KeyringSource {
    let text = |setting: &GucSetting<Option<CString>>| {
        setting.get().map(|s| s.to_string_lossy().into_owned()).filter(|s| !s.is_empty())
    };
    if let Some(path) = text(&MASTER_KEY_FILE) {
        KeyringSource::File(path)
    } else if let Some(command) = text(&MASTER_KEY_COMMAND) {
        KeyringSource::Command { command, timeout: master_key_command_timeout() }
    } else {
        KeyringSource::Nothing
    }
}

pub(crate) fn master_key_command_timeout() -> Duration {
    millis(&MASTER_KEY_COMMAND_TIMEOUT)
}

pub(crate) fn pbkdf2_iterations() -> u32 {
    PBKDF2_ITERATIONS.get() as u32
}

/// How long a caller waits for its audit record before it gets an error instead of an answer.
pub(crate) fn audit_timeout() -> Duration {
    millis(&AUDIT_TIMEOUT)
}

/// Events the queue of one database holds.
pub(crate) fn audit_queue_size() -> usize {
    AUDIT_QUEUE_SIZE.get() as usize
}

/// Databases of this server that can have a vault at the same time.
pub(crate) fn max_databases() -> usize {
    MAX_DATABASES.get() as usize
}

/// How long writer and waiter spin before they sleep.
pub(crate) fn spin() -> Duration {
    Duration::from_micros(SPIN.get() as u64)
}

/// Incidents that a source may raise in a day.
pub(crate) fn incident_budget() -> u32 {
    INCIDENT_BUDGET.get() as u32
}

/// Whether keys are masked in the server log, in messages to clients and in views of running
/// statements. Never on a server that did not preload the library.
pub(crate) fn redacts_server_log() -> bool {
    REDACT_SERVER_LOG.get() && PRELOADED.load(Relaxed)
}

/// Whether statements that name us show only what is known to hold no value. Always, where the
/// server did not preload the library.
pub(crate) fn hides_statements() -> bool {
    HIDE_STATEMENTS.get() || !PRELOADED.load(Relaxed)
}

/// Whether JWT claims count in sessions of this login role. Never on a server that did not preload
/// the library.
pub(crate) fn trusts_claims_of(session_role: &str) -> bool {
    let trusted = TRUSTED_CLAIM_ROLES.get().filter(|_| PRELOADED.load(Relaxed));
    trusted.is_some_and(|roles| names(&roles.to_string_lossy(), session_role))
}

/// Whether a comma-separated list names this role.
fn names(list: &str, role: &str) -> bool {
    list.split(',').map(str::trim).any(|listed| !listed.is_empty() && listed == role)
}

fn millis(setting: &GucSetting<i32>) -> Duration {
    Duration::from_millis(setting.get() as u64)
}

/// Defines the settings. `preloaded` adds those that only a server start can set.
#[expect(clippy::too_many_lines, reason = "a table: a row for each setting")]
pub(crate) fn define(preloaded: bool) {
    PRELOADED.store(preloaded, Relaxed);
    let secret = GucFlags::SUPERUSER_ONLY;
    GucRegistry::define_string_guc(
        c"watchllm_keys.master_key_file",
        c"File with the master keys, one VERSION:SECRET per line.",
        c"Refused unless owned by the server's user or root and not readable by others.",
        &MASTER_KEY_FILE,
        GucContext::Sighup,
        secret,
    );
    GucRegistry::define_string_guc(
        c"watchllm_keys.master_key_command",
        c"Shell command that prints the master keys, one VERSION:SECRET per line.",
        c"Used when master_key_file is empty; its standard error is never logged.",
        &MASTER_KEY_COMMAND,
        GucContext::Sighup,
        secret,
    );
    GucRegistry::define_string_guc(
        c"watchllm_keys.trusted_claim_roles",
        c"Login roles, separated by commas, in whose sessions JWT claims count.",
        c"Only for a proxy that verifies tokens and lets nobody run SQL of their own, such as \
          PostgREST.",
        &TRUSTED_CLAIM_ROLES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"watchllm_keys.redact_server_log",
        c"Masks provider keys in the server log, in messages to clients and in pg_stat_activity.",
        c"Off shows every key that stands in a statement or a message.",
        &REDACT_SERVER_LOG,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"watchllm_keys.hide_statements",
        c"Hides what may hold a value in statements that name us, and in their errors.",
        c"Off shows opaque keys that stand there; switch it off only to look at an error.",
        &HIDE_STATEMENTS,
        GucContext::Sighup,
        GucFlags::default(),
    );
    define_numbers();
    overridable::define();
    if preloaded {
        define_at_start();
    }
}

/// A number that a reload changes.
fn number(
    (name, short, long): (&'static CStr, &'static CStr, &'static CStr),
    setting: &'static GucSetting<i32>,
    (least, most): (i32, i32),
    unit: GucFlags,
) {
    let context = GucContext::Sighup;
    GucRegistry::define_int_guc(name, short, long, setting, least, most, context, unit);
}

fn define_numbers() {
    define_budget();
    number(
        (c"watchllm_keys.master_key_command_timeout", c"How long master_key_command may run.", c""),
        &MASTER_KEY_COMMAND_TIMEOUT,
        (100, 600_000),
        GucFlags::UNIT_MS,
    );
    number(
        (
            c"watchllm_keys.pbkdf2_iterations",
            c"PBKDF2 iterations of a master key made from now on.",
            c"A master key keeps the number it was made with.",
        ),
        &PBKDF2_ITERATIONS,
        (100_000, 100_000_000),
        GucFlags::default(),
    );
    number(
        (
            c"watchllm_keys.audit_timeout",
            c"How long a caller waits for its audit record.",
            c"After it the caller gets an error and no plaintext.",
        ),
        &AUDIT_TIMEOUT,
        (100, 600_000),
        GucFlags::UNIT_MS,
    );
    number(
        (
            c"watchllm_keys.spin",
            c"Microseconds that writer and waiter look for each other before they sleep.",
            c"Mends the latency of few clients; 0 turns it off.",
        ),
        &SPIN,
        (0, 10_000),
        GucFlags::default(),
    );
}

fn define_budget() {
    number(
        (
            c"watchllm_keys.incident_budget",
            c"Incidents that a source may raise in a day; more are only counted.",
            c"A source is a role or an address, a database and a channel.",
        ),
        &INCIDENT_BUDGET,
        (1, 100_000),
        GucFlags::default(),
    );
}

fn define_at_start() {
    GucRegistry::define_int_guc(
        c"watchllm_keys.audit_queue_size",
        c"Audit events that the queue of one database holds.",
        c"About 1.2 kB of shared memory each.",
        &AUDIT_QUEUE_SIZE,
        64,
        1_048_576,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"watchllm_keys.max_databases",
        c"Databases of this server that can have a vault at the same time.",
        c"Fixes the shared memory.",
        &MAX_DATABASES,
        1,
        1_024,
        GucContext::Postmaster,
        GucFlags::default(),
    );
}

#[cfg(test)]
mod tests {
    use super::names;

    #[test]
    fn a_trusted_role_is_named_whole() {
        assert!(names("authenticator", "authenticator"));
        assert!(names(" web , authenticator", "web"));
        for list in ["", ",", "authenticators", "auth", "AUTHENTICATOR", "a,b"] {
            assert!(!names(list, "authenticator"), "{list}");
        }
        assert!(!names("a,,b", ""));
    }
}
