//! Whether a vCPU waits: a loop that waits on x86 has a PAUSE instruction, and is short.

/// How far from the instruction pointer the PAUSE of a loop may be, bytes.
const REACH: u64 = 40;
const PAUSE: [u8; 2] = [0xf3, 0x90];
const PAGE: u64 = 4096;

/// Whether there is a PAUSE near `rip`. `read` fills the buffer with the bytes at a virtual address, all of
/// which are in one page, and returns whether it could.
pub(super) fn is_near(rip: u64, read: impl FnOnce(u64, &mut [u8]) -> bool) -> bool {
    let page = rip & !(PAGE - 1);
    let at = rip & (PAGE - 1);
    let from = at.saturating_sub(REACH);
    let to = (at + REACH + PAUSE.len() as u64).min(PAGE);
    let mut bytes = [0; (2 * REACH) as usize + PAUSE.len()];
    let bytes = &mut bytes[..(to - from) as usize];
    read(page + from, bytes) && bytes.windows(PAUSE.len()).any(|code| code == PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether a PAUSE at `at` is near `rip`.
    fn sees(rip: u64, at: u64) -> bool {
        is_near(rip, |address, bytes| {
            assert_eq!(
                address / PAGE,
                (address + (bytes.len() as u64 - 1)) / PAGE,
                "one page"
            );
            for (byte, code) in PAUSE.iter().enumerate() {
                let place = (at + byte as u64).checked_sub(address);
                if let Some(slot) = place.and_then(|place| bytes.get_mut(place as usize)) {
                    *slot = *code;
                }
            }
            true
        })
    }

    #[test]
    fn a_pause_before_or_behind_the_instruction_pointer_is_seen_within_reach() {
        let rip = 0xffff_ffff_8123_4500;
        for at in [rip - REACH, rip - 2, rip, rip + REACH] {
            assert!(sees(rip, at));
        }
        for at in [rip - REACH - 1, rip + REACH + 1] {
            assert!(!sees(rip, at));
        }
    }

    #[test]
    fn the_search_stays_in_the_page_of_the_instruction_pointer() {
        for rip in [0, 0x1000, 0x1fff, u64::MAX, u64::MAX - PAGE + 1] {
            assert!(sees(rip, rip & !1) || rip & 0xfff == 0xfff);
            assert!(!sees(rip, (rip & !(PAGE - 1)).wrapping_sub(2)));
        }
    }

    #[test]
    fn code_that_cannot_be_read_has_no_pause() {
        let filled = |_, bytes: &mut [u8]| {
            bytes.copy_from_slice(&PAUSE.repeat(41)[..bytes.len()]);
            false
        };
        assert!(!is_near(0x1800, filled));
    }
}
