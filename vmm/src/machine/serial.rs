//! The serial port COM1: vm-superio's 16550 on KVM's interrupt line 4.

use std::io;
use std::sync::{Mutex, PoisonError};

use kvm_ioctls::VmFd;
use vm_superio::serial::NoEvents;
use vm_superio::{Serial, Trigger};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use super::console::{ConsolePort, LineBuffer};

/// Interrupt line of COM1 on a PC.
const IRQ: u32 = 4;

/// Raises the interrupt line through KVM.
#[derive(Debug)]
struct Irq(EventFd);

impl Trigger for Irq {
    type E = io::Error;

    fn trigger(&self) -> io::Result<()> {
        self.0.write(1)
    }
}

/// A guest's serial port.
#[derive(Debug)]
pub struct SerialPort {
    device: Mutex<Serial<Irq, NoEvents, LineBuffer>>,
}

impl SerialPort {
    /// A port of `vm` that prints to `console`.
    ///
    /// # Errors
    /// If the host gives no event or KVM does not take it.
    pub fn new(vm: &VmFd, console: ConsolePort) -> io::Result<Self> {
        let irq = EventFd::new(EFD_NONBLOCK)?;
        vm.register_irqfd(&irq, IRQ)?;
        Ok(Self {
            device: Mutex::new(Serial::new(Irq(irq), LineBuffer::interactive(console))),
        })
    }

    /// A write to `register` (0 to 7); errors concern the interrupt or the output, and the guest
    /// sees neither.
    pub fn write(&self, register: u8, data: &[u8]) {
        let mut device = self.lock();
        for byte in data {
            let _ = device.write(register, *byte);
        }
    }

    /// A read of `register` (0 to 7).
    pub fn read(&self, register: u8, data: &mut [u8]) {
        let mut device = self.lock();
        data.iter_mut()
            .for_each(|byte| *byte = device.read(register));
    }

    /// Gives the guest as much of `input` as it has room for, and says how much that was.
    pub fn input(&self, input: &[u8]) -> usize {
        self.lock().enqueue_raw_bytes(input).unwrap_or(0)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Serial<Irq, NoEvents, LineBuffer>> {
        self.device.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
