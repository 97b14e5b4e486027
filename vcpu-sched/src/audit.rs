//! Promises of the policy as a whole, checked from outside its rules: nothing is lost, and nothing waits
//! that should run.

use crate::classes::admission::density;
use crate::events::Events;
use crate::ids::{CpuId, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};
use crate::state::cpu_table::CpuRow;
use crate::state::timer_queue::TimerId;

/// Checks `policy` between two calls. A CPU that has been kicked, or is about to pick, will put right what
/// it finds, so that breaks no promise.
///
/// # Errors
/// The promise that is broken.
pub fn audit<E: Events>(policy: &Scheduler<E>) -> Result<(), String> {
    for vcpu in policy.vcpus.ids() {
        not_lost(policy, vcpu)?;
    }
    order_is_kept(policy)?;
    bandwidth_is_kept(policy)?;
    timer_is_kept(policy)
}

/// What is admitted and held fits, and what is admitted is what the vCPUs have or get.
fn bandwidth_is_kept<E: Events>(policy: &Scheduler<E>) -> Result<(), String> {
    if let Some(bound) = policy.admission.first_overbooked(policy.cpus.all()) {
        return Err(format!("more is admitted on {bound:?} than fits"));
    }
    for domain in policy.domains.iter() {
        let ids = policy.vcpus.ids();
        let here = ids.filter(|&vcpu| {
            let is_gone = policy.vcpus[vcpu].ec.state == ExecState::Gone;
            !is_gone && policy.promised_cpus(vcpu) == domain.pinning
        });
        let promised = here.filter_map(|vcpu| policy.promised(vcpu));
        let sum: u64 = promised.map(|reservation| density(&reservation)).sum();
        let taken = policy.admission.taken_with(domain.pinning);
        if sum != taken {
            let cpus = domain.pinning;
            return Err(format!(
                "{sum} is promised on {cpus:?}, and {taken} was taken"
            ));
        }
    }
    Ok(())
}

/// A vCPU that is awake runs, competes, or will be brought back by something.
fn not_lost<E: Events>(policy: &Scheduler<E>, vcpu: VcpuId) -> Result<(), String> {
    let v = &policy.vcpus[vcpu];
    let timer = policy.has_timer(TimerId::Sc(vcpu));
    let runnable = matches!(v.ec.state, ExecState::Runnable { .. });
    let fine = match v.sc.state {
        ScState::OnCpu(_) | ScState::Queued(_) => true,
        ScState::Throttled => timer,
        ScState::Parked(on) => {
            let state = policy.vcpus[on].ec.state;
            let goes_on = matches!(state, ExecState::Running(_) | ExecState::Halted);
            let just_stopped = |cpu| policy.cpus[cpu].just_stopped == Some(on);
            (goes_on || policy.cpus.ids().any(just_stopped)) && (timer || !runnable)
        }
        ScState::Proxied => matches!(v.ec.state, ExecState::Running(_)),
        ScState::Off => matches!(
            v.ec.state,
            ExecState::Halted | ExecState::Paused | ExecState::Gone
        ),
    };
    if fine {
        Ok(())
    } else {
        Err(format!("{vcpu} is lost: {:?} {:?}", v.ec.state, v.sc.state))
    }
}

fn will_reschedule(cpu: &CpuRow) -> bool {
    cpu.will_pick()
        || cpu
            .running()
            .is_some_and(|running| running.deferred.is_some())
}

/// No scheduling context waits while a CPU that could serve it does nothing, or something less urgent.
fn order_is_kept<E: Events>(policy: &Scheduler<E>) -> Result<(), String> {
    for domain in policy.domains.iter() {
        let Some((rank, first)) = domain.queue.first() else {
            continue;
        };
        // A CPU that has never picked will do so.
        let starts =
            |cpu: CpuId| policy.cpus.running(cpu).is_none() && !policy.cpus.idle().contains(cpu);
        let picks = |cpu: CpuId| will_reschedule(&policy.cpus[cpu]) || starts(cpu);
        if domain.cpus.iter().any(picks) {
            continue;
        }
        for cpu in domain.cpus.iter() {
            let Some(running) = policy.cpus.running(cpu) else {
                return Err(format!("{first} waits while {cpu} does nothing"));
            };
            let serves = policy.vcpus[running.donor].sc.rank();
            if rank.preempts(serves) {
                return Err(format!(
                    "{first} {rank:?} waits while {cpu} serves {serves:?}"
                ));
            }
            let unsliced = policy.cpus.unsliced().contains(cpu) && !serves.is_deadline();
            if unsliced && !rank.is_deadline() {
                return Err(format!("{first} waits while {cpu} runs without a slice"));
            }
        }
    }
    Ok(())
}

/// If CPUs sleep, one of them wakes up in time for the earliest timer. If none sleeps, the CPU with the
/// least urgent work in each domain reschedules in time for the timers that could take that CPU.
fn timer_is_kept<E: Events>(policy: &Scheduler<E>) -> Result<(), String> {
    let Some(at) = policy.next_timer() else {
        return Ok(());
    };
    let cpus = &policy.cpus;
    let in_time = |cpu: CpuId| {
        let until = cpus[cpu].asleep().flatten();
        will_reschedule(&cpus[cpu]) || until.is_some_and(|until| until <= at)
    };
    if cpus.idle().iter().any(in_time) {
        return Ok(());
    }
    if !cpus.idle().is_empty() {
        return Err(format!("the sleeping CPUs sleep past the timer at {at}"));
    }
    if cpus.ids().any(|cpu| will_reschedule(&cpus[cpu])) {
        return Ok(());
    }
    for domain in policy.domains.ids() {
        let least_urgent = cpus.least_urgent(policy.domains[domain].cpus);
        if let Some((rank, cpu)) = least_urgent
            && let Some(running) = cpus.running(cpu)
            && let Some(at) =
                policy.timer_of(domain, running.donor, running.preemptible_at, running.until)
        {
            return Err(format!("{cpu} serves {rank:?} past the timer at {at}"));
        }
    }
    Ok(())
}
