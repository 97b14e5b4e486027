//! Drives virtio devices step by step, as the command line says.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::cpu::Cpu;
use crate::step::{BUFFER_LENGTH, SEGMENT, Step};
use crate::virtio::{Device, NEXT, Queue, WRITE};
use crate::{boot_params, clock, config, console, exit, idle, testdev};

/// What the buffer holds where no device has written.
const UNTOUCHED: u8 = 0xa5;
/// How many times the buffer is filled by a read that takes long.
const LONG_READ: u16 = 16;
const PAGE: usize = 4096;
/// How often to look whether a device is done.
const LOOK_NS: u64 = 100_000;
/// A device that has not answered after this long never will.
const PATIENCE_NS: u64 = 60_000_000_000;

const READ: u32 = 0;
const WRITE_OUT: u32 = 1;
const FLUSH: u32 = 4;
const SERIAL: u32 = 8;
const SERIAL_LENGTH: usize = 20;
const DISCARD: u32 = 11;

/// Memory that a device reads and writes.
#[repr(C, align(4096))]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: only vCPU 0 uses it, byte by byte through atomics, and devices do.
unsafe impl<T> Sync for Shared<T> {}

static BUFFER: Shared<[u8; BUFFER_LENGTH]> = Shared(UnsafeCell::new([0; BUFFER_LENGTH]));
static QUEUE: Queue = Queue::new();
static HEADER: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static STATUS: AtomicU8 = AtomicU8::new(0);

pub fn run(cpu: &Cpu) {
    if cpu.index() != 0 {
        return;
    }
    let mut driver = Driver { cpu, device: None };
    for (text, step) in config::steps() {
        driver.carry_out(text, step);
    }
}

struct Driver<'a> {
    cpu: &'a Cpu,
    device: Option<Device>,
}

impl Driver<'_> {
    fn carry_out(&mut self, text: &str, step: Step) {
        match step {
            Step::Device(slot) => {
                self.device = Device::in_slot(slot);
                let kind = self.device.as_ref().map_or(0, Device::kind);
                console::line(format_args!("{text}: kind {kind}"));
            }
            Step::Start(features) => {
                let device = self.device();
                let offered = device.features();
                QUEUE.clear();
                device.start_with(&QUEUE, offered & features);
                console::line(format_args!(
                    "{text}: offered {offered:#x} status {}",
                    device.status()
                ));
            }
            Step::Read { sector, bytes } => {
                fill(UNTOUCHED);
                let status = self.request(READ, sector, bytes, WRITE);
                let (first, last) = (byte(0).load(Relaxed), byte(bytes.max(1) - 1).load(Relaxed));
                console::line(format_args!(
                    "{text}: status {status} written {} first {first:#x} last {last:#x}",
                    QUEUE.written()
                ));
            }
            Step::Write {
                sector,
                bytes,
                value,
            } => {
                fill(value);
                let status = self.request(WRITE_OUT, sector, bytes, 0);
                console::line(format_args!("{text}: status {status}"));
            }
            Step::Flush => {
                let status = self.request(FLUSH, 0, 0, 0);
                console::line(format_args!("{text}: status {status}"));
            }
            Step::Serial => {
                fill(0);
                let status = self.request(SERIAL, 0, SERIAL_LENGTH, WRITE);
                let mut serial = [0; SERIAL_LENGTH];
                for (at, to) in serial.iter_mut().enumerate() {
                    *to = byte(at).load(Relaxed);
                }
                let serial = str::from_utf8(&serial).unwrap_or("?");
                console::line(format_args!(
                    "{text}: status {status} \"{}\"",
                    serial.trim_end_matches('\0')
                ));
            }
            Step::Discard {
                sector,
                sectors,
                segments,
            } => {
                for segment in 0..segments {
                    let from = sector + segment as u64 * u64::from(sectors);
                    let count = u64::from(sectors).to_le_bytes();
                    let bytes = from.to_le_bytes().into_iter().chain(count);
                    for (at, value) in (segment * SEGMENT..).zip(bytes) {
                        byte(at).store(value, Relaxed);
                    }
                }
                let status = self.request(DISCARD, 0, segments * SEGMENT, 0);
                console::line(format_args!("{text}: status {status}"));
            }
            Step::RestartQueue => {
                let device = self.device();
                device.stop_queue();
                self.wait(|| !device.is_queue_ready());
                QUEUE.clear();
                device.set_queue(&QUEUE);
                console::line(format_args!("{text}: ready {}", device.is_queue_ready()));
            }
            Step::Register(offset) => {
                let value = self.device().read(offset);
                console::line(format_args!("{text}: {value:#x}"));
            }
            Step::ResetAtWork { rounds } => {
                let touched = (0..rounds)
                    .filter(|_| self.is_touched_after_reset())
                    .count();
                console::line(format_args!("{text}: touched {touched} times"));
            }
            Step::RamDisk => {
                let bytes = boot_params::ram_disk();
                let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
                console::line(format_args!("{text}: {} bytes, sum {sum}", bytes.len()));
            }
        }
    }

    fn device(&self) -> &Device {
        self.device.as_ref().unwrap_or_else(|| {
            console::line(format_args!("guest: there is no such device"));
            exit::end(testdev::EXIT_USAGE)
        })
    }

    /// Waits until `done` holds.
    fn wait(&self, done: impl Fn() -> bool) {
        let end = clock::now() + clock::from_ns(PATIENCE_NS);
        while !done() {
            if clock::now() > end {
                console::line(format_args!("guest: the device does not answer"));
                exit::end(testdev::EXIT_CHECK_FAILED);
            }
            let until = clock::now() + clock::from_ns(LOOK_NS);
            idle::sleep_while(self.cpu, || !done(), until);
        }
    }

    /// Offers a request of a disk whose data is so many times the first `bytes` of the buffer.
    fn offer(&self, kind: u32, sector: u64, bytes: usize, flags: u16, times: u16) {
        HEADER[0].store(kind.into(), Relaxed);
        HEADER[1].store(sector, Relaxed);
        STATUS.store(0xff, Relaxed);
        let header = (&raw const HEADER) as u64;
        let length = size_of_val(&HEADER) as u32;
        let times = if bytes == 0 { 0 } else { times };
        QUEUE.describe(0, header, length, NEXT, 1);
        for at in 1..=times {
            let data = BUFFER.0.get() as u64;
            QUEUE.describe(at, data, bytes as u32, NEXT | flags, at + 1);
        }
        QUEUE.describe(times + 1, (&raw const STATUS) as u64, 1, WRITE, 0);
        QUEUE.offer(0);
        self.device().notify();
    }

    /// The status of a request that the disk has carried out.
    fn request(&self, kind: u32, sector: u64, bytes: usize, flags: u16) -> u8 {
        self.offer(kind, sector, bytes, flags, 1);
        self.wait(|| QUEUE.is_done());
        STATUS.load(Relaxed)
    }

    /// Resets the disk when the first bytes of a long read are there, and takes the read's memory for
    /// something else when the disk has said that the reset is complete. Whether that is overwritten by
    /// the time at which the disk has carried out another request.
    fn is_touched_after_reset(&self) -> bool {
        let device = self.device();
        let marks = || (0..BUFFER_LENGTH).step_by(PAGE).map(byte);
        marks().for_each(|mark| mark.store(UNTOUCHED, Relaxed));
        QUEUE.clear();
        device.start(&QUEUE);
        self.offer(READ, 0, BUFFER_LENGTH, WRITE, LONG_READ);
        let end = clock::now() + clock::from_ns(PATIENCE_NS);
        while byte(0).load(Relaxed) == UNTOUCHED && clock::now() < end {
            spin_loop();
        }
        device.reset();
        self.wait(|| device.status() == 0);
        marks().for_each(|mark| mark.store(UNTOUCHED, Relaxed));
        QUEUE.clear();
        device.start(&QUEUE);
        self.request(FLUSH, 0, 0, 0);
        marks().any(|mark| mark.load(Relaxed) != UNTOUCHED)
    }
}

/// A byte of the buffer.
fn byte(at: usize) -> &'static AtomicU8 {
    let at = at.min(BUFFER_LENGTH - 1);
    // SAFETY: inside the buffer, which has no other references.
    unsafe { AtomicU8::from_ptr(BUFFER.0.get().cast::<u8>().add(at)) }
}

fn fill(value: u8) {
    (0..BUFFER_LENGTH).for_each(|at| byte(at).store(value, Relaxed));
}
