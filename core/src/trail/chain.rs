//! The hash chain of the audit trail: each row's hash covers the row before it. Pure. hash =
//! HMAC-SHA256(MAC key, previous hash ‖ 0x01 ‖ every other column in table order), DESIGN §11: each
//! column is u32 big-endian length ‖ bytes, NULL is length 0xFFFFFFFF. RFC 2104.

use crate::id::IdentityId;
use crate::trail::Event;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// The hash before the first row.
pub const FIRST: [u8; 32] = [0; 32];

/// The format of a chained row.
const ROW_FORMAT: u8 = 1;

/// The audit MAC key: 32 bytes, wiped when dropped, without Debug.
pub struct MacKey(Zeroizing<[u8; 32]>);

impl MacKey {
    pub fn new(bytes: &[u8]) -> Option<MacKey> {
        bytes.try_into().ok().map(|b: [u8; 32]| MacKey(Zeroizing::new(b)))
    }
}

/// One row of the trail: an event and what the writer adds to it.
pub struct Row<'a> {
    pub event: &'a Event,
    pub seq: i64,
    pub epoch: i64,
    pub queue_seq: i64,
    pub identity_id: IdentityId,
    pub chain_key_version: i32,
}

/// Computes the hash of `row` after `previous`.
pub fn hash(key: &MacKey, previous: &[u8; 32], row: &Row<'_>) -> [u8; 32] {
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(key.0.as_slice()) else { return FIRST };
    let mut columns = Columns(mac);
    columns.0.update(previous);
    columns.0.update(&[ROW_FORMAT]);
    columns.row(row);
    columns.0.finalize().into_bytes().into()
}

struct Columns(Hmac<Sha256>);

impl Columns {
    fn row(&mut self, row: &Row<'_>) {
        let e = row.event;
        self.bytes(Some(&row.seq.to_be_bytes()));
        self.bytes(Some(e.id.bytes()));
        self.bytes(Some(&e.accessed_at.to_be_bytes()));
        self.bytes(e.project_id.as_ref().map(|id| id.bytes().as_slice()));
        self.bytes(e.provider_key_id.as_ref().map(|id| id.bytes().as_slice()));
        self.text(e.provider.get());
        self.bytes(e.key_version.map(i32::to_be_bytes).as_ref().map(|v| v.as_slice()));
        self.text(Some(e.access_type.word()));
        self.bytes(Some(&[u8::from(e.success())]));
        self.text(e.failure.map(|reason| reason.word()));
        self.bytes(Some(&e.attempt_count.to_be_bytes()));
        self.text(e.ip_address.get());
        self.text(e.user_agent.get());
        self.text(e.request_id.get());
        self.text(e.session_role.get());
        self.text(e.effective_role.get());
        self.text(e.role_setting.get());
        self.text(e.claims_sub.get());
        self.bytes(Some(&[u8::from(e.claims_trusted)]));
        self.text(e.client_addr.get());
        self.bytes(Some(&e.backend_pid.to_be_bytes()));
        self.text(e.application_name.get());
        self.bytes(e.txid.map(u64::to_be_bytes).as_ref().map(|v| v.as_slice()));
        self.bytes(Some(&row.epoch.to_be_bytes()));
        self.bytes(Some(&row.queue_seq.to_be_bytes()));
        self.bytes(Some(row.identity_id.bytes()));
        self.bytes(Some(&row.chain_key_version.to_be_bytes()));
    }

    fn text(&mut self, text: Option<&str>) {
        self.bytes(text.map(str::as_bytes));
    }

    fn bytes(&mut self, bytes: Option<&[u8]>) {
        match bytes {
            Some(bytes) => {
                self.0.update(&(bytes.len() as u32).to_be_bytes());
                self.0.update(bytes);
            }
            None => self.0.update(&u32::MAX.to_be_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trail::event::tests::event;
    use crate::trail::{AccessType, Bounded, FailureReason};

    fn hashed(change: impl Fn(&mut Event), seq: i64, previous: [u8; 32]) -> [u8; 32] {
        let mut e = event();
        change(&mut e);
        let row = Row {
            event: &e,
            seq,
            epoch: 5,
            queue_seq: 6,
            identity_id: IdentityId::new([9; 16]),
            chain_key_version: 1,
        };
        hash(&MacKey::new(&[8; 32]).unwrap(), &previous, &row)
    }

    /// Computed by itself from the rule above, with Python's hmac: what is in the databases of
    /// people must go on to verify, so these bytes never change.
    const KNOWN: [&str; 2] = [
        "5ea7cc36194f1878af5326a7517f855d6d255105593c6ffa3ce71636a74ec176",
        "459e33f57f8001d78d5dc68df1982e14ee427ca8e0c3e5f320534ef1915ad321",
    ];

    fn hex(bytes: [u8; 32]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// A row with a value in every column, and one with NULL wherever a column may be NULL.
    #[test]
    fn the_hash_of_known_rows_stays() {
        let key = MacKey::new(&[8; 32]).unwrap();
        let row = |event, seq, queue_seq| Row {
            event,
            seq,
            epoch: 1_700_000_000,
            queue_seq,
            identity_id: [0x44; 16],
            chain_key_version: 2,
        };
        let full = Event {
            id: [0x11; 16],
            accessed_at: 1_700_000_000_123_456,
            project_id: Some([0x22; 16]),
            provider_key_id: Some([0x33; 16]),
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
        };
        let first = hash(&key, &FIRST, &row(&full, 42, 6));
        let empty = Event {
            id: [0x12; 16],
            accessed_at: -1,
            project_id: None,
            provider_key_id: None,
            provider: Bounded::NULL,
            key_version: None,
            access_type: AccessType::Store,
            user_agent: Bounded::NULL,
            role_setting: Bounded::NULL,
            application_name: Bounded::NULL,
            ..event()
        };
        let second = hash(&key, &first, &row(&empty, 43, 7));
        assert_eq!([hex(first), hex(second)], KNOWN);
    }

    #[test]
    fn a_changed_field_changes_the_hash() {
        let plain = hashed(|_| (), 1, FIRST);
        assert_eq!(plain, hashed(|_| (), 1, FIRST));
        assert_ne!(plain, hashed(|_| (), 2, FIRST));
        assert_ne!(plain, hashed(|_| (), 1, [1; 32]));
        assert_ne!(plain, hashed(|e| e.failure = Some(FailureReason::NotFound), 1, FIRST));
        assert_ne!(plain, hashed(|e| e.claims_trusted = true, 1, FIRST));
        assert_ne!(plain, hashed(|e| e.txid = Some(0), 1, FIRST));
    }

    #[test]
    fn text_cannot_slide_between_columns() {
        let left = hashed(
            |e| (e.ip_address, e.user_agent) = (Bounded::new(Some("ab")), Bounded::new(Some("c"))),
            1,
            FIRST,
        );
        let right = hashed(
            |e| (e.ip_address, e.user_agent) = (Bounded::new(Some("a")), Bounded::new(Some("bc"))),
            1,
            FIRST,
        );
        assert_ne!(left, right);
        let empty = hashed(|e| e.ip_address = Bounded::new(Some("")), 1, FIRST);
        assert_ne!(empty, hashed(|e| e.ip_address = Bounded::NULL, 1, FIRST));
    }
}
