//! A pool in this process, and guests in processes of their own. Such a process is the test program again, without
//! KVM: its vCPUs' threads answer commands as their guest's behaviour has it.

// Each test program uses a part of this.
#![allow(dead_code)]

pub mod guest;
pub mod pool;

/// Waits until `is_so`, which `what` describes. Only what hangs takes minutes.
pub fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let began = baton_os::sys::monotonic_ns();
    while !is_so() {
        assert!(
            baton_os::sys::monotonic_ns() - began < 120_000_000_000,
            "this does not happen: {what}"
        );
        std::thread::yield_now();
    }
}
