//! The log hook: no key in the server log, in messages to clients, in pg_stat_activity or in
//! pg_stat_statements. Unsafe: it runs in every process, also in critical sections, in the
//! postmaster and while another error is handled. It masks bytes where they lie and keeps their
//! number. No lock, no palloc, no SPI, no ereport, no #[pg_guard]; shared memory only where there
//! is some (FACTS §3, each reproduced there as a crash).

mod activity;
mod catalog;
mod client_text;
mod intake;
mod masking;
mod message;
mod plan_source;
mod statement;

pub(crate) use intake::statement_holds_a_key;

use crate::redact;

/// Takes the hooks; once, when the library is loaded. In a session that loaded it by itself only
/// the messages' hook.
pub(crate) fn install_hooks(preloaded: bool) {
    message::install_hook();
    if preloaded {
        // Compiled once here (3 ms) instead of in every session, and never in a hook, which may not
        // allocate.
        redact::prepare();
        statement::install_hooks();
    }
}
