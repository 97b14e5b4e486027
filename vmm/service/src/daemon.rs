//! `baton pool` from start to end.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

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
use crate::names::Names;
use crate::other_cpus;
use crate::places::{self, API_SOCKET, LINK_SOCKET, PlaceError};
use crate::process_pool::OwnPool;
use crate::service::Service;
use crate::settings::PoolSettings;
use crate::watchdog::{Part, Watchdog};

/// Longest time between two checks of host CPUs and of all parts of the pool.
const EVERY: Duration = Duration::from_secs(1);

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

/// Runs a pool until one of `signals` requests the end. At SIGHUP it takes the grants of the settings that `reread`
/// returns.
///
/// # Errors
/// If it cannot be started.
pub fn run(
    settings: &PoolSettings,
    reread: impl Fn() -> Result<PoolSettings, ConfigError>,
    signals: &StopSignals,
) -> Result<(), PoolError> {
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
    let pool = Box::new(OwnPool(handle.clone()));
    let names = Names::load(&directory, sys::monotonic_ns());
    let grants = grants_of(settings);
    let service = Service::new(handle, reader, pool, grants, names, host_cpus);
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
    let reload = || reload(&service, settings, reread());
    let waited = supervise(signals, &service, (&link, &api), reload);
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

fn grants_of(settings: &PoolSettings) -> Grants {
    Grants::new(geteuid().as_raw(), settings.grants.clone())
}

/// Puts the grants of `reread` in force, which were to be read again in place of `settings`.
fn reload(service: &Service, settings: &PoolSettings, reread: Result<PoolSettings, ConfigError>) {
    match reread {
        Ok(reread) => {
            service.set_grants(grants_of(&reread));
            tracing::info!(grants = reread.grants.len(), "the grants were read again");
            if (&reread.run, &reread.directory) != (&settings.run, &settings.directory) {
                tracing::warn!(
                    "other settings than the grants have changed; restart the pool for them"
                );
            }
        }
        Err(error) => {
            tracing::error!(%error, "the grants could not be read again; those before stay in force");
        }
    }
}

/// Waits for a signal that requests the end. Meanwhile checks all parts, tells guests and the watchdog that they work,
/// reports host CPUs that come and go, and calls `reload` at SIGHUP.
fn supervise(
    signals: &StopSignals,
    service: &Arc<Service>,
    (link, api): (&LinkServer, &ApiServer),
    reload: impl Fn(),
) -> io::Result<()> {
    use std::os::fd::AsFd;
    let patience = sd_notify::watchdog_enabled();
    // Two checks fit into the time after which systemd acts.
    let every = patience.map_or(EVERY, |patience| EVERY.min(patience / 3));
    let mut watchdog = Watchdog::new(sys::monotonic_ns());
    let mut hung = None;
    let mut away = Vec::new();
    let mut check_at = 0;
    loop {
        let now = sys::monotonic_ns();
        if now >= check_at {
            check_at = now + every.as_nanos() as u64;
            report_cpus(service, &mut away);
            let alive = (link.is_alive(), api.is_alive());
            let found = watchdog.check(&service.reader, alive, now);
            report_hung(std::mem::replace(&mut hung, found), found);
            service.set_works(found.is_none());
            if found.is_none() && patience.is_some() {
                notify(&[NotifyState::Watchdog]);
            }
        }
        let left = Duration::from_nanos(check_at.saturating_sub(sys::monotonic_ns()));
        wait_readable(&[signals.as_fd()], Some(left))?;
        if signals.take() {
            return Ok(());
        }
        if signals.take_reload() {
            reload();
        }
    }
}

/// Logs that a part has hung, or that all work again.
fn report_hung(before: Option<Part>, now: Option<Part>) {
    match now {
        _ if before == now => {}
        Some(part) => {
            tracing::error!(%part, "a part of the pool makes no progress; guests leave the pool");
        }
        None => tracing::info!("all parts of the pool make progress again"),
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
