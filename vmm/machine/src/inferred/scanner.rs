//! The thread that scans a guest's kernel: on no executor's time, and on no executor's CPU alone.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use rustix::process::setpriority_process;
use rustix::thread::gettid;

use super::scan::{Finding, Scan};

/// A thread of the default niceness gets 9 times the time of the scan. At 19 it gets 68 times that, and where vCPUs use
/// all host CPUs, the scan, which takes tens of milliseconds, would not end for seconds.
const NICENESS: i32 = 10;
/// How far before and after a place in the kernel's text is scanned, bytes.
const REACH: u64 = 48 << 20;
/// What is copied from the guest at a time, bytes.
const SLICE: usize = 64 << 10;

/// Text on both sides of the place is scanned by turns, so many bytes at a time. The place is in the text, and
/// most counts are found in a few of these.
const STRETCH: u64 = 1 << 20;

/// A place in the text of a guest's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScanRequest {
    /// Its virtual address.
    pub(crate) address: u64,
    /// Its guest-physical address. The text around it is contiguous in both.
    pub(crate) physical: u64,
}

/// The result of a scan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Scanned {
    pub(crate) request: ScanRequest,
    pub(crate) finding: Finding,
    /// The virtual address of an instruction that names the variable which was found; `None` if that was known
    /// without a scan.
    pub(crate) witness: Option<u64>,
}

/// A guest whose kernel is scanned.
pub(crate) trait ScannedGuest: Send + 'static {
    /// Copies what the guest has in RAM from guest-physical `address` on into `bytes`, and returns how many
    /// bytes that was. `None`: the guest has ended.
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<usize>;

    /// What is known of the kernel around the place of `request` without a scan.
    fn known(&self, _request: ScanRequest) -> Option<Finding> {
        None
    }

    /// A scan has come to its end.
    fn finished(&self, scanned: Scanned);
}

/// Starts the thread that scans `guest`, and returns where to send what it is to scan. The thread ends with
/// the guest.
///
/// # Errors
/// If the host refuses a thread.
pub(super) fn spawn(guest: impl ScannedGuest) -> io::Result<SyncSender<ScanRequest>> {
    let (sender, requests) = sync_channel(1);
    thread::Builder::new()
        .name("scan".to_owned())
        .spawn(move || serve(&guest, &requests))?;
    Ok(sender)
}

fn serve(guest: &impl ScannedGuest, requests: &Receiver<ScanRequest>) {
    // On Linux, the niceness is that of a thread. To raise it needs no privilege.
    let _ = setpriority_process(Some(gettid()), NICENESS);
    for request in requests {
        let known = guest.known(request).map(|finding| Scanned {
            request,
            finding,
            witness: None,
        });
        let Some(scanned) = known.or_else(|| scan(guest, request)) else {
            return;
        };
        guest.finished(scanned);
    }
}

/// Scans the text around the place of `request`, until the count is found. `None`: the guest has ended.
pub(super) fn scan(guest: &impl ScannedGuest, request: ScanRequest) -> Option<Scanned> {
    let mut scan = Scan::default();
    let mut slice = vec![0; SLICE];
    for start in stretches(request.physical) {
        for physical in (start..start.saturating_add(STRETCH)).step_by(SLICE) {
            let length = guest.read(physical, &mut slice)?.min(SLICE);
            let ahead = physical.wrapping_sub(request.physical);
            scan.feed(request.address.wrapping_add(ahead), &slice[..length]);
        }
        if scan.is_decided() {
            break;
        }
    }
    Some(Scanned {
        request,
        finding: scan.finding(),
        witness: scan.witness(),
    })
}

/// Where the stretches around `place` begin, the nearest first.
fn stretches(place: u64) -> impl Iterator<Item = u64> {
    let middle = place & !(STRETCH - 1);
    (0..REACH).step_by(STRETCH as usize).flat_map(move |away| {
        let ahead = middle.checked_add(away);
        let behind = middle.checked_sub(away + STRETCH);
        [ahead, behind].into_iter().flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// RAM with text that counts in a variable at address 0x100.
    struct Ram {
        text: Vec<u8>,
        at: u64,
        ends_after: Option<usize>,
        reads: RefCell<Vec<u64>>,
    }

    const TEXT: u64 = 0xffff_ffff_8100_0000;

    impl Ram {
        fn new(at: u64) -> Self {
            let mut text = Vec::new();
            for form in [0x05, 0x0d].repeat(50) {
                text.extend([0x65, 0xff, form]);
                let after = TEXT + text.len() as u64 + 4;
                text.extend((0x100u64.wrapping_sub(after) as i32).to_le_bytes());
            }
            Self {
                text,
                at,
                ends_after: None,
                reads: RefCell::default(),
            }
        }
    }

    // The scan is called directly in these tests, on one thread.
    impl ScannedGuest for Ram {
        fn read(&self, address: u64, bytes: &mut [u8]) -> Option<usize> {
            let mut reads = self.reads.borrow_mut();
            if self.ends_after == Some(reads.len()) {
                return None;
            }
            reads.push(address);
            for (ahead, byte) in bytes.iter_mut().enumerate() {
                let text = (address - self.at.min(address)) as usize + ahead;
                let skip = self.at.saturating_sub(address) as usize;
                *byte = match text.checked_sub(skip) {
                    Some(text) => self.text.get(text).copied().unwrap_or(0),
                    None => 0,
                };
            }
            Some(bytes.len())
        }

        fn finished(&self, _: Scanned) {}
    }

    #[test]
    fn the_count_is_found_wherever_the_text_lies_in_memory() {
        for at in [0, 0xfffe, 0x100_0000, 40 << 20] {
            let request = ScanRequest {
                address: TEXT + 5,
                physical: at + 5,
            };
            let scanned = scan(&Ram::new(at), request).expect("the guest runs");
            assert_eq!(scanned.finding, Finding::Found(0x100), "text at {at:#x}");
            assert!(scanned.witness.is_some());
        }
    }

    #[test]
    fn no_more_is_read_than_the_bound() {
        let ram = Ram::new(0);
        for physical in [0, 1 << 30, u64::MAX] {
            ram.reads.borrow_mut().clear();
            let request = ScanRequest {
                address: TEXT,
                physical,
            };
            assert!(scan(&ram, request).is_some());
            let mut reads = ram.reads.borrow_mut();
            assert!(reads.len() <= 2 * REACH as usize / SLICE);
            let all = reads.len();
            reads.sort_unstable();
            reads.dedup();
            assert_eq!(reads.len(), all, "nothing is read twice");
        }
    }

    #[test]
    fn a_guest_that_ends_ends_the_scan() {
        let mut ram = Ram::new(0);
        ram.ends_after = Some(3);
        let request = ScanRequest {
            address: TEXT,
            physical: 0,
        };
        assert_eq!(scan(&ram, request), None);
        assert_eq!(ram.reads.borrow().len(), 3);
    }

    #[test]
    fn a_count_that_is_clear_ends_the_scan_near_its_place() {
        let mut ram = Ram::new(64 << 20);
        let few = |ram: &Ram| {
            let request = ScanRequest {
                address: TEXT,
                physical: ram.at,
            };
            ram.reads.borrow_mut().clear();
            scan(ram, request).expect("the guest runs");
            ram.reads.borrow().len()
        };
        assert_eq!(few(&ram), 2 * REACH as usize / SLICE, "50 of each form");
        let text = std::mem::take(&mut ram.text);
        for copy in 0..4u64 {
            // The same variable, from further ahead.
            let moved = copy * text.len() as u64;
            for instruction in text.chunks(7) {
                let relative = i32::from_le_bytes(instruction[3..].try_into().expect("4"));
                ram.text.extend(&instruction[..3]);
                ram.text.extend((relative - moved as i32).to_le_bytes());
            }
        }
        assert_eq!(few(&ram), STRETCH as usize / SLICE, "200 of each form");
    }
}
