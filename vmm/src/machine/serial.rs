//! The serial port COM1: vm-superio's 16550 on KVM's interrupt line 4.

use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kvm_ioctls::VmFd;
use vm_superio::serial::SerialEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::console::{ConsolePort, LineBuffer};

/// Interrupt line of COM1 on a PC.
pub const IRQ: u32 = 4;

/// Raises the interrupt line through KVM.
#[derive(Debug)]
struct Irq(EventFd);

impl Trigger for Irq {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// Register of the interrupt enables, and the enable for received data.
const IER: u8 = 1;
const IER_RECEIVED: u8 = 1;

/// Tells the input side that the guest has read all there was.
#[derive(Debug)]
struct InputEvents(EventFd);

impl SerialEvents for InputEvents {
    fn buffer_read(&self) {}
    fn out_byte(&self) {}
    fn tx_lost_byte(&self) {}
    fn in_buffer_empty(&self) {
        // Only a counter at its maximum refuses, and then it is readable already.
        let _ = self.0.write(1);
    }
}

type Device = Serial<Irq, InputEvents, LineBuffer>;

/// A guest's serial port.
#[derive(Debug)]
pub struct SerialPort {
    device: Mutex<Device>,
    /// Readable when the guest begins to take input, or has room for more.
    attention: EventFd,
}

impl SerialPort {
    /// A port of `vm` that prints to `console`.
    ///
    /// # Errors
    /// If the host gives no event or KVM does not take it.
    pub fn new(vm: &VmFd, console: ConsolePort) -> io::Result<Self> {
        let irq = EventFd::new(EFD_NONBLOCK)?;
        vm.register_irqfd(&irq, IRQ)?;
        let attention = EventFd::new(EFD_NONBLOCK)?;
        let events = InputEvents(attention.try_clone()?);
        let output = LineBuffer::interactive(console);
        Ok(Self {
            device: Mutex::new(Serial::with_events(Irq(irq), events, output)),
            attention,
        })
    }

    /// A write to `register` (0 to 7); errors concern the interrupt or the output, and the guest
    /// sees neither.
    pub fn write(&self, register: u8, data: &[u8]) {
        let mut device = self.lock();
        for byte in data {
            let _ = device.write(register, *byte);
        }
        if register == IER && takes_input(&device) {
            let _ = self.attention.write(1);
        }
    }

    /// A read of `register` (0 to 7).
    pub fn read(&self, register: u8, data: &mut [u8]) {
        let mut device = self.lock();
        data.iter_mut()
            .for_each(|byte| *byte = device.read(register));
    }

    /// Clears [`SerialPort::as_raw_fd`] and says whether the guest takes input.
    #[must_use]
    pub fn take_attention(&self) -> bool {
        let _ = self.attention.read();
        takes_input(&self.lock())
    }

    /// How many bytes the guest has room for.
    #[must_use]
    pub fn room(&self) -> usize {
        self.lock().fifo_capacity()
    }

    /// Gives the guest as much of `input` as it has room for, and says how much that was.
    pub fn input(&self, input: &[u8]) -> usize {
        self.lock().enqueue_raw_bytes(input).unwrap_or(0)
    }

    fn lock(&self) -> MutexGuard<'_, Device> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The file that is readable when [`SerialPort::take_attention`] has something to say.
impl AsRawFd for SerialPort {
    fn as_raw_fd(&self) -> RawFd {
        self.attention.as_raw_fd()
    }
}

/// A driver that waits for input has its interrupt on; others do not get any, so that a guest
/// without use for it leaves the program's stdin alone.
fn takes_input(device: &Device) -> bool {
    device.state().interrupt_enable & IER_RECEIVED != 0
}
