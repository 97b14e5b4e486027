//! A run whose guests are processes of their own: `baton pool`, and a `baton vm` for each guest.
//!
//! | file | idea |
//! |---|---|
//! | `files.rs` | a configuration as the files of a pool and of its guests |
//! | `pool_process.rs` | the pool's process, until it is ready |
//! | `guest_process.rs` | a guest's process, and the summary that it prints |
//! | `log_tail.rs` | the end of what a process has printed |
//! | `child.rs` | a process that ends with this one, whatever happens |

use std::os::fd::AsFd;
use std::time::Instant;

use baton_config::RunConfig;
use baton_os::event::wait_readable;
use baton_os::signals::StopSignals;
use baton_run::summary::RunSummary;

use crate::scratch_dir::ScratchDir;
use guest_process::GuestProcess;
use pool_process::PoolProcess;

pub use error::ProcessRunError;

mod child;
mod error;
mod files;
mod guest_process;
mod log_tail;
mod pool_process;

/// Runs the guests of `config` as processes of a pool on its host CPUs, until all of them have ended. The summary has
/// them in their order. `None`: a signal has stopped the run. All processes have ended afterwards, also after an error.
///
/// # Errors
/// If the pool does not start, or a guest prints no summary.
pub fn run(
    config: &RunConfig,
    signals: Option<&StopSignals>,
) -> Result<Option<RunSummary>, ProcessRunError> {
    let scratch = ScratchDir::new("bench")?;
    let Some(mut pool) = PoolProcess::start(config, &scratch, signals)? else {
        return Ok(None);
    };
    let start = Instant::now();
    // Dropped before the pool, so that guests that still run do not go on without one.
    let mut guests = Vec::with_capacity(config.guests.len());
    for guest in &config.guests {
        let joins = pool.directory();
        guests.push(GuestProcess::start(config, guest, joins, &scratch)?);
    }
    let mut summary = RunSummary {
        sched: "pool".to_owned(),
        proxy: config.proxy,
        host_cpus: config.host_cpus.clone(),
        ..RunSummary::default()
    };
    for guest in &mut guests {
        loop {
            if signals.is_some_and(StopSignals::take) {
                return Ok(None);
            }
            if guest.has_ended()? {
                break;
            }
            pool.check()?;
            let mut files = vec![guest.file(), pool.file()];
            files.extend(signals.map(AsFd::as_fd));
            wait_readable(&files, None).map_err(ProcessRunError::host("wait for its guests"))?;
        }
        summary.guests.push(guest.summary()?);
    }
    summary.elapsed_ns = start.elapsed().as_nanos().try_into().unwrap_or(u64::MAX);
    Ok(Some(summary))
}
