//! What holds between any two calls. Checked after each of them in debug builds.

use crate::events::Events;
use crate::ids::{CpuId, VcpuId};
use crate::scheduler::Scheduler;
use crate::state::contexts::{ExecState, ScState};

impl<E: Events> Scheduler<E> {
    /// Panics, in debug builds, if the state contradicts itself. O(n), so only there.
    pub(crate) fn check(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        for (i, v) in self.vcpus.iter().enumerate() {
            let id = VcpuId(i as u32);
            match v.ec.state {
                ExecState::Running(cpu) => {
                    let running = self.cpus[cpu.index()].running;
                    assert!(
                        running.is_some_and(|r| r.curr == id),
                        "{id} runs where its CPU says"
                    );
                    assert!(
                        self.blocked_on.edge(id).is_none(),
                        "{id} runs, so it has no edge"
                    );
                }
                ExecState::Runnable { .. } => assert!(
                    !matches!(v.sc.state, ScState::Off | ScState::Proxied),
                    "{id} is runnable, so its claim is somewhere: {:?}",
                    v.sc.state
                ),
                ExecState::Halted | ExecState::Gone => {}
            }
            match v.sc.state {
                ScState::OnCpu(cpu) => assert!(
                    self.cpus[cpu.index()]
                        .running
                        .is_some_and(|r| r.donor == id),
                    "{id} pays where its CPU says"
                ),
                ScState::Queued(domain) => {
                    assert!(
                        self.domains[domain].queue.contains(id.0),
                        "{id} is in its queue"
                    );
                    assert!(self.is_eligible(id), "{id} competes for something");
                }
                ScState::Proxied => assert!(
                    matches!(v.ec.state, ExecState::Running(_)),
                    "{id} rides, so it runs"
                ),
                ScState::Parked(_) | ScState::Throttled | ScState::Off => {}
            }
        }
        for (i, cpu) in self.cpus.iter().enumerate() {
            assert_eq!(
                self.busy.contains(i as u32),
                cpu.running.is_some() && !cpu.kicked,
                "cpu{i} can be kicked for a more urgent claim while it runs and was not"
            );
            if let Some(r) = cpu.running {
                let here = CpuId(i as u32);
                assert_eq!(
                    self.vcpus[r.curr.index()].ec.state,
                    ExecState::Running(here)
                );
                assert!(!self.idle.contains(here), "{here} is busy");
                let guests = [r.donor, r.curr].map(|v| self.vcpus[v.index()].guest);
                assert_eq!(guests[0], guests[1], "a budget stays in its guest");
            }
        }
    }
}
