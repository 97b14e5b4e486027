//! Promises of the policy as a whole, checked from the outside of its rules: nothing is lost, and
//! nobody waits who should run.

use crate::classes::rank::more_urgent;
use crate::events::Events;
use crate::ids::{CpuId, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{Cpu, ExecState, ScState, SchedClass};
use crate::state::timer_queue::sc_timer;

/// Checks `policy` between two calls. What a CPU that has been kicked, or is about to pick, will
/// put right is not held against it.
///
/// # Errors
/// Says which promise is broken.
pub fn audit<E: Events>(policy: &Scheduler<E>) -> Result<(), String> {
    for index in 0..policy.vcpus.len() {
        not_lost(policy, VcpuId(index as u32))?;
    }
    order_is_kept(policy)?;
    timer_is_kept(policy)
}

/// What is awake runs, competes, or will be brought back by something.
fn not_lost<E: Events>(policy: &Scheduler<E>, vcpu: VcpuId) -> Result<(), String> {
    let v = &policy.vcpus[vcpu.index()];
    let timer = policy.has_timer(sc_timer(vcpu));
    let runnable = matches!(v.ec.state, ExecState::Runnable { .. });
    let fine = match v.sc.state {
        ScState::OnCpu(_) | ScState::Queued(_) => true,
        ScState::Throttled => timer,
        ScState::Parked(on) => {
            let state = policy.vcpus[on.index()].ec.state;
            let goes_on = matches!(state, ExecState::Running(_) | ExecState::Halted);
            let picks = || policy.cpus.iter().any(|cpu| cpu.stopped == Some(on));
            (goes_on || picks()) && (timer || !runnable)
        }
        ScState::Proxied => matches!(v.ec.state, ExecState::Running(_)),
        ScState::Off => matches!(v.ec.state, ExecState::Halted | ExecState::Gone),
    };
    if fine {
        Ok(())
    } else {
        Err(format!("{vcpu} is lost: {:?} {:?}", v.ec.state, v.sc.state))
    }
}

fn will_look(cpu: &Cpu) -> bool {
    cpu.choosing || cpu.kicked || cpu.running.is_some_and(|running| running.deferred)
}

/// No claim waits while a CPU that could serve it does nothing, or something less urgent.
fn order_is_kept<E: Events>(policy: &Scheduler<E>) -> Result<(), String> {
    for domain in &policy.domains {
        let Some((rank, first)) = domain.queue.first() else {
            continue;
        };
        let first = VcpuId(first);
        let state = |cpu: CpuId| &policy.cpus[cpu.index()];
        // One that has never picked will do so.
        let starts = |cpu: CpuId| state(cpu).running.is_none() && !policy.idle.contains(cpu);
        let looks = |cpu: CpuId| will_look(state(cpu)) || starts(cpu);
        if domain.cpus.iter().any(looks) {
            continue;
        }
        for cpu in domain.cpus.iter() {
            let Some(running) = state(cpu).running else {
                return Err(format!("{first} waits while {cpu} does nothing"));
            };
            let donor = &policy.vcpus[running.donor.index()].sc;
            let fair = |of: &SchedClass| matches!(of, SchedClass::Fair(_));
            if more_urgent(rank, donor.rank()) {
                let less = donor.rank();
                return Err(format!(
                    "{first} {rank:?} waits while {cpu} serves {less:?}"
                ));
            }
            let unsliced = policy.unsliced.contains(cpu) && fair(&donor.class);
            if unsliced && fair(&policy.vcpus[first.index()].sc.class) {
                return Err(format!("{first} waits while {cpu} runs without a slice"));
            }
        }
    }
    Ok(())
}

/// If CPUs sleep, one of them wakes up in time for the earliest timer. If none does, the one with the
/// least urgent work in each domain looks in time for those that could take it off its CPU.
fn timer_is_kept<E: Events>(policy: &Scheduler<E>) -> Result<(), String> {
    let Some(at) = policy.next_timer() else {
        return Ok(());
    };
    let idle = || policy.idle.iter().map(|cpu| &policy.cpus[cpu.index()]);
    let in_time = |cpu: &Cpu| cpu.sleeps_until.is_some_and(|until| until <= at);
    if idle().any(|cpu| will_look(cpu) || in_time(cpu)) {
        return Ok(());
    }
    if !policy.idle.is_empty() {
        return Err(format!("the sleeping CPUs sleep past the timer at {at}"));
    }
    if policy.cpus.iter().any(will_look) {
        return Ok(());
    }
    for domain in 0..policy.domains.len() {
        let least = policy.least_urgent(policy.domains[domain].cpus);
        if let Some((rank, cpu)) = least
            && let Some(running) = policy.cpus[cpu.index()].running
            && let Some(at) =
                policy.timer_of(domain, running.donor, running.preemptible_at, running.until)
        {
            return Err(format!("{cpu} serves {rank:?} past the timer at {at}"));
        }
    }
    Ok(())
}
