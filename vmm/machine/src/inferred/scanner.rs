//! The thread that scans a guest's kernel: on no executor's time, and on no executor's CPU alone.

use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use super::scan::{Finding, Scan};

/// How far before and after a place in the kernel's text is scanned, bytes.
const REACH: u64 = 48 << 20;
/// What is copied from the guest at a time, bytes.
const SLICE: usize = 64 << 10;

/// A place in the text of a guest's kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ScanRequest {
    /// Its virtual address.
    pub(crate) address: u64,
    /// Its guest-physical address. The text around it is contiguous in both.
    pub(crate) physical: u64,
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

    /// A scan has come to its end. False: nothing is left to be scanned.
    fn finished(&self, request: ScanRequest, finding: Finding) -> bool;
}

/// Starts the thread that scans `guest`, and returns where to send what it is to scan. The thread ends with
/// the guest, or when there is nothing left to scan.
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
    for request in requests {
        let Some(finding) = guest.known(request).or_else(|| scan(guest, request)) else {
            return;
        };
        if !guest.finished(request, finding) {
            return;
        }
    }
}

/// Scans the text around the place of `request`. `None`: the guest has ended.
fn scan(guest: &impl ScannedGuest, request: ScanRequest) -> Option<Finding> {
    let mut scan = Scan::default();
    let mut slice = vec![0; SLICE];
    let start = request.physical.saturating_sub(REACH) & !(SLICE as u64 - 1);
    let end = request.physical.saturating_add(REACH);
    for physical in (start..end).step_by(SLICE) {
        let length = guest.read(physical, &mut slice)?.min(SLICE);
        let ahead = physical.wrapping_sub(request.physical);
        scan.feed(request.address.wrapping_add(ahead), &slice[..length]);
    }
    Some(scan.finding())
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

        fn finished(&self, _: ScanRequest, _: Finding) -> bool {
            false
        }
    }

    #[test]
    fn the_count_is_found_wherever_the_text_lies_in_memory() {
        for at in [0, 0xfffe, 0x100_0000, 40 << 20] {
            let request = ScanRequest {
                address: TEXT + 5,
                physical: at + 5,
            };
            assert_eq!(scan(&Ram::new(at), request), Some(Finding::Found(0x100)));
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
            let most = 2 * REACH as usize / SLICE + 1;
            assert!(ram.reads.borrow().len() <= most);
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
}
