//! What is counted from the policy's events, besides the policy's own counters. This happens under the pool's
//! lock, so it only adds to tables that exist already, except when a vCPU joins.

use vcpu_sched::{Event, Ns, VcpuId};

/// Upper bounds of the buckets of chain lengths. One more bucket has no bound.
pub(super) const CHAIN_BOUNDS: [u32; 5] = [1, 2, 4, 8, 16];

/// What was counted for one vCPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VcpuTally {
    /// Decisions to run it on another vCPU's budget, by chain length; not cumulative.
    pub chains: [u64; CHAIN_BOUNDS.len() + 1],
    /// Sum of those lengths.
    pub chain_edges: u64,
    /// Time off its CPU with a `blocked_on` edge, ns.
    pub holder_wait_ns: Ns,
    /// If it has an edge now: since when, ns.
    pub(super) since: Option<Ns>,
}

impl VcpuTally {
    /// The same, where a wait that goes on is counted up to `now`, ns.
    #[must_use]
    pub fn until(mut self, now: Ns) -> Self {
        if let Some(since) = self.since {
            self.holder_wait_ns = self
                .holder_wait_ns
                .saturating_add(now.saturating_sub(since));
        }
        self
    }
}

/// What was counted for a pool.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// By the policy's id of the vCPU.
    pub vcpus: Vec<VcpuTally>,
    /// How often each host CPU was kicked.
    pub kicks: Vec<u64>,
}

impl Tally {
    /// Zeros for `cpus` host CPUs and no vCPU.
    #[must_use]
    pub fn new(cpus: usize) -> Self {
        Self {
            vcpus: Vec::new(),
            kicks: vec![0; cpus],
        }
    }

    /// `vcpu` is a new vCPU from now on, for which nothing has been counted.
    pub fn joined(&mut self, vcpu: VcpuId) {
        if self.vcpus.len() <= vcpu.index() {
            let length = vcpu.index() + 1;
            self.vcpus.resize(length, VcpuTally::default());
        }
        self.vcpus[vcpu.index()] = VcpuTally::default();
    }

    /// Counts what the policy decided at `at`, ns.
    pub fn event(&mut self, at: Ns, event: &Event) {
        match *event {
            Event::Pick { curr, chain, .. } if chain > 0 => {
                if let Some(vcpu) = self.vcpus.get_mut(curr.index()) {
                    let bucket = CHAIN_BOUNDS
                        .iter()
                        .take_while(|&&bound| bound < chain)
                        .count();
                    vcpu.chains[bucket] += 1;
                    vcpu.chain_edges += u64::from(chain);
                }
            }
            Event::EdgeOn { waiter, .. } => {
                if let Some(vcpu) = self.vcpus.get_mut(waiter.index()) {
                    // An edge that moves on to the next holder is the same wait.
                    vcpu.since.get_or_insert(at);
                }
            }
            Event::EdgeOff(waiter) => {
                if let Some(vcpu) = self.vcpus.get_mut(waiter.index()) {
                    *vcpu = VcpuTally {
                        since: None,
                        ..vcpu.until(at)
                    };
                }
            }
            Event::Kick(cpu) => {
                if let Some(kicks) = self.kicks.get_mut(cpu.index()) {
                    *kicks += 1;
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vcpu_sched::CpuId;

    #[test]
    fn chains_fall_into_buckets_and_waits_last_until_their_edge_is_gone() {
        let mut tally = Tally::new(1);
        [0, 1]
            .into_iter()
            .for_each(|vcpu| tally.joined(VcpuId(vcpu)));
        let (cpu, donor, curr) = (CpuId(0), VcpuId(1), VcpuId(0));
        for chain in [0, 1, 2, 3, 16, 17] {
            tally.event(
                0,
                &Event::Pick {
                    cpu,
                    donor,
                    curr,
                    chain,
                },
            );
        }
        assert_eq!(
            (tally.vcpus[0].chains, tally.vcpus[0].chain_edges),
            ([1, 1, 1, 0, 1, 1], 39)
        );
        for (at, holder) in [(10, 0), (15, 0)] {
            tally.event(
                at,
                &Event::EdgeOn {
                    waiter: donor,
                    holder: VcpuId(holder),
                    is_suspicion: false,
                },
            );
        }
        assert_eq!(tally.vcpus[1].until(17).holder_wait_ns, 7);
        tally.event(20, &Event::EdgeOff(donor));
        tally.event(30, &Event::EdgeOff(donor));
        assert_eq!(tally.vcpus[1].until(99).holder_wait_ns, 10);
        tally.event(40, &Event::Kick(cpu));
        tally.event(41, &Event::Kick(CpuId(7)));
        assert_eq!(tally.kicks, [1]);
        tally.joined(donor);
        assert_eq!(tally.vcpus[1], VcpuTally::default());
    }
}
