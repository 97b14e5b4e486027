//! The command line.

use baton_bench::BenchCommand;
use clap::{Parser, Subcommand};

pub use check::CheckArgs;
pub use run::RunArgs;
pub use sim::{SimArgs, SimSched};
pub use top::TopArgs;

pub mod check;
pub mod run;
pub mod sim;
pub mod top;

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
    /// Measure this host, and Baton on it
    Bench {
        /// What to measure.
        #[command(subcommand)]
        command: Box<BenchCommand>,
    },
    /// Watch a running instance: which vCPU runs, and on whose budget
    Top(TopArgs),
    /// Run the policy alone in a simulator, and draw its decisions
    Sim(SimArgs),
    /// Check whether this host can run guests, and what is missing; or what Baton does with a kernel
    Check(CheckArgs),
}

#[cfg(test)]
mod tests;
