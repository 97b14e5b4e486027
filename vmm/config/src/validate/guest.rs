//! The checks of one guest.

use super::devices;
use crate::error::{ConfigError, fail};
use crate::guest::{
    DEFAULT_WEIGHT, GuestConfig, KernelSource, MAX_CMDLINE, MAX_MEMORY, MAX_VCPUS, MIN_MEMORY,
};

/// Refuses a guest that cannot run.
pub(super) fn check(guest: &GuestConfig) -> Result<(), ConfigError> {
    let checks = [
        check_size,
        check_builtin,
        check_symbols,
        check_shares,
        check_lists,
    ];
    checks.iter().try_for_each(|check| check(guest))?;
    devices::check_identities(guest)
}

fn check_size(guest: &GuestConfig) -> Result<(), ConfigError> {
    let GuestConfig {
        name, cpus, memory, ..
    } = guest;
    if *cpus == 0 || *cpus > MAX_VCPUS {
        return fail(format!(
            "guest {name}: cpus is {cpus}, must be 1 to {MAX_VCPUS}"
        ));
    }
    if !(MIN_MEMORY..=MAX_MEMORY).contains(memory) || !memory.is_multiple_of(4096) {
        return fail(format!(
            "guest {name}: memory is {memory} bytes, must be 4M to 1T and a multiple of 4K"
        ));
    }
    if guest.cmdline.len() > MAX_CMDLINE {
        return fail(format!(
            "guest {name}: the command line has {} bytes, at most {MAX_CMDLINE} fit",
            guest.cmdline.len()
        ));
    }
    Ok(())
}

/// The built-in test guest drives no virtio device and has no use for a RAM disk.
fn check_builtin(guest: &GuestConfig) -> Result<(), ConfigError> {
    let name = &guest.name;
    if guest.kernel != KernelSource::Builtin {
        return Ok(());
    }
    if !guest.disks.is_empty() || !guest.nets.is_empty() || guest.vsock.is_some() {
        return fail(format!(
            "guest {name}: the built-in test guest has no drivers for disks, network \
             interfaces and vsock: give it a kernel"
        ));
    }
    if guest.initrd.is_some() {
        return fail(format!(
            "guest {name}: the built-in test guest reads no RAM disk: give it a kernel, or leave the \
             RAM disk out"
        ));
    }
    Ok(())
}

/// Symbols are of use only where hints are inferred from the count of a kernel that the user gave.
fn check_symbols(guest: &GuestConfig) -> Result<(), ConfigError> {
    let name = &guest.name;
    if guest.symbols.is_none() {
        return Ok(());
    }
    if guest.kernel == KernelSource::Builtin {
        return fail(format!(
            "guest {name}: the symbols are those of a kernel, and the built-in test guest needs none: give \
             it a kernel, or leave the symbols out"
        ));
    }
    if !guest.hints.searches_for_count() {
        return fail(format!(
            "guest {name}: symbols are used only to find the kernel's preempt count: give --hints auto or \
             --hints inferred, or leave the symbols out"
        ));
    }
    Ok(())
}

fn check_shares(guest: &GuestConfig) -> Result<(), ConfigError> {
    let GuestConfig { name, weight, .. } = guest;
    if *weight != DEFAULT_WEIGHT && guest.reservations.iter().all(Option::is_some) {
        return fail(format!(
            "guest {name}: a weight is for vCPUs without a reservation, and each of its vCPUs has \
             one: leave the weight or a reservation out"
        ));
    }
    if !(1..=10_000).contains(weight) {
        return fail(format!(
            "guest {name}: weight is {weight}, must be 1 to 10000"
        ));
    }
    Ok(())
}

fn check_lists(guest: &GuestConfig) -> Result<(), ConfigError> {
    let GuestConfig { name, cpus, .. } = guest;
    if guest.reservations.len() != *cpus || guest.host_cpus.len() != *cpus {
        return fail(format!(
            "guest {name}: there must be one reservation and one CPU set for each of its {cpus} vCPUs"
        ));
    }
    if guest.host_cpus.iter().flatten().any(Vec::is_empty) {
        return fail(format!("guest {name}: a vCPU has no host CPU to run on"));
    }
    Ok(())
}
