//! PostgreSQL, by subject: everything the product asks of its server other than by SQL. Unsafe
//! lives here, each block with its reason. `owner` is the most important file: our statements, and
//! only they, run as the owner of our tables.

mod attempt;
pub(crate) mod clock;
pub(crate) mod found;
pub(crate) mod hooks;
mod json;
pub(crate) mod locks;
pub(crate) mod lookup;
pub(crate) mod memory;
pub(crate) mod owner;
pub(crate) mod process;
pub(crate) mod session;
pub(crate) mod silent_trigger;
mod statement;
pub(crate) mod table;

pub(crate) use attempt::{Failed, attempt, attempt_or_why};
pub(crate) use json::{JsonText, JsonbText, PlainText};
pub(crate) use memory::StepMemory;
pub(crate) use owner::{Owner, relation_changes, search_start};
pub(crate) use statement::{Row, Statement, each_in_schema};
