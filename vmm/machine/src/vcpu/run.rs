//! One entry into the guest, and the exit that ends it.

use std::mem;

use baton_os::sys;
use kvm_bindings::{KVM_SYSTEM_EVENT_RESET, KVM_SYSTEM_EVENT_SHUTDOWN};
use kvm_ioctls::{ReadMsrExit, VcpuExit, WriteMsrExit};

use super::exit::{Exit, ExitCounts};
use super::failure;
use super::state::Vcpu;
use crate::guest::Guest;
use crate::guest::GuestEnd;
use crate::ports::{self, PortEffect, VcpuPorts};
use crate::steal;

/// One access of an instruction is completed in at most this many exits: an access of 64 bytes
/// across two pages takes 9.
const MAX_COMPLETIONS: usize = 32;

/// `EAGAIN` comes once when a vCPU that waits to be started changes its state. So many in a row mean
/// that KVM cannot run the vCPU at all (KVM fails to start its helper thread, for example).
const MAX_AGAIN: u32 = 10_000;

/// What an exit comes to, once the borrow of the run page that it carries is over.
enum Handled {
    /// The exit is handled; [`Vcpu::run`] returns this.
    Return(Exit),
    /// An access to a port or an address, or to an MSR, is handled. The next `KVM_RUN` completes it.
    Access(PortEffect),
    /// `EAGAIN`.
    Again,
    /// A vCPU faulted while it handled a fault of the handler of a fault.
    TripleFault,
    /// `KVM_SYSTEM_EVENT_*`.
    SystemEvent(u32),
    /// `KVM_EXIT_INTERNAL_ERROR`, which is still to be described.
    InternalError,
    /// The vCPU cannot run any further, for this reason.
    Failed(String),
}

impl Vcpu {
    /// Enters the guest once and handles the device access for which the vCPU left the guest, if any.
    ///
    /// Blocks while the vCPU is halted or waits to be started; a signal ends that.
    pub fn run(&mut self) -> Exit {
        if self.guest.has_ended() {
            return Exit::Ended;
        }
        if let Some(exit) = self.put_off.take() {
            return exit;
        }
        self.has_pending_access = false;
        let missed = self.gaps.end(sys::coarse_monotonic_ns());
        self.missed(missed);
        let result = self.fd.run();
        self.gaps.left_guest(sys::coarse_monotonic_ns());
        let handled = match result {
            Ok(exit) => handle(
                exit,
                &self.guest,
                self.index,
                &mut self.ports,
                &mut self.exits,
            ),
            Err(error) => handle_error(error, &mut self.exits),
        };
        self.conclude(handled)
    }

    fn conclude(&mut self, handled: Handled) -> Exit {
        let again = mem::take(&mut self.again);
        let end = match handled {
            Handled::Return(exit) => return exit,
            Handled::Access(effect) => {
                self.has_pending_access = true;
                match self.apply(effect) {
                    Ok(exit) => return exit,
                    Err(end) => end,
                }
            }
            Handled::Again if again < MAX_AGAIN => {
                self.again = again + 1;
                self.exits.interrupted += 1;
                return Exit::Interrupted;
            }
            Handled::Again => {
                let error = kvm_ioctls::Error::new(libc::EAGAIN);
                self.internal_error(format!("KVM_RUN failed: {error}"))
            }
            Handled::TripleFault => GuestEnd::TripleFault { vcpu: self.index },
            Handled::SystemEvent(KVM_SYSTEM_EVENT_SHUTDOWN) => self.guest.switched_off(),
            Handled::SystemEvent(KVM_SYSTEM_EVENT_RESET) => GuestEnd::Reset,
            Handled::SystemEvent(event) => {
                self.internal_error(format!("the guest reported event {event}"))
            }
            Handled::InternalError => {
                let text = failure::describe_internal_error(&mut self.fd);
                self.internal_error(text)
            }
            Handled::Failed(text) => self.internal_error(text),
        };
        if !matches!(
            end,
            GuestEnd::Exited(_) | GuestEnd::PoweredOff | GuestEnd::Reset
        ) {
            self.exits.other += 1;
        }
        self.ports.console.end_line();
        self.guest.end(end);
        Exit::Ended
    }

    /// The exit that `effect` comes to, or the end of the guest.
    fn apply(&mut self, effect: PortEffect) -> Result<Exit, GuestEnd> {
        match effect {
            PortEffect::None => Ok(Exit::Handled),
            PortEffect::Nonsense => {
                self.exits.port_out -= 1;
                self.exits.nonsense += 1;
                Ok(Exit::Handled)
            }
            PortEffect::Doorbell(doorbell) => {
                self.exits.port_out -= 1;
                self.exits.doorbells += 1;
                Ok(Exit::Doorbell(doorbell))
            }
            PortEffect::Exit(code) => Err(GuestEnd::Exited(code)),
            PortEffect::Reset => Err(GuestEnd::Reset),
            PortEffect::PowerOff => Err(self.guest.switched_off()),
        }
    }

    fn internal_error(&self, text: String) -> GuestEnd {
        GuestEnd::InternalError {
            vcpu: self.index,
            text,
        }
    }

    /// Completes a device access that the last [`Vcpu::run`] left half done, without entering the
    /// guest. To be called before registers are read or written after [`Exit::Handled`] or
    /// [`Exit::Doorbell`]: KVM would complete the access over the new registers.
    ///
    /// Clears `immediate_exit`. A kick that comes meanwhile is lost unless the caller checks again for the
    /// reason of the kick.
    pub fn complete_pending(&mut self) {
        for _ in 0..MAX_COMPLETIONS {
            if !self.has_pending_access {
                break;
            }
            self.immediate_exit.set(true);
            // A further part of the same access may come up. The part is handled like any other access, but
            // a doorbell that is only part of one instruction does not count.
            if let Exit::Doorbell(_) = self.run() {
                self.exits.doorbells -= 1;
                self.exits.nonsense += 1;
            }
        }
        self.immediate_exit.set(false);
        if mem::take(&mut self.has_pending_access) {
            let end = self
                .internal_error("an instruction's memory access does not come to an end".into());
            self.guest.end(end);
        }
    }
}

/// Counts and handles `exit` of vCPU `index`.
fn handle(
    exit: VcpuExit<'_>,
    guest: &Guest,
    index: u32,
    ports: &mut VcpuPorts,
    exits: &mut ExitCounts,
) -> Handled {
    match exit {
        VcpuExit::IoOut(port, data) => {
            exits.port_out += 1;
            return Handled::Access(ports::write(guest, index, ports, port, data));
        }
        VcpuExit::IoIn(port, data) => {
            exits.port_in += 1;
            ports::read(guest, index, port, data);
        }
        VcpuExit::MmioRead(address, data) => {
            exits.mmio += 1;
            guest.devices().read(address, data);
        }
        VcpuExit::MmioWrite(address, data) => {
            exits.mmio += 1;
            guest.devices().write(address, data);
        }
        VcpuExit::X86Rdmsr(access) => {
            exits.other += 1;
            read_msr(guest, index, access);
        }
        VcpuExit::X86Wrmsr(access) => {
            exits.other += 1;
            write_msr(guest, index, access);
        }
        other => return handle_without_access(other, exits),
    }
    Handled::Access(PortEffect::None)
}

/// Counts and handles an exit that leaves no access to complete.
fn handle_without_access(exit: VcpuExit<'_>, exits: &mut ExitCounts) -> Handled {
    match exit {
        VcpuExit::Intr => {
            exits.interrupted += 1;
            Handled::Return(Exit::Interrupted)
        }
        VcpuExit::Debug(_) => {
            exits.debug += 1;
            Handled::Return(Exit::Debug)
        }
        VcpuExit::Hlt => {
            exits.halts += 1;
            Handled::Return(Exit::Halted)
        }
        VcpuExit::IrqWindowOpen | VcpuExit::SetTpr | VcpuExit::IoapicEoi(_) => {
            exits.other += 1;
            Handled::Return(Exit::Handled)
        }
        VcpuExit::Shutdown => Handled::TripleFault,
        VcpuExit::SystemEvent(event, _) => Handled::SystemEvent(event),
        VcpuExit::InternalError => Handled::InternalError,
        VcpuExit::FailEntry(reason, cpu) => Handled::Failed(format!(
            "the processor refused to enter the guest (reason {reason:#x}, host CPU {cpu})"
        )),
        VcpuExit::MemoryFault { gpa, .. } => {
            Handled::Failed(format!("KVM cannot map guest memory at {gpa:#x}"))
        }
        other => Handled::Failed(format!("KVM left the guest for {other:?}")),
    }
}

fn handle_error(error: kvm_ioctls::Error, exits: &mut ExitCounts) -> Handled {
    match error.errno() {
        libc::EINTR => {
            exits.interrupted += 1;
            Handled::Return(Exit::Interrupted)
        }
        libc::EAGAIN => Handled::Again,
        _ => Handled::Failed(format!("KVM_RUN failed: {error}")),
    }
}

fn read_msr(guest: &Guest, index: u32, access: ReadMsrExit<'_>) {
    match access.index {
        steal::MSR => *access.data = guest.steal.read_msr(index),
        _ => *access.error = 1,
    }
}

fn write_msr(guest: &Guest, index: u32, access: WriteMsrExit<'_>) {
    let done = access.index == steal::MSR && guest.register_steal_time(index, access.data);
    *access.error = u8::from(!done);
}
