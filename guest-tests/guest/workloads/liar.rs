//! False hints: random records, random doorbells, pages outside the guest's memory. Neither the host nor
//! its other guests may be affected.

use super::run_length::end_time;
use crate::abi;
use crate::cpu::Cpu;
use crate::random::Random;
use crate::{busy, clock, config, hints, port, smp};

const CHUNK: u64 = 2000;
/// One iteration in so many registers a false page and then the vCPU's own page again.
const REGISTER_EVERY: u64 = 1024;
/// Length of an idle doorbell, so that the vCPU goes on running.
const IDLE_NS: u64 = 200_000;

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    let mut random = Random::new(config::get().seed, cpu.index());
    let end = end_time();
    while clock::now() < end {
        hints::scribble(cpu, || random_word(&mut random));
        ring(cpu, &mut random);
        if random.next().is_multiple_of(REGISTER_EVERY) {
            // A page number that no guest memory has.
            port::out32(abi::PORT_HINT_PAGE, random.next() as u32 | 1 << 31);
            hints::register(cpu);
        }
        busy::spin(CHUNK);
        cpu.stats.iterations.add(1);
    }
}

/// A random word, or small numbers that look like vCPUs, kinds of wait or counts.
fn random_word(random: &mut Random) -> u64 {
    let noise = random.next();
    let vcpus = u64::from(smp::count()) + 1;
    match random.next() % 4 {
        0 => noise,
        1 => (noise % 4) | (((noise >> 8) % vcpus) << 32),
        2 => (noise % vcpus) | (noise >> 40) << 32,
        _ => 0xff | noise << 32,
    }
}

fn ring(cpu: &Cpu, random: &mut Random) {
    let noise = random.next() as u32;
    let reason = random.next() as u32 % 8;
    if reason == abi::DOORBELL_IDLE {
        if !hints::on() {
            // Without a page the doorbell could have no end.
            return;
        }
        hints::idle_until(cpu, clock::now() + clock::from_ns(IDLE_NS));
    }
    hints::ring(reason, noise);
}
