//! The flags of `baton run`.

use std::path::PathBuf;
use std::time::Duration;

use baton_config::file::{self, parse_defer, parse_shutdown_timeout};
use baton_config::units::{self, UnitError};
use baton_config::values::{CpuList, Switch, parse_cpu_list};
use baton_config::{
    ConfigError, Control, ExecutorPriority, GuestConfig, LateHalts, MetricsTarget, OnReboot,
    RestartPolicy, RunConfig, SchedMode, SummaryForm, Timeline, VcpuThreads,
};
use clap::Args;

use super::guest::GuestArgs;

/// Flags of `baton run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// TOML file with the guests and the settings of the run; flags override the settings
    #[arg(value_name = "HOST.TOML")]
    pub file: Option<PathBuf>,

    /// The guest.
    #[command(flatten)]
    pub guest: GuestArgs,

    /// What follows when the guest resets itself: it has ended, or it starts again [default: end]
    #[arg(long, conflicts_with = "file")]
    pub on_reboot: Option<OnReboot>,
    /// Which ends of the guest are followed by a new start, after a wait of 100 ms or more [default: never]
    #[arg(long, conflicts_with = "file")]
    pub restart: Option<RestartPolicy>,

    /// Host CPUs to use, such as 0-3 or 0,2 [default: all that this process may use]
    #[arg(long, value_name = "CPUS", value_parser = parse_cpu_list)]
    pub host_cpus: Option<CpuList>,
    /// Use host CPUs even if another process, such as another baton run, owns them; then neither keeps
    /// its reservations
    #[arg(long)]
    pub share_cpus: bool,
    /// Keep other programs off the host CPUs of --host-cpus while the run lasts, by a cpuset partition or, with
    /// control groups of version 1, by a cpuset of their own; needs root
    #[arg(long)]
    pub isolate: bool,
    /// The scheduler, which decides which vCPU runs [default: baton]
    #[arg(long)]
    pub sched: Option<SchedMode>,
    /// Run a preempted lock holder on its waiters' budgets [default: on]
    #[arg(long)]
    pub proxy: Option<Switch>,
    /// How long the preemption of a lock holder may be deferred [default: 50us]
    #[arg(long, value_name = "TIME|off", value_parser = parse_defer_flag)]
    pub defer: Option<Defer>,
    /// Longest slice of a vCPU without a reservation while others wait [default: 4ms]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub slice: Option<Duration>,
    /// Whether each vCPU has a thread of its own [default: auto]
    #[arg(long)]
    pub vcpu_threads: Option<VcpuThreads>,
    /// Run vCPUs before all ordinary programs of the host, with this priority of SCHED_FIFO; a vCPU that
    /// never idles then leaves them about 5 % of its host CPU [default: off]
    #[arg(long, value_name = "1-48|off", value_parser = str::parse::<ExecutorPriority>)]
    pub executor_priority: Option<ExecutorPriority>,
    /// Whether to accept reservations on hosts that notice halts late, which baton check reports
    /// [default: refuse]
    #[arg(long)]
    pub late_halts: Option<LateHalts>,
    /// End with status 126 if a reservation was not delivered by all of its deadlines
    #[arg(long)]
    pub require_delivery: bool,
    /// Stop after this time, such as 10s
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
    /// How long guests with an ACPI power button, such as Linux, have to switch themselves off when the run is to
    /// end, before they are cut; 0 cuts them at once [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_shutdown_timeout)]
    pub shutdown_timeout: Option<Duration>,
    /// Stop when the guest of this name has ended, such as db
    #[arg(long, value_name = "NAME")]
    pub until_guest: Option<String>,
    /// Draw the longest time for which a waiter's budget carried a holder, and what happened around it
    #[arg(long)]
    pub timeline: bool,
    /// Write every decision and exit to this file, for ui.perfetto.dev
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Serve metrics at an address or a socket, or write them to a file for node_exporter, such as
    /// 127.0.0.1:9469, unix:/path.sock or file:/path.prom
    #[arg(long, value_name = "WHERE", value_parser = str::parse::<MetricsTarget>)]
    pub metrics: Option<MetricsTarget>,
    /// Control socket, by which baton top finds the run [default: a socket in the runtime directory]
    #[arg(long, value_name = "PATH|off", value_parser = str::parse::<Control>)]
    pub control: Option<Control>,
    /// Let guests have more memory together than the host has, because they will not use it all
    #[arg(long)]
    pub overcommit_memory: bool,
    /// Form of the summary [default: text]
    #[arg(long)]
    pub summary: Option<SummaryForm>,
}

/// The value of `--defer`: a time, or `None` for `off`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defer(pub Option<Duration>);

pub(super) fn parse_defer_flag(text: &str) -> Result<Defer, UnitError> {
    parse_defer(text).map(Defer)
}

impl RunArgs {
    /// The run that the flags and the file describe.
    ///
    /// # Errors
    /// If the file cannot be read, or the file and the flags describe a run that cannot be made.
    pub fn config(&self) -> Result<RunConfig, ConfigError> {
        let mut config = match &self.file {
            Some(path) => file::read(path)?,
            None => RunConfig {
                guests: vec![self.guest()?],
                ..RunConfig::default()
            },
        };
        self.set_scheduling(&mut config);
        self.set_end(&mut config);
        self.set_outputs(&mut config);
        if self.require_delivery {
            config.require_delivery = true;
        }
        if self.overcommit_memory {
            config.overcommit_memory = true;
        }
        config.validate()?;
        Ok(config)
    }

    /// Sets the options of the scheduler and the host CPUs.
    fn set_scheduling(&self, config: &mut RunConfig) {
        if let Some(CpuList(cpus)) = &self.host_cpus {
            config.host_cpus.clone_from(cpus);
        }
        if self.share_cpus {
            config.share_cpus = true;
        }
        if self.isolate {
            config.isolate = true;
        }
        if let Some(sched) = self.sched {
            config.sched = sched;
        }
        if let Some(proxy) = self.proxy {
            config.proxy = proxy == Switch::On;
            config.given.proxy = true;
        }
        if let Some(Defer(defer)) = self.defer {
            config.defer = defer;
            config.given.defer = true;
        }
        if let Some(slice) = self.slice {
            config.slice = slice;
            config.given.slice = true;
        }
        if let Some(threads) = self.vcpu_threads {
            config.vcpu_threads = threads;
        }
        if let Some(priority) = self.executor_priority {
            config.executor_priority = priority;
        }
        if let Some(late_halts) = self.late_halts {
            config.late_halts = late_halts;
        }
    }

    /// Sets the events that end the run.
    fn set_end(&self, config: &mut RunConfig) {
        if self.duration.is_some() {
            config.duration = self.duration;
        }
        if let Some(timeout) = self.shutdown_timeout {
            config.shutdown_timeout = timeout;
        }
        if self.until_guest.is_some() {
            config.until_guest.clone_from(&self.until_guest);
        }
    }

    /// Sets what the run prints, writes and serves.
    fn set_outputs(&self, config: &mut RunConfig) {
        if let Some(summary) = self.summary {
            config.summary = summary;
        }
        if self.timeline {
            config.timeline = Timeline::LongestCarried;
        }
        config.control = self.control.clone().unwrap_or(Control::Default);
        if self.trace.is_some() {
            config.trace.clone_from(&self.trace);
        }
        if self.metrics.is_some() {
            config.metrics.clone_from(&self.metrics);
        }
    }

    /// The guest that the flags describe.
    fn guest(&self) -> Result<GuestConfig, ConfigError> {
        Ok(GuestConfig {
            on_reboot: self.on_reboot,
            restart: self.restart.unwrap_or_default(),
            ..self.guest.config("guest")?
        })
    }
}
