//! The process of one guest from start to end.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use baton_config::{ConfigError, RunConfig};
use baton_host::commanded::CommandedVcpus;
use baton_host::executor::{GuestCallError, check_late_halts};
use baton_host::halt::check_wake_step;
use baton_host::runner::{ReadyGuest, RunnerReport, VcpuAccount};
use baton_machine::{GuestEnd, GuestRecord, kvm};
use baton_os::abandon;
use baton_os::signals::StopSignals;

use super::claims;
use super::pool_client::{Member, PoolClient};
use super::pool_error::PoolError;
use super::pool_path;
use crate::error::RunError;
use crate::guest_support::GuestSupport;
use crate::guests::Creation;
use crate::restart::Lives;
use crate::restart_pool::RestartPool;
use crate::run_end::RunEnd;
use crate::starts_again::starts_again;
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
    for guest in &config.guests {
        check_late_halts(config.late_halts, guest).map_err(PoolError::from)?;
    }
    // Before the guest, so that it is dropped after it, whatever happens.
    let support = GuestSupport::start(config)?;
    let creation = Creation {
        vsock,
        builtin,
        stop: signals,
        takes_orders: true,
    };
    let factory = support.factory(config, creation);
    let (guests, mut lives) = support.create(&factory, &kvm)?;
    let guest = guests.into_iter().next();
    let guest = guest.ok_or_else(|| one_guest(config))?;

    let start = Instant::now();
    let path = pool_path::socket(pool);
    let vcpus = live(config, guest, path, &mut lives, (&support.end, signals))?;
    let (left, consoles) = lives.finish(vec![vcpus]);

    let host_cpus = host_cpus::of_pool(&[])?;
    let report = RunnerReport::default();
    let mut summary = RunSummary::new(config, host_cpus, start.elapsed(), report, left);
    // How the pool schedules is the pool's.
    summary.sched = SCHED.to_owned();
    (summary.proxy, summary.defer_ns) = (false, 0);
    support.finish(&mut summary, consoles, signals);
    Ok(summary)
}

/// Has `guest` join the pool at `path`, and waits until it has ended for good, the duration is over or a signal comes.
/// Afterwards it has left the pool. Returns what was counted for its vCPUs.
fn live(
    config: &RunConfig,
    guest: ReadyGuest,
    path: PathBuf,
    lives: &mut Lives<'_>,
    (end, signals): (&RunEnd, Option<&StopSignals>),
) -> Result<Vec<VcpuAccount>, RunError> {
    let deadline = config.duration.map(|duration| Instant::now() + duration);
    let (vcpus, client) = join(config, guest, path, (end, signals))?;
    lives.begin(Some(Box::new(GuestPlace {
        vcpus: Arc::clone(&vcpus),
        member: Arc::clone(client.member()),
    })));
    let waited = end.wait(signals, deadline, || {
        let next = lives.tend()?;
        Ok([next, client.member().send_reports()]
            .into_iter()
            .flatten()
            .min())
    });
    let requested = shutdown::request(config, lives.guests(), signals);
    for guest in lives.guests() {
        guest.end(GuestEnd::Killed);
    }
    vcpus.end();
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
    Ok(vcpus)
}

/// Where a guest starts again: on the threads of its vCPUs, which its pool knows.
struct GuestPlace {
    vcpus: Arc<CommandedVcpus>,
    member: Arc<Member>,
}

impl RestartPool for GuestPlace {
    fn ended(&self, _: &GuestRecord, end: &GuestEnd) {
        self.member.report_restarting(end);
    }

    fn leave(&self, _: &str) -> Result<Option<Vec<VcpuAccount>>, GuestCallError> {
        Ok(None)
    }

    fn join(&self, guest: ReadyGuest) -> Result<(), RunError> {
        let of_member = Arc::clone(&guest.guest);
        let name = guest.config.name.clone();
        let replaced = self.vcpus.replace(guest);
        replaced.map_err(|source| RunError::Replace {
            guest: name,
            source,
        })?;
        self.member.report_restarted(&of_member);
        Ok(())
    }

    fn can_restart(&self) -> bool {
        self.vcpus.all_live() && !self.member.is_off()
    }
}

/// Checks what only this process requires of `config`.
fn check(config: &RunConfig) -> Result<(), ConfigError> {
    match config.guests.as_slice() {
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
    run: &RunConfig,
    guest: ReadyGuest,
    path: PathBuf,
    (end, signals): (&RunEnd, Option<&StopSignals>),
) -> Result<(Arc<CommandedVcpus>, PoolClient), RunError> {
    let record = Arc::clone(guest.guest.record());
    let machine = Arc::clone(&guest.guest);
    let config = guest.config.clone();
    let of_guest = config.clone();
    let starts_again = Box::new(move |end: &GuestEnd| starts_again(&of_guest, end));
    let vcpus = CommandedVcpus::start(guest, starts_again);
    let vcpus = vcpus.map_err(RunError::host("the vCPUs' threads"))?;
    if let Err(error) = vcpus.check_late_halts(run.late_halts, &config) {
        record.end(GuestEnd::Removed);
        return Err(PoolError::from(error).into());
    }
    let request = claims::request(&config, vcpus.tids());
    let member = Member::new(path, request, &machine, Arc::clone(&vcpus), end.clone());
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
            record.end(GuestEnd::Removed);
            vcpus.end();
            Err(error)
        }
    }
}
