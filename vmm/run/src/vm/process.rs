//! The process of one guest from start to end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use baton_config::{ConfigError, RunConfig};
use baton_host::commanded::CommandedVcpus;
use baton_host::halt::check_wake_step;
use baton_host::runner::{ReadyGuest, RunnerReport};
use baton_machine::reaper::ReaperThread;
use baton_machine::{GuestEnd, kvm};
use baton_os::abandon;
use baton_os::signals::StopSignals;

use super::claims;
use super::pool_client::{Member, PoolClient};
use super::pool_error::PoolError;
use super::pool_path;
use crate::console_output::ConsoleOutput;
use crate::error::RunError;
use crate::guests::GuestFactory;
use crate::restart::GuestLeft;
use crate::run_end::RunEnd;
use crate::summary::RunSummary;
use crate::{files, host_cpus, host_memory, shutdown};

/// What stands in the summary where `baton run` names its scheduler.
const SCHED: &str = "pool";

/// Runs the one guest of `config` until it has ended, until the duration is over, or until a signal comes. Its
/// vCPUs are run by the pool at `pool`, a directory or a socket; `None`: where pools are by default. `builtin` is
/// the image for [`KernelSource::Builtin`].
///
/// [`KernelSource::Builtin`]: baton_config::KernelSource::Builtin
///
/// # Errors
/// If the guest cannot be created or cannot join the pool. A guest that fails is no error; its end is in the summary.
pub fn vm(
    config: &RunConfig,
    pool: Option<&Path>,
    builtin: &'static [u8],
    signals: Option<&StopSignals>,
) -> Result<RunSummary, RunError> {
    config.validate()?;
    check(config)?;
    host_memory::check(config)?;
    // The executors are in the pool's process.
    let vsock = files::divide(config, 0)?;
    let kvm = Arc::new(kvm::open()?);
    check_wake_step(&kvm).map_err(PoolError::from)?;
    let console = ConsoleOutput::start(config)?;
    let end = RunEnd::new(config.awaited().count()).map_err(RunError::host("an event"))?;
    // Started before the guest, so that it is dropped after it, whatever happens.
    let reaper =
        ReaperThread::spawn().map_err(RunError::host("the thread that takes guests apart"))?;
    let factory = GuestFactory {
        config,
        console: &console,
        reaper: &reaper,
        vsock,
        builtin,
        stop: signals,
    };
    let guests = factory.create(&kvm, &end)?;
    let guest = guests.into_iter().next();
    let guest = guest.ok_or_else(|| one_guest(config))?;
    let input = factory.start_input(0, &guest.guest)?;
    let count = guest.guest.record().console().count();

    let start = Instant::now();
    let left = live(config, guest, pool_path::socket(pool), &end, signals)?;
    drop(input);

    let host_cpus = host_cpus::of_pool(&[])?;
    let report = RunnerReport::default();
    let mut summary = RunSummary::new(config, host_cpus, start.elapsed(), report, vec![left]);
    // How the pool schedules is the pool's.
    summary.sched = SCHED.to_owned();
    (summary.proxy, summary.defer_ns) = (false, 0);
    // The last lines of the guest are printed when it is taken apart.
    drop(reaper);
    console.finish(signals);
    for guest in &mut summary.guests {
        guest.console_dropped = count.dropped();
    }
    Ok(summary)
}

/// Has `guest` join the pool at `path`, and waits until it has ended, the duration is over or a signal comes. Afterwards
/// it has left the pool.
fn live(
    config: &RunConfig,
    guest: ReadyGuest,
    path: PathBuf,
    end: &RunEnd,
    signals: Option<&StopSignals>,
) -> Result<GuestLeft, RunError> {
    let record = Arc::clone(guest.guest.record());
    // Not what keeps the guest: one that has ended releases what it has of the host.
    let machine = Arc::downgrade(&guest.guest);
    let deadline = config.duration.map(|duration| Instant::now() + duration);
    let (vcpus, client) = join(guest, path, signals)?;
    let waited = end.wait(signals, deadline, || Ok(None));
    let requested = shutdown::request(config, machine.upgrade().into_iter(), signals);
    record.end(GuestEnd::Killed);
    let counted = client.leave();
    let mut vcpus = vcpus.join();
    if counted.len() == vcpus.len() {
        for (vcpu, counters) in vcpus.iter_mut().zip(counted) {
            // The pool knows more than the threads do.
            vcpu.counters = counters;
        }
    }
    waited.map_err(RunError::host("waiting for the guest"))?;
    requested?;
    Ok(GuestLeft {
        record,
        vcpus,
        restarts: 0,
    })
}

/// Checks what only this process requires of `config`.
fn check(config: &RunConfig) -> Result<(), ConfigError> {
    match config.guests.as_slice() {
        [guest] if guest.may_restart() => Err(ConfigError(format!(
            "guest {}: baton vm does not start a guest again: leave on_reboot and restart out",
            guest.name
        ))),
        [_] => Ok(()),
        _ => Err(one_guest(config)),
    }
}

fn one_guest(config: &RunConfig) -> ConfigError {
    let guests = config.guests.len();
    ConfigError(format!(
        "baton vm runs one guest, and the file has {guests}: give each guest a file and a baton vm of its own"
    ))
}

/// Starts the vCPUs' threads of `guest`, and has it join the pool at `path`. A signal ends the wait for the pool.
fn join(
    guest: ReadyGuest,
    path: PathBuf,
    signals: Option<&StopSignals>,
) -> Result<(Arc<CommandedVcpus>, PoolClient), RunError> {
    let record = Arc::clone(guest.guest.record());
    let machine = Arc::clone(&guest.guest);
    let config = guest.config.clone();
    let vcpus = CommandedVcpus::start(guest).map_err(RunError::host("the vCPUs' threads"))?;
    let request = claims::request(&config, vcpus.tids());
    let member = Member::new(path, request, machine, Arc::clone(&vcpus));
    let joined = abandon::unless_stopped(signals, {
        let member = Arc::clone(&member);
        move || member.join()
    });
    let client = joined
        .map_err(RunError::from)
        .and_then(|joined| joined.map_err(RunError::from))
        .and_then(|()| PoolClient::start(member).map_err(RunError::host("a thread")));
    match client {
        Ok(client) => Ok((vcpus, client)),
        Err(error) => {
            // Ends the threads.
            record.end(GuestEnd::Removed);
            Err(error)
        }
    }
}
