//! The rooms of watchllm_keys that need no PostgreSQL: what a key is, how it is sealed, what is
//! recorded about it, how keys are found in text, and what counts as theft. Tests, benchmarks,
//! verifiers and fuzzers use them without a server. Floors (an import only points down):
//! overrides, alarms; anomaly, input; crypto, trail, redact, blanks, server_log, setting; id,
//! moment.
#![forbid(unsafe_code)]

pub mod alarms;
pub mod anomaly;
pub mod blanks;
pub mod crypto;
pub mod id;
pub mod input;
pub mod moment;
pub mod overrides;
pub mod redact;
pub mod server_log;
pub mod setting;
pub mod trail;
