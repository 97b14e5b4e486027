//! What to run: plain values, from flags or from a TOML file ([`mod@file`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use thiserror::Error;

mod control;
pub mod file;
pub mod identity;
mod kept;
mod metrics_target;
mod names;
pub mod rate;
pub mod units;
pub mod values;

pub use control::Control;
pub use kept::Given;
pub use metrics_target::MetricsTarget;
use rate::{RateLimit, RateOptions};
pub use vcpu_sched::Reservation;

/// Most vCPUs a guest may have.
pub const MAX_VCPUS: usize = 254;
/// Smallest guest memory: boot structures, the kernel at 1 MiB and some room.
pub const MIN_MEMORY: u64 = 4 << 20;
/// Largest guest memory.
pub const MAX_MEMORY: u64 = 1 << 40;
/// Largest address of a guest's vsock: the next stands for any.
const MAX_CID: u32 = u32::MAX - 1;
/// Longest kernel command line, bytes, without the final zero.
pub const MAX_CMDLINE: usize = 2047;

/// A configuration that cannot run, said in one sentence.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct ConfigError(pub String);

/// Everything about one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunConfig {
    /// The guests, in order; their place is their `GuestRecord::number` in baton-machine.
    pub guests: Vec<GuestConfig>,
    /// Host CPUs of the pool, ascending, none twice. Empty: all that this process may use.
    pub host_cpus: Vec<usize>,
    /// Who decides which vCPU runs.
    pub sched: SchedMode,
    /// Run preempted lock holders on their waiters' budgets ([`SchedMode::Baton`] only).
    pub proxy: bool,
    /// How long the preemption of a lock holder may be put off; `None` for never.
    pub defer: Option<Duration>,
    /// Longest time a vCPU without a reservation runs while others wait.
    pub slice: Duration,
    /// Which of these the user has given a value, whatever it is.
    pub given: Given,
    /// Whether each vCPU has a thread of its own.
    pub vcpu_threads: VcpuThreads,
    /// Whether reservations are taken where halts are noticed late ([`SchedMode::Baton`] only).
    pub late_halts: LateHalts,
    /// Stop after this long; `None` runs until all guests ended.
    pub duration: Option<Duration>,
    /// Stop when the guest of this name has ended.
    pub until_guest: Option<String>,
    /// Form of the summary.
    pub summary: SummaryForm,
    /// Which of the policy's decisions to record for a timeline ([`SchedMode::Baton`] only).
    pub timeline: Timeline,
    /// File to write a trace to, in Perfetto's format ([`SchedMode::Baton`] only).
    pub trace: Option<PathBuf>,
    /// Where to offer metrics ([`SchedMode::Baton`] only).
    pub metrics: Option<MetricsTarget>,
    /// Where to offer the control socket ([`SchedMode::Baton`] only).
    pub control: Control,
    /// Let guests have more memory together than there is.
    pub overcommit_memory: bool,
    /// Discard what guests print and give them no input.
    pub quiet: bool,
}

impl Default for RunConfig {
    fn default() -> Self {
        Self {
            guests: Vec::new(),
            host_cpus: Vec::new(),
            sched: SchedMode::Baton,
            proxy: true,
            defer: Some(DEFAULT_DEFER),
            slice: DEFAULT_SLICE,
            given: Given::default(),
            vcpu_threads: VcpuThreads::Auto,
            late_halts: LateHalts::Refuse,
            duration: None,
            until_guest: None,
            summary: SummaryForm::Text,
            timeline: Timeline::Off,
            trace: None,
            metrics: None,
            control: Control::Off,
            overcommit_memory: false,
            quiet: false,
        }
    }
}

/// Default of [`RunConfig::slice`]. A preemption costs some 25 us, so 4 ms keep that below 1 %.
pub const DEFAULT_SLICE: Duration = Duration::from_millis(4);
/// Default of [`GuestConfig::weight`].
pub const DEFAULT_WEIGHT: u32 = 100;
/// Default of [`RunConfig::defer`].
pub const DEFAULT_DEFER: Duration = Duration::from_micros(50);

/// Who decides which vCPU runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SchedMode {
    /// Baton's own policy on one executor per host CPU.
    Baton,
    /// A thread per vCPU under the host kernel's default policy.
    Host,
    /// A thread per vCPU under the host kernel's SCHED_DEADLINE.
    HostDeadline,
}

/// What of a run is recorded for a timeline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Timeline {
    /// Nothing.
    #[default]
    Off,
    /// The longest time that a waiter's budget carried a holder, and what happened around it.
    LongestCarried,
    /// All from the start, of a run that is short.
    Whole,
}

/// Whether an executor calls `KVM_RUN` itself or through a thread of the vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum VcpuThreads {
    /// By kernel version: before Linux 6.13 a vCPU that changes thread costs milliseconds.
    Auto,
    /// A thread per vCPU.
    On,
    /// Executors run vCPUs directly.
    Off,
}

/// What becomes of reservations where the halt or the wake of a vCPU is noticed late, because perf
/// events are not permitted or KVM is too old: a halted vCPU then keeps its host CPU from others for up
/// to 1 ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LateHalts {
    /// A run with a reservation is refused.
    Refuse,
    /// It runs all the same.
    Allow,
}

/// Form of the summary at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum SummaryForm {
    /// A table.
    Text,
    /// One JSON object, alone on standard output: what guests print goes to standard error
    Json,
}

/// Where a guest's kernel comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KernelSource {
    /// The bare-metal test guest built into this program.
    Builtin,
    /// A 64-bit ELF file or a bzImage.
    Path(PathBuf),
}

/// A disk, written `PATH` and, behind it, `,ro`, `,serial=` and limits ([`mod@rate`]), as in
/// `root.img,serial=root-1,bandwidth=100M/s,ops=5000/s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskConfig {
    /// A raw image, or a block device of the host.
    pub path: PathBuf,
    /// Whether the guest may only read it.
    pub read_only: bool,
    /// The serial number that the guest reads; without one it is made of the file's place on the host.
    pub serial: Option<identity::Serial>,
    /// How much the guest may read and write.
    pub limit: RateLimit,
}

impl FromStr for DiskConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A path may have commas: its options begin with the first that can be one.
        let is_option = |part: &str| part == "ro" || part.contains('=');
        let mut commas = text.match_indices(',').map(|(at, _)| at);
        let first = commas.find(|at| is_option(next_part(&text[at + 1..])));
        let (path, options) = match first {
            Some(at) => (&text[..at], &text[at..]),
            None => (text, ""),
        };
        if path.is_empty() {
            return fail(format!(
                "'{text}' is no disk, write it as in root.img or data.img,ro"
            ));
        }
        let mut read_only = false;
        let mut serial = None;
        let mut limit = RateOptions::new("");
        for option in options.split(',').skip(1) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if option == "ro" {
                read_only = true;
            } else if name == "serial" {
                serial = Some(value.parse()?);
            } else if !limit.take(name, value)? {
                return fail(format!(
                    "'{name}' is no option of a disk: there are ro, serial, bandwidth, bandwidth-burst, \
                     ops and ops-burst, as in root.img,bandwidth=100M/s"
                ));
            }
        }
        Ok(Self {
            path: path.into(),
            read_only,
            serial,
            limit: limit.limit()?,
        })
    }
}

/// What stands before the next comma.
fn next_part(text: &str) -> &str {
    text.split(',').next().unwrap_or_default()
}

/// A network interface, written `tap=NAME` and, behind it, `,mac=52:54:00:12:34:56` and limits
/// ([`mod@rate`]) for frames to the guest and from it, as in `tap=tap0,rx-bandwidth=10M/s,tx-ops=5000/s`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetConfig {
    /// Name of the tap on the host.
    pub tap: String,
    /// The guest's address; without one its driver makes one up.
    pub mac: Option<[u8; 6]>,
    /// How much it may receive.
    pub rx: RateLimit,
    /// How much it may send.
    pub tx: RateLimit,
}

impl FromStr for NetConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || {
            ConfigError(format!(
                "'{text}' is no network interface, write it as in tap=tap0 or \
                 tap=tap0,mac=52:54:00:12:34:56"
            ))
        };
        let mut parts = text.split(',');
        let tap = parts.next().unwrap_or_default();
        let tap = tap.strip_prefix("tap=").filter(|tap| {
            !tap.is_empty() && !tap.contains('/') && !tap.contains(char::is_whitespace)
        });
        let tap = tap.ok_or_else(bad)?.to_owned();
        let mut mac = None;
        let mut rx = RateOptions::new("rx-");
        let mut tx = RateOptions::new("tx-");
        for option in parts {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            if name == "mac" {
                mac = Some(identity::parse_mac(value)?);
            } else if !rx.take(name, value)? && !tx.take(name, value)? {
                return fail(format!(
                    "'{name}' is no option of a network interface: there are mac and, for each of rx and \
                     tx, rx-bandwidth, rx-bandwidth-burst, rx-ops and rx-ops-burst, as in \
                     tap=tap0,rx-bandwidth=10M/s"
                ));
            }
        }
        Ok(Self {
            tap,
            mac,
            rx: rx.limit()?,
            tx: tx.limit()?,
        })
    }
}

/// A socket device, written `cid=3,path=/run/vm.sock`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VsockConfig {
    /// The guest's address, 3 or more.
    pub cid: u32,
    /// The Unix socket where programs of the host reach the guest. Those that the guest reaches
    /// listen at this path with `_` and a port behind it.
    pub path: PathBuf,
}

impl FromStr for VsockConfig {
    type Err = ConfigError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = text
            .strip_prefix("cid=")
            .and_then(|rest| rest.split_once(",path="))
            .filter(|(_, path)| !path.is_empty());
        let Some((cid, path)) = parts else {
            return fail(format!(
                "'{text}' is no vsock device, write it as in cid=3,path=/run/vm.sock"
            ));
        };
        match cid.parse() {
            // Below are the hypervisor, loopback and the host.
            Ok(cid @ 3..=MAX_CID) => Ok(Self {
                cid,
                path: path.into(),
            }),
            _ => fail(format!(
                "cid is '{cid}', must be 3 to {MAX_CID}, as in cid=3,path=/run/vm.sock"
            )),
        }
    }
}

/// One guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// Name in messages and tables: of printable characters, and no other guest's of the run.
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
    /// Number of vCPUs.
    pub cpus: usize,
    /// Memory, bytes; a multiple of 4096.
    pub memory: u64,
    /// Kernel command line.
    pub cmdline: String,
    /// Reservation of each vCPU; `None` entries share what is left over by weight.
    pub reservations: Vec<Option<Reservation>>,
    /// Share of what is left over, for each vCPU without a reservation; 1 to 10000.
    pub weight: u32,
    /// Host CPUs that each vCPU may use; `None` for all of the pool.
    pub host_cpus: Vec<Option<Vec<usize>>>,
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
            cpus: 1,
            memory: 64 << 20,
            cmdline: String::new(),
            reservations: vec![None],
            weight: DEFAULT_WEIGHT,
            host_cpus: vec![None],
        }
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

impl RunConfig {
    /// Checks what flags and files cannot rule out one by one.
    ///
    /// # Errors
    /// The first thing that cannot run, with the range that would.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.validate_for_any()?;
        kept::check(self)
    }

    /// [`RunConfig::validate`] but for what depends on the scheduler, which flags may still change.
    fn validate_for_any(&self) -> Result<(), ConfigError> {
        if self.guests.is_empty() {
            return fail("there is no guest to run: give --cpus and --kernel, or a TOML file");
        }
        names::check(&self.guests)?;
        if self.slice < Duration::from_micros(100) || self.slice > Duration::from_secs(1) {
            return fail("the slice must be between 100us and 1s");
        }
        if self.defer.is_some_and(|d| d > Duration::from_millis(10)) {
            return fail("defer must be at most 10ms, or off");
        }
        if let Some(name) = &self.until_guest
            && self.awaited().next().is_none()
        {
            return fail(format!(
                "there is no guest '{}' until whose end to run: this run has {}",
                name.escape_debug(),
                self.names()
            ));
        }
        for guest in &self.guests {
            guest.validate()?;
        }
        if !self.host_cpus.is_empty() {
            self.pinned_within(&self.host_cpus)?;
        }
        self.own_sockets()
    }

    /// Checks that the host CPUs to which vCPUs are pinned are in the pool: the kernel would take the
    /// others and leave them out.
    ///
    /// # Errors
    /// The first that is not.
    pub fn pinned_within(&self, pool: &[usize]) -> Result<(), ConfigError> {
        for guest in &self.guests {
            let mut pinned = guest.host_cpus.iter().flatten().flatten();
            if let Some(cpu) = pinned.find(|cpu| !pool.contains(cpu)) {
                return fail(format!(
                    "guest {}: host CPU {cpu} is not in the pool ({})",
                    guest.name,
                    crate::units::format_cpus(pool)
                ));
            }
        }
        Ok(())
    }

    /// No two guests can listen at the same path.
    fn own_sockets(&self) -> Result<(), ConfigError> {
        let mut taken = BTreeMap::new();
        for guest in &self.guests {
            let Some(vsock) = &guest.vsock else { continue };
            if let Some(other) = taken.insert(&vsock.path, &guest.name) {
                return fail(format!(
                    "guests {other} and {} have the same vsock path {}: give each its own",
                    guest.name,
                    vsock.path.display()
                ));
            }
        }
        Ok(())
    }

    /// Places of the guests whose ends are the end of the run.
    pub fn awaited(&self) -> impl Iterator<Item = usize> {
        let until = self.until_guest.as_ref();
        let counts = move |guest: &GuestConfig| until.is_none_or(|name| *name == guest.name);
        let places = self.guests.iter().enumerate();
        places
            .filter(move |(_, guest)| counts(guest))
            .map(|(place, _)| place)
    }

    /// The names of the guests for a sentence; of many the first ones and how many there are.
    fn names(&self) -> String {
        const SHOWN: usize = 8;
        let names = self.guests.iter().map(|guest| guest.name.as_str());
        let shown = names.take(SHOWN).collect::<Vec<_>>().join(", ");
        match self.guests.len() {
            count if count > SHOWN => format!("{shown} and {} more", count - SHOWN),
            _ => shown,
        }
    }
}

impl GuestConfig {
    fn validate(&self) -> Result<(), ConfigError> {
        let name = &self.name;
        if self.cpus == 0 || self.cpus > MAX_VCPUS {
            return fail(format!(
                "guest {name}: cpus is {}, must be 1 to {MAX_VCPUS}",
                self.cpus
            ));
        }
        if self.memory < MIN_MEMORY || self.memory > MAX_MEMORY || !self.memory.is_multiple_of(4096)
        {
            return fail(format!(
                "guest {name}: memory is {} bytes, must be 4M to 1T and a multiple of 4K",
                self.memory
            ));
        }
        let no_devices = self.disks.is_empty() && self.nets.is_empty() && self.vsock.is_none();
        if self.kernel == KernelSource::Builtin && !no_devices {
            return fail(format!(
                "guest {name}: the built-in test guest has no drivers for disks, network \
                 interfaces and vsock: give it a kernel"
            ));
        }
        if self.kernel == KernelSource::Builtin && self.initrd.is_some() {
            return fail(format!(
                "guest {name}: the built-in test guest reads no RAM disk: give it a kernel, or leave the \
                 RAM disk out"
            ));
        }
        let all_reserved = self.reservations.iter().all(Option::is_some);
        if self.weight != DEFAULT_WEIGHT && all_reserved {
            return fail(format!(
                "guest {name}: a weight is for vCPUs without a reservation, and each of its vCPUs has \
                 one: leave the weight or a reservation out"
            ));
        }
        if self.cmdline.len() > MAX_CMDLINE {
            return fail(format!(
                "guest {name}: the command line has {} bytes, at most {MAX_CMDLINE} fit",
                self.cmdline.len()
            ));
        }
        if !(1..=10_000).contains(&self.weight) {
            return fail(format!(
                "guest {name}: weight is {}, must be 1 to 10000",
                self.weight
            ));
        }
        if self.reservations.len() != self.cpus || self.host_cpus.len() != self.cpus {
            return fail(format!(
                "guest {name}: there must be one reservation and one CPU set for each of its {} vCPUs",
                self.cpus
            ));
        }
        if self.host_cpus.iter().flatten().any(Vec::is_empty) {
            return fail(format!("guest {name}: a vCPU may use no host CPU at all"));
        }
        identity::check(self)
    }
}

fn fail<T>(text: impl Into<String>) -> Result<T, ConfigError> {
    Err(ConfigError(text.into()))
}
