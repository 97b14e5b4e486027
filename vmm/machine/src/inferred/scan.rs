//! Finds the variable in which a kernel counts, by the instructions with which it counts.
//!
//! `65 ff 05 rel32` is `incl %gs:X(%rip)` and `65 ff 0d rel32` is `decl %gs:X(%rip)`, where X is the address
//! after the instruction plus `rel32`. In a kernel that keeps a preempt count, thousands of these name the
//! same X, and the next most frequent X comes a hundred times less often.

use std::collections::BTreeMap;

/// The bytes of such an instruction.
const INSTRUCTION: usize = 7;
/// How many different variables are counted. Random bytes look like one of the instructions a dozen times
/// in 96 MiB; a guest that writes more of them only hides its own count.
const MAX_CANDIDATES: usize = 4096;
/// So many instructions of each of the two forms name a count. A kernel that does not keep one has fewer
/// than ten in all that name the same variable.
const MIN_EACH: u32 = 12;
/// The count is named so many times more often than any other variable.
const LEAD: u32 = 8;

/// What a scan has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// The count is at this offset from the GS base.
    Found(u64),
    /// No variable is clearly ahead.
    NotFound,
}

/// Instructions that name one variable.
#[derive(Clone, Copy, Debug, Default)]
struct Uses {
    increments: u32,
    decrements: u32,
}

impl Uses {
    const fn total(self) -> u32 {
        self.increments.saturating_add(self.decrements)
    }
}

/// A scan under way, fed slice by slice.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    candidates: BTreeMap<u64, Uses>,
    /// The end of the last slice, in which an instruction may begin, and what follows it.
    pending: Vec<u8>,
    /// The address after the last slice.
    next: u64,
}

impl Scan {
    /// Takes the bytes at the guest's virtual address `address`. An instruction may lie across two slices if
    /// the second follows the first.
    pub(crate) fn feed(&mut self, address: u64, bytes: &[u8]) {
        if self.next != address {
            self.pending.clear();
        }
        let start = address.wrapping_sub(self.pending.len() as u64);
        self.pending.extend_from_slice(bytes);
        self.next = address.wrapping_add(bytes.len() as u64);

        let mut found = Vec::new();
        for (at, code) in self.pending.windows(INSTRUCTION).enumerate() {
            let &[0x65, 0xff, form @ (0x05 | 0x0d), a, b, c, d] = code else {
                continue;
            };
            let after = start.wrapping_add((at + INSTRUCTION) as u64);
            let relative = i64::from(i32::from_le_bytes([a, b, c, d]));
            found.push((after.wrapping_add_signed(relative), form == 0x05));
        }
        for (offset, is_increment) in found {
            self.count(offset, is_increment);
        }
        let tail = self.pending.len().min(INSTRUCTION - 1);
        self.pending.drain(..self.pending.len() - tail);
    }

    fn count(&mut self, offset: u64, is_increment: bool) {
        if self.candidates.len() == MAX_CANDIDATES && !self.candidates.contains_key(&offset) {
            return;
        }
        let uses = self.candidates.entry(offset).or_default();
        let counter = if is_increment {
            &mut uses.increments
        } else {
            &mut uses.decrements
        };
        *counter = counter.saturating_add(1);
    }

    /// What has been found so far.
    #[must_use]
    pub(crate) fn finding(&self) -> Finding {
        let mut ranked: Vec<_> = self.candidates.iter().collect();
        ranked.sort_by_key(|(_, uses)| std::cmp::Reverse(uses.total()));
        let Some(&(&offset, best)) = ranked.first() else {
            return Finding::NotFound;
        };
        let next = ranked.get(1).map_or(0, |(_, uses)| uses.total());
        let is_count = best.increments.min(best.decrements) >= MIN_EACH
            && best.total() >= next.saturating_mul(LEAD);
        if is_count {
            Finding::Found(offset)
        } else {
            Finding::NotFound
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: u64 = 0xffff_ffff_8100_0000;
    const COUNT: u64 = 0x35008;

    /// Code at `start` that increments and decrements each of the variables so many times.
    fn code(start: u64, variables: &[(u64, u32)]) -> Vec<u8> {
        let mut code = Vec::new();
        for &(variable, times) in variables {
            for form in [0x05, 0x0d].repeat(times as usize) {
                code.extend([0x90; 3]);
                code.extend([0x65, 0xff, form]);
                let after = start + code.len() as u64 + 4;
                let relative = variable.wrapping_sub(after) as i64 as i32;
                code.extend(relative.to_le_bytes());
            }
        }
        code
    }

    fn scan(slices: &[(u64, &[u8])]) -> Finding {
        let mut scan = Scan::default();
        for (address, bytes) in slices {
            scan.feed(*address, bytes);
        }
        scan.finding()
    }

    #[test]
    fn the_variable_that_is_counted_in_most_often_is_found() {
        let text = code(TEXT, &[(0x20, 3), (COUNT, 40), (0x40, 5)]);
        assert_eq!(scan(&[(TEXT, &text)]), Finding::Found(COUNT));
    }

    #[test]
    fn a_variable_that_is_an_address_is_found_as_well() {
        let variable = TEXT + 0x12_3450;
        let text = code(TEXT, &[(variable, 40)]);
        assert_eq!(scan(&[(TEXT, &text)]), Finding::Found(variable));
    }

    #[test]
    fn text_that_counts_in_nothing_has_no_count() {
        assert_eq!(scan(&[]), Finding::NotFound);
        assert_eq!(scan(&[(TEXT, &[0x65; 4096])]), Finding::NotFound);
        let few = code(TEXT, &[(COUNT, 4), (0x40, 1)]);
        assert_eq!(scan(&[(TEXT, &few)]), Finding::NotFound);
    }

    #[test]
    fn of_two_variables_that_are_alike_none_is_taken() {
        let text = code(TEXT, &[(COUNT, 400), (0x40, 100)]);
        assert_eq!(scan(&[(TEXT, &text)]), Finding::NotFound);
    }

    #[test]
    fn a_variable_that_is_only_incremented_is_no_count() {
        let mut text = code(TEXT, &[(COUNT, 400)]);
        for at in 0..text.len() - 2 {
            if text[at..at + 3] == [0x65, 0xff, 0x0d] {
                text[at + 2] = 0x0c;
            }
        }
        assert_eq!(scan(&[(TEXT, &text)]), Finding::NotFound);
    }

    #[test]
    fn an_instruction_across_two_slices_counts_once_wherever_the_border_is() {
        let text = code(TEXT, &[(COUNT, MIN_EACH)]);
        for border in 0..=text.len() {
            let (first, second) = text.split_at(border);
            let mut scan = Scan::default();
            scan.feed(TEXT, first);
            scan.feed(TEXT + border as u64, second);
            assert_eq!(scan.candidates.len(), 1, "border at {border}");
            assert_eq!(scan.candidates[&COUNT].total(), 2 * MIN_EACH);
        }
        let bytes: Vec<_> = (TEXT..).zip(text.chunks(1)).collect();
        assert_eq!(scan(&bytes), Finding::Found(COUNT), "a byte at a time");
    }

    #[test]
    fn half_an_instruction_does_not_continue_in_a_slice_from_elsewhere() {
        let text = code(TEXT, &[(COUNT, 1)]);
        let (first, second) = text.split_at(5);
        let mut scan = Scan::default();
        scan.feed(TEXT, first);
        scan.feed(TEXT + 0x1000, second);
        assert!(scan.candidates.values().all(|uses| uses.increments == 0));
    }

    #[test]
    fn a_guest_cannot_make_the_table_grow_without_bound() {
        let mut scan = Scan::default();
        for variable in 0..3 * MAX_CANDIDATES as u64 {
            scan.feed(TEXT, &code(TEXT, &[(variable, 1)]));
        }
        assert_eq!(scan.candidates.len(), MAX_CANDIDATES);
        assert_eq!(scan.finding(), Finding::NotFound);
    }
}
