//! Black-box tests on real servers of the private tree that `make test` assembles, one file per
//! fault or attack. A test here knows SQL, processes and files. It never uses the extension's Rust
//! code, except to replay what a pure room does.

// A failed expectation here is a failed test.
#![allow(
    clippy::too_many_lines,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

// The harness offers more than the present tests use.
#[allow(dead_code)]
mod commands;
#[allow(dead_code)]
mod server;
mod template;

#[allow(dead_code)]
mod adopt;
mod api;
mod at_rest;
mod attacks;
mod borrowed_rights;
mod chain;
mod concurrency;
mod context;
mod counting;
mod covert;
mod crash;
mod doctor;
mod doctor_sees;
mod dump_restore;
mod durable;
mod envelope_swap;
mod errors;
mod extra_patterns;
mod faults;
mod find_keys;
mod first_call;
mod first_steps;
mod import;
mod import_attacks;
mod import_runs;
mod inbox;
mod incidents;
mod install;
mod keyring;
mod keys;
mod limits;
mod lints;
mod log_activity;
mod log_channels;
mod log_faults;
mod log_incidents;
mod matrix;
mod migrations;
mod not_found;
mod overrides;
mod pooler;
mod postgrest;
mod redact;
mod redact_columns;
mod refusals;
mod request_headers;
mod roles;
mod rollback;
mod rotation;
mod scan_attacks;
mod scan_database;
mod scan_log;
mod scans;
mod setup_script;
mod smoke;
mod spoofed_claims;
mod standby;
mod states;
mod stops_nobody;
mod tenant_escape;
mod watch;
mod watch_attacks;
mod watch_replay;
mod windows;
mod writer;
