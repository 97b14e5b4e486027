//! The attacks, each with the guests of its run.

use std::fmt::{self, Write};
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

/// Name of the guest that attacks, or is idle in its place.
pub const ATTACKER: &str = "attacker";
/// Name of the guest that has a reservation and computes.
pub const VICTIM: &str = "victim";
/// Name of the guest that computes on what is left, where there is one.
const NEIGHBOUR: &str = "neighbour";

/// What the victim is promised in each period.
pub const BUDGET: Duration = Duration::from_millis(45);
/// The victim's period.
pub const PERIOD: Duration = Duration::from_millis(50);

/// The kernel's file, for attackers with devices: the built-in guest has none.
pub(super) const KERNEL: &str = "guest.elf";
/// Most time that guests take besides the victim's work.
const PATIENCE: Duration = Duration::from_secs(10);

/// A way to take CPU time from a neighbour; the names are workloads of the test guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Attack {
    /// After a halt, INT enters a handler that keeps the vCPU.
    EscapeInt,
    /// After a halt, a fault enters a handler that keeps the vCPU.
    EscapeFault,
    /// After a halt, the vCPU returns to CPL 3 and computes.
    EscapeIret,
    /// Disks and the source of randomness are kept busy.
    DeviceHog,
    /// Idle vCPUs wake by themselves all the time.
    IdleTimers,
    /// Halted vCPUs are interrupted without end.
    IpiStorm,
    /// Halted vCPUs are woken by doorbells without end.
    WakeStorm,
    /// Timers of idle vCPUs' local APICs run at the shortest period.
    ApicTimers,
    /// The vCPUs halt, and the host does not notice it, for the run has no perf events.
    LateHalts,
    /// String instructions write to the serial port without end.
    SerialStrings,
}

/// Who is beside the victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beside {
    /// A guest of the attacker's shape whose vCPUs are idle.
    Idle,
    /// The attacker.
    Attacker,
}

/// The attacker's guest.
struct Shape {
    vcpus: usize,
    /// Of each vCPU; none: best effort.
    reservation: Option<&'static str>,
    /// On the command line besides the workload.
    words: &'static str,
    disks: usize,
    /// It may use only the victim's host CPU.
    with_victim: bool,
    /// Another best-effort guest computes, so that no host CPU of the pool sleeps.
    neighbour: bool,
}

const BEST_EFFORT: Shape = Shape {
    vcpus: 32,
    reservation: None,
    words: "",
    disks: 0,
    with_victim: false,
    neighbour: false,
};

impl Attack {
    /// Its name, which is that of the workload.
    #[must_use]
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// Whether its run goes without perf events.
    #[must_use]
    pub fn is_without_perf_events(self) -> bool {
        self == Self::LateHalts
    }

    /// Whether there are hosts that stop the guest at it: KVM-PVM does not emulate `INT` at CPL 0.
    #[must_use]
    pub fn is_impossible_on_some_hosts(self) -> bool {
        self == Self::EscapeInt
    }

    /// Disks that its guest has.
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
            // One vCPU for each disk, and one for the source of randomness. The long period lets it begin
            // soon, for starting a guest takes some milliseconds.
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
                neighbour: true,
                ..BEST_EFFORT
            },
            Self::IpiStorm | Self::WakeStorm => BEST_EFFORT,
            Self::ApicTimers => Shape {
                vcpus: 64,
                ..BEST_EFFORT
            },
            // As much as admission leaves beside the victim.
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
    pub fn guests(self, beside: Beside, pool: &[usize], time: Duration) -> String {
        let shape = self.shape();
        let victims_cpu = pool.get(1).or(pool.first()).copied().unwrap_or_default();
        let (workload, words) = match beside {
            Beside::Idle => ("idle".to_owned(), ""),
            Beside::Attacker => (self.name(), shape.words),
        };
        let mut text = format!(
            "host_cpus = \"{}\"\nduration = \"{}ms\"\nuntil_guest = \"{VICTIM}\"\n\
             [[guest]]\nname = \"{ATTACKER}\"\ncpus = {}\n\
             cmdline = \"workload={workload} seconds=0 hints=on {words}\"\n",
            baton_config::units::format_cpus(pool),
            (time + PATIENCE).as_millis(),
            shape.vcpus,
        );
        // A string takes all that is written to it.
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
        if shape.neighbour {
            // Of the least weight, so that it does not keep the attacker from starting.
            let _ = writeln!(
                text,
                "[[guest]]\nname = \"{NEIGHBOUR}\"\ncmdline = \"workload=hog seconds=0\"\nweight = 1"
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

/// Name of the file of a disk.
pub(super) fn disk(number: usize) -> String {
    format!("disk{number}.img")
}

impl fmt::Display for Attack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.name())
    }
}
