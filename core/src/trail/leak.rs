//! A key that was masked on its way into sight: where it was about to stand, and who said it; never
//! the key. Pure data; how it becomes an incident is in `incident/kinds`.

use crate::moment::Moment;

words! {
    /// Where a key was about to be seen.
    Channel {
        Message = "message", Detail = "detail", Hint = "hint", Context = "context",
        Statement = "statement", Names = "names", ApplicationName = "application_name",
        Catalog = "catalog",
    }
}

/// One key masked. `key_hash` is a hash of the key under a secret of this server run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leak {
    /// 0: the process served no database.
    pub database: u32,
    /// The process that masked it.
    pub backend_pid: i32,
    /// The oid of the role that ran the statement; 0: none.
    pub role: u32,
    /// Where it was about to be seen.
    pub channel: Channel,
    /// The one provider whose keys look like this, where there is one.
    pub provider: Option<&'static str>,
    /// The kind of key, by the rule that found it.
    pub kind: &'static str,
    /// A keyed hash of its bytes.
    pub key_hash: u64,
    /// When the statement began.
    pub statement_start: Moment,
    /// When it was masked.
    pub at: Moment,
    /// How often since it was last reported.
    pub count: u32,
}
