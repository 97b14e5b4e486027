//! What the guest does, one file for each workload.

mod boot;
mod carry;
mod chain;
mod configured_lock;
mod counter;
mod crash;
mod deadlock;
mod devices;
mod halt;
mod hog;
mod hostile;
mod liar;
mod lock;
mod pingpong;
mod preempt;
mod queue;
mod roam;
mod run_length;
mod sleep;
mod stopped;
mod storm;
mod totals;

use crate::barrier::Barrier;
use crate::config::{self, Attack, Config, Workload};
use crate::cpu::Cpu;
use crate::testdev::{EXIT_CHECK_FAILED, EXIT_OK, EXIT_USAGE};
use crate::{clock, console, exit, idle, report, smp};

static START: Barrier = Barrier::new();
static END: Barrier = Barrier::new();

/// Runs the configured workload on this vCPU, together with all others. vCPU 0 then ends the guest.
pub fn run(cpu: &'static Cpu) -> ! {
    let config = config::get();
    check_cpus(cpu, config);
    START.wait(cpu);
    let start = clock::now();
    match config.workload {
        Workload::Lock => lock::run(cpu),
        Workload::ThrottledHolder => lock::run_throttled_holder(cpu),
        Workload::Chain => chain::run(cpu),
        Workload::Deadlock => deadlock::run(cpu),
        Workload::Devices => devices::run(cpu),
        Workload::Queue => queue::run(cpu),
        Workload::Hog => hog::run(cpu),
        Workload::PingPong => pingpong::run(cpu),
        Workload::Preempt => preempt::run(cpu),
        Workload::Roam => roam::run(cpu),
        Workload::Carry => carry::run(cpu),
        Workload::Halt => halt::run(cpu),
        Workload::Idle => sleep::run(cpu),
        Workload::Liar => liar::run(cpu),
        Workload::Stopped => stopped::run(cpu),
        Workload::Boot => boot::run(cpu),
        Workload::TripleFault => crash::triple_fault(),
        Workload::Fault => crash::page_fault(),
        Workload::DoorbellStorm => storm::run(cpu),
        Workload::Hostile(attack) => hostile::run(cpu, attack),
    }
    cpu.stats.elapsed_ns.set(clock::to_ns(clock::now() - start));
    report::results(cpu);
    END.wait(cpu);
    if cpu.index() == 0 {
        finish(config.workload);
    }
    loop {
        idle::sleep_while(cpu, || true, 0);
    }
}

fn check_cpus(cpu: &Cpu, config: &Config) {
    let needed = match config.workload {
        Workload::Chain | Workload::Roam => 3,
        Workload::PingPong
        | Workload::Carry
        | Workload::ThrottledHolder
        | Workload::Deadlock
        | Workload::Queue
        | Workload::Hostile(Attack::IpiStorm | Attack::WakeStorm) => 2,
        _ => 1,
    };
    if smp::count() < needed && cpu.index() == 0 {
        console::line(format_args!(
            "guest: this workload needs {needed} vCPUs, the guest has {}",
            smp::count()
        ));
        exit::end(EXIT_USAGE);
    }
}

/// Checks and prints the results when all vCPUs have finished, and ends the guest.
fn finish(workload: Workload) -> ! {
    let good = match workload {
        Workload::Lock => lock::finish(),
        Workload::ThrottledHolder => lock::finish() & lock::print_waits(),
        Workload::Chain => chain::finish() & lock::print_waits(),
        Workload::Carry | Workload::Roam => lock::print_waits(),
        Workload::Queue => queue::finish(),
        Workload::Preempt => preempt::finish(),
        Workload::Halt => halt::finish(),
        Workload::Stopped => stopped::finish(),
        Workload::PingPong
        | Workload::Hog
        | Workload::Liar
        | Workload::DoorbellStorm
        | Workload::Hostile(_) => {
            let iterations = totals::sum(|stats| &stats.iterations);
            console::line(format_args!("guest: {iterations} iterations"));
            true
        }
        _ => true,
    };
    exit::end(if good { EXIT_OK } else { EXIT_CHECK_FAILED })
}
