//! A vCPU: a value that exactly one thread owns at a time and runs by calling [`Vcpu::run`].

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::{fmt, io, mem, ptr};

use baton_os::sys;
use kvm_bindings::{
    KVM_INTERNAL_ERROR_EMULATION, KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN,
    kvm_guest_debug, kvm_mp_state, kvm_run,
};
use kvm_ioctls::{VcpuExit, VcpuFd};
use serde::Serialize;

use super::apic_timer::{self, TooFast};
use super::console::LineBuffer;
use super::guest_stopped::{self, Gaps};
use super::ports::{self, Effect, VcpuPorts};
use super::steal;
use super::{Guest, GuestEnd};

/// One access of an instruction is completed in at most this many exits: an access of 64 bytes
/// across two pages takes 9.
const MAX_COMPLETIONS: usize = 32;

/// `EAGAIN` comes once when a vCPU that waits to be started changes state. So many in a row mean
/// that KVM cannot run it at all (it fails to start its helper thread, for example).
const MAX_AGAIN: u32 = 10_000;

/// Why [`Vcpu::run`] returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Exit {
    /// A device access, done: run again.
    Handled,
    /// A signal or `immediate_exit`: a kick, the timer, a halt signal. Also when a starting vCPU
    /// changed state (`EAGAIN`).
    Interrupted,
    /// The guest rang; the access is done.
    Doorbell(Doorbell),
    /// `KVM_EXIT_DEBUG`.
    Debug,
    /// `KVM_EXIT_HLT`; comes only without KVM's interrupt controller.
    Halted,
    /// The guest has ended ([`GuestRecord::ended`](super::GuestRecord::ended)); never run it again.
    Ended,
}

/// A doorbell; its arguments name vCPUs that exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doorbell {
    /// This vCPU spins for one that is not running.
    Wait,
    /// This vCPU released a lock that the host had asked about; `to` got it, if known.
    Release {
        /// Index of the vCPU that holds the lock now.
        to: Option<u32>,
    },
    /// Nothing to do until a [`Doorbell::Wake`] or the time in the hint page.
    Idle,
    /// Wake vCPU `target`; may be the one that rings.
    Wake {
        /// Its index.
        target: u32,
    },
}

/// How often a vCPU left the guest, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ExitCounts {
    /// Port reads.
    pub port_in: u64,
    /// Port writes other than doorbells.
    pub port_out: u64,
    /// Accesses to addresses without memory.
    pub mmio: u64,
    /// Doorbells that made sense.
    pub doorbells: u64,
    /// Doorbells, hint pages and accesses to our ports that made no sense; they changed nothing.
    pub nonsense: u64,
    /// Halts that reached user space.
    pub halts: u64,
    /// Signals and `immediate_exit`.
    pub interrupted: u64,
    /// Debug exits.
    pub debug: u64,
    /// All others.
    pub other: u64,
}

impl ExitCounts {
    /// All exits.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.port_in
            + self.port_out
            + self.mmio
            + self.doorbells
            + self.nonsense
            + self.halts
            + self.interrupted
            + self.debug
            + self.other
    }
}

/// A vCPU of a guest.
///
/// `Send`: it may move between threads, and whoever owns it may run it.
#[derive(Debug)]
pub struct Vcpu {
    /// Its index in the guest, also its APIC id.
    pub index: u32,
    /// Its exits so far.
    pub exits: ExitCounts,
    /// Whether it ever ran on after a wake, past the one instruction after which it should have stopped
    /// (`halt/runaway_guard.rs`).
    pub overran_single_step: bool,
    /// At its last halt it was not let sleep in KVM, so nobody looked at its timer there.
    pub kept_awake: bool,
    /// The time that it has missed.
    pub gaps: Gaps,
    fd: VcpuFd,
    ports: VcpuPorts,
    immediate_exit: ImmediateExit,
    /// The last exit left an access that the next `KVM_RUN` completes.
    pending: bool,
    /// An exit that nobody has looked at yet.
    put_off: Option<Exit>,
    /// `EAGAIN`s in a row.
    again: u32,
    /// Its guest. The last field, so that KVM's files are closed before the guest goes.
    pub guest: Arc<Guest>,
}

/// What is left of an exit once its borrow of the run page is over.
enum Outcome {
    Done(Exit),
    Effect(Effect),
    Shutdown,
    Event(u32),
    Broken(String),
    InternalError,
}

impl Vcpu {
    pub(super) fn new(guest: Arc<Guest>, index: u32, fd: VcpuFd) -> io::Result<Self> {
        let immediate_exit = ImmediateExit::of(&fd)?;
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
            fd,
            ports,
            immediate_exit,
            pending: false,
            put_off: None,
            again: 0,
        })
    }

    /// Enters the guest once and handles the device access that it left for, if any.
    ///
    /// Blocks while the vCPU is halted or waits to be started; a signal ends that.
    pub fn run(&mut self) -> Exit {
        if self.guest.has_ended() {
            return Exit::Ended;
        }
        if let Some(exit) = self.put_off.take() {
            return exit;
        }
        self.pending = false;
        let again = mem::take(&mut self.again);
        let missed = self.gaps.end(sys::coarse_monotonic_ns());
        self.missed(missed);
        let guest = &self.guest;
        let exit = self.fd.run();
        self.gaps.leaves(sys::coarse_monotonic_ns());
        let outcome = match exit {
            Ok(VcpuExit::IoOut(port, data)) => {
                self.exits.port_out += 1;
                self.pending = true;
                Outcome::Effect(ports::write(guest, self.index, &mut self.ports, port, data))
            }
            Ok(VcpuExit::IoIn(port, data)) => {
                self.exits.port_in += 1;
                self.pending = true;
                ports::read(guest, self.index, port, data);
                Outcome::Done(Exit::Handled)
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                self.exits.mmio += 1;
                self.pending = true;
                guest.devices().read(address, data);
                Outcome::Done(Exit::Handled)
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                self.exits.mmio += 1;
                self.pending = true;
                guest.devices().write(address, data);
                Outcome::Done(Exit::Handled)
            }
            Ok(VcpuExit::X86Rdmsr(access)) => {
                self.exits.other += 1;
                self.pending = true;
                match access.index {
                    steal::MSR => *access.data = guest.steal.read_msr(self.index),
                    _ => *access.error = 1,
                }
                Outcome::Done(Exit::Handled)
            }
            Ok(VcpuExit::X86Wrmsr(access)) => {
                self.exits.other += 1;
                self.pending = true;
                let done = access.index == steal::MSR
                    && guest.register_steal_time(self.index, access.data);
                *access.error = u8::from(!done);
                Outcome::Done(Exit::Handled)
            }
            Ok(VcpuExit::Intr) => {
                self.exits.interrupted += 1;
                Outcome::Done(Exit::Interrupted)
            }
            Ok(VcpuExit::Debug(_)) => {
                self.exits.debug += 1;
                Outcome::Done(Exit::Debug)
            }
            Ok(VcpuExit::Hlt) => {
                self.exits.halts += 1;
                Outcome::Done(Exit::Halted)
            }
            Ok(VcpuExit::IrqWindowOpen | VcpuExit::SetTpr | VcpuExit::IoapicEoi(_)) => {
                self.exits.other += 1;
                Outcome::Done(Exit::Handled)
            }
            Ok(VcpuExit::Shutdown) => Outcome::Shutdown,
            Ok(VcpuExit::SystemEvent(event, _)) => Outcome::Event(event),
            Ok(VcpuExit::InternalError) => Outcome::InternalError,
            Ok(VcpuExit::FailEntry(reason, cpu)) => Outcome::Broken(format!(
                "the processor refused to enter the guest (reason {reason:#x}, host CPU {cpu})"
            )),
            Ok(VcpuExit::MemoryFault { gpa, .. }) => {
                Outcome::Broken(format!("KVM cannot map guest memory at {gpa:#x}"))
            }
            Ok(other) => Outcome::Broken(format!("KVM left the guest for {other:?}")),
            Err(error) if error.errno() == libc::EINTR => {
                self.exits.interrupted += 1;
                Outcome::Done(Exit::Interrupted)
            }
            Err(error) if error.errno() == libc::EAGAIN && again < MAX_AGAIN => {
                self.exits.interrupted += 1;
                self.again = again + 1;
                Outcome::Done(Exit::Interrupted)
            }
            Err(error) => Outcome::Broken(format!("KVM_RUN failed: {error}")),
        };
        self.conclude(outcome)
    }

    fn conclude(&mut self, outcome: Outcome) -> Exit {
        let end = match outcome {
            Outcome::Done(exit) => return exit,
            Outcome::Effect(Effect::None) => return Exit::Handled,
            Outcome::Effect(Effect::Nonsense) => {
                self.exits.port_out -= 1;
                self.exits.nonsense += 1;
                return Exit::Handled;
            }
            Outcome::Effect(Effect::Doorbell(doorbell)) => {
                self.exits.port_out -= 1;
                self.exits.doorbells += 1;
                return Exit::Doorbell(doorbell);
            }
            Outcome::Effect(Effect::Exit(code)) => GuestEnd::Exited(code),
            Outcome::Shutdown => GuestEnd::TripleFault { vcpu: self.index },
            Outcome::Event(KVM_SYSTEM_EVENT_SHUTDOWN | KVM_SYSTEM_EVENT_RESET) => {
                GuestEnd::Exited(0)
            }
            Outcome::Event(event) => self.broken(format!("the guest reported event {event}")),
            Outcome::Broken(text) => self.broken(text),
            Outcome::InternalError => {
                let text = self.internal_error();
                self.broken(text)
            }
        };
        if !matches!(end, GuestEnd::Exited(_)) {
            self.exits.other += 1;
        }
        self.ports.console.end_line();
        self.guest.end(end);
        Exit::Ended
    }

    fn broken(&self, text: String) -> GuestEnd {
        GuestEnd::InternalError {
            vcpu: self.index,
            text,
        }
    }

    fn internal_error(&mut self) -> String {
        let at = self
            .fd
            .get_regs()
            .map(|regs| format!(" at rip {:#x}", regs.rip))
            .unwrap_or_default();
        let run = self.fd.get_kvm_run();
        // SAFETY: the exit reason is KVM_EXIT_INTERNAL_ERROR, for which KVM fills this member.
        let internal = unsafe { run.__bindgen_anon_1.internal };
        if internal.suberror == KVM_INTERNAL_ERROR_EMULATION {
            // SAFETY: as above, and this suberror makes it the emulation_failure layout.
            let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
            // SAFETY: plain bytes, zero where KVM gave none.
            let bytes = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
            let known = (bytes.insn_size as usize).min(bytes.insn_bytes.len());
            let code: Vec<String> = bytes.insn_bytes[..known]
                .iter()
                .map(|byte| format!("{byte:02x}"))
                .collect();
            format!("KVM cannot emulate the instruction{at}: {}", code.join(" "))
        } else {
            format!("KVM internal error {}{at}", internal.suberror)
        }
    }

    /// Completes a device access that the last [`Vcpu::run`] left half done, without entering the
    /// guest. To be called before registers are read or written after [`Exit::Handled`] or
    /// [`Exit::Doorbell`]: KVM would complete the access over the new registers.
    ///
    /// Clears `immediate_exit`: a kick that comes meanwhile is lost unless the caller looks again
    /// at what it was kicked for.
    pub fn complete_pending(&mut self) {
        for _ in 0..MAX_COMPLETIONS {
            if !self.pending {
                break;
            }
            self.immediate_exit.set(true);
            // A further part of the same access may come up: it is handled like any other, but a
            // doorbell that is only part of one instruction is not heard.
            if let Exit::Doorbell(_) = self.run() {
                self.exits.doorbells -= 1;
                self.exits.nonsense += 1;
            }
        }
        self.immediate_exit.set(false);
        if mem::take(&mut self.pending) {
            let end = self.broken("an instruction's memory access does not come to an end".into());
            self.guest.end(end);
        }
    }

    /// Makes the next [`Vcpu::run`] return `exit`, which this one returned, to who can answer it.
    pub fn put_off(&mut self, exit: Exit) {
        self.put_off = Some(exit);
    }

    /// Adds a line of Baton's own to the guest's console.
    pub fn say(&mut self, what: &str) {
        self.ports.console.end_line();
        let line = format!("baton: guest {} {what}\n", self.guest.name);
        line.bytes().for_each(|byte| self.ports.console.push(byte));
    }

    /// Slows the timer of its local APIC down if that expires more often than its guest's timers may
    /// (`apic_timer.rs`), or ends the guest where KVM cannot do that. To be called whenever it stops for
    /// longer.
    pub fn limit_timer(&mut self) {
        match apic_timer::limit(&self.fd, self.index, &self.guest.timers) {
            None => {}
            Some(TooFast::Slowed { from, to }) => self.say(&format!(
                "has a local APIC timer that expires {from} times a second at the cost of others: it \
                 is slowed down to {to}; this is said once"
            )),
            Some(TooFast::Unstoppable { rate, allowed }) => {
                let end = self.broken(format!(
                    "its local APIC timer expires {rate} times a second, beside those of its other vCPUs \
                     {allowed} are allowed, and KVM can slow it down in x2APIC mode only: let the guest \
                     use x2APIC, a lower tick rate or fewer vCPUs"
                ));
                self.ports.console.end_line();
                self.guest.end(end);
            }
        }
    }

    /// It was kept from running for `gap` nanoseconds while it was in [`Vcpu::run`]: its guest is told if
    /// that was long (`guest_stopped.rs`). What it misses outside of that is told without this.
    pub fn missed(&mut self, gap: u64) {
        guest_stopped::tell(&self.fd, &mut self.gaps, gap);
    }

    /// Closes its KVM files, but not on the calling thread if its guest has a reaper. Its counters are
    /// gone then.
    pub fn discard(self: Box<Self>) {
        let reaper = self.guest.reaper().clone();
        reaper.discard(self);
    }

    /// The vCPU's run state (`KVM_MP_STATE_*`).
    ///
    /// # Errors
    /// If KVM does not tell; it always does while the guest exists.
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

    /// Whether it takes interrupts (the flag IF), as of its last exit.
    #[must_use]
    pub fn takes_interrupts(&mut self) -> bool {
        self.fd.get_kvm_run().if_flag != 0
    }

    /// The KVM file, for ioctls that have no method here.
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

/// Sets `kvm_run.immediate_exit` of one vCPU from anywhere.
///
/// It holds a mapping of the run page of its own, so it is valid for as long as it lives, also
/// after its vCPU is gone.
#[derive(Clone)]
pub struct ImmediateExit(Arc<RunPage>);

impl ImmediateExit {
    fn of(fd: &VcpuFd) -> io::Result<Self> {
        // SAFETY: a fresh mapping, at an address of the kernel's choice, of the first page of the
        // run area, which every vCPU file has.
        let page = unsafe {
            libc::mmap(
                ptr::null_mut(),
                mem::size_of::<kvm_run>(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if page == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self(Arc::new(RunPage(page.cast()))))
    }

    /// Sets or clears the flag. Safe in a signal handler.
    pub fn set(&self, on: bool) {
        self.flag().store(u8::from(on), Ordering::Relaxed);
    }

    /// Whether it is set.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.flag().load(Ordering::Relaxed) != 0
    }

    /// The flag itself, for a signal handler that cannot own a handle; it lives as long as any
    /// clone of this handle.
    #[must_use]
    pub fn as_ptr(&self) -> *const AtomicU8 {
        self.flag()
    }

    fn flag(&self) -> &AtomicU8 {
        // SAFETY: the page is mapped for the life of `self`; the kernel and this process touch
        // the byte at any time, here only atomically.
        unsafe { AtomicU8::from_ptr(&raw mut (*self.0.0).immediate_exit) }
    }
}

impl fmt::Debug for ImmediateExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ImmediateExit")
            .field(&self.is_set())
            .finish()
    }
}

/// A mapping of the first page of a vCPU's run area.
struct RunPage(*mut kvm_run);

// SAFETY: the mapping belongs to the process; only an atomic byte in it is used.
unsafe impl Send for RunPage {}
// SAFETY: as above.
unsafe impl Sync for RunPage {}

impl Drop for RunPage {
    fn drop(&mut self) {
        // SAFETY: what `ImmediateExit::of` mapped, and nobody has the page any more.
        unsafe { libc::munmap(self.0.cast(), mem::size_of::<kvm_run>()) };
    }
}
