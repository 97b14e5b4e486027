//! What holds between any two calls. Checked after each of them in debug builds.

use crate::events::Events;
use crate::ids::VcpuId;
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState, VcpuState};

impl<E: Events> Scheduler<E> {
    /// Panics, in debug builds, if the state contradicts itself. O(n), so only there.
    pub(crate) fn check(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        for vcpu in self.vcpus.ids() {
            self.check_execution(vcpu);
            self.check_scheduling_context(vcpu);
            self.check_delivery(vcpu);
        }
        self.cpus.check();
        for guest in self.guests.iter() {
            let is_guessed = |vcpu: &&VcpuId| self.vcpus[**vcpu].ec.hints.is_guess;
            let guessed = guest.vcpus.iter().filter(is_guessed).count();
            assert_eq!(guest.guessed as usize, guessed, "so many are guessed");
        }
        for domain in self.domains.ids() {
            let uses = |v: &VcpuState| {
                let pending = v.pending.pinning.map(|(_, pending)| pending);
                u32::from(v.ec.domain == domain) + u32::from(pending == Some(domain))
            };
            let users: u32 = self.vcpus.iter().map(uses).sum();
            assert_eq!(
                self.domains[domain].users, users,
                "{domain} has these users"
            );
            assert!(users > 0, "{domain} goes with its last user");
        }
        self.check_decisions();
    }

    fn check_execution(&self, vcpu: VcpuId) {
        let v = &self.vcpus[vcpu];
        match v.ec.state {
            ExecState::Running(cpu) => {
                let running = self.cpus.running(cpu);
                assert!(
                    running.is_some_and(|r| r.curr == vcpu),
                    "{vcpu} is what its CPU runs"
                );
                assert!(
                    self.blocked_on.edge(vcpu).is_none(),
                    "{vcpu} runs, so it has no edge"
                );
            }
            ExecState::Runnable { .. } => assert!(
                !matches!(v.sc.state, ScState::Off | ScState::Proxied),
                "{vcpu} is runnable, so its scheduling context is somewhere: {:?}",
                v.sc.state
            ),
            ExecState::Paused => {
                assert!(self.is_paused(vcpu), "{vcpu} is paused with its guest");
                assert!(self.blocked_on.edge(vcpu).is_none(), "{vcpu} is paused");
            }
            ExecState::Halted | ExecState::Gone => {}
        }
    }

    fn check_scheduling_context(&self, vcpu: VcpuId) {
        let v = &self.vcpus[vcpu];
        match v.sc.state {
            ScState::OnCpu(cpu) => assert!(
                self.cpus.running(cpu).is_some_and(|r| r.donor == vcpu),
                "{vcpu} is the donor on its CPU"
            ),
            ScState::Queued(domain) => {
                let rank = self.domains[domain].queue.rank(vcpu);
                assert_eq!(rank, Some(v.sc.rank()), "{vcpu} is in its queue");
                assert!(self.is_eligible(vcpu), "{vcpu} competes for something");
                assert!(!self.is_paused(vcpu), "{vcpu} is not paused");
            }
            ScState::Proxied => assert!(
                matches!(v.ec.state, ExecState::Running(_)),
                "{vcpu} is proxied, so it runs"
            ),
            ScState::Parked(_) | ScState::Throttled | ScState::Off => {}
        }
    }

    fn check_delivery(&self, vcpu: VcpuId) {
        let c = self.counters(vcpu);
        let lost = c.lost_to_host_ns + c.lost_to_overcommit_ns;
        let came_of_it = c.delivered_ns + lost + c.undemanded_ns;
        let pending = self.vcpus[vcpu].sc.delivery.pending();
        assert_eq!(
            c.promised_ns,
            came_of_it + pending,
            "{vcpu}: what was promised was delivered, lost or not demanded, or is pending"
        );
    }

    fn check_decisions(&self) {
        for cpu in self.cpus.ids() {
            if let Some(running) = self.cpus.running(cpu) {
                let state = self.vcpus[running.curr].ec.state;
                assert_eq!(state, ExecState::Running(cpu));
                let rank = self.vcpus[running.donor].sc.rank();
                let busy = self.cpus.busy_rank(cpu);
                assert!(
                    busy.is_none_or(|busy| busy == rank),
                    "{cpu} is as urgent as its donor: {busy:?} {rank:?}"
                );
                assert!(
                    self.same_guest(running.donor, running.curr),
                    "a budget stays in its guest"
                );
            }
        }
    }
}
