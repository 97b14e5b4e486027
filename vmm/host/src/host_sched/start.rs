//! Starts a thread for each vCPU, all or none, and stops them.

use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};

use baton_config::RunConfig;
use baton_machine::Vcpu;
use baton_os::signals::{self, RtSignal};

use super::error::HostSchedError;
use super::placement::Placement;
use super::start_gate::StartGate;
use super::vcpu_control::VcpuControl;
use super::vcpu_loop::run_vcpu;
use crate::executor::pool_handle::PoolHandle;
use crate::ready_guest::ReadyGuest;
use crate::report::{RunnerReport, VcpuAccount};
use crate::runner::{NoPool, Runner};

/// The vCPU threads of one guest.
struct GuestThreads {
    controls: Arc<[VcpuControl]>,
    threads: Vec<JoinHandle<VcpuAccount>>,
}

/// The vCPU threads of all guests.
struct AllThreads(Vec<GuestThreads>);

/// Starts a thread for each vCPU of `guests`.
///
/// # Errors
/// If the host refuses a thread or its scheduling; then nothing runs.
pub fn start(
    config: &RunConfig,
    pool: &[usize],
    guests: Vec<ReadyGuest>,
) -> Result<Box<dyn Runner>, HostSchedError> {
    signals::install_empty_handler(RtSignal::HostSchedKick.number())
        .map_err(HostSchedError::Signal)?;
    let placements = Placement::of_all(config, pool, &guests)?;
    let mut starter = Starter::new();
    let mut all = AllThreads(Vec::new());
    for (ready, placements) in guests.into_iter().zip(placements) {
        all.0.push(starter.start_guest(ready, placements));
    }
    match starter.finish(&all) {
        Ok(()) => Ok(Box::new(all)),
        Err(error) => {
            Box::new(all).stop();
            Err(error)
        }
    }
}

/// Starts threads that begin together, or not at all if one of them cannot.
struct Starter {
    gate: Arc<StartGate>,
    placed: mpsc::Sender<Result<(), HostSchedError>>,
    placements: mpsc::Receiver<Result<(), HostSchedError>>,
    started: usize,
    failure: Option<HostSchedError>,
}

impl Starter {
    fn new() -> Self {
        let (placed, placements) = mpsc::channel();
        Self {
            gate: Arc::default(),
            placed,
            placements,
            started: 0,
            failure: None,
        }
    }

    /// Starts the threads of one guest, which wait at the gate.
    fn start_guest(&mut self, ready: ReadyGuest, placements: Vec<Placement>) -> GuestThreads {
        let controls: Arc<[VcpuControl]> = ready
            .vcpus
            .iter()
            .map(|vcpu| VcpuControl::new(vcpu.immediate_exit()))
            .collect();
        let mut threads = Vec::new();
        for (vcpu, placement) in ready.vcpus.into_iter().zip(placements) {
            match self.start_vcpu(vcpu, placement, Arc::clone(&controls)) {
                Ok(thread) => {
                    threads.push(thread);
                    self.started += 1;
                }
                Err(error) => self.failure = Some(error),
            }
        }
        ready.guest.on_end({
            let controls = Arc::clone(&controls);
            move |_, _| controls.iter().for_each(VcpuControl::stop)
        });
        GuestThreads { controls, threads }
    }

    fn start_vcpu(
        &self,
        vcpu: Box<Vcpu>,
        placement: Placement,
        controls: Arc<[VcpuControl]>,
    ) -> Result<JoinHandle<VcpuAccount>, HostSchedError> {
        let gate = Arc::clone(&self.gate);
        let placed = self.placed.clone();
        // Linux shows 15 characters.
        let name = format!("vcpu{}:{}", vcpu.index, vcpu.guest.name);
        thread::Builder::new()
            .name(name.chars().take(15).collect())
            .spawn(move || {
                let _ = placed.send(placement.apply(&vcpu));
                gate.pass();
                run_vcpu(vcpu, &controls)
            })
            .map_err(HostSchedError::Thread)
    }

    /// Lets all threads begin, or end if one of them could not be started or placed.
    fn finish(self, all: &AllThreads) -> Result<(), HostSchedError> {
        let mut failure = self.failure;
        for placed in self.placements.iter().take(self.started) {
            if let Err(error) = placed {
                failure.get_or_insert(error);
            }
        }
        if failure.is_some() {
            all.request_stop();
        }
        self.gate.open();
        failure.map_or(Ok(()), Err)
    }
}

impl AllThreads {
    fn request_stop(&self) {
        let controls = self.0.iter().flat_map(|guest| guest.controls.iter());
        controls.for_each(VcpuControl::stop);
    }
}

impl Runner for AllThreads {
    fn pool(&self) -> Result<PoolHandle, NoPool> {
        Err(NoPool)
    }

    fn stop(self: Box<Self>) -> RunnerReport {
        self.request_stop();
        // A thread that panicked has no numbers; those of the others still count.
        let join = |thread: JoinHandle<VcpuAccount>| thread.join().unwrap_or_default();
        let vcpus = self
            .0
            .into_iter()
            .map(|guest| guest.threads.into_iter().map(join).collect());
        RunnerReport {
            vcpus: vcpus.collect(),
            ..RunnerReport::default()
        }
    }
}
