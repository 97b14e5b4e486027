//! Finds the variable in which a kernel counts, by the instructions with which it counts.
//!
//! `65 ff 05 rel32` is `incl %gs:X(%rip)` and `65 ff 0d rel32` is `decl %gs:X(%rip)`, where X is the address
//! after the instruction plus `rel32`. In a kernel that keeps a preempt count, thousands of these name the
//! same X, and the next most frequent X comes a hundred times less often. Linux 7.3 counts in 64 bits, of which the
//! upper half has only the bit for a due task switch. Its instructions are `incq` and `decq`, with `48` after the `65`.

use std::collections::BTreeMap;

/// The bytes of the longer instructions. The shorter ones are decoded with the byte before them, so that both end
/// where the bytes end.
pub(super) const INSTRUCTION: usize = 8;
/// The prefix of both: GS.
const GS: u8 = 0x65;
/// The prefix of the longer ones that follows: 64 bits.
const REX_W: u8 = 0x48;
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

/// It is found before the end of the text by so many instructions of each form, with a lead of so many times.
const DECIDED_EACH: u32 = 128;
const DECIDED_LEAD: u32 = 32;

/// Instructions that name one variable.
#[derive(Clone, Copy, Debug)]
struct Uses {
    increments: u32,
    decrements: u32,
    /// The address of the bytes that end with the first that was fed.
    first: u64,
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

        for prefix in memchr::memchr_iter(GS, &self.pending) {
            let is_long = self.pending.get(prefix + 1) == Some(&REX_W);
            // Of a shorter instruction, with the byte before it.
            let Some(at) = prefix.checked_sub(usize::from(!is_long)) else {
                continue;
            };
            let address = start.wrapping_add(at as u64);
            let code = self.pending.get(at..at + INSTRUCTION);
            if let Some(use_of) = code.and_then(|code| decode(address, code)) {
                count(&mut self.candidates, address, use_of);
            }
        }
        let tail = self.pending.len().min(INSTRUCTION - 1);
        self.pending.drain(..self.pending.len() - tail);
    }

    /// What has been found so far.
    #[must_use]
    pub(crate) fn finding(&self) -> Finding {
        match self.leader(MIN_EACH, LEAD) {
            Some((offset, _)) => Finding::Found(offset),
            None => Finding::NotFound,
        }
    }

    /// Whether the count is found so clearly that the rest of the text need not be scanned.
    #[must_use]
    pub(super) fn is_decided(&self) -> bool {
        self.leader(DECIDED_EACH, DECIDED_LEAD).is_some()
    }

    /// The address of the bytes that end with an instruction which names the variable that has been found.
    #[must_use]
    pub(super) fn witness(&self) -> Option<u64> {
        Some(self.leader(MIN_EACH, LEAD)?.1.first)
    }

    /// The variable that is named so often by each form, and so many times more often than any other.
    fn leader(&self, each: u32, lead: u32) -> Option<(u64, Uses)> {
        let (&offset, &best) = self
            .candidates
            .iter()
            .max_by_key(|(_, uses)| uses.total())?;
        let others = self
            .candidates
            .iter()
            .filter(|(other, _)| **other != offset);
        let next = others.map(|(_, uses)| uses.total()).max().unwrap_or(0);
        let is_count = best.increments.min(best.decrements) >= each
            && best.total() >= next.saturating_mul(lead);
        is_count.then_some((offset, best))
    }
}

/// How an instruction uses a variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct UseOf {
    offset: u64,
    is_increment: bool,
}

/// What the instruction counts in with which the bytes `code` at `address` end, if it has one of the forms.
fn decode(address: u64, code: &[u8]) -> Option<UseOf> {
    let &([GS, REX_W, 0xff, form @ (0x05 | 0x0d), a, b, c, d]
    | [_, GS, 0xff, form @ (0x05 | 0x0d), a, b, c, d]) = code
    else {
        return None;
    };
    let after = address.wrapping_add(INSTRUCTION as u64);
    let relative = i64::from(i32::from_le_bytes([a, b, c, d]));
    Some(UseOf {
        offset: after.wrapping_add_signed(relative),
        is_increment: form == 0x05,
    })
}

/// Whether the instruction with which the bytes `code` at `address` end names the variable at `offset`.
pub(super) fn names(address: u64, code: &[u8; INSTRUCTION], offset: u64) -> bool {
    decode(address, code).is_some_and(|use_of| use_of.offset == offset)
}

fn count(candidates: &mut BTreeMap<u64, Uses>, address: u64, use_of: UseOf) {
    if candidates.len() == MAX_CANDIDATES && !candidates.contains_key(&use_of.offset) {
        return;
    }
    let uses = candidates.entry(use_of.offset).or_insert(Uses {
        increments: 0,
        decrements: 0,
        first: address,
    });
    let counter = match use_of.is_increment {
        true => &mut uses.increments,
        false => &mut uses.decrements,
    };
    *counter = counter.saturating_add(1);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: u64 = 0xffff_ffff_8100_0000;
    const COUNT: u64 = 0x35008;

    /// Code at `start` that increments and decrements each of the variables so many times.
    fn code(start: u64, variables: &[(u64, u32)]) -> Vec<u8> {
        code_of(&[0x65], start, variables)
    }

    /// The same with these prefixes of each instruction.
    fn code_of(prefixes: &[u8], start: u64, variables: &[(u64, u32)]) -> Vec<u8> {
        let mut code = Vec::new();
        for &(variable, times) in variables {
            for form in [0x05, 0x0d].repeat(times as usize) {
                code.extend([0x90; 3]);
                code.extend(prefixes);
                code.extend([0xff, form]);
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
    fn a_count_of_64_bits_is_found_as_well_but_not_one_that_belongs_to_no_cpu() {
        let variables = [(COUNT, 40), (0x40, 5)];
        let text = code_of(&[0x65, 0x48], TEXT, &variables);
        assert_eq!(scan(&[(TEXT, &text)]), Finding::Found(COUNT));
        for prefixes in [&[0x48][..], &[0x64, 0x48], &[0x65, 0x49]] {
            let text = code_of(prefixes, TEXT, &variables);
            assert_eq!(scan(&[(TEXT, &text)]), Finding::NotFound, "{prefixes:x?}");
        }
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
        for prefixes in [&[0x65][..], &[0x65, 0x48]] {
            let text = code_of(prefixes, TEXT, &[(COUNT, MIN_EACH)]);
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

    #[test]
    fn the_witness_is_an_instruction_that_names_the_count() {
        let text = code(TEXT, &[(0x20, 3), (COUNT, 40)]);
        let mut scan = Scan::default();
        assert_eq!(scan.witness(), None);
        scan.feed(TEXT, &text);
        let witness = scan.witness().expect("found");
        let at = (witness - TEXT) as usize;
        let instruction: [u8; INSTRUCTION] = text[at..at + INSTRUCTION].try_into().expect("8");
        assert!(names(witness, &instruction, COUNT));
        assert!(!names(witness + 1, &instruction, COUNT));
        assert!(!names(witness, &[0x90; INSTRUCTION], COUNT));
    }

    #[test]
    fn a_clear_lead_decides_before_the_end_of_the_text() {
        let is_decided = |variables: &[_]| {
            let mut scan = Scan::default();
            scan.feed(TEXT, &code(TEXT, variables));
            scan.is_decided()
        };
        assert!(is_decided(&[(COUNT, DECIDED_EACH), (0x40, 2)]));
        assert!(!is_decided(&[(COUNT, DECIDED_EACH - 1)]));
        assert!(!is_decided(&[(COUNT, DECIDED_EACH), (0x40, 5)]));
    }

    /// Bytes among which there are many instructions of the forms, whole and in parts.
    fn adversarial_bytes() -> impl Strategy<Value = Vec<u8>> {
        let part = prop_oneof![
            Just(vec![0x65, 0xff, 0x05]),
            Just(vec![0x65, 0xff, 0x0d]),
            Just(vec![0x65, 0x48, 0xff, 0x05]),
            Just(vec![0x65]),
            Just(vec![0, 0, 0, 0]),
            Just(vec![0xff, 0xff, 0xff, 0x7f]),
            proptest::collection::vec(any::<u8>(), 0..9),
        ];
        proptest::collection::vec(part, 0..200).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_any_text_is_split(
            start in any::<u64>(),
            text in adversarial_bytes(),
            sizes in proptest::collection::vec(1usize..20, 1..20),
        ) {
            let mut whole = Scan::default();
            whole.feed(start, &text);
            let mut split = Scan::default();
            let mut rest = text.as_slice();
            let mut address = start;
            for size in sizes.iter().cycle() {
                if rest.is_empty() {
                    break;
                }
                let (slice, after) = rest.split_at(rest.len().min(*size));
                split.feed(address, slice);
                address = address.wrapping_add(slice.len() as u64);
                rest = after;
            }
            let uses = |scan: &Scan| format!("{:?}", scan.candidates);
            // An empty scan takes nothing as the continuation of address 0.
            prop_assert_eq!(uses(&whole), uses(&split));
            prop_assert_eq!(whole.finding(), split.finding());
        }

        #[test]
        fn any_slices_leave_the_memory_of_a_scan_bounded(
            slices in proptest::collection::vec((any::<u64>(), adversarial_bytes()), 0..20),
        ) {
            let mut scan = Scan::default();
            for (address, bytes) in &slices {
                scan.feed(*address, bytes);
                prop_assert!(scan.pending.len() < INSTRUCTION);
                prop_assert!(scan.candidates.len() <= MAX_CANDIDATES);
            }
            let found = scan.finding() != Finding::NotFound;
            prop_assert_eq!(scan.witness().is_some(), found);
        }
    }
}
