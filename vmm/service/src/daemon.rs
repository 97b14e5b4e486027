//! `baton pool` from start to end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use baton_api::EventKind;
use baton_config::units::format_cpus;
use baton_config::{ConfigError, ExecutorPriority};
use baton_host::executor::{self, ExecutorError};
use baton_host::runner::NoPool;
use baton_os::event::wait_readable;
use baton_os::signals::StopSignals;
use baton_os::sys;
use baton_run::cpu_owner::{self, CpusTaken};
use baton_run::{RunError, files, host_cpus};
use rustix::process::geteuid;
use sd_notify::NotifyState;
use thiserror::Error;

use crate::api_server::{ApiServer, ApiServerError};
use crate::grants::Grants;
use crate::host_cpus::{HostCpus, OwnerTerms};
use crate::link_server::{LinkServer, LinkServerError};
use crate::other_cpus;
use crate::places::{self, API_SOCKET, LINK_SOCKET, PlaceError};
use crate::process_pool::OwnPool;
use crate::service::Service;
use crate::settings::PoolSettings;
use crate::watchdog::Watchdog;

/// Time between two looks at the host CPUs.
const EVERY: Duration = Duration::from_secs(1);
/// Longest time between two checks whether all parts work. A part that takes as long has hung.
const CHECK_EVERY: Duration = Duration::from_secs(10);

/// The pool could not be started.
#[derive(Debug, Error)]
pub enum PoolError {
    /// Its settings make no sense.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A host CPU cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A host CPU belongs to another process.
    #[error(transparent)]
    CpusTaken(#[from] CpusTaken),
    /// The executors could not be started.
    #[error(transparent)]
    Executor(#[from] ExecutorError),
    /// The scheduler has no pool.
    #[error(transparent)]
    NoPool(#[from] NoPool),
    /// The directory cannot be used.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// Guests could not join.
    #[error(transparent)]
    Link(#[from] LinkServerError),
    /// The API could not be offered.
    #[error(transparent)]
    Api(#[from] ApiServerError),
    /// A wait failed.
    #[error("the pool cannot wait for signals: {0}")]
    Wait(io::Error),
}

/// Runs a pool until one of `signals` comes.
///
/// # Errors
/// If it cannot be started.
pub fn run(settings: &PoolSettings, signals: &StopSignals) -> Result<(), PoolError> {
    let config = &settings.run;
    config.validate_pool()?;
    let named = settings.directory.clone();
    let directory: PathBuf = named.unwrap_or_else(places::default_directory);
    let cpus = host_cpus::of_pool(&config.host_cpus)?;
    let others = other_cpus::others(&cpus);
    let vcpu_priority = vcpu_priority(config.executor_priority, others.is_some());
    // Any, if there are no others.
    let beside = others.unwrap_or_else(|| sys::affinity().unwrap_or_default());
    let owner = OwnerTerms {
        directory: directory.clone(),
        share: config.share_cpus,
    };
    let owned = cpu_owner::own_for_pool(&directory, &cpus, config.share_cpus)?;
    files::raise_limit();
    places::create(&directory)?;
    let (runner, reader, pool_cpus) =
        executor::start_pool(config, (&cpus, &beside), vcpu_priority)?;
    let host_cpus = HostCpus::new(pool_cpus, Some(owner), owned, vcpu_priority);
    let handle = runner.pool()?;
    let grants = Grants::new(geteuid().as_raw(), settings.grants.clone());
    let pool = Box::new(OwnPool(handle.clone()));
    let service = Service::new(handle, reader, pool, grants, host_cpus);
    let served = LinkServer::start(&directory.join(LINK_SOCKET), &service, &beside);
    let served = served.map_err(PoolError::from).and_then(|link| {
        let api = ApiServer::start(&directory.join(API_SOCKET), &service, &beside)?;
        Ok((link, api))
    });
    let (link, api) = match served {
        Ok(both) => both,
        Err(error) => {
            drop(service);
            runner.stop();
            return Err(error);
        }
    };
    tracing::info!(cpus = format_cpus(&cpus), directory = %directory.display(), "pool is ready");
    notify(&[NotifyState::Ready, NotifyState::Status("ready")]);
    let waited = supervise(signals, &service, &link, &api);
    tracing::info!("pool ends");
    notify(&[NotifyState::Stopping]);
    // The guests learn first that the pool goes.
    drop(link);
    drop(api);
    drop(service);
    runner.stop();
    waited.map_err(PoolError::Wait)
}

/// The priority of vCPUs' threads, which is that of executors if the host `has_others` than the pool's CPUs. Otherwise
/// the threads of vCPUs that sleep, which are ordinary ones, could not wake up beside a vCPU that never idles.
fn vcpu_priority(of_executors: ExecutorPriority, has_others: bool) -> ExecutorPriority {
    match (of_executors, has_others) {
        (ExecutorPriority::Off, _) | (_, true) => of_executors,
        (ExecutorPriority::Fifo(_), false) => {
            tracing::warn!(
                "executor_priority is for executors only, and not for vCPUs, because the pool has all host CPUs; \
                 leave one out in host_cpus"
            );
            ExecutorPriority::Off
        }
    }
}

/// Waits for a signal. Meanwhile reports to the watchdog, and host CPUs that come and go.
fn supervise(
    signals: &StopSignals,
    service: &Arc<Service>,
    link: &LinkServer,
    api: &ApiServer,
) -> io::Result<()> {
    use std::os::fd::AsFd;
    let patience = sd_notify::watchdog_enabled();
    // Two checks fit into the time after which systemd acts.
    let check_every = patience.map_or(CHECK_EVERY, |patience| CHECK_EVERY.min(patience / 3));
    let every = EVERY.min(check_every);
    let mut watchdog = Watchdog::default();
    let mut away = Vec::new();
    let mut check_at = Instant::now();
    loop {
        wait_readable(&[signals.as_fd()], Some(every))?;
        if signals.take() {
            return Ok(());
        }
        report_cpus(service, &mut away);
        if Instant::now() >= check_at {
            check_at = Instant::now() + check_every;
            let all_work = all_work(&mut watchdog, service, link, api);
            if all_work && patience.is_some() {
                notify(&[NotifyState::Watchdog]);
            }
        }
    }
}

/// Whether all parts have worked since the last call. Logs the first that has not.
fn all_work(
    watchdog: &mut Watchdog,
    service: &Service,
    link: &LinkServer,
    api: &ApiServer,
) -> bool {
    let works = [
        (watchdog.executors_work(&service.reader), "an executor"),
        (link.is_alive(), "the thread of the link"),
        (api.is_alive(), "the thread of the API"),
    ];
    match works.iter().find(|(works, _)| !works) {
        Some((_, part)) => {
            tracing::error!(part, "a part of the pool makes no progress");
            false
        }
        None => true,
    }
}

/// Publishes which host CPUs are `away` now and were not before, and the other way round.
fn report_cpus(service: &Service, away: &mut Vec<usize>) {
    let cpus = service.reader.snapshot().cpus;
    let now: Vec<usize> = cpus
        .iter()
        .filter(|cpu| cpu.away)
        .map(|cpu| cpu.cpu)
        .collect();
    for cpu in cpus.iter().map(|cpu| cpu.cpu) {
        let is_away = now.contains(&cpu);
        if is_away != away.contains(&cpu) {
            service
                .events
                .publish(EventKind::Cpu { cpu, away: is_away });
        }
    }
    *away = now;
}

/// Reports to systemd, if that has started this process.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(%error, "systemd cannot be notified");
    }
}
