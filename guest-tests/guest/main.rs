//! The bare-metal guest: locks, hints and workloads that test a hypervisor's vCPU scheduler.
//!
//! A VMM enters it at CPL 0 by the 64-bit Linux boot protocol, so any VMM that can boot a `vmlinux` can
//! boot it. The guest switches to CPL 3 at once and stays there, because KVM without hardware
//! virtualization runs CPL 3 natively and emulates CPL 0 one instruction at a time. What needs CPL 0
//! goes through [`ring0`], a few instructions behind `INT3`.
//!
//! # Modules
//! A module uses only modules of its own line and of the lines above, and never in a circle:
//!
//! | modules | |
//! |---|---|
//! | `abi`, `testdev`, `wait_buckets` | what guest and host share |
//! | `layout`, `vectors`, `mem`, `mmio`, `port`, `ring0`, `random`, `step` | addresses, instructions, words |
//! | `stats`, `cpu`, `preempt_count`, `boot_params`, `console`, `exit`, `fault`, `apic`, `x2apic`, `virtio`, `clock`, `busy`, `config`, `report` | one vCPU, the machine, the command line |
//! | `lock`, `hints`, `preempt`, `idle`, `idt`, `smp`, `barrier` | several vCPUs |
//! | `locks`, `tasks`, `wait_queue`, `mutex`, `condition` | locks and tasks |
//! | `workloads` | what the guest does |
//! | `start`, `entry` | the way from the first instruction to the workload |
#![no_std]
#![no_main]

// The guest needs only a part of what these files define.
#[allow(dead_code)]
#[path = "../../vmm/abi/src/hints.rs"]
mod abi;
mod apic;
mod barrier;
mod boot_params;
mod busy;
mod clock;
mod condition;
mod config;
mod console;
mod cpu;
mod entry;
mod exit;
mod fault;
mod hints;
mod idle;
mod idt;
mod layout;
mod lock;
mod locks;
mod mem;
mod mmio;
mod mutex;
mod port;
mod preempt;
mod preempt_count;
mod random;
mod report;
mod ring0;
mod smp;
mod start;
mod stats;
mod step;
mod tasks;
#[allow(dead_code)]
#[path = "../../vmm/abi/src/testdev.rs"]
mod testdev;
mod vectors;
mod virtio;
#[allow(dead_code)]
#[path = "../../vmm/abi/src/wait_buckets.rs"]
mod wait_buckets;
mod wait_queue;
mod workloads;
mod x2apic;

use core::panic::PanicInfo;

#[panic_handler]
fn panic(info: &PanicInfo) -> ! {
    console::line(format_args!("guest: {info}"));
    exit::end(testdev::EXIT_FAULT)
}

/// The precompiled `core` refers to this symbol; nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
