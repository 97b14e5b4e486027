//! The page that the two processes share for each vCPU.
//!
//! ```text
//! line 0  header    written once by the guest's process, checked by the pool
//! line 1  command   written by the pool: what the vCPU's thread is to do
//! line 2  answer    written by the vCPU's thread: how that ended
//! ```
//!
//! Each half ends in a futex word with the number of the command or of the command that is answered. The
//! number is stored last, so whoever sees the number sees what belongs to it. Both processes can write the
//! whole page, which the kernel cannot prevent. So each keeps the numbers that it expects in its own memory,
//! reads each word once, and checks it.

use crate::sync::FutexWord;
use crate::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Size of a page, bytes.
pub(crate) const PAGE_SIZE: usize = 4096;
/// "BatnLink", as the bytes stand in memory.
const MAGIC: u64 = u64::from_le_bytes(*b"BatnLink");
/// The version of this layout. Processes with different versions do not join.
pub const PAGE_VERSION: u32 = 2;

/// What the guest's process writes once.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Header {
    magic: AtomicU64,
    version: AtomicU32,
    vcpu: AtomicU32,
}

/// What the pool writes.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct CommandWords {
    /// When the run ends at the latest, `CLOCK_MONOTONIC` ns.
    pub(crate) until_ns: AtomicU64,
    /// The lock of a donated run.
    pub(crate) ring_lock: AtomicU64,
    /// Steal time of the vCPU since it joined, ns.
    pub(crate) stolen_ns: AtomicU64,
    /// What is to be done; the values are in `command.rs`.
    pub(crate) kind: AtomicU32,
    pub(crate) host_cpu: AtomicU32,
    /// `RING_*` bits of the hint ABI.
    pub(crate) ring: AtomicU32,
    /// Index of the donor.
    pub(crate) donor: AtomicU32,
    /// The number of the command that is to end early.
    pub(crate) kicked: AtomicU32,
    /// The number of the command. Stored last.
    pub(crate) number: FutexWord,
    /// In the page of vCPU 0: changes as long as the pool works. 0: the pool does not show that.
    pub(crate) beats: AtomicU32,
    /// Whether an executor waits for the answer, so that it need not be reported.
    pub(crate) watched: AtomicU32,
}

/// What the vCPU's thread writes.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct AnswerWords {
    /// The lock for which the vCPU waits.
    pub(crate) wait_lock: AtomicU64,
    /// The doorbell's own payload: a time in ns, or a lock.
    pub(crate) payload: AtomicU64,
    /// How the command ended; the values are in `answer.rs`.
    pub(crate) reason: AtomicU32,
    /// A doorbell value of the hint ABI.
    pub(crate) doorbell: AtomicU32,
    pub(crate) depth: AtomicU32,
    pub(crate) releases: AtomicU32,
    /// How the vCPU waits, and other flags; the values are in `hint_words.rs`.
    pub(crate) hint_flags: AtomicU32,
    pub(crate) holder: AtomicU32,
    pub(crate) holder_releases: AtomicU32,
    /// The number of the command that is answered. Stored last.
    pub(crate) number: FutexWord,
}

/// The page of one vCPU. All zero, apart from the header, when its guest joins.
#[derive(Debug, Default)]
#[repr(C, align(4096))]
pub(crate) struct VcpuPage {
    header: Header,
    pub(crate) command: CommandWords,
    pub(crate) answer: AnswerWords,
}

#[cfg(not(loom))]
const _: () = assert!(size_of::<VcpuPage>() == PAGE_SIZE);

/// A page is not that of a vCPU that can join.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The page does not begin with the magic number.
    #[error("page {0} is no page of a vCPU; start the guest with a `baton` of the pool's version")]
    Magic(u32),
    /// The page has another layout.
    #[error(
        "page {page} has layout {version}, and the pool has layout {PAGE_VERSION}; use the same version of `baton` for both"
    )]
    Version {
        /// Index of the page.
        page: u32,
        /// The version in its header.
        version: u32,
    },
    /// The page names another vCPU than the one to which its place belongs.
    #[error("page {page} names vCPU {vcpu}; pages have to be in the order of the vCPUs")]
    Vcpu {
        /// Index of the page.
        page: u32,
        /// The vCPU in its header.
        vcpu: u32,
    },
    /// A number in the page is not 0, so the page has been in use.
    #[error("page {0} has been in use; make new pages to join again")]
    Used(u32),
}

impl VcpuPage {
    /// Writes the header.
    pub(crate) fn begin(&self, vcpu: u32) {
        self.header.vcpu.store(vcpu, Ordering::Relaxed);
        self.header.version.store(PAGE_VERSION, Ordering::Relaxed);
        self.header.magic.store(MAGIC, Ordering::Release);
    }

    /// Checks that this is the unused page of `vcpu`.
    pub(crate) fn check(&self, vcpu: u32) -> Result<(), HeaderError> {
        if self.header.magic.load(Ordering::Acquire) != MAGIC {
            return Err(HeaderError::Magic(vcpu));
        }
        let version = self.header.version.load(Ordering::Relaxed);
        if version != PAGE_VERSION {
            let page = vcpu;
            return Err(HeaderError::Version { page, version });
        }
        let named = self.header.vcpu.load(Ordering::Relaxed);
        if named != vcpu {
            return Err(HeaderError::Vcpu {
                page: vcpu,
                vcpu: named,
            });
        }
        if self.command.number.load() != 0 || self.answer.number.load() != 0 {
            return Err(HeaderError::Used(vcpu));
        }
        Ok(())
    }
}

#[cfg(not(loom))]
#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn the_layout_is_that_of_version_2() {
        assert_eq!(offset_of!(VcpuPage, command), 64);
        assert_eq!(offset_of!(VcpuPage, answer), 128);
        assert_eq!(offset_of!(CommandWords, number), 44);
        assert_eq!(offset_of!(CommandWords, beats), 48);
        assert_eq!(offset_of!(CommandWords, watched), 52);
        assert_eq!(offset_of!(AnswerWords, number), 44);
        assert_eq!(
            PAGE_VERSION, 2,
            "a new layout needs a new version and this test"
        );
    }

    #[test]
    fn a_page_of_another_version_or_vcpu_or_in_use_is_refused() {
        let page = VcpuPage::default();
        assert_eq!(page.check(3), Err(HeaderError::Magic(3)));
        page.begin(3);
        assert_eq!(page.check(3), Ok(()));
        assert_eq!(page.check(2), Err(HeaderError::Vcpu { page: 2, vcpu: 3 }));
        page.answer.number.store(1);
        assert_eq!(page.check(3), Err(HeaderError::Used(3)));
        page.header.version.store(1, Ordering::Relaxed);
        let error = HeaderError::Version {
            page: 3,
            version: 1,
        };
        assert_eq!(page.check(3), Err(error));
    }
}
