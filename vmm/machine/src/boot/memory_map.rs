//! The memory map that a kernel gets.

use super::addresses::LOW_RAM_END;
use crate::layout::KERNEL_START;
use crate::memory;

const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// The memory map for `memory_size` bytes of RAM: start, size and type of each piece.
pub(super) fn e820(memory_size: u64) -> Vec<(u64, u64, u32)> {
    let mut map = vec![
        (0, LOW_RAM_END, E820_RAM),
        (LOW_RAM_END, KERNEL_START - LOW_RAM_END, E820_RESERVED),
    ];
    for (start, size) in memory::layout(memory_size) {
        let begin = start.max(KERNEL_START);
        map.push((begin, start + size - begin, E820_RAM));
    }
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_map_covers_all_ram_and_none_of_the_hole() {
        for size in [4u64 << 20, 64 << 20, 3 << 30, 5 << 30] {
            let ram: u64 = e820(size)
                .iter()
                .filter(|(.., kind)| *kind == E820_RAM)
                .map(|(_, size, _)| size)
                .sum();
            assert_eq!(ram, size - (KERNEL_START - LOW_RAM_END));
        }
    }
}
