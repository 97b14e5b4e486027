//! The first Rust code of each vCPU, at CPL 3 on its own stack.

use crate::cpu::Cpu;
use crate::{busy, clock, config, idt, smp, workloads};

/// Start of vCPU 0.
pub extern "C" fn boot_main() -> ! {
    idt::fill();
    let cpu = Cpu::current();
    config::init();
    clock::init(config::get().tsc_khz);
    smp::init_this(cpu, 0);
    busy::calibrate();
    smp::start_others(cpu);
    workloads::run(cpu)
}

/// Start of every other vCPU.
pub extern "C" fn ap_main() -> ! {
    let cpu = Cpu::current();
    smp::init_this(cpu, smp::starting());
    smp::report_online(cpu);
    workloads::run(cpu)
}
