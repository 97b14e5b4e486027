//! `baton check`: can this host run guests, and what is missing?

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::Duration;

use baton_config::MAX_VCPUS;
use baton_config::units::format_cpus;
use baton_host::halt::{self, HaltSignal};
use baton_machine::apic_timer;
use baton_machine::kvm::{self, KvmError};
use baton_os::signals::{self, RtSignal};
use baton_os::sys;
use kvm_ioctls::{Cap, Kvm};

/// Linux before this pays milliseconds whenever a vCPU changes thread.
const FAST_VCPU_MIGRATION: (u32, u32) = (6, 13);
/// How well one thing stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// As it should be.
    Ok,
    /// Guests run, but something is slower or not available.
    Warn,
    /// Guests do not run.
    Missing,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How it stands.
    pub mark: Mark,
    /// What it is.
    pub what: &'static str,
    /// What was found, and what to do about it.
    pub text: String,
}

/// What runs guests' code on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Virtualization {
    /// Intel's.
    Vmx,
    /// AMD's.
    Svm,
    /// Software: user code runs as it is, kernel code is emulated.
    Pvm,
    /// Nothing that is known.
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

/// All that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// In the order of looking.
    pub findings: Vec<Finding>,
    /// Whether there is the hardware virtualization that Linux guests need.
    pub linux: bool,
}

impl Report {
    /// Looks at this host.
    #[must_use]
    pub fn of_this_host() -> Self {
        let mut report = Self::default();
        report.processor();
        match kvm::open() {
            Ok(kvm) => {
                report.ok("/dev/kvm", "usable, API version 12".to_owned());
                report.capabilities(&kvm);
            }
            Err(error @ KvmError::Lacks(_)) => report.missing("KVM", error.to_string()),
            Err(error) => report.missing("/dev/kvm", error.to_string()),
        }
        report.kernel(&read("/proc/sys/kernel/osrelease"));
        report.exit_on_halt();
        report.timers(kvm::shortest_timer_period());
        report.deadline();
        report.cpus();
        report
    }

    /// Whether nothing is missing that guests need.
    #[must_use]
    pub fn can_run(&self) -> bool {
        self.findings.iter().all(|f| f.mark != Mark::Missing)
    }

    fn add(&mut self, mark: Mark, what: &'static str, text: String) {
        self.findings.push(Finding { mark, what, text });
    }

    fn ok(&mut self, what: &'static str, text: String) {
        self.add(Mark::Ok, what, text);
    }

    fn warn(&mut self, what: &'static str, text: String) {
        self.add(Mark::Warn, what, text);
    }

    fn missing(&mut self, what: &'static str, text: String) {
        self.add(Mark::Missing, what, text);
    }

    fn processor(&mut self) {
        let cpuinfo = read("/proc/cpuinfo");
        let has = |flag: &str| has_cpu_flag(&cpuinfo, flag);
        self.virtualization(Virtualization::of(
            has,
            Path::new("/sys/module/kvm_pvm").exists(),
        ));
        if !has("constant_tsc") {
            self.warn(
                "clock",
                "the TSC changes its rate; guest times are only approximate".to_owned(),
            );
        }
    }

    fn virtualization(&mut self, found: Virtualization) {
        match found {
            Virtualization::Vmx => self.ok("virtualization", "Intel VMX".to_owned()),
            Virtualization::Svm => self.ok("virtualization", "AMD SVM".to_owned()),
            Virtualization::Pvm => self.warn(
                "virtualization",
                "no VMX or SVM, but KVM-PVM: Linux guests cannot run, for the code of a guest's kernel \
                 is emulated, which is slow and lacks instructions; the built-in test guest runs, and \
                 others that compute at CPL 3"
                    .to_owned(),
            ),
            Virtualization::None => self.warn(
                "virtualization",
                "neither VMX nor SVM in /proc/cpuinfo, so Linux guests may not run: enable it in the \
                 firmware, or nested virtualization if this is a virtual machine"
                    .to_owned(),
            ),
        }
        self.linux = matches!(found, Virtualization::Vmx | Virtualization::Svm);
    }

    fn capabilities(&mut self, kvm: &Kvm) {
        self.ok(
            "KVM",
            format!(
                "all {} capabilities needed, up to {} vCPUs a guest",
                kvm::REQUIRED.len(),
                kvm.get_max_vcpus()
            ),
        );
        if kvm.check_extension_raw(u64::from(kvm_bindings::KVM_CAP_HALT_POLL)) == 0 {
            self.warn(
                "halt polling",
                "cannot be turned off per guest (Linux 5.10 and newer can): halts are noticed up \
                 to 200us late"
                    .to_owned(),
            );
        }
        match halt::check_wake_step(kvm) {
            Ok(()) => match halt::check_wake_events() {
                Ok(()) => self.ok(
                    "exit on wake",
                    "works, by tracepoints: a vCPU that wakes executes nothing before its turn"
                        .to_owned(),
                ),
                Err(error) => self.warn("exit on wake", error.to_string()),
            },
            Err(error) => self.warn("exit on wake", late(&error.to_string())),
        }
        if !kvm.check_extension(Cap::GetTscKhz) {
            self.missing(
                "clock",
                "KVM does not tell the TSC's rate: the host's TSC is unstable".to_owned(),
            );
        }
    }

    fn kernel(&mut self, release: &str) {
        let release = release.trim();
        match sys::parse_version(release) {
            Some(version) if version < FAST_VCPU_MIGRATION => self.warn(
                "Linux",
                format!(
                    "{release}: before 6.13 a vCPU that changes thread costs milliseconds, so each \
                     vCPU gets a thread of its own (--vcpu-threads)"
                ),
            ),
            Some(_) => self.ok("Linux", release.to_owned()),
            None => self.warn("Linux", format!("version '{release}' is not understood")),
        }
    }

    fn exit_on_halt(&mut self) {
        // The signal may come before the event is closed again, and must then do nothing.
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
            Ok(()) => self.ok("exit on halt", "works".to_owned()),
            Err(error) => self.warn("exit on halt", late(&error)),
        }
    }

    fn timers(&mut self, shortest: Duration) {
        if shortest.is_zero() {
            return self.warn(
                "APIC timers",
                format!(
                    "{} cannot be read, so Baton looks after the timers of every guest",
                    kvm::TIMER_PERIOD
                ),
            );
        }
        let vcpus = MAX_VCPUS as u32;
        let rate = |vcpus| apic_timer::possible(vcpus, shortest);
        let most = apic_timer::most(vcpus);
        self.ok(
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

    fn deadline(&mut self) {
        match in_thread(|| sys::set_deadline_policy(1_000_000, 100_000_000, 100_000_000)) {
            Ok(()) => self.ok(
                "SCHED_DEADLINE",
                "permitted (--sched host-deadline)".to_owned(),
            ),
            Err(error) => self.warn(
                "SCHED_DEADLINE",
                format!(
                    "not permitted ({error}), so --sched host-deadline is not: it takes \
                     CAP_SYS_NICE and an affinity of all CPUs"
                ),
            ),
        }
    }

    fn cpus(&mut self) {
        let cpus = match sys::affinity() {
            Ok(cpus) => cpus,
            Err(error) => return self.warn("host CPUs", error.to_string()),
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
            self.ok("host CPUs", format!("{pool}, each a core of its own"));
        } else {
            self.warn(
                "host CPUs",
                format!(
                    "{pool}; hyperthreads share a core ({}): budgets count time, not work, so give \
                     --host-cpus one of each",
                    siblings.join(" ")
                ),
            );
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self
            .findings
            .iter()
            .map(|x| x.what.len())
            .max()
            .unwrap_or(0);
        for finding in &self.findings {
            let mark = match finding.mark {
                Mark::Ok => "ok     ",
                Mark::Warn => "warn   ",
                Mark::Missing => "MISSING",
            };
            writeln!(f, "{mark}  {:<width$}  {}", finding.what, finding.text)?;
        }
        writeln!(
            f,
            "\n{}",
            match (self.can_run(), self.linux) {
                (true, true) => "This host can run guests.",
                (true, false) =>
                    "This host can run guests that are made for it, but no Linux guests: see virtualization.",
                (false, _) => "This host cannot run guests yet.",
            }
        )
    }
}

/// What late halts or wakes mean.
fn late(why: &str) -> String {
    format!(
        "{why}; until then runs with reservations are refused, or accepted by --late-halts allow"
    )
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Tries something on a thread of its own, which takes the change with it when it ends.
fn in_thread<E: Send>(try_it: impl FnOnce() -> Result<(), E> + Send) -> Result<(), E> {
    std::thread::scope(|scope| {
        let attempt = scope.spawn(try_it);
        attempt
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
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
    fn old_kernel_is_a_warning_that_names_the_way_out() {
        let mut report = Report::default();
        report.kernel("6.1.0");
        assert_eq!(report.findings[0].mark, Mark::Warn);
        assert!(report.findings[0].text.contains("--vcpu-threads"));
        report.kernel("6.13.0");
        assert_eq!(report.findings[1].mark, Mark::Ok);
        assert!(report.can_run());
    }

    #[test]
    fn what_the_timers_of_the_largest_guest_could_do_is_said() {
        let mut report = Report::default();
        report.timers(Duration::from_micros(200));
        let text = &report.findings[0].text;
        assert!(text.contains("min_timer_period_us is 200"), "{text}");
        assert!(text.contains("1270000 times for 254"), "{text}");
        assert!(text.contains("11000 for 254"), "{text}");
        report.timers(Duration::ZERO);
        assert_eq!(report.findings[1].mark, Mark::Warn);
    }

    #[test]
    fn a_host_without_hardware_virtualization_is_not_said_to_run_linux() {
        for (flags, is_pvm, linux) in [
            (&["vmx"][..], false, true),
            (&["svm"], true, true),
            (&[], true, false),
            (&[], false, false),
        ] {
            let mut report = Report::default();
            report.virtualization(Virtualization::of(|flag| flags.contains(&flag), is_pvm));
            assert!(report.can_run());
            let text = report.to_string();
            let last = text.lines().last().unwrap_or_default();
            assert_eq!(last.contains("no Linux guests"), !linux, "{text}");
            assert_eq!(report.findings[0].text.contains("Linux guests"), !linux);
        }
    }

    #[test]
    fn what_nothing_uses_is_not_looked_at() {
        let report = Report::of_this_host();
        assert!(report.findings.iter().all(|f| f.what != "SCHED_FIFO"));
    }

    #[test]
    fn cpu_flags_are_whole_words() {
        let cpuinfo = "processor : 0\nflags : fpu svm_lock vmx\n";
        assert!(has_cpu_flag(cpuinfo, "vmx"));
        assert!(!has_cpu_flag(cpuinfo, "svm"));
    }

    #[test]
    fn missing_thing_says_that_guests_do_not_run() {
        let mut report = Report::default();
        report.missing("/dev/kvm", KvmError::Missing.to_string());
        assert!(!report.can_run());
        let text = report.to_string();
        assert!(
            text.contains("MISSING") && text.contains("kvm_intel"),
            "{text}"
        );
    }
}
