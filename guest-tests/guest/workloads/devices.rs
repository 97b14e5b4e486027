//! Drives virtio devices by the steps of the command line.

use core::cell::UnsafeCell;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

use crate::cpu::Cpu;
use crate::step::{BUFFER_LENGTH, SEGMENT, Step};
use crate::virtio::{Device, NEXT, Queue, WRITE};
use crate::{boot_params, clock, config, console, exit, idle, testdev};

/// The value of bytes of the buffer that no device has written.
const UNTOUCHED: u8 = 0xa5;
/// How many times a long read fills the buffer.
const LONG_READ: u16 = 16;
const PAGE: usize = 4096;
/// Interval between two checks whether a device is done.
const POLL_INTERVAL_NS: u64 = 100_000;
/// The guest ends if a device has not answered after this time.
const TIMEOUT_NS: u64 = 60_000_000_000;

const READ: u32 = 0;
const WRITE_OUT: u32 = 1;
const FLUSH: u32 = 4;
const SERIAL: u32 = 8;
const SERIAL_LENGTH: usize = 20;
const DISCARD: u32 = 11;

/// Memory that a device reads and writes.
#[repr(C, align(4096))]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: only vCPU 0, byte by byte through atomics, and devices access it.
unsafe impl<T> Sync for Shared<T> {}

static BUFFER: Shared<[u8; BUFFER_LENGTH]> = Shared(UnsafeCell::new([0; BUFFER_LENGTH]));
static QUEUE: Queue = Queue::new();
static HEADER: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
static STATUS: AtomicU8 = AtomicU8::new(0);

/// The workload on this vCPU.
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
    /// Carries out a step and prints its result after the step's text.
    fn carry_out(&mut self, text: &str, step: Step) {
        match step {
            Step::Device(slot) => self.select(text, slot),
            Step::Start(features) => self.start(text, features),
            Step::Read { sector, bytes } => self.read(text, sector, bytes),
            Step::Write {
                sector,
                bytes,
                value,
            } => {
                fill(value);
                self.print_status(text, WRITE_OUT, sector, bytes);
            }
            Step::Flush => self.print_status(text, FLUSH, 0, 0),
            Step::Serial => self.read_serial(text),
            Step::Discard {
                sector,
                sectors,
                segments,
            } => {
                write_segments(sector, sectors, segments);
                self.print_status(text, DISCARD, 0, segments * SEGMENT);
            }
            Step::RestartQueue => self.restart_queue(text),
            Step::Register(offset) => {
                let value = self.device().read(offset);
                console::line(format_args!("{text}: {value:#x}"));
            }
            Step::ResetAtWork { rounds } => {
                let resets = (0..rounds).filter(|_| self.is_touched_after_reset());
                let touched = resets.count();
                console::line(format_args!("{text}: touched {touched} times"));
            }
            Step::RamDisk => {
                let bytes = boot_params::ram_disk();
                let sum: u64 = bytes.iter().map(|byte| u64::from(*byte)).sum();
                console::line(format_args!("{text}: {} bytes, sum {sum}", bytes.len()));
            }
        }
    }

    fn select(&mut self, text: &str, slot: u32) {
        self.device = Device::in_slot(slot);
        let kind = self.device.as_ref().map_or(0, Device::kind);
        console::line(format_args!("{text}: kind {kind}"));
    }

    fn start(&self, text: &str, features: u32) {
        let device = self.device();
        let offered = device.features();
        QUEUE.clear();
        device.start_with(&QUEUE, offered & features);
        let status = device.status();
        console::line(format_args!("{text}: offered {offered:#x} status {status}"));
    }

    fn read(&self, text: &str, sector: u64, bytes: usize) {
        fill(UNTOUCHED);
        let status = self.request(READ, sector, bytes, WRITE);
        let (first, last) = (byte(0).load(Relaxed), byte(bytes.max(1) - 1).load(Relaxed));
        console::line(format_args!(
            "{text}: status {status} written {} first {first:#x} last {last:#x}",
            QUEUE.written()
        ));
    }

    fn read_serial(&self, text: &str) {
        fill(0);
        let status = self.request(SERIAL, 0, SERIAL_LENGTH, WRITE);
        let mut serial = [0; SERIAL_LENGTH];
        for (at, to) in serial.iter_mut().enumerate() {
            *to = byte(at).load(Relaxed);
        }
        let serial = str::from_utf8(&serial).unwrap_or("?");
        let serial = serial.trim_end_matches('\0');
        console::line(format_args!("{text}: status {status} \"{serial}\""));
    }

    fn restart_queue(&self, text: &str) {
        let device = self.device();
        device.stop_queue();
        self.wait(|| !device.is_queue_ready());
        QUEUE.clear();
        device.set_queue(&QUEUE);
        console::line(format_args!("{text}: ready {}", device.is_queue_ready()));
    }

    /// Carries out a request whose data the disk only reads.
    fn print_status(&self, text: &str, kind: u32, sector: u64, bytes: usize) {
        let status = self.request(kind, sector, bytes, 0);
        console::line(format_args!("{text}: status {status}"));
    }

    fn device(&self) -> &Device {
        self.device.as_ref().unwrap_or_else(|| {
            console::line(format_args!("guest: there is no such device"));
            exit::end(testdev::EXIT_USAGE)
        })
    }

    /// Waits until `done` holds.
    fn wait(&self, done: impl Fn() -> bool) {
        let end = clock::now() + clock::from_ns(TIMEOUT_NS);
        while !done() {
            if clock::now() > end {
                console::line(format_args!("guest: the device does not answer"));
                exit::end(testdev::EXIT_CHECK_FAILED);
            }
            let until = clock::now() + clock::from_ns(POLL_INTERVAL_NS);
            idle::sleep_while(self.cpu, || !done(), until);
        }
    }

    /// Offers a request to a disk. Its data is the first `bytes` of the buffer, `times` times over.
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

    /// Offers a request, waits for the disk to complete it, and returns its status.
    fn request(&self, kind: u32, sector: u64, bytes: usize, flags: u16) -> u8 {
        self.offer(kind, sector, bytes, flags, 1);
        self.wait(|| QUEUE.is_done());
        STATUS.load(Relaxed)
    }

    /// Resets the disk when the first bytes of a long read have arrived, and overwrites the read's memory
    /// once the disk reports that the reset is complete. Returns whether the disk has written to that
    /// memory again by the time at which it has completed another request.
    fn is_touched_after_reset(&self) -> bool {
        let device = self.device();
        let marks = || (0..BUFFER_LENGTH).step_by(PAGE).map(byte);
        marks().for_each(|mark| mark.store(UNTOUCHED, Relaxed));
        QUEUE.clear();
        device.start(&QUEUE);
        self.offer(READ, 0, BUFFER_LENGTH, WRITE, LONG_READ);
        let end = clock::now() + clock::from_ns(TIMEOUT_NS);
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

/// Describes consecutive segments of a discard in the buffer.
fn write_segments(sector: u64, sectors: u32, segments: usize) {
    let sectors = u64::from(sectors);
    for segment in 0..segments {
        let from = sector + segment as u64 * sectors;
        let bytes = from.to_le_bytes().into_iter().chain(sectors.to_le_bytes());
        for (at, value) in (segment * SEGMENT..).zip(bytes) {
            byte(at).store(value, Relaxed);
        }
    }
}

/// Fills the buffer.
fn fill(value: u8) {
    (0..BUFFER_LENGTH).for_each(|at| byte(at).store(value, Relaxed));
}
