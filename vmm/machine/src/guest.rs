//! A guest: a KVM virtual machine with its memory, devices and how it ended.

use std::ops::Deref;
use std::sync::Arc;
use std::{fmt, io};

use baton_abi::hints as abi;
use baton_config::{GuestConfig, KernelSource};
use kvm_bindings::{
    CpuId, KVM_CAP_HALT_POLL, KVM_MP_STATE_RUNNABLE, KVM_MP_STATE_UNINITIALIZED,
    KVM_PIT_SPEAKER_DUMMY, kvm_enable_cap, kvm_mp_state, kvm_pit_config,
    kvm_userspace_memory_region,
};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use thiserror::Error;
use vm_memory::{Address, GuestMemoryBackend, GuestMemoryRegion};

use super::acpi::{self, AcpiError};
use super::apic_timer::TimerRates;
use super::boot::{self, BootError, Handover};
use super::clock::Clock;
use super::console::ConsolePort;
use super::cpuid;
use super::hints::{BadHintPage, Hints};
use super::kvm;
use super::loader::{self, Entry, InitrdError, LoadError};
use super::memory::{GuestMemory, MemoryError};
use super::power::PowerRegisters;
use super::reaper::{Pace, Reaper};
use super::record::GuestRecord;
use super::reset;
use super::serial::SerialPort;
use super::steal::StealTime;
use super::vcpu::Vcpu;
use crate::devices::{DeviceError, Devices, MmioRegion, VsockBounds};

/// Three pages that KVM needs on Intel processors without unrestricted guest mode; in the MMIO
/// hole, below the BIOS of a PC.
const TSS_ADDRESS: usize = 0xfffb_d000;

/// A guest that could not be created.
#[derive(Debug, Error)]
pub enum GuestError {
    /// A KVM call failed.
    #[error("guest {guest}: KVM refused {what}: {source}")]
    Kvm {
        /// The guest's name.
        guest: String,
        /// What was asked for.
        what: &'static str,
        /// The answer.
        source: kvm_ioctls::Error,
    },
    /// More vCPUs than KVM takes.
    #[error("guest {guest}: {cpus} vCPUs are more than the {max} that this host's KVM takes")]
    TooManyVcpus {
        /// The guest's name.
        guest: String,
        /// vCPUs asked for.
        cpus: usize,
        /// Most possible.
        max: usize,
    },
    /// No memory.
    #[error("guest {guest}: {source}")]
    Memory {
        /// The guest's name.
        guest: String,
        /// Why not.
        source: MemoryError,
    },
    /// No kernel.
    #[error("guest {guest}: {source}")]
    Load {
        /// The guest's name.
        guest: String,
        /// Why not.
        source: LoadError,
    },
    /// Boot structures.
    #[error("guest {guest}: {source}")]
    Boot {
        /// The guest's name.
        guest: String,
        /// Why not.
        source: BootError,
    },
    /// No RAM disk.
    #[error("guest {guest}: {source}")]
    Initrd {
        /// The guest's name.
        guest: String,
        /// Why not.
        source: InitrdError,
    },
    /// No ACPI tables.
    #[error("guest {guest}: {source}")]
    Acpi {
        /// The guest's name.
        guest: String,
        /// Why not.
        source: AcpiError,
    },
    /// No device.
    #[error("guest {guest}: {source}")]
    Device {
        /// The guest's name.
        guest: String,
        /// Why not.
        source: DeviceError,
    },
    /// A host resource.
    #[error("guest {guest}: cannot set up its devices: {source}")]
    Host {
        /// The guest's name.
        guest: String,
        /// Why not.
        source: io::Error,
    },
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestEnd {
    /// It said so, with this code; 0 is success.
    Exited(u32),
    /// A fault while it handled a fault while it handled a fault.
    TripleFault {
        /// Index of the vCPU.
        vcpu: u32,
    },
    /// KVM or Baton cannot run it any further.
    InternalError {
        /// Index of the vCPU.
        vcpu: u32,
        /// What happened.
        text: String,
    },
    /// Stopped from outside: the run is over.
    Killed,
}

impl GuestEnd {
    /// Whether nothing went wrong.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Exited(0) | Self::Killed)
    }
}

impl fmt::Display for GuestEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(0) => write!(f, "done"),
            Self::Exited(code) => write!(f, "failed with code {code}"),
            Self::TripleFault { vcpu } => write!(
                f,
                "triple fault on vCPU {vcpu} (the host's kernel log may name the address)"
            ),
            Self::InternalError { vcpu, text } => write!(f, "stopped at vCPU {vcpu}: {text}"),
            Self::Killed => write!(f, "stopped when the run ended"),
        }
    }
}

/// What the rest of the program gives a guest.
#[derive(Clone, Debug)]
pub struct GuestWiring {
    /// Where its console output goes.
    pub console: ConsolePort,
    /// `baton_abi::hints::FEATURE_*` bits that the scheduler keeps.
    pub features: u32,
    /// How many sockets its vsock device may have.
    pub vsock: VsockBounds,
    /// Who takes it apart when it has ended.
    pub reaper: Reaper,
    /// The image for [`KernelSource::Builtin`].
    pub builtin: &'static [u8],
}

impl Default for GuestWiring {
    fn default() -> Self {
        Self {
            console: ConsolePort::discard(),
            features: 0,
            vsock: VsockBounds::default(),
            reaper: Reaper::default(),
            builtin: &[],
        }
    }
}

/// What a guest has of the host, and what takes time to let go.
struct Machine {
    serial: SerialPort,
    devices: Devices,
    // Dropped in this order, the devices before: they and KVM let go of the memory before it is
    // unmapped.
    vm: VmFd,
    memory: GuestMemory,
}

impl Machine {
    /// Gives the host back what is its own.
    fn take_apart(self, pace: &Pace) {
        let Self {
            serial,
            devices,
            vm,
            memory,
        } = self;
        // Their threads may be at work on the memory until here.
        drop((devices, serial));
        // In pieces while KVM has it: then there is little left to do in the system calls below, in
        // which nobody can rest.
        let mut paced = pace.begin();
        memory.give_back(|| paced.rest_if_due());
        drop(vm);
        drop(memory);
    }
}

/// Leaves a machine to the reaper when it is dropped itself.
struct LeftToReaper {
    machine: Option<Arc<Machine>>,
    guest: Arc<GuestRecord>,
    reaper: Reaper,
}

impl Drop for LeftToReaper {
    fn drop(&mut self) {
        if let Some(machine) = self.machine.take() {
            self.reaper.take_apart(&self.guest.name, move |pace| {
                // The guest's own field has been dropped before this value.
                if let Some(machine) = Arc::into_inner(machine) {
                    machine.take_apart(pace);
                }
            });
        }
    }
}

/// A guest that can run. Its vCPUs keep it alive, and when the last is gone, so is what it has of the
/// host; its [`GuestRecord`] stays as long as somebody asks.
pub struct Guest {
    record: Arc<GuestRecord>,
    /// The hint pages of its vCPUs.
    pub hints: Hints,
    /// Its steal time, if our policy decides what runs.
    pub steal: StealTime,
    /// What the timers of its local APICs may have.
    pub timers: TimerRates,
    features: u32,
    pub(super) power: PowerRegisters,
    machine: Arc<Machine>,
    // After `machine`, so that the reaper gets the last reference to it, on whichever thread this value
    // is dropped.
    left: LeftToReaper,
}

impl Deref for Guest {
    type Target = GuestRecord;

    fn deref(&self) -> &GuestRecord {
        &self.record
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

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
        let name = || config.name.clone();
        let refused = |what| {
            move |source| GuestError::Kvm {
                guest: name(),
                what,
                source,
            }
        };
        let max = kvm.get_max_vcpus();
        if config.cpus > max {
            return Err(GuestError::TooManyVcpus {
                guest: name(),
                cpus: config.cpus,
                max,
            });
        }

        let memory = GuestMemory::new(config.memory).map_err(|source| GuestError::Memory {
            guest: name(),
            source,
        })?;
        let vm = kvm.create_vm().map_err(refused("a virtual machine"))?;
        map_memory(&vm, &memory).map_err(refused("the guest's memory"))?;
        vm.set_tss_address(TSS_ADDRESS)
            .map_err(refused("the TSS address"))?;
        vm.create_irq_chip()
            .map_err(refused("an interrupt controller"))?;
        if config.kernel != KernelSource::Builtin {
            // The test guest has no use for it, and KVM starts a thread for each.
            vm.create_pit2(kvm_pit_config {
                flags: KVM_PIT_SPEAKER_DUMMY,
                ..Default::default()
            })
            .map_err(refused("an interval timer"))?;
        }
        stop_halt_polling(&vm);
        // Where our policy decides what runs; before Linux 5.10 KVM's own numbers stay.
        let own_steal = wiring.features & abi::FEATURE_RUNNING != 0 && StealTime::trap(&vm).is_ok();
        let device = |source| GuestError::Device {
            guest: name(),
            source,
        };
        // What may take long comes before what others can see: sockets.
        let regions = Devices::planned(config).map_err(device)?;
        let entry = Self::load(config, wiring.builtin, &memory, &regions)?;
        let devices = Devices::new(&vm, memory.regions(), config, wiring.vsock).map_err(device)?;
        debug_assert_eq!(devices.regions(), regions);

        let supported = cpuid::supported(kvm, wiring.features, own_steal)
            .map_err(refused("to say its CPUID"))?;
        let mut fds = Vec::with_capacity(config.cpus);
        let mut clock = Clock::new(1, 0);
        for index in 0..config.cpus as u32 {
            let fd = vm
                .create_vcpu(u64::from(index))
                .map_err(refused("a vCPU"))?;
            set_up_vcpu(&fd, index, config.cpus as u32, &supported, entry)
                .map_err(refused("a vCPU's registers"))?;
            clock = Clock::of_vcpu(&fd).map_err(refused("to say its TSC frequency"))?;
            fds.push(fd);
        }

        let host = |source| GuestError::Host {
            guest: name(),
            source,
        };
        let serial = SerialPort::new(&vm, wiring.console.clone()).map_err(host)?;
        let record = Arc::new(GuestRecord::new(
            number,
            config.name.clone(),
            config.cpus as u32,
            clock,
            wiring.console,
        ));
        let machine = Arc::new(Machine {
            serial,
            devices,
            vm,
            memory,
        });
        let guest = Arc::new(Self {
            hints: Hints::new(config.cpus),
            steal: StealTime::new(config.cpus),
            timers: TimerRates::new(config.cpus as u32, kvm::shortest_timer_period()),
            features: wiring.features,
            power: PowerRegisters::default(),
            left: LeftToReaper {
                machine: Some(Arc::clone(&machine)),
                guest: Arc::clone(&record),
                reaper: wiring.reaper,
            },
            record,
            machine,
        });
        let vcpus = fds
            .into_iter()
            .zip(0..)
            .map(|(fd, index)| Vcpu::new(Arc::clone(&guest), index, fd).map(Box::new))
            .collect::<io::Result<Vec<_>>>()
            .map_err(host)?;
        Ok((guest, vcpus))
    }

    /// Puts boot structures, kernel and RAM disk into memory. Gives the kernel's entry.
    fn load(
        config: &GuestConfig,
        builtin: &[u8],
        memory: &GuestMemory,
        regions: &[MmioRegion],
    ) -> Result<Entry, GuestError> {
        let name = || config.name.clone();
        let memory = memory.regions();
        let boot = |source| GuestError::Boot {
            guest: name(),
            source,
        };
        // Boot structures first, so that a kernel that loads itself over them harms only itself.
        boot::write_boot_structures(memory).map_err(boot)?;
        let rsdp = acpi::write(memory, config.cpus as u32, regions).map_err(|source| {
            GuestError::Acpi {
                guest: name(),
                source,
            }
        })?;
        let kernel =
            loader::load(&config.kernel, builtin, memory).map_err(|source| GuestError::Load {
                guest: name(),
                source,
            })?;
        let initrd = config
            .initrd
            .as_ref()
            .map(|path| loader::load_initrd(path, &kernel, memory, config.memory))
            .transpose()
            .map_err(|source| GuestError::Initrd {
                guest: name(),
                source,
            })?;
        let handover = Handover {
            header: kernel.header,
            initrd,
            rsdp: Some(rsdp),
        };
        let (size, cmdline) = (config.memory, &config.cmdline);
        boot::hand_over(memory, size, cmdline, kernel.entry, handover).map_err(boot)?;
        Ok(kernel.entry)
    }

    /// What stays of it.
    #[must_use]
    pub fn record(&self) -> &Arc<GuestRecord> {
        &self.record
    }

    /// Who takes it apart when it has ended.
    #[must_use]
    pub fn reaper(&self) -> &Reaper {
        &self.left.reaper
    }

    /// `baton_abi::hints::FEATURE_*` bits on offer.
    #[must_use]
    pub fn features(&self) -> u32 {
        self.features
    }

    /// Its serial port.
    #[must_use]
    pub fn serial(&self) -> &SerialPort {
        &self.machine.serial
    }

    /// Its virtio devices.
    #[must_use]
    pub fn devices(&self) -> &Devices {
        &self.machine.devices
    }

    /// Its memory.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.machine.memory
    }

    /// Its KVM file, for ioctls that have no method here.
    #[must_use]
    pub fn vm(&self) -> &VmFd {
        &self.machine.vm
    }

    /// Registers the page with frame number `pfn` as the hint page of vCPU `index`, which is
    /// running now: it asks.
    pub(super) fn register_hint_page(&self, index: u32, pfn: u32) -> Result<(), BadHintPage> {
        self.hints.register(index, pfn, self.memory().regions())?;
        self.hints.set_running(index, true);
        Ok(())
    }

    /// Registers the steal time structure of vCPU `index`. False: the value makes no sense.
    pub(super) fn register_steal_time(&self, index: u32, value: u64) -> bool {
        self.steal.write_msr(index, value, self.memory().regions())
    }

    pub(super) fn serial_write(&self, register: u8, data: &[u8]) {
        self.serial().write(register, data);
    }

    pub(super) fn serial_read(&self, register: u8, data: &mut [u8]) {
        self.serial().read(register, data);
    }
}

fn map_memory(vm: &VmFd, memory: &GuestMemory) -> Result<(), kvm_ioctls::Error> {
    for (slot, region) in memory.regions().iter().enumerate() {
        let host = memory
            .regions()
            .get_host_address(region.start_addr())
            .map_err(|_| kvm_ioctls::Error::new(libc::EFAULT))?;
        // SAFETY: the region is mapped for as long as the guest, and thus its VM, lives; regions
        // do not overlap.
        unsafe {
            vm.set_user_memory_region(kvm_userspace_memory_region {
                slot: slot as u32,
                flags: 0,
                guest_phys_addr: region.start_addr().raw_value(),
                memory_size: region.len(),
                userspace_addr: host as u64,
            })?;
        }
    }
    Ok(())
}

/// Without polling, a halted vCPU gives its host CPU up at once, and the scheduler hears of it.
/// KVM before 5.10 has only the module's parameter; then the halt is noticed that much later.
fn stop_halt_polling(vm: &VmFd) {
    let _ = vm.enable_cap(&kvm_enable_cap {
        cap: KVM_CAP_HALT_POLL,
        ..Default::default()
    });
}

fn set_up_vcpu(
    fd: &VcpuFd,
    index: u32,
    cpus: u32,
    supported: &CpuId,
    entry: Entry,
) -> Result<(), kvm_ioctls::Error> {
    fd.set_cpuid2(&cpuid::for_vcpu(supported, index, cpus))?;
    reset::like_firmware(fd)?;
    if index == 0 {
        let mut sregs = fd.get_sregs()?;
        boot::enter(&mut sregs, entry);
        fd.set_sregs(&sregs)?;
        fd.set_regs(&boot::entry_registers(entry))?;
    }
    fd.set_mp_state(kvm_mp_state {
        mp_state: if index == 0 {
            KVM_MP_STATE_RUNNABLE
        } else {
            KVM_MP_STATE_UNINITIALIZED
        },
    })
}
