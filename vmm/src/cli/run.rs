//! The flags of `baton run`.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use baton_config::file::{self, parse_defer};
use baton_config::units::{self, UnitError};
use baton_config::values::{CpuList, Switch, parse_cpu_list};
use baton_config::{
    ConfigError, Control, DiskConfig, ExecutorPriority, GuestConfig, HintSource, KernelSource,
    LateHalts, MetricsTarget, NetConfig, Reservation, RunConfig, SchedMode, SummaryForm, Timeline,
    VcpuThreads, VsockConfig,
};
use clap::Args;

/// Flags of `baton run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// TOML file with the guests and the settings of the run; flags override the settings
    #[arg(value_name = "HOST.TOML")]
    pub file: Option<PathBuf>,

    /// Linux kernel (vmlinuz or vmlinux) or any 64-bit ELF kernel [default: the built-in test guest]
    #[arg(long, value_name = "FILE", conflicts_with = "file")]
    pub kernel: Option<PathBuf>,
    /// Initial RAM disk
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "file",
        requires = "kernel"
    )]
    pub initrd: Option<PathBuf>,
    /// Disk, a raw image or a block device, with ',ro' if the guest may only read it, with
    /// ',serial=NAME' for the serial number that the guest reads, and with limits such as
    /// ',bandwidth=100M/s,bandwidth-burst=1G,ops=5000/s'; may be given several times
    #[arg(
        long,
        value_name = "PATH[,ro][,serial=NAME][,LIMITS]",
        value_parser = str::parse::<DiskConfig>,
        conflicts_with = "file",
        requires = "kernel"
    )]
    pub disk: Vec<DiskConfig>,
    /// Network interface on a tap of the host, with limits for frames to the guest and from it such
    /// as ',rx-bandwidth=10M/s,tx-bandwidth=10M/s,tx-ops=5000/s'; may be given several times
    #[arg(
        long,
        value_name = "tap=NAME[,mac=ADDRESS][,LIMITS]",
        value_parser = str::parse::<NetConfig>,
        conflicts_with = "file",
        requires = "kernel"
    )]
    pub net: Vec<NetConfig>,
    /// Sockets between guest and host, such as cid=3,path=/run/vm.sock
    #[arg(
        long,
        value_name = "cid=N,path=PATH",
        value_parser = str::parse::<VsockConfig>,
        conflicts_with = "file",
        requires = "kernel"
    )]
    pub vsock: Option<VsockConfig>,
    /// Number of vCPUs [default: 1]
    #[arg(long, value_name = "N", conflicts_with = "file")]
    pub cpus: Option<usize>,
    /// Memory, such as 512M [default: 64M]
    #[arg(long, value_name = "SIZE", value_parser = units::parse_bytes, conflicts_with = "file")]
    pub memory: Option<u64>,
    /// Kernel command line
    #[arg(
        long,
        value_name = "TEXT",
        conflicts_with = "file",
        allow_hyphen_values = true
    )]
    pub cmdline: Option<String>,
    /// CPU time of each vCPU, such as 5ms/10ms: hard (the default) is never more, soft is more when
    /// there is time left over
    #[arg(
        long,
        value_name = "BUDGET/PERIOD[/DEADLINE][,hard|soft]",
        conflicts_with = "file"
    )]
    pub reservation: Option<Reservation>,
    /// CPU time of one vCPU, such as 0=1ms/100ms,hard, instead of that of --reservation; may be given
    /// for several vCPUs
    #[arg(
        long,
        value_name = "VCPU=RESERVATION",
        value_parser = parse_vcpu_reservation,
        conflicts_with = "file"
    )]
    pub vcpu_reservation: Vec<(usize, Reservation)>,
    /// Share that vCPUs without a reservation get of what reservations leave [default: 100]
    #[arg(long, value_name = "1-10000", conflicts_with = "file")]
    pub weight: Option<u32>,
    /// Where hints about lock holders come from: pages that the guest publishes, what the host infers,
    /// or for each vCPU the first of these that there is [default: page]
    #[arg(long, conflicts_with = "file")]
    pub hints: Option<HintSource>,
    /// Symbols of the kernel (System.map or vmlinux), for kernels of which --hints inferred finds no preempt
    /// count by itself
    #[arg(
        long,
        value_name = "FILE",
        conflicts_with = "file",
        requires = "kernel"
    )]
    pub symbols: Option<PathBuf>,

    /// Host CPUs to use, such as 0-3 or 0,2 [default: all that this process may use]
    #[arg(long, value_name = "CPUS", value_parser = parse_cpu_list)]
    pub host_cpus: Option<CpuList>,
    /// Use host CPUs even if another process, such as another baton run, owns them; then neither keeps
    /// its reservations
    #[arg(long)]
    pub share_cpus: bool,
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

fn parse_defer_flag(text: &str) -> Result<Defer, UnitError> {
    parse_defer(text).map(Defer)
}

fn parse_vcpu_reservation(text: &str) -> Result<(usize, Reservation), UnitError> {
    let bad = || UnitError::VcpuReservation(text.to_owned());
    let (index, reservation) = text.split_once('=').ok_or_else(bad)?;
    let index = index.trim().parse().map_err(|_| bad())?;
    Ok((index, reservation.parse()?))
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
        let cpus = self.cpus.unwrap_or(1);
        if cpus == 0 || cpus > baton_config::MAX_VCPUS {
            return Err(ConfigError(format!(
                "--cpus is {cpus}, must be 1 to {}",
                baton_config::MAX_VCPUS
            )));
        }
        let mut guest = GuestConfig::new("guest").with_cpus(cpus);
        if let Some(path) = &self.kernel {
            guest.kernel = KernelSource::Path(path.clone());
        }
        guest.initrd.clone_from(&self.initrd);
        guest.disks.clone_from(&self.disk);
        guest.nets.clone_from(&self.net);
        guest.vsock.clone_from(&self.vsock);
        if let Some(memory) = self.memory {
            guest.memory = memory;
        }
        if let Some(cmdline) = &self.cmdline {
            guest.cmdline.clone_from(cmdline);
        }
        if let Some(weight) = self.weight {
            guest.weight = weight;
        }
        if let Some(hints) = self.hints {
            guest.hints = hints;
        }
        guest.symbols.clone_from(&self.symbols);
        guest.reservations = self.reservations(cpus)?;
        Ok(guest)
    }

    /// The reservation of each of `cpus` vCPUs.
    fn reservations(&self, cpus: usize) -> Result<Vec<Option<Reservation>>, ConfigError> {
        let mut reservations = vec![self.reservation; cpus];
        let mut seen = BTreeSet::new();
        for &(index, reservation) in &self.vcpu_reservation {
            if !seen.insert(index) {
                return Err(ConfigError(format!(
                    "--vcpu-reservation names vCPU {index} twice: give it one reservation"
                )));
            }
            let entry = reservations.get_mut(index).ok_or_else(|| {
                ConfigError(format!(
                    "--vcpu-reservation names vCPU {index}, but there are only 0 to {}",
                    cpus - 1
                ))
            })?;
            *entry = Some(reservation);
        }
        Ok(reservations)
    }
}
