//! A registered hint page in guest memory.

use std::marker::PhantomData;
use std::mem::size_of;
use std::sync::atomic::{AtomicU32, AtomicU64};

use baton_abi::hints::{GuestHints, HintPage, HostHints};

// The plain integers of the ABI are read and written here as atomics of the same layout.
const _: () = assert!(size_of::<GuestHints>() == 64 && size_of::<HostHints>() == 64);

/// A registered page, with its fields as atomics.
#[derive(Clone, Copy)]
pub(super) struct MappedPage<'a> {
    page: *mut HintPage,
    memory: PhantomData<&'a HintPage>,
}

impl MappedPage<'_> {
    /// The page at `page`.
    ///
    /// # Safety
    /// The page is aligned, lies wholly in guest memory, and stays mapped for the lifetime of this value.
    pub(super) unsafe fn new(page: *mut HintPage) -> Self {
        Self {
            page,
            memory: PhantomData,
        }
    }
}

macro_rules! fields {
    ($($name:ident: $half:ident . $field:ident as $atomic:ty;)*) => {
        impl<'a> MappedPage<'a> {
            $(
                pub(super) fn $name(self) -> &'a $atomic {
                    // SAFETY: the whole page is aligned and mapped for 'a, as `new` requires, and every
                    // field is aligned within it. The guest may write at any time; this process accesses
                    // the page only by atomics.
                    unsafe { <$atomic>::from_ptr(&raw mut (*self.page).$half.$field) }
                }
            )*
        }
    };
}

fields! {
    seq: guest.seq as AtomicU32;
    wait_kind: guest.wait_kind as AtomicU32;
    lock: guest.lock as AtomicU64;
    holder: guest.holder as AtomicU32;
    holder_gen: guest.holder_gen as AtomicU32;
    held: guest.held as AtomicU32;
    idle_until_tsc: guest.idle_until_tsc as AtomicU64;
    host_running: host.running as AtomicU32;
    host_ring: host.ring as AtomicU32;
    host_donated_lock: host.donated_lock as AtomicU64;
    host_steal_ns: host.steal_ns as AtomicU64;
    host_preemptions: host.preemptions as AtomicU32;
    host_donor: host.donor as AtomicU32;
}
