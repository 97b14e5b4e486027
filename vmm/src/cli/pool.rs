//! The flags of `baton pool`.

use std::path::PathBuf;
use std::time::Duration;

use baton_config::units;
use baton_config::values::{CpuList, Switch, parse_cpu_list};
use baton_config::{ConfigError, ExecutorPriority, SchedMode};
use baton_service::log::LogFormat;
use baton_service::settings::{self, PoolSettings};
use clap::{Args, Subcommand, ValueEnum};
use tracing::Level;

use super::pool_guest::{ListArgs, PoolFlag};
use super::run::{Defer, parse_defer_flag};

/// Flags of `baton pool`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct PoolArgs {
    /// What to do instead of running a pool.
    #[command(subcommand)]
    pub command: Option<PoolCommand>,
    /// TOML file with the settings and the grants; flags override the settings [default:
    /// /etc/baton/pool.toml, if there is one]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the pool's sockets [default: /run/baton/pool for root, and pool in the runtime
    /// directory of other users]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Host CPUs to own, such as 0-3 or 0,2 [default: all that this process may use]
    #[arg(long, value_name = "CPUS", value_parser = parse_cpu_list)]
    pub host_cpus: Option<CpuList>,
    /// Use host CPUs even if another process owns them; then neither keeps its reservations
    #[arg(long)]
    pub share_cpus: bool,
    /// The scheduler, which decides which vCPU runs [default: baton]
    #[arg(long)]
    pub sched: Option<PoolSched>,
    /// Run preempted lock holders on the budgets of those that wait for them [default: on]
    #[arg(long)]
    pub proxy: Option<Switch>,
    /// How long the preemption of a lock holder may be deferred, or off [default: 50us]
    #[arg(long, value_name = "TIME", value_parser = parse_defer_flag)]
    pub defer: Option<Defer>,
    /// Longest time for which a vCPU without a reservation runs while others wait [default: 4ms]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub slice: Option<Duration>,
    /// Run executors before ordinary programs, under SCHED_FIFO with this priority, 1 to 48, or off
    /// [default: off]
    #[arg(long, value_name = "N")]
    pub executor_priority: Option<ExecutorPriority>,
    /// Least important events in the log: error, warn, info, debug or trace
    #[arg(long, value_name = "LEVEL", default_value = "info")]
    pub log_level: Level,
    /// Form of the log on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormatArg,
}

/// What `baton pool` does instead of running a pool.
#[derive(Debug, Subcommand)]
pub enum PoolCommand {
    /// Show the pool that runs, its host CPUs and what you may do there
    Status(ListArgs),
    /// Give the pool that runs more host CPUs, or take some from it
    Cpus {
        /// What to do.
        #[command(subcommand)]
        change: CpusCommand,
    },
}

/// What is done with host CPUs of a pool that runs.
#[derive(Debug, Subcommand)]
pub enum CpusCommand {
    /// Give the pool these host CPUs: guests that are pinned to none use them at once
    Add(CpusArgs),
    /// Have the pool give these host CPUs up, if what is reserved fits on the others
    Remove(CpusArgs),
}

/// Flags of `baton pool cpus`.
#[derive(Debug, Args)]
pub struct CpusArgs {
    /// The host CPUs, such as 2-3 or 1,3
    #[arg(value_name = "CPUS", value_parser = parse_cpu_list)]
    pub cpus: CpuList,
    /// The pool.
    #[command(flatten)]
    pub pool: PoolFlag,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// The schedulers that a pool can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum PoolSched {
    /// Baton's own, with reservations.
    Baton,
    /// Equal slices in turn, for comparison. It takes no reservations.
    RoundRobin,
}

/// Forms of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormatArg {
    /// A line for each event, as journald reads it where it is started by systemd.
    Text,
    /// A JSON object for each event.
    Json,
}

impl From<LogFormatArg> for LogFormat {
    fn from(format: LogFormatArg) -> Self {
        match format {
            LogFormatArg::Text => Self::Text,
            LogFormatArg::Json => Self::Json,
        }
    }
}

impl PoolArgs {
    /// The settings of the file, and those of flags in their place.
    ///
    /// # Errors
    /// If the file cannot be read, or makes no sense.
    pub fn settings(&self) -> Result<PoolSettings, ConfigError> {
        let mut settings = settings::read(self.config.as_deref())?;
        if self.dir.is_some() {
            settings.directory.clone_from(&self.dir);
        }
        let run = &mut settings.run;
        if let Some(CpuList(cpus)) = &self.host_cpus {
            run.host_cpus.clone_from(cpus);
        }
        if self.share_cpus {
            run.share_cpus = true;
        }
        match self.sched {
            Some(PoolSched::Baton) => run.sched = SchedMode::Baton,
            Some(PoolSched::RoundRobin) => run.sched = SchedMode::RoundRobin,
            None => {}
        }
        if let Some(proxy) = self.proxy {
            run.proxy = proxy == Switch::On;
            run.given.proxy = true;
        }
        if let Some(Defer(defer)) = self.defer {
            run.defer = defer;
            run.given.defer = true;
        }
        if let Some(slice) = self.slice {
            run.slice = slice;
            run.given.slice = true;
        }
        if let Some(priority) = self.executor_priority {
            run.executor_priority = priority;
        }
        Ok(settings)
    }
}
