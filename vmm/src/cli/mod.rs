//! The command line.

use baton_bench::BenchCommand;
use clap::{Parser, Subcommand};

pub use check::CheckArgs;
pub use console::ConsoleArgs;
pub use guest::GuestArgs;
pub use pool::{CpusArgs, CpusCommand, LogFormatArg, PoolArgs, PoolCommand};
pub use pool_guest::{
    EventArgs, ListArgs, LogsArgs, NamedArgs, PoolFlag, SetArgs, StartArgs, StopArgs,
};
pub use run::RunArgs;
pub use sandbox::SandboxFlags;
pub use sim::{SimArgs, SimSched};
pub use top::TopArgs;
pub use vm::{VmArgs, VmSummary};

pub mod check;
pub mod console;
pub mod guest;
pub mod pool;
pub mod pool_guest;
pub mod run;
pub mod sandbox;
pub mod sim;
pub mod top;
pub mod vm;

/// A KVM virtual machine monitor with its own CPU scheduler.
#[derive(Debug, Parser)]
#[command(name = "baton", version, about, max_term_width = 100)]
pub struct Cli {
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// The exit statuses of [`baton_run::exit_status`], as `baton run --help` describes them.
const EXIT_STATUS: &str = "\
Exit status:
  0         The guests ended well, or you stopped them
  1 to 122  The code of the guest, if exactly one failed and gave such a code
  123       Guests failed in another way
  125       Baton itself failed, or nothing was run; standard error has the reason";

/// The commands of `baton`.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run guests: one from flags, or those of a TOML file
    #[command(after_long_help = EXIT_STATUS)]
    Run(Box<RunArgs>),
    /// Run one guest in a process of its own, whose vCPUs a pool (baton pool) runs
    #[command(after_long_help = EXIT_STATUS)]
    Vm(Box<VmArgs>),
    /// Measure this host, and Baton on it
    Bench {
        /// What to measure.
        #[command(subcommand)]
        command: Box<BenchCommand>,
    },
    /// Own host CPUs and run guests there that other processes bring and the API changes
    Pool(Box<PoolArgs>),
    /// Start a guest of the pool, in a process of its own
    Start(StartArgs),
    /// List the guests of the pool
    List(ListArgs),
    /// Show a guest of the pool and its vCPUs
    Show(NamedArgs),
    /// Pause a guest of the pool: it gets no CPU time
    Pause(NamedArgs),
    /// Resume a guest of the pool that is paused
    Resume(NamedArgs),
    /// Press the power button of a guest of the pool, and power it off if that is not enough
    Stop(StopArgs),
    /// Kill the process of a guest of the pool
    Kill(NamedArgs),
    /// Reset a guest of the pool, which then boots anew
    Reboot(NamedArgs),
    /// Give a guest of the pool another reservation, another weight or other host CPUs
    Set(SetArgs),
    /// Show what a guest prints that baton start has started
    Logs(LogsArgs),
    /// Follow what happens in the pool
    Events(EventArgs),
    /// Watch a running instance: which vCPU runs, and on whose budget
    Top(TopArgs),
    /// Attach this terminal to the console of a guest; Ctrl-a d detaches
    Console(ConsoleArgs),
    /// Run the policy alone in a simulator, and draw its decisions
    Sim(SimArgs),
    /// Check whether this host can run guests, and what is missing; or what Baton does with a kernel
    Check(CheckArgs),
}

#[cfg(test)]
mod tests;
