//! Every SQL function, as a recipe of a few lines: authorise, fetch, open, record, answer. There is
//! no SQL here and no other judgement. `access` holds the shared steps, `crate::input` parses the
//! arguments, and a plaintext leaves through `crate::disclosed` alone.

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
mod projects;
mod properties;
pub(crate) mod redact;
mod redact_columns;
mod scans;
mod settings;
mod stored_words;
mod trail;
mod watch;
