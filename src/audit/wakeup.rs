//! Sleeping and waking between a caller and its writer, on a word of shared memory (futex(2),
//! Linux). PostgreSQL's latch costs a signal, a signal handler and an epoll for each wake-up. This
//! costs a system call on either side, and none if nobody sleeps. A signal (cancel, terminate,
//! reload) still ends a sleep. A signal just before the sleep begins waits for `longest`.

use rustix::thread::futex;
use rustix::time::Timespec;
use std::sync::atomic::{AtomicU32, Ordering::SeqCst};
use std::time::{Duration, Instant};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;

/// Spins until `ready`, at most for `longest`, before anybody sleeps. Yields the processor to
/// others.
pub(super) fn spin_until(ready: impl Fn() -> bool, longest: Duration) -> bool {
    let until = Instant::now() + longest;
    while !ready() && Instant::now() < until {
        for _ in 0..40 {
            std::hint::spin_loop();
        }
        std::thread::yield_now();
    }
    ready()
}

/// Where one process sleeps, in shared memory. All zeros means awake.
#[repr(transparent)]
pub(crate) struct Sleeper(AtomicU32);

impl Sleeper {
    /// Sleeps until woken, until a signal comes, or for `longest`. It first marks the process as
    /// asleep and then asks `ready`; if that is true, it does not sleep. So no wake-up is missed:
    /// whoever makes `ready` true calls `wake` afterwards.
    pub(crate) fn sleep_unless(&self, ready: impl FnOnce() -> bool, longest: Duration) {
        self.0.store(ASLEEP, SeqCst);
        if !ready() {
            let timeout = Timespec {
                tv_sec: longest.as_secs() as i64,
                tv_nsec: i64::from(longest.subsec_nanos()),
            };
            // Woken, woken before the sleep, interrupted or too late: the caller checks again in
            // each case.
            let _ended = futex::wait(&self.0, futex::Flags::empty(), ASLEEP, Some(&timeout));
        }
        self.0.store(AWAKE, SeqCst);
    }

    /// Wakes the process if it sleeps.
    pub(crate) fn wake(&self) {
        if self.0.swap(AWAKE, SeqCst) == ASLEEP {
            let _woken = futex::wake(&self.0, futex::Flags::empty(), 1);
        }
    }
}
