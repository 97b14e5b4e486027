//! The numbers of the signals that end a `KVM_RUN`.

use vmm_sys_util::signal::SIGRTMIN;

/// `SIGTRAP`, which a perf event on KVM's wake-up raises in the thread on which a halted vCPU sleeps. Its
/// handler is empty.
pub const WAKE_TRAP: libc::c_int = libc::SIGTRAP;

/// The real-time signals of this program. Each ends a `KVM_RUN` of the thread that it is sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RtSignal {
    /// Stops a vCPU's thread under the host's scheduler. Its handler is empty.
    HostSchedKick,
    /// Makes an executor consult the policy again. The kick of another thread, the preemption timer and a
    /// vCPU's halt send it. Its handler sets `immediate_exit` of the vCPU that the thread runs or is about
    /// to run.
    ExecutorKick,
    /// Interrupts the sleep of a halted vCPU. The thread that needs the vCPU sends it, or the runaway guard. Its
    /// handler is empty: the sender sets `immediate_exit` before.
    SleepInterrupt,
}

impl RtSignal {
    /// The signal's number.
    #[must_use]
    pub fn number(self) -> libc::c_int {
        SIGRTMIN() + self as libc::c_int
    }
}

/// Sends `signo` to thread `tid` of this process. Nothing happens if that thread has ended.
pub fn send(tid: libc::pid_t, signo: libc::c_int) {
    // SAFETY: no memory is involved; the kernel refuses the thread id of another process.
    unsafe { libc::syscall(libc::SYS_tgkill, libc::getpid(), tid, signo) };
}
