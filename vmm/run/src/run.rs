//! One run, from configuration to summary.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use baton_config::{ConfigError, RunConfig, SchedMode, SummaryForm};
use baton_host::executor::{self, ExecutorError};
use baton_host::host_sched::{self, HostSchedError};
use baton_host::runner::{ReadyGuest, Runner, RunnerReport, VcpuAccount};
use baton_machine::console::{ConsolePort, ConsoleThread};
use baton_machine::guest::GuestWiring;
use baton_machine::kvm::{self, KvmError};
use baton_machine::reaper::ReaperThread;
use baton_machine::stdin::StdinThread;
use baton_machine::{Guest, GuestEnd, GuestError, GuestRecord};
use baton_observe::trace::TraceFile;
use baton_os::abandon::{self, Abandoned};
use baton_os::signals::StopSignals;
use baton_os::sys;
use thiserror::Error;
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::files::{self, TooFewFiles};
use crate::host_memory::{self, NotEnoughMemory};
use crate::summary::{CpuAccount, GuestSummary, RunSummary, VcpuSummary};

/// How long to wait for a reader of the console at the end, where the summary is read apart from it.
const CONSOLE_PATIENCE: Duration = Duration::from_secs(2);

/// A run that could not be started.
#[derive(Debug, Error)]
pub enum RunError {
    /// A configuration that cannot run.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No KVM.
    #[error(transparent)]
    Kvm(#[from] KvmError),
    /// No guest.
    #[error(transparent)]
    Guest(#[from] GuestError),
    /// No host scheduling.
    #[error(transparent)]
    HostSched(#[from] HostSchedError),
    /// A host CPU that is not there.
    #[error("host CPU {cpu} cannot be used: this process may use {available} (see --host-cpus)")]
    NoSuchCpu {
        /// The CPU.
        cpu: usize,
        /// What there is, as a list.
        available: String,
    },
    /// Not enough open files.
    #[error(transparent)]
    Files(#[from] TooFewFiles),
    /// Not enough memory.
    #[error(transparent)]
    Memory(#[from] NotEnoughMemory),
    /// Our own scheduler could not start.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// Asked to end before the guests ran.
    #[error(transparent)]
    Abandoned(#[from] Abandoned),
    /// A resource of the host.
    #[error("cannot set up {what}: {source}")]
    Host {
        /// What.
        what: &'static str,
        /// Why not.
        source: io::Error,
    },
}

/// Runs the guests of `config` until all have ended, or the one that the user named, until the
/// duration is over or `signals` says so. `builtin` is the image for [`KernelSource::Builtin`].
///
/// [`KernelSource::Builtin`]: baton_config::KernelSource::Builtin
///
/// # Errors
/// What keeps the run from starting. A guest that fails is no error; its end is in the summary.
pub fn run(
    config: &RunConfig,
    builtin: &'static [u8],
    signals: Option<&StopSignals>,
) -> Result<RunSummary, RunError> {
    config.validate()?;
    let pool = pool(&config.host_cpus)?;
    config.pinned_within(&pool)?;
    host_memory::check(config)?;
    let vsock = files::divide(config, pool.len())?;
    let kvm = Arc::new(kvm::open()?);
    // A benchmark has no files that could keep it waiting, and ends with what it has measured.
    let stop = signals.filter(|_| !config.quiet);
    let trace = match config.trace.clone() {
        Some(path) => abandon::unless_stopped(stop, move || TraceFile::open(&path))?
            .map(Some)
            .map_err(ExecutorError::Trace)?,
        None => None,
    };
    let host = |what| move |source| RunError::Host { what, source };
    let console = match config.quiet {
        true => None,
        false => Some(spawn_console(config.summary).map_err(host("the console's thread"))?),
    };

    let awaited: Vec<usize> = config.awaited().collect();
    let ended = Ended::new(awaited.len()).map_err(host("an event"))?;
    // Before the guests, so that it goes after them, whatever happens.
    let reaper = ReaperThread::spawn().map_err(host("the thread that takes guests apart"))?;
    let mut guests = Vec::with_capacity(config.guests.len());
    for (number, guest_config) in config.guests.iter().enumerate() {
        let prefix = if config.guests.len() > 1 {
            format!("[{}] ", guest_config.name)
        } else {
            String::new()
        };
        let wiring = GuestWiring {
            console: console
                .as_ref()
                .map_or_else(ConsolePort::discard, |console| console.port(prefix)),
            features: features(config),
            vsock,
            reaper: reaper.reaper(),
            builtin,
        };
        let (kvm, own) = (Arc::clone(&kvm), guest_config.clone());
        let create = move || Guest::create_with(&kvm, number, &own, wiring);
        let (guest, vcpus) = abandon::unless_stopped(stop, create)??;
        if awaited.contains(&number) {
            let ended = ended.clone();
            guest.on_end(move |_, _| ended.count());
        }
        guests.push(ReadyGuest {
            guest,
            config: guest_config.clone(),
            vcpus,
        });
    }
    // All that is needed of guests that have ended.
    let records: Vec<Arc<GuestRecord>> = guests
        .iter()
        .map(|ready| Arc::clone(ready.guest.record()))
        .collect();

    // With several guests it would be anyone's guess whom the input is for.
    let input = match &guests[..] {
        [only] if !config.quiet => {
            Some(StdinThread::spawn(Arc::clone(&only.guest)).map_err(host("the device thread"))?)
        }
        _ => None,
    };

    let start = Instant::now();
    let runner: Box<dyn Runner> = match config.sched {
        SchedMode::Host | SchedMode::HostDeadline => host_sched::start(config, &pool, guests)?,
        SchedMode::Baton => executor::start(config, &pool, guests, trace)?,
    };
    let waited = wait(&ended, signals, config.duration.map(|d| start + d));
    let report = runner.stop();
    let elapsed = start.elapsed();
    drop(input);
    waited.map_err(host("waiting for the guests"))?;

    let mut summary = RunSummary {
        sched: match config.sched {
            SchedMode::Baton => "baton",
            SchedMode::Host => "host",
            SchedMode::HostDeadline => "host-deadline",
        }
        .to_owned(),
        proxy: config.sched == SchedMode::Baton && config.proxy,
        defer_ns: match (config.sched, config.defer) {
            (SchedMode::Baton, Some(defer)) => u64::try_from(defer.as_nanos()).unwrap_or(u64::MAX),
            _ => 0,
        },
        host_cpus: pool,
        cpu: cpu_account(&report),
        executors: report.executors,
        moment: report.moment,
        elapsed_ns: u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX),
        guests: records
            .iter()
            .zip(report.vcpus)
            .map(|(guest, vcpus)| summarize(guest, vcpus))
            .collect(),
    };
    let consoles: Vec<_> = records
        .iter()
        .map(|guest| guest.console().count())
        .collect();
    drop(records);
    // The last lines of a guest are printed when it is taken apart.
    drop(reaper);
    if let Some(console) = console {
        // A summary as text comes behind it, and waits for the same reader. Another signal ends that.
        let apart = config.summary == SummaryForm::Json;
        let asked = || signals.is_some_and(StopSignals::take);
        console.finish(|stuck| asked() || (apart && stuck >= CONSOLE_PATIENCE));
    }
    for (guest, console) in summary.guests.iter_mut().zip(consoles) {
        guest.console_dropped = console.dropped();
    }
    Ok(summary)
}

/// The thread that writes what guests print: to standard output, unless that is to be one JSON object.
fn spawn_console(summary: SummaryForm) -> io::Result<ConsoleThread> {
    match summary {
        SummaryForm::Text => ConsoleThread::spawn(io::stdout()),
        SummaryForm::Json => ConsoleThread::spawn(io::stderr()),
    }
}

/// The host CPUs of the pool: those asked for, if this process may use them all, or all it may use.
fn pool(wanted: &[usize]) -> Result<Vec<usize>, RunError> {
    let available = sys::affinity().map_err(|source| RunError::Host {
        what: "the pool of host CPUs",
        source,
    })?;
    if wanted.is_empty() {
        return Ok(available);
    }
    match wanted.iter().find(|cpu| !available.contains(cpu)) {
        Some(cpu) => Err(RunError::NoSuchCpu {
            cpu: *cpu,
            available: baton_config::units::format_cpus(&available),
        }),
        None => Ok(wanted.to_vec()),
    }
}

/// What the scheduler in charge keeps of the hint ABI.
fn features(config: &RunConfig) -> u32 {
    use baton_abi::hints::{
        FEATURE_BLOCK_WAIT, FEATURE_DEFER, FEATURE_IPI_WAIT, FEATURE_PROXY, FEATURE_RUNNING,
    };
    match config.sched {
        SchedMode::Baton => {
            let mut features = FEATURE_RUNNING | FEATURE_BLOCK_WAIT | FEATURE_IPI_WAIT;
            if config.proxy {
                features |= FEATURE_PROXY;
            }
            if config.defer.is_some() {
                features |= FEATURE_DEFER;
            }
            features
        }
        // The host kernel tells nobody what runs.
        SchedMode::Host | SchedMode::HostDeadline => 0,
    }
}

/// Where the CPU time went; zeros where nobody is charged.
fn cpu_account(report: &RunnerReport) -> CpuAccount {
    if report.process_ns == 0 {
        return CpuAccount::default();
    }
    let idle_ns = report.executors.iter().map(|e| e.unassigned_ns).sum();
    CpuAccount::new(report.process_ns, report.vcpus.iter().flatten(), idle_ns)
}

fn summarize(guest: &GuestRecord, accounts: Vec<VcpuAccount>) -> GuestSummary {
    guest.end(GuestEnd::Killed);
    let of = |(index, account)| VcpuSummary::new(account, guest.results.of(index), &guest.clock);
    let vcpus = (0..).zip(accounts).map(of).collect();
    let end = guest.ended().unwrap_or(GuestEnd::Killed);
    GuestSummary::new(&guest.name, &end, 0, vcpus)
}

/// Counts the guests down for which the run waits, and makes a file readable at the last one.
#[derive(Clone, Debug)]
struct Ended {
    left: Arc<AtomicUsize>,
    event: Arc<EventFd>,
}

impl Ended {
    fn new(guests: usize) -> io::Result<Self> {
        Ok(Self {
            left: Arc::new(AtomicUsize::new(guests)),
            event: Arc::new(EventFd::new(EFD_NONBLOCK)?),
        })
    }

    fn count(&self) {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            // Only a counter at its maximum refuses a write, and one write cannot take it there.
            let _ = self.event.write(1);
        }
    }
}

/// Waits until those guests have ended, a stop signal came or `deadline` has passed.
fn wait(ended: &Ended, signals: Option<&StopSignals>, deadline: Option<Instant>) -> io::Result<()> {
    loop {
        let timeout = deadline.map(|d| d.saturating_duration_since(Instant::now()));
        if timeout.is_some_and(|t| t.is_zero()) || ended.left.load(Ordering::Acquire) == 0 {
            return Ok(());
        }
        let timeout = timeout.map(|t| libc::timespec {
            tv_sec: t.as_secs() as libc::time_t,
            tv_nsec: libc::c_long::from(t.subsec_nanos() as i32),
        });
        let file = |fd| libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // poll ignores negative descriptors.
        let mut files = [
            file(ended.event.as_raw_fd()),
            file(signals.map_or(-1, AsRawFd::as_raw_fd)),
        ];
        // SAFETY: two descriptors, a timeout that lives through the call or none, and no mask.
        let ready = unsafe {
            libc::ppoll(
                files.as_mut_ptr(),
                files.len() as libc::nfds_t,
                timeout
                    .as_ref()
                    .map_or(std::ptr::null(), |t| t as *const libc::timespec),
                std::ptr::null(),
            )
        };
        if ready < 0 {
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        } else if signals.is_some_and(StopSignals::take) {
            return Ok(());
        }
    }
}
