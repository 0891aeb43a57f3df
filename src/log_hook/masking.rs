//! Masks keys in bytes in place, and reports each key to the writer. A key is reported once per
//! statement. The same process reports the same key at most once in ten seconds.

use crate::audit::queue::leaks;
use crate::blanks;
use crate::extra_patterns;
use crate::moment::Span;
use crate::postgres::clock::moment;
use crate::postgres::{origin, session};
use crate::redact::{self, Ends, Finding};
use crate::trail::{Channel, Leak};
use pgrx::pg_sys;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

/// A process reports the same key once in so many microseconds. In between it counts.
const A_WHILE: i64 = Span::seconds(10).micros();
/// The number of keys whose last report a process remembers.
const REMEMBERED: usize = 32;

// SAFETY: PostgreSQL's own functions, with exactly these signatures. They only read a variable and
// the clock, so they need none of pgrx's wrappers, which catch errors.
unsafe extern "C" {
    safe fn GetCurrentStatementStartTimestamp() -> i64;
    safe fn GetCurrentTimestamp() -> i64;
}

/// PostgreSQL writes this where it cuts a text.
const DOTS: &[u8] = b"...";

/// What is reported about a key. `key_hash` is None if there is no writer to report to.
#[derive(Clone, Copy)]
pub(super) struct MaskedKey {
    pub provider: Option<&'static str>,
    pub kind: &'static str,
    pub key_hash: Option<u64>,
}

/// This process's last report of a key.
struct LastReport {
    pid: AtomicI32,
    key_hash: AtomicU64,
    statement: AtomicI64,
    at: AtomicI64,
    /// How many other statements held it since then.
    count: AtomicU32,
}

static LAST: [LastReport; REMEMBERED] = [const {
    LastReport {
        pid: AtomicI32::new(0),
        key_hash: AtomicU64::new(0),
        statement: AtomicI64::new(0),
        at: AtomicI64::new(0),
        count: AtomicU32::new(0),
    }
}; REMEMBERED];

/// When the running statement began.
pub(super) fn statement_start() -> i64 {
    GetCurrentStatementStartTimestamp()
}

/// Whether there is a key in the bytes.
pub(super) fn holds_key(bytes: &[u8]) -> bool {
    findings(bytes).next().is_some()
}

/// The keys in the bytes: first by the rules, then by the setting's extra patterns, each in order.
pub(super) fn findings(bytes: &[u8]) -> impl Iterator<Item = Finding> + '_ {
    let extra = extra_patterns::in_force().into_iter().flat_map(|extra| extra.findings(bytes));
    redact::findings_in(bytes, Ends::Whole).chain(extra)
}

/// Masks every key and reports it. Answers how many there were.
pub(super) fn mask(bytes: &mut [u8], ends: Ends, channel: Channel) -> usize {
    mask_each(bytes, ends, &mut |key, text| report(&MaskedKey::of(key, text), channel))
}

/// Masks every key without a report. Passing a key to us is no leak, and a further copy of a text
/// is reported with the first.
pub(super) fn mask_silently(bytes: &mut [u8], ends: Ends) -> usize {
    mask_each(bytes, ends, &mut |_, _| ())
}

/// Masks every key, and calls `found` with it before. A text that may have been cut is masked a
/// second time, up to each cut. A cut is the text's end or a `...`; a key before it may be shorter
/// than its rule asks for.
pub(super) fn mask_each(
    bytes: &mut [u8],
    ends: Ends,
    found: &mut dyn FnMut(&Finding, &[u8]),
) -> usize {
    let mut count = redact::mask_each(bytes, Ends::Whole, found);
    count += extra_patterns::in_force().map_or(0, |extra| extra.mask_each(bytes, found));
    if ends == Ends::Whole {
        return count;
    }
    let mut from = 0;
    while let Some(cut) = bytes[from..].windows(DOTS.len()).position(|part| part == DOTS) {
        count += redact::mask_each(&mut bytes[from..from + cut], Ends::Cut, found);
        from += cut + DOTS.len();
    }
    count + redact::mask_each(&mut bytes[from..], Ends::Cut, found)
}

/// Masks a copy in the same places as `masked`. The copy may be shorter. False: it is the copy of
/// another text.
pub(super) fn follow(copy: &mut [u8], masked: &[u8]) -> bool {
    let pairs = || copy.iter().zip(masked);
    let hides = |byte: u8| byte == b'*' || blanks::is_blank(byte);
    let same = copy.len() <= masked.len()
        && pairs().all(|(ours, theirs)| ours == theirs || hides(*theirs));
    if same {
        copy.copy_from_slice(&masked[..copy.len()]);
    }
    same
}

impl MaskedKey {
    /// Describes a finding, with the hash of its bytes.
    pub(super) fn of(finding: &Finding, bytes: &[u8]) -> MaskedKey {
        MaskedKey { provider: finding.provider, kind: finding.kind, key_hash: leaks::hash(bytes) }
    }
}

/// Reports a key to the writer, unless this process has just reported it.
pub(super) fn report(key: &MaskedKey, channel: Channel) {
    let Some(key_hash) = key.key_hash else { return };
    let (pid, statement, now) = (my_pid(), statement_start(), GetCurrentTimestamp());
    // A key in the catalog stays visible, so it is an incident apart from a masked key.
    let slot = if channel == Channel::Catalog { key_hash ^ 1 } else { key_hash };
    let last = &LAST[slot as usize % REMEMBERED];
    let known = last.pid.load(Relaxed) == pid && last.key_hash.load(Relaxed) == slot;
    if known && last.statement.load(Relaxed) == statement {
        return;
    }
    let waiting = if known { last.count.load(Relaxed) } else { 0 };
    last.statement.store(statement, Relaxed);
    if known && (0..A_WHILE).contains(&(now - last.at.load(Relaxed))) {
        last.count.store(waiting.saturating_add(1), Relaxed);
        return;
    }
    last.pid.store(pid, Relaxed);
    last.key_hash.store(slot, Relaxed);
    last.at.store(now, Relaxed);
    last.count.store(0, Relaxed);
    leaks::push(Leak {
        database: session::database().to_u32(),
        backend_pid: pid,
        origin: origin(),
        channel,
        provider: key.provider,
        kind: key.kind,
        key_hash,
        statement_start: moment(statement),
        at: moment(now),
        count: waiting.saturating_add(1),
    });
}

fn my_pid() -> i32 {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::MyProcPid }
}
