//! How an executor has a vCPU of another process run: it gives the command, waits for the answer, and reads the
//! thread's clock.
//!
//! A kick of the executor has to reach the vCPU's thread. The command is in force before the kick target shows that
//! the executor waits, so a kicker that finds that can end the command. A kick before that is seen when the target
//! is to show it.
//!
//! A thread that sleeps while it is to run keeps the CPU from others as one that runs. So what it slept is charged:
//! all time of the run but its CPU time, that in which it was ready, and that of the executor itself.

use baton_link::LinkError;
use baton_link::foreign_clock::{ForeignThreadClock, ThreadTimes};
use baton_link::pool_side::WaitLimits;
use baton_machine::Exit;
use baton_os::sys;
use vcpu_sched::{CpuId, Ns};

use super::foreign_vcpu::ForeignVcpu;
use super::kick_target::KickTarget;
use super::kicks::Kicks;

/// A vCPU's thread is overdue if it comes back later than this after the end of its run or a kick, ns. Time in which
/// others keep it from the CPU on which it is to run does not count. With a priority for vCPUs, its own process cannot
/// do that (`foreign_priority.rs`).
const OVERDUE: Ns = 100_000_000;
/// If it comes back later than this, it is overdue in any case, ns.
const LATEST: Ns = 2_000_000_000;
/// How often an executor that waits checks whether the process is gone, ns.
const CHECK_EVERY: Ns = 10_000_000;

/// Where a thread slept for less than this in a run, the time goes into hand-overs, ns.
const SHORT_SLEEP: Ns = 20_000;

/// Where an executor runs vCPUs of other processes.
#[derive(Debug)]
pub(super) struct ForeignRun {
    cpu: CpuId,
    /// The same as the host numbers it.
    host_cpu: usize,
    /// The clock of the executor's thread. Without one its own delays are taken for those of the vCPUs' threads.
    own: Option<ForeignThreadClock>,
    /// What that clock showed last.
    own_last: ThreadTimes,
}

impl ForeignRun {
    /// The calling thread is the executor of `cpu`, which is the host's `host_cpu`.
    pub(super) fn new(cpu: CpuId, host_cpu: usize) -> Self {
        Self {
            cpu,
            host_cpu,
            own: ForeignThreadClock::of_this_thread().ok(),
            own_last: ThreadTimes::default(),
        }
    }

    /// Runs `vcpu` until `until`, ns, a doorbell, a halt, its guest's end, or a kick of the executor at `target`.
    /// Also returns the time to charge, ns: the CPU time of its thread, and what that has slept. May return
    /// [`Exit::Interrupted`] without cause.
    pub(super) fn run(
        &mut self,
        vcpu: &mut ForeignVcpu,
        until: Option<Ns>,
        target: &KickTarget,
    ) -> (Exit, Ns) {
        if target.is_kicked() {
            return (Exit::Interrupted, 0);
        }
        vcpu.last_cpu = Some(self.cpu);
        let from = sys::monotonic_ns();
        let result = self.hand_over(vcpu, until, target);
        let now = sys::monotonic_ns();
        let wall = now.saturating_sub(from);
        let times = vcpu.take_times();
        let in_time = vcpu.check_ran(times.ran, wall, now);
        let slept = self.slept(wall, times);
        let used = times.ran.saturating_add(vcpu.charge_slept(slept, now));
        match result.and_then(|exit| in_time.map(|()| exit)) {
            Ok(exit) => (exit, used),
            Err(error) => {
                vcpu.guest().fail(&error);
                (Exit::Ended, used)
            }
        }
    }

    /// How much of the `wall` time of a run the vCPU's thread has slept, ns, which has these `times`.
    fn slept(&mut self, wall: Ns, times: ThreadTimes) -> Ns {
        let rest = wall.saturating_sub(times.ran.saturating_add(times.waited));
        if rest < SHORT_SLEEP {
            return 0;
        }
        let Some(Ok(own)) = self.own.as_ref().map(ForeignThreadClock::times) else {
            return rest;
        };
        // Since the last time that this was read, which may be more than in this run, never less.
        let last = std::mem::replace(&mut self.own_last, own);
        let own_ran = own.ran.saturating_sub(last.ran);
        let own_waited = own.waited.saturating_sub(last.waited);
        rest.saturating_sub(own_ran.saturating_add(own_waited))
    }

    fn hand_over(
        &self,
        vcpu: &mut ForeignVcpu,
        until: Option<Ns>,
        target: &KickTarget,
    ) -> Result<Exit, LinkError> {
        let commanded = vcpu.command_run(until, self.host_cpu as u32);
        if commanded.is_err() {
            vcpu.end_run();
        }
        commanded?;
        if !target.wait_for_thread(vcpu.kick()) {
            // The kick came before the target could show whom to kick.
            vcpu.kick().kick(sys::monotonic_ns());
        }
        let exit = wait(vcpu, until);
        // Before anything else runs here: without a command the thread is an ordinary one.
        vcpu.end_run();
        target.waited_for_thread();
        exit
    }
}

/// Waits for the answer to a run until `until`, ns.
fn wait(vcpu: &mut ForeignVcpu, until: Option<Ns>) -> Result<Exit, LinkError> {
    let now = sys::monotonic_ns();
    let mut patience = Patience::from(now);
    loop {
        let limits = WaitLimits {
            until,
            bound: patience.bound,
            check_every: CHECK_EVERY,
        };
        match vcpu.wait(&limits) {
            Err(LinkError::Overdue { late_ns }) => {
                let late = Late {
                    now: sys::monotonic_ns(),
                    late: late_ns,
                    ran: vcpu.ran(),
                    is_kept: vcpu.is_kept_from_running(),
                };
                if !patience.excuses(late) {
                    return Err(LinkError::Overdue { late_ns });
                }
            }
            result => return result,
        }
    }
}

/// A thread that has not come back.
#[derive(Clone, Copy, Debug)]
struct Late {
    now: Ns,
    /// So much later than the bound, ns.
    late: Ns,
    /// CPU time of the thread since the command, ns.
    ran: Ns,
    /// Whether it would run if others did not keep it from the CPU on which it is to run.
    is_kept: bool,
}

/// How late a thread may come back. What keeps it from coming back in time is not always its own doing.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// When the thread got its command, ns.
    from: Ns,
    /// So much later than the end of its run or than a kick, ns.
    bound: Ns,
    /// The bound does not exceed this, ns.
    latest: Ns,
    /// Whether it has been late.
    was_late: bool,
}

impl Patience {
    fn from(from: Ns) -> Self {
        Self {
            from,
            bound: OVERDUE,
            latest: LATEST,
            was_late: false,
        }
    }

    /// Whether the `thread` may come back later still: the bound is moved. If not, it is overdue.
    fn excuses(&mut self, thread: Late) -> bool {
        let due = thread.now.saturating_sub(thread.late + self.bound);
        let own_time = thread.ran.saturating_sub(due.saturating_sub(self.from));
        // If the host stood still, executor and thread are late together, and the thread gets a moment. It is not
        // the thread's time in which the executor did not run.
        self.latest = self.latest.saturating_add(thread.late);
        let stood_still = !std::mem::replace(&mut self.was_late, true);
        let is_kept = thread.is_kept && own_time < OVERDUE;
        self.bound = self.bound.saturating_add(thread.late + CHECK_EVERY);
        (is_kept || stood_still) && self.bound <= self.latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Ns = 1_000_000;

    /// How often a thread is excused that had to be back 10 ms after its command, and has run for `ran`. The executor
    /// first finds it `late`, and then in time.
    fn excused(ran: Ns, is_kept: bool, late: Ns) -> u64 {
        let mut patience = Patience::from(0);
        let at = |patience: &Patience, late| Late {
            now: 10 * MS + patience.bound + late,
            late,
            ran,
            is_kept,
        };
        let mut count = u64::from(patience.excuses(at(&patience, late)));
        while patience.excuses(at(&patience, 0)) {
            count += 1;
        }
        count
    }

    #[test]
    fn a_thread_that_is_kept_from_running_is_not_overdue_until_the_latest_time() {
        for late in [0, 10 * LATEST] {
            assert_eq!(
                excused(20 * MS, true, late),
                (LATEST - OVERDUE) / CHECK_EVERY
            );
        }
    }

    #[test]
    fn a_thread_that_sleeps_or_has_run_for_so_long_by_itself_gets_a_moment_once() {
        for late in [0, 10 * LATEST] {
            assert_eq!(excused(20 * MS, false, late), 1);
            assert_eq!(excused(10 * MS + OVERDUE, true, late), 1);
        }
    }
}
