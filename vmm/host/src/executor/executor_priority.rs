//! Checks that threads may have the priority of executors, before any thread is started that would need it.

use std::io;
use std::thread;

use baton_config::ExecutorPriority;
use baton_os::sys;
use thiserror::Error;

/// The host refuses the priority.
#[derive(Debug, Error)]
#[error(
    "the host refuses SCHED_FIFO with priority {above} ({source}), which --executor-priority {priority} needs: \
     give the baton binary CAP_SYS_NICE (sudo setcap cap_sys_nice+ep), allow the priority (ulimit -r, or \
     LimitRTPRIO= of a systemd unit), or leave --executor-priority out"
)]
pub struct PriorityError {
    /// The priority of the executors.
    pub priority: ExecutorPriority,
    /// The priority of the threads that preempt executors, which is the highest.
    pub above: u8,
    /// The host's reason.
    pub source: io::Error,
}

/// Checks that the host permits `priority`.
///
/// # Errors
/// If it does not.
pub(super) fn check(priority: ExecutorPriority) -> Result<(), PriorityError> {
    let Some(above) = priority.above() else {
        return Ok(());
    };
    // On a thread of its own, because it cannot become ordinary again without a trace.
    let permitted = thread::scope(|scope| {
        let attempt = thread::Builder::new().spawn_scoped(scope, || sys::set_fifo_policy(above))?;
        attempt
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    permitted.map_err(|source| PriorityError {
        priority,
        above,
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_priority_nothing_is_needed_and_a_refusal_names_the_ways_out() {
        assert!(check(ExecutorPriority::Off).is_ok());
        let error = PriorityError {
            priority: ExecutorPriority::Fifo(1),
            above: 2,
            source: io::ErrorKind::PermissionDenied.into(),
        };
        let text = error.to_string();
        for part in [
            "priority 2",
            "--executor-priority 1 ",
            "CAP_SYS_NICE",
            "ulimit -r",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains('\n'));
    }
}
