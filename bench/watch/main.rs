//! What the watch costs: processor time and memory, over a million accesses of 50,000 keys by
//! 10,000 callers of each kind. Compiled by itself from the rooms it measures (bench/watch.sh), so
//! that nothing else is counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Instant;
use watchllm_core::anomaly::{Detector, KeyAccess, Rules, Watch};
use watchllm_core::id::{KeyRef, ProjectId, ProviderKeyId};
use watchllm_core::moment::Moment;
use watchllm_core::trail::{AccessType, Counted};

/// Bytes that are allocated now, as asked for.
static ALLOCATED: AtomicUsize = AtomicUsize::new(0);

struct Counting;

// SAFETY: hands every call on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATED.fetch_add(layout.size(), Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const KEYS: u32 = 50_000;
const CALLERS: u32 = 10_000;
const EVENTS: u32 = 1_000_000;

fn key(number: u32) -> KeyRef {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    KeyRef { project: ProjectId::new([1; 16]), key: ProviderKeyId::new(id) }
}

/// Pseudo-random, the same in every run.
fn next(state: &mut u64) -> u32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) as u32
}

/// Nanoseconds of processor time of one access, of so many keys and callers.
fn cost(keys: u32, callers: u32) -> f64 {
    let names: Vec<[String; 3]> = (0..callers)
        .map(|i| {
            [format!("role_{i}"), format!("subject-{i}"), format!("10.0.{}.{}", i >> 8, i & 255)]
        })
        .collect();
    let mut watch = Watch::default();
    // Nobody is over a limit: what is measured is the counting.
    let mut rules = Rules::default();
    rules.base = rules.base.with(Detector::MassReading, KEYS);
    watch.set_rules(rules);
    let mut state = 1;
    let mut run = |watch: &mut Watch, first: u32| {
        let began = Instant::now();
        for i in first..first + EVENTS {
            let [role, subject, address] = &names[(next(&mut state) % callers) as usize];
            let callers = [Some(role.as_str()), Some(subject.as_str()), Some(address.as_str())];
            let access = KeyAccess {
                at: Moment::new(i64::from(i) * 1_000),
                key: key(next(&mut state) % keys),
                access_type: AccessType::Decrypt,
                counted: Counted::Access,
                callers,
            };
            std::hint::black_box(watch.judge(&access));
            if i % 1024 == 0 {
                watch.take_findings();
                watch.take_meetings(usize::MAX);
                watch.take_woken();
                watch.changed_peaks(usize::MAX);
            }
        }
        began.elapsed().as_nanos() as f64 / f64::from(EVENTS)
    };
    run(&mut watch, 0);
    run(&mut watch, EVENTS)
}

/// Bytes when every key is at its limit within the minute and has failed too, and every caller is
/// known.
fn memory() -> usize {
    let before = ALLOCATED.load(Relaxed);
    let mut watch = Watch::default();
    watch.set_rules(Rules::default());
    let mut at = 1_700_000_000_000_000;
    let mut judge = |number: u32, counted: Counted, address: &str| {
        at += 1;
        watch.judge(&KeyAccess {
            at: Moment::new(at),
            key: key(number),
            access_type: AccessType::Decrypt,
            counted,
            callers: [Some("app"), None, Some(address)],
        });
        watch.take_findings();
        watch.take_meetings(usize::MAX);
        watch.take_woken();
        watch.changed_peaks(usize::MAX);
    };
    (0..CALLERS).for_each(|i| judge(i, Counted::Access, &format!("10.0.{}.{}", i >> 8, i & 255)));
    for number in 0..KEYS {
        (0..99).for_each(|_| judge(number, Counted::Access, "10.0.0.1"));
        judge(number, Counted::Failure, "10.0.0.1");
    }
    ALLOCATED.load(Relaxed) - before
}

fn main() {
    println!("judge_hot {:.0}", cost(1_000, 8));
    println!("judge_cold {:.0}", cost(KEYS, CALLERS));
    println!("memory {}", memory());
}
