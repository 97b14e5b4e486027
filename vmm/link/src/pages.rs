//! The pages of a guest, in a memory file that both processes map.
//!
//! The guest's process makes the file, so that its memory is accounted to the guest. A file that can shrink,
//! or whose pages come from elsewhere than plain memory, could raise SIGBUS in the pool or make the pool
//! wait, so the pool accepts only a memory file with the right seals and size.

use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;

use rustix::fs::{self, MemfdFlags, OFlags, SealFlags};
use rustix::mm::{self, MapFlags, ProtFlags};

use crate::page::{HeaderError, PAGE_SIZE, VcpuPage};
use crate::sync::Arc;

/// The most vCPUs of a guest.
pub const MAX_VCPUS: u32 = 256;
/// Seals that fix the size for ever. The seal against more seals keeps the guest from a seal against
/// writes.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::SEAL);
/// `f_type` of a file system in plain memory, `TMPFS_MAGIC`. Memory files of huge pages have another one.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// A guest's pages could not be made, or were refused.
#[derive(Debug, thiserror::Error)]
pub enum PagesError {
    /// The number of vCPUs is 0 or exceeds [`MAX_VCPUS`].
    #[error("a guest cannot have {0} vCPUs; give it 1 to {MAX_VCPUS}")]
    Vcpus(u32),
    /// The file is no memory file, or one of huge pages.
    #[error("the file with the pages is no plain memory file; make it with memfd_create")]
    NoMemfd,
    /// The file can change its size.
    #[error(
        "the memory file with the pages lacks seals; seal it with F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL"
    )]
    Seals,
    /// The file is not as long as the pages of all vCPUs.
    #[error(
        "the memory file has {actual} bytes where {expected} belong; give it one page for each vCPU"
    )]
    Size {
        /// Its size, bytes.
        actual: u64,
        /// The size for that number of vCPUs, bytes.
        expected: u64,
    },
    /// The file is not open for reading and writing.
    #[error(
        "the memory file is not open for reading and writing; pass it on as memfd_create returned it"
    )]
    Access,
    /// The pages are not those of such a guest.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// The host refused memory.
    #[error(
        "the host refused the memory of the shared pages: {0}; free some memory or raise the limits"
    )]
    Host(#[from] rustix::io::Errno),
}

/// A mapping of the pages, which ends when it is dropped.
#[derive(Debug)]
struct Mapping {
    first: NonNull<VcpuPage>,
    vcpus: u32,
}

// SAFETY: the mapping belongs to no thread, and a `VcpuPage` consists of atomics.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    fn new(file: &OwnedFd, vcpus: u32) -> Result<Self, PagesError> {
        let size = vcpus as usize * PAGE_SIZE;
        let flags = MapFlags::SHARED | MapFlags::POPULATE;
        // SAFETY: the kernel chooses an address range that nothing uses.
        let start = unsafe {
            mm::mmap(
                std::ptr::null_mut(),
                size,
                ProtFlags::READ | ProtFlags::WRITE,
                flags,
                file,
                0,
            )?
        };
        match NonNull::new(start.cast()) {
            Some(first) => Ok(Self { first, vcpus }),
            None => Err(PagesError::Host(rustix::io::Errno::NOMEM)),
        }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range is that of `new`, and every `PageRef` keeps the mapping alive.
        let unmapped =
            unsafe { mm::munmap(self.first.as_ptr().cast(), self.vcpus as usize * PAGE_SIZE) };
        // It fails only for a range that was never mapped.
        debug_assert!(unmapped.is_ok());
    }
}

/// One vCPU's page, and what keeps it mapped.
#[derive(Clone, Debug)]
pub(crate) struct PageRef(PageSource);

#[derive(Clone, Debug)]
enum PageSource {
    Mapped(Arc<Mapping>, u32),
    #[cfg(all(test, loom))]
    Private(Arc<VcpuPage>),
}

impl PageRef {
    #[cfg(all(test, loom))]
    fn private() -> Self {
        Self(PageSource::Private(Arc::new(VcpuPage::default())))
    }
}

impl Deref for PageRef {
    type Target = VcpuPage;

    fn deref(&self) -> &VcpuPage {
        match &self.0 {
            // SAFETY: the mapping has that many pages, each is aligned, all bit patterns are atomics, and
            // the size of the file is sealed. Other processes write, as atomics permit.
            PageSource::Mapped(mapping, vcpu) => unsafe {
                mapping.first.add(*vcpu as usize).as_ref()
            },
            #[cfg(all(test, loom))]
            PageSource::Private(page) => page,
        }
    }
}

/// The pages of all vCPUs of a guest, in the order of the vCPUs.
#[derive(Clone, Debug)]
pub struct GuestPages(Vec<PageRef>);

impl GuestPages {
    /// Makes the pages of a guest, and the file that its process sends to the pool.
    ///
    /// # Errors
    /// If there are too many vCPUs, or the host has no memory left.
    pub fn create(vcpus: u32) -> Result<(Self, OwnedFd), PagesError> {
        check_vcpus(vcpus)?;
        let file = fs::memfd_create(
            "baton-vcpus",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )?;
        fs::ftruncate(&file, size_of(vcpus))?;
        fs::fcntl_add_seals(&file, SEALS)?;
        let pages = Self::map(&file, vcpus)?;
        for (vcpu, page) in (0..).zip(&pages.0) {
            page.begin(vcpu);
        }
        Ok((pages, file))
    }

    /// Maps the pages of another process's guest.
    ///
    /// # Errors
    /// If `file` is not what [`GuestPages::create`] makes for this number of vCPUs, or has been in use.
    pub fn accept(file: &OwnedFd, vcpus: u32) -> Result<Self, PagesError> {
        check_vcpus(vcpus)?;
        check_file(file, vcpus)?;
        let pages = Self::map(file, vcpus)?;
        for (vcpu, page) in (0..).zip(&pages.0) {
            page.check(vcpu)?;
        }
        Ok(pages)
    }

    fn map(file: &OwnedFd, vcpus: u32) -> Result<Self, PagesError> {
        let mapping = Arc::new(Mapping::new(file, vcpus)?);
        let page = |vcpu| PageRef(PageSource::Mapped(Arc::clone(&mapping), vcpu));
        Ok(Self((0..vcpus).map(page).collect()))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &PageRef> {
        self.0.iter()
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.len() as u32
    }

    /// Pages of this process alone, for models of the protocol.
    #[cfg(all(test, loom))]
    pub(crate) fn private(vcpus: u32) -> Self {
        Self((0..vcpus).map(|_| PageRef::private()).collect())
    }
}

fn size_of(vcpus: u32) -> u64 {
    u64::from(vcpus) * PAGE_SIZE as u64
}

fn check_vcpus(vcpus: u32) -> Result<(), PagesError> {
    match (1..=MAX_VCPUS).contains(&vcpus) {
        true => Ok(()),
        false => Err(PagesError::Vcpus(vcpus)),
    }
}

fn check_file(file: &OwnedFd, vcpus: u32) -> Result<(), PagesError> {
    let file = file.as_fd();
    // The kernel answers this itself. To report the file system, it may have to wait for a server.
    let Ok(seals) = fs::fcntl_get_seals(file) else {
        return Err(PagesError::NoMemfd);
    };
    if fs::fstatfs(file)?.f_type as u64 != TMPFS_MAGIC {
        return Err(PagesError::NoMemfd);
    }
    if !seals.contains(SEALS) || seals.intersects(SealFlags::WRITE | SealFlags::FUTURE_WRITE) {
        return Err(PagesError::Seals);
    }
    if fs::fcntl_getfl(file)? & OFlags::RWMODE != OFlags::RDWR {
        return Err(PagesError::Access);
    }
    let actual = fs::fstat(file)?.st_size as u64;
    let expected = size_of(vcpus);
    match actual == expected {
        true => Ok(()),
        false => Err(PagesError::Size { actual, expected }),
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests;
