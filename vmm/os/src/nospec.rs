//! Indices that a guest chooses, safe from speculation.
//!
//! A processor guesses the outcome of a bounds check and goes on. With an index that a guest has made
//! it guess wrong about, it reads any memory of this process, other guests' included, and though the
//! result is thrown away, what it has read can be found out from the caches (Spectre variant 1). The
//! index is therefore masked by arithmetic, which is not guessed: it is in bounds in any case.

use std::arch::asm;

/// All ones if `index < length`, and zero if not, without a branch.
///
/// As Linux's `array_index_mask_nospec`; in assembly, because a compiler that sees arithmetic behind a
/// bounds check may conclude that it has no effect.
fn mask(index: usize, length: usize) -> usize {
    let mask: usize;
    // SAFETY: compares two numbers and subtracts with borrow; only the named register and the flags
    // change.
    unsafe {
        asm!(
            "cmp {index}, {length}",
            "sbb {mask}, {mask}",
            index = in(reg) index,
            length = in(reg) length,
            mask = out(reg) mask,
            options(pure, nomem, nostack),
        );
    }
    mask
}

/// `index` if it is below `length`, else `None`; also in speculation it is below `length`, or zero.
pub fn below(index: usize, length: usize) -> Option<usize> {
    (index < length).then(|| index & mask(index, length))
}

/// [`slice::get`] for an index that a guest chooses.
pub fn get<T>(items: &[T], index: usize) -> Option<&T> {
    below(index, items.len()).and_then(|index| items.get(index))
}

/// [`slice::get_mut`] for an index that a guest chooses.
pub fn get_mut<T>(items: &mut [T], index: usize) -> Option<&mut T> {
    below(index, items.len()).and_then(|index| items.get_mut(index))
}

/// The first `length` of `items`, for a length that a guest chooses.
pub fn first_mut<T>(items: &mut [T], length: usize) -> Option<&mut [T]> {
    below(length, items.len().checked_add(1)?).and_then(|length| items.get_mut(..length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mask_is_all_ones_below_the_length_and_zero_from_there_on() {
        for length in [0, 1, 2, 254, usize::MAX] {
            for index in [0, 1, 2, 253, 254, usize::MAX - 1, usize::MAX] {
                let expected = if index < length { usize::MAX } else { 0 };
                assert_eq!(mask(index, length), expected, "{index} below {length}");
            }
        }
    }

    #[test]
    fn items_are_those_of_the_slice() {
        let mut items = [10, 11, 12];
        for index in [0, 1, 2, 3, usize::MAX] {
            let expected = items.get(index).copied();
            assert_eq!(get(&items, index).copied(), expected);
            assert_eq!(get_mut(&mut items, index).copied(), expected);
        }
        for length in [0, 1, 3, 4, usize::MAX] {
            let expected = items.get(..length).map(<[i32]>::len);
            assert_eq!(
                first_mut(&mut items, length).map(|first| first.len()),
                expected
            );
        }
        assert_eq!(
            (below(2, 3), below(3, 3), below(0, 0)),
            (Some(2), None, None)
        );
    }
}
