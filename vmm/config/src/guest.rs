//! One guest: its kernel, memory, vCPUs and devices.

use std::path::PathBuf;

use vcpu_sched::Reservation;

use crate::console::ConsoleConfig;
use crate::disk::DiskConfig;
use crate::net::NetConfig;
use crate::vsock::VsockConfig;

/// Most vCPUs of a guest.
pub const MAX_VCPUS: usize = 254;
/// Smallest memory of a guest, bytes: boot structures, the kernel at 1 MiB and some room.
pub const MIN_MEMORY: u64 = 4 << 20;
/// Largest memory of a guest, bytes.
pub const MAX_MEMORY: u64 = 1 << 40;
/// Longest kernel command line, bytes, without the final zero.
pub const MAX_CMDLINE: usize = 2047;
/// Default of [`GuestConfig::weight`].
pub const DEFAULT_WEIGHT: u32 = 100;

/// Where a guest's kernel comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelSource {
    /// The bare-metal test guest built into this program.
    Builtin,
    /// A 64-bit ELF file or a bzImage.
    Path(PathBuf),
}

/// Where the hints about a guest's lock holders come from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum HintSource {
    /// The pages in which the guest publishes them; for a vCPU without a page, what the host infers.
    Auto,
    /// The pages in which the guest publishes them.
    #[default]
    Page,
    /// What the host infers. The guest is offered no pages.
    Inferred,
    /// What the host infers of any guest, without a search for its kernel's preempt count. The guest is offered
    /// no pages.
    #[value(name = "inferred:any")]
    InferredAny,
    /// There are none.
    Off,
}

impl HintSource {
    /// Whether the guest may register hint pages.
    #[must_use]
    pub fn offers_pages(self) -> bool {
        matches!(self, Self::Auto | Self::Page)
    }

    /// Whether the host infers hints.
    #[must_use]
    pub fn infers(self) -> bool {
        matches!(self, Self::Auto | Self::Inferred | Self::InferredAny)
    }

    /// Whether the host searches the guest's kernel for its preempt count.
    #[must_use]
    pub fn searches_for_count(self) -> bool {
        matches!(self, Self::Auto | Self::Inferred)
    }
}

/// What follows when a guest resets itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum OnReboot {
    /// The guest has ended.
    End,
    /// The guest starts again.
    Restart,
}

/// Which ends of a guest are followed by a new start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum RestartPolicy {
    /// None.
    #[default]
    Never,
    /// Failures: a code other than 0, a triple fault, an error of KVM.
    OnFailure,
    /// All but those that were requested.
    Always,
}

/// One guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// Name in messages and tables: printable characters, and different from the names of the other
    /// guests of the run.
    pub name: String,
    /// Its kernel.
    pub kernel: KernelSource,
    /// Its initial RAM disk.
    pub initrd: Option<PathBuf>,
    /// Its disks, in order: `/dev/vda`, `/dev/vdb` and so on to Linux.
    pub disks: Vec<DiskConfig>,
    /// Its network interfaces, in order.
    pub nets: Vec<NetConfig>,
    /// Its sockets to the host.
    pub vsock: Option<VsockConfig>,
    /// Its console.
    pub console: ConsoleConfig,
    /// Number of vCPUs.
    pub cpus: usize,
    /// Memory, bytes; a multiple of 4096.
    pub memory: u64,
    /// Kernel command line.
    pub cmdline: String,
    /// Reservation of each vCPU. vCPUs with `None` share by weight what reservations leave.
    pub reservations: Vec<Option<Reservation>>,
    /// Share of each vCPU without a reservation in what reservations leave; 1 to 10000.
    pub weight: u32,
    /// Host CPUs that each vCPU may use; `None` for all of the pool.
    pub host_cpus: Vec<Option<Vec<usize>>>,
    /// Where the hints about its lock holders come from.
    pub hints: HintSource,
    /// The symbols of its kernel (`System.map` or `vmlinux`), from which hints are inferred without a scan.
    pub symbols: Option<PathBuf>,
    /// What follows when it resets itself. `None`: as the command has it that runs the guest.
    pub on_reboot: Option<OnReboot>,
    /// Which of its ends are followed by a new start.
    pub restart: RestartPolicy,
}

impl GuestConfig {
    /// A guest of one vCPU with the built-in kernel, 64 MiB and no reservation.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            kernel: KernelSource::Builtin,
            initrd: None,
            disks: Vec::new(),
            nets: Vec::new(),
            vsock: None,
            console: ConsoleConfig::default(),
            cpus: 1,
            memory: 64 << 20,
            cmdline: String::new(),
            reservations: vec![None],
            weight: DEFAULT_WEIGHT,
            host_cpus: vec![None],
            hints: HintSource::default(),
            symbols: None,
            on_reboot: None,
            restart: RestartPolicy::default(),
        }
    }

    /// Whether it starts again after some of its ends.
    #[must_use]
    pub fn may_restart(&self) -> bool {
        self.on_reboot == Some(OnReboot::Restart) || self.restart != RestartPolicy::Never
    }

    /// The same guest with `cpus` vCPUs, none with a reservation or pinned.
    #[must_use]
    pub fn with_cpus(mut self, cpus: usize) -> Self {
        self.cpus = cpus;
        self.reservations = vec![None; cpus];
        self.host_cpus = vec![None; cpus];
        self
    }
}
