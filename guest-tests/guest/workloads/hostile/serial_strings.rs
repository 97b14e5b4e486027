//! String instructions at the serial port: many bytes in one exit, and an interrupt of the port for each
//! byte. vCPUs with even indices read, the others write.

use core::cell::UnsafeCell;

use crate::console::PORT_SERIAL;
use crate::cpu::{Cpu, MAX_CPUS};
use crate::workloads::run_length::end_time;
use crate::{clock, port};

const LENGTH: usize = 4096;
const INTERRUPT_ENABLE: u16 = PORT_SERIAL + 1;
const ALL: u8 = 0x0f;

/// The bytes that a vCPU reads.
struct Read(UnsafeCell<[u8; LENGTH]>);

// SAFETY: each is used by its own vCPU alone.
unsafe impl Sync for Read {}

static READ: [Read; MAX_CPUS] = [const { Read(UnsafeCell::new([0; LENGTH])) }; MAX_CPUS];
static WRITTEN: [u8; LENGTH] = lines();

/// Lines of 63 characters.
const fn lines() -> [u8; LENGTH] {
    let mut text = [b'.'; LENGTH];
    let mut at = 63;
    while at < LENGTH {
        text[at] = b'\n';
        at += 64;
    }
    text
}

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    let end = end_time();
    // SAFETY: the buffer is this vCPU's, and `run` is called once.
    let read = unsafe { &mut *READ[cpu.index() as usize].0.get() };
    port::out8(INTERRUPT_ENABLE, ALL);
    while clock::now() < end {
        if cpu.index().is_multiple_of(2) {
            port::in_bytes(PORT_SERIAL, read);
        } else {
            port::out_bytes(PORT_SERIAL, &WRITTEN);
        }
        cpu.stats.iterations.add(1);
    }
    port::out8(INTERRUPT_ENABLE, 0);
}
