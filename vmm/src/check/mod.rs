//! `baton check`: whether this host can run guests, and what is missing; or what Baton does with a kernel.

use baton_machine::kvm::{self, KvmError};

pub use kernel::{KernelReport, kernel_file};
pub use report::{Finding, HostReport, Mark};

mod capabilities;
mod host;
mod kernel;
mod processor;
mod report;
mod threads;

/// Checks this host.
#[must_use]
pub fn this_host() -> HostReport {
    let mut report = HostReport::default();
    processor::check(&mut report);
    match kvm::open() {
        Ok(kvm) => {
            report.ok("/dev/kvm", "usable, API version 12".to_owned());
            capabilities::check(&mut report, &kvm);
        }
        Err(error @ KvmError::Lacks(_)) => report.missing("KVM", error.to_string()),
        Err(error) => report.missing("/dev/kvm", error.to_string()),
    }
    host::kernel(&mut report, &host::read("/proc/sys/kernel/osrelease"));
    threads::exit_on_halt(&mut report);
    host::apic_timers(&mut report, kvm::shortest_timer_period());
    threads::fifo(&mut report);
    threads::deadline(&mut report);
    host::cpus(&mut report);
    report
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_policy_of_the_host_that_a_flag_needs_is_checked_once() {
        let report = this_host();
        for policy in ["SCHED_FIFO", "SCHED_DEADLINE"] {
            let findings = report.findings.iter().filter(|f| f.what == policy);
            assert_eq!(findings.count(), 1, "{policy}");
        }
    }
}
