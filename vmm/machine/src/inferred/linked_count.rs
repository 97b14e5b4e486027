//! Where a kernel's preempt count is by its symbols, before the kernel is loaded.

use super::scan::Finding;

/// The kernel is moved by a multiple of this (`CONFIG_PHYSICAL_ALIGN` at least), bytes.
const KERNEL_ALIGN: u64 = 2 << 20;

/// Where a kernel's preempt count has been linked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkedCount {
    /// From the GS base. Since Linux 6.15 it is an address in the kernel, and the GS base is a difference.
    pub offset: u64,
    /// The address at which system calls enter the kernel.
    pub syscall_entry: Option<u64>,
}

impl LinkedCount {
    /// Where the count is in a kernel that system calls enter at `entry`. Not found: the symbols are those of
    /// another kernel, or `entry` is another address.
    ///
    /// Linux moves itself when it boots (KASLR), and what was linked to an address in the kernel moves with it.
    pub(crate) fn in_kernel_with(self, entry: u64) -> Finding {
        let is_address = self.offset >> 63 == 1;
        let Some(linked_entry) = self.syscall_entry else {
            return match is_address {
                true => Finding::NotFound,
                false => Finding::Found(self.offset),
            };
        };
        let moved = entry.wrapping_sub(linked_entry);
        if !moved.is_multiple_of(KERNEL_ALIGN) {
            return Finding::NotFound;
        }
        Finding::Found(match is_address {
            true => self.offset.wrapping_add(moved),
            false => self.offset,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: u64 = 0xffff_ffff_8180_0040;
    const MOVED: u64 = 0x1a60_0000;

    fn linked(offset: u64) -> LinkedCount {
        LinkedCount {
            offset,
            syscall_entry: Some(ENTRY),
        }
    }

    #[test]
    fn an_offset_stays_and_an_address_moves_with_the_kernel() {
        let address = 0xffff_ffff_8281_2340;
        for moved in [0, MOVED] {
            let entry = ENTRY + moved;
            assert_eq!(
                linked(0x35008).in_kernel_with(entry),
                Finding::Found(0x35008)
            );
            let found = Finding::Found(address + moved);
            assert_eq!(linked(address).in_kernel_with(entry), found);
        }
    }

    #[test]
    fn symbols_of_another_kernel_find_nothing() {
        for entry in [0, ENTRY + 0x40, ENTRY + MOVED - 0x1000] {
            assert_eq!(linked(0x35008).in_kernel_with(entry), Finding::NotFound);
        }
    }

    #[test]
    fn an_address_is_of_no_use_without_an_entry() {
        let without = |offset| LinkedCount {
            offset,
            syscall_entry: None,
        };
        assert_eq!(without(ENTRY).in_kernel_with(ENTRY), Finding::NotFound);
        assert_eq!(without(0x40).in_kernel_with(ENTRY), Finding::Found(0x40));
    }
}
