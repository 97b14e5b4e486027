//! The state of the policy at one moment, for observers. Nothing here decides anything.

use crate::classes::reservation::Reservation;
use crate::events::Events;
use crate::ids::{CpuId, Ns, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};

/// What a vCPU is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It has nothing to run.
    Halted,
    /// It could run, and waits for a CPU.
    Runnable,
    /// It could run, and has no budget left.
    Throttled,
    /// It could run, and its scheduling context is parked behind the vCPU that it waits for.
    Parked,
    /// It could run, and its scheduling context carries another vCPU on this CPU meanwhile.
    Carrying(CpuId),
    /// It runs on this CPU.
    Running(CpuId),
    /// Its guest is paused.
    Paused,
    /// Its guest has ended.
    Gone,
}

/// One vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcpuView {
    /// What it is doing.
    pub doing: Doing,
    /// Its reservation as admitted, what is left of the budget (less than zero is debt, ns) and until when
    /// (ns). `None`: it shares what reservations leave.
    pub reserved: Option<(Reservation, i64, Ns)>,
    /// The reservation that it has from its next budget on, or once it has stopped, if that is another one.
    pub next_reservation: Option<Reservation>,
    /// What is in force of the reservation while host CPUs are offline, and since when, ns; `None`: all of
    /// it.
    pub reduced: Option<(Reservation, Ns)>,
    /// It is pinned to CPUs that are all offline, and runs elsewhere until one of them is online.
    pub displaced: bool,
    /// The vCPU that it waits for, and the number that names the lock, as it has published them. If
    /// `is_suspicion`, the policy suspects that vCPU, and the number has no meaning.
    pub waits_for: Option<(VcpuId, u64)>,
    /// Whether `waits_for` is a guess of the policy.
    pub is_suspicion: bool,
    /// It was seen to spin when it stopped last, and no vCPU is known or suspected that it waits for.
    pub spins: bool,
}

/// One CPU that runs something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuView {
    /// The vCPU that is charged.
    pub donor: VcpuId,
    /// The vCPU that runs.
    pub curr: VcpuId,
    /// Where they differ: the lock that the donor waits for. It has no meaning if `is_suspect`.
    pub lock: u64,
    /// Whether `curr` runs because it is suspected to hold the lock that the donor waits for.
    pub is_suspect: bool,
}

impl<E: Events> Scheduler<E> {
    /// The state of `vcpu`; `None` if it does not exist.
    #[must_use]
    pub fn view(&self, vcpu: VcpuId) -> Option<VcpuView> {
        let v = self.vcpus.get(vcpu)?;
        let doing = match (v.ec.state, v.sc.state) {
            (ExecState::Gone, _) => Doing::Gone,
            (ExecState::Paused, _) => Doing::Paused,
            (ExecState::Halted, _) if self.is_paused(vcpu) => Doing::Paused,
            (ExecState::Halted, _) => Doing::Halted,
            (ExecState::Running(cpu), _) => Doing::Running(cpu),
            (ExecState::Runnable { .. }, ScState::Throttled) => Doing::Throttled,
            (ExecState::Runnable { .. }, ScState::Parked(_)) => Doing::Parked,
            (ExecState::Runnable { .. }, ScState::OnCpu(cpu)) => Doing::Carrying(cpu),
            (ExecState::Runnable { .. }, _) => Doing::Runnable,
        };
        let server = v.sc.class.server();
        let reduced_since = v.sc.reduced_since;
        let edge = self.blocked_on.edge(vcpu);
        let is_awake = matches!(
            v.ec.state,
            ExecState::Running(_) | ExecState::Runnable { .. }
        );
        Some(VcpuView {
            doing,
            reserved: server.map(|s| (*s.admitted(), s.budget(), s.deadline())),
            next_reservation: self
                .promised(vcpu)
                .filter(|next| server.is_none_or(|s| s.admitted() != next)),
            reduced: server.and_then(|s| Some((*s.reservation(), reduced_since?))),
            displaced: self.cpus.online().and(v.ec.allowed).is_empty(),
            waits_for: edge.map(|wait| (wait.holder, wait.lock)),
            is_suspicion: edge.is_some_and(|wait| wait.is_suspicion()),
            spins: is_awake && edge.is_none() && v.ec.hints.waits,
        })
    }

    /// What `cpu` runs; `None` if it runs nothing.
    #[must_use]
    pub fn view_cpu(&self, cpu: CpuId) -> Option<CpuView> {
        let running = self.cpus.running(cpu)?;
        Some(CpuView {
            donor: running.donor,
            curr: running.curr,
            lock: running.lock,
            is_suspect: running.suspect,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Config, CpuTime, Hints, SchedParams, StopReason, Wait, WaitKind};

    #[test]
    fn a_view_shows_donors_carried_vcpus_and_waits() {
        let mut pool = Scheduler::new(Config::new(1));
        let guest = pool.add_guest();
        let params = SchedParams::BestEffort { weight: 100 };
        let [holder, waiter] = [(); 2].map(|()| pool.add_vcpu(guest, params, None).expect("fits"));
        assert_eq!(pool.view(holder).expect("exists").doing, Doing::Halted);
        pool.wake(holder, 0);
        pool.pick(CpuId(0), 0).expect("the holder");
        assert_eq!(
            pool.view(holder).expect("exists").doing,
            Doing::Running(CpuId(0))
        );
        let holding = Hints {
            depth: 1,
            ..Hints::default()
        };
        let slice = CpuTime(4_000_000);
        pool.stop(CpuId(0), StopReason::Preempted, holding, slice, slice.0);
        pool.wake(waiter, 4_000_000);
        pool.pick(CpuId(0), 4_000_000).expect("the waiter");
        let wait = Wait {
            kind: WaitKind::Spin,
            lock: 7,
            holder,
            holder_releases: 0,
        };
        let waiting = Hints {
            wait: Some(wait),
            ..Hints::default()
        };
        let ran = CpuTime(1_000);
        pool.stop(CpuId(0), StopReason::Rang, waiting, ran, 4_001_000);
        pool.pick(CpuId(0), 4_001_000).expect("the holder, proxied");
        let cpu = pool.view_cpu(CpuId(0)).expect("runs");
        assert_eq!((cpu.donor, cpu.curr, cpu.lock), (waiter, holder, 7));
        assert!(!cpu.is_suspect, "the guest has published whom it waits for");
        let view = pool.view(waiter).expect("exists");
        assert_eq!(
            (view.doing, view.waits_for),
            (Doing::Carrying(CpuId(0)), Some((holder, 7)))
        );
        assert!(!view.is_suspicion && !view.spins);
        assert_eq!(pool.view(VcpuId(9)), None);
    }

    /// What the host infers of a vCPU that holds something, or spins for something.
    fn guess(waits: bool) -> Hints {
        Hints {
            depth: 1,
            waits,
            is_guess: true,
            ..Hints::default()
        }
    }

    #[test]
    fn a_vcpu_that_spins_with_none_to_suspect_is_shown_to_spin() {
        let mut pool = Scheduler::new(Config::new(1));
        let guest = pool.add_guest();
        let params = SchedParams::BestEffort { weight: 100 };
        let waiter = pool.add_vcpu(guest, params, None).expect("fits");
        pool.wake(waiter, 0);
        for (at, waits) in [(1_000, true), (2_000, false)] {
            pool.pick(CpuId(0), at).expect("the waiter");
            let ran = CpuTime(1_000);
            pool.stop(CpuId(0), StopReason::Preempted, guess(waits), ran, at);
            let view = pool.view(waiter).expect("exists");
            assert_eq!((view.waits_for, view.spins), (None, waits));
        }
    }

    #[test]
    fn a_view_tells_a_suspect_from_a_holder() {
        let mut pool = Scheduler::new(Config::new(1));
        let guest = pool.add_guest();
        let params = SchedParams::BestEffort { weight: 100 };
        let [suspect, waiter] = [(); 2].map(|()| pool.add_vcpu(guest, params, None).expect("fits"));
        let slice = CpuTime(4_000_000);
        pool.wake(suspect, 0);
        pool.pick(CpuId(0), 0).expect("the suspect");
        pool.stop(
            CpuId(0),
            StopReason::Preempted,
            guess(false),
            slice,
            slice.0,
        );
        pool.wake(waiter, 4_000_000);
        pool.pick(CpuId(0), 4_000_000).expect("the waiter");
        let ran = CpuTime(1_000);
        pool.stop(CpuId(0), StopReason::Preempted, guess(true), ran, 4_001_000);
        let view = pool.view(waiter).expect("exists");
        let holder = view.waits_for.map(|(holder, _)| holder);
        assert_eq!(
            (holder, view.is_suspicion, view.spins),
            (Some(suspect), true, false)
        );
        pool.pick(CpuId(0), 4_001_000).expect("the suspect");
        let cpu = pool.view_cpu(CpuId(0)).expect("runs");
        assert_eq!(
            (cpu.donor, cpu.curr, cpu.is_suspect),
            (waiter, suspect, true)
        );
    }
}
