//! What this host's KVM can do.

use baton_host::halt;
use baton_machine::kvm;
use kvm_ioctls::{Cap, Kvm};

use super::report::{HostReport, late};

/// Checks the capabilities of `kvm`.
pub(super) fn check(report: &mut HostReport, kvm: &Kvm) {
    let value = |capability| kvm.check_extension_raw(capability);
    required(report, value, kvm.get_max_vcpus());
    optional(report, value);
    exit_on_wake(report, kvm);
}

/// The number of a capability.
const fn number(capability: Cap) -> u64 {
    capability as u64
}

/// Checks the capabilities without which no guest runs. `value` returns the value of a capability by its
/// number: 0 if KVM lacks it.
fn required(report: &mut HostReport, value: impl Fn(u64) -> i32, max_vcpus: usize) {
    let mut has_all = true;
    for (capability, name) in kvm::REQUIRED {
        if value(number(capability)) <= 0 {
            has_all = false;
            report.missing("KVM", kvm::KvmError::Lacks(name).to_string());
        }
    }
    if has_all {
        report.ok(
            "KVM",
            format!(
                "all {} capabilities needed, up to {max_vcpus} vCPUs a guest",
                kvm::REQUIRED.len(),
            ),
        );
    }
    if value(number(Cap::GetTscKhz)) <= 0 {
        report.missing(
            "clock",
            "KVM does not report the TSC's rate: the host's TSC is unstable".to_owned(),
        );
    }
}

/// Checks the capabilities that make guests faster.
fn optional(report: &mut HostReport, value: impl Fn(u64) -> i32) {
    if value(u64::from(kvm_bindings::KVM_CAP_HALT_POLL)) <= 0 {
        report.warn(
            "halt polling",
            "cannot be turned off per guest (Linux 5.10 and newer can): halts are noticed up \
             to 200us late"
                .to_owned(),
        );
    }
}

/// Checks whether a vCPU that wakes exits before it executes an instruction.
fn exit_on_wake(report: &mut HostReport, kvm: &Kvm) {
    match halt::check_wake_step(kvm) {
        Ok(()) => match halt::check_wake_events() {
            Ok(()) => report.ok(
                "exit on wake",
                "works, by tracepoints: a vCPU that wakes executes nothing before its turn"
                    .to_owned(),
            ),
            Err(error) => report.warn("exit on wake", error.to_string()),
        },
        Err(error) => report.warn("exit on wake", late(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::report::Mark;

    /// The findings about a host that has every capability but the one of this number.
    fn without(missing: u64) -> HostReport {
        let mut report = HostReport::default();
        let value = |capability| i32::from(capability != missing);
        required(&mut report, value, 288);
        optional(&mut report, value);
        report
    }

    #[test]
    fn a_host_with_all_capabilities_can_run_guests() {
        let report = without(u64::MAX);
        assert!(report.findings.iter().all(|f| f.mark == Mark::Ok));
        assert!(report.to_string().contains("up to 288 vCPUs"), "{report}");
    }

    #[test]
    fn each_required_capability_that_a_host_lacks_is_missing() {
        for (capability, name) in [
            (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
            (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
            (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
            (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
            (Cap::MpState, "KVM_CAP_MP_STATE"),
            (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
            (Cap::GetTscKhz, "the TSC's rate"),
        ] {
            let report = without(number(capability));
            assert!(!report.can_run(), "{name}");
            assert!(report.to_string().contains(name), "{name}: {report}");
        }
    }

    #[test]
    fn a_host_without_halt_polling_per_guest_can_run_guests_with_a_warning() {
        let report = without(u64::from(kvm_bindings::KVM_CAP_HALT_POLL));
        assert!(report.can_run());
        let warning = report.findings.iter().find(|f| f.mark == Mark::Warn);
        assert_eq!(warning.map(|f| f.what), Some("halt polling"));
    }
}
