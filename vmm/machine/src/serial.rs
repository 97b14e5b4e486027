//! The serial port COM1: vm-superio's 16550 on KVM's interrupt line 4.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvm_ioctls::VmFd;
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::console::{ConsolePort, LineBuffer};

/// First port of COM1 on a PC.
pub const FIRST_PORT: u16 = 0x3f8;
/// Last port of COM1.
pub const LAST_PORT: u16 = FIRST_PORT + 7;
/// Interrupt line of COM1 on a PC.
pub const IRQ: u32 = 4;

/// Raises the interrupt line through KVM, once for each access of the guest. A string instruction
/// transfers up to 1024 bytes in one access, and a system call for each byte would use the host CPU far
/// beyond the end of the vCPU's budget.
#[derive(Debug)]
struct Irq {
    line: EventFd,
    /// Whether the device has triggered since the line was raised last.
    triggered: Cell<bool>,
}

impl Irq {
    /// Raises the line if the device has triggered since the last time.
    fn deliver(&self) {
        if self.triggered.take() {
            // Only a counter at its maximum refuses, and KVM resets the counter.
            let _ = self.line.write(1);
        }
    }
}

impl Trigger for Irq {
    type E = Infallible;

    fn trigger(&self) -> Result<(), Infallible> {
        self.triggered.set(true);
        Ok(())
    }
}

/// The register that enables interrupts, and its bit for received data.
const IER: u8 = 1;
const IER_RECEIVED: u8 = 1;

type Device = Serial<Irq, NoEvents, LineBuffer>;

/// Room of a port without input for the guest, bytes.
const ROOM: usize = 64;

/// A guest's serial port.
#[derive(Debug)]
pub struct SerialPort {
    device: Mutex<Device>,
    /// Readable when the guest begins to accept input, or has room for more.
    attention: EventFd,
}

impl SerialPort {
    /// A port of `vm` that prints to `console`.
    ///
    /// # Errors
    /// If the host refuses an event, or KVM refuses to use it.
    pub fn new(vm: &VmFd, console: ConsolePort) -> io::Result<Self> {
        let line = EventFd::new(EFD_NONBLOCK)?;
        vm.register_irqfd(&line, IRQ)?;
        Self::on(line, console)
    }

    /// A port that raises its interrupt by `line`.
    fn on(line: EventFd, console: ConsolePort) -> io::Result<Self> {
        let irq = Irq {
            line,
            triggered: Cell::new(false),
        };
        let output = LineBuffer::interactive(console);
        Ok(Self {
            device: Mutex::new(Serial::new(irq, output)),
            attention: EventFd::new(EFD_NONBLOCK)?,
        })
    }

    /// Carries out a write to `register` (0 to 7). Errors concern the interrupt or the output, and the guest
    /// sees neither.
    pub fn write(&self, register: u8, data: &[u8]) {
        let mut device = self.lock();
        for byte in data {
            let _ = device.write(register, *byte);
        }
        device.interrupt_evt().deliver();
        if register == IER && takes_input(&device) {
            // Only a counter at its maximum refuses, and such a counter is readable already.
            let _ = self.attention.write(1);
        }
    }

    /// Carries out a read of `register` (0 to 7).
    pub fn read(&self, register: u8, data: &mut [u8]) {
        let mut device = self.lock();
        let before = device.fifo_capacity();
        data.iter_mut()
            .for_each(|byte| *byte = device.read(register));
        device.interrupt_evt().deliver();
        // The guest has read all input. A read without input changes nothing.
        if before < ROOM && device.fifo_capacity() == ROOM {
            let _ = self.attention.write(1);
        }
    }

    /// Clears [`SerialPort::as_raw_fd`] and returns whether the guest accepts input.
    #[must_use]
    pub fn take_attention(&self) -> bool {
        let _ = self.attention.read();
        takes_input(&self.lock())
    }

    /// The number of bytes for which the guest has room.
    #[must_use]
    pub fn room(&self) -> usize {
        self.lock().fifo_capacity()
    }

    /// A copy of the file that is readable when the guest may have room for more input.
    ///
    /// # Errors
    /// If this process has no file left.
    pub fn attention(&self) -> io::Result<EventFd> {
        self.attention.try_clone()
    }

    /// [`SerialPort::room`], or none as long as the guest does not accept input.
    #[must_use]
    pub fn accepted_room(&self) -> usize {
        let device = self.lock();
        match takes_input(&device) {
            true => device.fifo_capacity(),
            false => 0,
        }
    }

    /// Gives the guest as much of `input` as there is room for, and returns the number of bytes.
    pub fn input(&self, input: &[u8]) -> usize {
        let mut device = self.lock();
        let taken = device.enqueue_raw_bytes(input).unwrap_or(0);
        device.interrupt_evt().deliver();
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file that is readable when [`SerialPort::take_attention`] is to be called.
impl AsRawFd for SerialPort {
    fn as_raw_fd(&self) -> RawFd {
        self.attention.as_raw_fd()
    }
}

/// A driver that waits for input has its interrupt enabled. Only such a driver gets input, so that a guest
/// without use for input leaves the program's stdin alone.
fn takes_input(device: &Device) -> bool {
    device.state().interrupt_enable & IER_RECEIVED != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    const DATA: u8 = 0;
    const IER_ALL: u8 = 3;
    const IIR: u8 = 2;

    /// A port, and a function that returns how often the port's interrupt was raised since its last call.
    fn port() -> (SerialPort, impl Fn() -> u64) {
        let line = EventFd::new(EFD_NONBLOCK).expect("an event");
        let seen = line.try_clone().expect("the same event");
        let port = SerialPort::on(line, ConsolePort::discard()).expect("a port");
        // A counter that was not raised has nothing to read.
        (port, move || seen.read().unwrap_or(0))
    }

    #[test]
    fn an_access_raises_the_interrupt_once_at_most() {
        let (port, raised) = port();
        assert_eq!((port.input(&[7]), raised()), (1, 0), "the interrupt is off");
        // The device triggers for the input, and for the room that it has.
        port.write(IER, &[IER_ALL; 1024]);
        assert_eq!(raised(), 1);
        port.read(IIR, &mut [0; 1024]);
        port.write(DATA, &[b'x'; 1024]);
        assert_eq!(raised(), 1);
        port.write(DATA, b"x");
        assert_eq!(raised(), 0, "the guest has not read the cause since");
    }

    #[test]
    fn a_guest_that_reads_gets_attention_once_when_it_has_read_all() {
        let (port, raised) = port();
        port.write(IER, &[IER_RECEIVED]);
        raised();
        assert!(port.take_attention());
        let events = || port.attention.read().unwrap_or(0);
        port.read(DATA, &mut [0; 1024]);
        assert_eq!(events(), 0, "there was nothing to read");
        assert_eq!(port.input(&[7; 100]), ROOM);
        assert_eq!(raised(), 1);
        port.read(DATA, &mut [0; ROOM - 1]);
        assert_eq!(events(), 0, "there is one left");
        let mut rest = [0; 1024];
        port.read(DATA, &mut rest);
        assert_eq!((rest[0], rest[1], events()), (7, 0, 1));
        assert_eq!(port.room(), ROOM);
    }
}
