//! Who is asking, and may they: the effective user and the privileges it has, the session behind it, the context
//! it gives. By database role; JWT claims count for nothing yet. Rules: DESIGN §5. No unsafe: reads come from
//! `acting_owner::session`.
#![forbid(unsafe_code)]

use crate::acting_owner::{Owner, session};
use crate::crypto::random;
use crate::error::Error;
use crate::redact;
use crate::store;
use crate::store::Id;
use crate::trail::{AccessType, Bounded, Event};
use pgrx::pg_sys;
use std::sync::OnceLock;

/// What a caller says of the request behind a call; None: taken from the transaction's settings.
#[derive(Clone, Copy, Default)]
pub struct Context<'a> {
    pub request_id: Option<&'a str>,
    pub ip_address: Option<&'a str>,
    pub user_agent: Option<&'a str>,
}

/// Who calls, judged once per call.
pub struct Caller {
    user: pg_sys::Oid,
    session_role: String,
    effective_role: String,
    request_id: Option<String>,
    ip_address: Option<String>,
    user_agent: Option<String>,
}

impl Caller {
    pub fn new(context: Context) -> Caller {
        let user = session::effective_user();
        let said = |given: Option<&str>, setting: &std::ffi::CStr, longest: usize| {
            given.map(str::to_owned).or_else(|| session::setting(setting)).map(|text| redact::clean(&text, longest))
        };
        Caller {
            user,
            session_role: session::role_name(session::session_user()).unwrap_or_default(),
            effective_role: session::role_name(user).unwrap_or_default(),
            request_id: said(context.request_id, c"watchllm.request_id", 128),
            ip_address: said(context.ip_address.map(first_hop), c"watchllm.ip_address", 64)
                .map(|addresses| first_hop(&addresses).to_owned()),
            user_agent: said(context.user_agent, c"watchllm.user_agent", 256),
        }
    }

    /// Open keys of any project: the trusted backend and administrators.
    pub fn may_open(&self) -> bool {
        self.is(c"watchllm_service") || self.may_administer()
    }

    /// Projects, members, master keys.
    pub fn may_administer(&self) -> bool {
        self.is(c"watchllm_admin")
    }

    /// Reports about the vault itself.
    pub fn may_audit(&self) -> bool {
        self.may_administer() || self.is(c"watchllm_auditor")
    }

    /// Whether this caller may change keys of the project; what it may not see is as if it did not exist.
    pub fn may_change(&self, owner: Owner, project: Id) -> Result<(), Error> {
        if self.may_open() {
            return Ok(());
        }
        if !self.is(c"watchllm_tenant") {
            return Err(Error::NotAuthorized("change provider keys"));
        }
        match store::admin::is_member(owner, project, self.user) {
            Some(true) => Ok(()),
            _ => Err(Error::NoSuchProject),
        }
    }

    /// Whether this caller may read metadata and history of the project.
    pub fn may_see(&self, owner: Owner, project: Id) -> bool {
        self.sees_everything() || store::admin::is_member(owner, project, self.user) == Some(true)
    }

    /// Staff and auditors see every project, and the database identity of callers.
    pub fn sees_everything(&self) -> bool {
        self.may_open() || self.is(c"watchllm_auditor")
    }

    pub fn user(&self) -> pg_sys::Oid {
        self.user
    }

    /// The role whose rights counted.
    pub fn effective_role(&self) -> &str {
        &self.effective_role
    }

    fn is(&self, role: &std::ffi::CStr) -> bool {
        session::has_privileges_of(self.user, role)
    }

    /// An event of this caller, of now, about nothing yet.
    pub fn event(&self, access_type: AccessType) -> Result<Event, Error> {
        let application = session::setting(c"application_name").map(|name| redact::clean(&name, 63));
        Ok(Event {
            id: new_id()?,
            accessed_at: session::now(),
            project_id: None,
            provider_key_id: None,
            provider: Bounded::NULL,
            key_version: None,
            access_type,
            failure: None,
            attempt_count: 1,
            ip_address: Bounded::new(self.ip_address.as_deref()),
            user_agent: Bounded::new(self.user_agent.as_deref()),
            request_id: Bounded::new(self.request_id.as_deref()),
            session_role: Bounded::new(Some(&self.session_role)),
            effective_role: Bounded::new(Some(&self.effective_role)),
            role_setting: Bounded::new(session::setting(c"role").as_deref()),
            claims_sub: Bounded::NULL,
            claims_trusted: false,
            client_addr: Bounded::new(client_address()),
            backend_pid: session::backend_pid(),
            application_name: Bounded::new(application.as_deref()),
            txid: session::transaction_id(),
            compromised: false,
        })
    }
}

/// The first address of a forwarded-for list: the client; the rest are proxies.
fn first_hop(addresses: &str) -> &str {
    let nearest = redact::cut(addresses, 16_384);
    nearest.split(',').next().unwrap_or(nearest).trim()
}

/// A random uuid (RFC 9562, version 4).
pub fn new_id() -> Result<Id, Error> {
    let mut id = random::random_bytes::<16>().map_err(|error| Error::Internal(error.to_string()))?;
    (id[6], id[8]) = (id[6] & 0x0f | 0x40, id[8] & 0x3f | 0x80);
    Ok(id)
}

/// The network address of this session's client; it never changes within a process.
fn client_address() -> Option<&'static str> {
    static ADDRESS: OnceLock<Option<String>> = OnceLock::new();
    ADDRESS.get_or_init(store::trail::client_address).as_deref()
}
