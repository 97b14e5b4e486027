//! Wake-ups by a vCPU that runs, and hand-overs: which edges they move, and which not.

use vcpu_sched::{CpuId, Doing, VcpuId};

use crate::machine::{Cpu, Machine};

/// Stands for the lock where a vCPU is only suspected to hold one.
const NO_LOCK: u64 = u64::MAX;

/// For which vCPU another one waits, and because of which lock.
pub type Edge = Option<(VcpuId, u64)>;

/// The vCPUs that wait for `from` because of `lock` now wait for `to`, which waits no longer.
pub fn pass_on(edges: &mut [Edge], from: VcpuId, lock: u64, to: VcpuId) {
    for (index, edge) in edges.iter_mut().enumerate() {
        if *edge == Some((from, lock)) {
            *edge = (index != to.index()).then_some((to, lock));
        }
    }
}

impl Machine {
    /// What runs on `cpu` wakes `vcpu`. If `vcpu` slept for a lock of the waker, it now has that lock.
    pub fn wake_by(&mut self, cpu: usize, vcpu: VcpuId) {
        let mut expected = self.edges();
        let sleeps = self.view(vcpu).is_some_and(|v| v.doing == Doing::Halted);
        if sleeps {
            let from = self.cpus[cpu].running.map(|(_, curr)| curr);
            if let (Some(from), Some((holder, lock))) = (from, expected[vcpu.index()])
                && holder == from
                && self.vcpus[vcpu.index()].blocks
            {
                pass_on(&mut expected, from, lock, vcpu);
            }
            expected[vcpu.index()] = None;
        }
        self.policy.wake_by(CpuId(cpu as u32), vcpu, self.now);
        assert_eq!(self.edges(), expected, "a wake-up by a holder hands over");
        let awake = |doing| doing != Doing::Halted;
        assert!(self.view(vcpu).is_none_or(|v| awake(v.doing)));
    }

    /// Only a vCPU that runs can hand a lock over, and only within its guest. Only the edges that lead to it
    /// because of that lock move.
    pub fn hand_over(&mut self, cpu: usize, lock: u64, to: VcpuId) {
        let mut expected = self.edges();
        let mut reschedules = false;
        if let Some((donor, from)) = self.cpus[cpu].running
            && to != from
            && self.guest(to) == self.guest(from)
        {
            pass_on(&mut expected, from, lock, to);
            let view = self.policy.view_cpu(CpuId(cpu as u32));
            let carried_for = view.filter(|view| !view.is_suspect).map(|view| view.lock);
            reschedules = donor != from && carried_for == Some(lock);
        }
        self.policy.hand_over(CpuId(cpu as u32), lock, to, self.now);
        assert_eq!(self.edges(), expected, "a hand-over moves what it names");
        self.take_kicks();
        let Cpu {
            kicked, deferred, ..
        } = self.cpus[cpu];
        assert!(
            !reschedules || kicked || deferred,
            "its donor waits for another vCPU"
        );
    }

    /// For most numbers, a vCPU of the guest of `curr`. For the others, the vCPU with this number, which may be
    /// of another guest or not exist.
    pub fn sibling(&self, curr: VcpuId, number: VcpuId) -> VcpuId {
        let siblings: Vec<_> = self
            .all()
            .filter(|&v| self.guest(v) == self.guest(curr))
            .collect();
        match number.0 {
            0..10 => siblings[number.index() % siblings.len()],
            _ => number,
        }
    }

    /// For most numbers, a vCPU that waits for the one that runs on `cpu`.
    pub fn waiter(&self, cpu: usize, number: u32) -> Option<VcpuId> {
        let (_, curr) = self.cpus[cpu]
            .running
            .filter(|_| !number.is_multiple_of(4))?;
        let all = (0..self.vcpus.len() as u32).map(VcpuId);
        let waits = |&v: &VcpuId| matches!(self.edges()[v.index()], Some((on, _)) if on == curr);
        let waiters: Vec<_> = all.filter(waits).collect();
        waiters
            .get(number as usize / 4 % waiters.len().max(1))
            .copied()
    }

    /// For which vCPU each one waits, and because of which lock.
    pub fn edges(&self) -> Vec<Edge> {
        let all = (0..self.vcpus.len() as u32).map(VcpuId);
        let edge = |vcpu| {
            let view = self.view(vcpu)?;
            let (holder, lock) = view.waits_for?;
            Some((holder, if view.is_suspicion { NO_LOCK } else { lock }))
        };
        all.map(edge).collect()
    }
}
