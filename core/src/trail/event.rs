//! An access event: what the caller's own process knows at the moment of an access. Fixed size and
//! without pointers, because it travels through shared memory. Free text arrives here already
//! redacted; `Bounded` only cuts. Lists and lengths: DESIGN §11.

use crate::id::{EventId, KeyRef, ProjectId, ProviderKeyId};
use crate::moment::Moment;

/// Text of at most `N` bytes, or NULL, stored in place.
#[derive(Clone, Copy)]
pub struct Bounded<const N: usize> {
    len: u16,
    bytes: [u8; N],
}

impl<const N: usize> Bounded<N> {
    const NULL_LEN: u16 = u16::MAX;
    pub const NULL: Self = Bounded { len: Self::NULL_LEN, bytes: [0; N] };

    /// Keeps as many whole characters of `text` as fit.
    pub fn new(text: Option<&str>) -> Self {
        let mut kept = Self::NULL;
        if let Some(text) = text {
            let end = text.floor_char_boundary(N);
            kept.bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
            kept.len = end as u16;
        }
        kept
    }

    pub fn get(&self) -> Option<&str> {
        if self.len == Self::NULL_LEN {
            return None;
        }
        self.bytes.get(..usize::from(self.len)).and_then(|b| std::str::from_utf8(b).ok())
    }
}

words! {
    /// What was attempted.
    AccessType {
        Store = "store", Decrypt = "decrypt", Validate = "validate", Rotate = "rotate", Rollback = "rollback",
        Activate = "activate", Deactivate = "deactivate", Update = "update", Delete = "delete", Rewrap = "rewrap",
        Import = "import", Export = "export", Block = "block", Unblock = "unblock", Report = "report",
        Adopt = "adopt", Project = "project", Member = "member", MasterKey = "master_key", Setting = "setting",
    }
}

words! {
    /// Why it was refused or did not succeed.
    FailureReason {
        NotFound = "not_found", NotAuthorized = "not_authorized", Inactive = "inactive", Deleted = "deleted",
        Blocked = "blocked", CallerBlocked = "caller_blocked", Compromised = "compromised",
        DamagedEnvelope = "damaged_envelope", UnknownMasterKey = "unknown_master_key",
        WrongMasterKey = "wrong_master_key", VersionConflict = "version_conflict", Limit = "limit",
        BadInput = "bad_input",
    }
}

words! {
    /// A caller is a database role, the subject of trusted claims, or a network address; one access
    /// has up to three.
    CallerKind { Role = "role", Subject = "subject", Address = "address" }
}

words! {
    /// How an attempt to open a key counts for it. An access was opened, or would have been but for
    /// a block; a failure failed for a reason of its own.
    Counted { Access = "access", Failure = "failure" }
}

impl Counted {
    /// None: it counts for no key. A caller without the right harms nobody's key by failing on it,
    /// and a master key that is lost or wrong is the vault's own fault: it must not block every key.
    /// SQL says the same in counts_as (sql/anomalies.sql), and nothing else says it.
    pub fn of(access_type: AccessType, failure: Option<FailureReason>) -> Option<Counted> {
        use FailureReason::*;
        if !matches!(access_type, AccessType::Decrypt | AccessType::Validate) {
            return None;
        }
        match failure {
            None | Some(Blocked | CallerBlocked) => Some(Counted::Access),
            Some(NotFound | NotAuthorized | UnknownMasterKey | WrongMasterKey) => None,
            Some(
                Inactive | Deleted | Compromised | DamagedEnvelope | VersionConflict | Limit
                | BadInput,
            ) => Some(Counted::Failure),
        }
    }
}

/// What the writer decided of one event, before the caller is answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Written and flushed: the answer may be given.
    Recorded,
    /// Written as refused, for this reason: nothing is disclosed.
    Refused(FailureReason),
    /// Not written: nothing is disclosed.
    NotRecorded,
}

impl Verdict {
    const RECORDED: u8 = 1;
    const NOT_RECORDED: u8 = 2;
    const REFUSED: u8 = 16;

    pub fn to_byte(self) -> u8 {
        match self {
            Verdict::Recorded => Self::RECORDED,
            Verdict::NotRecorded => Self::NOT_RECORDED,
            Verdict::Refused(reason) => Self::REFUSED + reason as u8,
        }
    }

    /// Anything that is not a known verdict counts as not recorded: fail closed.
    pub fn from_byte(byte: u8) -> Verdict {
        match byte {
            Self::RECORDED => Verdict::Recorded,
            b if b >= Self::REFUSED => FailureReason::ALL
                .get(usize::from(b - Self::REFUSED))
                .map_or(Verdict::NotRecorded, |&reason| Verdict::Refused(reason)),
            _ => Verdict::NotRecorded,
        }
    }
}

/// One access, as its own process saw it. Lengths in bytes.
#[derive(Clone, Copy)]
pub struct Event {
    pub id: EventId,
    pub accessed_at: Moment,
    pub project_id: Option<ProjectId>,
    pub provider_key_id: Option<ProviderKeyId>,
    pub provider: Bounded<63>,
    pub key_version: Option<i32>,
    pub access_type: AccessType,
    pub failure: Option<FailureReason>,
    pub attempt_count: i32,
    pub ip_address: Bounded<64>,
    pub user_agent: Bounded<256>,
    pub request_id: Bounded<128>,
    pub session_role: Bounded<63>,
    pub effective_role: Bounded<63>,
    pub role_setting: Bounded<63>,
    pub claims_sub: Bounded<128>,
    pub claims_trusted: bool,
    pub client_addr: Bounded<45>,
    pub backend_pid: i32,
    pub application_name: Bounded<63>,
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

    /// The same event, refused for `reason`.
    pub fn refused(mut self, reason: FailureReason) -> Event {
        self.failure = Some(reason);
        self
    }
}

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

    #[test]
    fn bounded_cuts_at_a_character() {
        assert_eq!(Bounded::<4>::new(Some("añño")).get(), Some("añ"));
        assert_eq!(Bounded::<3>::new(Some("日本")).get(), Some("日"));
        assert_eq!(Bounded::<2>::new(Some("日本")).get(), Some(""));
        assert_eq!(Bounded::<2>::new(None).get(), None);
    }

    #[test]
    fn verdicts_survive_shared_memory_and_unknown_bytes_fail_closed() {
        for &reason in FailureReason::ALL {
            let verdict = Verdict::Refused(reason);
            assert_eq!(Verdict::from_byte(verdict.to_byte()), verdict);
        }
        assert_eq!(Verdict::from_byte(Verdict::Recorded.to_byte()), Verdict::Recorded);
        for byte in [0, 2, 3, 15, 200, 255] {
            assert_eq!(Verdict::from_byte(byte), Verdict::NotRecorded);
        }
    }

    #[test]
    fn what_was_blocked_counts_as_an_access_and_the_vaults_own_fault_for_no_key() {
        let counts = Counted::of;
        for access_type in [AccessType::Decrypt, AccessType::Validate] {
            assert_eq!(counts(access_type, None), Some(Counted::Access));
            for (reason, counted) in [
                (FailureReason::Blocked, Some(Counted::Access)),
                (FailureReason::CallerBlocked, Some(Counted::Access)),
                (FailureReason::NotAuthorized, None),
                (FailureReason::NotFound, None),
                (FailureReason::UnknownMasterKey, None),
                (FailureReason::WrongMasterKey, None),
                (FailureReason::DamagedEnvelope, Some(Counted::Failure)),
            ] {
                assert_eq!(counts(access_type, Some(reason)), counted, "{reason:?}");
            }
        }
        assert_eq!(counts(AccessType::Rotate, None), None);
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
