//! Proxy execution in five calls: a vCPU with a small reservation holds a lock and is throttled, and a
//! vCPU with a large one waits for the lock.
//!
//!     cargo run -p vcpu-sched --example inversion

use vcpu_sched::{
    Config, CpuId, CpuTime, Hints, Reservation, SchedParams, Scheduler, StopReason, VcpuId, Wait,
    WaitKind,
};

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
const CPU: CpuId = CpuId(0);
const LOCK: u64 = 0x1000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut pool = Scheduler::new(Config::new(1));
    let guest = pool.add_guest();
    let small = SchedParams::Reserved(Reservation::hard(MS, 100 * MS)?);
    let large = SchedParams::Reserved(Reservation::hard(5 * MS, 10 * MS)?);
    let holder = pool.add_vcpu(guest, small, None)?;
    let waiter = pool.add_vcpu(guest, large, None)?;

    pool.wake(holder, 0);
    show(0, pool.pick(CPU, 0));
    println!("          it takes the lock, uses up its millisecond, and is throttled for 99 ms");
    let holding = Hints {
        depth: 1,
        ..Hints::default()
    };
    pool.stop(CPU, StopReason::Preempted, holding, CpuTime(MS), MS);

    pool.wake(waiter, MS);
    show(MS, pool.pick(CPU, MS));
    println!("          it finds the lock taken, publishes for which vCPU it waits, and rings");
    let waiting = spins_on(holder);
    pool.stop(CPU, StopReason::Rang, waiting, CpuTime(US), MS + US);

    show(MS + US, pool.pick(CPU, MS + US));
    println!("          the waiter's budget carries the holder, which releases the lock and rings");
    pool.release(CPU, None, MS + 301 * US);
    let released = Hints {
        releases: 1,
        ..Hints::default()
    };
    pool.stop(
        CPU,
        StopReason::Rang,
        released,
        CpuTime(300 * US),
        MS + 301 * US,
    );

    show(MS + 301 * US, pool.pick(CPU, MS + 301 * US));
    println!();
    for (name, vcpu) in [("holder", holder), ("waiter", waiter)] {
        let counters = pool.counters(vcpu);
        let (ran, charged) = (counters.runtime_ns / US, counters.charged_ns / US);
        println!("the {name} ran {ran} us and was charged {charged} us");
    }
    Ok(())
}

/// What a vCPU publishes that spins for the lock.
fn spins_on(holder: VcpuId) -> Hints {
    let wait = Wait {
        kind: WaitKind::Spin,
        lock: LOCK,
        holder,
        holder_releases: 0,
    };
    Hints {
        wait: Some(wait),
        ..Hints::default()
    }
}

fn show(now: u64, decision: Option<vcpu_sched::Decision>) {
    match decision {
        Some(decision) => println!(
            "{:>6} us: vCPU {} runs, vCPU {} is charged",
            now / US,
            decision.curr.0,
            decision.donor.0
        ),
        None => println!("{:>6} us: nothing to run", now / US),
    }
}
