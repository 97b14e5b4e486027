//! The flags that describe one guest.
//!
//! The command that takes them has an argument `file`, which describes guests instead.

use std::collections::BTreeSet;
use std::path::PathBuf;

use baton_config::units::{self, UnitError};
use baton_config::{
    ConfigError, ConsoleConfig, DiskConfig, GuestConfig, HintSource, KernelSource, NetConfig,
    Reservation, VsockConfig,
};
use clap::Args;

/// Flags that describe one guest.
#[derive(Debug, Args)]
pub struct GuestArgs {
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
    /// Console: this terminal, a file, a socket for baton console, a pseudo-terminal, or none [default:
    /// stdio]
    #[arg(
        long,
        value_name = "stdio|file:PATH|unix:PATH|pty|off",
        value_parser = str::parse::<ConsoleConfig>,
        conflicts_with = "file"
    )]
    pub console: Option<ConsoleConfig>,
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
}

fn parse_vcpu_reservation(text: &str) -> Result<(usize, Reservation), UnitError> {
    let bad = || UnitError::VcpuReservation(text.to_owned());
    let (index, reservation) = text.split_once('=').ok_or_else(bad)?;
    let index = index.trim().parse().map_err(|_| bad())?;
    Ok((index, reservation.parse()?))
}

impl GuestArgs {
    /// The guest that the flags describe, called `name`.
    ///
    /// # Errors
    /// If the flags contradict each other.
    pub fn config(&self, name: &str) -> Result<GuestConfig, ConfigError> {
        let cpus = self.cpus.unwrap_or(1);
        if cpus == 0 || cpus > baton_config::MAX_VCPUS {
            return Err(ConfigError(format!(
                "--cpus is {cpus}, must be 1 to {}",
                baton_config::MAX_VCPUS
            )));
        }
        let mut guest = GuestConfig::new(name).with_cpus(cpus);
        if let Some(path) = &self.kernel {
            guest.kernel = KernelSource::Path(path.clone());
        }
        guest.initrd.clone_from(&self.initrd);
        guest.disks.clone_from(&self.disk);
        guest.nets.clone_from(&self.net);
        guest.vsock.clone_from(&self.vsock);
        if let Some(console) = &self.console {
            guest.console.clone_from(console);
        }
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
