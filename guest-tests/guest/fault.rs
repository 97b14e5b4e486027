//! Unexpected exceptions: the guest reports what happened and where, and ends.

use crate::{console, exit, ring0, testdev};

/// What the CPU and the stub behind the gate pushed.
#[repr(C)]
pub struct Frame {
    vector: u64,
    error: u64,
    rip: u64,
    cs: u64,
    rflags: u64,
    rsp: u64,
    ss: u64,
}

const VECTOR_PAGE_FAULT: u64 = 14;

/// Reports the exception and ends the guest.
pub extern "C" fn report(frame: &Frame) -> ! {
    let Frame {
        vector,
        error,
        rip,
        cs,
        rflags,
        rsp,
        ss,
    } = *frame;
    console::line(format_args!(
        "guest: fault {vector} error {error:#x} rip {rip:#x} rsp {rsp:#x} \
         cs {cs:#x} ss {ss:#x} rflags {rflags:#x}"
    ));
    if vector == VECTOR_PAGE_FAULT {
        console::line(format_args!("guest: cr2 {:#x}", ring0::read_cr2()));
    }
    exit::end(testdev::EXIT_FAULT)
}
