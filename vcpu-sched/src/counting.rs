//! The counters, as a listener of the policy's own events: what the events show is counted here, so that
//! the rules need no bookkeeping for it. What no event shows, the rules count by
//! [`Counting::counters_mut`] and [`Counting::preempted`].

use crate::counters::Counters;
use crate::cpuset::CpuSet;
use crate::events::{Event, Events};
use crate::ids::{CpuId, Ns, VcpuId};
use crate::table::Table;

/// One vCPU.
#[derive(Clone, Debug, Default)]
struct CountedVcpu {
    counters: Counters,
    /// Where it ran last.
    last_cpu: Option<CpuId>,
}

/// What a CPU ran last. It becomes a preemption when the CPU runs something else.
#[derive(Clone, Copy, Debug)]
struct LastRun {
    vcpu: VcpuId,
    /// For a vCPU that was stopped against its will: whether it held a lock, by its own account.
    preempted_holding: Option<bool>,
}

/// One CPU.
#[derive(Clone, Copy, Debug, Default)]
struct CountedCpu {
    last_run: Option<LastRun>,
    offline: bool,
}

/// The counters of all vCPUs of a pool.
#[derive(Clone, Debug)]
pub(crate) struct Counting {
    vcpus: Table<VcpuId, CountedVcpu>,
    cpus: Table<CpuId, CountedCpu>,
}

impl Counting {
    pub(crate) fn new(cpus: usize, spare: CpuSet) -> Self {
        let row = |cpu: CpuId| CountedCpu {
            offline: spare.contains(cpu),
            ..CountedCpu::default()
        };
        Self {
            vcpus: Table::new(),
            cpus: Table::from_rows(CpuSet::first(cpus).iter().map(row).collect()),
        }
    }

    /// A new vCPU, with all counters at zero. The vCPUs are added and removed in the order in which their owner
    /// adds and removes them, so they have the same names here.
    pub(crate) fn add_vcpu(&mut self, vcpu: VcpuId) {
        let added = self.vcpus.add(CountedVcpu::default());
        debug_assert_eq!(added, vcpu, "the tables have the same rows");
    }

    /// Takes out a vCPU with its counters.
    pub(crate) fn remove_vcpu(&mut self, vcpu: VcpuId) {
        self.vcpus.remove(vcpu);
        for cpu in self.cpus.iter_mut() {
            cpu.last_run = cpu.last_run.filter(|last| last.vcpu != vcpu);
        }
    }

    #[inline]
    pub(crate) fn counters(&self, vcpu: VcpuId) -> Option<&Counters> {
        self.vcpus.get(vcpu).map(|v| &v.counters)
    }

    #[inline]
    pub(crate) fn counters_mut(&mut self, vcpu: VcpuId) -> &mut Counters {
        &mut self.vcpus[vcpu].counters
    }

    /// What stopped last on `cpu` was stopped against its will; `holding`: while it held a lock. That is a
    /// preemption unless the CPU goes on with the same vCPU.
    #[inline]
    pub(crate) fn preempted(&mut self, cpu: CpuId, holding: bool) {
        if let Some(last) = &mut self.cpus[cpu].last_run {
            last.preempted_holding = Some(holding);
        }
    }

    #[inline]
    fn picked(&mut self, cpu: CpuId, curr: VcpuId, chain: u32) {
        let v = &mut self.vcpus[curr];
        v.counters.longest_chain = v.counters.longest_chain.max(chain);
        let moved = v.last_cpu.replace(cpu).is_some_and(|last| last != cpu);
        v.counters.migrations += u64::from(moved);
        let last = self.cpus[cpu].last_run.take();
        if last.is_none_or(|last| last.vcpu != curr) {
            v.counters.switches += 1;
            v.counters.proxied += u64::from(chain > 0);
            self.replaced(last);
        }
    }

    /// A CPU runs something else than `last`, or has gone offline.
    #[inline]
    fn replaced(&mut self, last: Option<LastRun>) {
        if let Some(last) = last
            && let Some(holding) = last.preempted_holding
        {
            let counters = &mut self.vcpus[last.vcpu].counters;
            counters.preemptions += 1;
            counters.holder_preemptions += u64::from(holding);
        }
    }

    #[inline]
    fn stopped(&mut self, cpu: CpuId, donor: VcpuId, curr: VcpuId, ran: Ns) {
        self.vcpus[curr].counters.runtime_ns += ran;
        self.vcpus[donor].counters.charged_ns += ran;
        if donor != curr {
            self.vcpus[curr].counters.received_ns += ran;
            self.vcpus[donor].counters.donated_ns += ran;
        }
        self.cpus[cpu].last_run = Some(LastRun {
            vcpu: curr,
            preempted_holding: None,
        });
    }
}

impl Events for Counting {
    #[inline]
    fn event(&mut self, _at: Ns, event: Event) {
        match event {
            Event::Pick {
                cpu, curr, chain, ..
            } => self.picked(cpu, curr, chain),
            Event::Stop {
                cpu,
                donor,
                curr,
                ran,
            } => self.stopped(cpu, donor, curr, ran),
            Event::Idle { cpu } if self.cpus[cpu].offline => {
                let last = self.cpus[cpu].last_run.take();
                self.replaced(last);
            }
            Event::CpuOffline(cpu) => self.cpus[cpu].offline = true,
            Event::CpuOnline(cpu) => self.cpus[cpu].offline = false,
            Event::Throttle(vcpu, _) => self.vcpus[vcpu].counters.throttles += 1,
            Event::Defer { curr, .. } => self.vcpus[curr].counters.deferrals += 1,
            _ => {}
        }
    }
}
