//! Every error of the product: SQLSTATE, message, reason, hint. It never holds key material: the
//! fields are numbers, names of our own settings and redacted text. docs/reference.md says what
//! each SQLSTATE means (PostgREST maps them). A test checks the pages that hints name.

mod input;

use crate::trail::FailureReason;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::PgSqlErrorCode;

/// What went wrong, for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    NoSuchKey,
    NoSuchProject,
    NoSuchIncident,
    NoBlockedCaller,
    NoUsableKey,
    NoEarlierVersion,
    NoSuchVersion(i32),
    NotAuthorized(&'static str),
    VersionConflict { expected: i32, active: i32 },
    AlreadyThere(&'static str),
    BadInput(&'static str, &'static str),
    NoSuchColumn(String),
    UnfitColumn(String),
    NullInput(&'static str),
    OverLimit(String, &'static str),
    Blocked,
    CallerBlocked,
    Inactive,
    CompromisedVersion(i32),
    KnownLeaked,
    KnownBlocked,
    NotInstalled,
    NoSchemaRecord,
    OlderSchema { recorded: i32, needed: i32 },
    NewerSchema { recorded: i32, known: i32 },
    NoActiveMasterKey,
    VaultForgotten,
    Restoring,
    Refused(&'static str, &'static str),
    NotPreloaded,
    NoMasterKey(String),
    UnknownMasterKey(i32),
    WrongMasterKey(i32),
    ReloadRefused(Box<Error>),
    DamagedEnvelope,
    AuditUnavailable(String),
    Standby,
    ReadOnlyRequest,
    OwnTrail,
    PreparedChange,
    SilentTrigger(String),
    TooManyChanges(usize),
    OutOfMemory(&'static str),
    TooLarge(&'static str),
    Parallel,
    NotUtf8,
    Internal(String),
}

/// The answer of an SQL function.
pub(crate) type Answer<T> = Result<T, ErrorReport>;

impl Error {
    pub fn sqlstate(&self) -> PgSqlErrorCode {
        use Error::*;
        use PgSqlErrorCode::*;
        match self {
            NoSuchKey | NoSuchProject | NoSuchIncident | NoBlockedCaller | NoUsableKey
            | NoEarlierVersion | NoSuchVersion(_) => ERRCODE_NO_DATA,
            NotAuthorized(_) | Refused(..) => ERRCODE_INSUFFICIENT_PRIVILEGE,
            VersionConflict { .. } | AlreadyThere(_) => ERRCODE_UNIQUE_VIOLATION,
            BadInput(..) | UnfitColumn(_) => ERRCODE_INVALID_PARAMETER_VALUE,
            NoSuchColumn(_) => ERRCODE_UNDEFINED_COLUMN,
            NullInput(_) => ERRCODE_NULL_VALUE_NOT_ALLOWED,
            OverLimit(..) => ERRCODE_CHECK_VIOLATION,
            Blocked
            | CallerBlocked
            | Inactive
            | CompromisedVersion(_)
            | KnownLeaked
            | KnownBlocked => ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
            NotInstalled
            | NoActiveMasterKey
            | VaultForgotten
            | NoSchemaRecord
            | OlderSchema { .. }
            | NewerSchema { .. }
            | Restoring
            | NotPreloaded
            | NoMasterKey(_)
            | UnknownMasterKey(_)
            | SilentTrigger(_)
            | OwnTrail => ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            ReloadRefused(why) => why.sqlstate(),
            WrongMasterKey(_) => ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION,
            DamagedEnvelope => ERRCODE_DATA_CORRUPTED,
            AuditUnavailable(_) => ERRCODE_INSUFFICIENT_RESOURCES,
            OutOfMemory(_) => ERRCODE_OUT_OF_MEMORY,
            TooManyChanges(_) | TooLarge(_) => ERRCODE_PROGRAM_LIMIT_EXCEEDED,
            Standby | ReadOnlyRequest => ERRCODE_READ_ONLY_SQL_TRANSACTION,
            PreparedChange | Parallel | NotUtf8 => ERRCODE_FEATURE_NOT_SUPPORTED,
            Internal(_) => ERRCODE_INTERNAL_ERROR,
        }
    }

    /// Why, as one fixed word: the DETAIL of the error. What the trail records has the same word in
    /// `failure_reason`. A deleted key is told as one that never was.
    #[expect(clippy::too_many_lines, reason = "a table: a row for each error")]
    pub fn reason(&self) -> &'static str {
        use Error::*;
        let recorded = match self {
            NoSuchKey | NoSuchProject | NoSuchIncident | NoBlockedCaller | NoUsableKey
            | NoEarlierVersion | NoSuchVersion(_) => FailureReason::NotFound,
            NotAuthorized(_) | Refused(..) => FailureReason::NotAuthorized,
            VersionConflict { .. } => FailureReason::VersionConflict,
            AlreadyThere(_) => FailureReason::AlreadyExists,
            BadInput(..) | UnfitColumn(_) | NoSuchColumn(_) | NullInput(_) => {
                FailureReason::BadInput
            }
            OverLimit(..) | TooManyChanges(_) => FailureReason::Limit,
            Blocked | KnownBlocked => FailureReason::Blocked,
            CallerBlocked => FailureReason::CallerBlocked,
            Inactive => FailureReason::Inactive,
            CompromisedVersion(_) | KnownLeaked => FailureReason::Compromised,
            UnknownMasterKey(_) => FailureReason::UnknownMasterKey,
            WrongMasterKey(_) => FailureReason::WrongMasterKey,
            DamagedEnvelope => FailureReason::DamagedEnvelope,
            ReloadRefused(why) => return why.reason(),
            NotInstalled => return "not_installed",
            NoSchemaRecord => return "no_schema_record",
            OlderSchema { .. } => return "older_schema",
            NewerSchema { .. } => return "newer_schema",
            NoActiveMasterKey => return "no_active_master_key",
            VaultForgotten => return "vault_forgotten",
            Restoring => return "restoring",
            NotPreloaded => return "not_preloaded",
            NoMasterKey(_) => return "no_master_key",
            AuditUnavailable(_) => return "audit_unavailable",
            Standby => return "standby",
            ReadOnlyRequest => return "read_only_request",
            OwnTrail => return "own_trail",
            PreparedChange => return "prepared_change",
            SilentTrigger(_) => return "silent_trigger",
            OutOfMemory(_) => return "out_of_memory",
            TooLarge(_) => return "too_large",
            Parallel => return "parallel_query",
            NotUtf8 => return "not_utf8",
            Internal(_) => return "internal",
        };
        recorded.word()
    }

    #[expect(clippy::too_many_lines, reason = "a table: a row for each error")]
    pub fn message(&self) -> String {
        use Error::*;
        match self {
            NoSuchKey => "no such provider key".into(),
            NoSuchProject => "no such project".into(),
            NoSuchIncident => "no such incident".into(),
            NoBlockedCaller => "no such caller is blocked".into(),
            NoUsableKey => {
                "no such provider key: the project has no active key of this provider".into()
            }
            NoEarlierVersion => "no earlier version of this provider key can be used".into(),
            NoSuchVersion(v) => {
                format!("this provider key has no version {v} that still has its envelope")
            }
            NotAuthorized(what) => format!("not authorized to {what}"),
            VersionConflict { expected, active } => {
                format!("version conflict: expected active version {expected}, but it is {active}")
            }
            AlreadyThere(what) => format!("{what} already exists"),
            BadInput(message, _) => (*message).into(),
            NoSuchColumn(name) => format!("there is no column \"{name}\""),
            UnfitColumn(name) => {
                format!("column \"{name}\" is not of type text, varchar, json or jsonb")
            }
            NullInput(argument) => format!("{argument} must not be null"),
            OverLimit(message, _) => message.clone(),
            Blocked => "this provider key is blocked".into(),
            CallerBlocked => "this caller is blocked".into(),
            Inactive => "this provider key is not active".into(),
            CompromisedVersion(v) => {
                format!("version {v} of this provider key is marked compromised")
            }
            KnownLeaked => "this key is known to have leaked".into(),
            KnownBlocked => "this key is blocked in this project, under another name or id".into(),
            NotInstalled => "watchllm_keys is not installed in this database".into(),
            NoSchemaRecord => {
                "the tables of watchllm_keys are there, the record of their schema version is not"
                    .into()
            }
            OlderSchema { recorded, needed } => format!(
                "the tables of watchllm_keys are of schema version {recorded}, this library \
                 needs {needed}"
            ),
            NewerSchema { recorded, known } => format!(
                "the tables of watchllm_keys are of schema version {recorded}, this library knows \
                 only {known}"
            ),
            NoActiveMasterKey => "this database has no active master key".into(),
            VaultForgotten => {
                "the vault that this transaction changed is not known any more".into()
            }
            Restoring => {
                "watchllm_keys is not ready: its tables are there, their keys and triggers are not"
                    .into()
            }
            Refused(what, _) => (*what).into(),
            NotPreloaded => "watchllm_keys is not preloaded".into(),
            NoMasterKey(why) => format!("no master key is loaded: {why}"),
            UnknownMasterKey(v) => format!("master key version {v} is not in the keyring"),
            WrongMasterKey(v) => {
                format!("wrong master key: the secret of version {v} does not open its canary")
            }
            ReloadRefused(why) => {
                format!("the new keyring was refused, the one in use stays: {}", why.message())
            }
            DamagedEnvelope => {
                "the envelope of this provider key is damaged or does not belong here".into()
            }
            AuditUnavailable(why) => format!("the audit record could not be written: {why}"),
            Standby => "a hot standby cannot write the audit record".into(),
            ReadOnlyRequest => {
                "a request that opens or changes provider keys must not be read-only".into()
            }
            OwnTrail => "this transaction itself made or locked the audit trail".into(),
            PreparedChange => "a transaction that changed provider keys cannot be prepared".into(),
            SilentTrigger(trigger) => format!(
                "trigger \"{trigger}\" of watchllm_keys would not fire: \
                 session_replication_role is replica"
            ),
            TooManyChanges(most) => {
                format!("this transaction has changed more than {most} provider keys")
            }
            OutOfMemory(what) => format!("out of memory for {what}"),
            TooLarge(what) => format!("{what} is too large"),
            Parallel => "this function cannot be called in a parallel query".into(),
            NotUtf8 => "watchllm_keys needs a database with encoding UTF8".into(),
            Internal(what) => format!("watchllm_keys: {what}"),
        }
    }

    #[expect(clippy::too_many_lines, reason = "a table: a row for each error")]
    pub fn hint(&self) -> Option<&'static str> {
        use Error::*;
        Some(match self {
            NoSuchKey | NoSuchProject | NoSuchIncident | NoUsableKey | Internal(_) => return None,
            NoBlockedCaller => {
                "The table watchllm.blocked_callers shows who is blocked, by kind and subject. \
                 See docs/reference.md#unblock_caller."
            }
            NoEarlierVersion | NoSuchVersion(_) | CompromisedVersion(_) => {
                "Rotate to a new key with watchllm.rotate_provider_key(). \
                 See docs/reference.md#rotate_provider_key."
            }
            NotAuthorized(_) => {
                "Ask an administrator for the role that may do this. See docs/security.md#roles."
            }
            VersionConflict { .. } => {
                "Somebody else rotated it: read the key again before you rotate. \
                 See docs/reference.md#23505."
            }
            AlreadyThere(_) => "Choose another name, or another id. See docs/reference.md#23505.",
            BadInput(_, hint) | OverLimit(_, hint) | Refused(_, hint) => hint,
            NullInput(_) => "Give a value.",
            NoSuchColumn(_) => "Name columns of the table, as they are written in the catalog.",
            UnfitColumn(_) => "Name columns of these types themselves: no domains, no arrays.",
            KnownLeaked => {
                "Revoke it at the vendor, and store the new key that you make there. \
                 See docs/tenants.md#what-is-known-of-a-key."
            }
            KnownBlocked => {
                "An administrator can unblock the key that has it, also a deleted one: \
                 SELECT watchllm.unblock_provider_key(id, note); \
                 See docs/tenants.md#what-is-known-of-a-key."
            }
            Blocked => {
                "Only an administrator can unblock it: \
                 SELECT watchllm.unblock_provider_key(id, note); \
                 See docs/reference.md#unblock_provider_key."
            }
            CallerBlocked => {
                "Only an administrator can unblock it. See docs/reference.md#unblock_caller."
            }
            Inactive => {
                "Activate it with watchllm.set_provider_key_active(id, true). \
                 See docs/reference.md#set_provider_key_active."
            }
            NotInstalled => "Run: SELECT watchllm.install(); See docs/reference.md#install.",
            NoActiveMasterKey => {
                "Load the keyring again: SELECT watchllm.reload_keyring(); \
                 See docs/backup.md#the-keyring."
            }
            VaultForgotten => "Run the whole transaction again. See docs/reference.md#55000.",
            NoSchemaRecord => {
                "Restore the rows of watchllm.install_history too: pg_dump --schema-only leaves \
                 them out. See docs/reference.md#55000."
            }
            OlderSchema { .. } => {
                "An administrator must run: SELECT watchllm.install(); \
                 See docs/install.md#upgrade."
            }
            NewerSchema { .. } => {
                "Install the package of watchllm_keys that made them, or a newer one, and restart \
                 the server. See docs/install.md#upgrade."
            }
            Restoring => {
                "Wait until the restore has finished; then, if needed, run: \
                 SELECT watchllm.install(); \
                 See docs/backup.md#restore."
            }
            NotPreloaded => {
                "Add to postgresql.conf and restart: shared_preload_libraries = 'watchllm_keys'. \
                 See docs/install.md#3-the-settings."
            }
            NoMasterKey(_) => {
                "Set watchllm_keys.master_key_file or watchllm_keys.master_key_command, or mend \
                 what it names, then: SELECT watchllm.reload_keyring(); \
                 See docs/install.md#2-the-master-key."
            }
            UnknownMasterKey(_) => {
                "Put the line of this version back into the keyring, then: \
                 SELECT watchllm.reload_keyring(); See docs/backup.md#the-keyring."
            }
            WrongMasterKey(_) => {
                "Restore the secret this database was sealed under, then: \
                 SELECT watchllm.reload_keyring(); See docs/backup.md#the-keyring."
            }
            ReloadRefused(_) => {
                "Mend the file or command that the setting names, then: \
                 SELECT watchllm.reload_keyring(); See docs/backup.md#the-keyring."
            }
            DamagedEnvelope => {
                "Rotate the key, or restore its row from a backup. See docs/reference.md#xx001."
            }
            AuditUnavailable(_) => {
                "Nothing was disclosed or changed. See SELECT * FROM watchllm.status(), the server \
                 log and docs/troubleshooting.md#53000-the-record-could-not-be-written."
            }
            Standby => "Connect to the primary server. See docs/reference.md#25006.",
            ReadOnlyRequest => {
                "Send it as POST: what is answered to GET may be cached on its way. \
                 See docs/reference.md#25006."
            }
            OwnTrail => "Commit first. See docs/reference.md#55000.",
            PreparedChange => "Use an ordinary COMMIT. See docs/reference.md#0a000.",
            SilentTrigger(_) => {
                "Set session_replication_role to origin for this statement. On a table of yours: \
                 ALTER TABLE … ENABLE ALWAYS TRIGGER …; See docs/reference.md#55000."
            }
            TooManyChanges(_) => "Commit in between. See docs/reference.md#54000.",
            TooLarge(_) => "Give it in parts. See docs/reference.md#54000.",
            OutOfMemory(_) => "Give less at once. See docs/reference.md#53200.",
            Parallel => {
                "Declare the functions that call it PARALLEL UNSAFE. See docs/reference.md#0a000."
            }
            NotUtf8 => "Create the database with ENCODING 'UTF8'. See docs/install.md.",
        })
    }
}

impl From<Error> for ErrorReport {
    fn from(error: Error) -> ErrorReport {
        let report = ErrorReport::new(error.sqlstate(), error.message(), "watchllm_keys")
            .set_detail(error.reason());
        match error.hint() {
            Some(hint) => report.set_hint(hint),
            None => report,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Error::*;

    /// One row per error; SQLSTATEs and reasons are part of the contract (docs/reference.md).
    #[test]
    #[expect(clippy::too_many_lines, reason = "a table: a row for each error")]
    fn every_error_has_its_sqlstate_and_reason() {
        let rows = [
            (NoSuchKey, "02000", "not_found"),
            (NoSuchProject, "02000", "not_found"),
            (NoSuchIncident, "02000", "not_found"),
            (NoBlockedCaller, "02000", "not_found"),
            (NoUsableKey, "02000", "not_found"),
            (NoEarlierVersion, "02000", "not_found"),
            (NoSuchVersion(2), "02000", "not_found"),
            (NotAuthorized("decrypt"), "42501", "not_authorized"),
            (VersionConflict { expected: 1, active: 2 }, "23505", "version_conflict"),
            (AlreadyThere("a key of this name"), "23505", "already_exists"),
            (BadInput("bad", "do better"), "22023", "bad_input"),
            (NoSuchColumn("c".into()), "42703", "bad_input"),
            (UnfitColumn("c".into()), "22023", "bad_input"),
            (NullInput("id"), "22004", "bad_input"),
            (OverLimit("too many".into(), "fewer"), "23514", "limit"),
            (Blocked, "42000", "blocked"),
            (CallerBlocked, "42000", "caller_blocked"),
            (Inactive, "42000", "inactive"),
            (CompromisedVersion(1), "42000", "compromised"),
            (KnownLeaked, "42000", "compromised"),
            (KnownBlocked, "42000", "blocked"),
            (NotInstalled, "55000", "not_installed"),
            (NoSchemaRecord, "55000", "no_schema_record"),
            (OlderSchema { recorded: 1, needed: 2 }, "55000", "older_schema"),
            (NewerSchema { recorded: 3, known: 2 }, "55000", "newer_schema"),
            (NoActiveMasterKey, "55000", "no_active_master_key"),
            (VaultForgotten, "55000", "vault_forgotten"),
            (Restoring, "55000", "restoring"),
            (Refused("no", "ask"), "42501", "not_authorized"),
            (NotPreloaded, "55000", "not_preloaded"),
            (NoMasterKey("none".into()), "55000", "no_master_key"),
            (UnknownMasterKey(3), "55000", "unknown_master_key"),
            (WrongMasterKey(1), "28000", "wrong_master_key"),
            (ReloadRefused(Box::new(NoMasterKey("none".into()))), "55000", "no_master_key"),
            (ReloadRefused(Box::new(WrongMasterKey(1))), "28000", "wrong_master_key"),
            (DamagedEnvelope, "XX001", "damaged_envelope"),
            (AuditUnavailable("timeout".into()), "53000", "audit_unavailable"),
            (Standby, "25006", "standby"),
            (ReadOnlyRequest, "25006", "read_only_request"),
            (OwnTrail, "55000", "own_trail"),
            (PreparedChange, "0A000", "prepared_change"),
            (SilentTrigger("t".into()), "55000", "silent_trigger"),
            (TooManyChanges(1), "54000", "limit"),
            (OutOfMemory("the text"), "53200", "out_of_memory"),
            (TooLarge("the text"), "54000", "too_large"),
            (Parallel, "0A000", "parallel_query"),
            (NotUtf8, "0A000", "not_utf8"),
            (Internal("bug".into()), "XX000", "internal"),
        ];
        for (error, sqlstate, reason) in rows {
            let code = error.sqlstate() as i32;
            let text: String =
                (0..5).map(|i| char::from(((code >> (6 * i)) & 0x3f) as u8 + b'0')).collect();
            assert_eq!(text, sqlstate, "{error:?}");
            assert_eq!(error.reason(), reason, "{error:?}");
            assert!(!error.message().is_empty());
        }
    }
}
