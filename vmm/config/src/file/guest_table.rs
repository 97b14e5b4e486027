//! A `[[guest]]` table.

use std::path::Path;

use serde::Deserialize;
use vcpu_sched::Reservation;

use super::fields::{choice, field, for_each_vcpu};
use crate::disk::DiskConfig;
use crate::error::{ConfigError, fail};
use crate::guest::{GuestConfig, KernelSource, MAX_VCPUS};
use crate::units::{parse_bytes, parse_cpus};
use crate::validate::names;
use crate::vsock::VsockConfig;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct GuestTable {
    name: Option<String>,
    kernel: Option<String>,
    initrd: Option<String>,
    #[serde(default)]
    disks: Vec<String>,
    #[serde(default)]
    nets: Vec<String>,
    vsock: Option<String>,
    console: Option<String>,
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
    hints: Option<String>,
    symbols: Option<String>,
    on_reboot: Option<String>,
    restart: Option<String>,
}

impl GuestTable {
    /// The guests that this table, the `number`th of the file from 1 on, describes: as many as its
    /// `count`, which may be at most `most`. Paths in the table are relative to `base`. `limit` is the
    /// number of guests that a run may have, for the error.
    pub(super) fn guests(
        &self,
        number: usize,
        base: &Path,
        most: usize,
        limit: usize,
    ) -> Result<Vec<GuestConfig>, ConfigError> {
        let name = self.name.clone().unwrap_or(format!("guest{number}"));
        // Checked first, because the errors below name the guest.
        names::check(&name)?;
        let guest = self
            .guest(&name, base)
            .map_err(|error| ConfigError(format!("guest {name}: {error}")))?;
        let count = self.count.unwrap_or(1);
        if count == 0 || count > most {
            return fail(format!(
                "guest {name}: count is {count}, and a run has 1 to {limit} guests"
            ));
        }
        if count == 1 {
            return Ok(vec![guest]);
        }
        let copy = |number| GuestConfig {
            name: format!("{name}-{number}"),
            ..guest.clone()
        };
        Ok((1..=count).map(copy).collect())
    }

    fn guest(&self, name: &str, base: &Path) -> Result<GuestConfig, ConfigError> {
        let cpus = self.cpus.unwrap_or(1);
        if cpus == 0 || cpus > MAX_VCPUS {
            return fail(format!("cpus is {cpus}, must be 1 to {MAX_VCPUS}"));
        }
        let mut guest = GuestConfig::new(name).with_cpus(cpus);
        if let Some(kernel) = &self.kernel {
            guest.kernel = KernelSource::Path(base.join(kernel));
        }
        guest.initrd = self.initrd.as_ref().map(|initrd| base.join(initrd));
        self.add_devices(&mut guest, base)?;
        if let Some(memory) = &self.memory {
            guest.memory = field("memory", parse_bytes(memory))?;
        }
        if let Some(cmdline) = &self.cmdline {
            guest.cmdline.clone_from(cmdline);
        }
        if let Some(weight) = self.weight {
            guest.weight = weight;
        }
        if let Some(hints) = &self.hints {
            guest.hints = choice("hints", hints)?;
        }
        if let Some(on_reboot) = &self.on_reboot {
            guest.on_reboot = Some(choice("on_reboot", on_reboot)?);
        }
        if let Some(restart) = &self.restart {
            guest.restart = choice("restart", restart)?;
        }
        guest.symbols = self.symbols.as_ref().map(|symbols| base.join(symbols));
        guest.reservations = self.reservations(cpus)?;
        guest.host_cpus = self.pinning(cpus)?;
        Ok(guest)
    }

    fn add_devices(&self, guest: &mut GuestConfig, base: &Path) -> Result<(), ConfigError> {
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
        if let Some(console) = &self.console {
            guest.console = console.parse()?;
            if let Some(path) = guest.console.path_mut() {
                *path = base.join(&path);
            }
        }
        Ok(())
    }

    fn reservations(&self, cpus: usize) -> Result<Vec<Option<Reservation>>, ConfigError> {
        match (
            &self.reservation,
            &self.vcpu_reservations,
            &self.shared_reservation,
        ) {
            (None, None, None) => Ok(vec![None; cpus]),
            (Some(each), None, None) => {
                let each = field("reservation", each.parse::<Reservation>())?;
                Ok(vec![Some(each); cpus])
            }
            (None, Some(list), None) => for_each_vcpu(
                "vcpu_reservations",
                list,
                cpus,
                "none",
                str::parse::<Reservation>,
            ),
            (None, None, Some(shared)) => {
                let part = Reservation::parse_shared(shared, cpus as u64);
                Ok(vec![Some(field("shared_reservation", part)?); cpus])
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
                let all = field("host_cpus", parse_cpus(all))?;
                Ok(vec![Some(all); cpus])
            }
            (None, Some(list)) => {
                for_each_vcpu("vcpu_host_cpus", list, cpus, "all of the pool", parse_cpus)
            }
            (Some(_), Some(_)) => {
                fail("host_cpus and vcpu_host_cpus exclude each other: give one of them")
            }
        }
    }
}
