//! Making a vCPU leave the guest, from another thread or a signal handler.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::{fmt, io, mem, ptr};

use kvm_bindings::kvm_run;
use kvm_ioctls::VcpuFd;

/// Sets `kvm_run.immediate_exit` of one vCPU from any thread or signal handler.
///
/// The handle owns a mapping of the vCPU's run page, so the handle stays valid after the vCPU is gone.
#[derive(Clone)]
pub struct ImmediateExit(Arc<RunPage>);

impl ImmediateExit {
    pub(super) fn of(fd: &VcpuFd) -> io::Result<Self> {
        // SAFETY: a fresh mapping, at an address of the kernel's choice, of the first page of the
        // run area, which every vCPU file has.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mem::size_of::<kvm_run>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(Arc::new(RunPage(page.cast()))))
    }

    /// Sets or clears the flag. Safe in a signal handler.
    pub fn set(&self, on: bool) {
        self.flag().store(u8::from(on), Ordering::Relaxed);
    }

    /// Whether the flag is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.flag().load(Ordering::Relaxed) != 0
    }

    /// The flag itself, for a signal handler that cannot own a handle. The flag lives as long as any clone
    /// of this handle.
    #[must_use]
    pub fn as_ptr(&self) -> *const AtomicU8 {
        self.flag()
    }

    fn flag(&self) -> &AtomicU8 {
        // SAFETY: the page is mapped for the life of `self`; the kernel and this process touch
        // the byte at any time, here only atomically.
        unsafe { AtomicU8::from_ptr(&raw mut (*self.0.0).immediate_exit) }
    }
}

impl fmt::Debug for ImmediateExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ImmediateExit")
            .field(&self.is_set())
            .finish()
    }
}

/// A mapping of the first page of a vCPU's run area.
struct RunPage(*mut kvm_run);

// SAFETY: the mapping belongs to the process; only an atomic byte in it is used.
unsafe impl Send for RunPage {}
// SAFETY: as above.
unsafe impl Sync for RunPage {}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: the mapping is the one of `ImmediateExit::of`, and no reference to the page is left.
        unsafe { libc::munmap(self.0.cast(), mem::size_of::<kvm_run>()) };
    }
}
