//! Guest memory: private anonymous mappings that huge pages can back.

use std::io;
use std::ptr;

use thiserror::Error;
use vm_memory::mmap::{MmapRegionBuilder, MmapRegionError};
use vm_memory::{
    GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion, GuestRegionCollection,
    GuestRegionMmap,
};

use crate::layout::{MMIO_HOLE_END, MMIO_HOLE_START};

/// Guest and host addresses must agree modulo this for a huge page to map both.
const HUGE_PAGE: usize = 2 << 20;
/// The memory that is given back at a time. So no huge page is split. 512 small pages take a fraction of a
/// millisecond, for which other threads may wait that change the process's mappings.
const PIECE: usize = HUGE_PAGE;

/// Guest memory could not be reserved.
#[derive(Debug, Error)]
pub enum MemoryError {
    /// The host has no room for it.
    #[error("cannot map {size} bytes of guest memory ({source}): give the guest less memory")]
    Map {
        /// Bytes requested.
        size: usize,
        /// The host's error.
        source: io::Error,
    },
    /// vm-memory refused the mapping.
    #[error("cannot use the mapping of guest memory: {0}")]
    Region(#[from] MmapRegionError),
    /// The regions do not fit together.
    #[error("cannot lay out guest memory at {0:#x}")]
    Layout(u64),
}

/// A mapping that is unmapped when dropped, aligned to [`HUGE_PAGE`].
#[derive(Debug)]
struct Mapping {
    base: *mut libc::c_void,
    length: usize,
}

// SAFETY: the pointer only names a mapping of the whole process, and is used only to unmap it.
unsafe impl Send for Mapping {}
// SAFETY: as above; there is no shared access through it.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: base and length are what mmap returned, and GuestMemory drops everything that
        // points into the mapping first.
        unsafe { libc::munmap(self.base, self.length) };
    }
}

/// The RAM of one guest.
#[derive(Debug)]
pub struct GuestMemory {
    // Order matters: the regions point into the mappings and go first.
    regions: GuestMemoryMmap,
    _mappings: Vec<Mapping>,
}

impl GuestMemory {
    /// Reserves `size` bytes of RAM, all zero, at guest address 0 and above the MMIO hole.
    ///
    /// # Errors
    /// If the host has no room.
    pub fn new(size: u64) -> Result<Self, MemoryError> {
        let mut regions = Vec::new();
        let mut mappings = Vec::new();
        for (start, length) in layout(size) {
            let length = usize::try_from(length).map_err(|_| MemoryError::Layout(start))?;
            let (mapping, address) = map_aligned(length)?;
            // SAFETY: address and length lie in `mapping`, which lives as long as this value.
            let region = unsafe {
                MmapRegionBuilder::new(length)
                    .with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE)
                    .with_mmap_flags(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE)
                    .with_raw_mmap_pointer(address)
                    .build()?
            };
            mappings.push(mapping);
            regions.push(
                GuestRegionMmap::new(region, GuestAddress(start))
                    .ok_or(MemoryError::Layout(start))?,
            );
        }
        let regions =
            GuestRegionCollection::from_regions(regions).map_err(|_| MemoryError::Layout(0))?;
        Ok(Self {
            regions,
            _mappings: mappings,
        })
    }

    /// Gives the memory that has been touched back to the host, in pieces, and calls `after_each` after each
    /// piece. The memory reads as zero afterwards. No thread may use the memory meanwhile.
    pub fn give_back(&self, mut after_each: impl FnMut()) {
        for region in self.regions.iter() {
            let length = region.len() as usize;
            for at in (0..length).step_by(PIECE) {
                let piece = PIECE.min(length - at);
                // SAFETY: the piece lies in the region, which is mapped, and no thread uses its content.
                unsafe {
                    libc::madvise(region.as_ptr().add(at).cast(), piece, libc::MADV_DONTNEED)
                };
                after_each();
            }
        }
    }

    /// The regions, for vm-memory's accessors.
    #[must_use]
    pub fn regions(&self) -> &GuestMemoryMmap {
        &self.regions
    }
}

/// Start and length of each piece of RAM for `size` bytes.
#[must_use]
pub fn layout(size: u64) -> Vec<(u64, u64)> {
    if size <= MMIO_HOLE_START {
        vec![(0, size)]
    } else {
        vec![
            (0, MMIO_HOLE_START),
            (MMIO_HOLE_END, size - MMIO_HOLE_START),
        ]
    }
}

/// Maps `length` bytes at a multiple of [`HUGE_PAGE`] and requests huge pages: the first touch of a page by
/// the guest is the most expensive memory operation, and huge pages make it 3 to 500 times rarer.
fn map_aligned(length: usize) -> Result<(Mapping, *mut u8), MemoryError> {
    let total = length
        .checked_add(HUGE_PAGE)
        .ok_or(MemoryError::Layout(length as u64))?;
    // SAFETY: a fresh anonymous mapping at an address of the kernel's choice.
    let base = unsafe {
        libc::mmap(
            ptr::null_mut(),
            total,
            libc::PROT_READ | libc::PROT_WRITE,
            libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
            -1,
            0,
        )
    };
    if base == libc::MAP_FAILED {
        return Err(MemoryError::Map {
            size: length,
            source: io::Error::last_os_error(),
        });
    }
    let mapping = Mapping {
        base,
        length: total,
    };
    let padding = (base as usize).wrapping_neg() % HUGE_PAGE;
    // SAFETY: padding < HUGE_PAGE, so the result and `length` bytes after it are in the mapping.
    let aligned = unsafe { base.cast::<u8>().add(padding) };
    // Huge pages; and a core dump of this process does not contain the memory of guests.
    for advice in [libc::MADV_HUGEPAGE, libc::MADV_DONTDUMP] {
        // SAFETY: the range lies in the mapping. The call is only advice, which a host without huge pages
        // refuses without harm.
        unsafe { libc::madvise(aligned.cast(), length, advice) };
    }
    Ok((mapping, aligned))
}

#[cfg(test)]
mod tests {
    use super::*;
    use vm_memory::Bytes;

    #[test]
    fn memory_starts_at_zero_and_on_a_huge_page() {
        let memory = GuestMemory::new(8 << 20).expect("memory");
        let region = memory.regions().iter().next().expect("one region");
        assert_eq!(region.start_addr(), GuestAddress(0));
        assert_eq!(region.len(), 8 << 20);
        assert_eq!(region.as_ptr() as usize % HUGE_PAGE, 0);
        memory
            .regions()
            .write_obj(7u32, GuestAddress((8 << 20) - 4))
            .expect("last word");
        memory
            .regions()
            .write_obj(7u32, GuestAddress(8 << 20))
            .expect_err("past the end");
    }

    /// What the kernel reports under `key` about the mapping of `memory`.
    fn of_mapping(memory: &GuestMemory, key: &str) -> String {
        let region = memory.regions().iter().next().expect("one region");
        let begin = format!("{:x}-", region.as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("Linux");
        maps.lines()
            .skip_while(|line| !line.starts_with(&begin))
            .find_map(|line| line.strip_prefix(key))
            .expect("a mapping of its own")
            .trim()
            .to_owned()
    }

    #[test]
    fn the_host_gets_back_all_that_the_guest_has_touched() {
        const SIZE: u64 = 9 << 20;
        let memory = GuestMemory::new(SIZE).expect("memory");
        for page in (0..SIZE).step_by(4096) {
            let written = memory.regions().write_obj(7u32, GuestAddress(page));
            written.expect("inside");
        }
        assert_eq!(of_mapping(&memory, "Rss:"), format!("{} kB", SIZE >> 10));
        let mut pieces = 0;
        memory.give_back(|| pieces += 1);
        assert_eq!((of_mapping(&memory, "Rss:").as_str(), pieces), ("0 kB", 5));
    }

    #[test]
    fn guest_memory_is_left_out_of_core_dumps() {
        let memory = GuestMemory::new(8 << 20).expect("memory");
        let flags = of_mapping(&memory, "VmFlags:");
        assert!(flags.split_whitespace().any(|flag| flag == "dd"), "{flags}");
    }

    #[test]
    fn memory_above_three_gib_skips_the_mmio_hole() {
        assert_eq!(layout(4 << 30), [(0, 3 << 30), (4 << 30, 1 << 30)]);
        assert_eq!(layout(3 << 30), [(0, 3 << 30)]);
    }
}
