//! A guest's kernel, as the thread that scans it sees it.

use std::sync::{Arc, Weak};

use vm_memory::{Bytes, GuestAddress};

use super::handle::Guest;
use crate::console::LineBuffer;
use crate::inferred::{Finding, ScanRequest, Scanned, ScannedGuest};

/// A guest that the thread does not keep alive for longer than a read.
pub(super) struct ScannedKernel(Weak<Guest>);

impl ScannedKernel {
    pub(super) fn of(guest: &Arc<Guest>) -> Self {
        Self(Arc::downgrade(guest))
    }

    fn guest(&self) -> Option<Arc<Guest>> {
        self.0.upgrade().filter(|guest| !guest.has_ended())
    }
}

impl ScannedGuest for ScannedKernel {
    fn read(&self, address: u64, bytes: &mut [u8]) -> Option<usize> {
        let guest = self.guest()?;
        let memory = guest.memory().regions();
        Some(memory.read(bytes, GuestAddress(address)).unwrap_or(0))
    }

    fn known(&self, request: ScanRequest) -> Option<Finding> {
        self.guest()?.inferred.linked(request)
    }

    fn finished(&self, scanned: Scanned) {
        let Some(guest) = self.guest() else {
            return;
        };
        let notice = guest.inferred.scanned(&scanned);
        guest.record_hints_in_force();
        if let Some(notice) = notice {
            let line = format!("baton: guest {} {notice}\n", guest.name);
            let mut console = LineBuffer::lines(guest.console().clone());
            line.bytes().for_each(|byte| console.push(byte));
        }
    }
}
