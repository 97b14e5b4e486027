//! The command line.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use baton_bench::args::BenchCommand;
use baton_config::file::{self, parse_defer};
use baton_config::units::{self, UnitError};
use baton_config::values::{CpuList, Switch, parse_cpu_list};
use baton_config::{
    ConfigError, DiskConfig, GuestConfig, KernelSource, LateHalts, NetConfig, Reservation,
    RunConfig, SchedMode, SummaryForm, Timeline, VcpuThreads, VsockConfig,
};
use baton_config::{Control, MetricsTarget};
use clap::{Args, Parser, Subcommand};

/// A KVM virtual machine monitor with its own CPU scheduler.
#[derive(Debug, Parser)]
#[command(name = "baton", version, about, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What `baton run --help` says of [`baton_run::exit_status`].
const EXIT_STATUS: &str = "\
Exit status:
  0         The guests ended well, or were stopped because you wanted that
  1 to 122  The code of the guest, if exactly one failed and gave such a code
  123       Guests failed in another way
  125       Baton itself failed, or nothing was run; standard error says why";

/// What to do.
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
    /// Watch a running instance: who runs, on whose budget
    Top(TopArgs),
    /// Run the policy alone, simulated, and draw what it decides
    Sim(SimArgs),
    /// Tell whether this host can run guests, and what is missing
    Check,
}

/// Flags of `baton top`.
#[derive(Debug, Args)]
pub struct TopArgs {
    /// Process id of the instance [default: the only one]
    pub pid: Option<u32>,
    /// Its control socket, if it is not in the runtime directory
    #[arg(long, value_name = "PATH", conflicts_with = "pid")]
    pub socket: Option<PathBuf>,
    /// Time between two looks, at least 20ms
    #[arg(long, value_name = "TIME", value_parser = parse_interval, default_value = "1s")]
    pub interval: Duration,
    /// Print one table and end
    #[arg(long)]
    pub once: bool,
    /// With --once: print what the instance says now, as JSON
    #[arg(long, requires = "once", conflicts_with = "interval")]
    pub json: bool,
}

/// Flags of `baton sim`.
#[derive(Debug, Args)]
pub struct SimArgs {
    /// Scenario: preemption, throttled-holder, inversion or random
    #[arg(default_value = "inversion")]
    pub scenario: String,
    /// Number of the random scenario: another for each [default: 1]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Run a preempted lock holder on its waiters' budgets
    #[arg(long, default_value = "on")]
    pub proxy: Switch,
}

/// Flags of `baton run`.
#[derive(Debug, Args)]
pub struct RunArgs {
    /// TOML file with the guests and the run; flags override what it says about the run
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

    /// Host CPUs to use, such as 0-3 or 0,2 [default: all that this process may use]
    #[arg(long, value_name = "CPUS", value_parser = parse_cpu_list)]
    pub host_cpus: Option<CpuList>,
    /// Who decides which vCPU runs [default: baton]
    #[arg(long)]
    pub sched: Option<SchedMode>,
    /// Run a preempted lock holder on its waiters' budgets [default: on]
    #[arg(long)]
    pub proxy: Option<Switch>,
    /// How long the preemption of a lock holder may be put off [default: 50us]
    #[arg(long, value_name = "TIME|off", value_parser = parse_defer_flag)]
    pub defer: Option<Defer>,
    /// Longest turn of a vCPU without a reservation while others wait [default: 4ms]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub slice: Option<Duration>,
    /// Whether each vCPU has a thread of its own [default: auto]
    #[arg(long)]
    pub vcpu_threads: Option<VcpuThreads>,
    /// Whether to take reservations where halts are noticed late, of which baton check tells
    /// [default: refuse]
    #[arg(long)]
    pub late_halts: Option<LateHalts>,
    /// Stop after this time, such as 10s
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
    /// Stop when the guest of this name has ended, such as db
    #[arg(long, value_name = "NAME")]
    pub until_guest: Option<String>,
    /// Show the longest time that a waiter's budget carried a holder, and what happened around it
    #[arg(long)]
    pub timeline: bool,
    /// Write every decision and exit to this file, which ui.perfetto.dev shows
    #[arg(long, value_name = "FILE")]
    pub trace: Option<PathBuf>,
    /// Offer metrics at an address or a socket, or in a file for node_exporter, such as 127.0.0.1:9469, unix:/path.sock
    /// or file:/path.prom
    #[arg(long, value_name = "WHERE", value_parser = str::parse::<MetricsTarget>)]
    pub metrics: Option<MetricsTarget>,
    /// Where baton top finds the run [default: a socket in the runtime directory]
    #[arg(long, value_name = "PATH|off", value_parser = str::parse::<Control>)]
    pub control: Option<Control>,
    /// Let guests have more memory together than there is, because they will not use it all
    #[arg(long)]
    pub overcommit_memory: bool,
    /// Form of the summary [default: text]
    #[arg(long)]
    pub summary: Option<SummaryForm>,
}

/// A time or `off` as one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Defer(pub Option<Duration>);

/// Reads the time between two looks of `baton top`.
fn parse_interval(text: &str) -> Result<Duration, String> {
    match units::parse_duration(text) {
        Ok(interval) if interval < baton_top::SHORTEST => Err(format!(
            "'{text}' is too short, for each look stops the scheduler for a moment: give at least {}",
            units::format_ns(baton_top::SHORTEST.as_nanos() as u64)
        )),
        Ok(interval) => Ok(interval),
        Err(error) => Err(error.to_string()),
    }
}

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
    /// The run that the flags and the file ask for.
    ///
    /// # Errors
    /// If the file cannot be read, or something in it or the flags cannot run.
    pub fn config(&self) -> Result<RunConfig, ConfigError> {
        let mut config = match &self.file {
            Some(path) => file::read(path)?,
            None => RunConfig {
                guests: vec![self.guest()?],
                ..RunConfig::default()
            },
        };
        if let Some(CpuList(cpus)) = &self.host_cpus {
            config.host_cpus.clone_from(cpus);
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
        if let Some(late_halts) = self.late_halts {
            config.late_halts = late_halts;
        }
        if self.duration.is_some() {
            config.duration = self.duration;
        }
        if self.until_guest.is_some() {
            config.until_guest.clone_from(&self.until_guest);
        }
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
        if self.overcommit_memory {
            config.overcommit_memory = true;
        }
        if self.metrics.is_some() {
            config.metrics.clone_from(&self.metrics);
        }
        config.validate()?;
        Ok(config)
    }

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
        guest.reservations = vec![self.reservation; cpus];
        let mut own = BTreeSet::new();
        for &(index, reservation) in &self.vcpu_reservation {
            if !own.insert(index) {
                return Err(ConfigError(format!(
                    "--vcpu-reservation names vCPU {index} twice: give it one reservation"
                )));
            }
            let slot = guest.reservations.get_mut(index).ok_or_else(|| {
                ConfigError(format!(
                    "--vcpu-reservation names vCPU {index}, but there are only 0 to {}",
                    cpus - 1
                ))
            })?;
            *slot = Some(reservation);
        }
        Ok(guest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(args: &[&str]) -> Result<RunConfig, ConfigError> {
        let cli = Cli::try_parse_from(["baton", "run"].iter().chain(args)).expect("parses");
        match cli.command {
            Command::Run(args) => args.config(),
            _ => unreachable!("asked for run"),
        }
    }

    #[test]
    fn clap_finds_no_fault_with_the_definition() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    /// Every help text of `command` and of its subcommands, with where it stands.
    fn help_texts(command: &clap::Command, path: &str) -> Vec<(String, String)> {
        let said = |text: Option<&clap::builder::StyledStr>| text.map(ToString::to_string);
        let path = format!("{path} {}", command.get_name());
        let mut all = vec![(path.clone(), said(command.get_about()).unwrap_or_default())];
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let place = format!("{path} {}", arg.get_id());
            let help = said(arg.get_long_help()).or(said(arg.get_help()));
            all.push((place.clone(), help.unwrap_or_default()));
            for value in arg
                .get_possible_values()
                .iter()
                .filter(|_| arg.get_action().takes_values())
            {
                let help = said(value.get_help()).unwrap_or_default();
                all.push((format!("{place} {}", value.get_name()), help));
            }
        }
        let subcommands = command.get_subcommands();
        all.extend(subcommands.flat_map(|command| help_texts(command, &path)));
        all
    }

    #[test]
    fn every_help_text_is_there_and_shows_no_mark_up() {
        use clap::CommandFactory;
        let mut command = Cli::command();
        command.build();
        let texts = help_texts(&command, "");
        assert!(texts.len() > 80, "{}", texts.len());
        for (place, text) in texts.iter().filter(|(place, _)| !place.contains(" help")) {
            assert!(!text.is_empty(), "{place} has no help");
            assert!(!text.contains(['\\', '`']), "{place}: {text}");
            assert!(
                !text.contains("  ") && !text.contains(".."),
                "{place}: {text}"
            );
            assert!(text.matches("[default").count() <= 1, "{place}: {text}");
            let first = text.chars().next().unwrap_or_default();
            let is_name = text.starts_with("vCPU");
            assert!(first.is_uppercase() || is_name, "{place}: {text}");
        }
    }

    #[test]
    fn bare_run_is_one_builtin_guest() {
        let config = config(&[]).expect("runs");
        assert_eq!(
            config,
            RunConfig {
                guests: vec![GuestConfig::new("guest")],
                control: Control::Default,
                ..RunConfig::default()
            }
        );
    }

    #[test]
    fn flags_reach_the_configuration() {
        let config = config(&[
            "--kernel",
            "guest.elf",
            "--cpus",
            "4",
            "--memory",
            "128M",
            "--cmdline",
            "lock=ticket hold=2us",
            "--reservation",
            "5ms/10ms,soft",
            "--vcpu-reservation",
            "0=1ms/100ms,hard",
            "--host-cpus",
            "0-1",
            "--sched",
            "baton",
            "--proxy",
            "off",
            "--defer",
            "off",
            "--slice",
            "1ms",
            "--vcpu-threads",
            "on",
            "--late-halts",
            "allow",
            "--duration",
            "10s",
            "--until-guest",
            "guest",
            "--summary",
            "json",
            "--vsock",
            "cid=3,path=/run/vm.sock",
            "--overcommit-memory",
        ])
        .expect("runs");
        assert!(config.overcommit_memory);
        let guest = &config.guests[0];
        assert_eq!(guest.kernel, KernelSource::Path("guest.elf".into()));
        assert_eq!((guest.cpus, guest.memory), (4, 128 << 20));
        assert_eq!(guest.vsock, "cid=3,path=/run/vm.sock".parse().ok());
        assert_eq!(guest.reservations[0], "1ms/100ms".parse().ok());
        assert_eq!(guest.reservations[3], "5ms/10ms,soft".parse().ok());
        assert_eq!(config.host_cpus, [0, 1]);
        assert_eq!(config.sched, SchedMode::Baton);
        let given = config.given;
        assert!(given.proxy && given.defer && given.slice);
        assert_eq!((config.proxy, config.defer), (false, None));
        assert_eq!(config.slice, Duration::from_millis(1));
        assert_eq!(config.vcpu_threads, VcpuThreads::On);
        assert_eq!(config.late_halts, LateHalts::Allow);
        assert_eq!(config.duration, Some(Duration::from_secs(10)));
        assert_eq!(config.until_guest.as_deref(), Some("guest"));
        assert_eq!(config.summary, SummaryForm::Json);
    }

    #[test]
    fn a_weight_is_for_vcpus_without_a_reservation() {
        let weighed = config(&[
            "--weight",
            "5",
            "--vcpu-reservation",
            "0=1ms/2ms",
            "--cpus",
            "2",
        ]);
        assert_eq!(weighed.expect("runs").guests[0].weight, 5);
        let none_is_left = config(&["--weight", "5", "--reservation", "1ms/2ms"]);
        assert!(none_is_left.is_err());
    }

    #[test]
    fn each_scheduler_has_its_name() {
        for (name, sched) in [
            ("baton", SchedMode::Baton),
            ("host", SchedMode::Host),
            ("host-deadline", SchedMode::HostDeadline),
        ] {
            assert_eq!(config(&["--sched", name]).expect("runs").sched, sched);
        }
    }

    #[test]
    fn a_view_of_one_moment_has_no_interval_and_a_view_of_two_has_one_that_the_scheduler_bears() {
        let top = |args: &[&str]| Cli::try_parse_from(["baton", "top"].iter().chain(args));
        assert!(top(&["--once", "--json"]).is_ok());
        assert!(top(&["--once", "--json", "--interval", "1s"]).is_err());
        let error = top(&["--interval", "1ms"])
            .expect_err("too short")
            .to_string();
        assert!(error.contains("at least 20ms"), "{error}");
    }

    #[test]
    fn reservation_for_a_vcpu_that_is_not_there_is_refused() {
        let error = config(&["--cpus", "2", "--vcpu-reservation", "2=1ms/2ms"]).expect_err("two");
        assert!(error.to_string().contains("only 0 to 1"));
        let twice = ["--vcpu-reservation", "0=1ms/2ms"].repeat(2);
        let error = config(&twice).expect_err("which of them?");
        assert!(error.to_string().contains("names vCPU 0 twice"));
    }

    #[test]
    fn bad_values_say_what_a_good_one_looks_like() {
        for (args, part) in [
            (["--memory", "lots"], "as in 512M"),
            (["--defer", "5"], "as in 50us"),
            (["--host-cpus", "a"], "as in 0-3"),
            (["--vcpu-reservation", "1ms/2ms"], "as in 0=1ms/100ms"),
            (["--vsock", "3"], "as in cid=3,path=/run/vm.sock"),
        ] {
            let error = Cli::try_parse_from(["baton", "run"].iter().chain(&args))
                .expect_err("refused")
                .to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
