//! A run as a TOML file: the flags of `baton run` as top-level keys, and a `[[guest]]` table for
//! each guest.
//!
//! ```
//! let config = baton_config::file::parse(
//!     r#"
//!     host_cpus = "0-1"
//!     duration = "10s"
//!     until_guest = "db"
//!
//!     [[guest]]
//!     name = "db"
//!     cpus = 4
//!     memory = "64M"
//!     cmdline = "lock=ticket seconds=5"
//!     shared_reservation = "8ms/10ms"
//!
//!     [[guest]]
//!     name = "batch"
//!     count = 2
//!     weight = 50
//!     "#,
//!     std::path::Path::new("."),
//! )
//! .unwrap();
//! assert_eq!(config.guests.len(), 3);
//! assert_eq!(config.guests[0].reservations[3].unwrap().budget(), 2_000_000);
//! ```
//!
//! A Linux guest may have disks, network interfaces and vsock, written as for `--disk`, `--net` and
//! `--vsock`, also with their limits. Paths are relative to the file's directory.
//!
//! ```
//! let config = baton_config::file::parse(
//!     r#"
//!     [[guest]]
//!     kernel = "vmlinuz"
//!     memory = "512M"
//!     cmdline = "console=ttyS0 root=/dev/vda"
//!     disks = ["root.img,bandwidth=100M/s,ops=5000/s", "data.img,ro"]
//!     nets = ["tap=tap0,mac=52:54:00:12:34:56"]
//!     vsock = "cid=3,path=vm.sock"
//!     "#,
//!     std::path::Path::new("/guests"),
//! )
//! .unwrap();
//! let guest = &config.guests[0];
//! assert_eq!(guest.disks[0].path, std::path::Path::new("/guests/root.img"));
//! assert_eq!(guest.disks[0].limit.ops.unwrap().size, 5000);
//! assert!(guest.disks[1].read_only);
//! assert_eq!(guest.nets[0].tap, "tap0");
//! assert_eq!(guest.vsock.as_ref().unwrap().path, std::path::Path::new("/guests/vm.sock"));
//! ```

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::{
    ConfigError, DiskConfig, GuestConfig, KernelSource, LateHalts, Reservation, RunConfig,
    SchedMode, SummaryForm, VcpuThreads, VsockConfig, fail, names,
};
use crate::units::{self, UnitError};

/// Most guests that a file may ask for.
const MAX_GUESTS: usize = 1024;
/// Longest file, bytes: room for that many guests with long command lines.
const MAX_FILE: u64 = 8 << 20;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RunFile {
    host_cpus: Option<String>,
    sched: Option<String>,
    proxy: Option<String>,
    defer: Option<String>,
    slice: Option<String>,
    vcpu_threads: Option<String>,
    late_halts: Option<String>,
    duration: Option<String>,
    until_guest: Option<String>,
    summary: Option<String>,
    metrics: Option<String>,
    #[serde(default)]
    overcommit_memory: bool,
    #[serde(default)]
    guest: Vec<GuestTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct GuestTable {
    name: Option<String>,
    kernel: Option<String>,
    initrd: Option<String>,
    #[serde(default)]
    disks: Vec<String>,
    #[serde(default)]
    nets: Vec<String>,
    vsock: Option<String>,
    cpus: Option<usize>,
    memory: Option<String>,
    cmdline: Option<String>,
    reservation: Option<String>,
    vcpu_reservations: Option<Vec<String>>,
    shared_reservation: Option<String>,
    weight: Option<u32>,
    host_cpus: Option<String>,
    vcpu_host_cpus: Option<Vec<String>>,
    count: Option<usize>,
}

/// Reads the file at `path`; kernels in it are relative to where it lies.
///
/// # Errors
/// If it cannot be read or says something that cannot run.
pub fn read(path: &Path) -> Result<RunConfig, ConfigError> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(MAX_FILE + 1).read_to_string(&mut text))
        .map_err(|error| ConfigError(format!("cannot read {}: {error}", path.display())))?;
    if text.len() as u64 > MAX_FILE {
        return fail(format!(
            "{} is longer than {}M, so it is no file of guests",
            path.display(),
            MAX_FILE >> 20
        ));
    }
    parse(&text, path.parent().unwrap_or(Path::new("")))
        .map_err(|error| ConfigError(format!("{}: {error}", path.display())))
}

/// Reads the text of a file; kernels in it are relative to `base`.
///
/// # Errors
/// What is wrong with it, in one sentence.
pub fn parse(text: &str, base: &Path) -> Result<RunConfig, ConfigError> {
    let file: RunFile = toml::from_str(text).map_err(|error| toml_error(text, &error))?;
    let mut config = RunConfig::default();
    if let Some(cpus) = &file.host_cpus {
        config.host_cpus = field("host_cpus", units::parse_cpus(cpus))?;
    }
    if let Some(sched) = &file.sched {
        config.sched = choice::<SchedMode>("sched", sched)?;
    }
    if let Some(proxy) = &file.proxy {
        config.proxy = match proxy.as_str() {
            "on" => true,
            "off" => false,
            other => return fail(format!("proxy is '{other}', must be \"on\" or \"off\"")),
        };
        config.given.proxy = true;
    }
    if let Some(defer) = &file.defer {
        config.defer = field("defer", parse_defer(defer))?;
        config.given.defer = true;
    }
    if let Some(slice) = &file.slice {
        config.slice = field("slice", units::parse_duration(slice))?;
        config.given.slice = true;
    }
    if let Some(threads) = &file.vcpu_threads {
        config.vcpu_threads = choice::<VcpuThreads>("vcpu_threads", threads)?;
    }
    if let Some(late_halts) = &file.late_halts {
        config.late_halts = choice::<LateHalts>("late_halts", late_halts)?;
    }
    if let Some(duration) = &file.duration {
        config.duration = Some(field("duration", units::parse_duration(duration))?);
    }
    config.until_guest.clone_from(&file.until_guest);
    if let Some(summary) = &file.summary {
        config.summary = choice::<SummaryForm>("summary", summary)?;
    }
    if let Some(metrics) = &file.metrics {
        let target = metrics
            .parse()
            .map_err(|error| ConfigError(format!("metrics: {error}")))?;
        config.metrics = Some(target);
    }
    config.overcommit_memory = file.overcommit_memory;
    for (table, place) in file.guest.iter().zip(1..) {
        let name = table.name.clone().unwrap_or(format!("guest{place}"));
        // What follows names the guest by it.
        names::proper(&name)?;
        let guest = table
            .guest(&name, base)
            .map_err(|error| ConfigError(format!("guest {name}: {error}")))?;
        let count = table.count.unwrap_or(1);
        if count == 0 || config.guests.len().saturating_add(count) > MAX_GUESTS {
            return fail(format!(
                "guest {name}: count is {count}, and a run has 1 to {MAX_GUESTS} guests"
            ));
        }
        for copy in 1..=count {
            let mut guest = guest.clone();
            if count > 1 {
                guest.name = format!("{name}-{copy}");
            }
            config.guests.push(guest);
        }
    }
    config.validate_for_any()?;
    Ok(config)
}

/// One sentence and a line number of what serde and toml say over several lines.
fn toml_error(text: &str, error: &toml::de::Error) -> ConfigError {
    let what = error.message().trim().replace('\n', " ");
    match error.span() {
        Some(span) => {
            let line = text[..span.start.min(text.len())].matches('\n').count() + 1;
            ConfigError(format!("line {line}: {what}"))
        }
        None => ConfigError(what),
    }
}

impl GuestTable {
    fn guest(&self, name: &str, base: &Path) -> Result<GuestConfig, ConfigError> {
        let cpus = self.cpus.unwrap_or(1);
        if cpus == 0 || cpus > super::MAX_VCPUS {
            return fail(format!("cpus is {cpus}, must be 1 to {}", super::MAX_VCPUS));
        }
        let mut guest = GuestConfig::new(name).with_cpus(cpus);
        if let Some(kernel) = &self.kernel {
            guest.kernel = KernelSource::Path(base.join(kernel));
        }
        guest.initrd = self.initrd.as_ref().map(|initrd| base.join(initrd));
        for disk in &self.disks {
            let mut disk: DiskConfig = disk.parse()?;
            disk.path = base.join(disk.path);
            guest.disks.push(disk);
        }
        for net in &self.nets {
            guest.nets.push(net.parse()?);
        }
        if let Some(vsock) = &self.vsock {
            let mut vsock: VsockConfig = vsock.parse()?;
            vsock.path = base.join(vsock.path);
            guest.vsock = Some(vsock);
        }
        if let Some(memory) = &self.memory {
            guest.memory = field("memory", units::parse_bytes(memory))?;
        }
        if let Some(cmdline) = &self.cmdline {
            guest.cmdline.clone_from(cmdline);
        }
        if let Some(weight) = self.weight {
            guest.weight = weight;
        }
        guest.reservations = self.reservations(cpus)?;
        guest.host_cpus = self.pinning(cpus)?;
        Ok(guest)
    }

    fn reservations(&self, cpus: usize) -> Result<Vec<Option<Reservation>>, ConfigError> {
        match (
            &self.reservation,
            &self.vcpu_reservations,
            &self.shared_reservation,
        ) {
            (None, None, None) => Ok(vec![None; cpus]),
            (Some(each), None, None) => {
                let each = field("reservation", reservation(each))?;
                Ok(vec![Some(each); cpus])
            }
            (None, Some(list), None) => {
                if list.len() != cpus {
                    return fail(format!(
                        "vcpu_reservations has {} entries, must have one for each of {cpus} vCPUs \
                         (\"\" for none)",
                        list.len()
                    ));
                }
                list.iter()
                    .map(|text| match text.trim() {
                        "" => Ok(None),
                        text => field("vcpu_reservations", reservation(text)).map(Some),
                    })
                    .collect()
            }
            (None, None, Some(shared)) => {
                let shared = field("shared_reservation", parse_shared(shared, cpus))?;
                Ok(vec![Some(shared); cpus])
            }
            _ => fail(
                "reservation, vcpu_reservations and shared_reservation exclude each other: \
                 give one of them",
            ),
        }
    }

    fn pinning(&self, cpus: usize) -> Result<Vec<Option<Vec<usize>>>, ConfigError> {
        match (&self.host_cpus, &self.vcpu_host_cpus) {
            (None, None) => Ok(vec![None; cpus]),
            (Some(all), None) => {
                let all = field("host_cpus", units::parse_cpus(all))?;
                Ok(vec![Some(all); cpus])
            }
            (None, Some(list)) => {
                if list.len() != cpus {
                    return fail(format!(
                        "vcpu_host_cpus has {} entries, must have one for each of {cpus} vCPUs \
                         (\"\" for all of the pool)",
                        list.len()
                    ));
                }
                list.iter()
                    .map(|text| match text.trim() {
                        "" => Ok(None),
                        text => field("vcpu_host_cpus", units::parse_cpus(text)).map(Some),
                    })
                    .collect()
            }
            (Some(_), Some(_)) => {
                fail("host_cpus and vcpu_host_cpus exclude each other: give one of them")
            }
        }
    }
}

/// `off`, or a duration.
pub fn parse_defer(text: &str) -> Result<Option<Duration>, UnitError> {
    match text.trim() {
        "off" => Ok(None),
        text => units::parse_duration(text).map(Some),
    }
}

fn reservation(text: &str) -> Result<Reservation, UnitError> {
    Ok(text.parse()?)
}

/// A reservation for `cpus` vCPUs together, as each one's part. It may exceed one CPU.
fn parse_shared(text: &str, cpus: usize) -> Result<Reservation, UnitError> {
    Ok(Reservation::parse_shared(text, cpus as u64)?)
}

fn field<T>(name: &str, value: Result<T, UnitError>) -> Result<T, ConfigError> {
    value.map_err(|error| ConfigError(format!("{name}: {error}")))
}

/// One of the words that clap knows for `T`.
fn choice<T: clap::ValueEnum>(name: &str, text: &str) -> Result<T, ConfigError> {
    T::from_str(text, false).map_err(|_| {
        let words: Vec<String> = T::value_variants()
            .iter()
            .filter_map(clap::ValueEnum::to_possible_value)
            .map(|value| value.get_name().to_owned())
            .collect();
        ConfigError(format!(
            "{name} is '{text}', must be one of {}",
            words.join(", ")
        ))
    })
}

#[cfg(test)]
mod tests;
