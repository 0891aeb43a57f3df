//! Black-box tests on real servers of the private tree that `make test` assembles, one file per fault or attack.
//! A test here knows SQL, processes and files; never the extension's Rust code.

// a failed expectation here is a failed test
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

// a harness offers more than the tests of one day use
#[allow(dead_code)]
mod commands;
#[allow(dead_code)]
mod server;
mod template;

mod adopt;
mod at_rest;
mod attacks;
mod chain;
mod concurrency;
mod context;
mod crash;
mod dump_restore;
mod durable;
mod envelope_swap;
mod errors;
mod faults;
mod install;
mod keyring;
mod keys;
mod limits;
mod redact;
mod roles;
mod rollback;
mod smoke;
mod standby;
mod states;
mod writer;
