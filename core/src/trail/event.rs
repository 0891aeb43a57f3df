//! An access event: what the caller's own process knows at the moment of an access; and the columns
//! of the trail that it becomes a row of. Fixed size and without pointers, because it travels
//! through shared memory. A new column of the trail is added to `Event` and to `COLUMNS`.

use super::terms::{AccessType, Bounded, CallerKind, Counted, FailureReason};
use crate::id::{EventId, Id, IdentityId, KeyRef, ProjectId, ProviderKeyId};
use crate::moment::Moment;

/// One access, as its own process saw it. Lengths in bytes.
#[derive(Clone, Copy)]
pub struct Event {
    /// Names the event, also in `committed_changes`.
    pub id: EventId,
    /// When it happened.
    pub accessed_at: Moment,
    /// The project, where it is known and the caller may be told of it.
    pub project_id: Option<ProjectId>,
    /// The key, as far as the caller named one.
    pub provider_key_id: Option<ProviderKeyId>,
    /// The provider of the key.
    pub provider: Bounded<63>,
    /// The version of the key.
    pub key_version: Option<i32>,
    /// What was attempted.
    pub access_type: AccessType,
    /// Why it failed; None: it succeeded.
    pub failure: Option<FailureReason>,
    /// How many attempts the row stands for.
    pub attempt_count: i32,
    /// The address that the caller gave.
    pub ip_address: Bounded<64>,
    /// The user agent that the caller gave.
    pub user_agent: Bounded<256>,
    /// The request that the caller gave.
    pub request_id: Bounded<128>,
    /// The role that logged in.
    pub session_role: Bounded<63>,
    /// The role whose rights counted.
    pub effective_role: Bounded<63>,
    /// The role that SET ROLE had named.
    pub role_setting: Bounded<63>,
    /// The subject that the claims name.
    pub claims_sub: Bounded<128>,
    /// Whether the claims counted.
    pub claims_trusted: bool,
    /// The address that the server saw.
    pub client_addr: Bounded<45>,
    /// The process of the caller.
    pub backend_pid: i32,
    /// The name of the application.
    pub application_name: Bounded<63>,
    /// The transaction, where it had an id.
    pub txid: Option<u64>,
    /// The version is marked compromised. No column of the trail: the writer makes an incident of
    /// opening it.
    pub compromised: bool,
    /// When an imported key was last used where it came from. No column of the trail: the writer
    /// shows it with the key.
    pub last_used_at: Option<Moment>,
    /// The caller that is unblocked. No column of the trail: the note is kept with the incident
    /// that blocked it.
    pub about_caller: Option<(CallerKind, Bounded<128>)>,
}

impl Event {
    /// Whether it succeeded.
    pub fn success(&self) -> bool {
        self.failure.is_none()
    }

    /// How the event counts for its key; None: for no key.
    pub fn counts(&self) -> Option<Counted> {
        Counted::of(self.access_type, self.failure)
    }

    /// The key it is about, where its project is known too.
    pub fn key(&self) -> Option<KeyRef> {
        Some(KeyRef { project: self.project_id?, key: self.provider_key_id? })
    }

    /// The UTC day the event belongs to, in days since 1970.
    pub fn day(&self) -> i32 {
        self.accessed_at.day()
    }

    /// Counts another attempt in this row, which then says only what all its attempts share.
    pub fn count_also(&mut self, other: &Event) {
        fn shared<T: PartialEq>(mine: &mut Option<T>, others: &Option<T>) {
            if mine != others {
                *mine = None;
            }
        }
        fn same<const N: usize>(mine: &mut Bounded<N>, others: &Bounded<N>) {
            if mine.get() != others.get() {
                *mine = Bounded::NULL;
            }
        }
        self.attempt_count = self.attempt_count.saturating_add(other.attempt_count);
        shared(&mut self.project_id, &other.project_id);
        shared(&mut self.provider_key_id, &other.provider_key_id);
        shared(&mut self.key_version, &other.key_version);
        shared(&mut self.txid, &other.txid);
        same(&mut self.provider, &other.provider);
        same(&mut self.ip_address, &other.ip_address);
        same(&mut self.user_agent, &other.user_agent);
        same(&mut self.request_id, &other.request_id);
        same(&mut self.role_setting, &other.role_setting);
        same(&mut self.claims_sub, &other.claims_sub);
        same(&mut self.client_addr, &other.client_addr);
        same(&mut self.application_name, &other.application_name);
    }

    /// Hides in the texts that the caller gave what `hide` finds there.
    pub fn hide(&mut self, hide: &mut dyn FnMut(&str) -> Option<String>) {
        fn one<const N: usize>(
            text: &mut Bounded<N>,
            hide: &mut dyn FnMut(&str) -> Option<String>,
        ) {
            if let Some(hidden) = text.get().and_then(hide) {
                *text = Bounded::new(Some(&hidden));
            }
        }
        one(&mut self.provider, hide);
        one(&mut self.ip_address, hide);
        one(&mut self.user_agent, hide);
        one(&mut self.request_id, hide);
        one(&mut self.claims_sub, hide);
        one(&mut self.application_name, hide);
    }

    /// The same event, refused for `reason`.
    pub fn refused(mut self, reason: FailureReason) -> Event {
        self.failure = Some(reason);
        self
    }
}

/// A row of the trail: an event and what the writer adds to it.
pub struct TrailRow<'a> {
    /// The access.
    pub event: &'a Event,
    /// Its number in the trail, from 1, without gaps.
    pub seq: i64,
    /// A random number of the queue that it came through.
    pub epoch: i64,
    /// Its place in that queue.
    pub queue_seq: i64,
    /// The database that wrote it.
    pub identity_id: IdentityId,
    /// The version of the MAC key.
    pub chain_key_version: i32,
}

/// How a row's value is got, by the type that its column has in SQL.
#[derive(Clone, Copy)]
pub enum ColumnValue {
    /// A whole number of 8 bytes.
    Bigint(fn(&TrailRow<'_>) -> i64),
    /// A whole number of 4 bytes.
    Integer(fn(&TrailRow<'_>) -> Option<i32>),
    /// True or false.
    Boolean(fn(&TrailRow<'_>) -> bool),
    /// An id of 16 bytes.
    Uuid(fn(&TrailRow<'_>) -> Option<[u8; 16]>),
    /// A moment.
    Timestamptz(fn(&TrailRow<'_>) -> Moment),
    /// Text.
    Text(for<'a> fn(&TrailRow<'a>) -> Option<&'a str>),
    /// A network address, as text.
    Inet(for<'a> fn(&TrailRow<'a>) -> Option<&'a str>),
    /// A transaction id.
    Xid8(fn(&TrailRow<'_>) -> Option<u64>),
    /// The row's hash, of type bytea: what the chain computes of the others.
    Hash,
}

/// What is said of a column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mark {
    /// NOT NULL.
    Required,
    /// Tenants read it, in the rows of their own projects. Administrators and auditors read all.
    Tenants,
    /// Free text that tenants write: PostgreSQL keeps no statistics of it, which others could read.
    Said,
    /// key_access_history() and failed_access_attempts() show it.
    History,
    /// It came after the first version of the trail, so that rows of before do not have it. It is
    /// not `Required`, stands at the end, and is hashed where it has a value (`trail/chain`).
    Later,
}

/// A column of the trail.
#[derive(Clone, Copy)]
pub struct TrailColumn {
    /// Its name in the table.
    pub name: &'static str,
    /// Its type, and how a row has it.
    pub cell: ColumnValue,
    marks: &'static [Mark],
}

impl TrailColumn {
    /// Whether this is said of it.
    pub fn is(&self, mark: Mark) -> bool {
        self.marks.contains(&mark)
    }

    /// The name of its type in SQL.
    pub const fn sql_type(&self) -> &'static str {
        match self.cell {
            ColumnValue::Bigint(_) => "bigint",
            ColumnValue::Integer(_) => "integer",
            ColumnValue::Boolean(_) => "boolean",
            ColumnValue::Uuid(_) => "uuid",
            ColumnValue::Timestamptz(_) => "timestamptz",
            ColumnValue::Text(_) => "text",
            ColumnValue::Inet(_) => "inet",
            ColumnValue::Xid8(_) => "xid8",
            ColumnValue::Hash => "bytea",
        }
    }
}

pub(super) const fn column(
    name: &'static str,
    cell: ColumnValue,
    marks: &'static [Mark],
) -> TrailColumn {
    TrailColumn { name, cell, marks }
}

/// The columns of the trail, in table order: the one list that its hash, the writer's INSERTs, SQL
/// and what people read are held against.
pub const COLUMNS: [TrailColumn; 28] = {
    use {ColumnValue::*, Mark::*};
    const SHOWN: &[Mark] = &[Tenants, History];
    const SAID: &[Mark] = &[Tenants, Said, History];
    const ALWAYS: &[Mark] = &[Required, Tenants, History];
    [
        column("seq", Bigint(|r| r.seq), &[Required]),
        column("id", Uuid(|r| Some(r.event.id.to_bytes())), &[Required, Tenants]),
        column("accessed_at", Timestamptz(|r| r.event.accessed_at), ALWAYS),
        column("project_id", Uuid(|r| r.event.project_id.map(Id::to_bytes)), SHOWN),
        column("provider_key_id", Uuid(|r| r.event.provider_key_id.map(Id::to_bytes)), SHOWN),
        column("provider", Text(|r| r.event.provider.get()), SHOWN),
        column("key_version", Integer(|r| r.event.key_version), SHOWN),
        column("access_type", Text(|r| Some(r.event.access_type.word())), ALWAYS),
        column("success", Boolean(|r| r.event.success()), ALWAYS),
        column("failure_reason", Text(|r| r.event.failure.map(|f| f.word())), SHOWN),
        column("attempt_count", Integer(|r| Some(r.event.attempt_count)), ALWAYS),
        column("ip_address", Text(|r| r.event.ip_address.get()), SAID),
        column("user_agent", Text(|r| r.event.user_agent.get()), SAID),
        column("request_id", Text(|r| r.event.request_id.get()), SAID),
        column("session_role", Text(|r| r.event.session_role.get()), &[Required, History]),
        column("effective_role", Text(|r| r.event.effective_role.get()), &[Required, History]),
        column("role_setting", Text(|r| r.event.role_setting.get()), &[]),
        column("claims_sub", Text(|r| r.event.claims_sub.get()), SAID),
        column("claims_trusted", Boolean(|r| r.event.claims_trusted), &[Required, Tenants]),
        column("client_addr", Inet(|r| r.event.client_addr.get()), &[History]),
        column("backend_pid", Integer(|r| Some(r.event.backend_pid)), &[Required]),
        column("application_name", Text(|r| r.event.application_name.get()), &[History]),
        column("txid", Xid8(|r| r.event.txid), &[]),
        column("epoch", Bigint(|r| r.epoch), &[Required]),
        column("queue_seq", Bigint(|r| r.queue_seq), &[Required]),
        column("identity_id", Uuid(|r| Some(r.identity_id.to_bytes())), &[Required]),
        column("chain_key_version", Integer(|r| Some(r.chain_key_version)), &[Required]),
        column("hash", Hash, &[Required]),
    ]
};

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn event() -> Event {
        Event {
            id: EventId::new([1; 16]),
            accessed_at: Moment::new(1_700_000_000_000_000),
            project_id: Some(ProjectId::new([2; 16])),
            provider_key_id: Some(ProviderKeyId::new([3; 16])),
            provider: Bounded::new(Some("openai")),
            key_version: Some(1),
            access_type: AccessType::Decrypt,
            failure: None,
            attempt_count: 1,
            ip_address: Bounded::NULL,
            user_agent: Bounded::new(Some("curl")),
            request_id: Bounded::NULL,
            session_role: Bounded::new(Some("app")),
            effective_role: Bounded::new(Some("app")),
            role_setting: Bounded::new(Some("none")),
            claims_sub: Bounded::NULL,
            claims_trusted: false,
            client_addr: Bounded::NULL,
            backend_pid: 7,
            application_name: Bounded::new(Some("")),
            txid: None,
            compromised: false,
            last_used_at: None,
            about_caller: None,
        }
    }

    /// An event with a value in every column that may be NULL.
    pub(crate) fn full() -> Event {
        Event {
            id: EventId::new([0x11; 16]),
            accessed_at: Moment::new(1_700_000_000_123_456),
            project_id: Some(ProjectId::new([0x22; 16])),
            provider_key_id: Some(ProviderKeyId::new([0x33; 16])),
            provider: Bounded::new(Some("openai")),
            key_version: Some(3),
            access_type: AccessType::Decrypt,
            failure: Some(FailureReason::Limit),
            attempt_count: 17,
            ip_address: Bounded::new(Some("203.0.113.7")),
            user_agent: Bounded::new(Some("Ünï/1.0 🗝")),
            request_id: Bounded::new(Some("réq")),
            session_role: Bounded::new(Some("authenticator")),
            effective_role: Bounded::new(Some("größe")),
            role_setting: Bounded::new(Some("watchllm_tenant")),
            claims_sub: Bounded::new(Some("u-1")),
            claims_trusted: true,
            client_addr: Bounded::new(Some("2001:db8::1")),
            backend_pid: 4711,
            application_name: Bounded::new(Some("")),
            txid: Some(u64::MAX),
            ..event()
        }
    }

    /// An event with NULL wherever a column may be NULL.
    pub(crate) fn empty() -> Event {
        Event {
            id: EventId::new([0x12; 16]),
            accessed_at: Moment::new(-1),
            project_id: None,
            provider_key_id: None,
            provider: Bounded::NULL,
            key_version: None,
            access_type: AccessType::Store,
            user_agent: Bounded::NULL,
            role_setting: Bounded::NULL,
            application_name: Bounded::NULL,
            ..event()
        }
    }

    pub(crate) fn row(event: &Event) -> TrailRow<'_> {
        TrailRow {
            event,
            seq: 42,
            epoch: 1_700_000_000,
            queue_seq: 6,
            identity_id: IdentityId::new([0x44; 16]),
            chain_key_version: 2,
        }
    }

    fn is_null(column: &TrailColumn, event: &Event) -> bool {
        let row = row(event);
        match column.cell {
            ColumnValue::Integer(get) => get(&row).is_none(),
            ColumnValue::Uuid(get) => get(&row).is_none(),
            ColumnValue::Text(get) | ColumnValue::Inet(get) => get(&row).is_none(),
            ColumnValue::Xid8(get) => get(&row).is_none(),
            ColumnValue::Bigint(_)
            | ColumnValue::Boolean(_)
            | ColumnValue::Timestamptz(_)
            | ColumnValue::Hash => false,
        }
    }

    #[test]
    fn a_column_is_null_where_it_may_be_and_nowhere_else() {
        for column in &COLUMNS {
            assert!(!is_null(column, &full()), "{}: full() lacks it", column.name);
            assert_eq!(is_null(column, &empty()), !column.is(Mark::Required), "{}", column.name);
        }
    }

    #[test]
    fn columns_that_came_later_are_nullable_and_at_the_end() {
        let later = COLUMNS.iter().skip_while(|column| !column.is(Mark::Later));
        assert!(later.clone().all(|column| column.is(Mark::Later) && !column.is(Mark::Required)));
        assert_eq!(COLUMNS.len() - later.count(), 28, "the first version's columns stay");
        let mut names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), COLUMNS.len());
    }

    /// Refusals past a rate are one row: it must not put down to all what one of them said.
    #[test]
    fn a_counted_row_says_only_what_all_its_attempts_share() {
        let mut counted = full();
        counted.count_also(&full());
        assert_eq!(counted.attempt_count, 34);
        assert!(COLUMNS.iter().all(|column| !is_null(column, &counted)));
        counted.count_also(&empty());
        let kept = |column: &&TrailColumn| !column.is(Mark::Required) && !is_null(column, &counted);
        let kept: Vec<&str> = COLUMNS.iter().filter(kept).map(|column| column.name).collect();
        assert_eq!(kept, ["failure_reason"]); // only refusals for the same reason are counted
    }

    #[test]
    fn days_are_utc_and_hold_before_1970() {
        let mut e = event();
        e.accessed_at = Moment::EPOCH + crate::moment::Span::DAY;
        assert_eq!(e.day(), 1);
        e.accessed_at = Moment::new(-1);
        assert_eq!(e.day(), -1);
    }
}
