//! Every SQL function, a recipe of a few lines each: authorise, fetch, open, record, answer. No
//! SQL, no judgement of its own. `access` holds the steps that recipes share, `crate::input` what is
//! parsed; `crate::disclosed` is the only way a plaintext leaves.

mod access;
mod admin;
mod adopt;
mod blocks;
mod changes;
mod doctor;
mod find;
mod finder;
mod fingerprints;
mod import;
mod inbox;
mod incidents;
mod keys;
pub(crate) mod leaks;
mod projects;
mod properties;
mod redact_columns;
mod scans;
mod settings;
mod trail;
mod watch;
