//! What must hold in each state. The policy checks its own tables after each call, as this is a debug build.

use vcpu_sched::sim::audit;
use vcpu_sched::{CpuId, Doing, VcpuId};

use crate::owner::Owner;
use crate::pool::{Pool, cpus};

/// Checks all promises.
pub fn check(pool: &Pool, state: &Owner) -> Result<(), String> {
    audit(&state.policy)?;
    each_runs_once(state)?;
    what_is_used_is_charged(state)?;
    somebody_runs_if_somebody_can(state)?;
    paused_guests_rest(state)?;
    if pool.keeps_deadlines() {
        deadlines_are_kept(state)?;
    }
    Ok(())
}

fn require(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

/// No vCPU is on two CPUs, as what runs or as the donor, and no budget leaves its guest.
fn each_runs_once(state: &Owner) -> Result<(), String> {
    for (number, cpu) in state.cpus.iter().enumerate() {
        let id = CpuId(number as u32);
        require(state.policy.running(id) == cpu.running, || {
            format!("{id} runs something else than it was told")
        })?;
        let Some((donor, curr)) = cpu.running else {
            continue;
        };
        let guest = |vcpu: VcpuId| state.vcpus[vcpu.index()].as_ref().map(|known| known.guest);
        require(guest(donor) == guest(curr), || {
            format!(
                "{donor} of {:?} carries {curr} of {:?}",
                guest(donor),
                guest(curr)
            )
        })?;
        for other in state.cpus[number + 1..]
            .iter()
            .filter_map(|cpu| cpu.running)
        {
            require(other.0 != donor && other.1 != curr, || {
                format!("{donor} or {curr} is on two CPUs")
            })?;
        }
    }
    Ok(())
}

/// Each vCPU ran, and was charged, for as long as the owner of the CPUs has reported; what was donated was
/// received.
fn what_is_used_is_charged(state: &Owner) -> Result<(), String> {
    for members in &state.members {
        let (mut donated, mut received) = (0, 0);
        for &vcpu in members {
            let id = VcpuId(vcpu.into());
            let Some(known) = &state.vcpus[id.index()] else {
                continue;
            };
            let (used, counted) = (&known.used, state.policy.counters(id));
            donated += counted.donated_ns;
            received += counted.received_ns;
            let charged = used.charged + used.elsewhere;
            let expected = (used.ran, charged, used.elsewhere);
            let actual = (counted.runtime_ns, counted.charged_ns, counted.elsewhere_ns);
            require(expected == actual, || {
                format!(
                    "{id} used {expected:?} (ran, charged, elsewhere), but {actual:?} is counted"
                )
            })?;
        }
        require(donated == received, || {
            format!("{donated} ns were donated, and {received} received")
        })?;
    }
    Ok(())
}

/// A vCPU that could run, has a budget and waits for no other one does so while a CPU of its own has nothing to do.
fn somebody_runs_if_somebody_can(state: &Owner) -> Result<(), String> {
    let online = state.policy.online_cpus();
    let (mut idle, mut changing) = (Vec::new(), false);
    for (number, cpu) in state.cpus.iter().enumerate() {
        let id = CpuId(number as u32);
        if state.must_pick(cpu) {
            changing = true;
        } else if cpu.running.is_none() && online.contains(id) {
            idle.push(id);
        }
    }
    if changing || idle.is_empty() {
        return Ok(());
    }
    for (number, known) in state.vcpus.iter().enumerate() {
        let vcpu = VcpuId(number as u32);
        let (Some(known), Some(view)) = (known, state.policy.view(vcpu)) else {
            continue;
        };
        if view.doing != Doing::Runnable || view.waits_for.is_some() {
            continue;
        }
        let own = cpus(known.pin);
        let able = idle
            .iter()
            .find(|&&cpu| view.displaced || own.contains(cpu));
        require(able.is_none(), || {
            format!("{vcpu} could run on {able:?}, which is idle")
        })?;
    }
    Ok(())
}

/// A paused guest has no CPU that does not have to pick, and waits for nothing.
fn paused_guests_rest(state: &Owner) -> Result<(), String> {
    for (number, cpu) in state.cpus.iter().enumerate() {
        let Some((donor, _)) = cpu.running else {
            continue;
        };
        let guest = state.vcpus[donor.index()].as_ref().map(|known| known.guest);
        let paused = guest.is_some_and(|guest| state.guests[usize::from(guest)].paused);
        let stops = cpu.kicked.is_some() || cpu.deferred;
        require(!paused || stops, || {
            format!("CPU {number} runs for a paused guest")
        })?;
    }
    for (vcpu, known) in state.vcpus.iter().enumerate() {
        let Some(known) = known else { continue };
        let paused = state.guests[usize::from(known.guest)].paused;
        let view = state.policy.view(VcpuId(vcpu as u32));
        let waits = view.is_some_and(|view| view.waits_for.is_some());
        require(!paused || !waits, || {
            format!("v{vcpu} waits in a paused guest")
        })?;
    }
    Ok(())
}

/// Each budget that was demanded came by its deadline.
fn deadlines_are_kept(state: &Owner) -> Result<(), String> {
    for vcpu in (0..state.vcpus.len() as u32).map(VcpuId) {
        let counted = state.policy.counters_at(vcpu, state.now);
        let lost = counted.lost_to_overcommit_ns + counted.lost_to_host_ns;
        require(counted.deadline_misses == 0 && lost == 0, || {
            let misses = counted.deadline_misses;
            format!("{vcpu} missed {misses} deadlines and lost {lost} ns")
        })?;
    }
    Ok(())
}
