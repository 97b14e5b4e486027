//! The numbers of the real-time signals that this program sends to its own threads, in one place, so that
//! no two uses share one.

use vmm_sys_util::signal::SIGRTMIN;

/// Interrupts a system call, and does nothing else: its handler is empty.
#[must_use]
pub fn interrupt() -> libc::c_int {
    SIGRTMIN()
}

/// Ends the `KVM_RUN` of an executor's vCPU, or keeps it from starting: its handler sets
/// `immediate_exit`.
#[must_use]
pub fn executor_kick() -> libc::c_int {
    SIGRTMIN() + 1
}

/// Ends the `KVM_RUN` in which a halted vCPU sleeps: its handler is empty.
#[must_use]
pub fn end_sleep() -> libc::c_int {
    SIGRTMIN() + 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_uses_share_a_signal() {
        let mut numbers = [interrupt(), executor_kick(), end_sleep()];
        numbers.sort_unstable();
        assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]));
    }
}
