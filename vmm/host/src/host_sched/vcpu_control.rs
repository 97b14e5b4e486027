//! How a vCPU's thread is reached by others.

use baton_machine::ImmediateExit;
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
pub(crate) struct VcpuControl {
    pub(super) stop_request: StopRequest<ImmediateExit>,
    pub(super) idle: IdleWait,
}

impl VcpuControl {
    /// For the vCPU of `immediate_exit`.
    pub(crate) fn new(immediate_exit: ImmediateExit) -> Self {
        Self {
            stop_request: StopRequest::new(immediate_exit),
            idle: IdleWait::new(),
        }
    }

    /// Stops the vCPU, whether it runs or is idle.
    pub(crate) fn stop(&self) {
        self.stop_request
            .request(|tid| signals::send(tid, RtSignal::HostSchedKick.number()));
        self.idle.wake();
    }

    /// Wakes the vCPU, now or when it becomes idle next.
    pub(crate) fn wake(&self) {
        self.idle.wake();
    }
}
