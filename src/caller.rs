//! Who calls, and what the caller may do: the effective user and its privileges, the session behind
//! it, the JWT claims of the request and whether they count. Also the context of the call and the
//! caller's own projects. No unsafe: `postgres::session` reads the session, and the room `input`
//! parses the request's texts (docs/architecture.md#roles).
#![forbid(unsafe_code)]

use crate::crypto::random;
use crate::error::Error;
use crate::id::{Id, ProjectId};
use crate::input::{
    ApplicationName, ChangedBy, ClaimedSubject, ClaimsSub, Headers, IpAddress, RequestId, UserAgent,
};
use crate::postgres::{Owner, clock, process, session};
use crate::settings;
use crate::store;
use crate::store::Projects;
use crate::trail::{AccessType, Bounded, Event};
use pgrx::pg_sys;
use std::ffi::CStr;
use std::sync::OnceLock;

/// What a caller says about the request behind a call. None: the value comes from the transaction's
/// settings, or else from the headers of a trusted session's request.
#[derive(Clone, Copy, Default)]
pub(crate) struct Context<'a> {
    pub request_id: Option<&'a str>,
    pub ip_address: Option<&'a str>,
    pub user_agent: Option<&'a str>,
}

/// Who calls; determined once per call.
pub(crate) struct Caller {
    user: pg_sys::Oid,
    session_role: String,
    effective_role: String,
    /// The `sub` that the session's settings claim. Any SQL session can set it.
    claimed_subject: Option<ClaimedSubject>,
    /// Whether claims count in this session.
    claims_trusted: bool,
    request_id: Option<RequestId>,
    ip_address: Option<IpAddress>,
    user_agent: Option<UserAgent>,
}

impl Caller {
    pub(crate) fn new(context: Context) -> Caller {
        let user = session::effective_user();
        let session_role = session::role_name(session::session_user()).unwrap_or_default();
        let claims_trusted = settings::trusts_claims_of(&session_role);
        // Only a session whose claims count may also say where a request comes from.
        let headers = session::setting(c"request.headers").filter(|_| claims_trusted);
        let headers = headers.map(|json| Headers::parse(&json)).unwrap_or_default();
        let said = |given: Option<&str>, setting: &CStr, header: Option<String>| {
            given.map(str::to_owned).or_else(|| session::setting(setting)).or(header)
        };
        let request_id = said(context.request_id, c"watchllm.request_id", headers.request_id);
        let ip_address = said(context.ip_address, c"watchllm.ip_address", headers.ip_address);
        let user_agent = said(context.user_agent, c"watchllm.user_agent", headers.user_agent);
        Caller {
            user,
            effective_role: session::role_name(user).unwrap_or_default(),
            claimed_subject: session::setting(c"request.jwt.claims")
                .and_then(|json| ClaimedSubject::of_claims(&json)),
            claims_trusted,
            session_role,
            request_id: request_id.as_deref().map(RequestId::clean),
            ip_address: ip_address.as_deref().map(IpAddress::first_of),
            user_agent: user_agent.as_deref().map(UserAgent::clean),
        }
    }

    /// May open keys of any project: the trusted backend and administrators.
    pub(crate) fn may_open(&self) -> bool {
        self.is(c"watchllm_service") || self.may_administer()
    }

    /// May administer projects, members and master keys.
    pub(crate) fn may_administer(&self) -> bool {
        self.is(c"watchllm_admin")
    }

    /// May have the server read its files: superusers, and the roles that PostgreSQL allows it.
    pub(crate) fn may_read_files(&self) -> bool {
        self.is(c"pg_read_server_files")
    }

    /// May read reports about the vault itself.
    pub(crate) fn may_audit(&self) -> bool {
        self.may_administer() || self.is(c"watchllm_auditor")
    }

    /// May see every project and the database identity of callers: staff and auditors.
    pub(crate) fn sees_everything(&self) -> bool {
        self.may_open() || self.is(c"watchllm_auditor")
    }

    /// Whether this call belongs to a request whose claims count, as PostgREST's do.
    pub(crate) fn is_request(&self) -> bool {
        self.claims_trusted
    }

    /// The caller's own projects: by the subject of trusted claims, or by a role whose privileges
    /// the caller has.
    pub(crate) fn own_projects(&self, owner: Owner) -> Vec<ProjectId> {
        store::projects::own_projects(owner, self.user, self.subject())
    }

    /// The projects whose keys this caller may change.
    pub(crate) fn may_change(&self, owner: Owner) -> Result<Projects, Error> {
        if self.may_open() {
            Ok(Projects::Every)
        } else if self.is(c"watchllm_tenant") {
            Ok(Projects::Own(self.own_projects(owner)))
        } else {
            Err(Error::NotAuthorized("change provider keys"))
        }
    }

    /// The projects whose metadata and history this caller may read.
    pub(crate) fn may_see(&self, owner: Owner) -> Projects {
        if self.sees_everything() {
            Projects::Every
        } else {
            Projects::Own(self.own_projects(owner))
        }
    }

    /// The name recorded for a change: the subject of trusted claims, or else the role whose rights
    /// counted.
    pub(crate) fn changes_as(&self) -> ChangedBy<'_> {
        ChangedBy::cut(self.subject().map_or(&self.effective_role, ClaimedSubject::as_str))
    }

    /// The subject of claims that count.
    fn subject(&self) -> Option<&ClaimedSubject> {
        self.claimed_subject.as_ref().filter(|_| self.claims_trusted)
    }

    fn is(&self, role: &CStr) -> bool {
        session::has_privileges_of(self.user, role)
    }

    /// An event of this caller at this moment. The function called adds what it is about.
    pub(crate) fn event(&self, access_type: AccessType) -> Result<Event, Error> {
        let application =
            session::setting(c"application_name").map(|name| ApplicationName::clean(&name));
        let claims_sub = self.claimed_subject.as_ref().map(ClaimedSubject::shown);
        Ok(Event {
            id: new_id()?,
            accessed_at: clock::now(),
            project_id: None,
            provider_key_id: None,
            provider: Bounded::NULL,
            key_version: None,
            access_type,
            failure: None,
            attempt_count: 1,
            ip_address: IpAddress::bounded(self.ip_address.as_ref()),
            user_agent: UserAgent::bounded(self.user_agent.as_ref()),
            request_id: RequestId::bounded(self.request_id.as_ref()),
            session_role: Bounded::new(Some(&self.session_role)),
            effective_role: Bounded::new(Some(&self.effective_role)),
            role_setting: Bounded::new(session::setting(c"role").as_deref()),
            claims_sub: ClaimsSub::bounded(claims_sub.as_ref()),
            claims_trusted: self.claims_trusted && self.claimed_subject.is_some(),
            client_addr: Bounded::new(client_address()),
            backend_pid: process::backend_pid(),
            application_name: ApplicationName::bounded(application.as_ref()),
            txid: session::transaction_id(),
            compromised: false,
            last_used_at: None,
            about_caller: None,
        })
    }
}

/// A random uuid (RFC 9562, version 4).
pub(crate) fn new_id<T: Id>() -> Result<T, Error> {
    let mut id =
        random::random_bytes::<16>().map_err(|error| Error::Internal(error.to_string()))?;
    (id[6], id[8]) = (id[6] & 0x0f | 0x40, id[8] & 0x3f | 0x80);
    Ok(T::from_bytes(id))
}

/// The network address of this session's client; it never changes within a process.
fn client_address() -> Option<&'static str> {
    static ADDRESS: OnceLock<Option<String>> = OnceLock::new();
    ADDRESS.get_or_init(store::trail::client_address).as_deref()
}
