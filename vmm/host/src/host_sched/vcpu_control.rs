//! How a vCPU's thread is reached by others.

use baton_machine::{ImmediateExit, Vcpu};
use baton_os::signals::{self, RtSignal};

use super::idle_wait::IdleWait;
use super::stop_request::{ImmediateExitFlag, StopRequest};

impl ImmediateExitFlag for ImmediateExit {
    fn set(&self, on: bool) {
        self.set(on);
    }
}

/// What a vCPU's thread shares with the threads that stop or wake it.
#[derive(Debug)]
pub(super) struct VcpuControl {
    pub(super) stop_request: StopRequest<ImmediateExit>,
    pub(super) idle: IdleWait,
}

impl VcpuControl {
    pub(super) fn new(vcpu: &Vcpu) -> Self {
        Self {
            stop_request: StopRequest::new(vcpu.immediate_exit()),
            idle: IdleWait::new(),
        }
    }

    /// Stops the vCPU, whether it runs or is idle.
    pub(super) fn stop(&self) {
        self.stop_request
            .request(|tid| signals::send(tid, RtSignal::HostSchedKick.number()));
        self.idle.wake();
    }
}
