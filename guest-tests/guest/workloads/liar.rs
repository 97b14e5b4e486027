//! Says anything at all to the host: random hints, random doorbells, pages outside its memory. The
//! host must not care, and its other guests must not notice.

use super::run_length::end_time;
use crate::abi;
use crate::cpu::Cpu;
use crate::random::Random;
use crate::{busy, clock, config, hints, port, smp};

const CHUNK: u64 = 2000;
/// Every so many turns it registers nonsense and then its own page again.
const REGISTER_EVERY: u64 = 1024;
/// It still wants to run: an idle doorbell is for this long.
const NAP_NS: u64 = 200_000;

pub fn run(cpu: &Cpu) {
    let mut random = Random::new(config::get().seed, cpu.index());
    let end = end_time();
    while clock::now() < end {
        hints::scribble(cpu, || lie(&mut random));
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

/// Sometimes noise, sometimes small numbers that look like vCPUs, kinds of wait or counts.
fn lie(random: &mut Random) -> u64 {
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
            // Without a page there is no way to say until when.
            return;
        }
        hints::idle_until(cpu, clock::now() + clock::from_ns(NAP_NS));
    }
    hints::ring(reason, noise);
}
