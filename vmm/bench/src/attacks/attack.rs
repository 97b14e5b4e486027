//! The attacks, each with the guests of its run.

use std::fmt::{self, Write};
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// Name of the guest that attacks, or that is idle in the attacker's place.
pub const ATTACKER: &str = "attacker";
/// Name of the guest that has a reservation and computes.
pub const VICTIM: &str = "victim";
/// Name of the best-effort guest that keeps all host CPUs busy, where there is one.
const HOG: &str = "neighbour";

/// CPU time that the victim's reservation promises in each period.
pub const BUDGET: Duration = Duration::from_millis(45);
/// The victim's period.
pub const PERIOD: Duration = Duration::from_millis(50);

/// File of the kernel, for attackers with devices: `baton run` gives devices only to guests with a kernel
/// of their own.
pub(super) const KERNEL: &str = "guest.elf";
/// Longest time of a run besides the time for which the victim computes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A way to take CPU time from a neighbour; the names are workloads of the test guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// After a halt, INT enters a handler that computes on.
    EscapeInt,
    /// After a halt, a fault enters a handler that computes on.
    EscapeFault,
    /// After a halt, the vCPU returns to CPL 3 and computes.
    EscapeIret,
    /// The guest keeps its disks and its entropy device busy.
    DeviceHog,
    /// Idle vCPUs wake all the time by their own timers.
    IdleTimers,
    /// Halted vCPUs are interrupted without end.
    IpiStorm,
    /// Halted vCPUs are woken by doorbells without end.
    WakeStorm,
    /// Timers of idle vCPUs' local APICs run at the shortest period.
    ApicTimers,
    /// The vCPUs halt without the host noticing, because the run has no perf events.
    LateHalts,
    /// String instructions write to the serial port without end.
    SerialStrings,
}

/// The guest beside the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Neighbour {
    /// A guest of the attacker's shape whose vCPUs are idle.
    Idle,
    /// The attacker.
    Attacker,
}

/// The shape of the attacker's guest.
struct Shape {
    vcpus: usize,
    /// Reservation of each vCPU; `None`: best effort.
    reservation: Option<&'static str>,
    /// Words on the command line besides the workload.
    words: &'static str,
    disks: usize,
    /// The guest may use only the victim's host CPU.
    with_victim: bool,
    /// Another best-effort guest computes, so that no host CPU of the pool is idle.
    with_hog: bool,
}

const BEST_EFFORT: Shape = Shape {
    vcpus: 32,
    reservation: None,
    words: "",
    disks: 0,
    with_victim: false,
    with_hog: false,
};

impl Attack {
    /// The attack's name, which is that of the workload.
    #[must_use]
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether the run of this attack has no perf events.
    #[must_use]
    pub fn is_without_perf_events(self) -> bool {
        self == Self::LateHalts
    }

    /// Whether some hosts end the guest at this attack: KVM-PVM does not emulate `INT` at CPL 0.
    #[must_use]
    pub fn is_impossible_on_some_hosts(self) -> bool {
        self == Self::EscapeInt
    }

    /// Number of disks of the attacker's guest.
    pub(super) fn disks(self) -> usize {
        self.shape().disks
    }

    fn shape(self) -> Shape {
        match self {
            Self::EscapeInt | Self::EscapeFault | Self::EscapeIret => Shape {
                vcpus: 4,
                reservation: Some("1ms/100ms,hard"),
                words: "period=200us",
                ..BEST_EFFORT
            },
            // One vCPU for each disk, and one for the entropy device. Starting a guest takes some
            // milliseconds of CPU time; the long period has a budget for that at once.
            Self::DeviceHog => Shape {
                vcpus: 7,
                reservation: Some("5ms/500ms,hard"),
                words: "period=20ms",
                disks: 6,
                ..BEST_EFFORT
            },
            Self::IdleTimers => Shape {
                vcpus: 24,
                words: "period=2ms",
                with_hog: true,
                ..BEST_EFFORT
            },
            Self::IpiStorm | Self::WakeStorm => BEST_EFFORT,
            Self::ApicTimers => Shape {
                vcpus: 64,
                ..BEST_EFFORT
            },
            // All that admission leaves beside the victim.
            Self::LateHalts => Shape {
                vcpus: 2,
                reservation: Some("150us/6ms,hard"),
                words: "period=900us",
                with_victim: true,
                ..BEST_EFFORT
            },
            Self::SerialStrings => Shape {
                vcpus: 2,
                reservation: Some("250us/10ms,hard"),
                with_victim: true,
                ..BEST_EFFORT
            },
        }
    }

    /// The guests as a TOML file. The victim works for `time` on the second host CPU of `pool`, or on the
    /// only one, and the run ends with it.
    #[must_use]
    pub fn guests(self, neighbour: Neighbour, pool: &[usize], time: Duration) -> String {
        let shape = self.shape();
        let victims_cpu = pool.get(1).or(pool.first()).copied().unwrap_or_default();
        let (workload, words) = match neighbour {
            Neighbour::Idle => ("idle".to_owned(), ""),
            Neighbour::Attacker => (self.name(), shape.words),
        };
        let mut text = format!(
            "host_cpus = \"{}\"\nduration = \"{}ms\"\nuntil_guest = \"{VICTIM}\"\n\
             [[guest]]\nname = \"{ATTACKER}\"\ncpus = {}\n\
             cmdline = \"workload={workload} seconds=0 hints=on {words}\"\n",
            baton_config::units::format_cpus(pool),
            (time + PATIENCE).as_millis(),
            shape.vcpus,
        );
        // Writing to a String cannot fail.
        if let Some(reservation) = shape.reservation {
            let _ = writeln!(text, "reservation = \"{reservation}\"");
        }
        if shape.with_victim {
            let _ = writeln!(text, "host_cpus = \"{victims_cpu}\"");
        }
        if shape.disks > 0 {
            let disks: Vec<String> = (0..shape.disks).map(disk).collect();
            let _ = writeln!(text, "kernel = \"{KERNEL}\"\ndisks = {disks:?}");
        }
        if shape.with_hog {
            // It has the least weight, so that it does not keep the attacker from starting.
            let _ = writeln!(
                text,
                "[[guest]]\nname = \"{HOG}\"\ncmdline = \"workload=hog seconds=0\"\nweight = 1"
            );
        }
        let _ = writeln!(
            text,
            "[[guest]]\nname = \"{VICTIM}\"\ncmdline = \"workload=hog seconds={}\"\n\
             reservation = \"{}ms/{}ms,hard\"\nhost_cpus = \"{victims_cpu}\"",
            time.as_secs_f64(),
            BUDGET.as_millis(),
            PERIOD.as_millis(),
        );
        text
    }
}

/// Name of the file that backs a disk.
pub(super) fn disk(number: usize) -> String {
    format!("disk{number}.img")
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}
