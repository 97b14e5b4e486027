//! Wake-ups by what runs, and hand-overs: which edges they move, and which not.

use vcpu_sched::{CpuId, Doing, VcpuId};

use crate::machine::{Cpu, Machine};

/// For whom a vCPU waits, and with which lock.
pub type Edge = Option<(VcpuId, u64)>;

/// Those who wait for `from` with `lock` wait for `to` now; that one waits no longer.
pub fn pass_on(edges: &mut [Edge], from: VcpuId, lock: u64, to: VcpuId) {
    for (index, edge) in edges.iter_mut().enumerate() {
        if *edge == Some((from, lock)) {
            *edge = (index != to.index()).then_some((to, lock));
        }
    }
}

impl Machine {
    /// What runs on `cpu` wakes `vcpu`: if that slept for a lock of the waker, it has it now.
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

    /// Only what runs can hand over, only within its guest, and only those move who wait for it with
    /// that lock.
    pub fn hand_over(&mut self, cpu: usize, lock: u64, to: VcpuId) {
        let mut expected = self.edges();
        let mut looks = false;
        if let Some((donor, from)) = self.cpus[cpu].running
            && to != from
            && self.guest(to) == self.guest(from)
        {
            pass_on(&mut expected, from, lock, to);
            let carried_for = self.policy.view_cpu(CpuId(cpu as u32)).map(|c| c.lock);
            looks = donor != from && carried_for == Some(lock);
        }
        self.policy.hand_over(CpuId(cpu as u32), lock, to, self.now);
        assert_eq!(self.edges(), expected, "a hand-over moves what it names");
        self.take_kicks();
        let Cpu {
            kicked, deferred, ..
        } = self.cpus[cpu];
        assert!(!looks || kicked || deferred, "its donor waits for another");
    }

    /// A vCPU of the guest of `run`, for most numbers; for the others the vCPU with this number,
    /// perhaps of another guest or of none.
    pub fn sibling(&self, curr: VcpuId, number: VcpuId) -> VcpuId {
        let all = (0..self.vcpus.len() as u32).map(VcpuId);
        let siblings: Vec<_> = all.filter(|&v| self.guest(v) == self.guest(curr)).collect();
        match number.0 {
            0..10 => siblings[number.index() % siblings.len()],
            _ => number,
        }
    }

    /// One of those who wait for what runs on `cpu`, for most numbers.
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

    /// For whom each vCPU waits, and with which lock.
    pub fn edges(&self) -> Vec<Edge> {
        let all = (0..self.vcpus.len() as u32).map(VcpuId);
        all.map(|vcpu| self.view(vcpu)?.waits_for).collect()
    }
}
