//! A guest that can run.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::sync::Arc;

use kvm_ioctls::VmFd;
use vmm_sys_util::eventfd::EventFd;

use super::end::GuestEnd;
use super::hints_in_force::HintsInForce;
use super::host_resources::{HostResources, ReapOnDrop};
use super::record::GuestRecord;
use crate::acpi;
use crate::apic_timer::TimerRates;
use crate::console::TakesInput;
use crate::devices::Devices;
use crate::hints::{BadHintPage, HintPages};
use crate::inferred::InferredHints;
use crate::kvm;
use crate::memory::GuestMemory;
use crate::power::PowerRegisters;
use crate::reaper::Reaper;
use crate::serial::SerialPort;
use crate::steal::StealTime;

/// A guest that can run. Its vCPUs keep it alive. When the last vCPU is gone, the guest releases what it
/// has of the host. Its [`GuestRecord`] lives as long as there are references to the record.
pub struct Guest {
    record: Arc<GuestRecord>,
    /// The hint pages of the vCPUs.
    pub hints: HintPages,
    /// The hints that the host infers.
    pub inferred: InferredHints,
    /// The steal time of the vCPUs, if Baton's policy decides which vCPU runs.
    pub steal: StealTime,
    /// The rates that the timers of the local APICs may have.
    pub timers: TimerRates,
    features: u32,
    power: PowerRegisters,
    resources: Arc<HostResources>,
    // After `resources`, so that the reaper gets the last reference to them, whichever thread drops this
    // value.
    reap: ReapOnDrop,
}

impl Deref for Guest {
    type Target = GuestRecord;

    fn deref(&self) -> &GuestRecord {
        &self.record
    }
}

impl fmt::Debug for Guest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guest")
            .field("record", &self.record)
            .finish_non_exhaustive()
    }
}

impl Guest {
    /// The guest of `record`, which offers `features` and as many hint pages as `hints` has, and has not
    /// run.
    pub(super) fn new(
        record: Arc<GuestRecord>,
        resources: HostResources,
        hints: HintPages,
        features: u32,
        reaper: Reaper,
    ) -> Self {
        let vcpus = record.vcpus();
        let resources = Arc::new(resources);
        Self {
            hints,
            inferred: InferredHints::new(vcpus as usize),
            steal: StealTime::new(vcpus as usize),
            timers: TimerRates::new(vcpus, kvm::shortest_timer_period()),
            features,
            power: PowerRegisters::default(),
            reap: ReapOnDrop::new(&resources, &record, reaper),
            record,
            resources,
        }
    }

    /// What stays of the guest when its virtual machine is gone.
    #[must_use]
    pub fn record(&self) -> &Arc<GuestRecord> {
        &self.record
    }

    /// Releases what the guest has of the host when the guest has ended.
    #[must_use]
    pub fn reaper(&self) -> &Reaper {
        self.reap.reaper()
    }

    /// `baton_abi::hints::FEATURE_*` bits on offer.
    #[must_use]
    pub fn features(&self) -> u32 {
        self.features
    }

    /// The guest's serial port.
    #[must_use]
    pub fn serial(&self) -> &SerialPort {
        &self.resources.serial
    }

    /// The guest's virtio devices.
    #[must_use]
    pub fn devices(&self) -> &Devices {
        &self.resources.devices
    }

    /// The guest's memory.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        &self.resources.memory
    }

    /// The guest's KVM file, for ioctls that have no method here.
    #[must_use]
    pub fn vm(&self) -> &VmFd {
        &self.resources.vm
    }

    /// Presses the guest's ACPI power button, on which its system should switch itself off. False: the guest has
    /// ended, or none of its drivers has enabled the button, so that the press has no effect. May be called on
    /// any thread, also while vCPUs run.
    #[must_use]
    pub fn press_power_button(&self) -> bool {
        !self.has_ended() && self.power.press_button(|level| self.set_sci(level))
    }

    /// Carries out a write to a power register. True: the guest switches itself off.
    pub(crate) fn write_power(&self, port: u16, data: &[u8]) -> bool {
        let set_line = |level| self.set_sci(level);
        self.power.write(port, data, set_line)
    }

    /// Carries out a read from a power register.
    pub(crate) fn read_power(&self, port: u16, data: &mut [u8]) {
        self.power.read(port, data);
    }

    /// How a guest that switches itself off ends.
    pub(crate) fn switched_off(&self) -> GuestEnd {
        match self.power.was_pressed() {
            true => GuestEnd::PoweredOff,
            false => GuestEnd::Exited(0),
        }
    }

    /// Sets the level of ACPI's interrupt.
    fn set_sci(&self, level: bool) {
        // KVM refuses only machines without interrupt controllers.
        let _ = self.vm().set_irq_line(acpi::SCI.into(), level);
    }

    /// Registers the page with frame number `pfn` as the hint page of vCPU `index`, which is running: the
    /// request is its own.
    pub(crate) fn register_hint_page(&self, index: u32, pfn: u32) -> Result<(), BadHintPage> {
        self.hints.register(index, pfn, self.memory().regions())?;
        self.hints.set_running(index, true);
        self.record_hints_in_force();
        Ok(())
    }

    /// Records where the hints come from, after that may have changed.
    pub(crate) fn record_hints_in_force(&self) {
        let now = || HintsInForce::of(&self.hints, &self.inferred);
        self.record.set_hints_in_force(now);
    }

    /// Registers the steal time structure of vCPU `index` by a write of `value` to the MSR. False: the
    /// value makes no sense.
    #[must_use]
    pub fn register_steal_time(&self, index: u32, value: u64) -> bool {
        self.steal.write_msr(index, value, self.memory().regions())
    }
}

/// The console of the guest is its serial port.
impl TakesInput for Guest {
    fn attention(&self) -> io::Result<EventFd> {
        self.serial().attention()
    }

    fn room(&self) -> usize {
        self.serial().accepted_room()
    }

    fn take(&self, bytes: &[u8]) {
        self.serial().input(bytes);
    }
}
