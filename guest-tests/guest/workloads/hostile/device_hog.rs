//! Each vCPU keeps the virtio device in the slot of its index busy, with as many and as long requests as
//! the queue can hold. Disks must have at least 16 MiB.

use core::cell::UnsafeCell;
use core::sync::atomic::AtomicU64;

use super::idle_until::idle_until;
use crate::cpu::Cpu;
use crate::virtio::{self, BLOCK, Device, ENTRIES, MAX_DEVICES, NEXT, Queue, WRITE};
use crate::workloads::run_length::end_time;
use crate::{clock, config, idle};

const BUFFER_LENGTH: u32 = 1 << 20;
/// Descriptors of a read: a header, 16 times the buffer, a status.
const READ_CHAIN: u16 = 18;

static QUEUES: [Queue; MAX_DEVICES] = [const { Queue::new() }; MAX_DEVICES];
/// The header of a disk's request: a read from sector 0.
static READ: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// Memory to which all devices write and which is never read.
#[repr(C, align(4096))]
struct Sink(UnsafeCell<[u8; BUFFER_LENGTH as usize]>);

// SAFETY: only its address is used.
unsafe impl Sync for Sink {}

static SINK: Sink = Sink(UnsafeCell::new([0; BUFFER_LENGTH as usize]));

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    let end = end_time();
    match Device::in_slot(cpu.index()) {
        Some(device) => keep_busy(cpu, &device, end),
        None => idle_until(cpu, end),
    }
}

fn keep_busy(cpu: &Cpu, device: &Device, end: u64) {
    let queue = &QUEUES[cpu.index() as usize];
    let (requests, length) = match device.kind() {
        BLOCK => (describe_reads(queue), READ_CHAIN),
        _ => (describe_buffers(queue), 1),
    };
    let poll_interval = clock::from_ns(config::get().period);
    device.start(queue);
    while clock::now() < end {
        for request in 0..requests {
            queue.offer(request * length);
        }
        device.notify();
        while !queue.is_done() && clock::now() < end {
            let until = clock::now().saturating_add(poll_interval).min(end);
            idle::sleep_while(cpu, || !queue.is_done(), until);
        }
        cpu.stats.iterations.add(requests.into());
    }
    device.reset();
}

/// Describes reads of 16 MiB. Returns how many.
fn describe_reads(queue: &Queue) -> u16 {
    let requests = ENTRIES / READ_CHAIN;
    let sink = SINK.0.get() as u64;
    for head in (0..requests).map(|request| request * READ_CHAIN) {
        let status = head + READ_CHAIN - 1;
        let header = (&raw const READ) as u64;
        queue.describe(head, header, size_of_val(&READ) as u32, NEXT, head + 1);
        for at in head + 1..status {
            queue.describe(at, sink, BUFFER_LENGTH, NEXT | WRITE, at + 1);
        }
        queue.describe(status, sink, 1, WRITE, 0);
    }
    requests
}

/// Describes buffers that the device fills. Returns how many.
fn describe_buffers(queue: &Queue) -> u16 {
    for at in 0..virtio::ENTRIES {
        queue.describe(at, SINK.0.get() as u64, BUFFER_LENGTH, WRITE, 0);
    }
    virtio::ENTRIES
}
