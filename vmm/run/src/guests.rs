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

use crate::console_output::{ConsoleOutput, on_stdio};
use crate::error::RunError;
use crate::run_end::RunEnd;

/// Beside the configuration, what decides how guests are created.
pub(crate) struct Creation<'a> {
    /// Bounds of each guest's vsock device.
    pub(crate) vsock: VsockBounds,
    /// The image for `KernelSource::Builtin`.
    pub(crate) builtin: &'static [u8],
    /// Signals that end the creation.
    pub(crate) stop: Option<&'a StopSignals>,
    /// Whether guests can be ordered to start again, whatever their configurations have.
    pub(crate) takes_orders: bool,
}

/// What all guests of a run share.
pub(crate) struct GuestFactory<'a> {
    pub(crate) config: &'a RunConfig,
    pub(crate) console: &'a ConsoleOutput,
    pub(crate) reaper: &'a ReaperThread,
    pub(crate) creation: Creation<'a>,
}

impl GuestFactory<'_> {
    /// Creates all guests. `end` learns when those for which the run waits have ended.
    pub(crate) fn create(&self, kvm: &Arc<Kvm>, end: &RunEnd) -> Result<Vec<ReadyGuest>, RunError> {
        let numbers = 0..self.config.guests.len();
        let guests = numbers.map(|number| self.create_one(kvm, number, 0, end));
        guests.collect()
    }

    /// Creates guest `number`, which has been started again `restarts` times.
    pub(crate) fn create_one(
        &self,
        kvm: &Arc<Kvm>,
        number: usize,
        restarts: u32,
        end: &RunEnd,
    ) -> Result<ReadyGuest, RunError> {
        let config = &self.config.guests[number];
        let (kvm, own) = (Arc::clone(kvm), config.clone());
        let wiring = GuestWiring {
            restarts,
            ..self.wiring(number)
        };
        let create = move || Guest::create_with(&kvm, number, &own, wiring);
        let (guest, vcpus) = abandon::unless_stopped(self.creation.stop, create)??;
        self.console.connect(number, &guest)?;
        let of_run = end.clone();
        let may_restart = self.may_restart(config);
        if may_restart || self.has_stdin(number) {
            guest.on_end(move |_, _| of_run.wake());
        }
        let of_run = end.clone();
        let is_awaited = self.config.awaited().any(|awaited| awaited == number);
        if is_awaited && !may_restart {
            guest.on_end(move |_, _| of_run.count());
        }
        Ok(ReadyGuest {
            guest,
            config: config.clone(),
            vcpus,
        })
    }

    /// Whether a guest of `config` starts again after some of its ends.
    pub(crate) fn may_restart(&self, config: &GuestConfig) -> bool {
        self.creation.takes_orders || config.may_restart()
    }

    /// Whether guest `number` gets standard input: it has standard output for itself. If several guests share that,
    /// none does, because the input could be meant for any of them.
    pub(crate) fn has_stdin(&self, number: usize) -> bool {
        on_stdio(self.config).eq([number])
    }

    /// Starts the thread that passes standard input to `guest`, which is guest `number`, if it gets that.
    pub(crate) fn start_input(
        &self,
        number: usize,
        guest: &Arc<Guest>,
    ) -> Result<Option<StdinThread>, RunError> {
        if !self.has_stdin(number) {
            return Ok(None);
        }
        let thread = StdinThread::spawn(Arc::clone(guest));
        thread
            .map(Some)
            .map_err(RunError::host("the device thread"))
    }

    fn wiring(&self, number: usize) -> GuestWiring {
        GuestWiring {
            console: self.console.port(number),
            features: features(self.config),
            vsock: self.creation.vsock,
            reaper: self.reaper.reaper(),
            restarts: 0,
            builtin: self.creation.builtin,
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
