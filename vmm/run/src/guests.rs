//! Creating the guests of a run.

use std::sync::Arc;

use baton_config::{GuestConfig, RunConfig, SchedMode};
use baton_host::runner::ReadyGuest;
use baton_machine::Guest;
use baton_machine::devices::VsockBounds;
use baton_machine::guest::GuestWiring;
use baton_machine::reaper::ReaperThread;
use baton_machine::stdin::StdinThread;
use baton_os::abandon;
use baton_os::signals::StopSignals;
use kvm_ioctls::Kvm;

use crate::console_output::ConsoleOutput;
use crate::error::RunError;
use crate::run_end::RunEnd;

/// What all guests of a run share.
pub(crate) struct GuestFactory<'a> {
    pub(crate) config: &'a RunConfig,
    pub(crate) console: &'a ConsoleOutput,
    pub(crate) reaper: &'a ReaperThread,
    /// Bounds of each guest's vsock device.
    pub(crate) vsock: VsockBounds,
    /// The image for `KernelSource::Builtin`.
    pub(crate) builtin: &'static [u8],
    /// Signals that end the creation.
    pub(crate) stop: Option<&'a StopSignals>,
}

impl GuestFactory<'_> {
    /// Creates all guests. `end` learns when those for which the run waits have ended.
    pub(crate) fn create(&self, kvm: &Arc<Kvm>, end: &RunEnd) -> Result<Vec<ReadyGuest>, RunError> {
        let awaited: Vec<usize> = self.config.awaited().collect();
        let mut guests = Vec::with_capacity(self.config.guests.len());
        for (number, config) in self.config.guests.iter().enumerate() {
            let (kvm, own, wiring) = (Arc::clone(kvm), config.clone(), self.wiring(config));
            let create = move || Guest::create_with(&kvm, number, &own, wiring);
            let (guest, vcpus) = abandon::unless_stopped(self.stop, create)??;
            if awaited.contains(&number) {
                let end = end.clone();
                guest.on_end(move |_, _| end.count());
            }
            guests.push(ReadyGuest {
                guest,
                config: config.clone(),
                vcpus,
            });
        }
        Ok(guests)
    }

    fn wiring(&self, config: &GuestConfig) -> GuestWiring {
        let prefix = match self.config.guests.len() {
            1 => String::new(),
            _ => format!("[{}] ", config.name),
        };
        GuestWiring {
            console: self.console.port(prefix),
            features: features(self.config),
            vsock: self.vsock,
            reaper: self.reaper.reaper(),
            builtin: self.builtin,
        }
    }
}

/// The features of the hint ABI that the scheduler in charge has.
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
        SchedMode::RoundRobin => FEATURE_RUNNING,
        // The host kernel publishes to no guest which vCPUs run.
        SchedMode::Host | SchedMode::HostDeadline => 0,
    }
}

/// Starts the thread that passes standard input to the guest. With several guests there is none, because the input
/// could be meant for any of them.
pub(crate) fn start_input(
    config: &RunConfig,
    guests: &[ReadyGuest],
) -> Result<Option<StdinThread>, RunError> {
    match guests {
        [only] if !config.quiet => StdinThread::spawn(Arc::clone(&only.guest))
            .map(Some)
            .map_err(RunError::host("the device thread")),
        _ => Ok(None),
    }
}
