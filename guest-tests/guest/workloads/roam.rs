//! vCPUs 0 and 1 wake vCPU 2 in turn and spin until it has run. Their waits are the time until then.
//!
//! If vCPUs 0 and 1 have a host CPU each, the only free one for vCPU 2 is that of the vCPU that did not
//! wake it, so vCPU 2 runs alternately on both. If both are on one host CPU and vCPU 2 on another, vCPU 2
//! does not migrate.

use core::hint::spin_loop;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use super::run_length::RunLength;
use crate::cpu::Cpu;
use crate::{clock, hints, idle};

/// The vCPU that is woken.
const ROAMER: u32 = 2;
const DONE: u32 = u32::MAX;

/// Which of vCPUs 0 and 1 wakes next, or [`DONE`].
static WAKER: AtomicU32 = AtomicU32::new(0);
/// The round for which vCPU 2 was woken, or [`DONE`], and the last round in which it ran.
static CALLED: AtomicU32 = AtomicU32::new(0);
static RAN: AtomicU32 = AtomicU32::new(0);

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    match cpu.index() {
        ROAMER => roam(cpu),
        0 | 1 => take_turns(cpu),
        _ => {}
    }
}

fn take_turns(cpu: &Cpu) {
    let (own, other) = (cpu.index(), 1 - cpu.index());
    let length = RunLength::from_now();
    loop {
        match WAKER.load(SeqCst) {
            DONE => return,
            waker if waker == other => idle::sleep_while(cpu, || WAKER.load(SeqCst) == other, 0),
            _ if own == 0 && length.is_over(cpu.stats.acquisitions.get()) => {
                for (word, vcpu) in [(&WAKER, other), (&CALLED, ROAMER)] {
                    word.store(DONE, SeqCst);
                    idle::wake(vcpu);
                }
            }
            _ => {
                wait_until_off_cpu(other);
                call(cpu);
                // A wake-up before this would find vCPU 2 on its way into its sleep.
                wait_until_off_cpu(ROAMER);
                WAKER.store(other, SeqCst);
                idle::wake(other);
            }
        }
    }
}

/// Spins until the host reports that this vCPU is off its host CPU.
fn wait_until_off_cpu(vcpu: u32) {
    while hints::running(vcpu) {
        spin_loop();
    }
}

/// Wakes vCPU 2, spins until it has run, and counts the time as a wait.
fn call(cpu: &Cpu) {
    let round = CALLED.load(SeqCst) + 1;
    let start = clock::now();
    CALLED.store(round, SeqCst);
    idle::wake(ROAMER);
    while RAN.load(SeqCst) != round {
        spin_loop();
    }
    let waited = clock::now().saturating_sub(start);
    cpu.stats.acquired(clock::to_ns(waited));
}

fn roam(cpu: &Cpu) {
    loop {
        let ran = RAN.load(SeqCst);
        match CALLED.load(SeqCst) {
            DONE => return,
            called if called == ran => {
                idle::sleep_while(cpu, || CALLED.load(SeqCst) == ran, 0);
            }
            called => RAN.store(called, SeqCst),
        }
    }
}
