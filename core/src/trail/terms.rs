//! What an event of the trail is made of: bounded text, and the words that tables and people know.
//! Text arrives here already redacted; `Bounded` only cuts. docs/reference.md explains each word.

/// Text of at most `N` bytes, or NULL, stored in place.
#[derive(Clone, Copy)]
pub struct Bounded<const N: usize> {
    len: u16,
    bytes: [u8; N],
}

impl<const N: usize> Bounded<N> {
    const NULL_LEN: u16 = u16::MAX;
    /// No text.
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

    /// The text; None: NULL.
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
        Store = "store", Decrypt = "decrypt", Validate = "validate", Rotate = "rotate",
        Rollback = "rollback", Activate = "activate", Deactivate = "deactivate", Update = "update",
        Delete = "delete", Rewrap = "rewrap", Import = "import", Export = "export", Block = "block",
        Unblock = "unblock", Report = "report", Adopt = "adopt", Project = "project",
        Member = "member", MasterKey = "master_key", Setting = "setting",
    }
}

words! {
    /// Why it was refused or did not succeed.
    FailureReason {
        NotFound = "not_found", NotAuthorized = "not_authorized", Inactive = "inactive",
        Deleted = "deleted", Blocked = "blocked", CallerBlocked = "caller_blocked",
        Compromised = "compromised", DamagedEnvelope = "damaged_envelope",
        UnknownMasterKey = "unknown_master_key", WrongMasterKey = "wrong_master_key",
        VersionConflict = "version_conflict", Limit = "limit", BadInput = "bad_input",
        AlreadyExists = "already_exists",
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
    /// None: it counts for no key. A caller without the right harms nobody's key by failing on it.
    /// A master key that is lost or wrong is the vault's own fault, and must not block every key.
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
                | BadInput | AlreadyExists,
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

    /// The byte that stands for it in shared memory.
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

#[cfg(test)]
mod tests {
    use super::*;

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
}
