//! What stays of a guest when its virtual machine is gone: its name, what it reported, how it ended.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use super::end::GuestEnd;
use super::hints_in_force::HintsInForce;
use crate::clock::GuestClock;
use crate::console::ConsolePort;
use crate::testdev::Results;

type EndHook = Box<dyn Fn(&GuestRecord, &GuestEnd) + Send + Sync>;
type HintsHook = Box<dyn Fn(&GuestRecord) + Send + Sync>;

/// The record of a guest. A reference to the record does not keep the guest's memory, devices and KVM
/// files alive when the guest ends.
pub struct GuestRecord {
    /// Index of the guest among the guests of the run.
    pub number: usize,
    /// The guest's name.
    pub name: String,
    /// What the guest has reported.
    pub results: Results,
    /// The guest's time stamp counter.
    pub clock: GuestClock,
    restarts: AtomicU32,
    vcpus: u32,
    console: ConsolePort,
    hints: Mutex<HintsInForce>,
    on_hints: OnceLock<HintsHook>,
    end: OnceLock<GuestEnd>,
    is_released: AtomicBool,
    on_end: Mutex<Vec<EndHook>>,
}

impl fmt::Debug for GuestRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GuestRecord")
            .field("number", &self.number)
            .field("name", &self.name)
            .field("end", &self.end.get())
            .finish_non_exhaustive()
    }
}

impl GuestRecord {
    /// The record of guest `number`, which has `vcpus` vCPUs and has not ended.
    pub(super) fn new(
        number: usize,
        name: String,
        vcpus: u32,
        clock: GuestClock,
        console: ConsolePort,
        restarts: u32,
    ) -> Self {
        Self {
            number,
            name,
            results: Results::new(vcpus as usize),
            clock,
            vcpus,
            console,
            hints: Mutex::default(),
            on_hints: OnceLock::new(),
            restarts: AtomicU32::new(restarts),
            end: OnceLock::new(),
            is_released: AtomicBool::new(false),
            on_end: Mutex::default(),
        }
    }

    /// The record of guest `number`, whose machine is in another process. That process has what the guest
    /// reports and prints, so the record has neither, and the clock is that of the host.
    #[must_use]
    pub fn of_process(number: usize, name: String, vcpus: u32) -> Self {
        const NS_AS_KHZ: u32 = 1_000_000;
        let clock = GuestClock::new(NS_AS_KHZ, 0);
        Self::new(number, name, vcpus, clock, ConsolePort::discard(), 0)
    }

    /// Records what the guest's process has reported about the source of its hints.
    pub fn report_hints(&self, source: HintsInForce) {
        self.set_hints_in_force(|| source);
    }

    /// How often the guest has been started again.
    #[must_use]
    pub fn restarts(&self) -> u32 {
        self.restarts.load(Ordering::Relaxed)
    }

    /// Records how often the guest has been started again, as the guest's process has reported it.
    pub fn report_restarts(&self, restarts: u32) {
        self.restarts.store(restarts, Ordering::Relaxed);
    }

    /// Number of vCPUs.
    #[must_use]
    pub fn vcpus(&self) -> u32 {
        self.vcpus
    }

    /// Where the guest's console output goes.
    #[must_use]
    pub fn console(&self) -> &ConsolePort {
        &self.console
    }

    /// Where the guest's hints come from now, or came from when it ended.
    #[must_use]
    pub fn hints_in_force(&self) -> HintsInForce {
        *self.hints.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the hook that runs after the source of the guest's hints has changed, on the thread that changed it. Only
    /// the first hook counts. It must not block.
    pub fn on_hints(&self, hook: impl Fn(&Self) + Send + Sync + 'static) {
        let _ = self.on_hints.set(Box::new(hook));
    }

    /// Records where the guest's hints come from. `now` is called under the lock, so that of two changes at
    /// once the later one stays.
    pub(super) fn set_hints_in_force(&self, now: impl FnOnce() -> HintsInForce) {
        let mut hints = self.hints.lock().unwrap_or_else(PoisonError::into_inner);
        let now = now();
        let before = std::mem::replace(&mut *hints, now);
        drop(hints);
        if before != now
            && let Some(hook) = self.on_hints.get()
        {
            hook(self);
        }
    }

    /// Whether the host has back all that the guest had of it.
    #[must_use]
    pub fn is_released(&self) -> bool {
        self.is_released.load(Ordering::Acquire)
    }

    /// The host has back all that the guest had of it.
    pub(super) fn set_released(&self) {
        self.is_released.store(true, Ordering::Release);
    }

    /// Adds a hook that runs when the guest ends, on the thread that notices the end. The hook must not
    /// block. If the guest has ended already, the hook runs at once.
    pub fn on_end(&self, hook: impl Fn(&Self, &GuestEnd) + Send + Sync + 'static) {
        let mut hooks = self.on_end.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock, so that `end` either sees the hook or has set the end before.
        match self.end.get() {
            Some(end) => {
                drop(hooks);
                hook(self, end);
            }
            None => hooks.push(Box::new(hook)),
        }
    }

    /// Marks the guest as ended; only the first end counts. No vCPU of the guest enters it again.
    pub fn end(&self, end: GuestEnd) {
        if self.end.set(end).is_err() {
            return;
        }
        let hooks =
            std::mem::take(&mut *self.on_end.lock().unwrap_or_else(PoisonError::into_inner));
        if let Some(end) = self.end.get() {
            hooks.iter().for_each(|hook| hook(self, end));
        }
    }

    /// How the guest ended, if it has.
    #[must_use]
    pub fn ended(&self) -> Option<GuestEnd> {
        self.end.get().cloned()
    }

    /// Whether the guest has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.end.get().is_some()
    }
}
