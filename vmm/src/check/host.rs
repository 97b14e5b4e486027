//! The host kernel and the host CPUs.

use std::fs;
use std::time::Duration;

use baton_config::MAX_VCPUS;
use baton_config::units::format_cpus;
use baton_machine::apic_timer;
use baton_machine::kvm;
use baton_os::sys;

use super::report::HostReport;

/// The first Linux on which a vCPU changes threads without a delay of milliseconds.
const FAST_VCPU_MIGRATION: (u32, u32) = (6, 13);

/// The contents of a file of the kernel; empty if it cannot be read.
pub(super) fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Checks the release of the host kernel.
pub(super) fn kernel(report: &mut HostReport, release: &str) {
    let release = release.trim();
    match sys::parse_version(release) {
        Some(version) if version < FAST_VCPU_MIGRATION => report.warn(
            "Linux",
            format!(
                "{release}: before 6.13 a vCPU that changes thread costs milliseconds, so each \
                 vCPU gets a thread of its own (--vcpu-threads)"
            ),
        ),
        Some(_) => report.ok("Linux", release.to_owned()),
        None => report.warn("Linux", format!("version '{release}' is not understood")),
    }
}

/// Checks the limit on the timers of local APICs, whose shortest period is `shortest`.
pub(super) fn apic_timers(report: &mut HostReport, shortest: Duration) {
    if shortest.is_zero() {
        return report.warn(
            "APIC timers",
            format!(
                "{} cannot be read, so Baton limits the timers of every guest itself",
                kvm::TIMER_PERIOD
            ),
        );
    }
    let vcpus = MAX_VCPUS as u32;
    let rate = |vcpus| apic_timer::possible(vcpus, shortest);
    let most = apic_timer::most(vcpus);
    report.ok(
        "APIC timers",
        format!(
            "kvm.min_timer_period_us is {}: the timers of a guest could interrupt this host {} \
             times a second for each vCPU, {} times for {vcpus}; Baton allows {} for one and {most} \
             for {vcpus} (with kvm.min_timer_period_us=1000 KVM does it, and guests of up to 10 vCPUs \
             save an ioctl when a vCPU halts)",
            shortest.as_micros(),
            rate(1),
            rate(vcpus),
            apic_timer::most(1),
        ),
    );
}

/// Checks which host CPUs this process may use.
pub(super) fn cpus(report: &mut HostReport) {
    let cpus = match sys::affinity() {
        Ok(cpus) => cpus,
        Err(error) => return report.warn("host CPUs", error.to_string()),
    };
    let mut siblings: Vec<String> = cpus
        .iter()
        .map(|cpu| {
            read(&format!(
                "/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list"
            ))
            .trim()
            .to_owned()
        })
        .filter(|list| list.contains([',', '-']))
        .collect();
    siblings.sort();
    siblings.dedup();
    let pool = format!("{} usable: {}", cpus.len(), format_cpus(&cpus));
    if siblings.is_empty() {
        report.ok("host CPUs", format!("{pool}, each a core of its own"));
    } else {
        report.warn(
            "host CPUs",
            format!(
                "{pool}; hyperthreads share a core ({}): budgets count time, not work, so give \
                 --host-cpus one of each",
                siblings.join(" ")
            ),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::Mark;

    #[test]
    fn an_old_kernel_gives_a_warning_that_names_the_remedy() {
        let mut report = HostReport::default();
        kernel(&mut report, "6.1.0");
        assert_eq!(report.findings[0].mark, Mark::Warn);
        assert!(report.findings[0].text.contains("--vcpu-threads"));
        kernel(&mut report, "6.13.0");
        assert_eq!(report.findings[1].mark, Mark::Ok);
        assert!(report.can_run());
    }

    #[test]
    fn the_interrupt_rate_of_the_largest_guests_timers_is_reported() {
        let mut report = HostReport::default();
        apic_timers(&mut report, Duration::from_micros(200));
        let text = &report.findings[0].text;
        assert!(text.contains("min_timer_period_us is 200"), "{text}");
        assert!(text.contains("1270000 times for 254"), "{text}");
        assert!(text.contains("11000 for 254"), "{text}");
        apic_timers(&mut report, Duration::ZERO);
        assert_eq!(report.findings[1].mark, Mark::Warn);
    }
}
