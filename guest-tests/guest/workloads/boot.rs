//! Every vCPU prints that it is up, in order.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::cpu::Cpu;
use crate::{console, idle, smp};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// The workload on this vCPU.
pub fn run(cpu: &Cpu) {
    let me = cpu.index();
    idle::wait_while(cpu, || NEXT.load(SeqCst) != me, 0);
    console::line(format_args!("guest: vCPU {me} of {} is up", smp::count()));
    NEXT.store(me + 1, SeqCst);
    if me + 1 < smp::count() {
        idle::wake(me + 1);
    }
}
