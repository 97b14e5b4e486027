//! The steps by which a guest is created.

use std::io;
use std::sync::Arc;

use baton_abi::hints::FEATURE_RUNNING;
use baton_config::{GuestConfig, KernelSource};
use kvm_ioctls::{Kvm, VcpuFd};

use super::error::{GuestError, GuestErrorKind, kvm_refused};
use super::handle::Guest;
use super::host_resources::HostResources;
use super::record::GuestRecord;
use super::scanned_kernel::ScannedKernel;
use super::vm;
use super::wiring::GuestWiring;
use crate::acpi;
use crate::boot::{self, Handover};
use crate::cpuid;
use crate::devices::{Devices, MmioRegion};
use crate::hints::HintPages;
use crate::kernel_image;
use crate::loader::{self, Entry};
use crate::memory::GuestMemory;
use crate::serial::SerialPort;
use crate::steal::StealTime;
use crate::vcpu::Vcpu;

impl Guest {
    /// Creates guest `number` with its vCPUs in order, ready to run: vCPU 0 at the kernel's entry,
    /// the others waiting to be started by it. Output is discarded and no feature offered; see
    /// [`Guest::create_with`].
    ///
    /// # Errors
    /// What is missing, as [`GuestError`].
    pub fn create(
        kvm: &Kvm,
        number: usize,
        config: &GuestConfig,
    ) -> Result<(Arc<Self>, Vec<Box<Vcpu>>), GuestError> {
        Self::create_with(kvm, number, config, GuestWiring::default())
    }

    /// [`Guest::create`] with console and features.
    ///
    /// # Errors
    /// What is missing, as [`GuestError`].
    pub fn create_with(
        kvm: &Kvm,
        number: usize,
        config: &GuestConfig,
        wiring: GuestWiring,
    ) -> Result<(Arc<Self>, Vec<Box<Vcpu>>), GuestError> {
        let created = create(kvm, number, config, wiring).and_then(|(guest, fds)| {
            let vcpus = fds
                .into_iter()
                .zip(0..)
                .map(|(fd, index)| Vcpu::new(Arc::clone(&guest), index, fd).map(Box::new))
                .collect::<io::Result<_>>()
                .map_err(GuestErrorKind::Host)?;
            Ok((guest, vcpus))
        });
        created.map_err(|kind| GuestError {
            guest: config.name.clone(),
            kind,
        })
    }
}

/// Creates the guest, and its vCPUs as KVM has them.
fn create(
    kvm: &Kvm,
    number: usize,
    config: &GuestConfig,
    wiring: GuestWiring,
) -> Result<(Arc<Guest>, Vec<VcpuFd>), GuestErrorKind> {
    check_vcpu_count(kvm, config.cpus)?;
    let memory = GuestMemory::new(config.memory)?;
    // The built-in test guest has no use for an interval timer, for which KVM starts a thread.
    let with_pit = config.kernel != KernelSource::Builtin;
    let vm = vm::create(kvm, &memory, with_pit)?;
    // Steal time is Baton's own where its policy decides which vCPU runs. KVM before 5.10 cannot trap the
    // MSR; then KVM's own numbers stay.
    let own_steal = wiring.features & FEATURE_RUNNING != 0 && StealTime::trap(&vm).is_ok();
    // Loading may take long, so it comes before sockets that others can see.
    let regions = Devices::planned(config)?;
    let entry = load(config, wiring.builtin, &memory, &regions)?;
    let devices = Devices::new(&vm, memory.regions(), config, wiring.vsock)?;
    debug_assert_eq!(devices.regions(), regions);

    let features = match config.hints.offers_pages() {
        true => wiring.features,
        false => 0,
    };
    let supported =
        cpuid::supported(kvm, features, own_steal).map_err(kvm_refused("to report its CPUID"))?;
    let (fds, clock) = vm::create_vcpus(&vm, config.cpus as u32, &supported, entry)?;
    let resources = HostResources {
        serial: SerialPort::new(&vm, wiring.console.clone()).map_err(GuestErrorKind::Host)?,
        devices,
        vm,
        memory,
    };
    let record = Arc::new(GuestRecord::new(
        number,
        config.name.clone(),
        config.cpus as u32,
        clock,
        wiring.console,
        wiring.restarts,
    ));
    let pages = match config.hints.offers_pages() {
        true => config.cpus,
        false => 0,
    };
    let hints = HintPages::new(pages);
    let guest = Arc::new(Guest::new(
        record,
        resources,
        hints,
        features,
        wiring.reaper,
    ));
    // The host's own scheduler has no use for hints.
    if config.hints.infers() && wiring.features & FEATURE_RUNNING != 0 {
        infer_hints(&guest, config)?;
    }
    guest.record_hints_in_force();
    Ok((guest, fds))
}

/// Begins to infer the hints of `guest` as `config` has it.
fn infer_hints(guest: &Arc<Guest>, config: &GuestConfig) -> Result<(), GuestErrorKind> {
    if !config.hints.searches_for_count() {
        guest.inferred.start_without_scans();
        return Ok(());
    }
    if let Some(symbols) = &config.symbols {
        let count = kernel_image::read_symbols(symbols)?;
        guest.inferred.set_linked(count);
    }
    let started = guest.inferred.start(ScannedKernel::of(guest));
    started.map_err(GuestErrorKind::Host)
}

fn check_vcpu_count(kvm: &Kvm, cpus: usize) -> Result<(), GuestErrorKind> {
    let max = kvm.get_max_vcpus();
    if cpus > max {
        return Err(GuestErrorKind::TooManyVcpus { cpus, max });
    }
    Ok(())
}

/// Writes boot structures, ACPI tables, kernel and RAM disk into memory. Returns the kernel's entry.
fn load(
    config: &GuestConfig,
    builtin: &[u8],
    memory: &GuestMemory,
    regions: &[MmioRegion],
) -> Result<Entry, GuestErrorKind> {
    let memory = memory.regions();
    // Boot structures first, so that a kernel that loads itself over them harms only itself.
    boot::write_boot_structures(memory)?;
    let rsdp = acpi::write(memory, config.cpus as u32, regions)?;
    let kernel = loader::load(&config.kernel, builtin, memory)?;
    let initrd = config
        .initrd
        .as_ref()
        .map(|path| loader::load_initrd(path, &kernel, memory, config.memory))
        .transpose()?;
    let handover = Handover {
        header: kernel.header,
        initrd,
        rsdp: Some(rsdp),
    };
    let (size, cmdline) = (config.memory, &config.cmdline);
    boot::hand_over(memory, size, cmdline, kernel.entry, handover)?;
    Ok(kernel.entry)
}
