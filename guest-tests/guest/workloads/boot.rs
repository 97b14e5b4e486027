//! Every vCPU says that it is there, in order.

use core::sync::atomic::{AtomicU32, Ordering::SeqCst};

use crate::cpu::Cpu;
use crate::{console, idle, smp};

static TURN: AtomicU32 = AtomicU32::new(0);

pub fn run(cpu: &Cpu) {
    let me = cpu.index();
    idle::wait_while(cpu, || TURN.load(SeqCst) != me, 0);
    console::line(format_args!("guest: vCPU {me} of {} is up", smp::count()));
    TURN.store(me + 1, SeqCst);
    if me + 1 < smp::count() {
        idle::wake(me + 1);
    }
}
