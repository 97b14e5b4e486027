//! The benchmarks as subcommands of `baton bench`.

use baton_os::signals::StopSignals;
use clap::Subcommand;

use crate::attacks::{self, AttacksArgs};
use crate::error::BenchError;
use crate::finished::Finished;
use crate::lhp::{self, LhpArgs};
use crate::linux::{self, LinuxArgs};
use crate::switch::{self, SwitchArgs};

/// What to measure.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Measure lock-holder preemption: locks under overcommit, by Baton's policies and the host kernel's
    Lhp(LhpArgs),
    /// Measure the machine itself: doorbell, switch, kick, migration, halt and wake, preemption, proxy
    Switch(SwitchArgs),
    /// Measure Linux guests: stock and patched kernels under overcommit
    Linux(LinuxArgs),
    /// Measure what a victim with a reservation loses beside hostile guests
    Attacks(AttacksArgs),
}

impl BenchCommand {
    /// Makes the benchmark and writes its files. A stop signal ends it early; what was measured until then
    /// is reported.
    ///
    /// # Errors
    /// If nothing can be run on this host, or a file cannot be written.
    pub fn run(&self, signals: Option<&StopSignals>) -> Result<Finished, BenchError> {
        match self {
            Self::Lhp(args) => lhp::run(args, signals),
            Self::Switch(args) => switch::run(args, signals),
            Self::Linux(args) => linux::run(args, signals),
            Self::Attacks(args) => attacks::run(args, signals),
        }
    }
}
