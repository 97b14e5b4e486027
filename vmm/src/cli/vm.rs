//! The flags of `baton vm`.

use std::path::PathBuf;
use std::time::Duration;

use baton_config::file::{self, parse_shutdown_timeout};
use baton_config::units;
use baton_config::values::{CpuList, parse_cpu_list};
use baton_config::{ConfigError, LateHalts, OnReboot, RestartPolicy, RunConfig, SummaryForm};
use clap::{Args, ValueEnum};

use super::guest::GuestArgs;
use super::sandbox::SandboxFlags;

/// Flags of `baton vm`.
#[derive(Debug, Args)]
pub struct VmArgs {
    /// TOML file with the one guest, written as for baton run; what it has about scheduling is not used,
    /// because the pool decides
    #[arg(value_name = "GUEST.TOML")]
    pub file: Option<PathBuf>,

    /// The pool, by its directory or its socket [default: that of this user or of root]
    #[arg(long, value_name = "DIR|SOCKET")]
    pub pool: Option<PathBuf>,
    /// Name of the guest, which no other guest of the pool has [default: guest]
    #[arg(long, value_name = "NAME", conflicts_with = "file")]
    pub name: Option<String>,
    /// The guest.
    #[command(flatten)]
    pub guest: GuestArgs,
    /// What follows when the guest resets itself: it has ended, or it starts again [default: restart]
    #[arg(long, conflicts_with = "file")]
    pub on_reboot: Option<OnReboot>,
    /// Which ends of the guest are followed by a new start, after a wait of 100 ms or more [default: never]
    #[arg(long, conflicts_with = "file")]
    pub restart: Option<RestartPolicy>,
    /// Host CPUs of the pool on which the guest may run, such as 0-3 or 0,2 [default: all of the pool]
    #[arg(long, value_name = "CPUS", value_parser = parse_cpu_list, conflicts_with = "file")]
    pub host_cpus: Option<CpuList>,

    /// Whether to accept reservations on hosts that notice halts late, which baton check reports
    /// [default: refuse]
    #[arg(long)]
    pub late_halts: Option<LateHalts>,

    /// Stop after this time, such as 10s
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    pub duration: Option<Duration>,
    /// How long a guest with an ACPI power button, such as Linux, has to switch itself off when this process is to
    /// end, before it is cut; 0 cuts it at once [default: 60s]
    #[arg(long, value_name = "TIME", value_parser = parse_shutdown_timeout)]
    pub shutdown_timeout: Option<Duration>,
    /// Let the guest have more memory than the host has, because it will not use it all
    #[arg(long)]
    pub overcommit_memory: bool,
    /// Its sandbox.
    #[command(flatten)]
    pub sandbox: SandboxFlags,
    /// Form of the summary [default: text]
    #[arg(long)]
    pub summary: Option<VmSummary>,
}

/// Form of the summary at the end of `baton vm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VmSummary {
    /// A table
    Text,
    /// One JSON object, alone on standard output: what the guest prints goes to standard error
    Json,
    /// None
    Off,
}

impl VmArgs {
    /// The guest that the flags or the file describe, as a run of this guest alone.
    ///
    /// # Errors
    /// If the file cannot be read or has several guests, or the flags contradict each other.
    pub fn config(&self) -> Result<RunConfig, ConfigError> {
        let mut config = match &self.file {
            Some(path) => Self::of_file(file::read(path)?),
            None => self.of_flags()?,
        };
        for guest in &mut config.guests {
            // As a machine does that others know to be there.
            guest.on_reboot.get_or_insert(OnReboot::Restart);
        }
        if self.duration.is_some() {
            config.duration = self.duration;
        }
        if let Some(timeout) = self.shutdown_timeout {
            config.shutdown_timeout = timeout;
        }
        if let Some(late_halts) = self.late_halts {
            config.late_halts = late_halts;
        }
        if self.overcommit_memory {
            config.overcommit_memory = true;
        }
        match self.summary {
            Some(VmSummary::Json) => config.summary = SummaryForm::Json,
            Some(VmSummary::Text | VmSummary::Off) => config.summary = SummaryForm::Text,
            None => {}
        }
        config.validate()?;
        Ok(config)
    }

    /// What of the run in a file belongs to a guest and its process.
    fn of_file(file: RunConfig) -> RunConfig {
        RunConfig {
            guests: file.guests,
            duration: file.duration,
            shutdown_timeout: file.shutdown_timeout,
            summary: file.summary,
            overcommit_memory: file.overcommit_memory,
            late_halts: file.late_halts,
            ..RunConfig::default()
        }
    }

    fn of_flags(&self) -> Result<RunConfig, ConfigError> {
        let name = self.name.as_deref().unwrap_or("guest");
        let mut guest = self.guest.config(name)?;
        guest.on_reboot = self.on_reboot;
        guest.restart = self.restart.unwrap_or_default();
        if let Some(CpuList(cpus)) = &self.host_cpus {
            guest.host_cpus = vec![Some(cpus.clone()); guest.cpus];
        }
        Ok(RunConfig {
            guests: vec![guest],
            ..RunConfig::default()
        })
    }
}
