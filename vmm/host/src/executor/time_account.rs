//! What an executor did with the time of its CPU: CPU time that is charged to guests, CPU time that is
//! charged to none, sleep, and what the host took.

use std::sync::Arc;

use baton_observe::metrics::ExecutorGauges;
use baton_os::sys;
use vcpu_sched::Ns;

use crate::report::ExecutorReport;

/// The account of one executor, which keeps it on its own thread.
pub(super) struct TimeAccount {
    report: ExecutorReport,
    /// When the executor began, ns.
    began: Ns,
    /// The thread's CPU time up to which all is charged, ns.
    charged_to: Ns,
    /// The moment up to which all time is accounted for, as CPU time, sleep or what the host took, ns.
    accounted_to: Ns,
    /// CPU time that other threads spent for this executor since the last charge, ns.
    elsewhere: Ns,
    /// Shows the account to observers.
    gauges: Option<Arc<ExecutorGauges>>,
}

impl TimeAccount {
    /// Begins the account of the calling thread.
    pub(super) fn begin(gauges: Option<Arc<ExecutorGauges>>) -> Self {
        let charged_to = sys::thread_cpu_ns();
        let now = sys::monotonic_ns();
        Self {
            report: ExecutorReport::default(),
            began: now,
            charged_to,
            accounted_to: now,
            elsewhere: 0,
            gauges,
        }
    }

    /// Counts a decision of the policy.
    pub(super) fn count_decision(&mut self) {
        self.report.decisions += 1;
    }

    /// Other threads have spent `ns` of CPU time for this executor.
    pub(super) fn spent_elsewhere(&mut self, ns: Ns) {
        self.elsewhere += ns;
    }

    /// Takes the CPU time since the last charge, ns, which the caller charges to a guest.
    pub(super) fn charge(&mut self) -> Ns {
        let spent = self.take_spent();
        self.report.busy_ns += spent;
        self.show();
        spent
    }

    /// Charges the CPU time since the last charge to no guest, because it led to nothing that runs.
    pub(super) fn leave_unassigned(&mut self) {
        self.report.unassigned_ns += self.take_spent();
        self.show();
    }

    /// The executor has slept since `from`, ns: for lack of work, or because its host CPU was `away`.
    pub(super) fn slept(&mut self, from: Ns, away: bool) {
        self.accounted_to = sys::monotonic_ns();
        let slept = self.accounted_to.saturating_sub(from);
        match away {
            true => self.report.away_ns += slept,
            false => self.report.idle_ns += slept,
        }
    }

    /// Takes the time that is not accounted for, ns, less `spent` ns of CPU time: the host gave it to
    /// others.
    pub(super) fn take_host_steal(&mut self, spent: Ns) -> Ns {
        let now = sys::monotonic_ns();
        let wall = now.saturating_sub(std::mem::replace(&mut self.accounted_to, now));
        wall.saturating_sub(spent)
    }

    /// Ends the account.
    pub(super) fn end(mut self) -> ExecutorReport {
        self.leave_unassigned();
        let wall = sys::monotonic_ns().saturating_sub(self.began);
        self.report.host_steal_ns = wall
            .saturating_sub(self.report.idle_ns + self.report.away_ns)
            .saturating_sub(self.report.busy_ns);
        self.report
    }

    fn take_spent(&mut self) -> Ns {
        let now = sys::thread_cpu_ns();
        let own = now.saturating_sub(std::mem::replace(&mut self.charged_to, now));
        own + std::mem::take(&mut self.elsewhere)
    }

    fn show(&self) {
        if let Some(gauges) = &self.gauges {
            let ExecutorReport {
                busy_ns,
                idle_ns,
                away_ns,
                decisions,
                ..
            } = self.report;
            let wall = sys::monotonic_ns().saturating_sub(self.began);
            gauges.account(wall.saturating_sub(away_ns), busy_ns, idle_ns, decisions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Ns = 1_000_000;

    /// Uses this much CPU time, ns.
    fn compute(ns: Ns) {
        let end = sys::thread_cpu_ns() + ns;
        while sys::thread_cpu_ns() < end {}
    }

    #[test]
    fn cpu_time_is_charged_to_a_guest_or_to_none_and_that_of_other_threads_with_it() {
        let mut account = TimeAccount::begin(None);
        compute(MS);
        account.leave_unassigned();
        account.spent_elsewhere(3_600_000 * MS);
        compute(MS);
        let spent = account.charge();
        assert!(spent >= 3_600_001 * MS, "{spent}");
        let report = account.end();
        assert_eq!(report.busy_ns, spent);
        assert!(report.unassigned_ns >= MS, "{report:?}");
    }

    #[test]
    fn what_the_host_took_is_neither_cpu_time_nor_sleep() {
        let began = sys::monotonic_ns();
        let mut account = TimeAccount::begin(None);
        compute(5 * MS);
        let spent = account.charge();
        let took = account.take_host_steal(spent);
        let wall = sys::monotonic_ns() - began;
        assert!(spent + took <= wall, "{spent} and {took} of {wall}");

        let from = sys::monotonic_ns();
        compute(5 * MS);
        let awake = sys::monotonic_ns();
        account.slept(from, false);
        let took = account.take_host_steal(0);
        let since = sys::monotonic_ns() - awake;
        assert!(took <= since, "{took} of {since}");
    }

    #[test]
    fn time_in_which_the_host_runs_others_is_reported_and_charged_to_nobody() {
        let before = sys::thread_cpu_ns();
        let mut account = TimeAccount::begin(None);
        let begun = sys::thread_cpu_ns();
        compute(MS);
        // The account does not learn of this, as it does not when the host runs another thread.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let slept = 20 * MS;
        compute(MS);
        let least = sys::thread_cpu_ns() - begun;
        let spent = account.charge();
        let most = sys::thread_cpu_ns() - before;
        assert!(
            (least..=most).contains(&spent),
            "{least} <= {spent} <= {most}"
        );
        let took = account.take_host_steal(spent);
        assert!(took >= slept, "{took} of {slept} was taken");
        let report = account.end();
        assert_eq!(report.busy_ns, spent, "nothing is charged later");
        assert!(report.host_steal_ns >= slept, "{report:?}");
    }

    #[test]
    fn sleep_while_the_host_cpu_is_away_is_not_idle_time() {
        for away in [false, true] {
            let mut account = TimeAccount::begin(None);
            let from = sys::monotonic_ns();
            compute(MS);
            account.slept(from, away);
            let report = account.end();
            assert_eq!((report.away_ns > 0, report.idle_ns > 0), (away, !away));
        }
    }
}
