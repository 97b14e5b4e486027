//! The run from start to end.

use std::sync::Arc;
use std::time::Instant;

use baton_config::{RunConfig, SchedMode};
use baton_host::executor::{self, ExecutorError};
use baton_host::host_sched;
use baton_host::runner::{ReadyGuest, Runner};
use baton_machine::kvm;
use baton_observe::trace::TraceFile;
use baton_os::abandon;
use baton_os::signals::StopSignals;

use crate::error::RunError;
use crate::guest_support::GuestSupport;
use crate::guests::Creation;
use crate::restart_pool::RestartPool;
use crate::summary::RunSummary;
use crate::{cpu_owner, files, host_cpus, host_memory, isolation, rt_throttling, shutdown};

/// Runs the guests of `config` until all have ended, or the one that the user named, until the duration is over, or
/// until a signal comes. `builtin` is the image for [`KernelSource::Builtin`].
///
/// [`KernelSource::Builtin`]: baton_config::KernelSource::Builtin
///
/// # Errors
/// If the run cannot be started. A guest that fails is no error; its end is in the summary.
pub fn run(
    config: &RunConfig,
    builtin: &'static [u8],
    signals: Option<&StopSignals>,
) -> Result<RunSummary, RunError> {
    config.validate()?;
    // What a killed run has left may keep this one off host CPUs.
    isolation::recover();
    let pool = host_cpus::of_pool(&config.host_cpus)?;
    config.pinned_within(&pool)?;
    // Held until the run has ended.
    let _owned = cpu_owner::own(config, &pool)?;
    host_memory::check(config)?;
    let vsock = files::divide(config, pool.len())?;
    // After the checks of this process's limits, which are those of its group: a partition is another one.
    let _isolation = isolation::begin(config, &pool)?;
    rt_throttling::warn(config, &pool);
    let kvm = Arc::new(kvm::open()?);
    // A benchmark has no files that could keep it waiting, and ends with what it has measured.
    let stop = signals.filter(|_| !config.quiet);
    let trace = open_trace(config, stop)?;
    // Before the guests, so that it is dropped after them, whatever happens.
    let support = GuestSupport::start(config)?;
    let creation = Creation {
        vsock,
        builtin,
        stop,
        takes_orders: false,
    };
    let factory = support.factory(config, creation);
    let (guests, mut lives) = support.create(&factory, &kvm)?;

    let start = Instant::now();
    let runner = start_runner(config, &pool, guests, trace)?;
    let of_guests = runner.pool().ok();
    lives.begin(of_guests.map(|pool| Box::new(pool) as Box<dyn RestartPool>));
    let deadline = config.duration.map(|duration| start + duration);
    let waited = support.end.wait(signals, deadline, || lives.tend());
    let requested = shutdown::request(config, lives.guests(), signals);
    let mut report = runner.stop();
    let elapsed = start.elapsed();
    let (left, consoles) = lives.finish(std::mem::take(&mut report.vcpus));
    waited.map_err(RunError::host("waiting for the guests"))?;
    requested?;

    let mut summary = RunSummary::new(config, pool, elapsed, report, left);
    support.finish(&mut summary, consoles, signals);
    Ok(summary)
}

/// Opens the file of the trace, if there is to be one. A stop signal ends the wait for the reader of a pipe.
fn open_trace(
    config: &RunConfig,
    stop: Option<&StopSignals>,
) -> Result<Option<TraceFile>, RunError> {
    let Some(path) = config.trace.clone() else {
        return Ok(None);
    };
    let file = abandon::unless_stopped(stop, move || TraceFile::open(&path))?;
    Ok(Some(file.map_err(ExecutorError::Trace)?))
}

/// Starts the scheduler that the user chose.
fn start_runner(
    config: &RunConfig,
    pool: &[usize],
    guests: Vec<ReadyGuest>,
    trace: Option<TraceFile>,
) -> Result<Box<dyn Runner>, RunError> {
    Ok(match config.sched {
        SchedMode::Host | SchedMode::HostDeadline => host_sched::start(config, pool, guests)?,
        SchedMode::Baton | SchedMode::RoundRobin => executor::start(config, pool, guests, trace)?,
    })
}
