//! What the threads of this process may do.

use baton_host::halt::HaltSignal;
use baton_os::signals::{self, RtSignal};
use baton_os::sys;

use super::report::{HostReport, late};

/// Checks whether a thread can be signalled when its vCPU halts.
pub(super) fn exit_on_halt(report: &mut HostReport) {
    // The signal may arrive before the event is closed, and must have no effect then.
    let armed = signals::install_empty_handler(RtSignal::HostSchedKick.number())
        .map_err(|error| error.to_string())
        .and_then(|()| {
            in_thread(|| {
                HaltSignal::arm(RtSignal::HostSchedKick.number())
                    .map(drop)
                    .map_err(|error| error.to_string())
            })
        });
    match armed {
        Ok(()) => report.ok("exit on halt", "works".to_owned()),
        Err(error) => report.warn("exit on halt", late(&error)),
    }
}

/// Checks whether threads may have the policy SCHED_FIFO.
pub(super) fn fifo(report: &mut HostReport) {
    // Threads that preempt executors have one more than these.
    const LEAST: u8 = 2;
    match in_thread(|| sys::set_fifo_policy(LEAST)) {
        Ok(()) => report.ok(
            "SCHED_FIFO",
            "permitted (--executor-priority)".to_owned(),
        ),
        Err(error) => report.warn(
            "SCHED_FIFO",
            format!(
                "not permitted ({error}), so --executor-priority is not, and ordinary programs on the \
                 pool's host CPUs take time from reservations: it takes CAP_SYS_NICE, or a limit of \
                 real-time priorities (ulimit -r) of 2 or more"
            ),
        ),
    }
}

/// Checks whether threads may have the policy SCHED_DEADLINE.
pub(super) fn deadline(report: &mut HostReport) {
    match in_thread(|| sys::set_deadline_policy(1_000_000, 100_000_000, 100_000_000)) {
        Ok(()) => report.ok(
            "SCHED_DEADLINE",
            "permitted (--sched host-deadline)".to_owned(),
        ),
        Err(error) => report.warn(
            "SCHED_DEADLINE",
            format!(
                "not permitted ({error}), so --sched host-deadline is not: it takes \
                 CAP_SYS_NICE and an affinity of all CPUs"
            ),
        ),
    }
}

/// Makes an attempt on a thread of its own, so that its effect on the thread ends with the thread.
fn in_thread<E: Send>(attempt: impl FnOnce() -> Result<(), E> + Send) -> Result<(), E> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(attempt);
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
