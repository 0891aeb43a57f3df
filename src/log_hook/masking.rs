//! Masks keys in bytes where they lie, and leaves word of each for the writer: once per statement,
//! and not more than once in a while for the same key of the same process.

use crate::audit::queue::leaks;
use crate::extra_patterns;
use crate::moment::Span;
use crate::postgres::clock::moment;
use crate::redact::{self, Ends, Finding};
use crate::trail::{Channel, Leak};
use pgrx::pg_sys;
use std::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64, Ordering::Relaxed};

/// Microseconds within which a process reports the same key once; meanwhile it is counted.
const A_WHILE: i64 = Span::seconds(10).micros();
/// Keys whose last report a process remembers.
const REMEMBERED: usize = 32;

// SAFETY: PostgreSQL's own functions, with these very signatures. Not by pgrx, whose wrappers are
// for what may fail: these read a variable and the clock.
unsafe extern "C" {
    safe fn GetCurrentStatementStartTimestamp() -> i64;
    safe fn GetCurrentTimestamp() -> i64;
}

/// What stands where a text was cut.
const DOTS: &[u8] = b"...";

/// What is told of a key. `run` is its hash; None where there is nobody to tell.
#[derive(Clone, Copy)]
pub(super) struct MaskedKey {
    pub provider: Option<&'static str>,
    pub kind: &'static str,
    pub run: Option<u64>,
}

/// When a key was last reported by this process.
struct LastReport {
    pid: AtomicI32,
    run: AtomicU64,
    statement: AtomicI64,
    at: AtomicI64,
    /// How often it was masked since, in other statements.
    count: AtomicU32,
}

static LAST: [LastReport; REMEMBERED] = [const {
    LastReport {
        pid: AtomicI32::new(0),
        run: AtomicU64::new(0),
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

/// The keys in the bytes: by the rules, then by the setting's extra patterns, in order each.
pub(super) fn findings(bytes: &[u8]) -> impl Iterator<Item = Finding> + '_ {
    let extra = extra_patterns::in_force().into_iter().flat_map(|extra| extra.findings(bytes));
    redact::findings_in(bytes, Ends::Whole).chain(extra)
}

/// Masks every key; how many there were.
pub(super) fn mask(bytes: &mut [u8], ends: Ends, channel: Channel) -> usize {
    mask_each(bytes, ends, &mut |key, text| report(&MaskedKey::of(key, text), channel))
}

/// Masks every key without a word: it stands in sight, but did not get there by itself.
pub(super) fn mask_silently(bytes: &mut [u8], ends: Ends) -> usize {
    mask_each(bytes, ends, &mut |_, _| ())
}

/// Masks every key, and says first what it is. A text that may have been cut is masked twice:
/// whole, and up to where it was cut, which is its end and what reads `...`, where a key is shorter
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

/// Blanks what may be a value in a statement that passes a key in a shape nobody knows: from its
/// first literal on no letter or digit stays. Quotes and lengths do, so that it still reads as a
/// statement.
pub(super) fn blank_values(bytes: &mut [u8]) -> bool {
    let opens = |at: usize, byte: u8| {
        byte == b'\'' || byte == b'$' && bytes.get(at + 1).is_none_or(|next| !next.is_ascii_digit())
    };
    let Some(first) = bytes.iter().enumerate().position(|(at, byte)| opens(at, *byte)) else {
        return false;
    };
    let values = bytes[first..].iter_mut();
    values
        .filter(|byte| byte.is_ascii_alphanumeric() || **byte >= 0x80)
        .for_each(|byte| *byte = b'*');
    true
}

/// Copies what was masked in a text to a copy of that text, which may be shorter; false: it is the
/// copy of another.
pub(super) fn follow(copy: &mut [u8], masked: &[u8]) -> bool {
    let pairs = || copy.iter().zip(masked);
    let same = copy.len() <= masked.len()
        && pairs().all(|(ours, theirs)| ours == theirs || *theirs == b'*');
    if same {
        copy.copy_from_slice(&masked[..copy.len()]);
    }
    same
}

impl MaskedKey {
    /// What a finding is, and the hash of its bytes.
    pub(super) fn of(finding: &Finding, bytes: &[u8]) -> MaskedKey {
        MaskedKey { provider: finding.provider, kind: finding.kind, run: leaks::hash(bytes) }
    }
}

/// Leaves word of a key, unless this process has just done so.
pub(super) fn report(key: &MaskedKey, channel: Channel) {
    let Some(run) = key.run else { return };
    let (pid, statement, now) = (my_pid(), statement_start(), GetCurrentTimestamp());
    // What stays in the catalog is another incident than what was masked.
    let slot = if channel == Channel::Catalog { run ^ 1 } else { run };
    let last = &LAST[slot as usize % REMEMBERED];
    let known = last.pid.load(Relaxed) == pid && last.run.load(Relaxed) == slot;
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
    last.run.store(slot, Relaxed);
    last.at.store(now, Relaxed);
    last.count.store(0, Relaxed);
    let (database, role) = who();
    leaks::push(Leak {
        database,
        backend_pid: pid,
        role,
        channel,
        provider: key.provider,
        kind: key.kind,
        run,
        statement_start: moment(statement),
        at: moment(now),
        count: waiting.saturating_add(1),
    });
}

fn my_pid() -> i32 {
    // SAFETY: reads a process-local variable.
    unsafe { pg_sys::MyProcPid }
}

/// Database and role of this process; 0 where it has none.
fn who() -> (u32, u32) {
    // SAFETY: process-local variables; the entry lies in shared memory, which is there
    // (`leaks::hash` answered), and is this process's own.
    unsafe {
        let entry = pg_sys::MyBEEntry;
        let role = if entry.is_null() { 0 } else { (*entry).st_userid.to_u32() };
        (pg_sys::MyDatabaseId.to_u32(), role)
    }
}
