//! The processor: hardware virtualization and a stable clock.

use std::path::Path;

use super::host::read;
use super::report::HostReport;

/// The way in which this host runs the code of guests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Virtualization {
    /// Intel VMX.
    Vmx,
    /// AMD SVM.
    Svm,
    /// KVM-PVM, in software: user code runs directly, kernel code is emulated.
    Pvm,
    /// No known way.
    None,
}

impl Virtualization {
    fn of(has: impl Fn(&str) -> bool, is_pvm: bool) -> Self {
        match (has("vmx"), has("svm"), is_pvm) {
            (true, ..) => Self::Vmx,
            (_, true, _) => Self::Svm,
            (.., true) => Self::Pvm,
            _ => Self::None,
        }
    }
}

/// Checks the processor.
pub(super) fn check(report: &mut HostReport) {
    let cpuinfo = read("/proc/cpuinfo");
    let has = |flag: &str| has_cpu_flag(&cpuinfo, flag);
    let is_pvm = Path::new("/sys/module/kvm_pvm").exists();
    virtualization(report, Virtualization::of(has, is_pvm));
    if !has("constant_tsc") {
        report.warn(
            "clock",
            "the TSC changes its rate, so guest times are only approximate".to_owned(),
        );
    }
}

fn virtualization(report: &mut HostReport, found: Virtualization) {
    match found {
        Virtualization::Vmx => report.ok("virtualization", "Intel VMX".to_owned()),
        Virtualization::Svm => report.ok("virtualization", "AMD SVM".to_owned()),
        Virtualization::Pvm => report.warn(
            "virtualization",
            "no VMX or SVM, but KVM-PVM: Linux guests cannot run, for the code of a guest's kernel \
             is emulated, which is slow and lacks instructions; the built-in test guest runs, and \
             others that compute at CPL 3"
                .to_owned(),
        ),
        Virtualization::None => report.warn(
            "virtualization",
            "neither VMX nor SVM in /proc/cpuinfo, so Linux guests may not run: enable it in the \
             firmware, or nested virtualization if this is a virtual machine"
                .to_owned(),
        ),
    }
    report.linux = matches!(found, Virtualization::Vmx | Virtualization::Svm);
}

fn has_cpu_flag(cpuinfo: &str, flag: &str) -> bool {
    cpuinfo
        .lines()
        .find(|line| line.starts_with("flags"))
        .is_some_and(|line| line.split_ascii_whitespace().any(|word| word == flag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_hardware_virtualization_is_not_reported_to_run_linux() {
        for (flags, is_pvm, linux) in [
            (&["vmx"][..], false, true),
            (&["svm"], true, true),
            (&[], true, false),
            (&[], false, false),
        ] {
            let mut report = HostReport::default();
            virtualization(
                &mut report,
                Virtualization::of(|flag| flags.contains(&flag), is_pvm),
            );
            assert!(report.can_run());
            let text = report.to_string();
            let last = text.lines().last().unwrap_or_default();
            assert_eq!(last.contains("no Linux guests"), !linux, "{text}");
            assert_eq!(report.findings[0].text.contains("Linux guests"), !linux);
        }
    }

    #[test]
    fn cpu_flags_are_whole_words() {
        let cpuinfo = "processor : 0\nflags : fpu svm_lock vmx\n";
        assert!(has_cpu_flag(cpuinfo, "vmx"));
        assert!(!has_cpu_flag(cpuinfo, "svm"));
    }
}
