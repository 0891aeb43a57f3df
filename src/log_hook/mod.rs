//! The log hook: no key in the server log, in messages to clients, in pg_stat_activity or in
//! pg_stat_statements. Unsafe: it runs in every process, even in critical sections, in the
//! postmaster and during another error. It masks bytes in place and keeps their number. No lock, no
//! palloc, no SPI, no ereport, no #[pg_guard], and no shared memory where it is not mapped. Each of
//! these has crashed a server (docs/facts.md#the-log-hook).

mod activity;
mod application_name;
mod calls;
mod catalog;
mod client_text;
mod hidden;
mod intake;
mod masking;
mod message;
mod plan_source;
mod statement;

pub(crate) use intake::{statement_holds_a_key, statement_runs_our_sql};

use crate::redact;

/// Takes the hooks, once, when the library is loaded. A session that loaded the library by itself
/// takes only the hook for messages.
pub(crate) fn install_hooks(preloaded: bool) {
    message::install_hook();
    if preloaded {
        // The automata are compiled here (3 ms), not in every session. A hook could not compile
        // them, because it may not allocate.
        redact::prepare();
        statement::install_hooks();
        calls::install_hook();
        application_name::install_hook();
    }
}
