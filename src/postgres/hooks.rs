//! PostgreSQL's hooks: our function runs first and calls the function that had the hook before.
//! Unsafe: a hook is a function pointer that PostgreSQL calls. An atomic keeps the previous one.

use std::marker::PhantomData;
use std::mem::transmute_copy;
use std::sync::atomic::{AtomicPtr, Ordering::Relaxed};

/// The function that had a hook before us. `Hook` is the hook's type in PostgreSQL: an optional
/// function pointer.
pub(crate) struct HookChain<Hook>(AtomicPtr<()>, PhantomData<fn() -> Hook>);

impl<Hook: Copy> HookChain<Hook> {
    const IS_A_POINTER: () = assert!(size_of::<Hook>() == size_of::<*mut ()>());

    pub(crate) const fn new() -> HookChain<Hook> {
        let () = Self::IS_A_POINTER;
        HookChain(AtomicPtr::new(std::ptr::null_mut()), PhantomData)
    }

    /// Puts `ours` into the hook and keeps the function that was there.
    ///
    /// # Safety
    /// `hook` is the hook's variable in PostgreSQL; no other thread runs, as in `_PG_init`.
    pub(crate) unsafe fn take(&self, hook: *mut Hook, ours: Hook) {
        // SAFETY: as promised by the caller; `Hook` is as large as a pointer.
        unsafe {
            self.0.store(transmute_copy::<Hook, *mut ()>(&*hook), Relaxed);
            *hook = ours;
        }
    }

    /// The function that had the hook before us, if any.
    pub(crate) fn previous(&self) -> Hook {
        // SAFETY: these bytes came from a `Hook`, or are null: no function.
        unsafe { transmute_copy::<*mut (), Hook>(&self.0.load(Relaxed)) }
    }
}
