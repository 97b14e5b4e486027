//! What must hold in each state. The policy checks its own tables after each call, as this is a debug build.

use vcpu_sched::sim::audit;
use vcpu_sched::{CpuId, Doing, VcpuId, VcpuView, WaitKind};

use crate::owner::{Cpu, Known, Owner};
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

/// Once kicks have arrived, a vCPU that could run, has a budget and waits for no other one does so while a CPU of its
/// own has nothing to do, or serves a later deadline, or best effort if the vCPU has a reservation.
fn somebody_runs_if_somebody_can(state: &Owner) -> Result<(), String> {
    let online = state.policy.online_cpus();
    if state.cpus.iter().any(|cpu| state.must_pick(cpu)) {
        return Ok(());
    }
    for (number, known) in state.vcpus.iter().enumerate() {
        let vcpu = VcpuId(number as u32);
        let (Some(known), Some(view)) = (known, state.policy.view(vcpu)) else {
            continue;
        };
        if view.doing != Doing::Runnable || waits(state, known, &view) {
            continue;
        }
        let own = cpus(known.pin);
        for cpu in online
            .iter()
            .filter(|&cpu| view.displaced || own.contains(cpu))
        {
            let row = &state.cpus[cpu.index()];
            require(!gives_way(state, row, &view), || {
                format!("{vcpu} could run on {cpu}, which does {:?}", row.running)
            })?;
        }
    }
    Ok(())
}

/// Whether a vCPU that could run waits for one that has not released its lock since.
fn waits(state: &Owner, known: &Known, view: &VcpuView) -> bool {
    let Some((holder, _)) = view.waits_for else {
        return false;
    };
    let published = known.hints.wait.filter(|wait| wait.holder == holder);
    let of_holder = state.vcpus[holder.index()].as_ref();
    let (Some(wait), Some(of_holder)) = (published, of_holder) else {
        return true;
    };
    let runs = |cpu: &Cpu| cpu.running.is_some_and(|(_, curr)| curr == holder);
    wait.kind != WaitKind::Spin
        || state.cpus.iter().any(runs)
        || wait.holder_releases == of_holder.hints.releases
}

/// Whether what a CPU does is less urgent than a vCPU that could run.
fn gives_way(state: &Owner, cpu: &Cpu, to: &VcpuView) -> bool {
    let Some((donor, _)) = cpu.running else {
        return true;
    };
    let deadline = |view: &VcpuView| view.reserved.map(|(.., deadline)| deadline);
    let served = state.policy.view(donor).and_then(|view| deadline(&view));
    let is_earlier = deadline(to).is_some_and(|own| served.is_none_or(|served| own < served));
    is_earlier && !cpu.deferred
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
