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
    pub backend_pid: i32,
    pub role: u32,
    pub channel: Channel,
    /// The one provider whose keys look like this, where there is one.
    pub provider: Option<&'static str>,
    pub kind: &'static str,
    pub key_hash: u64,
    pub statement_start: Moment,
    pub at: Moment,
    /// How often since it was last reported.
    pub count: u32,
}
