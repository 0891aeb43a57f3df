//! A key that was masked on its way into sight: where it was about to stand, and who said it; never
//! the key. Pure data; how it becomes an incident is in `incident/kinds`.

use super::terms::Bounded;
use crate::id::ProjectId;
use crate::moment::Moment;
use std::net::IpAddr;

words! {
    /// Where a key was about to be seen, or what found it.
    Channel {
        Message = "message", Detail = "detail", Hint = "hint", Context = "context",
        Statement = "statement", Names = "names", ApplicationName = "application_name",
        Catalog = "catalog", RedactColumns = "redact_columns",
        ScanTable = "scan_table_for_leaks", ScanLog = "scan_server_log",
        ScanDatabase = "scan_database_for_leaks",
    }
}

/// Who is behind a finding. A name counts only after the authentication: before it, anybody can say
/// any name, so that the address alone is known.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// The oids of the role that has logged in, and of the role it has set.
    Role {
        /// The role that has logged in.
        session: u32,
        /// The role of SET ROLE, or the same.
        set: u32,
    },
    /// A client that has not logged in. None: it came over a socket of this machine.
    Client(Option<IpAddr>),
    /// A process of the server that acts for nobody, by PostgreSQL's number of its kind.
    Process(u32),
    /// A project whose own key was found.
    Project(ProjectId),
}

/// One key masked. `key_hash` is a hash of the key under a secret of this server run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Leak {
    /// 0: the process served no database.
    pub database: u32,
    /// The process that masked it.
    pub backend_pid: i32,
    /// Who ran the statement.
    pub origin: Origin,
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

/// The most fingerprints of one key: its spellings, under each version of the fingerprint key.
pub const MOST_FINGERPRINTS: usize = 8;

/// A key that was masked in a column before its row was stored. Whoever stored the row can neither
/// see nor undo what becomes of this.
#[derive(Clone, Copy)]
pub struct ColumnLeak {
    /// Who stored the row: the source of the incident, unless the key is ours.
    pub origin: Origin,
    /// The qualified name of the table.
    pub table: Bounded<130>,
    /// Who owns it.
    pub table_owner: Bounded<63>,
    /// The column.
    pub column: Bounded<63>,
    /// The one provider whose keys look like this, where there is one.
    pub provider: Option<&'static str>,
    /// The kind of key, by its rule.
    pub kind: &'static str,
    /// The key as it may be shown.
    pub redacted: Bounded<96>,
    /// Fingerprints with the version of their key; the first is that of the key as it stood.
    pub fingerprints: [(i32, [u8; 32]); MOST_FINGERPRINTS],
    /// How many of them there are.
    pub count: usize,
    /// More of this source found no room to wait.
    pub more: bool,
    /// When it was masked.
    pub at: Moment,
}

impl ColumnLeak {
    /// The fingerprints that it has.
    pub fn fingerprints(&self) -> &[(i32, [u8; 32])] {
        &self.fingerprints[..self.count.min(MOST_FINGERPRINTS)]
    }
}
