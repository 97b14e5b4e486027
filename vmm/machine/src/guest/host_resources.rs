//! What a guest has of the host, and how that is released.

use std::sync::Arc;

use kvm_ioctls::VmFd;

use super::record::GuestRecord;
use crate::devices::Devices;
use crate::memory::GuestMemory;
use crate::reaper::{Pace, Reaper};
use crate::serial::SerialPort;

/// What a guest has of the host. Its release takes time.
pub(super) struct HostResources {
    pub(super) serial: SerialPort,
    pub(super) devices: Devices,
    // Dropped in this order, after the devices: devices and KVM must have released the memory before the
    // memory is unmapped.
    pub(super) vm: VmFd,
    pub(super) memory: GuestMemory,
}

impl HostResources {
    /// Gives everything back to the host.
    fn release(self, pace: &Pace) {
        let Self {
            serial,
            devices,
            vm,
            memory,
        } = self;
        // The threads of the devices may work on the memory until here.
        drop((devices, serial));
        // The memory goes back in pieces while KVM still has it. That leaves little work for the system
        // calls below, during which the thread cannot rest.
        let mut paced = pace.begin();
        memory.give_back(|| paced.rest_if_due());
        drop(vm);
        drop(memory);
    }
}

/// The last reference to the resources of a guest. They are released also if this value is only dropped.
struct LastReference {
    resources: Arc<HostResources>,
    // Dropped after the resources.
    released: ReportReleased,
}

impl LastReference {
    fn release(self, pace: &Pace) {
        let Self {
            resources,
            released,
        } = self;
        // The guest has dropped its own reference.
        if let Some(resources) = Arc::into_inner(resources) {
            resources.release(pace);
        }
        drop(released);
    }
}

/// Records when it is dropped that the resources of the guest are released.
struct ReportReleased(Arc<GuestRecord>);

impl Drop for ReportReleased {
    fn drop(&mut self) {
        self.0.set_released();
    }
}

/// Leaves the resources of a guest to the reaper when this value is dropped.
pub(super) struct ReapOnDrop {
    resources: Option<Arc<HostResources>>,
    record: Arc<GuestRecord>,
    reaper: Reaper,
}

impl ReapOnDrop {
    /// For the guest of `record`, which drops its own reference to `resources` before this value.
    pub(super) fn new(
        resources: &Arc<HostResources>,
        record: &Arc<GuestRecord>,
        reaper: Reaper,
    ) -> Self {
        Self {
            resources: Some(Arc::clone(resources)),
            record: Arc::clone(record),
            reaper,
        }
    }

    pub(super) fn reaper(&self) -> &Reaper {
        &self.reaper
    }
}

impl Drop for ReapOnDrop {
    fn drop(&mut self) {
        if let Some(resources) = self.resources.take() {
            let last = LastReference {
                resources,
                released: ReportReleased(Arc::clone(&self.record)),
            };
            let release = move |pace: &Pace| last.release(pace);
            self.reaper.take_apart(&self.record.name, release);
        }
    }
}
