//! The guest's preempt count can be found in its text as that of an x86 Linux kernel can.

#![allow(clippy::unwrap_used)] // A test may panic.

use std::collections::BTreeMap;

use guest_tests::GUEST_ELF;

/// `incl %gs:offset(%rip)` and `decl %gs:offset(%rip)` without the distance to the offset.
const INCREMENT: [u8; 3] = [0x65, 0xff, 0x05];
const DECREMENT: [u8; 3] = [0x65, 0xff, 0x0d];
const PAUSE: [u8; 2] = [0xf3, 0x90];
/// The work under a lock is four instructions `imul %reg, %reg` of four bytes each and the end of a loop. These
/// are the bytes in each between its prefix and its registers.
const MULTIPLY: [u8; 2] = [0x0f, 0xaf];
const WORK_SIZE: usize = 4 * 4;
/// Bytes on each side of a vCPU's RIP in which a host may look for a PAUSE to recognise a waiter.
const NEAR: usize = 48;

fn number<const N: usize>(at: usize) -> usize {
    let mut bytes = [0; 8];
    bytes[..N].copy_from_slice(&GUEST_ELF[at..at + N]);
    usize::try_from(u64::from_le_bytes(bytes)).unwrap()
}

/// The section with code, and its address.
fn text() -> (&'static [u8], usize) {
    const EXECUTABLE: usize = 4;
    let (sections, size, count) = (number::<8>(40), number::<2>(58), number::<2>(60));
    let mut headers = (0..count).map(|section| sections + section * size);
    let header = headers.find(|at| number::<8>(at + 8) & EXECUTABLE != 0);
    let header = header.expect("a section with code");
    let (offset, length) = (number::<8>(header + 24), number::<8>(header + 32));
    (
        &GUEST_ELF[offset..offset + length],
        number::<8>(header + 16),
    )
}

/// Where `bytes` occur in the text.
fn occurrences(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let windows = text().0.windows(bytes.len()).enumerate();
    windows.filter_map(move |(at, window)| (window == bytes).then_some(at))
}

/// How often the text has this instruction with each offset from the base of GS.
fn offsets(instruction: [u8; 3]) -> BTreeMap<usize, usize> {
    let (text, address) = text();
    let mut counts = BTreeMap::new();
    for at in occurrences(&instruction) {
        let next = at + instruction.len() + 4;
        let Some(distance) = text.get(next - 4..next) else {
            continue;
        };
        let distance = i32::from_le_bytes(distance.try_into().unwrap());
        let offset = (address + next).wrapping_add_signed(distance as isize);
        *counts.entry(offset).or_insert(0) += 1;
    }
    counts
}

#[test]
fn count_is_changed_at_one_offset_from_gs_by_the_instructions_of_linux_in_many_places() {
    let [increments, decrements] = [INCREMENT, DECREMENT].map(offsets);
    let all: Vec<usize> = increments
        .keys()
        .chain(decrements.keys())
        .copied()
        .collect();
    assert_eq!(all.len(), 2, "{increments:?} {decrements:?}");
    assert_eq!(all[0], all[1], "{increments:?} {decrements:?}");
    assert_eq!(all[0] % 4, 0, "an aligned word");
    // A kernel has some two thousand of each.
    for counts in [increments, decrements] {
        assert!(counts[&all[0]] >= 48, "{counts:?}");
    }
}

#[test]
fn work_is_too_far_from_a_pause_for_a_holder_to_look_like_a_waiter() {
    let (text, _) = text();
    let is_work = |code: &[u8]| code.chunks(4).all(|multiply| multiply[1..3] == MULTIPLY);
    let windows = text.windows(WORK_SIZE).enumerate();
    let mut work = windows.filter_map(|(at, code)| is_work(code).then_some(at));
    let at = work.next().expect("the work");
    assert_eq!(work.next(), None, "the work is there once");
    let near = &text[at - NEAR..at + WORK_SIZE + NEAR];
    assert!(!near.windows(2).any(|code| code == PAUSE), "{near:x?}");
}
