//! The value that stands for a vCPU.

use std::io;
use std::sync::Arc;

use kvm_bindings::{kvm_guest_debug, kvm_mp_state};
use kvm_ioctls::VcpuFd;

use super::exit::{Exit, ExitCounts};
use super::immediate_exit::ImmediateExit;
use crate::apic_timer::{self, TooFast};
use crate::console::LineBuffer;
use crate::guest::Guest;
use crate::guest::GuestEnd;
use crate::guest_stopped::{self, Gaps};
use crate::hints::HintSnapshot;
use crate::inferred::{self, GuestParts, LookPace};
use crate::ports::VcpuPorts;

/// A vCPU of a guest.
///
/// The value is `Send`: it may move between threads, and the thread that owns it may run it.
#[derive(Debug)]
pub struct Vcpu {
    /// Index of the vCPU in the guest, also its APIC id.
    pub index: u32,
    /// The vCPU's exits so far.
    pub exits: ExitCounts,
    /// Whether the vCPU has ever run on after a wake though it was to stop after a single instruction.
    pub overran_single_step: bool,
    /// Whether the vCPU was kept from sleeping in KVM at its last halt, where its timer would have been
    /// checked.
    pub kept_awake: bool,
    /// The time that the vCPU has missed.
    pub gaps: Gaps,
    /// Steal time that the guest was shown during a run and that is not yet in the policy's counters, ns.
    pub steal_shown_in_run: u64,
    /// The pace of the looks at the vCPU, if it publishes no hints.
    pub look_pace: LookPace,
    pub(super) fd: VcpuFd,
    pub(super) ports: VcpuPorts,
    pub(super) immediate_exit: ImmediateExit,
    /// Whether the last exit left an access that the next `KVM_RUN` completes.
    pub(super) has_pending_access: bool,
    /// An exit that the next run is to return.
    pub(super) put_off: Option<Exit>,
    /// `EAGAIN`s in a row.
    pub(super) again: u32,
    /// The vCPU's guest. The last field, so that the vCPU's KVM files are closed before the guest is
    /// released.
    pub guest: Arc<Guest>,
}

impl Vcpu {
    pub(crate) fn new(guest: Arc<Guest>, index: u32, mut fd: VcpuFd) -> io::Result<Self> {
        let immediate_exit = ImmediateExit::of(&fd)?;
        if guest.inferred.is_on() {
            inferred::copy_at_exits(guest.vm(), &mut fd);
        }
        let ports = VcpuPorts {
            results: Default::default(),
            console: LineBuffer::lines(guest.console().clone()),
        };
        Ok(Self {
            guest,
            index,
            exits: ExitCounts::default(),
            overran_single_step: false,
            kept_awake: false,
            gaps: Gaps::default(),
            steal_shown_in_run: 0,
            look_pace: LookPace::default(),
            fd,
            ports,
            immediate_exit,
            has_pending_access: false,
            put_off: None,
            again: 0,
        })
    }

    /// Makes the next [`Vcpu::run`] return `exit`, which the last one returned to a caller that cannot
    /// handle it.
    pub fn put_off(&mut self, exit: Exit) {
        self.put_off = Some(exit);
    }

    /// Prints a line of Baton's own on the guest's console: `what`, with the guest as the subject.
    pub fn print_notice(&mut self, what: &str) {
        self.ports.console.end_line();
        let line = format!("baton: guest {} {what}\n", self.guest.name);
        line.bytes().for_each(|byte| self.ports.console.push(byte));
    }

    /// Ends the guest, because this vCPU cannot run any further.
    pub(super) fn fail(&mut self, text: String) {
        self.ports.console.end_line();
        self.guest.end(GuestEnd::InternalError {
            vcpu: self.index,
            text,
        });
    }

    /// Slows the timer of the vCPU's local APIC down if the timer expires more often than the guest's
    /// timers may (`apic_timer`), or ends the guest where KVM cannot do that. To be called whenever the
    /// vCPU stops for a longer time.
    pub fn limit_timer(&mut self) {
        match apic_timer::limit(&self.fd, self.index, &self.guest.timers) {
            None => {}
            Some(TooFast::Slowed { from, to }) => self.print_notice(&format!(
                "has a local APIC timer that expires {from} times a second at the cost of others: it \
                 is slowed down to {to}; this is reported once"
            )),
            Some(TooFast::Unstoppable { rate, allowed }) => self.fail(format!(
                "its local APIC timer expires {rate} times a second, beside those of its other vCPUs \
                 {allowed} are allowed, and KVM can slow it down in x2APIC mode only: let the guest \
                 use x2APIC, a lower tick rate or fewer vCPUs"
            )),
        }
    }

    /// Reports a long `gap` to the guest (`guest_stopped`): for so many nanoseconds the vCPU was kept from
    /// running while it was in [`Vcpu::run`]. What a vCPU misses outside of that is reported without this
    /// call.
    pub fn missed(&mut self, gap: u64) {
        guest_stopped::report(&self.fd, &mut self.gaps, gap);
    }

    /// Closes the vCPU's KVM files, on another thread if the guest has a reaper. The vCPU's counters are
    /// lost.
    pub fn discard(self: Box<Self>) {
        let reaper = self.guest.reaper().clone();
        reaper.discard(self);
    }

    /// The vCPU's run state (`KVM_MP_STATE_*`).
    ///
    /// # Errors
    /// If KVM does not report the state. KVM always does while the guest exists.
    pub fn mp_state(&self) -> Result<u32, kvm_ioctls::Error> {
        Ok(self.fd.get_mp_state()?.mp_state)
    }

    /// Sets the vCPU's run state (`KVM_MP_STATE_*`).
    ///
    /// # Errors
    /// If KVM refuses the state.
    pub fn set_mp_state(&self, mp_state: u32) -> Result<(), kvm_ioctls::Error> {
        self.fd.set_mp_state(kvm_mp_state { mp_state })
    }

    /// Sets debug flags (`KVM_GUESTDBG_*`); 0 clears them.
    ///
    /// # Errors
    /// If KVM refuses the flags.
    pub fn set_guest_debug(&self, control: u32) -> Result<(), kvm_ioctls::Error> {
        self.fd.set_guest_debug(&kvm_guest_debug {
            control,
            ..Default::default()
        })
    }

    /// Whether the vCPU accepts interrupts (the flag IF), as of its last exit.
    #[must_use]
    pub fn takes_interrupts(&mut self) -> bool {
        self.fd.get_kvm_run().if_flag != 0
    }

    /// The hints that the host infers of the vCPU, which has left the guest, `now`, ns. Prints a notice on the
    /// guest's console if there is something new.
    #[must_use]
    pub fn inferred_hints(&mut self, now: u64) -> HintSnapshot {
        let guest = GuestParts {
            memory: self.guest.memory().regions(),
            pages: &self.guest.hints,
        };
        let inferred = &self.guest.inferred;
        let (hints, notice) = inferred.look(self.index, &mut self.fd, guest, now);
        if let Some(notice) = notice {
            self.guest.record_hints_in_force();
            self.print_notice(&notice.to_string());
        }
        hints
    }

    /// The same of a vCPU that has halted.
    #[must_use]
    pub fn inferred_hints_of_halted(&mut self, now: u64) -> HintSnapshot {
        let guest = GuestParts {
            memory: self.guest.memory().regions(),
            pages: &self.guest.hints,
        };
        let inferred = &self.guest.inferred;
        inferred.halted(self.index, &mut self.fd, guest, now)
    }

    /// Whether the host infers the vCPU's hints: it has no page in which it could publish them.
    #[must_use]
    pub fn is_inferred(&self) -> bool {
        self.guest.inferred.is_on() && !self.guest.hints.is_registered(self.index)
    }

    /// The hints of the vCPU, which has left the guest, `now`, ns: what it has published, or what is inferred.
    #[must_use]
    pub fn hints(&mut self, now: u64) -> HintSnapshot {
        match self.is_inferred() {
            true => self.inferred_hints(now),
            false => self.guest.hints.snapshot(self.index),
        }
    }

    /// The same of a vCPU that has halted.
    #[must_use]
    pub fn hints_of_halted(&mut self, now: u64) -> HintSnapshot {
        match self.is_inferred() {
            true => self.inferred_hints_of_halted(now),
            false => self.hints(now),
        }
    }

    /// When the vCPU has to wake by itself, since it has rung that it is idle, `CLOCK_MONOTONIC` ns, if that was set.
    #[must_use]
    pub fn idle_until(&self) -> Option<u64> {
        let tsc = self.guest.hints.idle_until_tsc(self.index);
        (tsc != 0).then(|| self.guest.clock.monotonic_at(tsc))
    }

    /// The lock that the vCPU has handed over, since it has rung that it released one.
    #[must_use]
    pub fn handed_lock(&self) -> Option<u64> {
        self.guest.hints.handed_lock(self.index)
    }

    /// The vCPU's KVM file, for ioctls that have no method here.
    #[must_use]
    pub fn fd(&self) -> &VcpuFd {
        &self.fd
    }

    /// A handle by which any thread or signal handler makes the next [`Vcpu::run`] return at once.
    #[must_use]
    pub fn immediate_exit(&self) -> ImmediateExit {
        self.immediate_exit.clone()
    }
}
